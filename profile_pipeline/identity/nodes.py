"""What can be linked: every current record and every identity seen in events, with their identifiers."""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity import changes
from profile_pipeline.identity.features import IDENTIFYING, match_fields
from profile_pipeline.identity.spellings import duplicates_avoided
from profile_pipeline.warehouse import (
    built,
    fingerprint,
    fixed_query,
    literal,
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
        replace_table(con, "identity.generic_values", _generic_query(config))
        replace_table(con, "temp.nodes_now", _nodes_query(config))
        if not whole:
            changes.note(con, "edges", CHANGED)
        replace_table(con, "identity.nodes", "select * from temp.nodes_now")
        con.execute("drop table person_namespaces; drop table temp.nodes_now")
        full = mark if whole else changes.last_full(con, "identity.nodes")
        noted = {"base": base, "full": full, "duplicates_avoided": duplicates_avoided(con, config)}
        mark_built(con, "identity.nodes", mark, noted)
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


def _generic_query(config: Config) -> str:
    """Values shared by more than k records that disagree on who they are: they identify nobody.

    Disagreement: the number of different birth dates, or of different first letters of name and family name,
    whichever is larger, among the records that carry the value. Match fields that no namespace covers are judged
    too; their `namespace` is the field.
    """
    limit = config.identity.clustering.generic_limit
    date = _first(config, "birth_date")
    given, family = _first(config, "given_name"), _first(config, "family_name")
    full = _first(config, "full_name")
    name = f"coalesce({given} || ' ' || {family}, {full})"
    people = f"greatest(count(distinct {date}), count(distinct {name}))"
    return f"""
        with carried as ({_carried_query(config)}),
        wide as (select namespace, value from carried group by all having count(*) > {limit})
        select namespace, value, count(*) as record_count, {people} as people_count,
            'shared by more disagreeing people than generic_limit' as reason
        from carried semi join wide using (namespace, value) join records.current c using (record_key)
        group by namespace, value having {people} > {limit}"""


def _carried_query(config: Config) -> str:
    """Grain: one row a record and identifying value: (record_key, namespace, value)."""
    linking = [name for name, space in config.namespaces.items() if space.kind == "person"]
    listed = ", ".join(map(literal, linking)) or "null"
    covered = {space.type for space in config.namespaces.values()} | set(linking)
    fields = {field for found in match_fields(config).values() for field in found}
    uncovered = [
        name
        for name, attribute in config.attributes.items()
        if name in fields and attribute.type in IDENTIFYING and not {attribute.type, name} & covered
    ]
    return (
        f"select record_key, namespace, value from identity.identifiers where namespace in ({listed})"
        + "".join(
            f" union all select record_key, {literal(n)}, {quote(n)} from records.current where {quote(n)} is not null"
            for n in uncovered
        )
    )


def _first(config: Config, kind: str) -> str:
    """The first field of a semantic type, as a column of records.current."""
    return next((f"c.{name}" for name, a in config.attributes.items() if a.type == kind), "null::text")
