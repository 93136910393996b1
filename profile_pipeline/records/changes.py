"""Which records, events and identities known from events the stages that follow have to look at again.

Noted in the transaction that changed them; a stage takes its notes away in the transaction that deals with them.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import literal

STAGES = ("timeline", "nodes", "identifiers")
"""What follows events: the timeline looks at them, the nodes of the identity graph and the identifiers of profiles at subjects."""
RECORDS = "records"
"""Queue of the record keys that the nodes of the identity graph have to look at."""
TABLE = "create table if not exists records.changes (stage text not null, key text not null)"


def note(con: DuckDBPyConnection, stage: str, keys: str) -> None:
    """Queue the keys that a query gives (one column, `key`) for a stage."""
    con.execute(TABLE)
    con.execute(
        f"insert into records.changes select distinct {literal(stage)}, key from ({keys}) where key is not null"
    )


def noted_query(stage: str) -> str:
    """Grain: one row a queued key of a stage. Needs the table."""
    return f"select distinct key from records.changes where stage = {literal(stage)}"


def forget(con: DuckDBPyConnection, *stages: str) -> None:
    """Take the notes of stages away: they have been dealt with, or everything was computed afresh."""
    con.execute(TABLE)
    listed = ", ".join(map(literal, stages))
    con.execute(f"delete from records.changes where stage in ({listed})")
