"""Pictures of the report: inline SVG without script, style attribute or outside reference.

Positions are percentages and letters have a size of their own, so a picture reads on a phone as at a desk. Colours are
classes of report.css, which follow light and dark; every number drawn also stands in words beside the picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from profile_pipeline.report.numbers import amount, compact, legible

HEAD, PLOT, FOOT = 18, 150, 22
"""Pixels above the drawing for the topmost number, of the drawing, and of the line of labels under it."""
GROUND = HEAD + PLOT
MOST_LABELS = 9
LEAST_HEIGHT = 1.5
"""Pixels of a column of anything: something is never invisible."""


@dataclass(frozen=True)
class Part:
    """A part of a whole, a point of a line, or a column; `inside` is the part of a column that is drawn in `tone`."""

    label: str
    value: float
    tone: str = "t1"
    """A colour class of report.css."""
    tip: str = ""
    inside: float | None = None

    @property
    def said(self) -> str:
        """What the part says when pointed at or read aloud."""
        return self.tip or f"{self.label}: {amount(self.value)}"


@dataclass(frozen=True)
class Scale:
    """Turns values into pixels above the ground; a logarithmic one shows ones beside millions."""

    highest: float
    logarithmic: bool = False

    def height(self, value: float) -> float:
        """Pixels of a value; nothing has none."""
        if value <= 0 or self.highest <= 0:
            return 0.0
        share = math.log1p(value) / math.log1p(self.highest) if self.logarithmic else value / self.highest
        return max(share * PLOT, LEAST_HEIGHT)

    def marks(self) -> list[float]:
        """Round values to draw a line at."""
        if self.highest <= 0:
            return []
        whole = 10.0 ** math.floor(math.log10(self.highest))
        if self.logarithmic:
            return [10.0**power for power in range(int(math.log10(whole)) + 1)]
        largest = next(whole * n for n in (8, 6, 5, 4, 2, 1) if whole * n <= self.highest)
        return [largest / 2, largest]


def bar(share: float, tone: str = "t1") -> Markup:
    """A bar as long as a share of 1, for a cell of a table whose number says the same."""
    return Markup(
        '<svg class="bar" aria-hidden="true" height="10"><rect class="track" width="100%" height="10" rx="2"/>'
        '<rect class="{}" width="{}%" height="10" rx="2"/></svg>'
    ).format(tone, _percent(share))


def stacked(name: str, parts: Sequence[Part], title: str, height: int = 28) -> Markup:
    """Parts of a whole side by side, in order; parts of nothing are left out."""
    total = sum(part.value for part in parts)
    shown = [part for part in parts if part.value > 0]
    rects, begin = [], 0.0
    for part in shown:
        width = part.value / total
        rects.append(
            Markup('<rect class="{} cut" x="{}%" width="{}%" height="{}"><title>{}</title></rect>').format(
                part.tone, _percent(begin), _percent(width), height, legible(part.said)
            )
        )
        begin += width
    words = "; ".join(f"{part.label} {amount(part.value)}" for part in shown)
    return _picture(name, title, words, height, rects)


def columns(
    name: str,
    parts: Sequence[Part],
    title: str,
    mark: tuple[int, str] | None = None,
    *,
    logarithmic: bool = False,
) -> Markup:
    """Columns side by side, labelled below; `mark` is a line at the left edge of a column, with its words."""
    if not parts:
        return Markup("")
    scale = Scale(max(part.value for part in parts), logarithmic)
    drawn = [*_grid(scale), *_columns(parts, scale), *_labels(parts)]
    if mark:
        drawn.append(_mark(mark[0] / len(parts), mark[1]))
    return _picture(
        name, title, "; ".join(part.said for part in parts), GROUND + FOOT, drawn, "picture scaled"
    )


def _columns(parts: Sequence[Part], scale: Scale) -> list[Markup]:
    each, found = 1 / len(parts), []
    for place, part in enumerate(parts):
        x, width, whole = each * (place + 0.08), each * 0.84, scale.height(part.value)
        found.append(_column(x, width, whole, part.tone if part.inside is None else "t6", part.said))
        if part.inside:
            found.append(_column(x, width, scale.height(part.inside), part.tone, part.said))
    return found


def _column(x: float, width: float, height: float, tone: str, words: str) -> Markup:
    return Markup(
        '<rect class="{}" x="{}%" y="{:.1f}" width="{}%" height="{:.1f}"><title>{}</title></rect>'
    ).format(tone, _percent(x), GROUND - height, _percent(width), height, legible(words))


def _labels(parts: Sequence[Part]) -> list[Markup]:
    """Labels under columns that have one: all where there is room, else every so many."""
    labelled = [(place, part.label) for place, part in enumerate(parts) if part.label]
    step = -(-len(labelled) // MOST_LABELS) or 1
    return [
        _text((place + 0.5) / len(parts), GROUND + 15, label, "middle") for place, label in labelled[::step]
    ]


def trend(name: str, points: Sequence[Part], title: str) -> Markup:
    """A line through points in their order, from zero; the first and the last are labelled."""
    if not points:
        return Markup("")
    scale, steps = Scale(max(point.value for point in points)), max(len(points) - 1, 1)
    places = [(0.02 + 0.96 * n / steps, GROUND - scale.height(point.value)) for n, point in enumerate(points)]
    lines = [
        Markup('<line class="line" x1="{}%" y1="{:.1f}" x2="{}%" y2="{:.1f}"/>').format(
            _percent(x1), y1, _percent(x2), y2
        )
        for (x1, y1), (x2, y2) in pairwise(places)
    ]
    dots = [
        Markup('<circle class="dot" cx="{}%" cy="{:.1f}" r="4"><title>{}</title></circle>').format(
            _percent(x), y, legible(point.said)
        )
        for (x, y), point in zip(places, points, strict=True)
    ]
    ends = [_text(0.0, GROUND + 15, points[0].label, "start")]
    ends += [_text(1.0, GROUND + 15, points[-1].label, "end")] if len(points) > 1 else []
    words = "; ".join(point.said for point in points)
    return _picture(
        name, title, words, GROUND + FOOT, [*_grid(scale), *lines, *dots, *ends], "picture scaled"
    )


def _grid(scale: Scale) -> list[Markup]:
    """The ground, and a line with its number to the left of it at every round value."""
    found = [Markup('<line class="ground" x1="0" y1="{0}" x2="100%" y2="{0}"/>').format(GROUND)]
    for value in scale.marks():
        y = GROUND - scale.height(value)
        found.append(Markup('<line class="rule" x1="0" y1="{0:.1f}" x2="100%" y2="{0:.1f}"/>').format(y))
        found.append(
            Markup('<text class="label" x="-8" y="{:.1f}" text-anchor="end">{}</text>').format(
                y + 4, compact(value)
            )
        )
    return found


def _mark(place: float, words: str) -> Markup:
    side, x = ("start", place + 0.008) if place < 0.6 else ("end", place - 0.008)
    return Markup('<line class="mark" x1="{0}%" y1="{1}" x2="{0}%" y2="{2}"/>{3}').format(
        _percent(place), 2, GROUND, _text(x, 12, words, side, "marked")
    )


def _text(place: float, y: float, words: str, anchor: str, kind: str = "label") -> Markup:
    return Markup('<text class="{}" x="{}%" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, _percent(place), y, anchor, legible(words)
    )


def _picture(
    name: str, title: str, words: str, height: int, drawn: Sequence[Markup], kind: str = "picture"
) -> Markup:
    """The frame; title and description are what a screen reader says. A scaled one has room for numbers at its left."""
    return Markup(
        '<svg class="{5}" role="img" width="100%" height="{0}" aria-labelledby="{1}-t {1}-d">'
        '<title id="{1}-t">{2}</title><desc id="{1}-d">{3}</desc>{4}</svg>'
    ).format(height, name, legible(title), legible(words), Markup("").join(drawn), kind)


def _percent(share: float) -> str:
    """A share of 1 as a percentage within the picture."""
    return f"{100 * min(max(share, 0.0), 1.0):.2f}".rstrip("0").rstrip(".")
