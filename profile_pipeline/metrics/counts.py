"""What is counted: one query for each table of `history`, over temporary tables that `prepare` writes."""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.profiles.unified import table_of
from profile_pipeline.warehouse import facts, fixed_query, literal, quote, replace_table, rows, table_exists

FIXED = (
    "profiles", "namespaces", "audiences", "audience_namespaces", "audience_namespace_overlaps", "audience_overlaps",
    "survivorship", "sources", "unknown_profiles", "match_weights", "cluster_sizes", "links",
)  # fmt: skip
"""Tables whose query does not depend on the rules."""
TEMPORARY = ("moment", "cells", "declared_audiences", "declared_sources", "blocking_rules", "field_counts")


def prepare(con: DuckDBPyConnection, config: Config) -> None:
    """Write what the queries read: profiles by all that they are counted by, and what the rules declare."""
    replace_table(con, "temp.cells", fixed_query("metrics/cells"))
    con.execute(
        "create or replace temp table declared_audiences as select unnest(?::text[]) as audience",
        [list(config.audiences.audiences)],
    )
    con.execute(
        "create or replace temp table declared_sources as select unnest(?::text[]) as source, unnest(?::text[]) as kind",
        [list(config.sources), [source.kind for source in config.sources.values()]],
    )
    con.execute(
        "create or replace temp table blocking_rules as select ?::text[] as names",
        [facts(con, "identity.edges").get("rules") or []],
    )
    replace_table(con, "temp.field_counts", _field_counts_query(config))


def drop_prepared(con: DuckDBPyConnection) -> None:
    """Leave no temporary table behind."""
    for name in TEMPORARY:
        con.execute(f"drop table if exists temp.{name}")


def queries(con: DuckDBPyConnection, config: Config, duplicates_avoided: int) -> dict[str, str]:
    """The query of every table with a history, in the order in which they are written."""
    found = {name: fixed_query(f"metrics/{name}") for name in FIXED}
    found["snapshots"] = (
        f"select *, {duplicates_avoided} as duplicates_avoided from ({fixed_query('metrics/snapshots')})"
    )
    found["namespace_overlaps"] = overlaps_query("namespace")
    found["source_overlaps"] = overlaps_query("source")
    found["fields"] = _fields_query()
    found["policies"] = _policies_query(con, config)
    if table_exists(con, "identity.blocking_keys"):
        found["blocks"] = fixed_query("metrics/blocks")
    return found


def overlaps_query(what: str) -> str:
    """Profiles by exact combination of namespaces or sources, and how many there would be were each held by chance.

    Expected: all profiles times the share that has each of the combination times the share that has none of the others.
    """
    held = f"list_contains(string_split({what}s, ','), {what})"
    return f"""
        with combinations as (select {what}s, sum(profile_count)::bigint as profile_count from temp.cells group by 1),
        total as (select sum(profile_count) as total from combinations),
        shares as (
            select {what}, sum(profile_count) / any_value(total) as share
            from (select unnest(string_split({what}s, ',')) as {what}, profile_count from combinations where {what}s <> ''), total
            group by 1
        ), chances as (
            select {what}s, any_value(profile_count) as profile_count,
                any_value(total) * coalesce(product(if({held}, share, 1 - share) order by {what}), 1) as expected
            from combinations cross join total left join shares on true group by 1
        )
        select {what}s, if({what}s = '', 0, len(string_split({what}s, ','))) as {what}_count, profile_count,
            round(expected, 3) as expected_count, round(profile_count / nullif(expected, 0), 4) as lift
        from chances"""


def _field_counts_query(config: Config) -> str:
    """Grain: policy and field: profiles that have it, and its different values."""
    parts = []
    for policy in config.profiles.policies:
        entries = ", ".join(
            f"{{'field': {literal(f)}, 'filled_count': count({quote(f)}), 'distinct_count': count(distinct {quote(f)})}}"
            for f in config.attributes
        )
        parts.append(
            f"select {literal(policy)} as policy, count(*) as profile_count, unnest([{entries}], recursive := true)"
            f" from {table_of(config, policy)}"
        )
    return " union all ".join(parts)


def _fields_query() -> str:
    """Grain: policy and field. Conflict: profiles in which a rule decided between different values."""
    return f"""
        select policy, field, filled_count, round(filled_count / nullif(profile_count, 0), 6) as completeness,
            distinct_count, coalesce(conflict_count, 0) as conflict_count
        from temp.field_counts left join ({fixed_query("profiles/conflicts")}) using (policy, field)"""


def _policies_query(con: DuckDBPyConnection, config: Config) -> str:
    """Grain: policy. Completeness is the share of its fields that a profile has, of those that any profile has."""
    observed: dict[str, list[str]] = {policy: [] for policy in config.profiles.policies}
    for policy, field in rows(con, "select policy, field from temp.field_counts where filled_count > 0"):
        observed[policy].append(field)
    parts = [_bands_query(config, policy, fields) for policy, fields in observed.items()]
    return f"""
        select b.*, coalesce(c.conflict_count, 0)::bigint as conflict_count from ({" union all ".join(parts)}) b left join (
            select policy, sum(conflict_count) as conflict_count from metrics.fields, temp.moment
            where day = as_of::date group by policy) c using (policy)"""


def _bands_query(config: Config, policy: str, fields: list[str]) -> str:
    """More than 70 % of the fields is high, less than 30 % is low."""
    filled = " + ".join(f"({quote(field)} is not null)::integer" for field in fields) or "0"
    total = len(fields)
    return f"""
        select {literal(policy)} as policy, {config.profiles.policies[policy].version} as policy_version,
            {policy == config.profiles.default} as is_default, count(*) as profile_count,
            round(coalesce(sum(filled) / nullif(count(*) * {total}, 0), 0), 6) as completeness,
            count(*) filter (filled * 10 > {total} * 7) as high_count,
            count(*) filter (filled * 10 between {total} * 3 and {total} * 7 and {total} > 0) as medium_count,
            count(*) filter (filled * 10 < {total} * 3 or {total} = 0) as low_count
        from (select {filled} as filled from {table_of(config, policy)})"""
