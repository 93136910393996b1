"""Keeps profiles.computed up to date: one row an active profile, a typed column an attribute.

Rows are read again for the profiles that the queue names, and for those of which a row has left (or entered) a window
between the as-of time of the last build and that of this one. Who has another recency or another score among all is told
by the kept parts alone. Only rows that differ are written; audiences are told of those.
"""

from collections.abc import Iterator
from datetime import datetime

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.clock import clock, moment, start_of
from profile_pipeline.computed.compile import (
    KEY,
    TIME,
    days_query,
    fifths_query,
    parts_query,
    parts_table,
    rows_query,
    scores_query,
    shown_query,
    simple,
    windows,
)
from profile_pipeline.computed.faults import blamed
from profile_pipeline.computed.names import marks, of_the_time
from profile_pipeline.config.load import Config
from profile_pipeline.profiles import touched
from profile_pipeline.warehouse import (
    built,
    continues,
    facts,
    fingerprint,
    last_full,
    mark_built,
    replace_table,
    rows,
    scalar,
    transaction,
    upstream,
)

TABLE = "profiles.computed"
FIFTHS = "profiles.computed_fifths"
"""What parts all profiles into fifths, as it was when scores were last shown."""
STEP = "computed"
PROFILES_AT_ONCE = 100_000
"""Profiles whose rows are gathered by one query: counting the values of each, for each attribute, does not fit into memory
for millions of them, and spilled tens of gigabytes."""


def build_computed(con: DuckDBPyConnection, config: Config) -> None:
    """Bring profiles.computed up to date when profiles, events, records, rules or the as-of time changed."""
    as_of = clock(con)
    inputs = ["profiles.unified", "profiles.events", "records.current"]
    mark = fingerprint(upstream(con, inputs), config.computed.model_dump(), as_of)
    kept = built(con, TABLE)
    if kept and facts(con, TABLE).get("inputs") == mark:
        return
    before = facts(con, TABLE).get("as_of")
    base = _base(con, config)
    # a batch taken back takes the clock back
    whole = not continues(con, TABLE, base) or not before or datetime.fromisoformat(before) > as_of
    con.execute(touched.QUEUE)
    try:
        with transaction(con):
            if whole:
                _write_whole(con, config, as_of)
                kept = None
            elif _update(con, config, as_of, datetime.fromisoformat(before)):
                kept = None
            touched.forget(con, STEP)
            full = mark if whole else last_full(con, TABLE)
            # time that changes nothing leaves nothing to do for those that follow
            noted = {"base": base, "full": full, "as_of": as_of.isoformat(), "inputs": mark}
            noted["rules"] = marks(config.computed)
            mark_built(con, TABLE, kept or mark, noted)
    except duckdb.Error as error:
        raise blamed(con, config, as_of, error) from None


def _base(con: DuckDBPyConnection, config: Config) -> str:
    """What has to be as it was for only changes to be looked at."""
    full = [last_full(con, name) for name in ("profiles.candidates", "profiles.unified", "profiles.events")]
    types = {name: a.type for name, a in config.attributes.items()}
    return fingerprint(full, types, config.computed.model_dump(), duckdb.__version__)


def _write_whole(con: DuckDBPyConnection, config: Config, as_of: datetime) -> None:
    pieces = scalar(con, "select count(*) from profiles.unified") // PROFILES_AT_ONCE + 1
    for over in KEY:
        if simple(config, over):
            table, query = parts_table(over), parts_query(config, over, as_of, "temp.piece")
            for piece in range(pieces):
                mine = f"select profile_id from profiles.unified where hash(profile_id) % {pieces} = {piece}"
                replace_table(con, "temp.piece", mine)
                start = f"insert into {table} by name" if piece else f"create or replace table {table} as"
                con.execute(f"{start} {query}")
            con.execute("drop table temp.piece")
    replace_table(con, TABLE, shown_query(config, as_of))
    replace_table(con, FIFTHS, fifths_query(config))


def _update(con: DuckDBPyConnection, config: Config, as_of: datetime, before: datetime) -> bool:
    """Look at what may have moved; whether any row is another one now."""
    moved = [moved_query(config, over, before, as_of) for over in KEY if simple(config, over)]
    replace_table(con, "temp.affected", " union ".join([touched.noted_query(STEP), *moved]))
    for over in KEY:
        if simple(config, over):
            table = parts_table(over)
            con.execute(f"delete from {table} where profile_id in (from temp.affected)")
            con.execute(f"insert into {table} by name {parts_query(config, over, as_of, 'temp.affected')}")
    replace_table(con, "temp.fifths_now", fifths_query(config))
    for query in clock_queries(config, before, as_of):
        con.execute(f"insert into temp.affected {query}")
    replace_table(con, "temp.computed_now", shown_query(config, as_of, "temp.affected"))
    moved_rows = _write_differing(con)
    con.execute(f"create or replace table {FIFTHS} as from temp.fifths_now")
    con.execute("drop table affected; drop table computed_now; drop table fifths_now")
    return moved_rows > 0


def clock_queries(config: Config, before: datetime, as_of: datetime) -> Iterator[str]:
    """Grain: one row a profile with an attribute that moved between two times although no row came or went.

    Needs the parts of now, and temp.fifths_now. What is made of such attributes moves with them.
    """
    for name, attribute in config.computed.attributes.items():
        table = parts_table(attribute.over)
        if attribute.compute == "recency":
            days = [days_query(moment(at), name) for at in (before, as_of)]
            yield f"select profile_id from {table} where {days[0]} <> {days[1]}"
        if attribute.compute == "rfm":
            scores = [scores_query(f"p.{name}", f"{fifths}.{name}") for fifths in ("o", "n")]
            yield f"""select profile_id from {table} p, {FIFTHS} o, temp.fifths_now n
                where o.{name} is distinct from n.{name} and {scores[0]} is distinct from {scores[1]}"""
    if names := of_the_time(config.computed.attributes):
        then, now = (", ".join(f"{table}.{name}" for name in names) for table in ("o", "n"))
        yield f"""select n.profile_id from ({shown_query(config, as_of)}) n join {TABLE} o using (profile_id)
            where ({then}) is distinct from ({now})"""


def moved_query(config: Config, over: str, before: datetime, as_of: datetime) -> str:
    """Grain: one row a profile with a row that left a window, or came to count, between two as-of times."""
    at = TIME[over]
    edges = [(moment(before), moment(as_of))]
    edges += [(start_of(before, within), start_of(as_of, within)) for within in windows(config, over)]
    passed = " or ".join(f"({at} > {old} and {at} <= {new})" for old, new in edges)
    return f"select distinct profile_id from ({rows_query(config, over, f'({passed})')})"


def _write_differing(con: DuckDBPyConnection) -> int:
    """Bring the rows of temp.affected up to date that are not what they were, and count them."""
    differing = replace_table(
        con,
        "temp.differing",
        f"""select coalesce(o.profile_id, n.profile_id) as profile_id
        from (from {TABLE} where profile_id in (from temp.affected)) o
        full join temp.computed_now n on o.profile_id = n.profile_id where o is distinct from n""",
    )
    con.execute(f"delete from {TABLE} where profile_id in (from temp.differing)")
    con.execute(
        f"insert into {TABLE} by name from temp.computed_now semi join temp.differing using (profile_id)"
    )
    touched.note(con, "audiences", "from temp.differing")
    con.execute("drop table differing")
    return differing


def filled(con: DuckDBPyConnection, config: Config) -> dict[str, int]:
    """Profiles that have a value, by attribute; a zero is a value."""
    names = list(config.computed.attributes)
    if not names:
        return {}
    [counts] = rows(con, f"select {', '.join(f'count({name})' for name in names)} from {TABLE}")
    return {f"profiles_with_{name}": n for name, n in zip(names, counts, strict=True)}
