"""Training without labels: which agreement levels pairs reach, and what that says about matches.

Two looks at the data: pairs chosen at random tell how often strangers agree, candidate pairs hold the matches
and the households. `mixture` separates them. Splink computes the levels in both.
"""

import copy
import re
from typing import Any

import numpy as np
from duckdb import DuckDBPyConnection

from profile_pipeline.identity import mixture
from profile_pipeline.identity.comparisons import PERSONAL, SHARED, household_settings
from profile_pipeline.identity.linker import make_linker, quiet_splink, register_pairs
from profile_pipeline.identity.mixture import Evidence, Floats
from profile_pipeline.warehouse import quote, replace_table, rows, scalar

RANDOM_PAIRS = 100_000
"""Enough for agreements of one in ten thousand; rarer equalities are counted exactly."""
IDLE_SHARE = 0.001
"""A weak blocking rule that finds a smaller share of the matches than this is not worth its pairs."""
Settings = dict[str, Any]


def train(
    work: DuckDBPyConnection, wanted: Settings, most_pairs: int, weak: set[str]
) -> tuple[Settings, Settings | None, Settings]:
    """Trained person settings, household settings (None when there are no households), and notes.

    Weak blocking rules that would find next to no match are left out of the person settings.
    """
    with quiet_splink():
        evidence, found_by = _evidence(work, wanted, most_pairs)
    found = mixture.fit(evidence)
    yields = _yields(wanted, found_by, evidence.counts, mixture.match_probabilities(evidence, found))
    notes: Settings = {**mixture.summary(found, evidence), "blocking": yields}
    person = _with_shares(wanted, found.matches, found.strangers, found.match_share)
    household = None
    if sum(evidence.shared) > 1 and notes["expected_household_pairs"] > 0:
        household = household_settings(
            _with_shares(wanted, found.household, found.strangers, found.household_share)
        )
    return _without_idle_rules(person, yields, weak), household, notes


def _evidence(work: DuckDBPyConnection, wanted: Settings, most_pairs: int) -> tuple[Evidence, mixture.Levels]:
    """What `mixture` needs, and which blocking rule found the pairs of each pattern."""
    records = scalar(work, "select count(*) from features")
    share = _sample(work, wanted, most_pairs)
    comparisons = wanted["comparisons"]
    names = [comparison["output_column_name"] for comparison in comparisons]
    found_by, patterns, counts = _patterns(work, _sampled(wanted), names, "candidates")
    _random_pairs(work)
    _, seen, weights = _patterns(work, wanted, names, "random", pairs="random_pairs")
    parts = [_overall(work, comparison, seen[:, k], weights) for k, comparison in enumerate(comparisons)]
    evidence = Evidence(
        patterns=patterns,
        counts=counts,
        overall=[overall for overall, _ in parts],
        smallest=[smallest for _, smallest in parts],
        start=[_start(c, overall) for c, (overall, _) in zip(comparisons, parts, strict=True)],
        shared=[name in SHARED and not PERSONAL.isdisjoint(names) for name in names],
        pairs=share * records * (records - 1) / 2,
        records=share * records,
    )
    return evidence, found_by


def _yields(
    wanted: Settings, found_by: mixture.Levels, counts: Floats, matches: Floats
) -> dict[str, list[int]]:
    """By blocking rule: pairs seen that no earlier rule finds, and how many of them are expected to match."""
    found = {}
    for number, rule in enumerate(wanted["blocking_rules_to_generate_predictions"]):
        mine = found_by == number
        pairs, matched = counts[mine].sum(), (counts[mine] * matches[mine]).sum()
        found[rule_sql(rule).split("block_")[-1]] = [int(pairs), round(float(matched))]
    return found


def _without_idle_rules(person: Settings, yields: dict[str, list[int]], weak: set[str]) -> Settings:
    fewest = IDLE_SHARE * sum(matched for _, matched in yields.values())
    idle = {name for name in weak if yields.get(name, [0, 0])[1] < fewest}
    rules = person["blocking_rules_to_generate_predictions"]
    kept = [rule for rule in rules if rule_sql(rule).split("block_")[-1] not in idle]
    return {**person, "blocking_rules_to_generate_predictions": kept}


def _levels(comparison: Settings) -> list[Settings]:
    """The levels that say something, from 'different' to 'same', as Splink numbers them."""
    return [level for level in comparison["comparison_levels"] if not level.get("is_null_level")][::-1]


def _start(comparison: Settings, overall: Floats) -> Floats:
    """Shares among matches to start from; levels whose starting values say nothing start as among all pairs."""
    levels = _levels(comparison)
    shares = np.array([level.get("m_probability") or 2.0**-k for k, level in enumerate(levels[::-1])][::-1])
    if all(level.get("m_probability", -1) == level.get("u_probability", -2) for level in levels):
        shares = overall
    return shares / shares.sum()


def _sample(work: DuckDBPyConnection, wanted: Settings, most_pairs: int) -> float:
    """Mark the records whose pairs with later ones are looked at; the share marked."""
    pairs = 0
    for rule in wanted["blocking_rules_to_generate_predictions"]:
        key = re.fullmatch(r"l\.(\w+) = r\.\1", rule_sql(rule))
        if key:
            column = quote(key[1])
            query = f"select count(*) as n from features where {column} is not null group by {column}"
            pairs += scalar(work, f"select coalesce(sum(n * (n - 1) // 2), 0) from ({query})")
    parts = max(1, -(-int(pairs) // most_pairs))
    work.execute("alter table features add column sampled boolean default (false)")
    work.execute(f"update features set sampled = hash('training ' || unique_id) % {parts} = 0")
    return scalar(work, "select count(*) filter (sampled) / greatest(count(*), 1) from features")


def rule_sql(rule: Settings | str) -> str:
    """The condition of a Splink blocking rule."""
    return rule if isinstance(rule, str) else rule["blocking_rule"]


def _sampled(wanted: Settings) -> Settings:
    rules = wanted["blocking_rules_to_generate_predictions"]
    return {
        **wanted,
        "blocking_rules_to_generate_predictions": [f"({rule_sql(rule)}) and l.sampled" for rule in rules],
    }


def _random_pairs(work: DuckDBPyConnection) -> None:
    """Each record with the next few on a ring in the order of hashes: random, yet the same every time."""
    replace_table(
        work,
        "random_pairs",
        """with ring as (
            select unique_id, row_number() over (order by hash('random ' || unique_id), unique_id) - 1 as place,
                count(*) over () as size from features
        ), steps as (
            select unnest(generate_series(1, least((size - 1) // 2, greatest(1, $1 // size)))) as step
            from (select count(*) as size from features)
        )
        select '0' as match_key, least(a.unique_id, b.unique_id) as join_key_l,
            greatest(a.unique_id, b.unique_id) as join_key_r
        from ring a cross join steps join ring b on b.place = (a.place + step) % a.size""".replace(
            "$1", str(RANDOM_PAIRS)
        ),
    )


def _patterns(
    work: DuckDBPyConnection, wanted: Settings, names: list[str], label: str, pairs: str = ""
) -> tuple[mixture.Levels, mixture.Levels, Floats]:
    """Distinct combinations of rule and levels among pairs, in a fixed order, and how many pairs have each."""
    bare: Settings = copy.deepcopy(
        {**wanted, "retain_matching_columns": True, "retain_intermediate_calculation_columns": False}
    )
    for comparison in bare["comparisons"]:
        for level in comparison["comparison_levels"]:
            level.pop("tf_adjustment_column", None)
            level.pop("tf_adjustment_weight", None)
    linker = make_linker(work, bare, label)
    if pairs:
        register_pairs(linker, work, pairs)
    table = linker.inference.predict(warning_mode="never").physical_name
    columns = ", ".join(quote(f"gamma_{name}") for name in names)
    found = rows(
        work, f"select match_key::integer, {columns}, count(*) from {table} group by all order by all"
    )
    work.execute(f"drop table {table}")
    matrix = np.array(found, dtype=np.int64).reshape(len(found), len(names) + 2)
    return matrix[:, 0], matrix[:, 1:-1], matrix[:, -1].astype(np.float64)


def _overall(
    work: DuckDBPyConnection, comparison: Settings, levels: mixture.Levels, weights: Floats
) -> tuple[Floats, Floats]:
    """Share of each level among all pairs, and the smallest share that the sample can show."""
    size = len(_levels(comparison))
    filled = levels >= 0
    counts = np.bincount(levels[filled], weights=weights[filled], minlength=size)
    # a level not met once in n pairs is given the share of 0.3 pairs, not nothing
    share = (counts + 0.3) / (counts.sum() + 0.3 * size)
    smallest = np.full(size, 0.3 / (counts.sum() + 0.3 * size))
    exact = _exact_share(work, _levels(comparison)[-1]["sql_condition"])
    if exact is not None:
        share[:-1] *= (1 - exact) / share[:-1].sum()
        share[-1] = exact
        smallest[-1] = 0.0
    return share, smallest


def _exact_share(work: DuckDBPyConnection, condition: str) -> float | None:
    """How often two different records have equal values, where a level is a plain equality of columns."""
    parts = [re.fullmatch(r"(\w+)_l = \1_r", part) for part in condition.split(" and ")]
    if not all(parts):
        return None
    columns = ", ".join(quote(part[1]) for part in parts if part)
    filled = " and ".join(f"{quote(part[1])} is not null" for part in parts if part)
    return (
        scalar(
            work,
            "select sum(n * (n - 1)) / nullif(sum(n) * (sum(n) - 1), 0)"
            f" from (select count(*) as n from features where {filled} group by {columns})",
        )
        or None
    )


def _with_shares(wanted: Settings, matches: list[Floats], strangers: list[Floats], share: float) -> Settings:
    """A copy of the settings with trained values, rounded so that the text is the same on every machine."""
    trained = copy.deepcopy(wanted)
    trained["probability_two_random_records_match"] = float(f"{share:.9g}")
    for comparison, m, u in zip(trained["comparisons"], matches, strangers, strict=True):
        for level, m_share, u_share in zip(_levels(comparison), m, u, strict=True):
            level["m_probability"] = float(f"{m_share:.9g}")
            level["u_probability"] = float(f"{u_share:.9g}")
    return trained
