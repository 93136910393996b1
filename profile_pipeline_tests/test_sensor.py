"""The inbox sensor: what it waits for, what it ignores, and a file that ends in a published generation by itself."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from profile_pipeline import publish
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.defs import automation
from profile_pipeline.defs.graph import build_definitions
from profile_pipeline.defs.history import SILENT
from profile_pipeline.defs.run import Options, dagster_home, instance_of, run_graph
from profile_pipeline_tests.test_lock import held_elsewhere
from profile_pipeline_tests.worlds import LINKED, REPOSITORY, Row, deliver, quick_folder, write_rules

ROW = "c1,Ann,Lee,,ann@mail.org,,,,,active,2026-03-01T00:00:00Z\n"
HEADER = "id,first,last,born,email,phone,street,city,segment,status,moment\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    found = write_rules(tmp_path, LINKED)
    found.inbox.mkdir(parents=True)
    return found


def drop(project: Project, name: str, *, age: float = 60, content: str = HEADER + ROW) -> Path:
    path = project.inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    os.utime(path, (time.time() - age,) * 2)
    return path


def look(project: Project, cursor: str | None = None) -> tuple[list[str], str | None]:
    """One evaluation: run keys asked for and the cursor afterwards."""
    sensor = automation.inbox_sensor(load_config(project.rules), project)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        found = sensor.evaluate_tick(context)
    return [request.run_key or "" for request in found.run_requests or []], found.cursor


def test_an_empty_or_absent_inbox_asks_for_nothing(project: Project) -> None:
    assert look(project) == ([], None)
    project.inbox.rmdir()
    assert look(project) == ([], None)


def test_a_settled_file_asks_for_one_run_and_then_for_none(project: Project) -> None:
    drop(project, "crm_1.csv")
    keys, cursor = look(project)
    assert len(keys) == 1
    assert look(project, cursor) == ([], cursor)
    drop(project, "crm_2.csv")
    more, cursor = look(project, cursor)
    assert len(more) == 1
    assert more != keys
    assert look(project, cursor) == ([], cursor)


def test_a_file_that_changes_or_leaves_is_noticed_once(project: Project) -> None:
    path = drop(project, "crm_1.csv")
    keys, cursor = look(project)
    drop(project, "crm_1.csv", age=30, content=HEADER + ROW + ROW)
    again, cursor = look(project, cursor)
    assert len(again) == 1
    assert again != keys
    path.unlink()
    assert look(project, cursor)[0] == []


@pytest.mark.parametrize(
    "name", ["crm_1.csv.part", "crm_1.csv.tmp", ".crm_1.csv", ".hidden/crm_1.csv", "notes.txt"]
)
def test_unfinished_hidden_and_unclaimed_files_ask_for_nothing(project: Project, name: str) -> None:
    drop(project, name)
    assert look(project) == ([], None)


def test_a_young_file_is_still_on_its_way(project: Project) -> None:
    drop(project, "crm_1.csv", age=-60)
    assert look(project) == ([], None)
    drop(project, "crm_1.csv", age=automation.SETTLED_SECONDS + 2)
    assert len(look(project)[0]) == 1


def test_a_file_still_growing_does_not_hide_a_settled_one(project: Project) -> None:
    drop(project, "crm_1.csv", age=-60)
    drop(project, "card_1.jsonl", content='{"number": "k1", "moment": "2026-03-01T00:00:00Z"}\n')
    keys, cursor = look(project)
    assert len(keys) == 1
    assert list(json.loads(cursor or "")) == ["inbox/card_1.jsonl"]


def test_while_another_process_runs_the_files_wait_and_the_cursor_stays(project: Project) -> None:
    drop(project, "crm_1.csv")
    _, cursor = look(project)
    drop(project, "crm_2.csv")
    with held_elsewhere(project.state):
        assert look(project, cursor) == ([], cursor)
    assert len(look(project, cursor)[0]) == 1


def test_a_look_leaves_the_lock_free(project: Project) -> None:
    drop(project, "crm_1.csv")
    look(project)
    with held_elsewhere(project.state):
        pass


def test_schedule_and_sensors_follow_publication_yaml(project: Project) -> None:
    (project.rules / "publication.yaml").write_text(
        "{automation: true, inbox_seconds: 7, schedule: '5 4 * * *', timezone: Europe/London}",
        encoding="utf-8",
    )
    definitions = build_definitions(load_config(project.rules), project)
    inbox = definitions.resolve_sensor_def("inbox")
    assert inbox.minimum_interval_seconds == 7
    assert inbox.default_status is dg.DefaultSensorStatus.RUNNING
    [schedule] = definitions.schedules or []
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("5 4 * * *", "Europe/London")
    (project.rules / "publication.yaml").unlink()
    assert (
        build_definitions(load_config(project.rules), project).resolve_sensor_def("inbox").default_status
        is dg.DefaultSensorStatus.STOPPED
    )


def dead_run(instance: dg.DagsterInstance, project: Project, tags: dict[str, str] | None = None) -> str:
    """A run whose process was killed after its start."""
    job = build_definitions(load_config(project.rules), project).resolve_job_def(automation.JOB)
    run = instance.create_run_for_job(job, tags=tags)
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, automation.JOB, message=""), run.run_id
    )
    assert _status(instance, run.run_id) is dg.DagsterRunStatus.STARTED
    return run.run_id


def _status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run
    return run.status


def test_a_look_closes_runs_whose_process_died_but_not_one_that_just_began(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = automation.inbox_sensor(load_config(project.rules), project)
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = dead_run(instance, project)
        sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
        assert _status(instance, run_id) is dg.DagsterRunStatus.STARTED
        monkeypatch.setattr(automation, "STARTING_SECONDS", -1)
        with held_elsewhere(project.state):
            sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
            assert _status(instance, run_id) is dg.DagsterRunStatus.STARTED
        sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
        assert _status(instance, run_id) is dg.DagsterRunStatus.FAILURE
        told = [entry.dagster_event.message for entry in instance.all_logs(run_id) if entry.dagster_event]
        assert SILENT in told


BY_SENSOR = {"dagster/sensor_name": "inbox"}


@pytest.fixture
def asked(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Tags of the runs that a look asks for, while a run counts as dead and as undone at once; and the instance."""
    monkeypatch.setattr(automation, "STARTING_SECONDS", -1)
    monkeypatch.setattr(automation, "RETRY_SECONDS", -1)
    sensor = automation.inbox_sensor(load_config(project.rules), project)
    with dg.DagsterInstance.ephemeral() as instance:

        def look_again() -> list[dict[str, str]]:
            found = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
            return [request.tags for request in found.run_requests or []]

        yield look_again, instance


def test_a_run_that_failed_is_made_up_for_once(project: Project, asked: Any) -> None:
    look_again, instance = asked
    dead_run(instance, project, BY_SENSOR)
    [tags] = look_again()
    assert tags[automation.TRIGGER] == automation.MAKES_UP
    dead_run(instance, project, {**BY_SENSOR, **tags})
    assert look_again() == []
    dead_run(instance, project, {"dagster/schedule_name": "nightly"})
    assert len(look_again()) == 1


def test_a_run_of_a_human_or_of_just_now_is_not_made_up_for(
    project: Project, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_again, instance = asked
    dead_run(instance, project)
    assert look_again() == []
    run_id = dead_run(instance, project, BY_SENSOR)
    monkeypatch.setattr(automation, "RETRY_SECONDS", 60)
    assert look_again() == []
    assert _status(instance, run_id) is dg.DagsterRunStatus.FAILURE
    monkeypatch.setattr(automation, "RETRY_SECONDS", -1)
    instance.report_run_canceled(instance.get_run_by_id(run_id))
    assert look_again() == []


@pytest.mark.parametrize(("blocking", "runs"), [(True, 0), (False, 1)])
def test_a_run_that_a_blocking_check_ended_has_done_its_work(asked: Any, blocking: bool, runs: int) -> None:
    look_again, instance = asked

    @dg.asset(check_specs=[dg.AssetCheckSpec("holds", asset="one", blocking=True)])
    def one() -> Iterator[Any]:
        if not blocking:
            raise OSError("no space left on device")
        yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False, check_name="holds")])

    defs = dg.Definitions([one], jobs=[dg.define_asset_job(automation.JOB)])
    job = defs.resolve_job_def(automation.JOB)
    assert not job.execute_in_process(instance=instance, tags=BY_SENSOR, raise_on_error=False).success
    assert len(look_again()) == runs


# ---------------------------------------------------------------- end to end


@contextmanager
def dagster_dev(project: Project, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The UI with its daemon, as `profile-pipeline ui` starts it; its whole process group ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "DAGSTER_HOME": str(dagster_home(project)), "DAGSTER_DISABLE_TELEMETRY": "1",
        "PROFILE_RULES": str(project.rules), "PROFILE_DATA": str(project.data),
    }  # fmt: skip
    dagster = str(Path(sys.executable).with_name("dagster"))
    command = [dagster, "dev", "-m", "profile_pipeline.definitions", "-h", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        running = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield running
        finally:
            os.killpg(running.pid, signal.SIGTERM)
            time.sleep(2)
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


@pytest.mark.slow
def test_a_dropped_file_is_published_without_a_human(tmp_path: Path) -> None:
    with quick_folder() as folder:
        project = write_rules(folder, LINKED)
        (project.rules / "publication.yaml").write_text(
            "{automation: true, inbox_seconds: 5}", encoding="utf-8"
        )
        people = [f"c{n},Ann,Lee,,p{n}@mail.org,,,,,active,2026-03-01T00:00:00Z\n" for n in range(100)]
        first = [
            Row("crm", tuple(zip(HEADER.strip().split(","), line.strip().split(","), strict=True)))
            for line in people[:50]
        ]
        deliver(project, first, "1")
        assert run_graph(load_config(project.rules), project, Options()).success
        with instance_of(project) as instance:
            killed = dead_run(instance, project)  # would fill the only place in the queue for ever
            assert instance.get_run_record_by_id(killed)
        _backdate(project, killed)
        with dagster_dev(project, tmp_path / "dev.log") as running:
            _wait_until_up(project, running, tmp_path / "dev.log")
            drop(project, "crm_2.csv", content=HEADER + "".join(people[50:]))
            deadline = time.monotonic() + 150
            while (publish.current(project) or pytest.fail("nothing live")).number < 2:
                assert running.poll() is None, _told(tmp_path / "dev.log")
                assert time.monotonic() < deadline, _told(tmp_path / "dev.log")
                time.sleep(0.5)
        live = publish.current(project)
        assert live
        assert live.profile_count == 100
        with instance_of(project) as instance:
            assert _status(instance, killed) is dg.DagsterRunStatus.FAILURE


def _told(log: Path) -> str:
    """What the log has to say, without the looks that found nothing and the steps that went well."""
    dull = ("Checking for new", "skipped: ", " - DEBUG - ")
    said = [line for line in log.read_text().splitlines() if not any(part in line for part in dull)]
    failed = [line for line in log.read_text().splitlines() if "FAILURE" in line or "failed" in line]
    return "\n".join([*said, *failed])[-6000:]


def _backdate(project: Project, run_id: str) -> None:
    """The run began an hour ago."""
    import sqlite3

    with sqlite3.connect(dagster_home(project) / "history" / "runs.db") as con:
        con.execute("update runs set start_time = start_time - 3600 where run_id = ?", [run_id])
    con.close()


def _wait_until_up(project: Project, running: subprocess.Popen[bytes], log: Path) -> None:
    """The daemon has looked at the empty inbox once."""
    deadline = time.monotonic() + 120
    while True:
        with instance_of(project) as instance:
            if any(state.instigator_name == "inbox" for state in instance.all_instigator_state()):
                return
        assert running.poll() is None, _told(log)
        assert time.monotonic() < deadline, _told(log)
        time.sleep(1)
