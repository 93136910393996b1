"""The watch over the inbox: what makes it run, which job, and that it outlives busy projects and mistakes."""

import os
import subprocess
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from profile_pipeline import quality
from profile_pipeline.cli import app
from profile_pipeline.cli.watch import Watch
from profile_pipeline.config.project import Project
from profile_pipeline.defs.automation import JOB, MEMBERSHIP_JOB
from profile_pipeline.errors import BusyError
from profile_pipeline.warehouse import rows
from profile_pipeline_tests.conftest import validate_in_sql
from profile_pipeline_tests.test_sensor import HEADER, ROW, drop
from profile_pipeline_tests.worlds import LINKED, REPOSITORY, command, warehouse_of, write_rules

watch = import_module("profile_pipeline.cli.watch")  # by its name alone it is the command


@pytest.fixture
def project(tmp_path: Path) -> Project:
    found = write_rules(tmp_path, LINKED)
    found.inbox.mkdir(parents=True)
    return found


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the jobs that were run, without running them."""
    found: list[str] = []
    monkeypatch.setattr(watch, "_run", lambda _, job, __: not found.append(job))
    return found


def looks(state: Watch, times: int) -> list[bool]:
    return [state.step() for _ in range(times)]


def test_a_settled_file_makes_one_run(project: Project, jobs: list[str]) -> None:
    state = Watch(project, 0)
    drop(project, "crm_1.csv", age=-60)
    assert looks(state, 2) == [False, False], "it may still be on its way"
    drop(project, "crm_1.csv")
    assert looks(state, 2) == [True, False]
    drop(project, "crm_2.csv")
    assert looks(state, 2) == [True, False]
    assert jobs == [JOB, JOB]


def test_files_that_are_moved_in_need_not_settle(project: Project, jobs: list[str]) -> None:
    drop(project, "crm_1.csv", age=0)
    assert looks(Watch(project, 0, settled_seconds=0), 2) == [True, False]
    assert jobs == [JOB]


def test_between_generations_only_memberships_are_published(
    project: Project, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    state = Watch(project, 600)
    for number, at in enumerate((0.0, 10.0, 20.0)):
        now[0] = at
        drop(project, f"crm_{number}.csv")
        assert looks(state, 2) == [True, False]
    assert jobs == [JOB, MEMBERSHIP_JOB, MEMBERSHIP_JOB]
    now[0] = 601.0
    assert looks(state, 2) == [True, False], "the generation follows without another file"
    assert jobs[3:] == [JOB]


def test_files_wait_while_another_run_goes_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def run(_: Project, job: str, __: float) -> bool:
        found.append(job)
        if len(found) == 1:
            raise BusyError("held by process 1")
        return True

    monkeypatch.setattr(watch, "_run", run)
    monkeypatch.setattr(watch, "_load", lambda: None)
    drop(project, "crm_1.csv")
    done = invoke(project)
    assert (done.exit_code, found) == (0, [JOB, JOB])
    assert "held by" not in done.output


def test_files_of_a_run_that_could_not_do_its_work_are_tried_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, works, found = [0.0], [False], []

    def run(_: Project, job: str, __: float) -> bool:
        found.append(job)
        return works[0]

    monkeypatch.setattr(watch, "_run", run)
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    state = Watch(project, 600)
    drop(project, "crm_1.csv")
    assert looks(state, 2) == [True, False], "not at once again"
    drop(project, "crm_2.csv")
    assert looks(state, 2) == [True, False], "another file is reason enough"
    now[0], works[0] = watch.RETRY_SECONDS + 1, True
    assert looks(state, 2) == [True, False]
    assert found == [JOB] * 3, "no generation was written that would have been the last for ten minutes"


def test_a_file_that_is_still_arriving_waits_while_another_is_taken_in(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "validate", validate_in_sql)
    drop(project, "crm_1.csv")
    drop(project, "crm_2.csv", age=-60)  # still arriving a minute from now, however long the run takes
    state = Watch(project, 0)
    assert state.step()
    loaded = "select name from raw.files order by 1"
    with warehouse_of(project) as con:
        assert rows(con, loaded) == [("inbox/crm_1.csv",)]
    drop(project, "crm_2.csv", content=HEADER + ROW.replace("1", "2", 1))
    assert state.step()
    with warehouse_of(project) as con:
        assert rows(con, loaded) == [("inbox/crm_1.csv",), ("inbox/crm_2.csv",)]


def test_a_mistake_in_the_rules_is_told_once_and_waited_for(
    project: Project, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = project.rules / "identity.yaml"
    good = rules.read_text(encoding="utf-8")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        rules.write_text(good if len(pauses) == 3 else good + "\nnonsense: 1\n", encoding="utf-8")
        if len(pauses) == 1:
            drop(project, "crm_1.csv")

    monkeypatch.setattr(watch.time, "sleep", sleep)
    monkeypatch.setattr(watch, "_load", lambda: None)
    done = invoke(project)
    assert (done.exit_code, jobs) == (0, [JOB])
    assert done.output.count("nonsense") == 1


def invoke(project: Project, *arguments: str):
    where = ["--project", str(project.rules.parent)]
    return CliRunner().invoke(app, ["watch", *where, "--every", "0.1", "--runs", "1", *arguments])


@pytest.mark.slow
def test_dropped_files_end_in_memberships_and_in_a_generation(project: Project) -> None:
    own = command(project, "watch", "--every", "0.1", "--generation-minutes", "1000", "--runs", "2")
    with subprocess.Popen(own, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as running:
        try:
            drop(project, "crm_1.csv")
            wait_for(lambda: (project.published / "current").exists(), running)
            drop(project, "crm_2.csv", content=HEADER + ROW.replace("c1", "c2"))
            told, _ = running.communicate(timeout=200)
        finally:
            running.kill()
    assert told.count("Live: memberships of batch 1, generation 1 of batch 1") == 2, (
        "nobody is in an audience here"
    )
    with warehouse_of(project) as con:
        assert rows(con, "select max(batch) from raw.batches") == [(2,)]


def wait_for(holds: Callable[[], bool], running: subprocess.Popen[str], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        assert running.poll() in (None, os.EX_OK)
        time.sleep(0.1)
