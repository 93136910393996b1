"""What a model says, in rows that people read and compare: levels with their weights, blocking, figures.

Everything here reads a stored model; training, scoring and choosing a model do not belong here. No row holds a
value of a record: labels are those of the rules.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.errors import PipelineError
from profile_pipeline.identity.model import Model
from profile_pipeline.warehouse import facts, rows, scalar, table_exists

MOVED = 0.5
"""Bits by which a weight has to move before a comparison of models mentions it."""


@dataclass(frozen=True)
class Level:
    """One level of agreement. Grain: one row a kind of pair, comparison and level; 'missing' weighs nothing."""

    kind: str
    """`person`: matches against strangers; `household`: two people of one household against strangers."""
    comparison: str
    level: str
    m: float | None
    """Share of matches that reach the level, among those with both values."""
    u: float | None
    """Share of strangers that reach it."""
    bayes_factor: float | None
    match_weight: float | None
    """log2(m / u), in bits."""
    by_frequency: bool
    """Whether an agreement on a rare value weighs more, and on a common one less."""
    condition: str


@dataclass(frozen=True)
class Blocking:
    """One blocking rule: pairs that no earlier rule found in training, and the matches expected among them."""

    rule: str
    pairs: int | None
    matches: int | None


@dataclass(frozen=True)
class Capped:
    """What a blocking rule left out because too many records share a key, when the active model last scored all pairs."""

    rule: str
    records: int
    blocks: int
    pairs: int
    matches_missed: float
    """Estimate, from a sample of these pairs; those that another rule finds do not count."""


@dataclass(frozen=True)
class Figures:
    """A model in single numbers; None where the model does not know."""

    records: int | None
    pairs_learned_from: int | None
    expected_matches: int | None
    expected_household_pairs: int | None
    prior: float | None
    """Probability that two records taken at random are one person."""
    prior_weight: float | None
    """The same as a match weight: where every score starts."""
    household_prior_weight: float | None
    threshold: float | None
    expected_precision: float | None
    expected_recall_of_candidates: float | None
    comparisons: int
    levels: int
    blocking_rules: int


@dataclass(frozen=True)
class Row:
    """A stored model in the list of models."""

    model_id: str
    active: bool
    fits: bool
    """Whether it was trained for the present rules."""
    trained_as_of: datetime | None
    figures: Figures


@dataclass(frozen=True)
class FigureChange:
    """A number that differs between two models."""

    figure: str
    left: float | None
    right: float | None


@dataclass(frozen=True)
class WeightChange:
    """A level whose match weight moved by more than `MOVED` bits."""

    kind: str
    comparison: str
    level: str
    left: float
    right: float
    moved: float


@dataclass(frozen=True)
class PartChange:
    """A comparison, level or blocking rule that only one of two models has, or that has another condition."""

    part: str
    name: str
    change: str
    """`added`, `removed` or `redefined`, as seen from the left model."""


@dataclass(frozen=True)
class FrequencyChange:
    """Term frequencies of a field: how many values, how many of them in one model only, how far apart."""

    field: str
    left_values: int
    right_values: int
    in_one_only: int
    distance: float
    """Total variation distance: 0 is the same, 1 nothing in common."""


@dataclass(frozen=True)
class Scored:
    """What the warehouse holds of a model's scores."""

    model_id: str
    pairs: int
    links: int
    threshold: float | None
    """The one in use: the model's own, or that of the rules."""
    capped: list[Capped]
    recall_lost: float
    """Estimated share of the matches that no pair was made of, because too many records share a key."""


@dataclass(frozen=True)
class ModelDifference:
    """What differs between two models; empty lists where nothing does."""

    left: str
    right: str
    figures: list[FigureChange]
    weights: list[WeightChange]
    parts: list[PartChange]
    frequencies: list[FrequencyChange]
    scored: list[Scored]

    @property
    def same(self) -> bool:
        """Whether the models score every pair alike, as far as this report sees."""
        return not (self.figures or self.weights or self.parts or any(f.distance for f in self.frequencies))


# ---------------------------------------------------------------- one model


def levels(model: Model) -> list[Level]:
    """Every level that says something, from 'same' to 'different', of persons, then of households."""
    household = model.manifest.get("household") or {}
    return [*_levels("person", model.settings), *_levels("household", household)]


def _levels(kind: str, settings: Mapping[str, Any]) -> Iterator[Level]:
    for place, comparison in enumerate(settings.get("comparisons", []), start=1):
        name = comparison.get("output_column_name") or f"comparison {place}"
        seen: set[str] = set()
        for level in comparison["comparison_levels"]:
            if not level.get("is_null_level"):
                label = _distinct(level.get("label_for_charts") or level["sql_condition"], seen)
                yield _level(kind, name, label, level)


def _distinct(label: str, seen: set[str]) -> str:
    """Splink does not ask for distinct labels; a number tells equal ones apart."""
    found = (
        label
        if label not in seen
        else next(f"{label} ({n})" for n in range(2, 1000) if f"{label} ({n})" not in seen)
    )
    seen.add(found)
    return found


def _level(kind: str, comparison: str, label: str, level: Mapping[str, Any]) -> Level:
    m, u = _share(level.get("m_probability")), _share(level.get("u_probability"))
    factor = m / u if m and u else None
    weight = math.log2(factor) if factor else None
    by_frequency = bool(level.get("tf_adjustment_column"))
    return Level(kind, comparison, label, m, u, factor, weight, by_frequency, level["sql_condition"])


def _share(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def in_words(level: Level) -> str:
    """How much likelier one person (or one household) reaches a level than strangers do, for people."""
    if level.match_weight is None or level.bayes_factor is None:
        return "not learned"
    if abs(level.match_weight) < 0.1:  # less than 7 %
        return "says nothing"
    if level.match_weight < 0:
        return f"{_times(1 / level.bayes_factor)} times less likely"
    rare = "; a rare value more, a common one less" if level.by_frequency else ""
    return f"{_times(level.bayes_factor)} times likelier{rare}"


def _times(factor: float) -> str:
    """Two digits are as exact as such a ratio is."""
    if factor < 10:
        return f"{factor:.1f}"
    return f"{round(factor, 1 - math.floor(math.log10(factor))):,.0f}"


def blocking(model: Model) -> list[Blocking]:
    """Blocking rules in the order in which they find pairs; the project's own go by their condition."""
    found = model.manifest.get("blocking") or {}
    conditions = [
        _condition(rule) for rule in model.settings.get("blocking_rules_to_generate_predictions", [])
    ]
    derived = list(model.manifest.get("caps") or {})
    if len(derived) == len(conditions):
        return [Blocking(name, *_yield(found.get(name))) for name in derived]
    return [Blocking(text, *_yield(found.get(f"rule {n}"))) for n, text in enumerate(conditions)]


def _condition(rule: Mapping[str, Any] | str) -> str:
    return rule if isinstance(rule, str) else rule["blocking_rule"]


def _yield(found: Mapping[str, int] | Sequence[int] | None) -> tuple[int | None, int | None]:
    """Pairs and matches, noted by name or in this order."""
    if isinstance(found, Mapping):
        return found.get("pairs"), found.get("matches")
    return (found[0], found[1]) if found else (None, None)


def figures(model: Model) -> Figures:
    """The single numbers of a model."""
    manifest, prior = model.manifest, model.settings.get("probability_two_random_records_match")
    expected = manifest.get("expected") or {}
    found = levels(model)
    return Figures(
        records=manifest.get("records"),
        pairs_learned_from=manifest.get("pairs_learned_from"),
        expected_matches=_in_all(model, "expected_matches"),
        expected_household_pairs=_in_all(model, "expected_household_pairs"),
        prior=prior,
        prior_weight=_prior_weight(model.settings),
        household_prior_weight=_prior_weight(manifest.get("household") or {}),
        threshold=manifest.get("threshold"),
        expected_precision=expected.get("precision"),
        expected_recall_of_candidates=expected.get("recall", expected.get("recall_of_candidates")),
        comparisons=len(model.settings.get("comparisons", [])),
        levels=sum(level.kind == "person" for level in found),
        blocking_rules=len(model.settings.get("blocking_rules_to_generate_predictions", [])),
    )


def _prior_weight(settings: Mapping[str, Any]) -> float | None:
    prior = settings.get("probability_two_random_records_match")
    return round(math.log2(prior / (1 - prior)), 4) if prior and 0 < prior < 1 else None


def _in_all(model: Model, name: str) -> int | None:
    """A number of pairs in the training sample, scaled to all records."""
    found, share = model.manifest.get(name), model.manifest.get("sampled_share") or 1
    return None if found is None else round(found / share)


def threshold_curve(model: Model) -> list[tuple[float, float, float]]:
    """(match weight, expected precision, expected recall) of a threshold there, by weight."""
    points = model.manifest.get("threshold_curve") or []
    return sorted((p[0], p[1], p[2]) for p in points if None not in p[:3])


# ---------------------------------------------------------------- stored models


def stored_models(con: DuckDBPyConnection, fitting: str | None = None) -> list[Row]:
    """Every stored model, newest first; `fitting` is the fingerprint of the present rules."""
    if not table_exists(con, "identity.models"):
        return []
    found = rows(
        con,
        "select model_id, active, rules = ?, trained_as_of, settings, manifest from identity.models"
        " order by trained_as_of desc nulls last, active desc, model_id",
        [fitting],
    )
    return [
        Row(model_id, active, bool(fits), as_of, figures(_model(model_id, settings, manifest)))
        for model_id, active, fits, as_of, settings, manifest in found
    ]


def find_model(con: DuckDBPyConnection, wanted: str = "") -> Model:
    """The model with this id or this beginning of one; the active one when nothing is asked for."""
    if not table_exists(con, "identity.models"):
        raise PipelineError("no model yet; `profile-pipeline run` or `model train` makes the first one")
    found = rows(
        con,
        "select model_id, settings, manifest from identity.models"
        " where case when $1 = '' then active else starts_with(model_id, $1) end order by 1",
        [wanted],
    )
    if len(found) == 1:
        return _model(*found[0])
    if not wanted:
        raise PipelineError("no model is active; `profile-pipeline model train` makes one")
    what = f"{len(found)} models begin with" if found else "no model"
    raise PipelineError(f"{what} {wanted}; `profile-pipeline model list` shows models")


def _model(model_id: str, settings: str, manifest: str) -> Model:
    return Model(model_id, json.loads(settings), json.loads(manifest))


def term_frequencies(con: DuckDBPyConnection, model_id: str) -> list[tuple[str, int]]:
    """Fields whose values weigh by their frequency, and how many values are known."""
    return rows(
        con,
        "select field, count(*) from identity.term_frequencies where model_id = ? group by 1 order by 1",
        [model_id],
    )


# ---------------------------------------------------------------- two models


def compare(con: DuckDBPyConnection, left_id: str, right_id: str) -> ModelDifference:
    """What differs between two stored models, in numbers; what is alike is left out."""
    left, right = find_model(con, left_id), find_model(con, right_id)
    ids = [left.model_id, right.model_id]
    return ModelDifference(
        *ids,
        figures=_figure_changes(left, right),
        weights=_weight_changes(_by_key(left), _by_key(right)),
        parts=changed_parts(left, right),
        frequencies=_frequency_changes(con, *ids),
        scored=_scored(con, ids),
    )


Key = tuple[str, str, str]
"""Kind, comparison, level."""


def _by_key(model: Model) -> dict[Key, Level]:
    return {(level.kind, level.comparison, level.level): level for level in levels(model)}


def _figure_changes(left: Model, right: Model) -> list[FigureChange]:
    before, after = asdict(figures(left)), asdict(figures(right))
    names = [name for name in before if name != "prior_weight" and before[name] != after[name]]
    return [FigureChange(name, before[name], after[name]) for name in names]


def _weight_changes(before: Mapping[Key, Level], after: Mapping[Key, Level]) -> list[WeightChange]:
    found = []
    for key, level in before.items():
        old, new = level.match_weight, after[key].match_weight if key in after else None
        if old is not None and new is not None and abs(new - old) > MOVED:
            found.append(WeightChange(*key, old, new, new - old))
    return sorted(
        found, key=lambda change: (-abs(change.moved), change.kind, change.comparison, change.level)
    )


def changed_parts(left: Model, right: Model) -> list[PartChange]:
    """Added and removed comparisons, levels of comparisons that stay, other conditions, blocking rules."""
    before, after = _by_key(left), _by_key(right)
    old, new = _comparisons(before), _comparisons(after)
    stay = set(old) & set(new)
    own, others = ([_name(key) for key in keys if key[:2] in stay] for keys in (before, after))
    redefined = [k for k in before if k in after and before[k].condition != after[k].condition]
    rules = [[rule.rule for rule in blocking(model)] for model in (left, right)]
    return [
        *_one_sided("comparison", [_name(key) for key in old], [_name(key) for key in new]),
        *_one_sided("level", own, others),
        *(PartChange("level", _name(key), "redefined") for key in redefined),
        *_one_sided("blocking rule", *rules),
    ]


def _comparisons(found: Mapping[Key, Level]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((kind, comparison) for kind, comparison, _ in found))


def _name(key: Sequence[str]) -> str:
    kind, *names = key
    return ": ".join(names) + (" (household)" if kind == "household" else "")


def _one_sided(part: str, left: Iterable[str], right: Iterable[str]) -> list[PartChange]:
    before, after = dict.fromkeys(left), dict.fromkeys(right)
    removed = [PartChange(part, name, "removed") for name in before if name not in after]
    return [*removed, *(PartChange(part, name, "added") for name in after if name not in before)]


def _frequency_changes(con: DuckDBPyConnection, left: str, right: str) -> list[FrequencyChange]:
    """Furthest apart first; no value leaves the database."""
    found = rows(
        con,
        """with a as (select field, value, frequency from identity.term_frequencies where model_id = $1),
        b as (select field, value, frequency from identity.term_frequencies where model_id = $2)
        select field, count(a.value), count(b.value),
            count(*) filter (a.value is null or b.value is null),
            case when count(a.value) = 0 or count(b.value) = 0 then 1.0 else
                round(sum(abs(coalesce(a.frequency, 0) - coalesce(b.frequency, 0))) / 2, 6) end as distance
        from a full join b using (field, value) group by field order by distance desc, field""",
        [left, right],
    )
    return [FrequencyChange(field, a, b, one, float(distance)) for field, a, b, one, distance in found]


def _scored(con: DuckDBPyConnection, ids: Sequence[str]) -> list[Scored]:
    if not table_exists(con, "identity.edges"):
        return []
    noted = facts(con, "identity.edges")
    capped = [_capped(item) for item in noted.get("capped_blocks") or []]
    missed = sum(item.matches_missed for item in capped)
    found = rows(
        con,
        """select model_id, count(*), count(*) filter (accepted), coalesce(sum(match_probability), 0) from identity.edges
        where type = 'probabilistic' and list_contains(?, model_id) group by 1 order by 1""",
        [list(ids)],
    )
    return [
        Scored(model_id, pairs, links, noted.get("threshold"), capped, missed / ((missed + matches) or 1))
        for model_id, pairs, links, matches in found
    ]


def _capped(item: Mapping[str, Any]) -> Capped:
    numbers = [item.get(name, 0) for name in ("records", "blocks", "pairs", "expected_matches_missed")]
    return Capped(item["rule"], *numbers)


def scored(con: DuckDBPyConnection, model_id: str) -> Scored | None:
    """Pairs and links that the warehouse holds of a model; None when another one scored."""
    return next(iter(_scored(con, [model_id])), None)


def recall_lost(con: DuckDBPyConnection) -> float:
    """Estimated share of the matches that the active model's blocking left out, because of blocks over the cap."""
    active = scalar(con, "select model_id from identity.models where active")
    found = scored(con, active) if active else None
    return found.recall_lost if found else 0.0
