"""Reverting a batch is as if it had never come, ids included; restoring it as if it had never been reverted."""

import tempfile
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_pipeline import batches, decisions, metrics, quality, replay
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.dictionary import published_tables
from profile_pipeline.errors import PipelineError
from profile_pipeline_tests.conftest import validate_in_sql
from profile_pipeline_tests.worlds import (
    AS_OF,
    LINKED,
    Row,
    deliver,
    records_of,
    rows,
    run_core,
    warehouse_of,
    write_rules,
)

Tables = dict[str, list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Great Expectations takes seconds to load; what it judges here can be judged in SQL."""
    monkeypatch.setattr(quality, "validate", validate_in_sql)


def as_of(day: int) -> datetime:
    return AS_OF + timedelta(days=day)


def person(number: str, first: str, email: str, moment: str = "2026-03-01T00:00:00Z", **more: str) -> Row:
    """A row of the crm source."""
    fields = {"id": number, "first": first, "last": "Fox", "born": "1980-01-01", "email": email, "status": "active",
              "moment": moment, **more}  # fmt: skip
    return Row("crm", tuple(fields.items()))


FIRST = [person("c1", "Ann", "ann@x.org"), person("c2", "Bob", "bob@x.org"), person("c3", "Cid", "cid@x.org")]
BRIDGE = [
    # joins c1 and c2, corrects c3, and brings somebody new who gets an id
    Row(
        "card",
        (("number", "k1"), ("crm_id", "c1"), ("email", "bob@x.org"), ("moment", "2026-03-02T00:00:00Z")),
    ),
    person("c3", "Cyd", "cid@x.org", "2026-03-05T00:00:00Z", segment="gold"),
    person("c9", "Zoe", "zoe@x.org"),
]
LAST = [person("c4", "Dan", "zoe@x.org"), person("c1", "Anna", "ann@x.org", "2026-03-09T00:00:00Z")]


def grown(folder: Path, parts: Iterable[tuple[int, list[Row]]]) -> Project:
    """A project that was run once for each delivery, at its day."""
    project = write_rules(folder, LINKED)
    for day, part in parts:
        deliver(project, part, str(day))
        run_core(project, as_of(day))
    return project


def run(project: Project) -> None:
    """A run without new files, as the graph does it."""
    replay.settle(load_config(project.rules), project)
    run_core(project, as_of(90))


def published(project: Project) -> Tables:
    """Every published table. Batches by their order among those that count; rows taken back are left out."""
    config = load_config(project.rules)
    with warehouse_of(project) as con:
        order = {
            b: n for n, (b,) in enumerate(rows(con, "select batch from raw.batches order by 1"), start=1)
        }
        found = {t.name: records_of(con, f"{t.query} order by {t.order}") for t in published_tables(config)}
    for table in found.values():
        table[:] = [{**row, "batch": order[row["batch"]]} if "batch" in row else row for row in table
                    if not row.get("reverted")]  # fmt: skip
    return found


def take_back(project: Project, batch: int) -> None:
    with warehouse_of(project) as con:
        batches.revert(con, batch, "ann", "wrong file")


def let_in(project: Project, batch: int) -> None:
    with warehouse_of(project) as con:
        batches.restore(con, batch, "ann", "right after all")


PARTS = [(1, FIRST), (2, BRIDGE), (3, LAST)]


@pytest.mark.parametrize(
    "batch", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_reverted_batch_never_came_ids_included(tmp_path: Path, batch: int) -> None:
    project = grown(tmp_path / "with", PARTS)
    before = published(project)
    take_back(project, batch)
    run(project)
    expected = published(grown(tmp_path / "without", [p for p in PARTS if p[0] != batch]))
    assert published(project) == expected
    let_in(project, batch)
    run(project)
    assert published(project) == before


ROWS = st.one_of(
    st.builds(
        person,
        st.sampled_from(["c1", "c2", "c3"]),
        st.sampled_from(["Ann", "Bob", ""]),
        st.sampled_from(["a@x.org", "b@x.org", ""]),
        st.integers(1, 4).map(lambda day: f"2026-03-0{day}T00:00:00Z"),
    ),
    st.builds(
        lambda number, crm_id, email: Row(
            "card",
            (("number", number), ("crm_id", crm_id), ("email", email), ("moment", "2026-03-02T00:00:00Z")),
        ),
        st.sampled_from(["k1", "k2"]),
        st.sampled_from(["c1", "c2", "c3", ""]),
        st.sampled_from(["a@x.org", "b@x.org", ""]),
    ),
)
DELIVERY = st.lists(ROWS, min_size=1, max_size=4)


@pytest.mark.long
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(DELIVERY, min_size=2, max_size=4), st.data())
def test_any_reverted_batch_never_came(deliveries: list[list[Row]], data: st.DataObject) -> None:
    parts = list(enumerate(deliveries, start=1))
    batch = data.draw(st.sampled_from([number for number, _ in parts]))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", validate_in_sql)
        project = grown(Path(folder) / "with", parts)
        before = published(project)
        take_back(project, batch)
        run(project)
        others = [(number, part) for number, part in parts if number != batch]
        assert published(project) == published(grown(Path(folder) / "without", others))
        let_in(project, batch)
        run(project)
        assert published(project) == before


def test_an_id_that_a_reverted_batch_gave_out_is_gone_and_kept_as_withdrawn(tmp_path: Path) -> None:
    project = grown(tmp_path / "p", PARTS[:2])
    with warehouse_of(project) as con:
        [(zoe,)] = rows(con, "select profile_id from identity.registry where birth_record_key = 'crm:c9'")
    take_back(project, 2)
    run(project)
    assert zoe not in str(published(project))
    with warehouse_of(project) as con:
        assert rows(con, "select event from identity.withdrawn_events where profile_id = ?", [zoe]) == [
            ("created",)
        ]
        assert rows(con, "select count(*) from raw.card") == [(1,)], "raw rows stay"
        assert metrics.unbalanced(con) == []
        assert rows(con, "select sum(reverted) from metrics.row_fates") == [(3,)]


def test_decisions_and_models_count_from_when_they_were_made(tmp_path: Path) -> None:
    """A decision after the reverted batch joins what it joined, in a revision of its own, as without the batch."""
    states = []
    for name, days in (("with", (1, 2, 3)), ("without", (1, 3))):
        project = grown(tmp_path / name, [PARTS[day - 1] for day in days if day < 3])
        with warehouse_of(project) as con:
            decisions.decide(con, [("crm:c2", "crm:c3")], "match", "ann", "one person")
        run_core(project, as_of(2))
        deliver(project, LAST, "3")
        run_core(project, as_of(3))
        if 2 in days:
            take_back(project, 2)
            run(project)
        states.append(published(project))
    assert states[0] == states[1]


@pytest.mark.slow
def test_a_file_takes_the_place_of_a_reverted_twin_even_when_it_is_gone(tmp_path: Path) -> None:
    project = grown(tmp_path / "with", [(1, FIRST), (2, BRIDGE), (3, BRIDGE), (4, LAST)])
    for path in (project.data / "sources").glob("*_3.*"):
        path.unlink()
    take_back(project, 2)
    run(project)
    assert published(project) == published(grown(tmp_path / "without", [(1, FIRST), (3, BRIDGE), (4, LAST)]))


@pytest.mark.slow
def test_a_killed_replay_leaves_the_warehouse_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = grown(tmp_path / "p", PARTS)
    take_back(project, 2)
    before = project.database.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(replay, "_run", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(project)
    assert project.database.read_bytes() == before
    run(project)
    assert published(project) == published(grown(tmp_path / "without", [PARTS[0], PARTS[2]]))


def test_decisions_about_batches_are_kept_with_author_and_reason(tmp_path: Path) -> None:
    project = grown(tmp_path / "p", PARTS[:2])
    take_back(project, 2)
    with warehouse_of(project) as con:
        newest = batches.listed(con)[0]
        assert (newest["batch"], newest["taken_back"], newest["reverted_by"], newest["reverted_because"]) == (
            2, True, "ann", "wrong file",
        )  # fmt: skip
        with pytest.raises(PipelineError, match="batch 2 has no files that count"):
            batches.revert(con, 2, "ann", "again")
        with pytest.raises(PipelineError, match="batch 1 is not reverted"):
            batches.restore(con, 1, "ann", "why not")
        with pytest.raises(PipelineError, match="no batch 9"):
            batches.revert(con, 9, "ann", "x")
        with pytest.raises(PipelineError, match="give an author and a reason"):
            batches.revert(con, 1, "ann", " ")
    let_in(project, 2)
    with warehouse_of(project) as con:
        assert [d["action"] for d in batches.show(con, 2)["decisions"]] == ["revert", "restore"]
        assert not batches.listed(con)[0]["taken_back"]
