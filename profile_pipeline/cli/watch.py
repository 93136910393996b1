"""`watch`: micro-batches. Runs the graph as soon as a file is there, in a process that has everything loaded."""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import typer

from profile_pipeline import display
from profile_pipeline.cli.shell import ProjectFolder, chosen, console, errors, plain_errors, show_failure
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.config.publication import SETTLED_SECONDS
from profile_pipeline.errors import BusyError, PipelineError


def watch(
    project: ProjectFolder = None,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 1.0,
    generation_minutes: Annotated[
        float,
        typer.Option(
            help="Write a generation at most this often; memberships are published after every file.", min=0
        ),
    ] = 0.0,
    settled: Annotated[
        float,
        typer.Option(
            help="Seconds without a change after which a file is whole; 0 where files are moved in.", min=0
        ),
    ] = SETTLED_SECONDS,
    runs: Annotated[int | None, typer.Option(help="End after so many runs; default: never.", min=1)] = None,
) -> None:
    """Run whenever a file is dropped into the inbox, until interrupted; the runs are in the Dagster UI as all others.

    Python, Dagster and Great Expectations are loaded once and not for each run: most of a small batch's time.
    """
    with plain_errors():
        where = chosen(project)
        load_config(where.rules)
        _load()
        display.line(console, f"Watching {where.inbox}. Ctrl+C ends.")
        with suppress(KeyboardInterrupt):
            _watch(Watch(where, generation_minutes * 60, settled), every, runs)


def _load() -> None:
    """Load what takes long to load before there is anything to do."""
    from profile_pipeline import quality

    quality.load()


def _watch(state: "Watch", every: float, runs: int | None) -> None:
    """Look, run where there is something to do, and tell of mistakes once."""
    told, left = "", runs
    while left is None or left > 0:
        try:
            if state.step():
                told, left = "", left and left - 1
                continue
        except BusyError:
            pass  # the files wait until the other run has ended
        except PipelineError as error:
            if str(error) != told:
                errors.print(f"[red]error:[/] {display.plain(str(error))}", highlight=False, soft_wrap=True)
            told = str(error)
        time.sleep(every)


RETRY_SECONDS = 60.0
"""After a run that could not do its work the same files wait for so long; another file starts a run at once."""


@dataclass
class Watch:
    """What was seen in the inbox, when a generation was last due and a run last failed (seconds of a monotonic clock)."""

    project: Project
    generation_seconds: float
    settled_seconds: float = SETTLED_SECONDS
    seen: dict[str, str] = field(default_factory=dict)
    generation_at: float = -1e9
    behind: bool = False
    failed: dict[str, str] | None = None
    failed_at: float = -1e9

    def step(self) -> bool:
        """Run when a settled file is new or changed, or when a generation is behind and due; whether there was a run."""
        from profile_pipeline.defs.automation import JOB, MEMBERSHIP_JOB, settled_files

        waiting = settled_files(load_config(self.project.rules), self.project, self.settled_seconds)
        fresh = any(self.seen.get(name) != mark for name, mark in waiting.items())
        due = time.monotonic() - self.generation_at >= self.generation_seconds
        if not fresh and not (self.behind and due):
            return False
        if waiting == self.failed and time.monotonic() - self.failed_at < RETRY_SECONDS:
            return False
        if _run(self.project, JOB if due else MEMBERSHIP_JOB, self.settled_seconds):
            self.seen, self.behind, self.failed = waiting, not due, None
            self.generation_at = time.monotonic() if due else self.generation_at
        else:
            self.failed, self.failed_at = waiting, time.monotonic()
        return True


def _run(project: Project, job: str, settled_seconds: float) -> bool:
    """One run, told in a line, after a line for each thing that held it up; whether every step could do its work."""
    from profile_pipeline import memberships, publish
    from profile_pipeline.defs.run import Options, run_graph

    begun = time.monotonic()
    options = Options(settled_seconds=settled_seconds)
    result = run_graph(load_config(project.rules), project, options, name=job)
    took = f"{datetime.now(UTC):%H:%M:%S} UTC, {time.monotonic() - begun:.1f} s"
    show_failure(result)
    members, live = memberships.live(project), publish.current(project)
    shown = [f"memberships of batch {members.manifest['batch']}"] if members else []
    shown += [f"generation {live.number} of batch {live.manifest['batch']}"] if live else []
    display.line(console, f"{took}. Live: {', '.join(shown) or 'nothing'}")
    return not result.failure
