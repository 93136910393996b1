"""Facts as pictures and as the rows of tables that are drawn: shares, bands and histograms, and nothing that counts."""

from collections.abc import Sequence

from markupsafe import Markup

from profile_pipeline.report import pictures
from profile_pipeline.report.facts import Facts, Point, Policy, Size
from profile_pipeline.report.numbers import amount, day, moment, plural
from profile_pipeline.report.pictures import Part

TONES = ("t1", "t6", "t5", "t4", "t2", "t3", "t6")
"""Colours of the fates of rows, in their order."""
MOST_BATCHES = 30
LEAST_WEIGHT, MOST_WEIGHT = -20, 40
"""Match weights further out are gathered in the outermost columns."""
LABELLED = 10
"""Match weights that are multiples of this have a label."""
SIZE_ENDS = (*range(1, 11), 20, 50, 100, 1000)
"""Largest sizes of the columns of clusters; the last column has no end."""
HEAT = (0.02, 0.2, 0.4, 0.6)
"""Shares from which a cell of a table is shaded more deeply."""


def fates(facts: Facts) -> list[Part]:
    """What became of rows; only what became of any."""
    parts = zip(facts.all_fates.parts, TONES, strict=True)
    return [Part(label, count, tone) for (label, count), tone in parts if count]


def fates_picture(facts: Facts) -> Markup:
    """All rows side by side by what became of them."""
    return pictures.stacked("fates", fates(facts), "Rows by what became of them")


def funnel(facts: Facts) -> list[Part]:
    """From rows to people, every step out of the one before."""
    now, all_rows = facts.now, facts.all_fates
    return [
        Part("rows delivered", all_rows.delivered),
        Part("rows in use", all_rows.current + all_rows.events, tip="current records and events"),
        Part("profiles", now.profiles),
        Part("profiles of people", now.persons),
        Part("profiles in an audience", now.profiles - now.unsegmented),
    ]


def newest(facts: Facts) -> list[Point]:
    """The batches that history shows, oldest first."""
    return facts.history[-MOST_BATCHES:]


def trend(facts: Facts) -> Markup:
    """The number of profiles after every batch."""
    points = [
        Part(
            day(point.as_of),
            point.profiles,
            tip=f"{moment(point.as_of)}: {plural(point.profiles, 'profile')}",
        )
        for point in newest(facts)
    ]
    return pictures.trend("trend", points, "Profiles after each batch")


def added(facts: Facts) -> list[tuple[Point, int]]:
    """Every batch that history shows, newest first, with the change of the profile count against the batch before."""
    before = [0, *(point.profiles for point in facts.history)]
    changes = [(point, point.profiles - before[n]) for n, point in enumerate(facts.history)]
    return changes[::-1][:MOST_BATCHES]


def bands(policy: Policy, place: int) -> Markup:
    """Profiles by completeness; `place` in the list of policies makes the picture's id, which no name could."""
    parts = [
        Part("high", policy.high, "t1"),
        Part("medium", policy.medium, "t5"),
        Part("low", policy.low, "t6"),
    ]
    return pictures.stacked(f"bands-{place}", parts, f"Profiles by completeness under {policy.name}", 16)


def weights(facts: Facts) -> Markup:
    """Scored pairs by match weight; links are drawn in another colour, and the threshold as a line."""
    pairs: dict[int, int] = {}
    links: dict[int, int] = {}
    for found in facts.weights:
        low = min(max(found.low, LEAST_WEIGHT), MOST_WEIGHT)
        pairs[low] = pairs.get(low, 0) + found.pairs
        links[low] = links.get(low, 0) + found.links
    if not pairs:
        return Markup("")
    lows = range(min(pairs), max(pairs) + 1)
    parts = [
        Part(
            "" if low % LABELLED else f"{low}",
            pairs.get(low, 0),
            tip=f"weight {low} to {low + 1}: {amount(pairs.get(low, 0))} pairs, {amount(links.get(low, 0))} links",
            inside=links.get(low, 0),
        )
        for low in lows
    ]
    mark, threshold = None, facts.about.threshold
    if threshold is not None and lows.start <= threshold <= lows.stop:
        mark = (round(threshold) - lows.start, f"threshold {threshold:.2f}")
    return pictures.columns("weights", parts, "Scored pairs by match weight", mark)


def sizes(facts: Facts) -> list[Part]:
    """Clusters by size, large ones together; `inside` counts those that are not flagged."""
    found: dict[str, tuple[int, int]] = {}
    for size in facts.sizes:
        label = _range(size)
        clusters, flagged = found.get(label, (0, 0))
        found[label] = clusters + size.clusters, flagged + size.flagged
    return [Part(label, clusters, inside=clusters - flagged) for label, (clusters, flagged) in found.items()]


def _range(size: Size) -> str:
    for begin, end in zip((0, *SIZE_ENDS), SIZE_ENDS, strict=False):
        if size.size <= end:
            return f"{end:,}" if end == begin + 1 else f"{begin + 1:,} to {end:,}"
    return f"over {SIZE_ENDS[-1]:,}"


def sizes_picture(facts: Facts) -> Markup:
    """Clusters by size on a logarithmic scale, so that the few large ones show."""
    return pictures.columns("sizes", sizes(facts), "Clusters by number of nodes", logarithmic=True)


def winners(facts: Facts) -> tuple[list[str], list[tuple[str, int, list[float]]]]:
    """Sources by the values they give, and for each field its values with the share that each source gives."""
    values: dict[str, dict[str, int]] = {}
    totals: dict[str, int] = {}
    for won in facts.won:
        values.setdefault(won.field, {})[won.source] = won.values
        totals[won.source] = totals.get(won.source, 0) + won.values
    sources = sorted(totals, key=lambda source: (-totals[source], source))
    found = []
    for field in facts.fields:
        own = values.get(field.name, {})
        whole = sum(own.values())
        if whole:
            found.append((field.name, whole, [own.get(source, 0) / whole for source in sources]))
    return sources, found


def survivors(facts: Facts) -> list[tuple[str, int, float]]:
    """Values shown by the source that gave them, with their share of all."""
    totals: dict[str, int] = {}
    for won in facts.won:
        totals[won.source] = totals.get(won.source, 0) + won.values
    whole = sum(totals.values()) or 1
    return [
        (source, n, n / whole) for source, n in sorted(totals.items(), key=lambda each: (-each[1], each[0]))
    ]


def heat(share: float) -> int:
    """How deeply a cell is shaded."""
    return sum(share >= limit for limit in HEAT)


def moved(facts: Facts) -> Sequence[tuple[str, int, int]]:
    """Audiences whose size changed since the generation before: name, members before, members now."""
    return [(a.name, a.before, a.members) for a in facts.audiences if a.before not in (None, a.members)]
