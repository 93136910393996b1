"""What can be linked: every current record and every identity seen in events, with their identifiers."""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity import changes
from profile_pipeline.identity.fields import match_fields
from profile_pipeline.identity.generic import generic_query
from profile_pipeline.warehouse import (
    built,
    fingerprint,
    fixed_query,
    literal,
    mark_built,
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


def build_nodes(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.identifiers, identity.nodes and identity.generic_values when their inputs changed.

    Nodes that came, went or carry other identifiers than before are noted for the edges.
    """
    base = fingerprint(
        {name: space.model_dump() for name, space in config.namespaces.items()},
        config.identity.clustering.generic_limit,
        match_fields(config),
    )
    mark = fingerprint(upstream(con, ["records.current", "records.events"]), base)
    if built(con, "identity.nodes") == mark:
        return
    whole = not changes.continues(con, "identity.nodes", base)
    with transaction(con):
        _write_identifiers(con, config)
        replace_table(con, "identity.generic_values", generic_query(config))
        replace_table(con, "temp.nodes_now", _nodes_query(config))
        if whole:
            replace_table(con, "identity.nodes", "select * from temp.nodes_now")
        else:
            replace_table(con, "temp.nodes_changed", CHANGED)
            changes.note(con, "edges", "from temp.nodes_changed")
            con.execute("delete from identity.nodes where record_key in (from temp.nodes_changed)")
            con.execute(
                "insert into identity.nodes from temp.nodes_now semi join temp.nodes_changed using (record_key)"
            )
        con.execute("drop table person_namespaces; drop table temp.nodes_now")
        full = mark if whole else changes.last_full(con, "identity.nodes")
        mark_built(con, "identity.nodes", mark, {"base": base, "full": full})
        mark_built(con, "identity.identifiers", mark)
        mark_built(con, "identity.generic_values", mark)


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


def _nodes_query(config: Config) -> str:
    """Grain: one row a node. Kind: record, person (known from events only) or pseudonymous.

    `content` is a hash of the identifiers that link or limit: two nodes with equal content act alike.
    """
    acting = [n for n, s in config.namespaces.items() if s.kind == "person" and (s.link or s.unique)]
    listed = ", ".join(map(literal, acting)) or "null"
    return f"""
        with found as (
            select record_key, source, 'record' as kind from records.current
            union all
            select subject, 'event',
                if(split_part(subject[7:], '=', 1) in (select namespace from person_namespaces), 'person', 'pseudonymous')
            from (select distinct subject from records.event_subjects where starts_with(subject, 'event:'))
        ), held as (
            select record_key, sum(hash(namespace, value, (namespace, value) in (
                select (namespace, value) from identity.generic_values))::hugeint) as held
            from identity.identifiers where namespace in ({listed}) group by record_key
        )
        select record_key, source, kind, hash(source, kind, held) as content from found left join held using (record_key)"""
