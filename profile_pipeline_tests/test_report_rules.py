"""The verdict: each rule at its limit and over it; numbers as people read them; pictures inside their frames."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_pipeline.config.publication import TrustRules
from profile_pipeline.report import charts, numbers, pictures
from profile_pipeline.report.facts import (
    About,
    Changes,
    Check,
    Combination,
    Facts,
    Fates,
    Field,
    Point,
    Policy,
    Size,
    Source,
    Weight,
)
from profile_pipeline.report.page import report_page
from profile_pipeline.report.pictures import Part
from profile_pipeline.report.verdict import judge

NOW = datetime(2026, 4, 1, tzinfo=UTC)
ABOUT = About(
    7, NOW, 3, 3, "m", {"golden": 1}, "golden", {"loaded": 4}, threshold=1.0, expected_precision=0.99
)
POINT = Point(3, NOW, 1000, 900, 100, 300, 400, 20, 0, 5, 1, 2, 11)
SOURCE = Source("crm", NOW, NOW - timedelta(days=1), 1000, 0, 1000, 400, 0, 0)
SOUND = Facts(
    ABOUT,
    history=[POINT],
    fates=[Fates("crm", 2000, 1000, 900, 0, 0, 20, 50, 30)],
    checks=[Check("crm", "key_present", "error", False, 2000, 20, "every row names its record")],
    changes=Changes(6, NOW - timedelta(days=1), 990, 12, 2, 30, [("city", 30)], 40),
    policies=[Policy("golden", 1, True, 1000, 0.5, 200, 500, 300, 10)],
    combinations=[Combination(("crm_id",), 700), Combination(("cookie",), 300)],
    source_combinations=[Combination(("crm",), 1000)],
    fields=[Field("city", 800, 20, 5, before=800)],
    sources=[SOURCE, replace(SOURCE, name="shop", newest_at=NOW - timedelta(days=46))],
    published=1000,
    flagged=1,
)


def with_fates(**changes: int) -> Facts:
    return replace(SOUND, fates=[replace(SOUND.fates[0], **changes)])


def with_check(failed: int) -> Facts:
    return replace(SOUND, checks=[replace(SOUND.checks[0], failed=failed)])


def with_source(**changes: Any) -> Facts:
    return replace(SOUND, sources=[replace(SOURCE, **changes)])


def with_about(**changes: Any) -> Facts:
    return replace(SOUND, about=replace(ABOUT, **changes))


def with_count(before: int) -> Facts:
    assert SOUND.changes
    changed = replace(SOUND, changes=replace(SOUND.changes, profiles_before=before))
    return replace(changed, fields=[])


def test_a_sound_generation_is_trusted_for_every_rule() -> None:
    verdict = judge(SOUND)
    assert [f for f in verdict.findings if f.level != "trusted"] == []
    assert verdict.sentence == "All 13 rules hold: these profiles are fit for use."
    assert verdict.words == "Trusted"


OVER: list[tuple[str, str, Facts]] = [
    ("accounted for", "stop", with_fates(current=999)),
    ("accounted for", "stop", with_fates(current=1001)),
    ("There are profiles", "stop", replace(SOUND, published=0)),
    ("Figures agree", "stop", replace(SOUND, published=1001)),
    ("Figures agree", "stop", replace(SOUND, history=[replace(POINT, persons=901)])),
    ("Figures agree", "stop", replace(SOUND, combinations=SOUND.combinations[:1])),
    ("Figures agree", "stop", replace(SOUND, source_combinations=[])),
    ("Figures agree", "stop", replace(SOUND, policies=[replace(SOUND.policies[0], profiles=999)])),
    ("file could be read", "look", with_about(files={"loaded": 3, "refused": 1})),
    ("rows are refused", "look", with_fates(quarantined=41, current=979)),
    ("rows are refused", "trusted", with_fates(quarantined=40, current=980)),
    ("rows are refused", "look", with_fates(quarantined=400, current=620)),
    ("rows are refused", "stop", with_fates(quarantined=401, current=619)),
    ("Expectations hold", "look", with_check(21)),
    ("Rows say when", "trusted", with_source(without_time=50)),
    ("Rows say when", "look", with_source(without_time=51)),
    ("Data are recent", "trusted", with_source(newest_at=NOW - timedelta(days=14))),
    ("Data are recent", "look", with_source(newest_at=NOW - timedelta(days=14, seconds=1))),
    (
        "fallen silent",
        "look",
        replace(SOUND, sources=[SOURCE, replace(SOURCE, name="shop", newest_at=NOW - timedelta(days=47))]),
    ),
    ("Links are right", "trusted", with_about(expected_precision=0.95)),
    ("Links are right", "look", with_about(expected_precision=0.9499)),
    ("Links are right", "stop", with_about(expected_precision=0.7999)),
    ("more than it may", "look", replace(SOUND, flagged=2)),
    ("number of profiles", "trusted", with_count(1111)),
    ("number of profiles", "look", with_count(1112)),
    ("number of profiles", "trusted", with_count(910)),
    ("number of profiles", "look", with_count(909)),
    ("number of profiles", "stop", with_count(2001)),
    ("number of profiles", "stop", with_count(666)),
    ("stay filled", "look", replace(SOUND, fields=[Field("city", 758, 20, 5, before=800)])),
    ("stay filled", "trusted", replace(SOUND, fields=[Field("city", 759, 20, 5, before=800)])),
]


@pytest.mark.parametrize(("rule", "level", "facts"), OVER)
def test_each_rule_holds_at_its_limit_and_not_beyond(rule: str, level: str, facts: Facts) -> None:
    [finding] = [f for f in judge(facts).findings if rule in f.rule]
    assert finding.level == level
    assert finding.level == "trusted" or finding.do


@pytest.mark.parametrize(("rule", "level", "facts"), OVER)
def test_the_worst_outcome_is_the_verdict_and_every_reason_is_on_the_page(
    rule: str, level: str, facts: Facts
) -> None:
    verdict = judge(facts)
    levels = {finding.level for finding in verdict.findings}
    assert verdict.level == next(worst for worst in ("stop", "look", "trusted") if worst in levels)
    page = report_page(facts)
    top = page.split("<dl ", 1)[0]
    assert verdict.words in top
    assert all(f"<strong>Not met: {f.rule}</strong>" in top for f in verdict.reasons)


def test_limits_are_those_that_the_project_states() -> None:
    strict = with_about(limits=TrustRules(refused_look=0.005, newest_days=0.5))
    wrong = {finding.rule: finding for finding in judge(strict).reasons}
    assert set(wrong) == {"Few rows are refused", "Data are recent"}
    assert wrong["Few rows are refused"].limit == "at most 0.5% of each source; over 20% is too many"
    assert wrong["Data are recent"].limit == "the newest are at most 12 hours older than this generation"


def test_what_cannot_be_measured_yet_is_not_asked_and_counts_neither_way() -> None:
    fresh = replace(SOUND, changes=None, checks=[], about=replace(ABOUT, expected_precision=None))
    verdict = judge(fresh)
    assert verdict.level == "trusted"
    assert {f.rule for f in verdict.findings if not f.asked} == {
        "Expectations hold", "Links are right", "The number of profiles is plausible", "Fields stay filled",
    }  # fmt: skip
    assert verdict.sentence.startswith("All 9 rules hold")


def test_a_generation_without_anything_says_so_and_does_not_divide_by_it() -> None:
    nothing = Facts(
        replace(ABOUT, files={}, model=None, threshold=None, revision=None, expected_precision=None)
    )
    assert judge(nothing).level == "stop"
    page = report_page(nothing)
    for said in (
        "Do not use",
        "No audience is defined yet",
        "No file has been delivered",
        "first generation",
    ):
        assert said in page


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (numbers.amount(1234567), "1,234,567"),
        (numbers.amount(0.5), "0.50"),
        (numbers.signed(0), "0"),
        (numbers.signed(1200), "+1,200"),
        (numbers.signed(-1200), "\N{MINUS SIGN}1,200"),
        (numbers.share(0, 10), "0%"),
        (numbers.share(10, 10), "100%"),
        (numbers.share(1, 10_000), "<0.1%"),
        (numbers.share(9_999, 10_000), ">99.9%"),
        (numbers.share(1, 3), "33.3%"),
        (numbers.share(1, 0), "\N{EN DASH}"),
        (numbers.percent(0.005), "0.5%"),
        (numbers.plural(1, "row"), "1 row"),
        (numbers.plural(2000, "row"), "2,000 rows"),
        (numbers.moment(NOW), "1 Apr 2026, 00:00 UTC"),
        (numbers.day(None), "never"),
        (numbers.age(timedelta(days=1, hours=23)), "1 day"),
        (numbers.age(timedelta(seconds=5)), "0 minutes"),
        (numbers.age(timedelta(days=-1)), "0 minutes"),
        (numbers.compact(2500), "2.5k"),
        (numbers.compact(1_000_000), "1M"),
        (numbers.legible("a\u202eb\x1bc\n"), "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c\N{REPLACEMENT CHARACTER}"),
    ],
)  # fmt: skip
def test_numbers_as_people_read_them(said: str, expected: str) -> None:
    assert said == expected


# ---------------------------------------------------------------- pictures

COUNTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=70)
NAMES = st.text(max_size=20)


def inside(svg: str) -> None:
    """Every shape is within its picture."""
    root = ET.fromstring(svg)
    height = float(root.get("height", "nan"))
    for shape in root.iter():
        for name in ("x", "x1", "x2", "cx", "width"):
            value = shape.get(name, "0")
            if value.endswith("%"):
                assert -0.01 <= float(value[:-1]) <= 100.01
        for name in ("y", "y1", "y2", "cy"):
            assert -0.1 <= float(shape.get(name, "0")) <= height + 0.1
        if shape.tag == "rect" and shape.get("x", "0").endswith("%"):
            right = float(shape.get("x", "0")[:-1]) + float(shape.get("width", "0")[:-1])
            assert right <= 100.1


@given(COUNTS, NAMES, st.booleans())
def test_columns_and_lines_stay_inside(counts: Sequence[int], label: str, logarithmic: bool) -> None:
    parts = [Part(label, count, inside=count // 2) for count in counts]
    inside(pictures.columns("a", parts, label, (len(parts) // 2, label), logarithmic=logarithmic))
    inside(pictures.trend("b", parts, label))
    inside(pictures.stacked("c", parts, label))


def test_columns_are_as_high_as_their_counts() -> None:
    svg = pictures.columns("a", [Part("x", 50), Part("y", 100), Part("z", 0)], "Title")
    heights = [float(found) for found in re.findall(r'class="t1"[^>]* height="([\d.]+)"', svg)]
    assert heights == [pictures.PLOT / 2, pictures.PLOT, 0]


def test_parts_of_a_whole_are_as_wide_as_their_shares() -> None:
    svg = pictures.stacked("a", [Part("x", 1), Part("none", 0), Part("y", 3)], "Title")
    widths = [float(found) for found in re.findall(r' cut" x=[^>]* width="([\d.]+)%"', svg)]
    assert widths == [25, 75]


@given(
    st.dictionaries(st.integers(-200, 200), st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=40)
)
def test_no_pair_is_lost_where_far_weights_are_gathered(weights: dict[int, tuple[int, int]]) -> None:
    facts = replace(
        SOUND, weights=[Weight(low, links + rest, links) for low, (links, rest) in weights.items()]
    )
    described = charts.weights(facts).split("<desc", 1)[-1].split("</desc>")[0]
    said = re.findall(r"([\d,]+) pairs, ([\d,]+) links", described)
    drawn = [sum(int(found[n].replace(",", "")) for found in said) for n in (0, 1)]
    assert drawn == [sum(a + b for a, b in weights.values()), sum(a for a, _ in weights.values())]


def test_large_clusters_are_counted_together() -> None:
    sizes = [Size(1, 5, 0), Size(10, 2, 0), Size(11, 1, 0), Size(20, 1, 1), Size(21, 1, 0), Size(5000, 1, 1)]
    found = charts.sizes(replace(SOUND, sizes=sizes))
    assert [(part.label, part.value, part.inside) for part in found] == [
        ("1", 5, 5), ("10", 2, 2), ("11 to 20", 2, 1), ("21 to 50", 1, 1), ("over 1,000", 1, 0),
    ]  # fmt: skip
