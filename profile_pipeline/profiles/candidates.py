"""Every value that every record offers to the profile it belongs to, explicit clears included."""

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.profile_ids import MEMBERS
from profile_pipeline.profiles import pins, touched
from profile_pipeline.profiles.nested import NESTED
from profile_pipeline.records.normalise import clean_query, field_type
from profile_pipeline.records.staging import rules_fingerprint
from profile_pipeline.warehouse import (
    built,
    continues,
    fingerprint,
    last_full,
    literal,
    mark_built,
    replace_table,
    rows_where,
    transaction,
    upstream,
)

SHOWN_AS_WRITTEN = {
    "given_name", "middle_name", "family_name", "full_name", "street_address", "house_number", "city", "region",
    "postcode", "category", "text", "national_id", "id",
}  # fmt: skip

PINNED = "select profile_id, field, record_key, shown, cleared from profiles.candidates where pinned"
REPINNED = f"""
    select profile_id from ((from temp.pinned_before except {PINNED}) union all ({PINNED} except from temp.pinned_before))"""
"""Profiles of which a pin came, went or changed."""


def build_candidates(con: DuckDBPyConnection, config: Config) -> None:
    """Bring profiles.candidates up to date when records, memberships or pins changed; touched profiles are noted."""
    survivors = [name for name, source in config.record_sources.items() if source.survivorship]
    mark = _mark(con, config, survivors)
    if built(con, "profiles.candidates") == mark:
        return
    base = fingerprint(
        {name: rules_fingerprint(config, name) for name in survivors},
        {name: field_type(attribute) for name, attribute in config.attributes.items()},
        duckdb.__version__,
    )
    whole = not continues(con, "profiles.candidates", base)
    with transaction(con):
        touched.find_touched(con, whole=whole)
        touched.drop_handed_over(con, touched.CANDIDATES)
        if whole:
            replace_table(con, "profiles.candidates", candidates_query(config, survivors))
        else:
            replace_table(con, "temp.pinned_before", PINNED)
            con.execute("delete from profiles.candidates where pinned or profile_id in (from temp.touched)")
            # beforehand: joined in one query, every column of every record is read for the few wanted
            wanted = f"from ({MEMBERS}) where profile_id in (from temp.touched)"
            replace_table(con, "temp.touched_members", f"select record_key, profile_id {wanted}")
            offered = candidates_query(config, survivors, "temp.touched_members")
            replace_table(con, touched.CANDIDATES, offered)
            con.execute(f"insert into profiles.candidates by name from {touched.CANDIDATES}")
            touched.hand_over(con, touched.CANDIDATES, "from temp.touched")
            con.execute("drop table temp.touched_members")
        if pins.offer_pins(con, config):
            mark = _mark(con, config, survivors)
        if not whole:
            touched.note_followers(con, REPINNED)
            con.execute("drop table temp.pinned_before")
        con.execute("drop table temp.touched")
        full = mark if whole else last_full(con, "profiles.candidates")
        mark_built(con, "profiles.candidates", mark, {"base": base, "full": full})


def _mark(con: DuckDBPyConnection, config: Config, survivors: list[str]) -> str:
    inputs = upstream(con, ["records.current", "identity.membership"])
    return fingerprint(inputs, survivors, pins.mark(con, config))


def candidates_query(config: Config, survivors: list[str], members: str = "") -> str:
    """Grain: profile, field, record. `value` compares, `shown` is what people read; a clear has neither.

    `valid` is false where the row failed a declared expectation about the field that did not refuse it. `record_number`
    is the place of the record in its profile in order of keys. `members` is a table (record_key, profile_id) of all
    the records of the few profiles wanted; without it, all are.
    """
    records = "records.current"
    if members:
        records = f"({rows_where(records, f'record_key in (select record_key from {members})')})"
    offers = ", ".join(offer_query(field, attribute.type) for field, attribute in config.attributes.items())
    sources = ", ".join(map(literal, survivors)) or "null"
    return f"""
        with members as (
            select record_key, profile_id,
                (row_number() over (partition by profile_id order by record_key))::integer as record_number
            from {members or f"({MEMBERS})"}
        ), offered as (
            select profile_id, record_number, record_key, source, observed_at, ingested_at, clock, field_times, doubtful,
                unnest(list_filter([{offers}], lambda o: o.value is not null or o.cleared)) as o
            from {records} join members using (record_key)
            where source in ({sources})
        )
        select profile_id, o.field as field, o.value as value, o.shown as shown, o.cleared as cleared, record_key,
            record_number, source, coalesce(field_times[o.field], observed_at) as observed_at, ingested_at, clock,
            not coalesce(list_contains(doubtful, o.field), false) as valid, false as pinned
        from offered"""


def offer_query(field: str, kind: str) -> str:
    """What a record says of a field: (field, value, shown, cleared) of its columns `<field>`, `raw` and `cleared`."""
    value = f"to_json({field})::text" if kind in NESTED else f"{field}::text"
    shown = f"if({field} is null, null, {clean_query(f'raw.{field}')})" if kind in SHOWN_AS_WRITTEN else value
    cleared = f"coalesce({field} is null and list_contains(cleared, '{field}'), false)"
    return f"{{'field': '{field}', 'value': {value}, 'shown': {shown}, 'cleared': {cleared}}}"
