"""Assets of the metrics stage: where every row went, and the counts that the dashboards read."""

from functools import partial

import dagster as dg
from duckdb import DuckDBPyConnection

from profile_pipeline import metrics, runs
from profile_pipeline.config.load import Config
from profile_pipeline.defs import checks
from profile_pipeline.defs.tables import key_of, table_step
from profile_pipeline.metrics.build import READS

FATES = "metrics.row_fates"
PROFILES = "metrics.profiles"
COUNTS = {
    PROFILES: "Profiles by kind and number of records, every day.",
    "metrics.snapshots": "Profiles, identifiers and what happened to ids, after every batch.",
    "metrics.policies": "Completeness of profiles and conflicts under every merge policy, after every batch.",
    "metrics.dates": "Every day with the day whose counts hold on it.",
    "metrics.namespaces": "Profiles by namespace, every day.",
    "metrics.namespace_overlaps": "Profiles by exact combination of namespaces, every day.",
    "metrics.audiences": "Size of every audience, every day.",
    "metrics.audience_namespaces": "Members of every audience by namespace, every day.",
    "metrics.audience_namespace_overlaps": "Members of every audience by exact combination of namespaces, every day.",
    "metrics.audience_overlaps": "Members that two audiences share, every day.",
    "metrics.fields": "Completeness, different values and conflicts of every field under every policy, every day.",
    "metrics.survivorship": "Values that each source gave, by field and policy, every day.",
    "metrics.sources": "What each source brought, when, and to how many profiles, every day.",
    "metrics.source_overlaps": "Profiles by exact combination of sources, every day.",
    "metrics.unknown_profiles": "Pseudonymous profiles by how long nothing was heard of them, every day.",
    "metrics.match_weights": "Scored pairs by match weight, every day.",
    "metrics.cluster_sizes": "Clusters by number of nodes, every day.",
    "metrics.links": "Links by kind, every day.",
    "metrics.blocks": "Blocks of records that were compared, by blocking rule, every day.",
    "metrics.destinations": "Who gets files.",
    "metrics.destination_audiences": "Which audience goes where.",
    "metrics.deliveries": "What was delivered until the profiles were counted.",
}


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
            memberships_wait=False,
        ),
        table_step(
            config,
            COUNTS,
            lambda con: metrics.build_profile_facts(con, config),
            deps=READS,
            numbers=runs.spelling_numbers,
            checks=[
                checks.spec(
                    key_of(PROFILES), "counts_agree", "all counts of a day add up to the same profiles"
                )
            ],
            results=_agreement,
            memberships_wait=False,
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


def _agreement(con: DuckDBPyConnection) -> list[dg.AssetCheckResult]:
    wrong = metrics.disagreements(con)
    return [
        checks.fact(
            key_of(PROFILES),
            "counts_agree",
            passed=not wrong,
            critical=False,
            why="; ".join(wrong),
            disagreements=len(wrong),
        )
    ]
