"""Applies merge policies: ranks the candidates of every profile and field, and says by which rule each lost.

Each rule gives a candidate a number, lower wins (`rules`); rules are compared in the order of the policy. What they
leave tied is decided by looks (mixed case before capitals), time, source rank and record key, so the order is total
and the result depends on nothing else. A locked group is ranked as one candidate a record, its values side by side.

An explicit clear competes like a value: it wins where the rules prefer it, for example when it is newest, and
the profile then shows nothing; under `clears: ignore` it never wins. In a group a record that only clears gives way.

Lists (`lists`) keep more than one candidate. Under unanimous_or_null candidates that disagree let nobody win.
"""

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.profiles import Keep, Policy, Ranking
from profile_pipeline.errors import PipelineError
from profile_pipeline.profiles import pins, touched
from profile_pipeline.profiles.lists import rule_cases, seat_query, won_query
from profile_pipeline.profiles.rules import AS_OF, Rules, Unit, beside, listed, rules
from profile_pipeline.warehouse import (
    built,
    continues,
    fingerprint,
    fixed_query,
    last_full,
    literal,
    mark_built,
    replace_table,
    rows,
    rows_where,
    scalar,
    scrubbed,
    transaction,
)

ALL, TABLE = "profiles.candidates", "profiles.lineage"
PROFILE = "coalesce(try_cast({0} as uuid), md5({0})::uuid)"
"""SQL: a profile id as a number."""
SHAPE = """(
    policy text not null, policy_version integer not null, profile_id text not null, field text not null,
    rank bigint not null, won boolean not null, value text, cleared boolean not null, record_key text not null,
    source text not null, observed_at timestamptz, rule text not null)"""


def build_lineage(con: DuckDBPyConnection, config: Config) -> None:
    """Bring profiles.lineage up to date for every policy when candidates or policies changed."""
    rules_now = config.profiles.model_dump(), _clock_hand(con, config)
    base = fingerprint(rules_now, last_full(con, "profiles.candidates"))
    mark = fingerprint(built(con, "profiles.candidates"), rules_now)
    if built(con, "profiles.lineage") == mark:
        return
    whole = not continues(con, "profiles.lineage", base)
    con.execute(touched.QUEUE)
    with transaction(con):
        touched.drop_handed_over(con, touched.LINEAGE)
        if whole:
            con.execute(f"create or replace table {TABLE} {SHAPE}")
            _decide_all(con, config, ALL, TABLE)
        else:
            _update(con, config)
        pinned = [pins.put_first(con, name, p.version) for name, p in config.profiles.policies.items()]
        if any(pinned):
            touched.drop_handed_over(con, touched.LINEAGE)
        touched.forget(con, "lineage")
        full = mark if whole else last_full(con, "profiles.lineage")
        mark_built(con, "profiles.lineage", mark, {"base": base, "full": full})


def _update(con: DuckDBPyConnection, config: Config) -> None:
    """Decide anew about touched profiles only."""
    noted = touched.noted_query("lineage")
    if not touched.handed_over(con, touched.CANDIDATES, noted):
        replace_table(con, touched.CANDIDATES, rows_where(ALL, f"profile_id in ({noted})"))
    con.execute(f"create or replace temp table {touched.LINEAGE} {SHAPE}")
    _decide_all(con, config, touched.CANDIDATES, touched.LINEAGE)
    con.execute(f"delete from {TABLE} where profile_id in ({noted})")
    con.execute(f"insert into {TABLE} by name from {touched.LINEAGE}")
    touched.drop_handed_over(con, touched.CANDIDATES)
    touched.hand_over(con, touched.LINEAGE, noted)


def _decide_all(con: DuckDBPyConnection, config: Config, candidates: str, target: str) -> None:
    for name, policy in config.profiles.policies.items():
        for unit in units(config, policy):
            _decide(con, config, name, unit, candidates, target)


def _clock_hand(con: DuckDBPyConnection, config: Config) -> str | None:
    """The as-of time where the result depends on it: trust that fades in a straight line changes ranks as days pass."""
    every = (ranking for policy in config.profiles.policies.values() for _, ranking in policy.rankings())
    fades = any(ranking.zero_after_days and "trust" in ranking.rules for ranking in every)
    return str(scalar(con, f"select {AS_OF}")) if fades else None


def _decide(
    con: DuckDBPyConnection, config: Config, name: str, unit: Unit, candidates: str, target: str
) -> None:
    try:
        con.execute(f"insert into {target} by name {lineage_query(config, name, unit, candidates)}")
    except duckdb.ConversionException as error:
        place = f"groups.{unit.group}" if unit.group else f"fields.{unit.fields[0]}"
        raise PipelineError(
            f"profiles.yaml: policies.{name}.{place}: an expression does not work: {scrubbed(error)};"
            " use try_cast in it"
        ) from None


def units(config: Config, policy: Policy) -> list[Unit]:
    """Fields with equal rules together, then the groups; every field in exactly one of them."""
    alike: dict[tuple[Ranking, Keep, int | None, bool], list[str]] = {}
    for field, attribute in config.attributes.items():
        if policy.group_of(field) is None:
            rule = policy.fields.get(field)
            keep: Keep = rule.keep if rule else "one"
            most = rule.max if rule else None
            precise = attribute.type == "birth_date" and keep == "one" and policy.method == "per_field"
            alike.setdefault((policy.ranking(field), keep, most, precise), []).append(field)
    single = [
        Unit(tuple(fields), ranking, keep=keep, max=most, precise=precise)
        for (ranking, keep, most, precise), fields in alike.items()
    ]
    return single + [
        Unit(tuple(group.fields), policy.group_ranking(name), name, group.fill)
        for name, group in policy.groups.items()
    ]


def lineage_query(config: Config, name: str, unit: Unit, candidates: str = ALL) -> str:
    """Grain: profile, field, record, for the fields of a unit under the policy of that name.

    `candidates` is a table of the shape of profiles.candidates, whole profiles of it.
    """
    policy = config.profiles.policies[name]
    gather = _blocks_query if unit.group else _offers_query
    offers = gather(config, unit, policy, candidates)
    matched = (
        f"{PROFILE.format('c.profile_id')} = j.profile and c.record_number = j.record_number and c.field in ({listed(unit.fields)})"
        if unit.group
        else "c.rowid = j.offer"
    )
    rank, won, rule = "seat", "won", "rule"
    if unit.fill:
        # the best record that says anything of the field, a clear included
        rank = "row_number() over (partition by c.profile_id, c.field order by seat)"
        # where the rules let no record win there is nothing to fill
        won = f"({rank} = 1 and bool_or(won) over (partition by c.profile_id))"
        rule = f"if(seat > 1 and {won}, 'fill', rule)"
    return f"""{_judged_query(offers, rules(config, policy, unit), unit)}
        select {literal(name)} as policy, {policy.version} as policy_version, c.profile_id, c.field, {rank} as rank,
            {won} as won, c.shown as value, c.cleared, c.record_key, c.source, c.observed_at, {rule} as rule
        from {candidates} c join judged j on {matched}"""


def _offers_query(config: Config, unit: Unit, policy: Policy, candidates: str) -> str:
    return f"""select rowid as offer, * replace ({_compared(config, unit.fields)} as value), field as unit,
            if(cleared, 0, 1) as filled
        from {candidates} where not pinned and field in ({listed(unit.fields)}) and {_admitted(unit, policy)}"""


def _compared(config: Config, fields: tuple[str, ...]) -> str:
    """What decides whether two values are equal. Most types are folded when records are normalised, free text is not."""
    free = [field for field in fields if config.attributes[field].type == "text"]
    return f"if(field in ({listed(free)}), lower(value), value)" if free else "value"


def _blocks_query(config: Config, unit: Unit, policy: Policy, candidates: str) -> str:
    """A locked group as one candidate a record; a record that fills none of its fields has nothing to offer."""
    return f"""select 0 as offer, any_value(record_number) as record_number, any_value(profile_id) as profile_id,
            {literal(unit.group)} as unit, any_value(source) as source, max(observed_at) as observed_at,
            any_value(ingested_at) as ingested_at,
            any_value(clock) as clock, bool_and(valid) as valid,
            {_side_by_side(_compared(config, unit.fields), unit)} as value, {_side_by_side("shown", unit)} as shown,
            false as cleared, count(value) as filled
        from {candidates} where not pinned and field in ({listed(unit.fields)}) and {_admitted(unit, policy)}
        group by record_key having count(value) > 0"""


def _side_by_side(column: str, unit: Unit) -> str:
    parts = (f"coalesce(any_value({column}) filter (field = {literal(field)}), '')" for field in unit.fields)
    return f"concat_ws(chr(31), {', '.join(parts)})"


def _admitted(unit: Unit, policy: Policy) -> str:
    clears = " and not cleared" if policy.clears == "ignore" else ""
    if policy.unlisted == "last" or not unit.ranking.sources:
        return f"true{clears}"
    return f"source in ({listed(source for source, _ in unit.ranking.sources)}){clears}"


def _judged_query(offers: str, numbers: Rules, unit: Unit) -> str:
    """Place and rule of every offer. Only numbers go through the sorts, which takes a third of the time; texts are joined after.

    A loser's rule is the first that parts it from the winner; the winner's is that of the best candidate with
    another value, which is the last in order of those that part any such candidate.
    """
    keys = "".join(f", {number} as k{i}" for i, (_, number) in enumerate(numbers))
    order = ", ".join([*(f"k{i}" for i in range(len(numbers))), "record_number"])
    field_no = (
        f"list_position([{listed(unit.fields)}], field)::usmallint"
        if len(unit.fields) > 1 and not unit.group
        else "0"
    )
    # birth dates are looked into; of other values only whether they are equal counts
    said = "value" if unit.precise else "if(value is null, null, hash(value))"
    firsts = "".join(f", first_value(k{i}) over best as f{i}" for i in range(len(numbers)))
    parted = " ".join(f"when k{i} is distinct from f{i} then {i + 1}" for i in range(len(numbers)))
    names = listed([*(rule for rule, _ in numbers), "record_key"])
    return f"""
        with offers as ({offers}), numbered as (
            select *, {PROFILE.format("profile_id")} as profile, {field_no} as field_no, {said} as said from offers
        ), voted as (
            select *{beside(unit)} from numbered
        ), keyed as (
            select offer, profile, field_no, record_number, said{keys} from voted
        ), ranked as (
            select * exclude (said), said as value, row_number() over best as place, first_value(said) over best as winner{firsts}
            from keyed window best as (partition by profile, field_no order by {order})
        ), parted as (
            select offer, profile, field_no, record_number, place, value, winner, value is distinct from winner as differs,
                case when place = 1 then 0 {parted} else {len(numbers) + 1} end as lost_at{_further(unit)} from ranked
        ), decided as (
            select *, count(*) over unit as rivals, max(lost_at) filter (differs) over unit as decided_at,
                {_divided(unit)} as divided, {seat_query(unit)} as seat from parted
            window unit as (partition by profile, field_no)
        ), seated as (
            select *, {won_query(unit)} and not divided as won from decided
        ), judged as (
            select offer, profile, record_number, seat, won, case when rivals = 1 then 'only_record' {_cases(unit)}
                when place = 1 and decided_at is null then 'all_agree'
                else [{names}][if(place = 1, decided_at, lost_at)] end as rule
            from seated
        )"""


def _further(unit: Unit) -> str:
    """Columns that only lists and birth dates need."""
    if unit.keep == "list":
        return ", row_number() over (partition by profile, field_no, value order by place) as copy"
    if unit.precise:
        return ", coalesce(starts_with(value, winner) and length(value) > length(winner), false) as refines"
    return ""


def _divided(unit: Unit) -> str:
    """Whether candidates that the rules before unanimous_or_null leave tied for the first place disagree."""
    if unit.unanimous_at is None:
        return "false"
    differs = "differs"
    if unit.precise:
        # a year and a full date in it agree
        agree = "starts_with(value, winner) or starts_with(winner, value)"
        differs = f"not coalesce({agree}, value is null and winner is null)"
    return f"coalesce(max(lost_at) filter ({differs}) over unit > {unit.unanimous_at}, false)"


def _cases(unit: Unit) -> str:
    """Reasons beside the order of the rules."""
    cases = rule_cases(unit)
    if unit.unanimous_at is not None:
        tied = f"(place = 1 or lost_at > {unit.unanimous_at})"
        cases += f" when divided and {tied} then 'unanimous_or_null'"
    if unit.precise:
        cases += " when (seat = 1) <> (place = 1) then 'most_precise'"
    return cases


def survivorship(con: DuckDBPyConnection, policy: str) -> list[tuple[str, int]]:
    """Fields won by source under a policy, most first."""
    return rows(
        con,
        "select source, count(*) from profiles.lineage where policy = ? and won and value is not null"
        " group by 1 order by 2 desc, 1",
        [policy],
    )


def conflicts(con: DuckDBPyConnection, policy: str) -> list[tuple[str, int]]:
    """Profiles in which a rule decided between different values of a field, by field, most first."""
    return rows(
        con,
        f"select field, conflict_count from ({fixed_query('profiles/conflicts')}) where policy = ? order by 2 desc, 1",
        [policy],
    )
