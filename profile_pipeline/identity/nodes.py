"""What can be linked: every current record and every identity seen in events, with their identifiers."""

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity import changes
from profile_pipeline.identity.fields import IDENTIFYING, match_fields
from profile_pipeline.identity.generic import first_fields, generic_query
from profile_pipeline.warehouse import (
    built,
    continues,
    fingerprint,
    fixed_query,
    last_full,
    mark_built,
    quote,
    replace_table,
    table_kind,
    transaction,
    upstream,
)

IDENTIFIERS = """
    select record_key, source, namespace, value, raw_value, observed_at from records.identifiers
    union all by name
    select * from identity.subject_identifiers"""
"""Grain: one row a node, namespace and value."""
CHANGED = """
    select coalesce(n.record_key, o.record_key) as record_key
    from temp.nodes_now n full join identity.nodes o using (record_key) where n.content is distinct from o.content"""
FLIPPED = """
    (select namespace, value, reason from temp.generic_now except select namespace, value, reason from identity.generic_values)
    union all
    (select namespace, value, reason from identity.generic_values except select namespace, value, reason from temp.generic_now)"""


def build_nodes(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.identifiers, identity.nodes and identity.generic_values when their inputs changed.

    Nodes that came, went or carry other identifiers than before are noted for the edges.
    """
    base = fingerprint(
        {name: space.model_dump() for name, space in config.namespaces.items()},
        config.identity.clustering.generic_limit,
        match_fields(config),
        _looked_at(config),
        duckdb.__version__,
    )
    mark = fingerprint(upstream(con, ["records.current", "records.events"]), base)
    if built(con, "identity.nodes") == mark:
        return
    whole = not continues(con, "identity.nodes", base)
    with transaction(con):
        _write_identifiers(con, config)
        replace_table(con, "temp.nodes_now", _nodes_query(config))
        if whole:
            replace_table(con, "identity.generic_values", generic_query(config))
            replace_table(con, "identity.nodes", "select * from temp.nodes_now")
        else:
            _update(con, config)
        con.execute("drop table person_namespaces; drop table temp.nodes_now")
        full = mark if whole else last_full(con, "identity.nodes")
        mark_built(con, "identity.nodes", mark, {"base": base, "full": full})
        mark_built(con, "identity.identifiers", mark)
        mark_built(con, "identity.generic_values", mark)


def _update(con: DuckDBPyConnection, config: Config) -> None:
    """Write what changed; notes nodes that differ, and those with a value that became generic or is so no more."""
    replace_table(con, "temp.nodes_changed", CHANGED)
    con.execute("delete from identity.nodes where record_key in (from temp.nodes_changed)")
    con.execute(
        "insert into identity.nodes from temp.nodes_now semi join temp.nodes_changed using (record_key)"
    )
    replace_table(con, "temp.generic_now", generic_query(config, "temp.nodes_changed"))
    if replace_table(con, "temp.flipped", FLIPPED):
        con.execute(f"insert into temp.nodes_changed {_carriers_query(config)}")
    replace_table(con, "identity.generic_values", "from temp.generic_now")
    for stage in ("features", "edges"):
        changes.note(con, stage, "from temp.nodes_changed")
    con.execute("drop table temp.nodes_changed; drop table temp.generic_now; drop table temp.flipped")


def _carriers_query(config: Config) -> str:
    """Grain: one row a node and value of temp.flipped that it carries, as an identifier or in a match field."""
    fields = {
        f
        for found in match_fields(config).values()
        for f in found
        if config.attributes[f].type in IDENTIFYING
    }
    return (
        "select record_key from identity.identifiers where (namespace, value) in (select (namespace, value) from flipped)"
        + "".join(
            f" union all select record_key from records.current where {quote(f)} in (select value from flipped)"
            for f in sorted(fields)
        )
    )


def _write_identifiers(con: DuckDBPyConnection, config: Config) -> None:
    """identity.identifiers is a view: those of records are kept by the records stage, those of events here."""
    _person_namespaces(con, config)
    mark = fingerprint(upstream(con, ["records.events"]), sorted(config.namespaces))
    if built(con, "identity.subject_identifiers") != mark:
        replace_table(con, "identity.subject_identifiers", fixed_query("identity/subject_identifiers"))
        mark_built(con, "identity.subject_identifiers", mark)
    if table_kind(con, "identity.identifiers") == "BASE TABLE":
        con.execute("drop table identity.identifiers")  # as versions before 0.2 had it
    con.execute(f"create or replace view identity.identifiers as {IDENTIFIERS}")


def _person_namespaces(con: DuckDBPyConnection, config: Config) -> None:
    con.execute("create or replace temp table person_namespaces (namespace text)")
    names = [(name,) for name, space in config.namespaces.items() if space.kind == "person"]
    if names:
        con.executemany("insert into person_namespaces values (?)", names)


def _looked_at(config: Config) -> list[str]:
    """Fields of records.current that matching, limits and the detection of generic values look at."""
    matched = {field for fields in match_fields(config).values() for field in fields}
    return sorted(matched | set(config.identity.clustering.never_differ) | set(first_fields(config).values()))


def _nodes_query(config: Config) -> str:
    """Grain: one row a node. Kind: record, person (known from events only) or pseudonymous.

    `content` is a hash of all that links, limits or is compared: two nodes with equal content act alike.
    """
    content = ", ".join(["source", "identifiers", *map(quote, _looked_at(config))])
    return f"""
        with stated as (
            select record_key, sum(hash(namespace, value)::hugeint) as held from identity.subject_identifiers group by record_key
        )
        select record_key, source, 'record' as kind, hash({content}) as content from records.current
        union all
        select subject, 'event',
            if(split_part(subject[7:], '=', 1) in (select namespace from person_namespaces), 'person', 'pseudonymous'),
            hash('event', held)
        from (select distinct subject from records.event_subjects where starts_with(subject, 'event:'))
        left join stated on record_key = subject"""
