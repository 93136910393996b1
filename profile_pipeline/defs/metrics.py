"""Assets of the metrics stage: where every row went, and what the profiles look like."""

from functools import partial

import dagster as dg
from duckdb import DuckDBPyConnection

from profile_pipeline import metrics, runs
from profile_pipeline.config.load import Config
from profile_pipeline.defs import checks
from profile_pipeline.defs.tables import key_of, table_step

FATES = "metrics.row_fates"


def assets(config: Config) -> list[dg.AssetsDefinition]:
    """Run and quality facts."""
    key = key_of(FATES)
    return [
        table_step(
            config,
            {FATES: "The conservation law: every delivered row by what became of it."},
            partial(_fates, config=config),
            deps=["records.current", "records.events", "records.quarantine"],
            checks=[
                checks.spec(key, "conservation", "every delivered row has exactly one fate", blocking=True)
            ],
            results=partial(_conservation, key=key),
        ),
        table_step(
            config,
            {
                "metrics.profiles": "Profiles by kind and number of records.",
                "metrics.fields": "Completeness and conflicts of every field under every policy.",
                "metrics.audiences": "Size of every audience.",
            },
            lambda con: metrics.build_profile_facts(con, config),
            deps=["profiles.unified", "profiles.lineage", "audiences.membership", "identity.identifiers"],
            numbers=runs.spelling_numbers,
        ),
    ]


def _fates(con: DuckDBPyConnection, *, config: Config) -> None:
    metrics.build_row_fates(con, config)


def _conservation(con: DuckDBPyConnection, *, key: dg.AssetKey) -> list[dg.AssetCheckResult]:
    wrong = metrics.unbalanced(con)
    why = "; ".join(
        f"{source}, batch {batch}: {missing} rows unaccounted for" for source, batch, missing in wrong
    )
    return [checks.fact(key, "conservation", passed=not wrong, critical=True, why=why, batches=len(wrong))]
