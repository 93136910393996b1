"""Training without labels: which agreement levels pairs reach, and what that says about matches.

Two looks at the data: pairs chosen at random tell how often strangers agree, candidate pairs hold the matches
and the households. `mixture` separates them. Splink computes the levels in both.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from duckdb import DuckDBPyConnection

from profile_pipeline.identity import blocking, mixture
from profile_pipeline.identity.blocking import BlockingRule, Caps
from profile_pipeline.identity.comparisons import PERSONAL, SHARED, household_settings
from profile_pipeline.identity.linker import scoring_query
from profile_pipeline.identity.mixture import Evidence, Floats
from profile_pipeline.identity.scoring import (
    Scorer,
    log2_factor,
    predicted,
    probability_query,
    scored_settings,
)
from profile_pipeline.warehouse import columns_of, quote, replace_table, rows, scalar

SAMPLED_RECORDS = 40_000
"""Records whose pairs are learned from, where there are more."""
RANDOM = -1
"""Number in place of a blocking rule's for pairs that were drawn at random."""
RANDOM_PAIRS = 200_000
"""Enough for agreements of one in ten thousand; rarer equalities are counted exactly."""
IDLE_SHARE, IDLE_SHARE_WEAK = 0.0002, 0.001
"""A blocking rule that alone finds a smaller share of the matches than this is not worth its pairs."""
IDLE_PAIRS, IDLE_PRECISION = 1_000, 0.01
"""Only rules with more pairs than this, of which fewer than this match, are left out."""
CURVE = range(-10, 31)
"""Match weights at which expected precision and recall are noted with the model."""
Settings = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """What training found: person and household settings, caps of the rules worth their pairs, and notes."""

    settings: Settings
    household: Settings | None
    caps: Caps
    notes: Settings


def train(
    work: DuckDBPyConnection, wanted: Settings, rules: Sequence[BlockingRule], most_pairs: int, cap: int
) -> Trained:
    """Learn m, u and the prior from the `features` of the scratch database.

    Blocking rules that alone find next to no match are left out of the model.
    """
    caps = blocking.weak_caps(work, rules, cap, "features")
    share = _sample_candidates(work, wanted, rules, caps, most_pairs)
    evidence, found_by = _evidence(work, wanted, share)
    found = mixture.fit(evidence)
    names = [rule.name for rule in rules] or [f"rule {n}" for n in range(int(found_by.max(initial=-1)) + 1)]
    yields = _yields(names, found_by, evidence.counts, mixture.match_probabilities(evidence, found))
    notes: Settings = {**mixture.summary(found, evidence), "blocking": yields, "sampled_share": share}
    person = _with_shares(wanted, found.matches, found.strangers, found.match_share)
    household = None
    if sum(evidence.shared) > 1 and notes["expected_household_pairs"] > 0:
        household = household_settings(
            _with_shares(wanted, found.household, found.strangers, found.household_share)
        )
    kept = _worthwhile(rules, yields)
    if rules:
        person["blocking_rules_to_generate_predictions"] = [splink_rule(rule) for rule in kept]
    return Trained(person, household, {rule.name: caps[rule.name] for rule in kept}, notes)


def splink_rule(rule: BlockingRule) -> Settings:
    """A derived rule as Splink settings have it."""
    return {"blocking_rule": blocking.as_splink(rule), "sql_dialect": "duckdb"}


def _evidence(work: DuckDBPyConnection, wanted: Settings, share: float) -> tuple[Evidence, mixture.Levels]:
    """What `mixture` needs, and which blocking rule found the pairs of each pattern."""
    records = scalar(work, "select count(*) from features")
    comparisons = wanted["comparisons"]
    names = [comparison["output_column_name"] for comparison in comparisons]
    _random_pairs(work)
    replace_table(work, "learned_from", "from candidates union all from random_pairs")
    ends = "select join_key_l as unique_id from learned_from union select join_key_r from learned_from"
    replace_table(work, "involved", f"select * from features semi join ({ends}) using (unique_id)")
    found_by, patterns, counts = _patterns(work, wanted, "learned_from")
    drawn = found_by == RANDOM
    seen, weights = patterns[drawn], counts[drawn]
    parts = [_overall(work, comparison, seen[:, k], weights) for k, comparison in enumerate(comparisons)]
    evidence = Evidence(
        patterns=patterns[~drawn],
        counts=counts[~drawn],
        overall=[overall for overall, _ in parts],
        smallest=[smallest for _, smallest in parts],
        start=[_start(c, overall) for c, (overall, _) in zip(comparisons, parts, strict=True)],
        shared=[name in SHARED and not PERSONAL.isdisjoint(names) for name in names],
        pairs=share * records * (records - 1) / 2,
        records=share * records,
    )
    return evidence, found_by[~drawn]


def _yields(
    names: Sequence[str], found_by: mixture.Levels, counts: Floats, matches: Floats
) -> dict[str, list[int]]:
    """By blocking rule: pairs seen that no earlier rule finds, and how many of them are expected to match."""
    found = {}
    for number, name in enumerate(names):
        mine = found_by == number
        pairs, matched = counts[mine].sum(), (counts[mine] * matches[mine]).sum()
        found[name] = [int(pairs), round(float(matched))]
    return found


def _worthwhile(rules: Sequence[BlockingRule], yields: dict[str, list[int]]) -> list[BlockingRule]:
    total = sum(matched for _, matched in yields.values())

    def idle(rule: BlockingRule) -> bool:
        pairs, matched = yields[rule.name]
        few = matched < (IDLE_SHARE_WEAK if rule.weak else IDLE_SHARE) * total
        return few and (rule.weak or (pairs > IDLE_PAIRS and matched < IDLE_PRECISION * pairs))

    return [rule for rule in rules if not idle(rule)]


def expected_quality(work: DuckDBPyConnection, target: float) -> Settings:
    """Threshold for a target precision, with the expected precision and recall of every threshold.

    Reads `training_scored`. Expected precision is the mean match probability of the pairs at or above a threshold, expected
    recall their share of the matches among candidate pairs; the threshold is the lowest that reaches the
    target, and a link is never less likely than not.
    """
    replace_table(
        work,
        "ordered",
        f"""select match_weight, avg(p) over above as precision_above, sum(p) over above as found, count(*) over above as pairs
        from (select *, {probability_query("match_weight")} as p from training_scored)
        window above as (order by match_weight desc range unbounded preceding)""",
    )
    reached = scalar(
        work,
        "select min(match_weight) from ordered where match_weight >= 0 and precision_above >= ?",
        [target],
    )
    total = scalar(work, "select max(found) from ordered") or 1.0
    curve = [
        [weight, *(float(f"{value:.6g}") for value in known)]
        for weight in CURVE
        for known in rows(
            work,
            "select precision_above, found / ?, pairs from ordered where match_weight >= ? order by match_weight limit 1",
            [total, weight],
        )
    ]
    threshold = 0.0 if reached is None else float(f"{reached:.6f}")
    [(precision, recall)] = rows(
        work,
        "select arg_min(precision_above, match_weight), arg_min(found, match_weight) / ? from ordered where match_weight >= ?",
        [total, threshold - 1e-6],
    )
    work.execute("drop table ordered")
    return {
        "threshold": threshold,
        "expected": {"precision": precision, "recall_of_candidates": recall},
        "threshold_curve": curve,
    }


def score_sample(work: DuckDBPyConnection, trained: Trained) -> None:
    """Write `training_scored`: the candidate pairs of the sample under the trained model."""
    work.execute("drop table if exists training_scored")
    person, household = trained.settings, trained.household
    query = scoring_query(scored_settings(person, household), columns_of(work, "involved"))
    Scorer(work, query, person, household, "involved").score("candidates", "training_scored")


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


def _sample_candidates(
    work: DuckDBPyConnection, wanted: Settings, rules: Sequence[BlockingRule], caps: Caps, most_pairs: int
) -> float:
    """Write `candidates`: the candidate pairs of a sample of records with all others; the share of records sampled.

    Keys are refined only in blocks that hold a sampled record: other blocks have no pair of it.
    """
    if not rules:
        replace_table(work, "candidates", own_pairs_query(wanted))
        return 1.0
    records = scalar(work, "select count(*) from features")
    parts = max(1, records // SAMPLED_RECORDS)
    blocking.write_all_keys(work, rules, caps, "features", sampled=_sampled(parts))
    ends = f"""select a.n * b.n as pairs from (
            select key, count(*) as n from keys where key is not null group by key) a
        join (select key, count(*) as n from keys where key is not null and {_sampled(parts)} group by key) b using (key)"""
    found = scalar(work, f"select coalesce(sum(pairs) // 2, 0) from ({ends})")
    parts *= max(1, -(-int(found) // most_pairs))
    own = f"(select * from keys where {_sampled(parts)})"
    replace_table(work, "candidates", blocking.pairs_query(own, "keys"))
    work.execute("drop table keys")
    return scalar(work, f"select count(*) filter ({_sampled(parts)}) / greatest(count(*), 1) from features")


def _sampled(parts: int) -> str:
    """Condition: the record is one of the sample; a finer sample is part of a coarser one when `parts` is its multiple."""
    return f"hash('training', unique_id) % {parts} = 0"


def own_pairs_query(wanted: Settings, touched: str = "") -> str:
    """Grain: one row a pair that the project's own blocking rules find; with `touched`, a table of ids, only their pairs."""
    only = f" and (l.unique_id in (from {touched}) or r.unique_id in (from {touched}))" if touched else ""
    found = " union all ".join(
        f"select {number} as rule, l.unique_id as left_id, r.unique_id as right_id from features l join features r"
        f" on ({rule_sql(rule)}) and l.unique_id < r.unique_id{only}"
        for number, rule in enumerate(wanted["blocking_rules_to_generate_predictions"])
    )
    return (
        "select min(rule)::smallint as match_key, left_id as join_key_l, right_id as join_key_r"
        f" from ({found or 'select 0 as rule, 0::ubigint as left_id, 0::ubigint as right_id limit 0'}) group by 2, 3"
    )


def rule_sql(rule: Settings | str) -> str:
    """The condition of a Splink blocking rule."""
    return rule if isinstance(rule, str) else rule["blocking_rule"]


def _random_pairs(work: DuckDBPyConnection) -> None:
    """Each record with the next few on a ring in the order of hashes: random, yet the same every time."""
    size = scalar(work, "select count(*) from features")
    steps = min((size - 1) // 2, max(1, RANDOM_PAIRS // size))
    replace_table(
        work,
        "random_pairs",
        f"""with ring as (
            select unique_id, row_number() over (order by hash('random', unique_id), unique_id) - 1 as place from features
        )
        select {RANDOM}::smallint as match_key, least(a.unique_id, b.unique_id) as join_key_l,
            greatest(a.unique_id, b.unique_id) as join_key_r
        from ring a cross join (select unnest(generate_series(1, {steps})) as step)
        join ring b on b.place = (a.place + step) % {size} where a.place < {RANDOM_PAIRS}""",
    )


def _patterns(
    work: DuckDBPyConnection, wanted: Settings, pairs: str
) -> tuple[mixture.Levels, mixture.Levels, Floats]:
    """Distinct combinations of rule and levels among pairs, in a fixed order, and how many pairs have each.

    Splink shows the levels themselves only beside every compared value. So each level is given a weight that
    names it: the share of matches 2^-k makes the match weight -k, and missing values weigh 0.
    """
    named: Settings = copy.deepcopy(
        {**wanted, "retain_matching_columns": False, "retain_intermediate_calculation_columns": True}
    )
    for comparison in named["comparisons"]:
        for number, level in enumerate(_levels(comparison)):
            level.pop("tf_adjustment_column", None)
            level.pop("tf_adjustment_weight", None)
            level |= {"m_probability": 2.0 ** -(number + 1), "u_probability": 1.0}
    scored = predicted(work, named, pairs, "involved")
    names = [comparison["output_column_name"] for comparison in wanted["comparisons"]]
    columns = ", ".join(f"(-round({quote(f'mw_{name}')}) - 1)::tinyint" for name in names)
    found = rows(work, f"select match_key, {columns}, count(*) from ({scored}) group by all order by all")
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


def _believable(comparison: Settings, m: Floats, u: Floats) -> Floats:
    """Shares among strangers by which no level speaks more for a match than being the same.

    A level that strangers hardly ever reach by chance would: but then by a typing error nobody else makes, which is
    what too little data looks like.
    """
    if _levels(comparison)[-1].get("label_for_charts") != "same":
        return u
    return np.maximum(u, m * u[-1] / m[-1])


def _with_shares(wanted: Settings, matches: list[Floats], strangers: list[Floats], share: float) -> Settings:
    """A copy of the settings with trained values, rounded so that the text is the same on every machine.

    No two levels of a comparison get the same weight: scoring tells levels apart by it.
    """
    trained = copy.deepcopy(wanted)
    trained["probability_two_random_records_match"] = float(f"{share:.9g}")
    for comparison, m, u in zip(trained["comparisons"], matches, strangers, strict=True):
        taken: list[float] = []
        for level, m_share, u_share in zip(
            _levels(comparison), m, _believable(comparison, m, u), strict=True
        ):
            level["u_probability"] = float(f"{u_share:.9g}")
            level["m_probability"] = float(f"{m_share:.9g}")
            while any(abs(log2_factor(level) - weight) < 1e-6 for weight in [0.0, *taken]):
                level["m_probability"] *= 1.00001
            taken.append(log2_factor(level))
    return trained
