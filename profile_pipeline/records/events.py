"""Events, each exactly once, and the subject of each: the node of the identity graph it belongs to.

The subject is the record an event itself describes (an order that says who ordered), else the best person
identifier it states, as the node `event:<namespace>=<value>`. An event with only a cookie or device belongs to
whoever was identified on it nearest in time within the session gap; otherwise its subject is the cookie or device
itself, a pseudonymous identity. So a shared tablet does not hand its history to its last user.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.warehouse import (
    built,
    fingerprint,
    literal,
    mark_built,
    replace_table,
    transaction,
)

EVENT_COLUMNS = (
    "event_key text, source text, event_id text, event_type text, channel text, occurred_at timestamptz, zone text,"
    " record_key text, payload json, identifiers struct(namespace text, value text, raw text)[], batch integer, _file integer,"
    " _line bigint, deliveries bigint"
)


def build_events(con: DuckDBPyConnection, config: Config) -> None:
    """Write records.events and records.event_subjects when an event source has changed."""
    mark = fingerprint(
        [built(con, f"records.{name}") for name in config.event_sources],
        built(con, "records.current"),
        _subject_rules(config),
    )
    if built(con, "records.events") == mark:
        return
    with transaction(con):
        con.execute(f"create or replace table records.events ({EVENT_COLUMNS})")
        for name in config.event_sources:
            con.execute(f"insert into records.events by name {_events_query(config, name)}")
        replace_table(con, "records.event_subjects", _subjects_query(config))
        mark_built(con, "records.events", mark)
        mark_built(con, "records.event_subjects", mark)


def _subject_rules(config: Config) -> list[object]:
    spaces = {name: (space.kind, space.priority) for name, space in config.namespaces.items()}
    return [spaces, config.identity.session_gap_minutes]


def _events_query(config: Config, name: str) -> str:
    """Exactly once by event id; among several deliveries of one, the choice depends on content only."""
    about = "record_key" if config.sources[name].key else "null"
    return f"""
        select event_key, {about} as record_key, {literal(name)} as source, event_id, event_type, channel,
            observed_at as occurred_at, zone, payload, identifiers, batch, _file, _line,
            count(*) over (partition by event_id) as deliveries
        from records.{name} where reasons is null and event_id is not null
        qualify row_number() over (partition by event_id order by observed_at, content_hash, md5(payload), _file, _line) = 1"""


def _ranks(config: Config, kinds: tuple[str, ...]) -> str:
    """A DuckDB map from namespace to rank, lower first; people before devices before cookies."""
    order = {"person": 0, "device": 1, "cookie": 2}
    spaces = sorted(
        (order[space.kind], space.priority, name)
        for name, space in config.namespaces.items()
        if space.kind in kinds
    )
    entries = ", ".join(f"{literal(name)}: {rank}" for rank, (_, _, name) in enumerate(spaces))
    return f"map {{{entries}}}" if entries else "map([]::text[], []::integer[])"


def _best(config: Config, kinds: tuple[str, ...]) -> str:
    ranks = _ranks(config, kinds)
    held = f"list_filter(e.identifiers, lambda i: {ranks}[i.namespace] is not null)"
    ordered = f"list_sort(list_transform({held}, lambda i: {{'r': {ranks}[i.namespace], 'k': concat(i.namespace, '=', i.value)}}))"
    return f"'event:' || {ordered}[1].k"


def _subjects_query(config: Config) -> str:
    """Grain: one row an event that names anybody. `attribution`: stated, inferred or pseudonymous."""
    gap = f"interval '{config.identity.session_gap_minutes} minutes'"
    return f"""
        with named as (
            select e.event_key, e.occurred_at, coalesce(c.record_key, {_best(config, ("person",))}) as person,
                {_best(config, ("device", "cookie"))} as device
            from records.events e left join records.current c using (record_key)
        ), logins as (
            select device, occurred_at, min(person) as person from named
            where person is not null and device is not null group by device, occurred_at
        ), anonymous as (
            select event_key, device, occurred_at from named where person is null and device is not null
        ), near as (
            select a.event_key, a.device, a.occurred_at, b.person as person_before, b.occurred_at as before_at,
                l.person as person_after, l.occurred_at as after_at
            from anonymous a
            asof left join logins b on b.device = a.device and b.occurred_at <= a.occurred_at
            asof left join logins l on l.device = a.device and l.occurred_at >= a.occurred_at
        ), inferred as (
            select event_key, device,
                case when before_at >= occurred_at - {gap}
                        and (after_at is null or occurred_at - before_at <= after_at - occurred_at) then person_before
                    when after_at <= occurred_at + {gap} then person_after
                    when before_at >= occurred_at - {gap} then person_before
                end as person
            from near
        )
        select event_key, person as subject, 'stated' as attribution from named where person is not null
        union all
        select event_key, coalesce(person, device) as subject,
            if(person is null, 'pseudonymous', 'inferred') as attribution from inferred"""
