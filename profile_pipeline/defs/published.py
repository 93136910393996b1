"""The asset that analysts depend on: the live generation on disk."""

from datetime import timedelta

import dagster as dg

from profile_pipeline import publish, runs
from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.defs import checks
from profile_pipeline.defs.resources import Warehouse
from profile_pipeline.defs.tables import key_of, readable_errors

GENERATION = "published.generation"


def assets(config: Config, project: Project) -> list[dg.AssetsDefinition]:
    """The published generation, downstream of every check."""
    key = key_of(GENERATION)
    hours = config.publication.fresh_within_hours
    upstream = ["profiles.unified", "profiles.lineage", "profiles.identifiers", "profiles.events", "profiles.computed",
                "audiences.membership", "metrics.row_fates", "metrics.profiles", "identity.membership", "identity.relationships",
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
            live = publish.publish(con, config, project, runs.check_counts(con))
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

    return [generation]
