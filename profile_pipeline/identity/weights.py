"""What the match weight of a pair is made of, comparison by comparison: the parts sum to the weight of its edge.

For the few pairs that somebody asks about; `scoring` scores all of them with the same settings and keeps the sum only.
"""

import math
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.identity.linker import frequency_fields
from profile_pipeline.identity.model import Model
from profile_pipeline.identity.scoring import household_weight_query, predicted, probability_query
from profile_pipeline.warehouse import quote, records_of, replace_table

Settings = dict[str, Any]
NOUNS = {
    "given": "given name",
    "middle": "middle name",
    "family": "family name",
    "birth_date": "birth date",
    "email": "e-mail",
    "national_id": "national id",
}
"""Comparisons whose name is not what people call it."""
BEFORE = ("same", "similar", "different")
"""Levels that stand before the noun as an adjective."""
BEHIND = {
    "one edit": "one character apart",
    "two edits": "two characters apart",
    "nickname": "a nickname of the other",
    "initial": "an initial of the other",
    "swapped with family name": "swapped with family name",
    "swapped with given name": "swapped with given name",
    "part of the other": "part of the other",
    "less precise": "less precise",
    "day and month swapped": "with day and month swapped",
    "same month and day": "of another year, same month and day",
    "same year": "of the same year",
}
"""Levels that stand behind the noun, and how."""
NUMERIC = ("birth_date", "phone")
"""Comparisons of values made of digits."""
RARE = 0.05
"""Bits from which it is said that a value is rare or common."""


@dataclass(frozen=True)
class Part:
    """What one comparison adds to a match weight, in bits; `frequency` is how much of it a rare or common value is."""

    comparison: str
    level: str
    weight: float
    frequency: float

    @property
    def words(self) -> str:
        """The part in words: `same family name +10.1 (rare +2.0)`."""
        how = ""
        if abs(self.frequency) >= RARE:
            how = f" ({'rare' if self.frequency > 0 else 'common'} {self.frequency:+.1f})"
        return f"{_phrase(self.comparison, self.level)} {self.weight:+.1f}{how}"


@dataclass(frozen=True)
class Score:
    """A match weight (log2 Bayes factor) and what it is made of: prior + parts - household = weight."""

    weight: float
    probability: float
    prior: float
    household: float
    parts: tuple[Part, ...]

    @property
    def words(self) -> str:
        """What speaks for and against one person, strongest first."""
        ordered = sorted(self.parts, key=lambda part: (-part.weight, part.comparison))
        said = [part.words for part in ordered] + [f"prior {self.prior:+.1f}"]
        if self.household >= RARE:
            said.append(f"a shared household explains {self.household:.1f} bits")
        return ", ".join(said)


@dataclass(frozen=True)
class ScoredPair:
    """Two rows of `features` by their unique ids, the smaller first, and their score."""

    left_id: int
    right_id: int
    score: Score


def load_own_frequencies(work: DuckDBPyConnection, model: Model, database: str) -> None:
    """Copy the frozen term frequencies of the values in `features` into the scratch database: all that its pairs need."""
    frequencies = f"{database}.identity.term_frequencies"
    for field in frequency_fields(model.settings):
        replace_table(
            work,
            f"frozen_{field}",
            f"""select value as {quote(field)}, frequency as tf_{field} from {frequencies}
            where model_id = ? and field = ? and value in (select {quote(field)} from features)""",
            [model.model_id, field],
        )


def score_in_parts(
    work: DuckDBPyConnection,
    model: Model,
    pairs: str,
    *,
    floor: float | None = None,
    most: int | None = None,
) -> list[ScoredPair]:
    """Scores of the pairs of a table (match_key, join_key_l, join_key_r) in parts, best first.

    Needs `features` and frozen frequencies in the scratch database. Scores below the floor, and those beyond the
    first `most`, are left out.
    """
    person, household = model.settings, model.manifest.get("household")
    # Splink shows the level that it found of a comparison only together with the values
    detailed = {**person, "retain_matching_columns": True, "retain_intermediate_calculation_columns": True}
    found = predicted(work, detailed, pairs)
    hidden = household_weight_query(person, household) if household else ""
    relief = f"log2(1 + pow(2, least({hidden}, 1000)))" if hidden else "0.0"
    least = "" if floor is None else f"where weight >= {floor}"
    limit = "" if most is None else f"limit {most}"
    scored = records_of(
        work,
        f"""select *, {probability_query("weight")} as probability
        from (select *, {relief} as relief, match_weight - relief as weight from ({found})) {least}
        order by weight desc, unique_id_l, unique_id_r {limit}""",
    )
    return [ScoredPair(row["unique_id_l"], row["unique_id_r"], _score(person, row)) for row in scored]


def _score(person: Settings, row: dict[str, Any]) -> Score:
    prior = person["probability_two_random_records_match"]
    found = [_part(comparison, row) for comparison in person["comparisons"]]
    return Score(
        row["weight"],
        row["probability"],
        math.log2(prior / (1 - prior)),
        row["relief"],
        tuple(part for part in found if part),
    )


def _part(comparison: Settings, row: dict[str, Any]) -> Part | None:
    """None where a value is missing, which says nothing."""
    name = comparison["output_column_name"]
    levels = [level for level in comparison["comparison_levels"] if not level.get("is_null_level")]
    if row[f"gamma_{name}"] < 0:
        return None
    # Splink numbers the levels downwards: the last one is 0
    level = levels[len(levels) - 1 - row[f"gamma_{name}"]]
    frequency = row.get(f"mw_tf_adj_{name}") or 0.0
    label = level.get("label_for_charts") or level["sql_condition"]
    return Part(name, label, row[f"mw_{name}"] + frequency, frequency)


def _phrase(comparison: str, level: str) -> str:
    noun = NOUNS.get(comparison, comparison.removeprefix("x_").replace("_", " "))
    if level in BEFORE:
        return f"{level} {noun}"
    if level in BEHIND:
        behind = BEHIND[level]
        return f"{noun} {behind.replace('character', 'digit') if comparison in NUMERIC else behind}"
    # these levels name what they are about themselves
    return level if comparison in {"address", "sources"} else f"{noun}: {level}"
