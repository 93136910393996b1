"""Applies merge policies: ranks the candidates of every profile and field, and says by which rule each lost.

Each rule gives a candidate a number, lower wins; rules are compared in the order of the policy. What they leave
tied is decided by looks (mixed case before capitals), time, source rank and record key, so the order is total and
the result depends on nothing else. A locked group is ranked as one candidate a record, its values side by side.

An explicit clear competes like a value: it wins where the rules prefer it, for example when it is newest, and
the profile then shows nothing. Adobe's methods differ in this one point, there a null never wins. In a group a
record that only clears gives way.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.profiles import Choice, Group, Policy
from profile_pipeline.profiles import pins
from profile_pipeline.warehouse import built, fingerprint, literal, mark_built, rows, transaction

UNLISTED = 1_000_000
LAST = "1e308"
"""The number of a candidate that has nothing to compare."""
TABLE = """create or replace table profiles.lineage (
    policy text not null, policy_version integer not null, profile_id text not null, field text not null,
    rank bigint not null, won boolean not null, value text, cleared boolean not null, record_key text not null,
    source text not null, observed_at timestamptz, rule text not null)"""


@dataclass(frozen=True)
class Unit:
    """What is decided together by the same rules and source ranks: fields one by one, or a group as one."""

    fields: tuple[str, ...]
    choices: tuple[Choice, ...]
    ranks: tuple[tuple[str, int], ...]
    group: str | None = None


def build_lineage(con: DuckDBPyConnection, config: Config) -> None:
    """Write profiles.lineage for every policy when candidates or policies changed."""
    mark = fingerprint(built(con, "profiles.candidates"), config.profiles.model_dump())
    if built(con, "profiles.lineage") == mark:
        return
    with transaction(con):
        con.execute(TABLE)
        for name, policy in config.profiles.policies.items():
            for unit in units(config, policy):
                con.execute(f"insert into profiles.lineage by name {lineage_query(config, name, unit)}")
            pins.put_first(con, name, policy.version)
        mark_built(con, "profiles.lineage", mark)


def units(config: Config, policy: Policy) -> list[Unit]:
    """Fields with equal rules together, then the groups; every field in exactly one of them."""
    alike: dict[tuple[tuple[Choice, ...], tuple[tuple[str, int], ...]], list[str]] = {}
    for field in config.attributes:
        if policy.group_of(field) is None:
            key = tuple(policy.choices(field)), tuple(sorted(policy.ranks(field).items()))
            alike.setdefault(key, []).append(field)
    single = [Unit(tuple(fields), *key) for key, fields in alike.items()]
    return single + [_group_unit(name, group, policy) for name, group in policy.groups.items()]


def _group_unit(name: str, group: Group, policy: Policy) -> Unit:
    return Unit(tuple(group.fields), tuple(group.choose), tuple(sorted(policy.sources.items())), name)


def lineage_query(config: Config, name: str, unit: Unit) -> str:
    """Grain: profile, field, record, for the fields of a unit under the policy of that name."""
    policy = config.profiles.policies[name]
    offers = _blocks_query(unit, policy) if unit.group else _offers_query(unit, policy)
    matched = (
        f"c.record_key = j.offer and c.field in ({_listed(unit.fields)})"
        if unit.group
        else "c.rowid = j.offer"
    )
    return f"""{_judged_query(offers, rules(config, policy, unit))}
        select {literal(name)} as policy, {policy.version} as policy_version, c.profile_id, c.field, place as rank,
            place = 1 as won, c.shown as value, c.cleared, c.record_key, c.source, c.observed_at, rule
        from profiles.candidates c join judged j on {matched}"""


def _offers_query(unit: Unit, policy: Policy) -> str:
    return f"""select rowid as offer, *, field as unit, if(cleared, 0, 1) as filled from profiles.candidates
        where not pinned and field in ({_listed(unit.fields)}) and {_admitted(unit, policy)}"""


def _blocks_query(unit: Unit, policy: Policy) -> str:
    """A locked group as one candidate a record; a record that fills none of its fields has nothing to offer."""
    return f"""select record_key as offer, record_key, any_value(profile_id) as profile_id, {literal(unit.group)} as unit,
            any_value(source) as source, max(observed_at) as observed_at, any_value(ingested_at) as ingested_at,
            {_side_by_side("value", unit)} as value, {_side_by_side("shown", unit)} as shown,
            false as cleared, count(value) as filled
        from profiles.candidates where not pinned and field in ({_listed(unit.fields)}) and {_admitted(unit, policy)}
        group by record_key having count(value) > 0"""


def _side_by_side(column: str, unit: Unit) -> str:
    parts = (f"coalesce(any_value({column}) filter (field = {literal(field)}), '')" for field in unit.fields)
    return f"concat_ws(chr(31), {', '.join(parts)})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(literal(name) for name in names)


def _admitted(unit: Unit, policy: Policy) -> str:
    if policy.unlisted == "last" or not unit.ranks:
        return "true"
    return f"source in ({_listed(source for source, _ in unit.ranks)})"


def rules(config: Config, policy: Policy, unit: Unit) -> dict[str, str]:
    """Every rule that orders the candidates of a unit, in order, with the number it gives (lower wins)."""
    clock = "ingested_at" if policy.clock == "ingestion" else "observed_at"
    numbers = {
        "source_priority": _source_rank(unit),
        "most_recent": f"-epoch({clock})",
        "least_recent": f"epoch({clock})",
        "most_frequent": "-votes",
        "most_complete": "-filled",
        "longest": "-coalesce(length(shown), 0)",
        "shortest": f"coalesce(length(shown), {LAST})",
        "minimum": f"coalesce({_amount(config)}, {LAST})",
        "maximum": f"coalesce(-{_amount(config)}, {LAST})",
        "most_precise": "-coalesce(length(value), 0)",
        # a withdrawn consent must not come back because an older record still grants it
        "most_restrictive": "case when value = 'false' then 0 when cleared then 1 else 2 end",
        "better_looking": _looks(),
    }
    order = dict.fromkeys([*unit.choices, "better_looking", "most_recent", "source_priority"])
    return {rule: numbers[rule] for rule in order if numbers[rule] != "0"}


def _source_rank(unit: Unit) -> str:
    cases = " ".join(f"when {literal(source)} then {rank}" for source, rank in unit.ranks)
    return f"case source {cases} else {UNLISTED} end" if cases else "0"


def _amount(config: Config) -> str:
    """Numbers and dates compare (a year counts from its first day); anything else is NULL, and so tied."""
    timed = ("date", "timestamp", "birth_date")
    dates = _listed(field for field, attribute in config.attributes.items() if attribute.type in timed)
    moment = "coalesce(try_cast(value as timestamptz), try_cast(left(value || '-01-01', 10) as timestamptz))"
    return f"if(unit in ({dates or 'null'}), epoch({moment}), try_cast(value as double))"


def _looks() -> str:
    return """case when cleared then 3 when shown <> upper(shown) and shown <> lower(shown) then 0
        when shown = upper(shown) then 2 else 1 end"""


def _judged_query(offers: str, numbers: dict[str, str]) -> str:
    """Place and rule of every offer. Only what ranks goes through the sorts, the wide columns are joined after.

    A loser's rule is the first that parts it from the winner; the winner's is that of the best candidate with
    another value, which is the last in order of those that part any such candidate.
    """
    keys = "".join(f", {number} as k{i}" for i, number in enumerate(numbers.values()))
    order = ", ".join([*(f"k{i}" for i in range(len(numbers))), "record_key"])
    firsts = "".join(f", first_value(k{i}) over best as f{i}" for i in range(len(numbers)))
    parted = " ".join(f"when k{i} is distinct from f{i} then {i + 1}" for i in range(len(numbers)))
    votes = "count(distinct source) over (partition by profile_id, unit, value)"
    return f"""
        with offers as ({offers}), voted as (
            select *{f", {votes} as votes" if "most_frequent" in numbers else ""} from offers
        ), keyed as (
            select offer, profile_id, unit, record_key, value{keys} from voted
        ), ranked as (
            select *, row_number() over best as place, first_value(value) over best as winner{firsts} from keyed
            window best as (partition by profile_id, unit order by {order})
        ), parted as (
            select offer, profile_id, unit, place, value is distinct from winner as differs,
                case when place = 1 then 0 {parted} else {len(numbers) + 1} end as lost_at from ranked
        ), decided as (
            select *, count(*) over unit as rivals, max(lost_at) filter (differs) over unit as decided_at from parted
            window unit as (partition by profile_id, unit)
        ), judged as (
            select offer, place, case when rivals = 1 then 'only_record' when place = 1 and decided_at is null
                then 'all_agree' else [{_listed([*numbers, "record_key"])}][if(place = 1, decided_at, lost_at)] end as rule
            from decided
        )"""


def survivorship(con: DuckDBPyConnection, policy: str) -> list[tuple[str, int]]:
    """Fields won by source under a policy, most first."""
    return rows(
        con,
        "select source, count(*) from profiles.lineage where policy = ? and won and value is not null"
        " group by 1 order by 2 desc, 1",
        [policy],
    )


def conflicts(con: DuckDBPyConnection, policy: str) -> list[tuple[str, int]]:
    """Profiles in which a field had different values on offer, by field, most first."""
    return rows(
        con,
        """select field, count(*) from (
            select profile_id, field from profiles.lineage where policy = ? and value is not null
            group by 1, 2 having min(lower(value)) <> max(lower(value))) group by 1 order by 2 desc, 1""",
        [policy],
    )
