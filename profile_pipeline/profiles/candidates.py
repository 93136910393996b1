"""Every value that every record offers to the profile it belongs to, explicit clears included."""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.profile_ids import MEMBERS
from profile_pipeline.profiles import pins
from profile_pipeline.records.normalise import clean_query
from profile_pipeline.warehouse import (
    built,
    fingerprint,
    literal,
    mark_built,
    replace_table,
    transaction,
    upstream,
)

SHOWN_AS_WRITTEN = {
    "given_name", "middle_name", "family_name", "full_name", "street_address", "house_number", "city", "region",
    "postcode", "category", "text", "national_id", "id",
}  # fmt: skip


def build_candidates(con: DuckDBPyConnection, config: Config) -> None:
    """Write profiles.candidates when records or memberships changed."""
    survivors = [name for name, source in config.record_sources.items() if source.survivorship]
    mark = _mark(con, config, survivors)
    if built(con, "profiles.candidates") == mark:
        return
    with transaction(con):
        replace_table(con, "profiles.candidates", candidates_query(config, survivors))
        if pins.offer_pins(con, config):
            mark = _mark(con, config, survivors)
        mark_built(con, "profiles.candidates", mark)


def _mark(con: DuckDBPyConnection, config: Config, survivors: list[str]) -> str:
    inputs = upstream(con, ["records.current", "identity.membership"])
    return fingerprint(inputs, survivors, pins.mark(con, config))


def candidates_query(config: Config, survivors: list[str]) -> str:
    """Grain: profile, field, record. `value` compares, `shown` is what people read; a clear has neither.

    `valid` is false where the row failed a declared expectation about the field that did not refuse it.
    """
    offers = ", ".join(offer_query(field, attribute.type) for field, attribute in config.attributes.items())
    sources = ", ".join(map(literal, survivors)) or "null"
    return f"""
        with offered as (
            select profile_id, record_key, source, observed_at, ingested_at, clock, field_times, doubtful,
                unnest(list_filter([{offers}], lambda o: o.value is not null or o.cleared)) as o
            from records.current join ({MEMBERS}) m using (record_key)
            where source in ({sources})
        )
        select profile_id, o.field as field, o.value as value, o.shown as shown, o.cleared as cleared, record_key,
            source, coalesce(field_times[o.field], observed_at) as observed_at, ingested_at, clock,
            not coalesce(list_contains(doubtful, o.field), false) as valid, false as pinned
        from offered"""


def offer_query(field: str, kind: str) -> str:
    """What a record says of a field: (field, value, shown, cleared) of its columns `<field>`, `raw` and `cleared`."""
    value = f"to_json({field})::text" if kind == "list" else f"{field}::text"
    shown = f"if({field} is null, null, {clean_query(f'raw.{field}')})" if kind in SHOWN_AS_WRITTEN else value
    cleared = f"coalesce({field} is null and list_contains(cleared, '{field}'), false)"
    return f"{{'field': '{field}', 'value': {value}, 'shown': {shown}, 'cleared': {cleared}}}"
