"""How long the events of a source stay in the timeline: those that grew older are expired, and counted.

The delivered rows stay in raw and in records.<source>, so a longer `retention:` brings their events back. The clock is
the as-of time of the newest batch.
"""

from datetime import datetime, timedelta

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.raw import ledger
from profile_pipeline.warehouse import literal, rows, table_exists

TABLE = """create table if not exists records.expired_events (event_key text, source text, occurred_at timestamptz,
    batch integer, _file integer, _line bigint);
alter table records.expired_events add column if not exists person ubigint;
alter table records.expired_events add column if not exists device ubigint;
"""
"""Grain: one row an event that its source keeps no more. `person`, `device`: hashes of the identities it stated."""


def cutoffs(con: DuckDBPyConnection, config: Config) -> dict[str, datetime]:
    """The time before which events of a source are expired, for the sources that keep theirs for a time."""
    days = {name: s.retention_days for name, s in config.event_sources.items() if s.retention_days}
    now = ledger.as_of(con) if days else None
    return {name: now - timedelta(days=kept) for name, kept in days.items()} if now else {}


def kept(con: DuckDBPyConnection, config: Config, name: str) -> str:
    """A condition on `occurred_at`: the source still keeps the event."""
    cutoff = cutoffs(con, config).get(name)
    return f"occurred_at >= {literal(cutoff.isoformat())}::timestamptz" if cutoff else "true"


def preview(con: DuckDBPyConnection, config: Config) -> list[dict[str, object]]:
    """What the next build of the events does under the rules as they are now, by event source; changes nothing.

    Counts of events: in the timeline, of these to leave it, and of expired ones to come back.
    """
    limits = cutoffs(con, config)
    found: list[dict[str, object]] = []
    for name, source in config.event_sources.items():
        old = f"occurred_at < {literal(limits[name].isoformat())}::timestamptz" if name in limits else "false"
        held, leaving = _counted(con, "records.events", name, old)
        _, returning = _counted(con, "records.expired_events", name, f"not ({old})")
        found.append(
            {
                "source": name,
                "retention": source.retention or "for good",
                "events": held,
                "would_leave": leaving,
                "would_return": returning,
            }
        )
    return found


def _counted(con: DuckDBPyConnection, table: str, source: str, where: str) -> tuple[int, int]:
    """Events of a source in a table, and those of them that satisfy a condition."""
    if not table_exists(con, table):
        return 0, 0
    query = f"select count(*), count(*) filter ({where}) from {table} where source = ?"
    [(total, found)] = rows(con, query, [source])
    return total, found
