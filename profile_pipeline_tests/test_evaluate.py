"""Measures against labels, checked against counting pair by pair."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_pipeline.errors import PipelineError
from profile_pipeline.evaluate import Evaluation, best, evaluate, rounded, score, threshold_table
from profile_pipeline.warehouse import connect

PEOPLE = [("crm", str(i)) for i in range(5)] + [("shop", str(i)) for i in range(5)]


@pytest.fixture
def con(tmp_path: Path) -> Iterator[DuckDBPyConnection]:
    with connect(tmp_path / "warehouse.duckdb", memory="500MiB", threads=1) as con:
        con.execute("create table records.current (record_key text, source text, source_key text)")
        con.execute(
            "create table identity.membership (record_key text, profile_id text, to_revision integer)"
        )
        con.execute(
            "create table identity.edges (left_key text, right_key text, type text, match_weight double,"
            " accepted boolean)"
        )
        yield con


def publish(con: DuckDBPyConnection, profiles: dict[tuple[str, str], str]) -> None:
    for table in ("records.current", "identity.membership", "identity.edges"):
        con.execute(f"delete from {table}")
    for (source, key), profile in profiles.items():
        con.execute("insert into records.current values (?, ?, ?)", [f"{source}:{key}", source, key])
        con.execute("insert into identity.membership values (?, ?, null)", [f"{source}:{key}", profile])
        con.execute("insert into identity.membership values (?, 'former', 1)", [f"{source}:{key}"])


def write_labels(path: Path, labels: dict[tuple[str, str], str]) -> Path:
    lines = [f"{source},{key},{entity}" for (source, key), entity in labels.items()]
    path.write_text("\n".join(["source,record_id,entity_id", *lines]) + "\n", encoding="utf-8")
    return path


Grouping = dict[tuple[str, str], str]
groupings = st.dictionaries(st.sampled_from(PEOPLE), st.sampled_from("abcd"), min_size=1)


def groups(assigned: Grouping) -> set[frozenset[tuple[str, str]]]:
    found = defaultdict(set)
    for record, group in assigned.items():
        found[group].add(record)
    return {frozenset(group) for group in found.values()}


def pairs(assigned: Grouping) -> set[frozenset[tuple[str, str]]]:
    return {frozenset(pair) for group in groups(assigned) for pair in combinations(group, 2)}


def of(record: tuple[str, str], assigned: Grouping) -> set[tuple[str, str]]:
    return {other for other in assigned if assigned[other] == assigned[record]}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(published=groupings, truth=groupings)
def test_measures_equal_counting(con, tmp_path, published, truth):
    publish(con, published)
    truth = {r: e for r, e in truth.items() if any(s == r[0] for s, _ in published)}
    if not truth:
        return
    found = evaluate(con, write_labels(tmp_path / "labels.csv", truth))
    both = published.keys() & truth.keys()
    is_, ought = ({r: a[r] for r in both} for a in (published, truth))
    assert (found.records, found.missing) == (len(both), len(truth) - len(both))
    assert found.unlabelled == len(published) - len(both)
    right = len(pairs(is_) & pairs(ought))
    assert found.pairwise == score(right, len(pairs(is_)), len(pairs(ought)))
    exact = len(groups(is_) & groups(ought))
    assert found.clusters == score(exact, len(groups(is_)), len(groups(ought)))
    if both:
        precision = sum(len(of(r, is_) & of(r, ought)) / len(of(r, is_)) for r in both) / len(both)
        recall = sum(len(of(r, is_) & of(r, ought)) / len(of(r, ought)) for r in both) / len(both)
        assert found.b_cubed.precision == pytest.approx(precision)
        assert found.b_cubed.recall == pytest.approx(recall)
        assert found.b_cubed.f1 == pytest.approx(2 * precision * recall / (precision + recall))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    truth=st.fixed_dictionaries({record: st.sampled_from("abc") for record in PEOPLE}),
    scored=st.dictionaries(
        st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda p: p[0] < p[1]),
        st.floats(-9.5, 9.5),
        max_size=12,
    ),
)
def test_threshold_table_equals_counting(con, tmp_path, truth, scored):
    publish(con, dict.fromkeys(PEOPLE, "one"))
    keys = [f"{source}:{key}" for source, key in PEOPLE]
    for (a, b), weight in scored.items():
        row = [keys[a], keys[b], weight, weight > 0]
        con.execute("insert into identity.edges values (?, ?, 'probabilistic', ?, ?)", row)
        con.execute("insert into identity.edges values (?, ?, 'deterministic', 99, true)", row[:2])
    true = {frozenset(pair) for pair in pairs(truth)}
    for row in threshold_table(con, write_labels(tmp_path / "labels.csv", truth)):
        above = {frozenset((PEOPLE[a], PEOPLE[b])) for (a, b), w in scored.items() if w >= row.threshold}
        assert row.pairs == len(above) > 0
        assert row.score == score(len(above & true), len(above), len(true))


def test_parquet_and_untidy_keys(con, tmp_path):
    publish(con, {("crm", "0"): "p", ("crm", "1"): "p"})
    path = tmp_path / "labels.parquet"
    con.execute(
        f"copy (select 'crm' as source, '  ' || i as record_id, 7 as entity_id from range(2) t(i)) to '{path}'"
    )
    assert evaluate(con, path).pairwise == score(1, 1, 1)


def test_nothing_claimed_is_precise_and_nothing_found_has_no_recall(con, tmp_path):
    publish(con, {("crm", "0"): "p", ("crm", "1"): "q"})
    found = evaluate(con, write_labels(tmp_path / "labels.csv", {("crm", "0"): "a", ("crm", "1"): "a"}))
    assert (found.pairwise.precision, found.pairwise.recall, found.pairwise.f1) == (1.0, 0.0, 0.0)
    assert isinstance(found, Evaluation)


def test_labels_leave_no_tables_behind(con, tmp_path):
    publish(con, {("crm", "0"): "p"})
    evaluate(con, write_labels(tmp_path / "labels.csv", {("crm", "0"): "a"}))
    assert con.execute("select count(*) from duckdb_tables() where temporary").fetchall() == [(0,)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("labels.txt", "", ["labels.txt", ".parquet or .csv"]),
        ("gone.csv", None, ["gone.csv", "no such file"]),
        ("labels.csv", "source,record_id\ncrm,0\n", ["labels.csv", "`entity_id`", "record_id, entity_id"]),
        ("labels.csv", "source,record_id,entity_id\ncrm,0,\n", ["`entity_id`", "1 rows", "fill it"]),
        ("labels.csv", "source,record_id,entity_id\nCRM,0,a\n", ["`source`", "`CRM`", "use one of crm"]),
        (
            "labels.csv",
            "source,record_id,entity_id\ncrm,0,a\ncrm,0,b\n",
            ["`entity_id`", "several", "keep one"],
        ),
        ("labels.parquet", "no parquet", ["labels.parquet", "not readable as parquet"]),
    ],
)
def test_an_unfit_file_is_named_with_its_fix(con, tmp_path, name, content, words):
    publish(con, {("crm", "0"): "p"})
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(PipelineError) as error:
        evaluate(con, tmp_path / name)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_before_the_first_run(tmp_path):
    labels = write_labels(tmp_path / "labels.csv", {("crm", "0"): "a"})
    with (
        connect(tmp_path / "empty.duckdb", memory="500MiB") as empty,
        pytest.raises(PipelineError, match="run the pipeline first"),
    ):
        evaluate(empty, labels)


def test_best_threshold_and_shown_shares(con, tmp_path):
    publish(con, dict.fromkeys(PEOPLE[:3], "one"))
    for right, weight in (("crm:1", 5.2), ("crm:2", 1.0)):
        con.execute(
            "insert into identity.edges values ('crm:0', ?, 'probabilistic', ?, true)", [right, weight]
        )
    truth = dict(zip(PEOPLE, "aab", strict=False))
    peak = best(threshold_table(con, write_labels(tmp_path / "labels.csv", truth)))
    assert peak
    assert (peak.threshold, peak.pairs, peak.score.f1) == (5.0, 1, 1.0)
    assert best([]) is None
    assert rounded(0.99996) == 0.9999
