"""Batches: what each run took in, what became of it, and a steward's decision that one counts no more.

A decision is a row of raw.batch_decisions; delivered rows stay where they are. Which files count is the business of
`raw.ledger`, what history keeps of a batch that of `replay`, which the next run calls.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline import replay
from profile_pipeline.errors import PipelineError
from profile_pipeline.metrics import FATES
from profile_pipeline.raw import ledger
from profile_pipeline.warehouse import records_of, rows, scalar, table_exists, transaction

REVERT, RESTORE = "revert", "restore"
TABLE = """create table if not exists raw.batch_decisions (
    batch integer not null, action text not null, author text not null, reason text not null,
    decided_at timestamptz not null)"""
STANDING = f"""
    select batch, author, reason, decided_at from raw.batch_decisions
    qualify row_number() over (partition by batch order by decided_at desc, rowid desc) = 1 and action = '{REVERT}'"""
"""Grain: one row a batch that is reverted by the newest decision about it."""
KNOWN = "select batch, as_of from raw.batches union all select batch, as_of from raw.reverted_batches"


@dataclass(frozen=True)
class Effect:
    """What a revert or a restore takes out of, or lets back into, everything derived."""

    batch: int
    files: int
    rows: int
    current_records: int
    profiles: int
    new_profile_ids: int
    replayed_batches: int


def create_tables(con: DuckDBPyConnection) -> None:
    """The ledger's tables and the decisions about batches, if they are not there yet."""
    ledger.create_tables(con)
    con.execute(TABLE)


def listed(con: DuckDBPyConnection) -> list[dict[str, Any]]:
    """Every batch, newest first: as-of time, files, rows and rows by fate; who reverted it and why.

    Fates are those of the last run.
    """
    create_tables(con)
    sums = ", ".join(f"t.{fate}" for fate in FATES)
    return records_of(
        con,
        f"""select batch, as_of, files, rows, {sums}, s.batch is not null as taken_back, s.author as reverted_by,
            s.reason as reverted_because
        from ({KNOWN}) left join ({_delivered_query()}) using (batch) left join ({_fates_query(con)}) t using (batch)
        left join ({STANDING}) s using (batch) order by batch desc""",
    )


def _delivered_query() -> str:
    return "select batch, count(*) as files, sum(row_count)::bigint as rows from raw.files group by batch"


def _fates_query(con: DuckDBPyConnection) -> str:
    if not table_exists(con, "metrics.row_fates"):
        nothing = ", ".join(f"null::bigint as {fate}" for fate in FATES)
        return f"select null::integer as batch, {nothing} where false"
    sums = ", ".join(f"sum({fate})::bigint as {fate}" for fate in FATES)
    return f"select batch, {sums} from metrics.row_fates group by batch"


def show(con: DuckDBPyConnection, batch: int) -> dict[str, Any]:
    """One batch: what `listed` says, its `files`, the `decisions` about it, and the `events` of ids in its runs."""
    found = next((entry for entry in listed(con) if entry["batch"] == batch), None)
    if found is None:
        raise _unknown(batch)
    return found | {
        "files": records_of(con, _FILES, [batch]),
        "decisions": records_of(con, _DECISIONS, [batch]),
        "events": dict(rows(con, _EVENTS, [batch])) if table_exists(con, "identity.profile_events") else {},
    }


_FILES = """select source, name, state, row_count, rejected_count, reason from raw.files where batch = ? order by file_id"""
_DECISIONS = """select action, author, reason, decided_at from raw.batch_decisions where batch = ? order by decided_at"""
_EVENTS = """select event, count(*) from identity.profile_events join identity.revisions using (revision)
    where batch = ? group by 1 order by 1"""


def _unknown(batch: int) -> PipelineError:
    return PipelineError(f"no batch {batch}; `profile-pipeline batch list` shows batches")


def effect(con: DuckDBPyConnection, batch: int) -> Effect:
    """What taking a batch back, or letting it in again, concerns; nothing is changed."""
    entry = show(con, batch)
    held = profiles = minted = 0
    if table_exists(con, "records.current") and table_exists(con, "identity.membership"):
        [(held, profiles)] = rows(
            con,
            "select count(*), count(distinct profile_id) from records.current c left join identity.membership m"
            " on m.record_key = c.record_key and m.to_revision is null where c.batch = ?",
            [batch],
        )
        minted = entry["events"].get("created", 0)
    later = scalar(con, "select count(*) from raw.batches where batch > ?", [batch])
    return Effect(batch, len(entry["files"]), entry["rows"] or 0, held, profiles, minted, later)


def revert(
    con: DuckDBPyConnection, batch: int, author: str, reason: str, decided_at: datetime | None = None
) -> int:
    """Take a batch out of everything from the next run on, as if it had never come; the number of its files.

    Raises PipelineError for a batch that is unknown or reverted already, and without an author and a reason.
    """
    entry = show(con, batch)
    if entry["taken_back"] or not any(f["state"] in {"found", "loaded", "duplicate"} for f in entry["files"]):
        raise PipelineError(f"batch {batch} has no files that count; `profile-pipeline batch show {batch}`")
    return _decide(con, batch, REVERT, author, reason, decided_at)


def restore(
    con: DuckDBPyConnection, batch: int, author: str, reason: str, decided_at: datetime | None = None
) -> int:
    """Let a reverted batch count again from the next run on, as if it had never been reverted; the number of its files."""
    if not show(con, batch)["taken_back"]:
        raise PipelineError(f"batch {batch} is not reverted; `profile-pipeline batch list` shows which are")
    return _decide(con, batch, RESTORE, author, reason, decided_at)


def _decide(
    con: DuckDBPyConnection, batch: int, action: str, author: str, reason: str, decided_at: datetime | None
) -> int:
    if not author.strip() or not reason.strip():
        raise PipelineError(f"batch {batch}: give an author and a reason: --reason '...'")
    change = ledger.take_out if action == REVERT else ledger.put_back
    with transaction(con):
        con.execute(
            "insert into raw.batch_decisions values (?, ?, ?, ?, ?)",
            [batch, action, author.strip(), reason.strip(), decided_at or datetime.now(UTC)],
        )
        replay.note(con, batch)
        return change(con, batch)
