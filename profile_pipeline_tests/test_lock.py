"""One run at a time: the lock says who holds it, is free when its holder dies, and is re-entrant inside a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import dagster as dg
import pytest
from typer.testing import CliRunner

from profile_pipeline.cli import app
from profile_pipeline.cli.shell import BUSY
from profile_pipeline.defs.resources import Warehouse
from profile_pipeline.errors import BusyError
from profile_pipeline.warehouse import connect, run_lock
from profile_pipeline_tests.worlds import LINKED, REPOSITORY, run_command, write_rules

HOLDER = """
import sys, time
from pathlib import Path
from profile_pipeline.warehouse import connect, run_lock
with run_lock(Path(sys.argv[1])):
    if sys.argv[2] == "open":
        opened = connect(Path(sys.argv[1]) / "warehouse.duckdb")
        opened.__enter__()
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(state: Path, how: str = "lock") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the project's lock."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state), how], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def test_a_second_run_ends_with_one_line_and_exit_code_75(tmp_path: Path) -> None:
    project = write_rules(tmp_path, LINKED)
    (project.data / "sources").mkdir(parents=True)
    with held_elsewhere(project.state) as holder:
        done = run_command(project, "run")
        assert done.returncode == BUSY == 75
        assert done.stdout.strip() == ""
        [line] = done.stderr.strip().splitlines()
        assert line.startswith("busy: another run holds this project (process ")
        assert f"process {holder.pid}, since " in line
    assert not project.database.exists()
    assert not project.published.exists()


def test_a_run_of_the_daemon_waits_for_a_page_or_a_sensor_that_only_looks(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as looking:
        Timer(2, looking.kill).start()
        run = Warehouse(database=str(tmp_path / "warehouse.duckdb"))
        with dg.build_resources({"warehouse": run}):
            assert looking.poll() is not None
            _assert_held(tmp_path)


def test_a_run_of_the_command_line_waits_too(tmp_path: Path) -> None:
    project = write_rules(tmp_path, LINKED)
    (project.data / "sources").mkdir(parents=True)
    with held_elsewhere(project.state) as looking, ThreadPoolExecutor() as beside:
        run = beside.submit(run_command, project, "run")
        with pytest.raises(TimeoutError):
            run.result(timeout=3)
        looking.kill()
        assert run.result().returncode != BUSY


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["batch", "list"],
        ["batch", "revert", "1", "--yes"],
        ["publish", "rollback", "--yes"],
        ["quarantine", "list"],
    ],
)
def test_every_command_that_needs_the_warehouse_is_busy_too(tmp_path: Path, arguments: list[str]) -> None:
    project = write_rules(tmp_path, LINKED)
    with connect(project.database):
        pass
    with held_elsewhere(project.state):
        started = time.monotonic()
        result = CliRunner().invoke(app, [*arguments, "--project", str(tmp_path)])
        assert result.exit_code == BUSY, result.output
        assert time.monotonic() - started < 10


def test_the_lock_is_free_after_kill_9(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "open") as holder:
        with pytest.raises(BusyError), run_lock(tmp_path):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with run_lock(tmp_path), connect(tmp_path / "warehouse.duckdb") as con:
            assert con.execute("select 1").fetchall() == [(1,)]


def test_a_warehouse_that_is_open_without_the_lock_is_busy_and_not_a_traceback(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "open"):
        with pytest.raises(BusyError) as told, connect(tmp_path / "warehouse.duckdb"):
            pass
        assert str(told.value) == "warehouse.duckdb is open in another process; try again later"


def test_the_lock_is_reentrant_and_let_go_only_by_the_outermost(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        with run_lock(tmp_path):
            _assert_held(tmp_path)
        _assert_held(tmp_path)
    with held_elsewhere(tmp_path):
        pass


def test_the_lock_is_let_go_after_an_error_inside(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path), run_lock(tmp_path):
        raise ZeroDivisionError
    with held_elsewhere(tmp_path):
        pass


def test_the_lock_of_one_project_leaves_others_alone(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "one"), run_lock(tmp_path / "two"):
        pass


def test_two_names_of_one_folder_are_one_lock(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with held_elsewhere(tmp_path / "real"), pytest.raises(BusyError), run_lock(tmp_path / "link"):
        pass


def _assert_held(state: Path) -> None:
    attempt = (
        "import sys; from pathlib import Path; from profile_pipeline.warehouse import run_lock;"
        " run_lock(Path(sys.argv[1])).__enter__()"
    )
    done = subprocess.run(
        [sys.executable, "-c", attempt, str(state)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "BusyError: another run holds this project" in done.stderr
