"""Small SVG charts made of numbers only: they show in the Dagster UI and cannot carry customer data."""

import base64
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 640, 220, 36
INK, FILL, MARK = "#33475b", "#4477aa", "#cc6677"  # told apart by the colour-blind (Paul Tol, bright)


def histogram(
    bars: Sequence[tuple[float, float]], title: str, mark: float | None = None, mark_label: str = ""
) -> str:
    """Bars at numeric positions with an optional vertical mark, as SVG text."""
    if not bars:
        return _frame(
            title, f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">no data yet</text>'
        )
    low, high = min(x for x, _ in bars), max(x for x, _ in bars) + 1
    top = max(y for _, y in bars) or 1
    scale = (WIDTH - 2 * MARGIN) / max(high - low, 1)
    parts = [_bar(MARGIN + (x - low) * scale, scale, y / top, f"{x:g}: {y:,.0f}") for x, y in bars]
    parts += [_label(MARGIN + (x - low) * scale, f"{x:g}") for x, _ in bars[:: max(1, len(bars) // 12)]]
    if mark is not None and low <= mark <= high:
        x = MARGIN + (mark - low) * scale
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{MARGIN}" y2="{HEIGHT - MARGIN}" stroke="{MARK}" stroke-width="2"/>'
            f'<text x="{x + 4:.1f}" y="{MARGIN + 10}" fill="{MARK}">{escape(mark_label)}</text>'
        )
    return _frame(title, "".join(parts))


def _bar(x: float, width: float, share: float, tip: str) -> str:
    height = share * (HEIGHT - 2 * MARGIN)
    return (
        f'<rect x="{x:.1f}" y="{HEIGHT - MARGIN - height:.1f}" width="{max(width - 2, 1):.1f}"'
        f' height="{height:.1f}" fill="{FILL}"><title>{escape(tip)}</title></rect>'
    )


def _label(x: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - MARGIN + 14}">{escape(text)}</text>'


def _frame(title: str, inside: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img"'
        f' aria-label="{escape(title)}" font-family="sans-serif" font-size="11" fill="{INK}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
        f'<text x="{MARGIN}" y="20" font-size="13" font-weight="bold">{escape(title)}</text>{inside}</svg>'
    )


def as_markdown(svg: str, title: str) -> str:
    """An inline image for Markdown: no file, no script."""
    data = base64.b64encode(svg.encode()).decode()
    return f"![{title}](data:image/svg+xml;base64,{data})"
