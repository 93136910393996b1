"""Writes a proposed revision into the ledger."""

from duckdb import DuckDBPyConnection

from profile_pipeline.profile_ids.causes import Circumstances
from profile_pipeline.profile_ids.churn import Effect
from profile_pipeline.warehouse import scalar


def write_revision(
    con: DuckDBPyConnection, now: Circumstances, effect: Effect, events: str, *, approved: bool
) -> None:
    """Registry, redirects, membership and events as temp.shift has them; `events` is the query of what happened."""
    revision = (scalar(con, "select max(revision) from identity.revisions") or 0) + 1
    _note_events(con, revision, now.model_id, events)
    _enter(con, revision, now, effect, approved=approved)
    _retire(con, revision)
    _revive(con)
    _register_minted(con, revision)
    _move_records(con, revision)
    con.execute("update identity.pins set revision = ? where revision is null", [revision])


def _enter(
    con: DuckDBPyConnection, revision: int, now: Circumstances, effect: Effect, *, approved: bool
) -> None:
    con.execute(
        """insert into identity.revisions by name
        select ? as revision, max(batch) as batch, max(as_of) as as_of, ? as model_id, ? as rules, ? as threshold,
            ?::ubigint[] as generic_values, ? as decision_id, ? as approved, ? as profile_count, ? as record_count
        from raw.batches""",
        [
            revision, now.model_id, now.rules, now.threshold, now.generic_values, now.decision_id, approved,
            effect.profiles_after, effect.records_after,
        ],
    )  # fmt: skip


def _note_events(con: DuckDBPyConnection, revision: int, model: str | None, events: str) -> None:
    con.execute(
        f"""insert into identity.profile_events by name
        select ? as revision, profile_id, event, other_profile_id, record_count, ? as model_id, cause
        from ({events}) order by profile_id, event, other_profile_id""",
        [revision, model],
    )


def _retire(con: DuckDBPyConnection, revision: int) -> None:
    """Ids without a cluster: `merged` into where most of their records went, or `emptied`."""
    con.execute(
        """update identity.registry r set status = 'retired', retired_revision = ?,
            reason = if(t.successor is null, 'emptied', 'merged')
        from temp.retiring t where t.profile_id = r.profile_id""",
        [revision],
    )
    con.execute(
        "insert or replace into identity.redirects select profile_id, successor, ? from temp.retiring"
        " where successor is not null",
        [revision],
    )


def _revive(con: DuckDBPyConnection) -> None:
    """An active id never redirects."""
    con.execute(
        "update identity.registry set status = 'active', retired_revision = null, reason = null"
        " where profile_id in (select profile_id from temp.reviving)"
    )
    con.execute("delete from identity.redirects where profile_id in (select profile_id from temp.reviving)")


def _register_minted(con: DuckDBPyConnection, revision: int) -> None:
    con.execute(
        "insert into identity.registry select profile_id, 'active', ?, null, null, birth_record_key, generation"
        " from temp.minted",
        [revision],
    )


def _move_records(con: DuckDBPyConnection, revision: int) -> None:
    con.execute(
        """update identity.membership m set to_revision = ? from temp.shift s
        where m.to_revision is null and m.node = s.node and s.old_id is distinct from s.new_id""",
        [revision],
    )
    con.execute(
        """insert into identity.membership
        select record_key, new_id, ?, null,
            case when old_id is null then 'new'
                when old_id in (select profile_id from temp.retiring) then 'merged'
                when how = 'minted' or new_id in (select profile_id from temp.reviving) then 'split'
                else 'moved' end,
            node
        from temp.shift where new_id is not null and old_id is distinct from new_id""",
        [revision],
    )
