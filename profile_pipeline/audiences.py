"""Audiences: who satisfies a condition over the default profile table, with entry and exit."""

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.audiences import Audience
from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.warehouse import (
    built,
    fingerprint,
    literal,
    mark_built,
    replace_table,
    rows,
    scrubbed,
    transaction,
)

TABLE = """create table if not exists audiences.membership (
    audience text not null, profile_id text not null, entered_at timestamptz not null, exited_at timestamptz)"""


def build_audiences(con: DuckDBPyConnection, config: Config) -> None:
    """Bring audiences.membership up to date; times are the as-of time of the newest batch."""
    con.execute(TABLE)
    mark = fingerprint(built(con, "profiles.unified"), config.audiences.model_dump())
    if built(con, "audiences.membership") == mark:
        return
    with transaction(con):
        replace_table(con, "temp.qualified", "select '' as audience, '' as profile_id where false")
        for name, audience in config.audiences.audiences.items():
            _qualify(con, name, audience)
        _enter_and_exit(con)
        con.execute("drop table temp.qualified")
        mark_built(con, "audiences.membership", mark)


def _qualify(con: DuckDBPyConnection, name: str, audience: Audience) -> None:
    try:
        con.execute(f"insert into temp.qualified {audience_query(name, audience)}")
    except duckdb.Error as error:
        raise PipelineError(
            f"audiences.yaml: audiences.{name}.where does not work: {scrubbed(error)}"
        ) from None


def audience_query(name: str, audience: Audience) -> str:
    """The members of an audience: condition and consent, unknown counts as no."""
    consent = f" and coalesce({audience.consent}, false)" if audience.consent else ""
    # a line of its own: a comment at the end of the condition ends there
    condition = f"coalesce((\n{audience.where}\n), false)"
    return f"select {literal(name)}, profile_id from profiles.unified where {condition}{consent}"


def _enter_and_exit(con: DuckDBPyConnection) -> None:
    """A stay that begins and ends at the same as-of time (rules changed twice without data) never happened."""
    as_of = "(select max(as_of) from raw.batches)"
    con.execute(
        f"""update audiences.membership set exited_at = {as_of} where exited_at is null
        and (audience, profile_id) not in (select (audience, profile_id) from temp.qualified)"""
    )
    con.execute("delete from audiences.membership where exited_at = entered_at")
    con.execute(
        f"""insert into audiences.membership select audience, profile_id, {as_of}, null from temp.qualified
        where (audience, profile_id) not in (
            select (audience, profile_id) from audiences.membership where exited_at is null)"""
    )


def sizes(con: DuckDBPyConnection) -> dict[str, int]:
    """Members of each audience now."""
    return dict(
        rows(
            con,
            "select audience, count(*) from audiences.membership where exited_at is null group by 1 order by 1",
        )
    )
