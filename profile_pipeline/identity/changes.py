"""What a step of the identity stage still has to look at: the queue that makes cost follow the change.

A step notes the nodes it touched for the step after it, in the transaction that touched them; that step takes the
notes away in the transaction that deals with them. So nothing is lost or done twice when a run is killed between.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import literal

TABLE = "create table if not exists identity.queue (stage text not null, node ubigint not null)"


def note(con: DuckDBPyConnection, stage: str, nodes: str) -> None:
    """Queue the nodes that a query gives (one column, `node`) for a stage."""
    con.execute(TABLE)
    con.execute(f"insert into identity.queue select distinct {literal(stage)}, node from ({nodes})")


def noted_query(stage: str, database: str = "") -> str:
    """Grain: one row a queued node (`node`) of a stage. Needs the table."""
    prefix = f"{database}." if database else ""
    return f"select distinct node from {prefix}identity.queue where stage = {literal(stage)}"


def forget(con: DuckDBPyConnection, stage: str) -> None:
    """Take a stage's notes away: they have been dealt with, or everything was computed afresh."""
    con.execute(TABLE)
    con.execute("delete from identity.queue where stage = ?", [stage])
