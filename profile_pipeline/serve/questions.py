"""The review queue as published, and decisions about it, which go where `profile-pipeline review decide` puts them."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline import decisions, review
from profile_pipeline.config.project import Project
from profile_pipeline.errors import BusyError, PipelineError
from profile_pipeline.serve.masking import Masks
from profile_pipeline.serve.portrait import fields_said, said_of
from profile_pipeline.serve.shelf import Published
from profile_pipeline.warehouse import connect, records_of, rows, run_lock

Row = dict[str, Any]
PAGE = 20
"""Questions on a page."""
MOST_DECIDED = 200
"""Questions decided at once."""


@dataclass(frozen=True)
class Question:
    """A pair of records that may be one person: both sides field by field, and what the run made of them."""

    item_id: str
    facts: Row
    left: Row
    right: Row
    fields: list[str]
    decision: str | None


class Decided:
    """What was decided since the live generation, so that it is not asked again; threads may ask at once.

    Reading the decisions takes the project's lock, so they are read at the start and when something is decided
    here, never while somebody only looks: a run could not begin at that moment.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        if project.database.exists():
            try:
                with run_lock(project.state), connect(project.database) as con:
                    self._remember(con)
            except BusyError:
                return  # a run is at work: it takes the decisions in anyway

    def of(self, item_id: str) -> str | None:
        """The decision about a question, None while there is none."""
        return self._known.get(item_id)

    def decide(self, item_ids: Sequence[str], decision: str, author: str, reason: str) -> int:
        """Decide questions, or withdraw decisions, all or none; how many. Raises BusyError while a run is at work."""
        if not item_ids:
            raise PipelineError("choose at least one question")
        if len(item_ids) > MOST_DECIDED:
            raise PipelineError(f"at most {MOST_DECIDED} questions are decided at once")
        if not self._project.database.exists():
            raise PipelineError("no run yet; `profile-pipeline run` makes the first one")
        with self._lock, run_lock(self._project.state), connect(self._project.database) as con:
            pairs = review.pairs_of(con, list(item_ids))
            if decision == decisions.WITHDRAWN:
                number = decisions.withdraw(con, pairs, author, reason or None)
            else:
                number = decisions.decide(con, pairs, decision, author, reason or None)
            self._remember(con)
        return number

    def _remember(self, con: DuckDBPyConnection) -> None:
        con.execute(decisions.TABLES)
        query = f"select {decisions.PAIR_ID}, decision from ({decisions.effective_query()})"
        self._known = dict(rows(con, query))


def reasons_of(published: Published) -> dict[str, int]:
    """Questions by reason code, the most telling first."""
    if "review_queue" not in published.tables:
        return {}
    with published.read() as con:
        found = dict(rows(con, "select reason, count(*) from review_queue group by reason"))
    return {reason: found[reason] for reason in review.REASONS if reason in found}


def questions(
    published: Published, decided: Decided, masks: Masks, reason: str | None = None, skip: int = 0
) -> tuple[list[Question], bool]:
    """A page of questions, those of most value first, and whether more follow; decided ones say so."""
    if "review_queue" not in published.tables:
        raise PipelineError("this generation was published without a review queue; run again")
    if reason is not None and reason not in review.REASONS:
        raise PipelineError(f"unknown reason; known: {', '.join(review.REASONS)}")
    with published.read() as con:
        found = records_of(
            con,
            f"""select * from review_queue where ? is null or reason = ? or list_contains(other_reasons, ?)
            order by value desc, item_id limit {PAGE + 1} offset ?""",
            [reason, reason, reason, skip],
        )
        shown = [_question(con, published, decided, masks, row) for row in found[:PAGE]]
    return shown, len(found) > PAGE


def _question(
    con: DuckDBPyConnection, published: Published, decided: Decided, masks: Masks, row: Row
) -> Question:
    said = {}
    for profile_id in {row["left_profile_id"], row["right_profile_id"]} - {None}:
        said |= said_of(con, profile_id, masks)
    left_key, right_key = masks.key(row["left_key"]), masks.key(row["right_key"])
    left, right = said.get(left_key, {}), said.get(right_key, {})
    order = list(published.config.attributes)
    fields = fields_said([{"said": left}, {"said": right}], order)
    facts = {**row, "left_key": left_key, "right_key": right_key}
    return Question(row["item_id"], facts, left, right, fields, decided.of(row["item_id"]))
