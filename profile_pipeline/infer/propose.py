"""From files to a proposal: read, weigh every column, decide, render."""

import re
from dataclasses import dataclass
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.cross_check import RESERVED_WORDS, TAKEN_TABLES
from profile_pipeline.errors import PipelineError
from profile_pipeline.infer import vocabulary
from profile_pipeline.infer.dates import Tally, tallies
from profile_pipeline.infer.draft import Plan, Question
from profile_pipeline.infer.evidence import (
    Evidence,
    Leaf,
    clean_query,
    column_leaves,
    columns_query,
    gather,
    sample_table,
    spread_json,
)
from profile_pipeline.infer.files import Feed, open_feed
from profile_pipeline.infer.meaning import meaning_of
from profile_pipeline.infer.plan import plan_source
from profile_pipeline.infer.render import attribute_lines, namespace_lines, source_lines
from profile_pipeline.records import normalise
from profile_pipeline.warehouse import literal, rows, scrubbed

__all__ = ["Proposal", "Question", "Row", "infer_source"]
MOST_SOURCES = 20


@dataclass(frozen=True)
class Row:
    """What is proposed for one column. The reason speaks of shares, never of values."""

    source: str
    column: str
    field: str
    type: str
    confidence: float
    reason: str


@dataclass(frozen=True)
class Proposal:
    """One or more sources for the same files; nothing in it is a delivered value.

    `sources`, `attributes` and `namespaces` map names to YAML lines, ready for the rule files.
    """

    sources: dict[str, list[str]]
    attributes: dict[str, str]
    namespaces: dict[str, str]
    rows: list[Row]
    questions: list[Question]
    notes: list[str]

    @property
    def yaml(self) -> str:
        """What would be added: namespaces for identity.yaml, attributes and sources for sources.yaml."""
        lines = [
            "# identity.yaml, where missing",
            "namespaces:",
            *self.namespaces.values(),
            "",
            "# sources.yaml",
        ]
        lines += ["attributes:", *self.attributes.values(), "", "sources:"]
        for source in self.sources.values():
            lines += [*source, ""]
        return "\n".join(lines)


@dataclass
class Part:
    """The rows of one source in the files: its name, condition, evidence and date counts."""

    name: str
    where: str | None
    evidence: list[Evidence]
    dates: dict[int, Tally]


def infer_source(files: list[Path], name: str | None = None) -> Proposal:
    """Propose a source from deliveries; raises PipelineError for files that cannot be read."""
    if name and not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        raise PipelineError(f"`{name}` is not a name for a source; write lower-case letters, digits and _")
    with duckdb.connect(config={"python_enable_replacements": False, "temp_directory": ""}) as con:
        normalise.register(con)
        try:
            return _infer(con, sorted(files), name)
        except (UnicodeError, EOFError, OSError, duckdb.Error) as error:
            names = ", ".join(path.name for path in files)
            raise PipelineError(f"{names}: cannot be read: {scrubbed(error)}; deliver it again") from None


def _infer(con: DuckDBPyConnection, files: list[Path], name: str | None) -> Proposal:
    feed, rest = open_feed(con, files)
    leaves = spread_json(con, feed) if feed.format.type == "jsonl" else column_leaves(con, feed)
    parts = [_look(con, leaves, each, where) for each, where in _split(con, feed, name).items()]
    for query in rest:
        for part in parts:
            listed = ", ".join(f"{clean_query(leaves[i])} as c{i}" for i in part.dates) or "1 as none"
            source = f"select {listed} from ({columns_query(feed, query)}) where {part.where or 'true'}"
            con.execute(f"create or replace temp table later as {source}")
            for tally in part.dates.values():
                tally.add(con, "later")
    plans = []
    for part in parts:
        if len(parts) > 1:
            sample_table(con, leaves, part.where or "true")
        plans.append(_plan(con, feed, part))
    return _proposal(feed, plans)


def _look(con: DuckDBPyConnection, leaves: list[Leaf], name: str, where: str | None) -> Part:
    sample_table(con, leaves, where or "true")
    evidence = gather(con, leaves)
    named = {e.index for e in evidence if _names_time(e.leaf.name)}
    return Part(name, where, evidence, tallies(con, evidence, named))


def _names_time(name: str) -> bool:
    field = vocabulary.field_of(name)
    listed = f"{vocabulary.HAPPENED_WORDS} {vocabulary.UPDATED_WORDS} at on since until"
    return bool(field and field.meaning == "birth_date") or vocabulary.says(name, listed)


def _plan(con: DuckDBPyConnection, feed: Feed, part: Part) -> Plan:
    readings = {index: tally.reading() for index, tally in part.dates.items()}
    meanings = [meaning_of(each, readings.get(each.index)) for each in part.evidence]
    return plan_source(con, part.name, feed, meanings, part.where)


def _split(con: DuckDBPyConnection, feed: Feed, name: str | None) -> dict[str, str | None]:
    """Source names and conditions: one for each value of a column named `source`, if there is such a column."""
    base = name or source_name(feed.files)
    column = next((c for c in feed.columns if c.lower() == "source"), None)
    if column is None:
        return {base: None}
    values = [
        v
        for (v,) in rows(con, f"select distinct {column} from delivered order by 1 limit {MOST_SOURCES + 1}")
    ]
    if not 2 <= len(values) <= MOST_SOURCES or None in values or any(len(v) > 40 for v in values):
        return {base: None}
    return {_part_name(base, v, bool(name)): f"{column} = {literal(v)}" for v in values}


def _part_name(base: str, value: str, named: bool) -> str:
    plain = vocabulary.slug(value)
    return _free(f"{base}_{plain}" if named or len(plain) < 2 else plain)


def source_name(files: list[Path]) -> str:
    """A name from those of the files: crm_2026-01-05.csv gives crm."""
    stem = files[0].name.split(".")[0]
    start = re.split(r"[ _-]*\d{4}|[ _.-]\d", stem)[0] or stem
    return _free(vocabulary.slug(start))


def _free(name: str) -> str:
    return f"{name}_feed" if name in TAKEN_TABLES | RESERVED_WORDS else name[:60]


def _proposal(feed: Feed, plans: list[Plan]) -> Proposal:
    attributes: dict[str, str] = {}
    namespaces: dict[str, str] = {}
    for plan in plans:
        attributes = {**attribute_lines(plan.fields), **attributes}
        namespaces = {**namespace_lines(plan), **namespaces}
    return Proposal(
        sources={plan.name: source_lines(plan) for plan in plans},
        attributes=attributes,
        namespaces=namespaces,
        rows=[row for plan in plans for row in _rows(plan)],
        questions=[
            Question(f"sources.{plan.name}.{q.key}", q.text, q.choices)
            for plan in plans
            for q in plan.questions
        ],
        notes=[*feed.notes, *(note for plan in plans for note in plan.notes)],
    )


def _rows(plan: Plan) -> list[Row]:
    roles = {
        plan.key: "key",
        plan.event_id: "event id",
        plan.event_type: "event type",
        plan.channel: "channel",
    }
    roles |= {plan.time.evidence.leaf.expression: "time"} if plan.time else {}
    fields = {f.meaning.evidence.index: f.attribute for f in plan.fields}
    spaces = {text: space for space, text in plan.identifiers.items()}
    found = []
    for m in plan.meanings:
        text = m.evidence.leaf.expression
        targets = (
            roles.get(text),
            fields.get(m.evidence.index),
            f"identifier {spaces[text]}" if text in spaces else None,
        )
        shown = ", ".join(target for target in targets if target) or "-"
        found.append(
            Row(plan.name, m.name, shown, m.type or "-", m.confidence if shown != "-" else 0.0, m.reason)
        )
    return found
