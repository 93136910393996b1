"""Match weights of pairs of records, with Splink: the one place where pairs are scored.

Match weight: log2 of P(one person) / (P(one household) + P(strangers)), with Splink's weights of the person
model and of the household model. Under one model it depends on the two records only.
"""

import math
from typing import TYPE_CHECKING, Any

from duckdb import DuckDBPyConnection

from profile_pipeline.identity.linker import make_linker, quiet_splink, register_frequencies, register_pairs
from profile_pipeline.warehouse import replace_table, scalar

if TYPE_CHECKING:
    from splink import Linker

Settings = dict[str, Any]
SCORED = "(match_key smallint, join_key_l ubigint, join_key_r ubigint, match_weight double, relief double)"
"""Grain: one row a pair; `relief` is what a shared household explains, in bits, already taken off the weight."""
MOST_AT_ONCE = 20_000_000
"""Pairs scored in one query: every query reads all records, more pairs make a larger result before the floor cuts it."""


class Scorer:
    """Both models of a project, ready to score pairs of the records in `features` of the scratch database.

    To make one costs Splink more than to score thousands of pairs, so one serves for a whole step, also after
    `features` has become another view. Needs the model's frozen frequencies in the scratch database.
    """

    def __init__(
        self,
        work: DuckDBPyConnection,
        person: Settings,
        household: Settings | None,
        features: str = "features",
    ) -> None:
        self._work, self._person, self._household = work, person, household
        detailed = {**person, "retain_intermediate_calculation_columns": household is not None}
        with quiet_splink():
            self._linker = _linker(work, detailed, features)

    def score(self, pairs: str, scored: str, *, floor: float | None = None) -> int:
        """Add to the table `scored` the weights of the pairs of a table, from the floor up; the number of pairs looked at.

        `pairs` is a table of the scratch database: (match_key, join_key_l, join_key_r).
        """
        work = self._work
        work.execute(f"create table if not exists {scored} {SCORED}")
        total = scalar(work, f"select count(*) from {pairs}")
        parts = -(-total // MOST_AT_ONCE)
        for part in range(parts):
            share = pairs
            if parts > 1:
                share = "pairs_part"
                replace_table(work, share, f"select * from {pairs} where join_key_l % {parts} = {part}")
            with quiet_splink():
                self._score_part(share, scored, floor)
        work.execute("drop table if exists pairs_part")
        return total

    def _score_part(self, pairs: str, scored: str, floor: float | None) -> None:
        found = _predict(self._work, self._linker, pairs, floor)
        relief = "0.0"
        if self._household:
            hidden = household_weight_query(self._person, self._household)
            relief = f"log2(1 + pow(2, least({hidden}, 1000)))"
        least = "" if floor is None else f"where match_weight - relief >= {floor}"
        self._work.execute(
            f"""insert into {scored}
            select match_key, unique_id_l, unique_id_r, match_weight - relief, relief
            from (select match_key, unique_id_l, unique_id_r, match_weight, {relief} as relief from {found}) {least}"""
        )
        self._work.execute(f"drop table {found}")


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


def predicted(
    work: DuckDBPyConnection,
    settings: Settings,
    pairs: str,
    floor: float | None = None,
    features: str = "features",
) -> str:
    """Splink's own table of scores for a table of pairs; the caller drops it."""
    return _predict(work, _linker(work, settings, features), pairs, floor)


def _linker(work: DuckDBPyConnection, settings: Settings, features: str) -> "Linker":
    linker = make_linker(work, settings, features)
    register_frequencies(work, linker)
    return linker


def _predict(work: DuckDBPyConnection, linker: "Linker", pairs: str, floor: float | None) -> str:
    register_pairs(linker, work, pairs)
    return linker.inference.predict(threshold_match_weight=floor, warning_mode="never").physical_name


def probability_query(weight: str) -> str:
    """SQL: the match probability of a match weight."""
    return f"1 / (1 + pow(2, -least(greatest({weight}, -500), 500)))"
