"""The unified profile: one row a profile and policy, the winning values in typed columns."""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Attribute
from profile_pipeline.profile_ids import MEMBERS
from profile_pipeline.profiles import touched
from profile_pipeline.profiles.lists import FULL, list_columns, rule_of, winner_columns
from profile_pipeline.profiles.nested import NESTED, read_query, shown_query, struct_columns
from profile_pipeline.records.normalise import value_type
from profile_pipeline.warehouse import (
    built,
    continues,
    count,
    fingerprint,
    last_full,
    literal,
    mark_built,
    replace_table,
    rows_where,
    transaction,
    upstream,
)

LINEAGE = "profiles.lineage"
FACTS = f"""
    with members as ({MEMBERS} {{wanted}}), facts as (
        select m.profile_id, if(bool_or(n.kind <> 'pseudonymous'), 'person', 'pseudonymous') as kind,
            count(*) filter (n.kind = 'record') as record_count,
            coalesce(list_sort(list(distinct n.source) filter (n.kind = 'record')), []) as sources,
            min(r.observed_at) as first_observed_at, max(r.observed_at) as last_observed_at,
            bool_or(c.flagged) as flagged
        from members m join identity.nodes n using (record_key) join identity.clusters c using (record_key)
        left join records.current r using (record_key) group by m.profile_id
    ), activity as (
        select profile_id, count(*) as event_count, max(occurred_at) as last_event_at
        from profiles.events where profile_id is not null {{wanted}} group by profile_id
    ), identities as (
        select profile_id, map_from_entries(list(struct_pack(k := namespace, v := vs) order by namespace))
            as identity_map
        from (select profile_id, namespace, list(value order by value) as vs
            from profiles.identifiers semi join members using (profile_id) group by all)
        group by profile_id
    )
    select facts.*, identity_map, coalesce(event_count, 0) as event_count, last_event_at
    from facts left join identities using (profile_id) left join activity using (profile_id)"""
"""What is the same under every policy."""
FACT_COLUMNS = (
    "kind", "record_count", "sources", "identity_map", "event_count", "last_event_at", "first_observed_at",
    "last_observed_at", "flagged",
)  # fmt: skip


def facts_query(wanted: str = "") -> str:
    """Grain: one row an active profile; `wanted` narrows them, a condition that begins with `and`."""
    return FACTS.format(wanted=wanted)


def table_of(config: Config, policy: str) -> str:
    """The table of a policy: profiles.unified for the default one, profiles.unified_<policy> for others."""
    return "profiles.unified" if policy == config.profiles.default else f"profiles.unified_{policy}"


def build_unified(con: DuckDBPyConnection, config: Config) -> None:
    """Bring the profile table of every policy up to date when lineage, identifiers or events changed."""
    mark = fingerprint(
        upstream(con, ["profiles.lineage", "profiles.identifiers", "profiles.events"]),
        config.profiles.default,
    )
    if built(con, "profiles.unified") == mark:
        return
    base = fingerprint(
        config.profiles.default, last_full(con, "profiles.lineage"), last_full(con, "profiles.events")
    )
    whole = not continues(con, "profiles.unified", base)
    con.execute(touched.QUEUE)
    with transaction(con):
        if not whole:
            _take_touched(con)
        wanted = "" if whole else "and profile_id in (from temp.touched union all from temp.active)"
        replace_table(con, "temp.profile_facts", facts_query(wanted))
        for policy in config.profiles.policies:
            _write(con, config, policy, whole=whole)
        con.execute("drop table temp.profile_facts")
        if not whole:
            con.execute("drop table temp.touched; drop table temp.active")
        touched.drop_handed_over(con, touched.LINEAGE)
        for step in ("unified", "activity"):
            touched.forget(con, step)
        full = mark if whole else last_full(con, "profiles.unified")
        mark_built(con, "profiles.unified", mark, {"base": base, "full": full})


def _take_touched(con: DuckDBPyConnection) -> None:
    """`touched`: profiles to merge again, with their lineage; `active`: those with the same values, but other events."""
    shown = "select profile_id from profiles.unified"
    replace_table(
        con,
        "temp.touched",
        f"{touched.noted_query('unified')} union ({touched.noted_query('activity')} except {shown})",
    )
    replace_table(con, "temp.active", f"{touched.noted_query('activity')} except from temp.touched")
    if not touched.handed_over(con, touched.LINEAGE, "select profile_id from temp.touched"):
        # once for all policies: the lineage is the largest table here
        replace_table(con, touched.LINEAGE, rows_where(LINEAGE, "profile_id in (from temp.touched)"))


def _write(con: DuckDBPyConnection, config: Config, policy: str, *, whole: bool) -> None:
    table = table_of(config, policy)
    if whole:
        replace_table(con, table, unified_query(config, policy))
        return
    con.execute(f"delete from {table} where profile_id in (from temp.touched)")
    con.execute(
        f"insert into {table} by name {unified_query(config, policy, touched.LINEAGE)} where profile_id in (from temp.touched)"
    )
    if count(con, "temp.active"):
        con.execute(
            f"""update {table} p set {", ".join(f"{column} = f.{column}" for column in FACT_COLUMNS)}
            from temp.profile_facts f where p.profile_id = f.profile_id and f.profile_id in (from temp.active)"""
        )


def unified_query(config: Config, policy: str, lineage: str = LINEAGE) -> str:
    """Grain: one row an active profile of temp.profile_facts, whether or not any record offers a value.

    `lineage` is a table of the shape of profiles.lineage that holds all of these profiles.
    """
    version = config.profiles.policies[policy].version
    parts = [_columns(config, policy, field) for field in config.attributes]
    values, fields = ("".join(part) for part in zip(*parts, strict=True)) if parts else ("", "")
    # that a list had no room is said by those that lost
    kept = f"(won or rule = {literal(FULL)})" if list_columns(config, policy) else "won"
    return f"""
        with winners as (
            select profile_id{values} from {lineage}
            where policy = {literal(policy)} and {kept} and profile_id in (select profile_id from temp.profile_facts)
            group by profile_id
        )
        select profile_id, kind, record_count, sources{fields}{struct_columns(config)}, identity_map, event_count, last_event_at,
            first_observed_at, last_observed_at, flagged, {literal(policy)} as policy, {version} as policy_version
        from temp.profile_facts left join winners using (profile_id)"""


def _columns(config: Config, policy: str, field: str) -> tuple[str, str]:
    """Select lists that gather a field from the lineage, and that show it."""
    attribute = config.attributes[field]
    rule = rule_of(config, policy, field)
    if rule:
        return winner_columns(field, rule, attribute)
    return f", {_winner(field, attribute)}", f", {field}"


def _winner(field: str, attribute: Attribute) -> str:
    value = f"any_value(value) filter (field = '{field}')"
    kind = value_type(attribute)
    if kind == "text":
        return f"{value} as {field}"
    if attribute.type in NESTED:
        return f"{shown_query(attribute, read_query(attribute, value))} as {field}"
    return f"try_cast({value} as {kind}) as {field}"
