"""What stewards decided about pairs of records: append-only, and kept over every rebuild and retraining.

The newest decision of a pair is in effect, unless it withdraws; a later one about a pair always has a later time. A
record may be gone: its decisions wait for it to come back. What they do to clusters belongs to identity, which
pairs need one to review.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from duckdb import DuckDBPyConnection

from profile_pipeline.errors import PipelineError
from profile_pipeline.sheets import LONGEST, Line, Problems, read_sheet, write_sheet
from profile_pipeline.warehouse import records_of, rows, scalar, table_exists, transaction

MATCH, NO_MATCH, WITHDRAWN = "match", "no_match", "withdrawn"
DECISIONS = (MATCH, NO_MATCH, WITHDRAWN)
TABLES = """
create table if not exists identity.decisions (
    decision_id integer primary key, left_key text not null, right_key text not null, decision text not null,
    reason text, author text not null, decided_at timestamptz not null)
"""
NEEDED = ("left_key", "right_key", "decision")
COLUMNS = (*NEEDED, "reason", "author", "decided_at")
"""Columns of a decisions file; the last three may be missing."""
CLOCK_SKEW = timedelta(days=1)
PAIR_ID = "left(sha256(length(left_key) || ':' || left_key || right_key), 12)"
"""SQL of the short name of a pair, the same over all runs: what people type."""
Pair = tuple[str, str]


def effective_query(schema: str = "identity") -> str:
    """SQL of what is in effect: one row a pair (left_key, right_key, decision, decision_id).

    `schema` says where the table is seen from, for another default database.
    """
    return f"""
        select left_key, right_key, decision, decision_id from (
            select left_key, right_key, decision, decision_id from {schema}.decisions
            qualify row_number() over (
                partition by left_key, right_key order by decided_at desc, decision_id desc) = 1)
        where decision <> '{WITHDRAWN}'"""


def fingerprint_of(con: DuckDBPyConnection) -> str | None:
    """A mark that differs after every change of the decisions; None while there are none."""
    if not table_exists(con, "identity.decisions"):
        return None
    [(newest, number)] = rows(con, "select max(decision_id), count(*) from identity.decisions")
    return f"{newest}/{number}" if number else None


# ---------------------------------------------------------------- deciding


def decide(
    con: DuckDBPyConnection,
    pairs: Iterable[Pair],
    decision: str,
    author: str,
    reason: str | None = None,
    *,
    dry_run: bool = False,
) -> int:
    """Decide many pairs, in either order of their keys, all or none; how many.

    A pair of one record with itself or with a key that no record ever had is refused.
    """
    ordered = _ordered(pairs)
    if decision not in DECISIONS:
        raise PipelineError(f"unknown decision `{decision}`; use {', '.join(DECISIONS)}")
    _require_author(author)
    if len(reason or "") > LONGEST:
        raise PipelineError(f"the reason is longer than {LONGEST:,} characters; shorten it")
    con.execute(TABLES)
    with transaction(con):
        _register(con, [(left, right, decision, reason or None, author, None) for left, right in ordered])
        unknown = _unknown_keys(con)
        if unknown:
            raise PipelineError(f"{unknown} of the keys belong to no record; a key is written `source:key`")
        return len(ordered) if dry_run else _append(con)


def _ordered(pairs: Iterable[Pair]) -> list[Pair]:
    found = {(min(pair), max(pair)) for pair in pairs}
    if any(left == right for left, right in found):
        raise PipelineError("a record cannot be decided against itself; name two records")
    return sorted(found)


def _require_author(author: str) -> None:
    if not author.strip() or len(author) > LONGEST:
        raise PipelineError("a decision needs an author; give --author")


def withdraw(
    con: DuckDBPyConnection,
    pairs: Iterable[Pair],
    author: str,
    reason: str | None = None,
    *,
    dry_run: bool = False,
) -> int:
    """Take decisions back, all or none, so that matching decides again; how many."""
    con.execute(TABLES)
    known = {(left, right) for left, right, *_ in rows(con, effective_query())}
    ordered = _ordered(pairs)
    undecided = len([pair for pair in ordered if pair not in known])
    if undecided:
        raise PipelineError(
            f"{undecided} of {len(ordered)} pairs have no decision in effect; `review list --decided` shows those that have"
        )
    return decide(con, ordered, WITHDRAWN, author, reason, dry_run=dry_run)


@dataclass(frozen=True)
class Unmerged:
    """What an unmerge writes: the records on each side, and what it says about the pairs between them."""

    separated: int
    rest: int
    no_match: int
    overruled: int
    """Match decisions between the sides that no longer hold."""


def unmerge(
    con: DuckDBPyConnection,
    profile_id: str,
    record_keys: Sequence[str],
    author: str,
    reason: str | None = None,
    *,
    dry_run: bool = False,
) -> Unmerged:
    """Decide every pair between these records and the rest of their profile `no_match`, in one transaction.

    A match decided between the two sides is overruled: the newer decision of a pair is the one in effect.
    """
    con.execute(TABLES)
    part, rest = _sides(con, profile_id, set(record_keys))
    pairs = _ordered((left, right) for left in part for right in rest)
    standing = {(left, right): decision for left, right, decision, _ in rows(con, effective_query())}
    new = [pair for pair in pairs if standing.get(pair) != NO_MATCH]
    found = Unmerged(len(part), len(rest), len(new), sum(standing.get(pair) == MATCH for pair in pairs))
    if new and not dry_run:
        decide(con, new, NO_MATCH, author, reason or f"unmerged from profile {profile_id}")
    return found


def _sides(con: DuckDBPyConnection, profile_id: str, part: set[str]) -> tuple[list[str], list[str]]:
    if not table_exists(con, "identity.membership"):
        raise PipelineError("no profile yet; `profile-pipeline run` makes the first ones")
    query = "select record_key from identity.membership where to_revision is null and profile_id = ?"
    members = {key for (key,) in rows(con, query, [profile_id])}
    if not members:
        from profile_pipeline.profile_ids import final_redirects_query  # the ledger's stages read decisions

        now = scalar(
            con, f"select successor from ({final_redirects_query()}) where profile_id = ?", [profile_id]
        )
        raise PipelineError(
            f"no active profile has the id {profile_id}" + (f"; its records are now in {now}" if now else "")
        )
    strange = len(part - members)
    if strange:
        raise PipelineError(
            f"{strange} of {len(part)} keys are not in this profile, which has {len(members)} records"
        )
    if not part or part == members:
        raise PipelineError(f"name some, not all, of the {len(members)} records of the profile")
    return sorted(part), sorted(members - part)


# ---------------------------------------------------------------- files


def export_csv(con: DuckDBPyConnection, path: Path) -> int:
    """Write every decision ever made, oldest first; how many."""
    con.execute(TABLES)
    found = rows(
        con,
        """select left_key, right_key, decision, reason, author,
            strftime(decided_at at time zone 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')
        from identity.decisions order by decision_id""",
    )
    return write_sheet(path, COLUMNS, found)


@dataclass(frozen=True)
class Imported:
    """What a file brought."""

    written: int
    known: int
    """Decisions that were already there."""
    undecided: int
    """Rows of a review queue whose decision is empty."""
    waiting: int
    """Decisions of records that are not there now; they hold when the records come back."""


Row = tuple[str, str, str, str | None, str, datetime | None]
"""A decision: both keys in order, decision, reason, author, and when (None: now)."""


def import_csv(con: DuckDBPyConnection, path: Path, author: str, *, dry_run: bool = False) -> Imported:
    """Take decisions from a file of `export_csv`, or a review queue whose decisions were filled in; all or nothing.

    A row with a time is history that comes back, and may name records that are gone. A row without one is a
    new decision of `author`: it needs records that are known, and says nothing where it is in effect already.
    """
    _require_author(author)
    lines = read_sheet(path, NEEDED)
    decided = [
        line for line in lines if line.cells.get("decision", "").strip() or "item_id" not in line.cells
    ]
    problems = Problems(path)
    found = {line.number: _row(line, author, problems) for line in decided}
    numbered = {number: row for number, row in found.items() if row}
    _reject_doubles(numbered, problems)
    problems.raise_any()
    con.execute(TABLES)
    with transaction(con):
        _register(con, list(numbered.values()), list(numbered))
        _reject_unfit(con, problems)
        problems.raise_any()
        waiting = len(_unknown_rows(con, "true", current=True))
        _drop_known(con)
        fresh = scalar(con, "select count(*) from temp.incoming")
        if not dry_run:
            _append(con)
    return Imported(fresh, len(numbered) - fresh, len(lines) - len(decided), waiting)


def _row(line: Line, author: str, problems: Problems) -> Row | None:
    cells = line.cells
    left, right = sorted((cells.get("left_key", ""), cells.get("right_key", "")))
    decision = cells.get("decision", "").strip().lower().replace("-", "_").replace(" ", "_")
    at, wrong = _time(cells.get("decided_at", "").strip())
    if not left or not right:
        problems.add(
            line.number, "left_key or right_key is empty; write a record key, `source:key`, into both"
        )
    elif left == right:
        problems.add(line.number, "both keys are the same record; name two records")
    elif decision not in DECISIONS:
        problems.add(line.number, f"decision must be {', '.join(DECISIONS[:-1])} or {DECISIONS[-1]}")
    elif wrong:
        problems.add(line.number, wrong)
    else:
        return left, right, decision, cells.get("reason") or None, cells.get("author") or author, at
    return None


def _time(text: str) -> tuple[datetime | None, str]:
    """A time, taken as UTC when it names no zone, and what is wrong with it."""
    if not text:
        return None, ""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None, "decided_at is no ISO time; write it as 2026-01-31T12:00:00Z or leave it empty"
    at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    if at > datetime.now(UTC) + CLOCK_SKEW:
        return None, "decided_at lies in the future; leave it empty for now"
    return at, ""


def _reject_doubles(numbered: dict[int, Row], problems: Problems) -> None:
    """One time holds one decision of a pair; an exact repetition is harmless."""
    first: dict[tuple[str, str, datetime | None], tuple[int, Row]] = {}
    for number, row in numbered.items():
        earlier, other = first.setdefault((row[0], row[1], row[5]), (number, row))
        if other[2:] != row[2:]:
            problems.add(number, f"decides the pair of line {earlier} again, differently; keep one of them")


def _reject_unfit(con: DuckDBPyConnection, problems: Problems) -> None:
    for (number,) in _unknown_rows(con, "decided_at is null", current=False):
        problems.add(number, "no record ever had one of these keys; correct the key")
    clashing = rows(
        con,
        """select line from temp.incoming n join identity.decisions o using (left_key, right_key, decided_at)
        where (n.decision, n.reason, n.author) is distinct from (o.decision, o.reason, o.author)""",
    )
    for (number,) in clashing:
        problems.add(
            number, "differs from what is known of this pair and time; empty decided_at to decide anew"
        )


def _unknown_rows(con: DuckDBPyConnection, where: str, *, current: bool) -> list[tuple[int]]:
    known = _known_query(con, current=current)
    return rows(
        con,
        f"""select line from temp.incoming where {where}
            and (left_key not in ({known}) or right_key not in ({known}))""",
    )


# ---------------------------------------------------------------- writing


def _register(con: DuckDBPyConnection, found: Sequence[Row], lines: Sequence[int] = ()) -> None:
    """Write `temp.incoming`: decisions to be checked and appended, in order."""
    kinds = [pa.string()] * 5 + [pa.timestamp("us", tz="UTC")]
    columns = list(zip(*found, strict=True)) or [()] * len(kinds)
    arrays = [pa.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
    numbers = pa.array(lines or range(1, len(found) + 1), pa.int64())
    con.register("incoming_table", pa.table([numbers, *arrays], names=["line", *COLUMNS]))
    con.execute("create or replace temp table incoming as select * from incoming_table")
    con.unregister("incoming_table")


def _known_query(con: DuckDBPyConnection, *, current: bool) -> str:
    """Keys that can be linked now, or that any profile ever had; no key while nothing has run."""
    tables = ["identity.nodes"] if current else ["identity.nodes", "identity.membership"]
    parts = [f"select record_key from {table}" for table in tables if table_exists(con, table)]
    return " union all ".join(parts) or "select null::text where false"


def _unknown_keys(con: DuckDBPyConnection) -> int:
    keys = "select left_key as key from temp.incoming union select right_key from temp.incoming"
    known = _known_query(con, current=False)
    return scalar(con, f"select count(*) from ({keys}) where key not in ({known})")


def _drop_known(con: DuckDBPyConnection) -> None:
    """Leave out repetitions, what is recorded already, and new decisions that change nothing."""
    con.execute(
        f"""delete from temp.incoming where line in (
            with once as (select min(line) as line from temp.incoming group by left_key, right_key, decided_at),
            recorded as (
                select line from temp.incoming join identity.decisions using (left_key, right_key, decided_at)
            ), standing as (
                select line from temp.incoming n left join ({effective_query()}) e using (left_key, right_key)
                where decided_at is null and n.decision = coalesce(e.decision, '{WITHDRAWN}')
                    and (left_key, right_key) not in (
                        select (left_key, right_key) from temp.incoming where decided_at is not null)
            )
            select line from temp.incoming anti join once using (line)
            union all select line from recorded union all select line from standing)"""
    )


def _append(con: DuckDBPyConnection) -> int:
    """Append `temp.incoming`; a new decision of a pair is later than all that are known of it, whatever the clock says."""
    con.execute(
        """insert into identity.decisions
        with newest as (
            select left_key, right_key, max(decided_at) as newest_at from (
                select left_key, right_key, decided_at from identity.decisions
                union all select left_key, right_key, decided_at from temp.incoming) group by all
        )
        select coalesce((select max(decision_id) from identity.decisions), 0)
                + row_number() over (order by line),
            left_key, right_key, decision, reason, author,
            coalesce(decided_at, greatest(?, newest_at + interval 1 microsecond))
        from temp.incoming join newest using (left_key, right_key) order by line""",
        [datetime.now(UTC)],
    )
    return scalar(con, "select count(*) from temp.incoming")


# ---------------------------------------------------------------- reading


def in_effect(con: DuckDBPyConnection) -> list[dict[str, Any]]:
    """What is in effect, newest first: id of the pair, keys, decision, reason, author and time."""
    con.execute(TABLES)
    return records_of(
        con,
        f"""select {PAIR_ID} as item_id, left_key, right_key, d.decision, d.reason, d.author, d.decided_at
        from ({effective_query()}) join identity.decisions d using (left_key, right_key, decision_id)
        order by d.decided_at desc, d.decision_id desc""",
    )


# ---------------------------------------------------------------- agreement


@dataclass(frozen=True)
class Contradiction:
    """A pair decided `no_match` whose ends a chain of match decisions says are one person."""

    item_id: str
    left_key: str
    right_key: str
    decision_id: int
    chain: int
    """Match decisions in the shortest chain; at least two."""


def contradictions(con: DuckDBPyConnection) -> list[Contradiction]:
    """Decisions that cannot all be true, by pair."""
    con.execute(TABLES)
    near: dict[str, list[str]] = defaultdict(list)
    for left, right in rows(
        con, f"select left_key, right_key from ({effective_query()}) where decision = '{MATCH}'"
    ):
        near[left].append(right)
        near[right].append(left)
    apart = rows(
        con,
        f"select left_key, right_key, {PAIR_ID}, decision_id from ({effective_query()}) where decision = '{NO_MATCH}' order by all",
    )
    partners: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for left, right, item_id, decision_id in apart:
        if left in near and right in near:
            partners[left].append((right, item_id, decision_id))
    return [
        Contradiction(item_id, left, right, decision_id, steps[right])
        for left, others in partners.items()
        for steps in [_steps_from(left, near)]
        for right, item_id, decision_id in others
        if right in steps
    ]


def _steps_from(start: str, near: dict[str, list[str]]) -> dict[str, int]:
    """Match decisions on the shortest way from a record to each one that a chain reaches."""
    steps, waiting = {start: 0}, deque([start])
    while waiting:
        node = waiting.popleft()
        for other in near[node]:
            if other not in steps:
                steps[other] = steps[node] + 1
                waiting.append(other)
    return steps


def broken(con: DuckDBPyConnection) -> list[dict[str, Any]]:
    """Decisions in effect on records that are there which identity.clusters does not follow."""
    con.execute(TABLES)
    if not table_exists(con, "identity.clusters"):
        return []
    return records_of(
        con,
        f"""select {PAIR_ID} as item_id, d.decision, left_key, right_key, o.decided_at
        from ({effective_query()}) d join identity.decisions o using (left_key, right_key, decision_id)
        join identity.clusters l on l.record_key = left_key join identity.clusters r on r.record_key = right_key
        where (d.decision = '{MATCH}') <> (l.cluster_key = r.cluster_key) order by decision_id""",
    )
