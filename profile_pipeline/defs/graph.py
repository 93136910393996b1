"""Puts the graph of one project together; tests and the command line use it with their own project."""

import dagster as dg

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.defs import (
    audiences,
    automation,
    identity,
    metrics,
    profiles,
    published,
    raw,
    records,
    sharing,
)
from profile_pipeline.defs.resources import Warehouse
from profile_pipeline.defs.tables import key_of


def build_definitions(config: Config, project: Project) -> dg.Definitions:
    """Assets, checks, jobs, schedule and sensors of a project, run in one process."""
    project.inbox.mkdir(parents=True, exist_ok=True)
    job = dg.define_asset_job(
        automation.JOB,
        selection=dg.AssetSelection.all(),
        description="Take in what is new, resolve, merge, publish when something changed.",
    )
    membership_job = dg.define_asset_job(
        automation.MEMBERSHIP_JOB,
        selection=dg.AssetSelection.assets(key_of(published.MEMBERSHIPS))
        .upstream()
        .required_multi_asset_neighbors(),
        description="The same as far as memberships need it: no metrics, no generation, no deliveries.",
    )
    return dg.Definitions(
        assets=[
            *raw.assets(config, project),
            *records.assets(config),
            *identity.assets(config),
            *profiles.assets(config),
            *audiences.assets(config, project),
            *metrics.assets(config),
            *published.assets(config, project),
            *sharing.assets(config, project),
        ],
        jobs=[job, membership_job],
        schedules=[automation.schedule(config)],
        sensors=[automation.inbox_sensor(config, project), automation.failure_sensor(config, project)],
        resources={"warehouse": Warehouse(database=str(project.database), rules=str(project.rules))},
        # DuckDB has one writer and uses every core inside a step: more processes would only wait
        executor=dg.in_process_executor,
    )
