"""Generated worlds for measurements: delivered once, loaded once, copied for every measurement."""

import itertools
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import PACKAGE_RULES, Project
from profile_pipeline.generate import generate
from profile_pipeline.raw import intake, ledger
from profile_pipeline.records import current, events, staging
from profile_pipeline.warehouse import connect, count, rows, run_lock

RECORDS_A_PERSON = 2.66
"""Of the generated world, measured."""
SEED = 7


def world_at(folder: Path) -> Project:
    """The demo's rules over the data in a folder."""
    return Project(rules=PACKAGE_RULES, data=folder)


def prepare(folder: Path, people: int, *, with_events: bool = True) -> int:
    """Deliver and load a world up to current records, unless that was done before; the number of records."""
    project = world_at(folder)
    config = load_config(project.rules)
    if not (folder / "truth" / "labels.parquet").exists():
        generate(folder, people, SEED)
        if not with_events:
            _drop_events(project, config)
    with run_lock(project.state), connect(project.database) as con:
        done = rows(con, "select count(*) from information_schema.tables where table_schema = 'records'"
                    " and table_name in ('current', 'events', 'event_subjects')")  # fmt: skip
        if done != [(3,)]:
            ledger.scan(con, config, project, datetime.now(UTC))
            for name in config.sources:
                intake.load_source(con, config, project, name)
                staging.stage_source(con, config, name)
            current.build_current(con, config)
            events.build_events(con, config)
        return count(con, "records.current")


def _drop_events(project: Project, config: Config) -> None:
    """Matching is about records; identities that are known from events only would not be there for others."""
    events_only = [s for name, s in config.event_sources.items() if name not in config.record_sources]
    for source, folder in itertools.product(events_only, project.deliveries):
        for delivery in folder.glob(source.files):
            delivery.unlink()


def copied(project: Project, target: Path) -> Project:
    """The same project with a copy of its warehouse in another folder; deliveries are not copied."""
    copy = Project(rules=project.rules, data=target)
    copy.state.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(project.database, copy.database)
    os.sync()  # gigabytes on their way to the disk would be part of what is measured next
    return copy


def forget_identity(con: DuckDBPyConnection) -> None:
    """Leave records only: a world that was matched before would be taken in as a change, under its old model."""
    con.execute("drop schema identity cascade")
    con.execute("create schema identity")
    con.execute("delete from state.built where starts_with(name, 'identity.')")
