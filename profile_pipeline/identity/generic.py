"""Values that identify nobody: shared too widely, or by holders of identifiers that only one person may have.

They are suspended, not removed: the table says which and why, and a value that is no longer shared acts again.
"""

from profile_pipeline.config.load import Config
from profile_pipeline.identity.fields import IDENTIFYING, match_fields
from profile_pipeline.warehouse import literal, quote, rows_where

GENERIC = "shared by more disagreeing people than generic_limit"
CONTESTED = "carried by more holders of a stronger identifier than one person may be"
WHO = ("birth_date", "given_name", "family_name", "full_name")
"""Semantic types by which records disagree on who they are."""


def suspects_query(config: Config, changed: str) -> str:
    """Grain: one row a value that may be judged differently: these nodes carry it, or it was suspended before."""
    return f"""
        select value_key from ({_carried_query(config, f"node in ({changed})")})
        union select hash(namespace, value) from identity.generic_values"""


def generic_query(config: Config, suspects: str = "") -> str:
    """Grain: one row a suspended value: shared by more than k records that disagree on who they are: they identify nobody.

    Disagreement: the number of different birth dates, or of different first letters of name and family name,
    whichever is larger, among the records that carry the value. Match fields that no namespace covers are judged
    too; their `namespace` is the field. With `suspects`, a table of value keys, only these values are looked at.
    """
    limit = config.identity.clustering.generic_limit
    first = first_fields(config)
    date, given, family, full = (f"c.{first[kind]}" if kind in first else "null::text" for kind in WHO)
    name = f"coalesce({given} || ' ' || {family}, {full})"
    people = f"greatest(count(distinct {date}), count(distinct {name}))"
    ranked = _ranked_pairs(config)
    weaker, stronger = (
        ", ".join(map(literal, sorted({pair[k] for pair in ranked}))) or "null" for k in (0, 1)
    )
    beside, judged_by = f"from identity.identifiers where namespace in ({stronger})", "from records.current"
    if suspects:
        judged_by = rows_where(
            "records.current", "node in (select node from carried where value_key in (from wide))"
        )
        beside += f" and node in (select node from carried where namespace in ({weaker}))"
    return f"""
        with carried as materialized (
            select node, namespace, value_key
            from ({_carried_query(config, f"value_key in (from {suspects})" if suspects else "")})
        ), beside as ({beside}),
        wide as (select value_key from carried group by all having count(*) > {limit}),
        judged as (
            select namespace, value_key, count(*) as record_count, {people} as people_count, {literal(GENERIC)} as reason
            from (from carried where value_key in (from wide)) join ({judged_by}) c using (node)
            group by namespace, value_key having {people} > {limit}
            union all {_contested_query(config)}
        ), suspended as materialized (
            select * from judged
            qualify row_number() over (partition by value_key order by reason desc, people_count desc) = 1
        )
        select namespace, value, record_count, people_count, reason from suspended join (
            select value_key, min(value) as value
            from ({_carried_query(config, "value_key in (select value_key from suspended)")}) group by value_key
        ) using (value_key)"""


def _ranked_pairs(config: Config) -> list[tuple[str, str, int]]:
    """Acting namespaces with each stronger one of which a person may have only so many: (name, stronger, most)."""
    acting = {n: s for n, s in config.namespaces.items() if s.kind == "person" and (s.link or s.unique)}
    return [
        (name, stronger, limit.unique)
        for name, space in acting.items()
        for stronger, limit in acting.items()
        if limit.unique and limit.priority < space.priority
    ]


def _contested_query(config: Config) -> str:
    """Values carried together with more identifiers of a stronger namespace than one person may have.

    Such a value cannot tell whose it is: it links nobody and counts for no limit. Matching still sees it.
    """
    found = [
        f"""select v.namespace, v.value_key, count(distinct v.node) as record_count,
            count(distinct u.value_key) as people_count, {literal(CONTESTED)} as reason
        from carried v join beside u using (node)
        where v.namespace = {literal(name)} and u.namespace = {literal(stronger)}
        group by v.namespace, v.value_key having count(distinct u.value_key) > {most}"""
        for name, stronger, most in _ranked_pairs(config)
    ]
    return " union all ".join(found) or "select '', 0::ubigint, 0, 0, '' where false"


def _carried_query(config: Config, where: str = "") -> str:
    """Grain: one row a record and identifying value: (node, namespace, value, value_key), of all or those of a condition."""
    linking = [name for name, space in config.namespaces.items() if space.kind == "person"]
    listed = ", ".join(map(literal, linking)) or "null"
    covered = {space.type for space in config.namespaces.values()} | set(linking)
    fields = {field for found in match_fields(config).values() for field in found}
    uncovered = [
        name
        for name, attribute in config.attributes.items()
        if name in fields and attribute.type in IDENTIFYING and not {attribute.type, name} & covered
    ]
    few = f" and {where}" if where else ""
    return (
        f"select node, namespace, value, value_key from identity.identifiers where namespace in ({listed}){few}"
        + "".join(
            f""" union all
            from (
                select node, {literal(n)} as namespace, {quote(n)} as value, hash(namespace, value) as value_key
                from records.current)
            where value is not null{few}"""
            for n in uncovered
        )
    )


def first_fields(config: Config) -> dict[str, str]:
    """The first field of each semantic type that says who somebody is."""
    return {a.type: name for name, a in reversed(config.attributes.items()) if a.type in WHO}
