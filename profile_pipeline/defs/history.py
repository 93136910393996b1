"""Runs that ended without a word: a killed process leaves its run `started` in Dagster's history for ever."""

import time

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
