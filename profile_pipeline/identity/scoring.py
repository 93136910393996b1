"""Match weights of pairs of records, with Splink: the one place where pairs are scored.

Match weight: log2 of P(one person) / (P(one household) + P(strangers)), with Splink's weights of the person
model and of the household model. Under one model it depends on the two records only.
"""

import math
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.identity.linker import SHOWN_FEATURES, SHOWN_PAIRS, scoring_query
from profile_pipeline.warehouse import columns_of, replace_table, scalar

Settings = dict[str, Any]
SCORED = "(match_key smallint, join_key_l ubigint, join_key_r ubigint, match_weight double, relief double)"
"""Grain: one row a pair; `relief` is what a shared household explains, in bits, already taken off the weight."""
MOST_AT_ONCE = 20_000_000
"""Pairs scored in one query: every query reads all records, more pairs make a larger result before the floor cuts it."""


def scored_settings(person: Settings, household: Settings | None) -> Settings:
    """The settings under which Splink shows what the weight of a pair is made of: by comparison where both models need it."""
    return {**person, "retain_intermediate_calculation_columns": household is not None}


@dataclass(frozen=True)
class Scorer:
    """Both models of a project, ready to score pairs of the records in `features` of the scratch database.

    `query` is Splink's scoring query under `scored_settings`. Needs the model's frozen frequencies in the scratch database.
    """

    work: DuckDBPyConnection
    query: str
    person: Settings
    household: Settings | None
    features: str = "features"

    def score(self, pairs: str, scored: str, *, floor: float | None = None) -> int:
        """Add to the table `scored` the weights of the pairs of a table, from the floor up; the number of pairs looked at.

        `pairs` is a table of the scratch database: (match_key, join_key_l, join_key_r).
        """
        self.work.execute(f"create table if not exists {scored} {SCORED}")
        total = scalar(self.work, f"select count(*) from {pairs}")
        parts = -(-total // MOST_AT_ONCE)
        for part in range(parts):
            share = pairs
            if parts > 1:
                share = "pairs_part"
                replace_table(self.work, share, f"select * from {pairs} where join_key_l % {parts} = {part}")
            self._score_part(share, scored, floor)
        self.work.execute("drop table if exists pairs_part")
        return total

    def _score_part(self, pairs: str, scored: str, floor: float | None) -> None:
        _show(self.work, self.features, pairs)
        relief = "0.0"
        if self.household:
            hidden = household_weight_query(self.person, self.household)
            relief = f"log2(1 + pow(2, least({hidden}, 1000)))"
        least = "" if floor is None else f"where match_weight - relief >= {floor}"
        self.work.execute(
            f"""insert into {scored}
            select match_key, unique_id_l, unique_id_r, match_weight - relief, relief
            from (select match_key, unique_id_l, unique_id_r, match_weight, {relief} as relief from ({self.query})) {least}"""
        )


def household_weight_query(person: Settings, household: Settings) -> str:
    """SQL: the household model's match weight of a pair, from the levels that the person model found.

    Both models see the same levels. Splink shows the weight of each level, and within a comparison every level has
    a weight of its own, none of them 0, which is that of missing values (`training._with_shares`): so the weight names the
    level. The term-frequency part is the same in both.
    """
    levels = {c["output_column_name"]: c["comparison_levels"] for c in person["comparisons"]}
    prior = household["probability_two_random_records_match"]
    terms = [_double(math.log2(prior / (1 - prior)))]
    for comparison in household["comparisons"]:
        name = comparison["output_column_name"]
        pairs = [
            (log2_factor(seen), log2_factor(level))
            for seen, level in zip(levels[name], comparison["comparison_levels"], strict=True)
            if not level.get("is_null_level")
        ]
        cases = " ".join(_when(f"mw_{name}", a, b) for a, b in pairs)
        terms.append(f"case {cases} else {_double(0)} end")
        if any("tf_adjustment_column" in level for level in levels[name]):
            terms.append(f"mw_tf_adj_{name}")
    return " + ".join(terms)


def _when(column: str, weight: float, then: float) -> str:
    return f"when {column} between {_double(weight - 1e-7)} and {_double(weight + 1e-7)} then {_double(then)}"


def _double(value: float) -> str:
    """SQL: a plain number is a decimal to DuckDB, and to turn millions of them into doubles takes longer than the rest."""
    return f"{value!r}::double"


def log2_factor(level: Settings) -> float:
    """The match weight of a level: log2 of its Bayes factor m / u (Fellegi and Sunter 1969)."""
    return math.log2(level["m_probability"] / level["u_probability"])


def predicted(work: DuckDBPyConnection, settings: Settings, pairs: str, features: str = "features") -> str:
    """Splink's scores of a table of pairs under any settings, as a query."""
    _show(work, features, pairs)
    return scoring_query(settings, columns_of(work, features))


def _show(work: DuckDBPyConnection, features: str, pairs: str) -> None:
    work.execute(f"create or replace view {SHOWN_FEATURES} as from {features}")
    work.execute(f"create or replace view {SHOWN_PAIRS} as from {pairs}")


def probability_query(weight: str) -> str:
    """SQL: the match probability of a match weight."""
    return f"1 / (1 + pow(2, -least(greatest({weight}, -500), 500)))"
