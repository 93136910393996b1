"""Charts: numbers only, well-formed, and harmless as text."""

import base64
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_pipeline import charts

SVG = "{http://www.w3.org/2000/svg}"


def bars_of(svg: str) -> list[ET.Element]:
    return [rect for rect in ET.fromstring(svg).iter(f"{SVG}rect") if rect.get("fill") == charts.FILL]


def texts_of(svg: str) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_bar_a_value_as_high_as_its_share() -> None:
    bars = bars_of(charts.histogram([(0, 5), (1, 10), (2, 0)], "Sizes"))
    heights = [float(bar.get("height", "nan")) for bar in bars]
    assert heights == [(charts.HEIGHT - 2 * charts.MARGIN) / 2, charts.HEIGHT - 2 * charts.MARGIN, 0]
    assert [bar[0].text for bar in bars] == ["0: 5", "1: 10", "2: 0"]


@pytest.mark.parametrize(("mark", "lines"), [(1.0, 1), (None, 0), (99.0, 0)])
def test_the_mark_is_drawn_inside_the_range_only(mark: float | None, lines: int) -> None:
    svg = charts.histogram([(0, 1), (5, 1)], "Weights", mark, "threshold")
    assert svg.count("<line") == lines
    assert ("threshold" in texts_of(svg)) == bool(lines)


def test_no_data_says_so() -> None:
    assert "no data yet" in texts_of(charts.histogram([], "Empty"))


@given(
    st.lists(
        st.tuples(st.integers(-50, 5000), st.integers(0, 10**7)), max_size=30, unique_by=lambda bar: bar[0]
    )
)
def test_any_numbers_make_a_picture_inside_its_frame(bars: Sequence[tuple[float, float]]) -> None:
    svg = charts.histogram(sorted(bars), "Any", 3.0, "mark")
    assert len(bars_of(svg)) == len(bars)
    for bar in bars_of(svg):
        x, y, width, height = (float(bar.get(name, "nan")) for name in ("x", "y", "width", "height"))
        assert x + 0.1 >= charts.MARGIN
        assert x + width <= charts.WIDTH - charts.MARGIN + 1.1
        assert y + height <= charts.HEIGHT - charts.MARGIN + 0.2


def test_titles_are_escaped() -> None:
    hostile = '<script>alert("x")</script> & "quotes"'
    svg = charts.histogram([(0, 1)], hostile, 0, hostile)
    assert hostile in texts_of(svg)
    assert "<script" not in svg


def test_markdown_holds_the_picture_itself() -> None:
    svg = charts.histogram([(0, 1)], "Sizes")
    head, _, data = charts.as_markdown(svg, "sizes").partition(";base64,")
    assert head == "![sizes](data:image/svg+xml"
    assert base64.b64decode(data.removesuffix(")")).decode() == svg
