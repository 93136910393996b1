"""Crash safety: processes killed at random moments, a full disk, and a reader that looks on all the while.

Workers are forked from this process after everything is imported, so that a kill costs a second; a few kills hit
the real command. A kill is aimed at a step: the worker tells when it opens the warehouse for one, and dies some
part of that step's usual time later, or at its end when it is quicker than usual.
"""

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import duckdb
import pytest

from profile_pipeline import publish
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project, project_at
from profile_pipeline.defs import resources
from profile_pipeline.defs.run import Options, instance_of, run_graph
from profile_pipeline.display import STAGES
from profile_pipeline.errors import PipelineError
from profile_pipeline.generate import generate
from profile_pipeline_tests.worlds import (
    DEMO_RULES,
    LINKED,
    REPOSITORY,
    command,
    copy_tree,
    deliver,
    files_below,
    parquet_hashes,
    quick_folder,
    run_and_publish,
    warehouse_of,
    write_rules,
)

AS_OF = "2026-04-01T00:00:00+00:00"
LATER = "2026-04-02T00:00:00+00:00"
CHAINS = 3


# ---------------------------------------------------------------- workers


@dataclass
class Worker:
    """A forked process that runs the graph and writes a byte whenever a step opens (o) or closes (c) the warehouse."""

    pid: int
    signs: int

    def next_sign(self) -> bytes:
        return os.read(self.signs, 1)

    def wait(self) -> int:
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.signs)
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def start(project: Project, as_of: str, until: int | None = None) -> Worker:
    """Fork a worker, which stops and waits at the end of step `until`; it never returns into the test."""
    signs, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tell)
        return Worker(pid, signs)
    code = 70
    try:
        os.close(signs)
        _announce(tell, until)
        result = run_graph(load_config(project.rules), project, Options(as_of=as_of))
        code = 0 if result.success else 1
    finally:
        os._exit(code)


def _announce(tell: int, until: int | None) -> None:
    opened = resources.Warehouse.get_connection
    steps = count()

    @contextmanager
    def announced(self: resources.Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
        step = next(steps)
        os.write(tell, b"o")
        with opened(self) as con:
            yield con
            if step == until:
                signal.pause()
        os.write(tell, b"c")

    resources.Warehouse.get_connection = announced  # this process is a throw-away


def complete(project: Project, as_of: str) -> None:
    """Run to the end in a worker."""
    worker = start(project, as_of)
    while worker.next_sign():
        pass
    assert worker.wait() == 0


@dataclass
class Course:
    """Steps of a run in order, as stage and seconds."""

    stages: list[str]
    seconds: list[float]


def measure(project: Project, as_of: str) -> Course:
    """An uninterrupted run."""
    worker, opened, seconds = start(project, as_of), 0.0, []
    while sign := worker.next_sign():
        if sign == b"o":
            opened = time.monotonic()
        else:
            seconds.append(time.monotonic() - opened)
    assert worker.wait() == 0
    with instance_of(project) as instance:
        [record] = instance.get_run_records(limit=1)
        steps = list(instance.get_run_step_stats(record.dagster_run.run_id))
    stages = [s.step_key.split("__")[0] for s in sorted(steps, key=lambda s: s.start_time or 0.0)]
    assert len(stages) == len(seconds), "one opening a step"
    assert set(stages) == set(STAGES)
    return Course(stages, seconds)


def kill_inside(project: Project, as_of: str, course: Course, step: int, part: float) -> None:
    """Kill a run when `part` of the usual time of a step has passed since it opened the warehouse."""
    worker = start(project, as_of, until=step)
    opened = 0
    while opened <= step and (sign := worker.next_sign()):
        opened += sign == b"o"
    time.sleep(course.seconds[step] * part)
    worker.kill()
    assert worker.wait() == -signal.SIGKILL, f"the run never came to step {step} ({course.stages[step]})"


def steps_of(course: Course, stage: str) -> list[int]:
    return [n for n, own in enumerate(course.stages) if own == stage]


# ---------------------------------------------------------------- worlds


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """Import what a run needs once, so that workers start with it."""
    import great_expectations  # noqa: F401
    import splink  # noqa: F401


@dataclass
class Reference:
    """What uninterrupted runs publish: after the first deliveries, and after the second."""

    fresh: Path
    finished: Project
    first: dict[str, str]
    second: dict[str, str]
    course: Course
    later_course: Course


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with quick_folder() as found:
        yield found


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    generate(folder / "fresh" / "data", 150, 3)
    copy_tree(DEMO_RULES, folder / "fresh" / "rules")
    later = folder / "fresh" / "later"
    later.mkdir()
    for path in sorted((folder / "fresh" / "data" / "sources").glob("*_2026-0[23]-*")):
        path.rename(later / path.name)
    finished = project_at(copy_tree(folder / "fresh", folder / "finished"))
    course = measure(finished, AS_OF)
    first = hashes(finished)
    after = project_at(copy_tree(folder / "finished", folder / "after"))
    bring_later(after)
    later_course = measure(after, LATER)
    return Reference(folder / "fresh", finished, first, hashes(after, *OF_DELIVERIES), course, later_course)


def bring_later(project: Project) -> None:
    """The second deliveries."""
    for path in sorted((project.rules.parent / "later").iterdir()):
        path.rename(project.data / "sources" / path.name)


OF_DELIVERIES = {"metrics_deliveries", "metrics_destinations", "metrics_destination_audiences"}
"""They count what was delivered before: a run that was killed behind its publication may have delivered, or not."""


def hashes(project: Project, *without: str) -> dict[str, str]:
    live = publish.current(project)
    assert live
    assert publish.verify(live) == []
    return {file: digest for file, digest in parquet_hashes(live).items() if Path(file).stem not in without}


def assert_tidy(project: Project) -> None:
    """Nothing with data in it stays behind: no spill, no scratch database, no half generation."""
    assert [p.name for p in files_below(project.state / "tmp")] == []
    names = {p.name for p in project.state.iterdir()}
    assert names <= {"warehouse.duckdb", "tmp", ".lock", "failures.jsonl"}, names
    unfinished = [p.name for p in project.published.iterdir() if p.name.startswith(".")]
    assert unfinished == []


# ---------------------------------------------------------------- kills


@pytest.mark.slow
def test_two_uninterrupted_runs_publish_the_same_bytes(folder: Path, reference: Reference) -> None:
    """Without it the comparisons below would prove nothing."""
    project = project_at(copy_tree(reference.fresh, folder / "twin"))
    complete(project, AS_OF)
    assert hashes(project) == reference.first


@pytest.mark.slow
@pytest.mark.parametrize("chain", range(CHAINS))
def test_runs_killed_inside_every_stage_end_as_if_nothing_had_happened(
    folder: Path, reference: Reference, chain: int
) -> None:
    dice = random.Random(chain)
    project = project_at(copy_tree(reference.fresh, folder / f"chain{chain}"))
    course = reference.course
    for stage in STAGES:
        kill_inside(project, AS_OF, course, dice.choice(steps_of(course, stage)), dice.random())
        assert publish.current(project) is None or stage in ("published", "shared")
    complete(project, AS_OF)
    assert hashes(project) == reference.first
    assert_tidy(project)


@pytest.mark.slow
def test_a_killed_refresh_never_shows_readers_a_partial_state(folder: Path, reference: Reference) -> None:
    dice = random.Random(99)
    project = project_at(copy_tree(reference.finished.rules.parent, folder / "refreshed"))
    bring_later(project)
    course = reference.later_course
    with reader(project) as seen:
        for stage in STAGES:
            kill_inside(project, LATER, course, dice.choice(steps_of(course, stage)), dice.random())
        complete(project, LATER)
        assert hashes(project, *OF_DELIVERIES) == reference.second
        time.sleep(0.5)
    assert seen.problems == []
    assert seen.reads > 20
    assert sorted(seen.generations) == list(range(1, max(seen.generations) + 1))
    assert max(seen.generations) >= 2
    assert_tidy(project)
    with instance_of(project) as instance:
        under_way = [r for r in instance.get_run_records() if not r.dagster_run.is_finished]
    assert under_way == [], "a killed run would block the queue of the daemon"


@pytest.mark.slow
def test_the_real_command_killed_at_random_moments(folder: Path, reference: Reference) -> None:
    dice = random.Random(7)
    project = project_at(copy_tree(reference.fresh, folder / "real"))
    for _ in range(3):
        running = subprocess.Popen(
            command(project, "run", "--quiet", "--as-of", AS_OF),
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not _holder_is(project, running.pid) and running.poll() is None:
            time.sleep(0.02)
        time.sleep(dice.random() * sum(reference.course.seconds))
        running.kill()
        assert running.wait() == -signal.SIGKILL
    done = subprocess.run(
        command(project, "run", "--quiet", "--as-of", AS_OF),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert hashes(project) == reference.first
    assert_tidy(project)


def _holder_is(project: Project, pid: int) -> bool:
    lock = project.state / ".lock"
    return lock.exists() and f"process {pid}," in lock.read_text(encoding="utf-8")


# ---------------------------------------------------------------- readers


@dataclass
class Seen:
    """What a reader saw."""

    reads: int = 0
    generations: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


@contextmanager
def reader(project: Project) -> Iterator[Seen]:
    """Reads what is live over and over, each time from one look at the pointer, in a process of its own."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom profile_pipeline_tests.test_crash import read_once\n"
        "for line in sys.stdin:\n    print(read_once(Path(sys.argv[1])), flush=True)\n"
    )
    import sys

    process = subprocess.Popen(
        [sys.executable, "-c", script, str(project.published)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    seen, done = Seen(), threading.Event()

    def loop() -> None:
        assert process.stdin
        assert process.stdout
        while not done.is_set():
            process.stdin.write("\n")
            process.stdin.flush()
            number, _, problem = process.stdout.readline().strip().partition(" ")
            seen.reads += 1
            if problem or not number.isdecimal():
                seen.problems.append(f"{number} {problem}")
                return
            seen.generations.add(int(number))
            time.sleep(0.1)

    watcher = threading.Thread(target=loop)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()
        process.communicate()


def read_once(published: Path) -> str:
    """The number of the generation, and what did not fit together in it."""
    import json

    folder = (published / "current").resolve(strict=True)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        with duckdb.connect(str(folder / publish.DATABASE), read_only=True) as con:
            for name, entry in manifest["tables"].items():
                for source in (name, f"'{folder / name}.parquet'"):
                    [(found,)] = con.execute(f"select count(*) from {source}").fetchall()
                    if found != entry["rows"]:
                        return f"{manifest['generation']} {source}: {found} rows, not {entry['rows']}"
        if folder.name != f"gen-{manifest['generation']:06d}":
            return f"{manifest['generation']} {folder.name} holds another manifest"
        damaged = publish.verify(publish.Generation(manifest["generation"], folder, manifest))
        return f"{manifest['generation']} {','.join(damaged)}".strip()
    except Exception as error:  # whatever a reader meets is what the test is about
        return f"0 {type(error).__name__}: {error}"


def test_the_reader_notices_a_mixture(tmp_path: Path) -> None:
    """The test of the test: a generation with a table of another one, or without a file, is a problem."""
    project = write_rules(tmp_path, LINKED)
    deliver(project, [], "1")
    generation = run_and_publish(project)
    assert read_once(project.published) == "1"
    file = generation.folder / "profile_history.parquet"
    file.write_bytes((generation.folder / "audiences.parquet").read_bytes())
    assert "profile_history.parquet" in read_once(project.published)
    file.unlink()
    assert read_once(project.published).startswith("0 ")


# ---------------------------------------------------------------- full disk


def test_a_disk_full_while_publishing_leaves_no_half_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: DuckDB's and our own writes fail with ENOSPC after some files are there."""
    from profile_pipeline_tests.test_pipeline import customer

    project = write_rules(tmp_path, LINKED)
    deliver(project, [customer(n) for n in range(20)], "1")
    run_and_publish(project)
    before = publish.current(project)
    deliver(project, [customer(n) for n in range(20, 40)], "2")
    real = Path.write_text

    def full(self: Path, *arguments: object, **options: object) -> int:
        if self.name == "dictionary.md":
            raise OSError(28, "No space left on device")
        return real(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        result = run_graph(load_config(project.rules), project, Options(as_of=LATER))
    assert not result.success
    assert "No space left on device" in result.failure
    assert "\n" not in result.failure
    assert publish.current(project) == before
    assert [g.number for g in publish.generations(project)] == [1]
    assert run_graph(load_config(project.rules), project, Options(as_of=LATER)).success
    live = publish.current(project)
    assert live
    assert (live.number, live.profile_count) == (2, 40)
    assert_tidy(project)
    names = sorted(p.name for p in project.published.iterdir())
    assert names == ["current", "gen-000001", "gen-000002", "memberships"]


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of a few megabytes; skips where none may be mounted."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_real_disk_that_is_full_while_publishing(tmp_path: Path) -> None:
    from profile_pipeline_tests.test_pipeline import customer

    project = write_rules(tmp_path, LINKED)
    deliver(project, [customer(n) for n in range(20)], "1")
    run_and_publish(project)
    deliver(project, [customer(n) for n in range(20, 40)], "2")
    first = tmp_path / "first"
    project.published.rename(first)
    with small_disk(tmp_path / "disk", 64) as disk:
        project.published.symlink_to(disk)
        copy = copy_tree(first, disk / "kept")
        for path in copy.iterdir():
            path.rename(disk / path.name)
        copy.rmdir()
        before = publish.current(project)
        assert before
        filler = disk / "filler"
        with filler.open("wb") as file:
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            file.write(b"x" * max(0, free - 300_000))
        with pytest.raises((PipelineError, duckdb.Error, OSError)):
            run_and_publish(project)
        assert publish.current(project) == before
        assert publish.verify(before) == []
        assert [g.number for g in publish.generations(project)] == [1]
        filler.unlink()
        assert run_and_publish(project).number == 2
        with warehouse_of(project):
            pass
