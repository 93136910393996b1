"""Applies merge policies: ranks the candidates of every profile and field, and says by which rule each lost.

Each rule gives a candidate a number, lower wins; rules are compared in the order of the policy. What they leave
tied is decided by looks (mixed case before capitals), business time, source rank and record key, so the order
is total and the result depends on nothing else.
"""

from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.profiles import Choice, Group, Policy
from profile_pipeline.warehouse import built, fingerprint, literal, mark_built, rows, transaction

UNLISTED = 1_000_000
TABLE = """create or replace table profiles.lineage (
    policy text not null, policy_version integer not null, profile_id text not null, field text not null,
    rank bigint not null, won boolean not null, value text, cleared boolean not null, record_key text not null,
    source text not null, observed_at timestamptz, rule text not null)"""


@dataclass(frozen=True)
class Ordering:
    """The fields of a policy that are decided by the same rules and source ranks."""

    fields: tuple[str, ...]
    choices: tuple[Choice, ...]
    ranks: tuple[tuple[str, int], ...]


def build_lineage(con: DuckDBPyConnection, config: Config) -> None:
    """Write profiles.lineage for every policy when candidates or policies changed."""
    mark = fingerprint(built(con, "profiles.candidates"), config.profiles.model_dump())
    if built(con, "profiles.lineage") == mark:
        return
    with transaction(con):
        con.execute(TABLE)
        for name, policy in config.profiles.policies.items():
            for query in policy_queries(config, name, policy):
                con.execute(f"insert into profiles.lineage by name {query}")
        mark_built(con, "profiles.lineage", mark)


def policy_queries(config: Config, name: str, policy: Policy) -> list[str]:
    """The select statements whose union is the lineage of one policy."""
    grouped = {field for group in policy.groups.values() for field in group.fields}
    single: dict[tuple[object, ...], list[str]] = {}
    for field in config.attributes:
        if field not in grouped:
            key = (tuple(policy.choices(field)), tuple(sorted(policy.ranks(field).items())))
            single.setdefault(key, []).append(field)
    orderings = [Ordering(tuple(fields), *key) for key, fields in single.items()]  # ty: ignore[invalid-argument-type]
    return [
        *(_field_query(name, policy, ordering) for ordering in orderings),
        *(_group_query(name, policy, group) for group in policy.groups.values()),
    ]


def _clock(policy: Policy) -> str:
    return "ingested_at" if policy.clock == "ingestion" else "observed_at"


def _source_rank(ranks: dict[str, int]) -> str:
    cases = " ".join(f"when {literal(source)} then {rank}" for source, rank in sorted(ranks.items()))
    return f"case source {cases} else {UNLISTED} end" if cases else "0"


def _key(choice: Choice, policy: Policy, ranks: dict[str, int]) -> str:
    """A number for a candidate, lower wins; a clear takes part in rules of time, source and frequency only."""
    comparable = "coalesce(try_cast(value as double), epoch(try_cast(value as timestamp)))"
    keys: dict[Choice, str] = {
        "source_priority": _source_rank(ranks),
        "most_recent": f"-epoch({_clock(policy)})",
        "least_recent": f"epoch({_clock(policy)})",
        "most_frequent": "-votes",
        "most_complete": "if(cleared, 1, 0)",
        "longest": "-coalesce(length(shown), 0)",
        "shortest": "coalesce(length(shown), 1e9)",
        "minimum": f"coalesce({comparable}, 1e18)",
        "maximum": f"coalesce(-{comparable}, 1e18)",
        "most_precise": "-coalesce(length(value), 0)",
        "most_restrictive": "case value when 'false' then 0 when 'true' then 1 else 2 end",
    }
    return keys[choice]


def _listed_only(policy: Policy, ranks: dict[str, int]) -> str:
    if policy.unlisted == "last" or not ranks:
        return "true"
    return f"source in ({', '.join(literal(source) for source in sorted(ranks))})"


def _looks(column: str) -> str:
    return (
        f"case when {column} <> upper({column}) and {column} <> lower({column}) then 0"
        f" when {column} = upper({column}) then 2 else 1 end"
    )


def _field_query(name: str, policy: Policy, ordering: Ordering) -> str:
    ranks = dict(ordering.ranks)
    fields = ", ".join(literal(field) for field in ordering.fields)
    keys = [_key(choice, policy, ranks) for choice in ordering.choices]
    votes = (
        "count(distinct source) over (partition by profile_id, field, value)"
        if "most_frequent" in ordering.choices
        else "0"
    )
    tie = [_looks("shown"), f"-epoch({_clock(policy)})", _source_rank(ranks)]
    keyed = f"""select *{_columns([*keys, *tie])} from (
            select *, {votes} as votes from profiles.candidates
            where field in ({fields}) and {_listed_only(policy, ranks)})"""
    return _ranked_query(name, policy, keyed, list(ordering.choices), "field")


def _group_query(name: str, policy: Policy, group: Group) -> str:
    """A locked group: all of its fields from one record; the winner is not filled from others."""
    ranks = dict(policy.sources)
    fields = ", ".join(literal(field) for field in group.fields)
    keys = ["-filled" if c == "most_complete" else _key(c, policy, ranks) for c in group.choose]
    tie = ["0", f"-epoch({_clock(policy)})", _source_rank(ranks)]
    keyed = f"""select *{_columns([*keys, *tie])} from (
            select * replace (max(observed_at) over record as observed_at), 'group' as unit, 0 as votes,
                count(value) over record as filled
            from profiles.candidates where field in ({fields}) and {_listed_only(policy, ranks)}
            window record as (partition by profile_id, record_key)) where filled > 0"""
    return _ranked_query(name, policy, keyed, list(group.choose), "unit")


def _columns(keys: list[str]) -> str:
    return "".join(f", {key} as k{position}" for position, key in enumerate(keys))


def _ranked_query(name: str, policy: Policy, keyed: str, choices: list[Choice], unit: str) -> str:
    """Rank inside (profile, unit) and name the first rule that parts each loser from the winner."""
    count = len(choices) + 3
    order = ", ".join(f"k{i}" for i in range(count)) + ", record_key"
    firsts = "".join(f", first_value(k{i}) over best as f{i}" for i in range(count))
    labels = [*choices, "better_looking", "most_recent", "source_priority"]
    parted = " ".join(
        f"when k{i} is distinct from f{i} then {literal(label)}" for i, label in enumerate(labels)
    )
    return f"""
        with ranked as (
            select *, dense_rank() over best as place{firsts}, first_value(value) over best as winner from ({keyed})
            window best as (partition by profile_id, {unit} order by {order})
        ), parted as (
            select *, case when place = 1 then null {parted} else 'record_key' end as lost_by
            from ranked
        ), decided as (
            select *, first_value(lost_by ignore nulls) over (partition by profile_id, {unit} order by place
                rows between unbounded preceding and unbounded following) as decided_by,
                bool_or(value is distinct from winner) over (partition by profile_id, field) as contested
            from parted
        )
        select {literal(name)} as policy, {policy.version} as policy_version, profile_id, field, place as rank,
            place = 1 as won, shown as value, cleared, record_key, source, observed_at,
            case when place > 1 then lost_by when decided_by is null then 'only_record'
                when not contested then 'all_agree' else decided_by end as rule
        from decided"""


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
            group by 1, 2 having count(distinct lower(value)) > 1) group by 1 order by 2 desc, 1""",
        [policy],
    )
