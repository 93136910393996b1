"""What can be linked: every current record and every identity seen in events, with their identifiers."""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity.spellings import duplicates_avoided
from profile_pipeline.warehouse import (
    built,
    fingerprint,
    fixed_query,
    literal,
    mark_built,
    replace_table,
    transaction,
    upstream,
)


def build_nodes(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.identifiers, identity.nodes and identity.generic_values when their inputs changed."""
    mark = fingerprint(
        upstream(con, ["records.current", "records.events"]),
        {name: space.model_dump() for name, space in config.namespaces.items()},
        config.identity.clustering.model_dump(),
    )
    if built(con, "identity.nodes") == mark:
        return
    with transaction(con):
        _person_namespaces(con, config)
        replace_table(con, "identity.identifiers", _identifiers_query())
        replace_table(con, "identity.nodes", _nodes_query())
        replace_table(con, "identity.generic_values", _generic_query(config))
        con.execute("drop table person_namespaces")
        mark_built(con, "identity.nodes", mark, {"duplicates_avoided": duplicates_avoided(con, config)})
        mark_built(con, "identity.identifiers", mark)
        mark_built(con, "identity.generic_values", mark)


def _person_namespaces(con: DuckDBPyConnection, config: Config) -> None:
    con.execute("create or replace temp table person_namespaces (namespace text)")
    names = [(name,) for name, space in config.namespaces.items() if space.kind == "person"]
    if names:
        con.executemany("insert into person_namespaces values (?)", names)


def _identifiers_query() -> str:
    """Grain: one row a node, namespace and value."""
    subjects = fixed_query("identity/subject_identifiers")
    return (
        "select record_key, source, namespace, value, raw_value, observed_at from records.identifiers"
        f" union all by name select * from ({subjects})"
    )


def _nodes_query() -> str:
    """Grain: one row a node. Kind: record, person (known from events only) or pseudonymous."""
    return """
        select record_key, source, 'record' as kind from records.current
        union all
        select subject, 'event',
            if(split_part(subject[7:], '=', 1) in (select namespace from person_namespaces), 'person', 'pseudonymous')
        from (select distinct subject from records.event_subjects where starts_with(subject, 'event:'))"""


def _generic_query(config: Config) -> str:
    """Values shared by more than k records that disagree on who they are: they identify nobody.

    Disagreement: the number of different birth dates, or of different first letters of name and family name,
    whichever is larger, among the records that carry the value.
    """
    linking = [name for name, space in config.namespaces.items() if space.kind == "person"]
    listed = ", ".join(literal(name) for name in linking) or "null"
    date = _first(config, "birth_date")
    given, family = _first(config, "given_name"), _first(config, "family_name")
    full = _first(config, "full_name")
    name = f"coalesce({given} || ' ' || {family}, {full})"
    return f"""
        select namespace, value, count(*) as record_count,
            greatest(count(distinct {date}), count(distinct {name})) as people_count,
            'shared by more disagreeing people than generic_limit' as reason
        from identity.identifiers i join records.current c using (record_key)
        where namespace in ({listed})
        group by namespace, value
        having greatest(count(distinct {date}), count(distinct {name})) > {config.identity.clustering.generic_limit}"""


def _first(config: Config, kind: str) -> str:
    """The first field of a semantic type, as a column of records.current."""
    return next((f"c.{name}" for name, a in config.attributes.items() if a.type == kind), "null::text")
