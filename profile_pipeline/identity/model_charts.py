"""The three pictures of a model: weights of its levels, the shares behind them, and the threshold."""

from profile_pipeline import charts
from profile_pipeline.identity.model import Model
from profile_pipeline.identity.model_report import Figures, Level, figures, in_words, levels, threshold_curve


def weights_chart(model: Model) -> str:
    """Match weight of the prior and of every level: what a pair's score is added up from."""
    prior = figures(model).prior_weight
    start = [charts.Bar("start", "any two records", prior, f"prior: {prior:+.1f} bits")] if prior else []
    bars = [
        charts.Bar(level.comparison, level.level, level.match_weight, _tip(level))
        for level in _learned(model)
        if level.match_weight is not None
    ]
    note = "bits (log2 m/u): right speaks for one person, left for two; the sum is the score"
    return charts.diverging_bars([*start, *bars], "Match weights by level of agreement", note)


def m_and_u_chart(model: Model) -> str:
    """How often matches and strangers reach each level."""
    pairs = [
        charts.Pair(level.comparison, level.level, level.m, level.u, _tip(level))
        for level in _learned(model)
        if level.m is not None and level.u is not None
    ]
    names = ("m: share among matches", "u: share among strangers (axis: powers of ten)")
    return charts.log_pairs(pairs, "How often matches and strangers agree", names)


def threshold_chart(model: Model) -> str:
    """What a threshold at each match weight is expected to give."""
    curve = threshold_curve(model)
    shares = {"precision": [point[1] for point in curve], "recall": [point[2] for point in curve]}
    found = figures(model)
    return charts.curves(
        [point[0] for point in curve],
        shares,
        "Expected precision and recall by threshold",
        "over the match weight above which a pair is a link",
        found.threshold,
        _threshold_label(found),
    )


def _threshold_label(found: Figures) -> str:
    if found.threshold is None:
        return ""
    known = {"precision": found.expected_precision, "recall": found.expected_recall_of_candidates}
    expected = ", ".join(f"{name} {share:.3f}" for name, share in known.items() if share is not None)
    return f"threshold {found.threshold:.1f}" + (f": {expected}" if expected else "")


def _learned(model: Model) -> list[Level]:
    return [level for level in levels(model) if level.kind == "person"]


def _tip(level: Level) -> str:
    weight = f"{level.match_weight:+.1f} bits, " if level.match_weight is not None else ""
    return f"{level.comparison}, {level.level}: {weight}against strangers {in_words(level)}"
