"""Charts: numbers and labels only, well-formed, and harmless as text."""

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


def test_control_and_direction_characters_do_not_reach_the_picture() -> None:
    svg = charts.histogram([(0, 1)], "a\x00b\x1b[31m\u202ec\ud800")
    assert "a b [31m c " in texts_of(svg)
    charts.as_markdown(svg, "still bytes")


# ---------------------------------------------------------------- a row a label


def bar(value: float, group: str = "given", label: str = "same") -> charts.Bar:
    return charts.Bar(group, label, value, f"{label}: {value}")


def test_bars_right_of_the_line_above_zero_and_left_below_with_their_number() -> None:
    svg = charts.diverging_bars([bar(10), bar(-5), bar(0)], "Weights", "bits")
    rects = [r for r in ET.fromstring(svg).iter(f"{SVG}rect") if r.get("fill") in {charts.FILL, charts.MARK}]
    [line] = ET.fromstring(svg).iter(f"{SVG}line")
    zero = float(line.get("x1", "nan"))
    up, down, nothing = ((float(r.get("x", "nan")), float(r.get("width", "nan"))) for r in rects)
    assert up[0] == zero
    assert down[0] + down[1] == pytest.approx(zero, abs=0.11)
    assert up[1] == pytest.approx(2 * down[1], abs=0.2)
    assert nothing[1] == 0.5
    assert [r.get("fill") for r in rects] == [charts.FILL, charts.MARK, charts.FILL]
    assert {"+10.0", "-5.0", "+0.0", "bits"} <= set(texts_of(svg))


def test_a_group_is_named_once_and_long_labels_are_shortened() -> None:
    svg = charts.diverging_bars([bar(1), bar(2, label="x" * 90), bar(3, group="born")], "Weights", "")
    texts = texts_of(svg)
    assert (texts.count("given"), texts.count("born")) == (1, 1)
    assert "x" * (charts.LONGEST_LABEL - 1) + "…" in texts
    assert f"{'x' * 90}: 2" in [title.text for title in ET.fromstring(svg).iter(f"{SVG}title")]


@given(st.lists(st.floats(-1000, 1000), min_size=1, max_size=40))
def test_bars_of_any_length_stay_inside_their_frame(values: list[float]) -> None:
    root = ET.fromstring(charts.diverging_bars([bar(value) for value in values], "Any", "bits"))
    height = float(root.get("viewBox", "").split()[3])
    for rect in [r for r in root.iter(f"{SVG}rect") if r.get("fill") in {charts.FILL, charts.MARK}]:
        x, y, width = (float(rect.get(name, "nan")) for name in ("x", "y", "width"))
        assert charts.LABELS_END <= x <= x + width <= charts.WIDTH - charts.NUMBER_SPACE + 0.6
        assert charts.TOP <= y < height - charts.ROW


def test_the_distance_of_a_pair_is_the_logarithm_of_its_ratio() -> None:
    pairs = [charts.Pair("g", "ten", 0.1, 0.01, ""), charts.Pair("g", "thousand", 1, 0.001, "")]
    root = ET.fromstring(charts.log_pairs(pairs, "Shares", ("m", "u")))
    lines = [line for line in root.iter(f"{SVG}line") if line.get("stroke") == charts.FILL]
    lengths = [float(line.get("x1", "nan")) - float(line.get("x2", "nan")) for line in lines]
    assert lengths[1] == pytest.approx(3 * lengths[0], abs=0.3)
    assert {"1", "0.1", "0.01", "0.001", "m", "u"} <= set(texts_of(ET.tostring(root, encoding="unicode")))


def test_a_share_of_nothing_stands_at_the_left_end() -> None:
    root = ET.fromstring(charts.log_pairs([charts.Pair("g", "x", 0.5, 0, "")], "Shares", ("m", "u")))
    assert min(float(c.get("cx", "nan")) for c in root.iter(f"{SVG}circle")) > 0
    assert "no data yet" in texts_of(
        charts.log_pairs([charts.Pair("g", "x", 0, 0, "")], "Shares", ("m", "u"))
    )


# ---------------------------------------------------------------- curves


def test_curves_are_told_apart_without_colour_and_carry_their_names() -> None:
    shares = {"precision": [0.5, 1.0], "recall": [1.0, 0.5]}
    root = ET.fromstring(charts.curves([-10, 30], shares, "Threshold", "bits", 2.0, "threshold 2.0"))
    paths = list(root.iter(f"{SVG}polyline"))
    assert len({path.get("stroke-dasharray") for path in paths}) == 2
    assert {"precision", "recall", "threshold 2.0", "-10", "30"} <= set(
        texts_of(ET.tostring(root, encoding="unicode"))
    )
    rising = [float(point.split(",")[1]) for point in (paths[0].get("points") or "").split()]
    assert rising[0] > rising[1], "up is more"


def test_names_of_curves_that_end_together_do_not_lie_on_each_other() -> None:
    root = ET.fromstring(charts.curves([0, 1], {"a": [1, 1], "b": [1, 1]}, "T", ""))
    heights = [float(t.get("y", "nan")) for t in root.iter(f"{SVG}text") if t.text in {"a", "b"}]
    assert abs(heights[0] - heights[1]) >= 12


@pytest.mark.parametrize("xs", [[3.0], [0.0, 0.5], [-1e6, 1e6], [float(x) for x in range(-10, 31)]])
def test_any_range_has_few_ticks_and_a_mark_outside_is_left_out(xs: list[float]) -> None:
    svg = charts.curves(xs, {"p": [0.5] * len(xs)}, "T", "", 1e9, "mark")
    assert "mark" not in texts_of(svg)
    assert len(texts_of(svg)) < 25


def test_charts_without_data_say_so() -> None:
    for svg in (
        charts.diverging_bars([], "T", ""),
        charts.log_pairs([], "T", ("m", "u")),
        charts.curves([], {}, "T", ""),
    ):
        assert "no data yet" in texts_of(svg)


def test_labels_of_rows_are_escaped() -> None:
    hostile = "<script>x</script>"
    for svg in (
        charts.diverging_bars([bar(1, hostile, hostile)], hostile, hostile),
        charts.log_pairs([charts.Pair(hostile, hostile, 1, 0.1, hostile)], hostile, (hostile, hostile)),
        charts.curves([0, 1], {hostile: [0, 1]}, hostile, hostile, 0, hostile),
    ):
        assert "<script" not in svg
        assert ET.fromstring(svg).get("aria-label") == hostile


def test_markdown_holds_the_picture_itself() -> None:
    svg = charts.histogram([(0, 1)], "Sizes")
    head, _, data = charts.as_markdown(svg, "sizes").partition(";base64,")
    assert head == "![sizes](data:image/svg+xml"
    assert base64.b64decode(data.removesuffix(")")).decode() == svg
