"""A process that dies between two steps, at the places where something else would stay behind: the next run mends it.

test_crash kills real processes at moments of its own; here each moment is named.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profile_pipeline import memberships, publish, quality, replay, runs
from profile_pipeline.audiences import build
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.defs.run import Options, run_graph
from profile_pipeline.identity import clusters, edges
from profile_pipeline.raw import ledger
from profile_pipeline.warehouse import rows
from profile_pipeline_tests.hand_made import all_hold, day, people
from profile_pipeline_tests.worlds import (
    LINKED,
    Row,
    World,
    deliver,
    run_and_publish,
    run_core,
    warehouse_of,
    write_rules,
)

ANNA = {"id": "1", "first": "Anna", "last": "Meyer", "email": "a@x.org"}
NEW = {"id": "2", "first": "New", "last": "Person", "email": "n@x.org"}


class Killed(BaseException):
    """Passes every `except Exception`, as the end of a process does."""


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "validate", all_hold)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return write_rules(tmp_path, LINKED)


def killed_at(module: Any, name: str, work: Callable[[], Any]) -> None:
    """Do something until a function is called, which never returns."""

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, kill)
        with pytest.raises(Killed):
            work()


def test_a_generation_that_was_complete_but_not_live_goes_live(project: Project) -> None:
    deliver(project, people(ANNA), "1")
    run_and_publish(project, day(1))
    deliver(project, people(NEW), "2")
    killed_at(publish, "point_to", lambda: run_and_publish(project, day(2)))
    assert publish.current(project).number == 1
    assert publish.rolled_back(project) is None, "nobody asked for the older one"
    assert run_and_publish(project, day(3)).number == 2
    assert publish.current(project).number == 2


def card(number: str, **said: str) -> Row:
    return Row("card", (("number", number), ("moment", "2026-03-01T00:00:00Z"), *said.items()))


def clusters_of(project: Project) -> list[Any]:
    with warehouse_of(project) as con:
        return rows(
            con,
            "select list(record_key order by record_key) from identity.clusters group by cluster_key order by 1",
        )


def test_edges_that_were_to_be_computed_afresh_stay_as_they_were(project: Project) -> None:
    second = {"id": "c2", "first": "Anna", "last": "Meyer", "email": "b@x.org"}
    deliver(project, [*people(ANNA, second), card("k1", crm_id="1", email="b@x.org")], "1")
    run_core(project, day(1))
    other = runs.with_threshold(load_config(project.rules), 9.0)
    with warehouse_of(project) as con:
        killed_at(edges, "_compute", lambda: edges.build_edges(con, other))
    run_core(project, day(1))
    deliver(project, [card("k2", crm_id="c2")], "2")
    run_core(project, day(2))
    found = clusters_of(project)
    run_core(project, day(2), rebuild=True)
    assert found == clusters_of(project) == [(["card:k1", "card:k2", "crm:1", "crm:c2"],)]


def test_who_left_a_delivered_list_leaves_the_audience(tmp_path: Path) -> None:
    """The list is the same; the address on it became one that identifies nobody."""
    project = write_rules(tmp_path, World((), link_email=False, unique_email=2))
    rules = project.rules / "identity.yaml"
    rules.write_text(rules.read_text().replace("clustering: {", "clustering: {generic_limit: 2, "))
    listed = "audiences:\n  listed: {external: {files: 'l_*.csv', column: mail, namespace: email}}\n"
    (project.rules / "audiences.yaml").write_text(listed)
    folder = project.data / "audiences"
    folder.mkdir(parents=True)
    (folder / "l_1.csv").write_text("mail\na@x.org\n")

    def run(number: int) -> list[Any]:
        run_core(project, day(number))
        with warehouse_of(project) as con:
            build.build_audiences(con, load_config(project.rules), project.data)
            return rows(con, "select count(*) from audiences.membership where exited_at is null")

    deliver(project, people(ANNA), "1")
    assert run(1) == [(1,)]
    others = [{"id": c, "first": f"{c}xx", "last": f"{c}yy", "email": "a@x.org"} for c in "bcdefg"]
    deliver(project, people(*others), "2")
    killed_at(build, "write_facts", lambda: run(2))
    assert run(2) == [(0,)]


def publish_all(project: Project, number: int) -> None:
    """In the order of the graph."""
    run_core(project, day(number))
    with warehouse_of(project) as con:
        config = load_config(project.rules)
        memberships.publish(con, project)
        publish.publish(con, config, project, runs.check_counts(con, config))
        memberships.publish(con, project)


def two_generations(project: Project) -> publish.Generation:
    """The first of them."""
    for number, who in enumerate((ANNA, NEW), start=1):
        deliver(project, people(who), str(number))
        publish_all(project, number)
    return publish.rollback_target(project)


def live_members(project: Project) -> tuple[int, int]:
    """Batches of the live generation and of the live memberships."""
    generation, members = publish.current(project), memberships.live(project)
    return generation.manifest["batch"], members.manifest["batch"]


def test_a_rollback_that_did_not_come_to_the_generation_is_none(project: Project) -> None:
    target = two_generations(project)
    publish.withhold_newest(project)
    memberships.follow(project, target)
    publish_all(project, 3)
    assert live_members(project) == (2, 2)


def test_a_generation_that_ends_a_rollback_ends_it_for_memberships_too(project: Project) -> None:
    target = two_generations(project)
    publish.withhold_newest(project)
    memberships.follow(project, target)
    publish.point_to(project, target.folder)
    publish_all(project, 3)
    assert live_members(project) == (1, 1), "nothing new: what was rolled back to stays"
    deliver(project, people(ANNA | {"city": "York", "moment": "2026-03-02T00:00:00Z"}), "3")
    publish_all(project, 4)
    assert live_members(project) == (3, 3), "no member changed, but the members of batch 2 are back"


def test_an_error_while_history_is_gone_through_again_shows_no_value(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, who in enumerate((ANNA, NEW), start=1):
        deliver(project, people(who), str(number))
        run_core(project, day(number))
    with warehouse_of(project) as con:
        ledger.revert(con, 1)
        replay.note(con, 1)

    def fail(con: Any, _: Any) -> None:
        rows(con, "select cast(value as integer) from records.identifiers where namespace = 'email'")

    monkeypatch.setattr(clusters, "build_clusters", fail)
    result = run_graph(load_config(project.rules), project, Options(as_of="2026-04-05T00:00:00+00:00"))
    assert "INT32" in result.failure
    assert "n@x.org" not in result.failure
    for path in (project.data / "dagster").rglob("*"):
        assert not path.is_file() or b"n@x.org" not in path.read_bytes(), path
