"""Dagster's history: quick to write, and without runs that ended without a word.

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
