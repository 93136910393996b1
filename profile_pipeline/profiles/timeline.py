"""The identifiers and the events of each profile."""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.profile_ids import MEMBERS
from profile_pipeline.warehouse import (
    built,
    fingerprint,
    literal,
    mark_built,
    replace_table,
    transaction,
    upstream,
)


def build_timeline(con: DuckDBPyConnection, config: Config) -> None:
    """Write profiles.identifiers and profiles.events when memberships or events changed."""
    mark = fingerprint(
        upstream(con, ["identity.nodes", "identity.membership", "records.event_subjects"]),
        {name: space.kind for name, space in config.namespaces.items()},
    )
    if built(con, "profiles.events") == mark:
        return
    with transaction(con):
        replace_table(con, "profiles.identifiers", identifiers_query(config))
        replace_table(con, "profiles.events", events_query())
        mark_built(con, "profiles.identifiers", mark)
        mark_built(con, "profiles.events", mark)


def identifiers_query(config: Config) -> str:
    """Grain: profile, namespace, value. Raw spellings are kept: they show what normalisation united."""
    kinds = " ".join(f"when {literal(n)} then {literal(s.kind)}" for n, s in config.namespaces.items())
    kind = f"case namespace {kinds} end" if kinds else "null::text"
    return f"""
        select profile_id, namespace, value, {kind} as kind, list_sort(list(distinct raw_value)) as raw_values,
            count(distinct record_key) as record_count, list_sort(list(distinct source)) as sources,
            min(observed_at) as first_observed_at, max(observed_at) as last_observed_at,
            (namespace, value) in (select (namespace, value) from identity.generic_values) as generic
        from identity.identifiers join ({MEMBERS}) m using (record_key)
        group by profile_id, namespace, value"""


def events_query() -> str:
    """Grain: one row an event. Events that name nobody have no profile, and are kept."""
    return f"""
        select e.event_key, m.profile_id, s.attribution, e.source, e.event_id, e.event_type, e.channel, e.occurred_at,
            e.zone, e.identifiers, e.payload, e.deliveries, e.batch
        from records.events e left join records.event_subjects s using (event_key)
        left join ({MEMBERS}) m on m.record_key = s.subject"""
