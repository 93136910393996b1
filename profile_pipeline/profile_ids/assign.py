"""The step of a run: propose, judge, then write the revision or park it for approval."""

from dataclasses import asdict

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity import changes
from profile_pipeline.profile_ids import churn, proposal
from profile_pipeline.profile_ids.causes import caused, circumstances, find_causes, last_circumstances
from profile_pipeline.profile_ids.revision import write_revision
from profile_pipeline.profile_ids.tables import MEMBERSHIP, create_tables
from profile_pipeline.warehouse import (
    built,
    continues,
    fingerprint,
    last_full,
    mark_built,
    rows,
    transaction,
)


def assign_profile_ids(
    con: DuckDBPyConnection, config: Config, *, approve: bool = False, everything: bool = False
) -> None:
    """Bring the ledger up to date with identity.clusters; atomic, and nothing when nothing changed.

    A change beyond the limits of `churn:` is written only when approved; else it waits in
    identity.pending_changes. `everything` looks at untouched profiles too: the result is the same.
    """
    create_tables(con)
    pins = rows(con, "select profile_id, record_key from identity.pins order by profile_id")
    mark = fingerprint(built(con, "identity.clusters"), pins)
    base = last_full(con, "identity.clusters")
    if built(con, MEMBERSHIP) == mark and not churn.pending(con):
        return
    with transaction(con):
        proposal.propose(con, config, known=continues(con, MEMBERSHIP, base), everything=everything)
        effect = churn.effect_of(con, config)
        lines = churn.over_limits(effect, config.identity.churn)
        if proposal.changes_something(con):
            _settle(con, config, effect, lines, approve=approve)
        if approve or not lines:
            churn.clear(con)
            changes.forget(con, "ids")
            mark_built(con, MEMBERSHIP, mark, {**asdict(effect), "base": base})
        for table in proposal.TEMPORARY:
            con.execute(f"drop table {table}")


def _settle(
    con: DuckDBPyConnection, config: Config, effect: churn.Effect, lines: list[str], *, approve: bool
) -> None:
    """Write what is proposed, or park it where it exceeds limits and nobody approved."""
    now = circumstances(con, config)
    find_causes(con, now, last_circumstances(con))
    approved = bool(lines) and approve
    events = caused(proposal.happened_query(), approved=approved)
    if lines and not approve:
        churn.park(con, events, lines)
    else:
        write_revision(con, now, effect, events, approved=approved)
    con.execute("drop table causes; drop table expired_nodes")
