"""Who is in which audience now: one row a profile with all that conditions look at, evaluated set by set."""

from contextlib import suppress
from datetime import datetime

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.audiences import external
from profile_pipeline.audiences.asked import columns_named, event_conditions, of_types
from profile_pipeline.audiences.leaves import (
    Leaf,
    Types,
    audience_column,
    event_columns,
    event_condition,
    holds_query,
    leaves_of,
    sequence_key,
)
from profile_pipeline.audiences.sequences import sequence_query
from profile_pipeline.clock import clock, moment, start_of
from profile_pipeline.computed.compile import read
from profile_pipeline.config.audience_check import in_order
from profile_pipeline.config.audiences import Condition
from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.warehouse import columns_of, literal, replace_table, scrubbed, table_exists

FACTS = "temp.audience_facts"
EVENT_COLUMNS = "profile_id, event_key, source, event_type, channel, occurred_at, payload"


def evaluate(con: DuckDBPyConnection, config: Config, into: str, only: str = "") -> None:
    """Write who is in which audience at the as-of time of the newest batch (grain: audience, profile_id).

    `only`: a relation of the profiles to look at; default all. Raises PipelineError that names the audience at fault.
    """
    external.create_tables(con)
    write_facts(con, config, clock(con), only)
    write_members(con, config, into, only)
    con.execute(f"drop table {FACTS}")


def write_members(con: DuckDBPyConnection, config: Config, into: str, only: str = "") -> None:
    """What `evaluate` does when temp.audience_facts is there already."""
    as_of, names = clock(con), in_order(config.audiences)
    replace_table(con, into, "select ''::text as audience, ''::text as profile_id limit 0")
    columns = ", ".join(["profile_id", *map(audience_column, names)])
    try:
        replace_table(
            con, "temp.evaluated", f"select {columns} from ({evaluated_query(con, config, as_of, only)})"
        )
    except duckdb.Error as error:
        blamed = _blamed(con, config, as_of, only, error)
        with suppress(duckdb.TransactionException):  # what a transaction has made is gone with it
            con.execute(f"drop table if exists {FACTS}; drop table if exists {into}")
        raise blamed from None
    for name in names:
        con.execute(
            f"insert into {into} select {literal(name)}, profile_id from temp.evaluated where {audience_column(name)}"
        )
    con.execute("drop table temp.evaluated")


def _blamed(
    con: DuckDBPyConnection, config: Config, as_of: datetime, only: str, error: duckdb.Error
) -> PipelineError:
    """The error with the audience in which it comes up: the first with which evaluating the ones before it fails."""
    names = in_order(config.audiences)
    for number, name in enumerate(names, 1):
        try:
            query = evaluated_query(con, config, as_of, only, names[:number])
            con.execute(f"select count({audience_column(name)}) from ({query})").fetchall()
        except duckdb.TransactionException:
            break
        except duckdb.Error as own:
            key = ".where" if config.audiences.audiences[name].kind == "where" else ""
            return PipelineError(f"audiences.yaml: audiences.{name}{key} does not work: {scrubbed(own)}")
    return PipelineError(f"audiences.yaml: audiences: a condition does not work: {scrubbed(error)}")


# ---------------------------------------------------------------- what conditions look at


def write_facts(con: DuckDBPyConnection, config: Config, as_of: datetime, only: str = "") -> None:
    """Write temp.audience_facts (grain: one row a profile with events): counts, last times and sequences of conditions."""
    try:
        found = ""
        if only and event_conditions(config):  # every step of every sequence looks at them
            replace_table(con, "temp.events_looked_at", events_query(config, as_of, only))
            found = "from temp.events_looked_at"
        replace_table(con, FACTS, facts_query(config, as_of, found))
    except duckdb.Error as error:
        raise PipelineError(
            f"audiences.yaml: audiences: a condition over events does not work: {scrubbed(error)}; use try_cast in it"
        ) from None
    con.execute("drop table if exists temp.events_looked_at")


def facts_query(config: Config, as_of: datetime, found: str = "") -> str:
    """Grain: one row a profile with an event that a condition looks at; `found`: a query of these events, default all."""
    conditions = event_conditions(config)
    if not conditions:
        return "select ''::text as profile_id limit 0"
    events = f"({found or events_query(config, as_of)})"
    columns: dict[str, str] = {}
    for condition in conditions:
        if condition.kind == "event":
            columns |= _counted(condition, as_of)
    sequences = {sequence_key(c): c for c in conditions if c.kind == "sequence"}
    joined = "".join(
        f" left join ({sequence_query(c, events, as_of)}) using (profile_id)" for c in sequences.values()
    )
    counted = "".join(f", {query} as {name}" for name, query in columns.items())
    return f"select * from (select profile_id{counted} from {events} group by profile_id){joined}"


def _counted(condition: Condition, as_of: datetime) -> dict[str, str]:
    counted, last = event_columns(condition)
    wanted = event_condition(condition)
    inside = f" and occurred_at > {start_of(as_of, condition.within)}" if condition.within else ""
    return {
        counted: f"count(*) filter ({wanted}{inside})",
        last: f"max(occurred_at) filter ({wanted})",
    }


def events_query(config: Config, as_of: datetime, only: str = "") -> str:
    """Grain: one row an event of a profile up to the as-of time, of the types that conditions name."""
    whose = f"in (from {only})" if only else "is not null"
    named = columns_named(config, event_conditions(config))
    more = "".join(f", {read(column.value, column.type)} as {name}" for name, column in named.items())
    return (
        f"select {EVENT_COLUMNS}{more}, {moment(as_of)} as as_of from profiles.events where profile_id {whose}"
        f" and occurred_at <= {moment(as_of)}{of_types(config)}"
    )


def types_of(con: DuckDBPyConnection) -> Types:
    """DuckDB types of the columns of the profile table and the computed attributes."""
    tables = [name for name in ("profiles.computed", "profiles.unified") if table_exists(con, name)]
    kinds = {name: kind for table in tables for name, kind in columns_of(con, table).items()}
    return {name: kind.lower().replace("varchar", "text") for name, kind in kinds.items()}


def rows_query(con: DuckDBPyConnection, as_of: datetime, only: str = "") -> str:
    """Grain: one row an active profile with every column that conditions may name; needs temp.audience_facts."""
    computed = table_exists(con, "profiles.computed")
    more = ", c.* exclude (profile_id)" if computed else ""
    joined = " left join profiles.computed c using (profile_id)" if computed else ""
    narrowed = f" where profile_id in (from {only})" if only else ""
    return f"""select u.*{more}, f.* exclude (profile_id), {moment(as_of)} as as_of
        from profiles.unified u{joined} left join {FACTS} f using (profile_id){narrowed}"""


def evaluated_query(
    con: DuckDBPyConnection, config: Config, as_of: datetime, only: str = "", names: list[str] | None = None
) -> str:
    """Grain: one row a profile: what conditions look at, and a column an audience that says whether it is a member.

    `names`: only these audiences, with all that they name, in order.
    """
    types = types_of(con)
    # an audience may name those before it: DuckDB lets a select list use its own columns
    found = "".join(
        f",\n{holds_query(config, types, name, as_of)} as {audience_column(name)}"
        for name in (in_order(config.audiences) if names is None else names)
    )
    return f"select *{found} from ({rows_query(con, as_of, only)})"


def leaves(con: DuckDBPyConnection, config: Config, name: str) -> list[Leaf]:
    """The leaves of an audience, as they are now."""
    return leaves_of(config, types_of(con), name, clock(con))
