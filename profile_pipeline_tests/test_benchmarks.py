"""What the benchmarks rest on: processes that are measured, one evaluator, and changes that are what they say."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import held_back
import identity_speed
import measured
from judge import judge
from plain_splink import write_components


def run(code: str, limit: float = 20) -> dict:
    return measured.in_own_process([sys.executable, "-c", code], limit)


def test_a_measurement_is_the_last_line_it_prints_with_its_own_peak():
    code = "b = bytearray(200_000_000)\nprint('noise')\nprint('{\"seconds\": {\"a\": 1.5}}')"
    # asked for by a small process, as a benchmark is: this one may hold more by now than the limit below
    asked = f"import json, sys, measured; print(json.dumps(measured.in_own_process([sys.executable, '-c', {code!r}], 20)))"
    folder = Path(measured.__file__).parent
    done = subprocess.run([sys.executable, "-c", asked], cwd=folder, capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert (found["status"], found["seconds"]) == ("done", {"a": 1.5})
    assert 190 <= found["peak_rss_mb"] < 300


def test_a_crash_is_a_result_without_values_or_paths():
    found = run("raise ValueError(\"bad 'Jane Doe' in /home/jane/people.csv\")")
    assert found["status"] == "failed"
    assert found["reason"] == "ValueError: bad <value> in <path>"


def test_a_system_over_its_time_is_stopped():
    found = run("import time; time.sleep(60)", limit=0.3)
    assert (found["status"], found["reason"]) == ("too slow", "stopped after 0 s")


def test_a_killed_system_is_a_result():
    found = run("import os; os.kill(os.getpid(), 9)")
    assert (found["status"], found["reason"]) == ("failed", "ended by signal 9")


def write(path: Path, values: str, columns: str) -> Path:
    with duckdb.connect() as con:
        con.execute(f"copy (select * from (values {values}) v({columns})) to '{path}' (format parquet)")
    return path


def test_every_system_is_judged_by_the_products_figures(tmp_path):
    # entity 1: a b c, entity 2: d; found: {a, b}, {c, d}
    labels = write(
        tmp_path / "labels.parquet",
        "('s','a',1),('s','b',1),('s','c',1),('s','d',2)",
        "source, record_id, entity_id",
    )
    found = write(
        tmp_path / "found.parquet",
        "('s','a',7),('s','b',7),('s','c',8),('s','d',8)",
        "source, record_id, cluster",
    )
    figures = judge(found, labels)
    assert figures["pairwise"] == {"precision": 0.5, "recall": 0.333333, "f1": 0.4}
    assert figures["clusters"]["f1"] == 0
    assert figures["b_cubed"]["precision"] == 0.75


@pytest.mark.parametrize(("other", "equal"), [("('a','a','1'),('b','a','1')", True), ("('a','a','1'),('b','a','2')", False),
                                              ("('a','a','1'),('b','b','1')", False), ("('a','a','1')", False)])  # fmt: skip
def test_an_increment_that_ends_elsewhere_than_a_rebuild_is_seen(tmp_path, other, equal):
    columns = "record_key, cluster_key, profile_id"
    write(tmp_path / "change.parquet", "('a','a','1'),('b','a','1')", columns)
    write(tmp_path / "rebuild.parquet", other, columns)
    assert identity_speed._equal(tmp_path) is equal


def test_shares_of_a_change_are_disjoint_and_as_large_as_said():
    change = held_back.of_share(0.1)
    kinds = [change.where(kind) for kind in ("new", "changed", "deleted")]
    with duckdb.connect() as con:
        con.execute("create table r as select 'crm:' || i as record_key from range(20000) t(i)")
        counts = con.execute(
            f"select {', '.join(f'count(*) filter ({k})' for k in kinds)} from r"
        ).fetchall()[0]
        twice = con.execute(
            f"select count(*) from r where {' + '.join(f'({k})::integer' for k in kinds)} > 1"
        )
        assert twice.fetchall() == [(0,)]
    assert counts == pytest.approx((1000, 800, 200), rel=0.15)


def test_components_hold_everybody_once(tmp_path):
    with duckdb.connect() as con:
        con.execute("create table nodes_in as select unnest(['a', 'b', 'c', 'd']) as unique_id")
        con.execute("create table pairs as select * from (values ('a', 'b'), ('b', 'd')) v(l, r)")
        write_components(con, ["nodes_in"], "pairs", tmp_path / "out.parquet")
        query = f"select list(unique_id order by unique_id) from '{tmp_path / 'out.parquet'}' group by cluster order by 1"
        assert con.execute(query).fetchall() == [(["a", "b", "d"],), (["c"],)]
