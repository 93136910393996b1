"""What starts runs without a human: a schedule, the inbox sensor, and a sensor that notes failures."""

import json
import time
from datetime import UTC, datetime

import dagster as dg

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.config.publication import SETTLED_SECONDS
from profile_pipeline.defs.history import close_dead_runs, undone_run
from profile_pipeline.errors import BusyError
from profile_pipeline.raw.ledger import deliveries, settled
from profile_pipeline.warehouse import fingerprint, run_lock

JOB, MEMBERSHIP_JOB = "refresh_profiles", "refresh_memberships"
ONLY_SETTLED = {"ops": {"raw__files": {"config": {"settled_seconds": SETTLED_SECONDS}}}}
"""Run configuration: another file of the inbox may still be arriving."""
TRIGGER, MAKES_UP = "trigger", "made up"
"""Tag of a run that the inbox sensor asked for; its value where the run makes up for one that failed."""
RETRY_SECONDS = 60.0
"""A run that could not do its work is made up for after this time."""
STARTING_SECONDS = 120
"""A run that has begun takes the project's lock within this time."""


def schedule(config: Config) -> dg.ScheduleDefinition:
    """The full refresh at the time of publication.yaml."""
    rules = config.publication
    status = dg.DefaultScheduleStatus.RUNNING if rules.automation else dg.DefaultScheduleStatus.STOPPED
    return dg.ScheduleDefinition(
        job_name=JOB, cron_schedule=rules.schedule, execution_timezone=rules.timezone, default_status=status
    )


def inbox_sensor(config: Config, project: Project) -> dg.SensorDefinition:
    """Runs the graph when a file that a source claims is dropped into the inbox, and once more after a run that failed.

    A run that a schedule or this sensor started can die with its process, be interrupted, or find the disk full; what it was
    started for would wait for the next one. Dagster's own run retries begin at once, into the same trouble, and either leave
    out every run that a step ended or repeat those that a blocking check ended.
    """
    status = (
        dg.DefaultSensorStatus.RUNNING if config.publication.automation else dg.DefaultSensorStatus.STOPPED
    )

    @dg.sensor(
        name="inbox",
        job_name=JOB,
        minimum_interval_seconds=config.publication.inbox_seconds,
        default_status=status,
        description="A settled file in data/inbox starts a run; files already seen do not. Makes up once for a run that failed.",
    )
    def inbox(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        busy = run_in_progress(project)
        if not busy:
            close_dead_runs(context.instance, older_than=STARTING_SECONDS)
        seen = json.loads(context.cursor or "{}")
        waiting = settled_files(config, project)
        if any(seen.get(name) != mark for name, mark in waiting.items()):
            key, trigger = fingerprint(waiting), "inbox"
        elif undone := _to_make_up_for(context.instance):
            key, trigger = f"{MAKES_UP} for {undone}", MAKES_UP
        else:
            return dg.SkipReason("nothing new in the inbox")
        if busy:
            return dg.SkipReason("another run holds the project; the files wait for the next look")
        request = dg.RunRequest(run_key=key, run_config=ONLY_SETTLED, tags={TRIGGER: trigger})
        return dg.SensorResult(run_requests=[request], cursor=json.dumps(waiting))

    return inbox


def _to_make_up_for(instance: dg.DagsterInstance) -> str | None:
    """The run that failed and is started once more. What fails twice is for a human."""
    undone = undone_run(instance, JOB, before=time.time() - RETRY_SECONDS)
    return undone.run_id if undone and undone.tags.get(TRIGGER) != MAKES_UP else None


def settled_files(config: Config, project: Project, seconds: float = SETTLED_SECONDS) -> dict[str, str]:
    """Claimed files of the inbox that nobody has written to for so long, with size and time of change."""
    if not project.inbox.exists():
        return {}
    found, _ = deliveries(config, project)
    return {
        item.name: f"{item.size_bytes}:{item.modified_ns}"
        for item in found
        if item.path.is_relative_to(project.inbox) and settled(project, item, seconds)
    }


def run_in_progress(project: Project) -> bool:
    """Whether a run, started from wherever, holds the project now."""
    try:
        with run_lock(project.state):
            return False
    except BusyError:
        return True


def failure_sensor(config: Config, project: Project) -> dg.SensorDefinition:
    """Appends a line to state/failures.jsonl for every failed run: a place for alerts to look at."""
    status = (
        dg.DefaultSensorStatus.RUNNING if config.publication.automation else dg.DefaultSensorStatus.STOPPED
    )

    @dg.run_failure_sensor(
        name="failures",
        default_status=status,
        description="Notes every failed run in data/state/failures.jsonl.",
    )
    def failures(context: dg.RunFailureSensorContext) -> None:
        steps = [event.step_key for event in context.get_step_failure_events()]
        line = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "run_id": context.dagster_run.run_id,
            "job": context.dagster_run.job_name,
            "steps": steps,
        }
        project.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (project.state / "failures.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    return failures
