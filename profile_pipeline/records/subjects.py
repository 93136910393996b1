"""Whom an event belongs to: the person it states, who was on the device nearest in time, or the device itself."""

from profile_pipeline.config.load import Config
from profile_pipeline.warehouse import literal

KINDS = {"person": 0, "device": 1, "cookie": 2}
AS_STATED = """coalesce(chosen.person, {person}, device) as subject,
            case when chosen.person is not null then 'stated' when {person} is not null then 'inferred'
                when device is not null then 'pseudonymous' end as attribution"""


def best(config: Config, kinds: tuple[str, ...]) -> str:
    """The node of the best identifier of these kinds that a row carries: people before devices before cookies."""
    ranked = sorted(
        (KINDS[s.kind], s.priority, name) for name, s in config.namespaces.items() if s.kind in kinds
    )
    held = "list_transform(identifiers, lambda i: i.namespace)"
    whens = " ".join(
        f"when list_contains({held}, {literal(name)})"
        f" then {literal(f'event:{name}=')} || list_min(list_transform(list_filter(identifiers, lambda i:"
        f" i.namespace = {literal(name)}), lambda i: i.value))"
        for _, _, name in ranked
    )
    return f"case {whens} end" if whens else "null::text"


def inferred_query(config: Config) -> str:
    """Grain: one row an anonymous sighting that belongs to a person, of temp.sightings."""
    return _last_login_query() if config.identity.adobe_compat else _nearest_login_query(config)


def _nearest_login_query(config: Config) -> str:
    """Of the logins before and after within the session gap the nearer one; of two equally near the earlier."""
    gap = f"interval '{config.identity.session_gap_minutes} minutes'"
    return f"""
        with logins as ({LOGINS}), anonymous as ({ANONYMOUS}), near as (
            select a._file, a._line, a.occurred_at, b.person as person_before, b.occurred_at as before_at,
                l.person as person_after, l.occurred_at as after_at
            from anonymous a
            asof left join logins b on b.device = a.device and b.occurred_at <= a.occurred_at
            asof left join logins l on l.device = a.device and l.occurred_at >= a.occurred_at
        ), judged as (
            select _file, _line, case when before_at >= occurred_at - {gap}
                        and (after_at is null or occurred_at - before_at <= after_at - occurred_at) then person_before
                    when after_at <= occurred_at + {gap} then person_after
                    when before_at >= occurred_at - {gap} then person_before
                end as person
            from near
        )
        select * from judged where person is not null"""


def _last_login_query() -> str:
    """As Adobe's graph links a device: all that is anonymous on it goes to the one who logged in last."""
    return f"""
        with logins as ({LOGINS}), last as (
            select device, arg_max(person, (occurred_at, person)) as person from logins group by device
        )
        select _file, _line, last.person from ({ANONYMOUS}) a join last using (device)"""


LOGINS = """select device, occurred_at, min(person) as person from temp.sightings
        where person is not null group by device, occurred_at"""
ANONYMOUS = """select * from temp.sightings where person is null
        and device in (select device from temp.sightings where person is not null)"""
