"""The assets that others depend on: the live generation on disk, and the members of audiences ahead of it."""

from datetime import timedelta

import dagster as dg

from profile_pipeline import memberships, publish, runs
from profile_pipeline.audiences.build import NAME
from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.defs import checks
from profile_pipeline.defs.resources import Warehouse
from profile_pipeline.defs.tables import key_of, readable_errors

GENERATION, MEMBERSHIPS = "published.generation", "published.memberships"


def assets(config: Config, project: Project) -> list[dg.AssetsDefinition]:
    """The published generation, downstream of every check, and ahead of it who is in which audience."""
    return [_memberships(project), _generation(config, project)]


def _memberships(project: Project) -> dg.AssetsDefinition:
    @dg.asset(
        key=key_of(MEMBERSHIPS),
        deps=[key_of(NAME)],
        group_name="published",
        description="Who is in which audience now, ahead of the generation: a Parquet file and a manifest behind a `current`"
        " pointer of its own.",
        kinds={"parquet"},
    )
    def published_memberships(warehouse: Warehouse) -> dg.MaterializeResult:
        with readable_errors(), warehouse.get_connection() as con:
            live = memberships.publish(con, project)
        return dg.MaterializeResult(
            metadata={
                "batch": live.manifest["batch"] or 0,
                "folder": dg.MetadataValue.path(str(live.folder)),
                "dagster/row_count": sum(live.manifest["audiences"].values()),
                **{f"members_{name}": size for name, size in live.manifest["audiences"].items()},
            }
        )

    return published_memberships


def _generation(config: Config, project: Project) -> dg.AssetsDefinition:
    key = key_of(GENERATION)
    hours = config.publication.fresh_within_hours
    upstream = ["profiles.unified", "profiles.lineage", "profiles.identifiers", "profiles.events", "profiles.computed",
                "audiences.membership", "metrics.row_fates", "metrics.profiles", "identity.membership", "identity.relationships",
                "identity.review_queue",
                "records.quarantine"]  # fmt: skip

    @dg.asset(
        key=key,
        deps=[key_of(name) for name in upstream],
        group_name="published",
        description="What analysts read: an immutable folder with profiles.duckdb, Parquet, dictionary and manifest;"
        " the `current` pointer moves only after every blocking check has passed.",
        kinds={"duckdb", "parquet"},
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(hours=hours), warn_window=timedelta(hours=hours * 0.9)
        ),
        check_specs=[
            checks.spec(key, "files_match_manifest", "every published file has the bytes of its manifest")
        ],
    )
    def generation(warehouse: Warehouse) -> dg.MaterializeResult:
        with readable_errors(), warehouse.get_connection() as con:
            live = publish.publish(con, config, project, runs.check_counts(con, config))
            memberships.publish(con, project)  # others than before where this generation ends a rollback
        damaged = publish.verify(live)
        return dg.MaterializeResult(
            metadata={
                "generation": live.number,
                "folder": dg.MetadataValue.path(str(live.folder)),
                "dagster/row_count": live.manifest["tables"]["profiles"]["rows"],
                "bytes": sum(entry["bytes"] for entry in live.manifest["files"].values()),
            },
            check_results=[
                checks.fact(
                    key, "files_match_manifest", passed=not damaged, critical=True, files=len(damaged)
                )
            ],
        )

    return generation
