"""Small SVG charts made of numbers and labels of rules: they show in the Dagster UI and hold no customer data."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, MARGIN = 640, 220, 36
INK, FILL, MARK = "#33475b", "#4477aa", "#cc6677"  # told apart by the colour-blind (Paul Tol, bright)
FAINT, BAND = "#d5dbe1", "#f2f4f7"
ROW, TOP, LABELS_END, NUMBER_SPACE = 16, 60, 270, 40
"""Charts with a row a label: height of a row, where rows begin and labels end, room for a number beside a bar."""
LONGEST_GROUP, LONGEST_LABEL = 12, 31
DASHES = ("", "7 3", "2 3")


@dataclass(frozen=True)
class Bar:
    """A row of a chart of bars; rows of one group stand together."""

    group: str
    label: str
    value: float
    tip: str


@dataclass(frozen=True)
class Pair:
    """A row of a chart of pairs: two shares between 0 and 1."""

    group: str
    label: str
    first: float
    second: float
    tip: str


def histogram(
    bars: Sequence[tuple[float, float]], title: str, mark: float | None = None, mark_label: str = ""
) -> str:
    """Bars at numeric positions with an optional vertical mark, as SVG text."""
    if not bars:
        return _no_data(title)
    low, high = min(x for x, _ in bars), max(x for x, _ in bars) + 1
    top = max(y for _, y in bars) or 1
    scale = (WIDTH - 2 * MARGIN) / max(high - low, 1)
    parts = [_bar(MARGIN + (x - low) * scale, scale, y / top, f"{x:g}: {y:,.0f}") for x, y in bars]
    parts += [_label(MARGIN + (x - low) * scale, f"{x:g}") for x, _ in bars[:: max(1, len(bars) // 12)]]
    if mark is not None and low <= mark <= high:
        parts.append(_mark(MARGIN + (mark - low) * scale, mark_label))
    return _frame(title, "".join(parts))


def diverging_bars(bars: Sequence[Bar], title: str, note: str) -> str:
    """A row a bar: to the right of one line above zero, to the left below; `note` says what is measured."""
    if not bars:
        return _no_data(title)
    low, high = min(0.0, *(bar.value for bar in bars)), max(0.0, *(bar.value for bar in bars))
    left, right = LABELS_END + NUMBER_SPACE, WIDTH - NUMBER_SPACE
    scale = (right - left) / max(high - low, 1e-9)
    zero, height = left - low * scale, TOP + ROW * len(bars) + 14
    parts = [_rows([(bar.group, bar.label) for bar in bars]), _note(note)]
    parts += [_diverging(bar, TOP + ROW * place, zero, scale) for place, bar in enumerate(bars)]
    parts.append(_line(zero, TOP - 4, zero, height - 10, INK))
    return _frame(title, "".join(parts), height, note)


def _diverging(bar: Bar, y: float, zero: float, scale: float) -> str:
    length, above = abs(bar.value) * scale, bar.value >= 0
    start, end, side = (
        (zero, zero + length + 4, "start") if above else (zero - length, zero - length - 4, "end")
    )
    return (
        f'<rect x="{start:.1f}" y="{y + 2}" width="{max(length, 0.5):.1f}" height="{ROW - 4}"'
        f' fill="{FILL if above else MARK}"><title>{_safe(bar.tip)}</title></rect>'
        f"{_words(end, y + 12, f'{bar.value:+.1f}', side)}"
    )


def log_pairs(pairs: Sequence[Pair], title: str, names: tuple[str, str]) -> str:
    """Two shares a row on a logarithmic axis: the line between dot and square is as long as their ratio is large."""
    smallest = min((share for pair in pairs for share in (pair.first, pair.second) if share > 0), default=0)
    if not smallest:
        return _no_data(title)
    decades = max(1, math.ceil(-math.log10(smallest) - 1e-9))
    left, right = LABELS_END + 16, WIDTH - MARGIN
    scale, height = (right - left) / decades, TOP + ROW * len(pairs) + 14
    parts = [_rows([(pair.group, pair.label) for pair in pairs])]
    for decade in range(decades + 1):
        x = right - decade * scale
        parts.append(_line(x, TOP - 2, x, height - 10, FAINT))
        parts.append(_words(x, TOP - 6, f"{10.0**-decade:g}" if decade < 5 else f"1e-{decade}", "middle"))
    for place, pair in enumerate(pairs):
        ends = [
            right + math.log10(min(share, 1)) * scale if share > 0 else left
            for share in (pair.first, pair.second)
        ]
        parts.append(_pair(pair.tip, *ends, TOP + ROW * (place + 0.5)))
    parts += [_dot(MARGIN + 4, 32), _words(MARGIN + 14, 36, names[0]), _square(LABELS_END, 32)]
    parts.append(_words(LABELS_END + 10, 36, names[1]))
    return _frame(title, "".join(parts), height, f"{names[0]}; {names[1]}")


def _pair(tip: str, first: float, second: float, y: float) -> str:
    # the colour says which is larger, and so does the side on which the dot is
    line = _line(first, y, second, y, FILL if first >= second else MARK, 2)
    return f"<g><title>{_safe(tip)}</title>{line}{_square(second, y)}{_dot(first, y)}</g>"


def curves(
    xs: Sequence[float],
    shares: Mapping[str, Sequence[float]],
    title: str,
    note: str,
    mark: float | None = None,
    mark_label: str = "",
) -> str:
    """Lines of shares (0 to 1) over numeric positions, told apart by dashes and by their names."""
    if not xs:
        return _no_data(title)
    low, span = min(xs), max(max(xs) - min(xs), 1e-9)
    left, right, top, bottom = MARGIN + 4, WIDTH - MARGIN - 70, TOP + 6, HEIGHT - MARGIN
    parts = [_note(note)]
    for tenth in range(0, 11, 2):
        y = bottom - (bottom - top) * tenth / 10
        parts += [_line(left, y, right, y, FAINT), _words(left - 6, y + 4, f"{tenth / 10:g}", "end")]
    parts += [
        _words(left + (x - low) / span * (right - left), bottom + 16, f"{x:g}", "middle")
        for x in _ticks(low, span)
    ]
    ends: list[float] = []
    for (name, values), dash, colour in zip(shares.items(), DASHES, (FILL, INK, MARK), strict=False):
        points = [
            (left + (x - low) / span * (right - left), bottom - y * (bottom - top))
            for x, y in sorted(zip(xs, values, strict=True))
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        ends.append(_free(points[-1][1] + 4, ends))
        parts.append(_words(right + 6, ends[-1], name, colour=colour))
    if mark is not None and low <= mark <= low + span:
        x = left + (mark - low) / span * (right - left)
        side = "start" if x < WIDTH / 2 else "end"
        parts += [_line(x, top - 8, x, bottom, MARK, 2), _words(x, top - 10, mark_label, side, colour=MARK)]
    return _frame(title, "".join(parts), HEIGHT, note)


def _ticks(low: float, span: float) -> list[int]:
    """At most about ten whole numbers in a range."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000, math.ceil(span)) if span / step <= 10)
    return list(range(math.ceil(low / step) * step, math.floor(low + span) + 1, step))


def _free(y: float, taken: Sequence[float]) -> float:
    """The next height at which a name does not lie on another."""
    while any(abs(y - other) < 12 for other in taken):
        y += 12
    return y


def _rows(labels: Sequence[tuple[str, str]]) -> str:
    """Group names at the left, each once, labels beside the plot, every second group on a band."""
    parts, bands, before = [], 0, None
    for place, (group, label) in enumerate(labels):
        y = TOP + ROW * place
        bands += group != before
        if bands % 2 == 0:
            parts.append(
                f'<rect x="{MARGIN - 6}" y="{y}" width="{WIDTH - MARGIN}" height="{ROW}" fill="{BAND}"/>'
            )
        if group != before:
            parts.append(_words(MARGIN, y + 12, _shortened(group, LONGEST_GROUP), weight="bold"))
        parts.append(_words(LABELS_END, y + 12, _shortened(label, LONGEST_LABEL), "end"))
        before = group
    return "".join(parts)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _bar(x: float, width: float, share: float, tip: str) -> str:
    height = share * (HEIGHT - 2 * MARGIN)
    return (
        f'<rect x="{x:.1f}" y="{HEIGHT - MARGIN - height:.1f}" width="{max(width - 2, 1):.1f}"'
        f' height="{height:.1f}" fill="{FILL}"><title>{_safe(tip)}</title></rect>'
    )


def _label(x: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - MARGIN + 14}">{_safe(text)}</text>'


def _mark(x: float, text: str) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{MARGIN}" y2="{HEIGHT - MARGIN}" stroke="{MARK}" stroke-width="2"/>'
        f'<text x="{x + 4:.1f}" y="{MARGIN + 10}" fill="{MARK}">{_safe(text)}</text>'
    )


def _note(text: str) -> str:
    return _words(MARGIN, 40, text)


def _words(
    x: float, y: float, text: str, anchor: str = "start", weight: str = "normal", colour: str = INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">'
        f"{_safe(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _dot(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{FILL}"/>'


def _square(x: float, y: float) -> str:
    return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="white" stroke="{INK}" stroke-width="1.5"/>'


def _safe(text: str) -> str:
    """Text for XML: escaped, and without control or direction characters, which XML or readers stumble over."""
    return escape("".join(letter if letter.isprintable() else " " for letter in text))


def _no_data(title: str) -> str:
    return _frame(title, f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">no data yet</text>')


def _frame(title: str, inside: str, height: float = HEIGHT, description: str = "") -> str:
    described = f"<desc>{_safe(description)}</desc>" if description else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" role="img"'
        f' aria-label="{_safe(title)}" font-family="sans-serif" font-size="11" fill="{INK}">{described}'
        f'<rect width="{WIDTH}" height="{height:g}" fill="white"/>'
        f'<text x="{MARGIN}" y="20" font-size="13" font-weight="bold">{_safe(title)}</text>{inside}</svg>'
    )


def as_markdown(svg: str, title: str) -> str:
    """An inline image for Markdown: no file, no script."""
    data = base64.b64encode(svg.encode()).decode()
    return f"![{title}](data:image/svg+xml;base64,{data})"
