"""What the ledger answers: where people of an id are now, what happened to it, and what the newest revision did."""

from collections import defaultdict
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.errors import PipelineError
from profile_pipeline.profile_ids.tables import MEMBERS, PENDING
from profile_pipeline.warehouse import records_of, rows


def successors(con: DuckDBPyConnection, profile_id: str) -> list[tuple[str, float]]:
    """Where everybody who ever was in a profile is now: (active id, share of the records that still exist)."""
    return rows(
        con,
        f"""select n.profile_id, count(*) / sum(count(*)) over () as share
        from (select distinct record_key from identity.membership where profile_id = ?)
        join ({MEMBERS}) n using (record_key) group by n.profile_id order by share desc, n.profile_id""",
        [profile_id],
    )


def changes(con: DuckDBPyConnection, since: int) -> dict[str, int]:
    """Number of ledger events of each kind in the revisions after one."""
    found = rows(
        con,
        "select event, count(*) from identity.profile_events where revision > ? group by 1",
        [since],
    )
    return defaultdict(int, dict(found))


def history(con: DuckDBPyConnection, profile_id: str) -> dict[str, Any]:
    """The life of an id: `registry`, `pin`, `events` and `records` in order, `successors`. Raises for unknown ids."""
    registry = records_of(con, "select * from identity.registry where profile_id = ?", [profile_id])
    if not registry:
        raise PipelineError(f"{profile_id} was never given out; `profile-pipeline lookup` finds ids")
    pins = records_of(con, "select * from identity.pins where profile_id = ?", [profile_id])
    return {
        "registry": registry[0],
        "pin": pins[0] if pins else None,
        "events": records_of(con, _EVENTS, [profile_id, profile_id]),
        "records": records_of(con, _RECORDS, [profile_id]),
        "successors": [{"profile_id": i, "share": share} for i, share in successors(con, profile_id)],
    }


_EVENTS = """
    select e.revision, as_of, profile_id, event, other_profile_id, e.record_count, cause, e.model_id
    from identity.profile_events e join identity.revisions using (revision)
    where profile_id = ? or other_profile_id = ? order by e.revision, profile_id, event, other_profile_id"""
_RECORDS = """
    select record_key, from_revision, to_revision, cause from identity.membership
    where profile_id = ? order by from_revision, record_key"""


def pending_totals(con: DuckDBPyConnection) -> list[dict[str, Any]]:
    """The waiting change by kind: profiles, and records that change their id."""
    return records_of(
        con,
        f"""select change, count(*) as profiles, coalesce(sum(moved_count), 0)::bigint as records_moved
        from {PENDING} group by 1 order by 1""",
    )


def largest_pending(con: DuckDBPyConnection, limit: int | None = None) -> list[dict[str, Any]]:
    """The waiting changes (all, or the first few), those that move most records first."""
    return records_of(
        con,
        f"""select change, profile_id, other_profile_id, moved_count, record_count, cause from {PENDING}
        where moved_count is not null or ?::bigint is null
        order by moved_count desc nulls last, profile_id, change, other_profile_id limit coalesce(?, {2**62})""",
        [limit, limit],
    )
