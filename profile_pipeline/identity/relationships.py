"""Values that several profiles share and that merge nobody: households, shared devices, shared contacts.

Three sources. A person identifier in several profiles (it is only evidence, or suspended as generic, or it lost to
a limit) is a shared contact. A device or cookie on which several people were identified is a shared device. People
of one family name at one address are a household.

A value shared by more than `max_profiles` says nothing about any pair of its holders. It is one row without a
profile, which still tells how many records and profiles are behind it: 500 logins on one tablet stay one row.
"""

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

KINDS = ("household", "shared_contact", "shared_device")
ADDRESS = "address"
"""What stands in place of a namespace for households."""


def build_relationships(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.relationships when memberships, records or events changed."""
    mark = fingerprint(
        upstream(con, ["identity.membership", "identity.nodes", "records.current", "records.event_subjects"]),
        {name: space.kind for name, space in config.namespaces.items()},
        _address_fields(config),
        config.identity.relationships.model_dump(),
    )
    if built(con, "identity.relationships") == mark:
        return
    with transaction(con):
        replace_table(con, "identity.relationships", relationships_query(config))
        mark_built(con, "identity.relationships", mark)


def relationships_query(config: Config) -> str:
    """Grain: one row a shared value and profile; one row without a profile where too many share the value."""
    most = config.identity.relationships.max_profiles
    columns = "relationship_id, kind, namespace, value"
    return f"""
        with members as ({MEMBERS}),
        shared as (
            {_contacts_query(config)}
            union all {_devices_query(config)}
            {_households_query(config)}
        ), counted as (
            select md5(concat_ws(chr(31), kind, namespace, value)) as relationship_id, *,
                count(*) over (partition by kind, namespace, value) as profile_count
            from shared
        )
        select {columns}, profile_id, record_count, profile_count, since
        from counted where profile_count between 2 and {most}
        union all
        select {columns}, null, sum(record_count)::bigint, any_value(profile_count), min(since)
        from counted where profile_count > {most} group by {columns}"""


def _spaces(config: Config, *kinds: str) -> str:
    return ", ".join(literal(n) for n, s in config.namespaces.items() if s.kind in kinds) or "null"


def _contacts_query(config: Config) -> str:
    """Grain: value and profile, of values in more than one profile."""
    return f"""
        select 'shared_contact' as kind, namespace, value, profile_id, count(*) as record_count,
            min(observed_at) as since
        from identity.identifiers join members using (record_key)
        where namespace in ({_spaces(config, "person")})
            and (namespace, value) in (
                select (namespace, value) from identity.identifiers join members using (record_key)
                where namespace in ({_spaces(config, "person")})
                group by namespace, value having min(profile_id) < max(profile_id))
        group by namespace, value, profile_id"""


def _devices_query(config: Config) -> str:
    """Grain: value and profile, of devices and cookies with several people; nobody's own events do not count."""
    spaces = _spaces(config, "device", "cookie")
    return f"""
        select 'shared_device', namespace, value, profile_id, sum(n)::bigint, min(since) from (
            select namespace, value, profile_id, count(*) as n, min(observed_at) as since
            from identity.identifiers join identity.nodes using (record_key) join members using (record_key)
            where kind <> 'pseudonymous' and namespace in ({spaces}) group by all
            union all
            select i.namespace as namespace, i.value as value, profile_id, count(*), min(occurred_at)
            from (select event_key, occurred_at, unnest(identifiers) as i from records.events) e
            join records.event_subjects s using (event_key) join members m on m.record_key = s.subject
            where attribution <> 'pseudonymous' and i.namespace in ({spaces}) group by all)
        group by namespace, value, profile_id
        qualify count(*) over (partition by namespace, value) > 1"""


def _households_query(config: Config) -> str:
    """Grain: address with family name, and profile. An address needs a number: a street has many families."""
    fields = _address_fields(config)
    if not {"family_name", "street_address", "postcode"} <= fields.keys():
        return ""
    family, street, postcode = (fields[kind] for kind in ("family_name", "street_address", "postcode"))
    number = fields.get("house_number", "null::text")
    return f"""union all
        select 'household', {literal(ADDRESS)}, concat_ws(', ', {family}, {number}, {street}, {postcode}) as value,
            profile_id, count(*), min(observed_at)
        from records.current join members using (record_key)
        where {family} is not null and {postcode} is not null and {street} is not null
            and regexp_matches(concat_ws(' ', {number}, {street}), '[0-9]')
        group by value, profile_id
        qualify count(*) over (partition by value) > 1"""


def _address_fields(config: Config) -> dict[str, str]:
    """The first field of each semantic type that makes a household, by type."""
    wanted = ("family_name", "house_number", "street_address", "postcode")
    found = {a.type: name for name, a in reversed(config.attributes.items()) if a.type in wanted}
    return dict(sorted(found.items()))
