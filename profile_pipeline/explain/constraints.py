"""Limits and set-aside values that had a say in what a profile holds, in words."""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.explain.members import MEMBER_TABLE
from profile_pipeline.identity.clusters import limited_query, limits
from profile_pipeline.profile_ids import MEMBERS
from profile_pipeline.warehouse import literal, quote, rows, scalar


def constraints(con: DuckDBPyConnection, config: Config) -> tuple[str, ...]:
    """What acted on temp.explained: limits reached, links cut by limits, generic values."""
    return (*_cut(con), *_reached(con, config), *_generic(con, config))


def _cut(con: DuckDBPyConnection) -> list[str]:
    found = rows(
        con,
        f"""select reason, count(*) from identity.cut_links
        where left_key in (from {MEMBER_TABLE}) <> (right_key in (from {MEMBER_TABLE}))
        group by reason order by reason""",
    )
    return [
        f"{count} {'link does' if count == 1 else 'links do'} not hold: {reason}" for reason, count in found
    ]


def _reached(con: DuckDBPyConnection, config: Config) -> list[str]:
    most = limits(config)
    held = _held(con, config, f"select record_key, 0 as n from {MEMBER_TABLE}")
    size = scalar(con, f"select count(*) from {MEMBER_TABLE}")
    found = [f"{named(kind)}: {count} of at most {most[kind]}" for kind, count in held if count >= most[kind]]
    largest = config.identity.clustering.max_cluster_size
    return found + ([f"records: {size} of at most {largest}"] if size >= largest else [])


def broken_limits(con: DuckDBPyConnection, config: Config, other: str | None) -> list[str]:
    """The limits that temp.explained and another profile would break together, in words."""
    if other is None:
        return []
    both = f"""select record_key, 0 as n from ({MEMBERS})
        where profile_id = {literal(other)} or record_key in (from {MEMBER_TABLE})"""
    most = limits(config)
    broken = [
        f"together {count} values of {named(kind)}, at most {most[kind]}"
        for kind, count in _held(con, config, both)
        if count > most[kind]
    ]
    size, largest = scalar(con, f"select count(*) from ({both})"), config.identity.clustering.max_cluster_size
    return broken + ([f"together {size} records, at most {largest}"] if size > largest else [])


def _held(con: DuckDBPyConnection, config: Config, members: str) -> list[tuple[str, int]]:
    """Number of different values of each limited kind among members (record_key, n)."""
    most = limits(config)
    if not most:
        return []
    query = limited_query(most, f"(select *, hash(record_key) as node from ({members}))")
    return rows(con, f"select kind, count(distinct value) from ({query}) group by kind order by kind")


def named(kind: str) -> str:
    """A limited kind in words."""
    where, _, name = kind.partition(":")
    return {"source": f"records of {name}", "field": name}.get(where, kind)


def _generic(con: DuckDBPyConnection, config: Config) -> list[str]:
    """Generic values that members carry: identifiers, and match fields that no namespace covers."""
    fields = [name for name in config.attributes if name not in config.namespaces]
    known = {name for (name,) in rows(con, "select distinct namespace from identity.generic_values")}
    carried = f"select namespace, value from identity.identifiers where record_key in (from {MEMBER_TABLE})"
    for field in sorted(known & set(fields)):
        carried += f""" union all select {literal(field)}, {quote(field)} from records.current
            where record_key in (from {MEMBER_TABLE})"""
    found = rows(
        con,
        f"""select namespace, value, reason, record_count, people_count from identity.generic_values
        where (namespace, value) in ({carried}) order by namespace, value""",
    )
    return [
        f"{namespace} {value} is set aside, {reason} ({records} records, {people} people)"
        for namespace, value, reason, records, people in found
    ]
