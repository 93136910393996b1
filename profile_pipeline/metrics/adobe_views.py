"""Views under the names and columns of Adobe's insights data model, so that SQL written for its dashboards runs here.

They stand in the published database over the published `metrics_*` tables and store nothing; `as_duckdb` shows what Adobe's
SQL needs besides. Names and
columns are those of https://experienceleague.adobe.com/docs/experience-platform/dashboards/data-models/cdp-insights-data-model-b2c.html.
There are no views for the scores of Customer AI.
"""

import re

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import columns_of, literal

EVERY_DAY = "main.metrics_dates d join main.{table} f on f.day = d.counted_on"
OF_DEFAULT = "join main.metrics_policies p on p.batch = d.batch and p.is_default"
"""Audiences are those of the default policy, identifiers the same under every policy."""
EVERY_POLICY = "join main.metrics_policies p on p.batch = d.batch"
ALL_POLICIES = "(select distinct policy from main.metrics_policies) p"
FOREVER = "cast('9999-12-31'::varchar as union(day date, word varchar))"
"""The end of what has none. Adobe's SQL compares the column with days (its word comes after every day), and puts it into one
`CASE` with the word 'Ongoing' when it equals the text '9999-12-31': no plain type of DuckDB allows both."""
MACROS = {"stdevp": "stdevp(x) as stddev_pop(x)"}


def id_of(column: str) -> str:
    """The number of a name: the same in every generation, and in every project."""
    return f"(md5_number_lower({column}) % 2147483647)::integer"


def key_columns(**names: str) -> str:
    """`date_key`, `merge_policy_id` and further ids of a fact, by column name."""
    ids = {"merge_policy_id": "p.policy"} | names
    return ", ".join(["d.day as date_key", *(f"{id_of(column)} as {name}" for name, column in ids.items())])


def facts(table: str, policies: str, keys: str, counts: str, where: str = "true") -> str:
    """A fact for every day."""
    return f"select {keys}, {counts} from {EVERY_DAY.format(table=table)} {policies} where {where}"


_SINGLE = "f.profile_count as count_of_profiles, f.single_identity_count as count_of_Single_Identity_profiles"
_PROFILE = f"""
    select {key_columns()}, p.profile_count as count_of_profiles, s.single_identity_count as count_of_Single_Identity_profiles,
        case when p.is_default then s.unsegmented_count else p.profile_count end as count_of_Orphan_profiles
    from main.metrics_dates d join main.metrics_snapshots s on s.batch = d.batch {EVERY_POLICY}"""
_NAMESPACE = facts(
    "metrics_namespaces",
    EVERY_POLICY,
    key_columns(namespace_id="f.namespace"),
    f"{_SINGLE}, case when p.is_default then f.unsegmented_count else f.profile_count end as count_of_Orphan_profiles",
)
_SEGMENT = facts(
    "metrics_audiences",
    OF_DEFAULT,
    key_columns(segment_id="f.audience"),
    "f.member_count as count_of_profiles",
    where="f.member_count > 0",
)
_SEGMENT_AND_NAMESPACE = facts(
    "metrics_audience_namespaces",
    OF_DEFAULT,
    key_columns(segment_id="f.audience", namespace_id="f.namespace"),
    _SINGLE,
)
VIEWS = {
    "adwh_dim_date": "select day as date_key from main.metrics_dates",
    "adwh_dim_merge_policies": f"select {id_of('policy')} as merge_policy_id, policy as merge_policy_name from {ALL_POLICIES}",
    "adwh_dim_namespaces": f"""select {id_of("policy")} as merge_policy_id, {id_of("namespace")} as namespace_id,
        namespace as namespace_description from (select distinct namespace from main.metrics_namespaces), {ALL_POLICIES}""",
    "adwh_dim_overlap_namespaces": f"""select {id_of("policy")} as merge_policy_id, {id_of("namespaces")} as overlap_id,
        unnest(string_split(namespaces, ',')) as overlap_namespaces
        from (select distinct namespaces from main.metrics_namespace_overlaps where namespaces <> ''), {ALL_POLICIES}""",
    "adwh_dim_segments": f"""select {id_of("audience")} as segment_id, audience as segment, audience as segment_name
        from (select distinct audience from main.metrics_audiences)""",
    "adwh_dim_destination_platform": f"""select {id_of("platform")} as destination_platform_id,
        platform as destination_platform, platform as destination_platform_name
        from (select distinct platform from main.metrics_destinations)""",
    "adwh_dim_destination": f"""select {id_of("destination")} as destination_id, destination,
        destination as destination_name, {id_of("platform")} as destination_platform_id,
        case when enabled then 'enabled' else 'disabled' end as destination_status,
        created_at as create_time from main.metrics_destinations""",
    "adwh_dim_br_segment_destinations": f"""select {id_of("audience")} as segment_id, {id_of("destination")} as destination_id,
        activated_at as create_time, activated_at::date as start_date, {FOREVER} as end_date
        from main.metrics_destination_audiences""",
    "adwh_lkup_process_delta_log": f"""select 'FACT_TABLES_PROCESSING' as process_name, 'SUCCESSFUL' as process_status,
        d.day as process_date, {id_of("p.policy")} as merge_policy_id from main.metrics_dates d {EVERY_POLICY}""",
    "adwh_fact_profile": _PROFILE,
    "adwh_fact_profile_by_trendlines": _PROFILE,
    "adwh_fact_profile_by_namespace": _NAMESPACE,
    "adwh_fact_profile_by_namespace_trendlines": _NAMESPACE,
    "adwh_fact_profile_by_segment": _SEGMENT,
    "adwh_fact_profile_by_segment_trendlines": _SEGMENT,
    "adwh_fact_profile_by_segment_and_namespace": _SEGMENT_AND_NAMESPACE,
    "adwh_fact_profile_by_segment_and_namespace_trendlines": _SEGMENT_AND_NAMESPACE,
    "adwh_fact_profile_overlap_of_namespace": facts(
        "metrics_namespace_overlaps",
        EVERY_POLICY,
        key_columns(overlap_id="f.namespaces"),
        "f.profile_count as count_of_profiles",
    ),
    "adwh_fact_profile_overlap_of_namespace_by_segment": facts(
        "metrics_audience_namespace_overlaps",
        OF_DEFAULT,
        key_columns(segment_id="f.audience", overlap_id="f.namespaces"),
        "f.profile_count as count_of_profiles",
    ),
    "adwh_fact_profile_overlap_of_segments": facts(
        "metrics_audience_overlaps",
        OF_DEFAULT,
        key_columns(segment1="f.audience", segment2="f.other_audience"),
        "f.overlap_count as count_of_overlap",
    ),
}
TEXT = "Adobe's insights data model, as a view over metrics_* tables; docs/metrics.md."
COLUMN_TEXTS = {
    "count_of_Orphan_profiles": "Profiles in no audience; audiences are those of the default policy.",
    "count_of_Single_Identity_profiles": "Profiles with one type of identifier only.",
    "count_of_overlap": "Profiles in both audiences.",
    "count_of_profiles": "Profiles.",
    "create_time": "First delivery (UTC).",
    "date_key": "Day (UTC).",
    "destination": "Destination, as named in sharing.yaml.",
    "destination_id": "Number of the destination.",
    "destination_name": "Destination, as named in sharing.yaml.",
    "destination_platform": "Kind of store.",
    "destination_platform_id": "Number of the kind of store.",
    "destination_platform_name": "Kind of store.",
    "destination_status": "enabled or disabled.",
    "end_date": "The text 9999-12-31 for no end, which comes after every day.",
    "merge_policy_id": "Number of the merge policy.",
    "merge_policy_name": "Merge policy, as named in profiles.yaml.",
    "namespace_description": "Type of the identifier, as named in identity.yaml.",
    "namespace_id": "Number of the type of identifier.",
    "overlap_id": "Number of the exact combination of types of identifiers.",
    "overlap_namespaces": "One type of identifier of the combination.",
    "process_date": "Day that was counted (UTC).",
    "process_name": "FACT_TABLES_PROCESSING.",
    "process_status": "SUCCESSFUL.",
    "segment": "Audience, as named in audiences.yaml.",
    "segment1": "Number of the one audience.",
    "segment2": "Number of the other audience; a pair is there once.",
    "segment_id": "Number of the audience.",
    "segment_name": "Audience, as named in audiences.yaml.",
    "start_date": "Day of the first delivery (UTC).",
}


def create_views(con: DuckDBPyConnection, schema: str) -> None:
    """Create the views and macros in a schema that has the published tables."""
    for name, query in VIEWS.items():
        con.execute(f"create view {schema}.{name} as {query}")
        con.execute(f"comment on view {schema}.{name} is {literal(TEXT)}")
        for column in columns_of(con, f"{schema}.{name}"):
            con.execute(f"comment on column {schema}.{name}.{column} is {literal(COLUMN_TEXTS[column])}")
    for macro in MACROS.values():
        con.execute(f"create macro {schema}.{macro}")


def as_duckdb(query: str) -> str:
    """Adobe's SQL without the prefix of its store, with days added as DuckDB adds them."""
    plain = query.replace("qsaccel.profile_agg.", "")
    return re.sub(
        r"dateadd\s*\(\s*day\s*,([^,]+),\s*('[^']*'|[\w.]+)\s*\)",
        r"(cast(\2 as date) + to_days(cast(\1 as integer)))",
        plain,
        flags=re.IGNORECASE,
    )
