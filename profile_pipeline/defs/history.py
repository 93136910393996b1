"""Dagster's history: quick to write, without runs that ended without a word, and asked for what did not get done.

A killed process leaves its run `started` in the history for ever.
"""

import sqlite3
import time
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

SILENT = "its process ended without a word (killed, out of memory, or the machine went down); the next run makes up for it"
AUTOMATION = ("dagster/sensor_name", "dagster/schedule_name")
"""Tags of runs that no human asked for."""
UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def close_dead_runs(instance: dg.DagsterInstance, *, older_than: float = 0.0) -> int:
    """Mark runs under way as failed; only the holder of the project's lock knows that they cannot be alive.

    `older_than`, in seconds, spares a run that has begun and is about to take the lock. One dead run would fill
    the queue's only place, and nothing would be launched any more. Returns the number of runs closed.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY))
    dead = [record for record in records if time.time() - (record.start_time or 0.0) > older_than]
    for record in dead:
        instance.report_run_failed(record.dagster_run, SILENT)
    return len(dead)


def undone_run(instance: dg.DagsterInstance, job_name: str, *, before: float) -> dg.DagsterRun | None:
    """The newest run of a job, where automation started it and it had failed before a time (seconds since 1970).

    None also when all that stopped it were blocking checks: it did its work, and would do the same again.
    """
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name), limit=1)
    if not records or (records[0].end_time or before) >= before:
        return None
    run = records[0].dagster_run
    failed = run.status is dg.DagsterRunStatus.FAILURE
    by_hand = run.tags.keys().isdisjoint(AUTOMATION)
    return run if failed and not by_hand and not _only_blocked(instance, run.run_id) else None


def _only_blocked(instance: dg.DagsterInstance, run_id: str) -> bool:
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    failures = [entry.dagster_event for entry in entries if entry.dagster_event]
    return bool(failures) and all(blocked(failure) for failure in failures)


def blocked(failure: dg.DagsterEvent) -> bool:
    """Whether a step failed because a blocking check did not hold; the check itself says why."""
    error = failure.step_failure_data.error
    return error is not None and error.cls_name == "DagsterAssetCheckFailedError"


@contextmanager
def quick_history(folder: Path) -> Generator[None]:
    """Let Dagster write the history below a folder without waiting for the disk at each of its thousands of events.

    It opens and closes a file for every event, and the last one to close a file copies its journal and waits for the disk:
    somebody has to keep it open. Commits do not wait either: when the machine loses power the newest events can be
    missing, and no more than that.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    with ExitStack() as kept:
        held: set[Path] = set()

        def opened(connection: Any, _: object) -> None:  # noqa: ANN401
            if not isinstance(connection, sqlite3.Connection):
                return
            path = Path(connection.execute("pragma database_list").fetchone()[2])
            if folder.resolve() not in path.resolve().parents:
                return
            connection.execute("pragma synchronous = normal")
            if path not in held:
                held.add(path)
                own = kept.enter_context(closing(sqlite3.connect(path, check_same_thread=False)))
                own.execute("select count(*) from sqlite_master").fetchall()  # opens it

        event.listen(Engine, "connect", opened)
        kept.callback(event.remove, Engine, "connect", opened)
        yield
