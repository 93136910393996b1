"""Models in rows: levels in words and weights, blocking, figures, and what differs between two models."""

import json
import math
from collections.abc import Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import given
from hypothesis import strategies as st

from profile_pipeline.errors import PipelineError
from profile_pipeline.identity import model_charts
from profile_pipeline.identity import model_report as report
from profile_pipeline.identity.model import TABLES, Model
from profile_pipeline.warehouse import connect, mark_built
from profile_pipeline_tests.test_charts import texts_of


def level(label: str, m: float | None, u: float | None, **more: Any) -> dict[str, Any]:
    """A level of Splink settings."""
    return {
        "label_for_charts": label,
        "sql_condition": f"'{label}'",
        "m_probability": m,
        "u_probability": u,
        **more,
    }


def comparison(name: str, *levels: Mapping[str, Any]) -> dict[str, Any]:
    missing = {"label_for_charts": "missing", "sql_condition": "null", "is_null_level": True}
    return {"output_column_name": name, "comparison_levels": [missing, *levels]}


GIVEN = comparison(
    "given", level("same", 0.8, 0.0125, tf_adjustment_column="given"), level("different", 0.2, 0.9875)
)
BORN = comparison("birth_date", level("same", 0.9, 0.001), level("different", 0.1, 0.999))


def settings(
    *comparisons: Mapping[str, Any], prior: float = 0.001, rules: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "probability_two_random_records_match": prior,
        "comparisons": list(comparisons),
        "blocking_rules_to_generate_predictions": [
            {"blocking_rule": f"l.{rule} = r.{rule}"} for rule in rules
        ],
    }


def model(*comparisons: Mapping[str, Any], rules: tuple[str, ...] = (), **manifest: Any) -> Model:
    own = {"caps": {rule: [200] for rule in rules}, **manifest}
    return Model("a" * 12, settings(*(comparisons or (GIVEN, BORN)), rules=rules), own)


@pytest.fixture
def con(tmp_path: Path) -> Generator[DuckDBPyConnection]:
    with connect(tmp_path / "warehouse.duckdb", memory="1GB", threads=1) as found:
        found.execute(TABLES)
        yield found


def store(
    con: DuckDBPyConnection,
    model_id: str,
    found: Model,
    *,
    active: bool = False,
    frequencies: Mapping[str, float] | None = None,
    trained: int = 1,
) -> str:
    con.execute(
        "insert into identity.models values (?, ?, 'rules', ?, ?, ?)",
        [
            model_id,
            datetime(2026, 4, trained, tzinfo=UTC),
            json.dumps(found.settings),
            json.dumps(found.manifest),
            active,
        ],
    )
    for value, share in (frequencies or {}).items():
        con.execute(
            "insert into identity.term_frequencies values (?, 'given', ?, ?)", [model_id, value, share]
        )
    return model_id


# ---------------------------------------------------------------- one model


def test_a_weight_is_the_logarithm_of_m_to_u() -> None:
    same, different, *_ = report.levels(model())
    assert (same.comparison, same.level, same.bayes_factor, same.match_weight) == ("given", "same", 64, 6)
    assert same.by_frequency
    assert different.match_weight == pytest.approx(math.log2(0.2 / 0.9875))
    assert len(report.levels(model())) == 4, "missing values say nothing and are left out"


@given(st.floats(1e-9, 1), st.floats(1e-9, 1))
def test_words_and_weight_say_the_same(m: float, u: float) -> None:
    [found] = report.levels(model(comparison("x", level("same", m, u))))
    assert found.match_weight is not None
    assert found.match_weight == pytest.approx(math.log2(m / u), abs=1e-9)
    words = report.in_words(found)
    assert words.endswith(" times likelier") == (found.match_weight >= 0.1)
    assert words.endswith(" times less likely") == (found.match_weight <= -0.1)


@pytest.mark.parametrize(
    ("m", "u", "words"),
    [
        (0.8, 0.1, "8.0 times likelier"), (0.9, 0.0000037, "240,000 times likelier"), (0.01, 0.5, "50 times less likely"),
        (0.5, 0.49, "says nothing"), (None, 0.5, "not learned"), (0.5, 0, "not learned"), (0, 0.5, "not learned"),
    ],
)  # fmt: skip
def test_levels_in_words(m: float | None, u: float | None, words: str) -> None:
    [found] = report.levels(model(comparison("x", level("same", m, u))))
    assert report.in_words(found) == words


def test_an_agreement_on_a_rare_value_is_said_to_weigh_more() -> None:
    assert (
        report.in_words(report.levels(model())[0])
        == "64 times likelier; a rare value more, a common one less"
    )


def test_plain_splink_settings_without_names_and_labels_are_read() -> None:
    bare = {
        "comparison_levels": [
            {"sql_condition": "x_l = x_r"},
            {"sql_condition": "ELSE", "label_for_charts": "x"},
        ]
    }
    twice = comparison("y", level("same", 0.5, 0.1), level("same", 0.2, 0.1), level("same", 0.3, 0.8))
    found = [(row.comparison, row.level) for row in report.levels(model(bare, twice))]
    assert found == [
        ("comparison 1", "x_l = x_r"), ("comparison 1", "x"), ("y", "same"), ("y", "same (2)"), ("y", "same (3)"),
    ]  # fmt: skip


def test_households_are_told_apart_from_persons() -> None:
    found = model(GIVEN, household=settings(comparison("family", level("same", 0.9, 0.01))))
    assert [(row.kind, row.comparison) for row in report.levels(found)] == [
        ("person", "given"), ("person", "given"), ("household", "family"),
    ]  # fmt: skip
    assert report.figures(found).levels == 2


@pytest.mark.parametrize("noted", [{"names": [50, 7]}, {"names": {"pairs": 50, "matches": 7}}])
def test_derived_blocking_rules_go_by_name(noted: dict[str, Any]) -> None:
    [names, other] = report.blocking(model(rules=("names", "email"), blocking=noted))
    assert (names.rule, names.pairs, names.matches) == ("names", 50, 7)
    assert (other.rule, other.pairs, other.matches) == ("email", None, None)


def test_blocking_rules_of_the_project_go_by_their_condition() -> None:
    own = Model(
        "own", {"comparisons": [], "blocking_rules_to_generate_predictions": ["l.a = r.a"]}, {"caps": {}}
    )
    assert report.blocking(own) == [report.Blocking("l.a = r.a", None, None)]
    noted = Model("own", own.settings, {"caps": {}, "blocking": {"rule 0": [3, 1]}})
    assert report.blocking(noted) == [report.Blocking("l.a = r.a", 3, 1)]


def test_figures_of_a_full_manifest() -> None:
    found = report.figures(
        model(
            records=100, pairs_learned_from=500, expected_matches=40, threshold=2.5,
            expected={"precision": 0.98, "recall_of_candidates": 0.9},
        )
    )  # fmt: skip
    assert (
        found.records,
        found.threshold,
        found.expected_precision,
        found.expected_recall_of_candidates,
    ) == (
        100,
        2.5,
        0.98,
        0.9,
    )
    assert found.prior_weight == pytest.approx(math.log2(0.001 / 0.999), abs=1e-4)
    assert (found.comparisons, found.levels) == (2, 4)
    assert report.figures(model(expected_matches=40, sampled_share=0.1)).expected_matches == 400


def test_what_a_model_does_not_know_is_none_not_zero() -> None:
    found = report.figures(model())
    assert (
        found.threshold
        is found.expected_recall_of_candidates
        is found.expected_precision
        is found.expected_matches
        is None
    )


def test_an_empty_model_has_no_levels_and_charts_that_say_so() -> None:
    empty = Model("empty", {"comparisons": []}, {"note": "nothing to learn from"})
    assert report.levels(empty) == report.blocking(empty) == report.threshold_curve(empty) == []
    for chart in (model_charts.weights_chart, model_charts.m_and_u_chart, model_charts.threshold_chart):
        assert "no data yet" in texts_of(chart(empty))


# ---------------------------------------------------------------- stored models


def test_models_are_listed_newest_first_and_found_by_the_beginning_of_their_id(
    con: DuckDBPyConnection,
) -> None:
    store(con, "abc1", model(records=5), trained=1)
    store(con, "abd2", model(records=6), trained=2, active=True)
    found = report.stored_models(con, "rules")
    assert [(row.model_id, row.active, row.fits, row.figures.records) for row in found] == [
        ("abd2", True, True, 6), ("abc1", False, True, 5),
    ]  # fmt: skip
    assert not any(row.fits for row in report.stored_models(con, "other rules"))
    assert report.find_model(con).model_id == "abd2"
    assert report.find_model(con, "abc").model_id == "abc1"
    with pytest.raises(PipelineError, match="2 models begin with ab"):
        report.find_model(con, "ab")
    with pytest.raises(PipelineError, match="no model zz"):
        report.find_model(con, "zz")


def test_before_the_first_training_there_is_no_model(con: DuckDBPyConnection) -> None:
    with pytest.raises(PipelineError, match="no model is active"):
        report.find_model(con)
    con.execute("drop table identity.models")
    assert report.stored_models(con) == []
    with pytest.raises(PipelineError, match="no model yet"):
        report.find_model(con)


# ---------------------------------------------------------------- two models


def test_a_model_is_the_same_as_itself(con: DuckDBPyConnection) -> None:
    store(con, "one", model(rules=("names",), records=9, threshold=1.0), frequencies={"anna": 1.0})
    found = report.compare(con, "one", "one")
    assert found.same
    assert found.figures == found.weights == found.parts == []


def test_only_weights_that_moved_by_more_than_half_a_bit_are_named_largest_first(
    con: DuckDBPyConnection,
) -> None:
    before = comparison(
        "x", level("a", 0.4, 0.1), level("b", 0.4, 0.1), level("c", 0.1, 0.1), level("d", 0.1, 0.7)
    )
    after = comparison(
        "x", level("a", 0.4, 0.05), level("b", 0.4, 0.075), level("c", 0.1, 0.8), level("d", None, 0.7)
    )
    store(con, "left", model(before))
    store(con, "right", model(after))
    found = report.compare(con, "left", "right")
    assert [(row.level, round(row.moved, 3)) for row in found.weights] == [("c", -3), ("a", 1)]
    assert [(round(row.left, 3), round(row.right, 3)) for row in found.weights] == [(0, -3), (2, 3)]


def test_parts_that_come_go_or_change_their_condition(con: DuckDBPyConnection) -> None:
    changed = level("different", 0.2, 0.9875, sql_condition="length(given_l) > 3")
    given = comparison("given", level("same", 0.8, 0.0125), level("nickname", 0.1, 0.1), changed)
    store(con, "left", model(GIVEN, BORN, rules=("names", "email")))
    store(con, "right", model(given, comparison("phone", level("same", 0.9, 0.1)), rules=("names", "phone")))
    found = {(row.change, row.part, row.name) for row in report.compare(con, "left", "right").parts}
    assert found == {
        ("removed", "comparison", "birth_date"), ("added", "comparison", "phone"),
        ("added", "level", "given: nickname"), ("redefined", "level", "given: different"),
        ("removed", "blocking rule", "email"), ("added", "blocking rule", "phone"),
    }  # fmt: skip


def test_figures_that_differ_are_named_with_both_values(con: DuckDBPyConnection) -> None:
    store(con, "left", model(records=10, threshold=1.0, expected={"precision": 0.9}))
    store(con, "right", model(records=20, threshold=1.0, expected={"precision": 0.95}))
    found = {row.figure: (row.left, row.right) for row in report.compare(con, "left", "right").figures}
    assert found == {"records": (10, 20), "expected_precision": (0.9, 0.95)}


def test_frequencies_differ_by_total_variation_and_no_value_is_shown(con: DuckDBPyConnection) -> None:
    store(con, "left", model(), frequencies={"anna": 0.5, "zebedee": 0.25, "john": 0.25})
    store(con, "right", model(), frequencies={"anna": 0.5, "john": 0.5})
    found = report.compare(con, "left", "right")
    assert found.frequencies == [report.FrequencyChange("given", 3, 2, 1, 0.25)]
    assert not found.same
    assert "zebedee" not in str(found)
    con.execute("delete from identity.term_frequencies where model_id = 'right'")
    assert report.compare(con, "left", "right").frequencies == [report.FrequencyChange("given", 3, 0, 3, 1.0)]


def test_what_is_scored_is_counted_where_the_warehouse_holds_it(con: DuckDBPyConnection) -> None:
    store(con, "left", model())
    store(con, "right", model(), active=True)
    assert report.compare(con, "left", "right").scored == []
    con.execute(
        "create table identity.edges (type text, model_id text, accepted boolean, match_probability double)"
    )
    con.execute(
        """insert into identity.edges values ('probabilistic', 'right', true, 0.9), ('probabilistic', 'right', false, 0.1),
        ('deterministic', null, true, null), ('probabilistic', 'another', true, 1)"""
    )
    left_out = {
        "rule": "names",
        "records": 500,
        "blocks": 2,
        "pairs": 62_000,
        "expected_matches_missed": 0.25,
    }
    mark_built(con, "identity.edges", "mark", {"threshold": 3.5, "capped_blocks": [left_out]})
    [found] = report.compare(con, "left", "right").scored
    assert (found.model_id, found.pairs, found.links, found.threshold) == ("right", 2, 1, 3.5)
    assert found.capped == [report.Capped("names", 500, 2, 62_000, 0.25)]
    assert found.recall_lost == pytest.approx(0.2), "0.25 missed, 1 found"
    assert report.scored(con, "left") is None


# ---------------------------------------------------------------- pictures


def test_the_charts_show_every_level_the_prior_and_the_threshold() -> None:
    found = model(
        threshold=2.5,
        expected={"precision": 0.98, "recall": 0.9},
        threshold_curve=[[1, 0.9, 0.95, 10], [5, 1, 0.5, 4]],
    )
    weights = texts_of(model_charts.weights_chart(found))
    assert {"start", "any two records", "given", "birth_date", "same", "different", "+6.0", "-10.0"} <= set(
        weights
    )
    shares = texts_of(model_charts.m_and_u_chart(found))
    assert {"given", "same", "1", "0.1", "0.01", "0.001"} <= set(shares)
    assert "threshold 2.5: precision 0.980, recall 0.900" in texts_of(model_charts.threshold_chart(found))
