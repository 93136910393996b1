"""Runs the graph of a project in this process, recorded in the project's Dagster history.

The command line uses it, so that it and the Dagster UI run the same graph and show the same runs.
"""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.defs.automation import JOB
from profile_pipeline.defs.graph import build_definitions
from profile_pipeline.defs.history import blocked, close_dead_runs, quick_history
from profile_pipeline.warehouse import RUN_PATIENCE, run_lock

Progress = Callable[[str, int, int], None]
"""Told the stage, its finished steps and its steps."""
POLL_SECONDS = 0.2
WORKSPACE = "workspace.yaml"
PUBLISHING = "published__generation"
"""The step that makes a generation live."""


@dataclass(frozen=True)
class Options:
    """What a run may be asked for, as on the Launchpad."""

    as_of: str = ""
    accept_volume_change: bool = False
    rebuild: bool = False
    retrain: bool = False
    approve: bool = False
    threshold: float | None = None
    settled_seconds: float = 0.0

    def as_run_config(self) -> dict[str, Any]:
        """The same choices as Dagster run configuration."""
        intake = {
            "as_of": self.as_of,
            "accept_volume_change": self.accept_volume_change,
            "rebuild": self.rebuild,
            "settled_seconds": self.settled_seconds,
        }
        scoring = {} if self.threshold is None else {"threshold": self.threshold}
        return {
            # events go to the history; what the terminal shows is the caller's choice
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            "ops": {
                "raw__files": {"config": intake},
                "identity__models": {"config": {"retrain": self.retrain}},
                "identity__edges": {"config": scoring},
                "identity__membership": {"config": {"approve": self.approve}},
            },
        }


@dataclass(frozen=True)
class FailedCheck:
    """A check that did not hold."""

    asset: str
    name: str
    blocking: bool
    why: str


@dataclass(frozen=True)
class Result:
    """How a run ended: `failure` is one line when a step could not do its work, `published` whether that was a delivery."""

    success: bool
    run_id: str
    failure: str = ""
    failed_checks: list[FailedCheck] = field(default_factory=list)
    published: bool = True


@contextmanager
def instance_of(project: Project) -> Generator[dg.DagsterInstance]:
    """The project's Dagster history under data/dagster, with telemetry off."""
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    home = dagster_home(project)
    with quick_history(home), dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def dagster_home(project: Project) -> Path:
    """The folder of the project's Dagster history, with dagster.yaml and workspace.yaml as in the repository's root."""
    home = project.data / "dagster"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "storage": {"sqlite": {"base_dir": str(home)}},
        "compute_logs": {
            "module": "dagster._core.storage.local_compute_log_manager",
            "class": "LocalComputeLogManager",
            "config": {"base_dir": str(home / "compute_logs")},
        },
        "concurrency": {"runs": {"max_concurrent_runs": 1}},
    }
    location = {
        "python_module": {"module_name": "profile_pipeline.definitions", "location_name": "profile_pipeline"}
    }
    # JSON is YAML
    (home / "dagster.yaml").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    (home / WORKSPACE).write_text(json.dumps({"load_from": [location]}, indent=1), encoding="utf-8")
    return home


def run_graph(
    config: Config, project: Project, options: Options, progress: Progress | None = None, *, name: str = JOB
) -> Result:
    """Run every asset of a job once; blocking checks that fail leave what was published before live.

    Raises BusyError when another process runs the project.
    """
    definitions = build_definitions(config, project)
    job = definitions.resolve_job_def(name)
    with run_lock(project.state, patience=RUN_PATIENCE), instance_of(project) as instance:
        close_dead_runs(instance)
        run_id = dg.DagsterRun(job_name=name).run_id
        with _reporting(instance, run_id, _steps_by_stage(job), progress):
            outcome = job.execute_in_process(
                run_config=options.as_run_config(), instance=instance, run_id=run_id, raise_on_error=False
            )
    declared = [
        spec
        for asset in definitions.assets or []
        if isinstance(asset, dg.AssetsDefinition)
        for spec in asset.check_specs
    ]
    blocking = {spec.key for spec in declared if spec.blocking}
    failed = [
        FailedCheck(
            e.asset_key.to_user_string(), e.check_name, e.asset_check_key in blocking, e.description or ""
        )
        for e in outcome.get_asset_check_evaluations()
        if not e.passed
    ]
    return Result(outcome.success, run_id, _failure(outcome), failed, _published(outcome))


def _published(outcome: dg.ExecuteInProcessResult) -> bool:
    """Whether the live generation is this run's; deliveries behind it may fail."""
    return any(event.is_step_success and event.step_key == PUBLISHING for event in outcome.all_events)


def _failure(outcome: dg.ExecuteInProcessResult) -> str:
    """Why a step, or the run around the steps, could not do its work; a check that blocks is no such failure."""
    failures = [event for event in outcome.all_events if event.is_step_failure]
    for step in (event.step_failure_data for event in failures if not blocked(event)):
        told = step.user_failure_data and step.user_failure_data.description
        return (told or (step.error.message if step.error else "")).strip()
    return "" if failures else _run_failure(outcome)


def _run_failure(outcome: dg.ExecuteInProcessResult) -> str:
    for event in outcome.all_events:
        if event.is_run_failure and event.message:
            error = getattr(event.event_specific_data, "error", None)
            while error and error.cause:
                error = error.cause
            return (error.message if error else event.message).strip()
    return ""


def _steps_by_stage(job: dg.JobDefinition) -> Counter[str]:
    return Counter(node.name.split("__")[0] for node in job.nodes)


@contextmanager
def _reporting(
    instance: dg.DagsterInstance, run_id: str, steps: Counter[str], progress: Progress | None
) -> Generator[None]:
    """Tell `progress` about finished steps while the run goes on in the main thread."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            report(instance, run_id, steps, progress)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        report(instance, run_id, steps, progress)


def report(instance: dg.DagsterInstance, run_id: str, steps: Counter[str], progress: Progress) -> None:
    """Count the finished steps of each stage from the run's events."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)
    finished = Counter((entry.step_key or "").split("__")[0] for entry in events)
    for stage, total in steps.items():
        progress(stage, finished[stage], total)
