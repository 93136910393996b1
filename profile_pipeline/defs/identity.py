"""Assets of the identity stage: nodes, model, edges, clusters, and the ledger of profile ids."""

from functools import partial

import dagster as dg
from duckdb import DuckDBPyConnection
from pydantic import Field

from profile_pipeline import decisions, laws, profile_ids, review, runs
from profile_pipeline.config.load import Config
from profile_pipeline.defs import checks
from profile_pipeline.defs.tables import key_of, table_step
from profile_pipeline.identity import clusters, edges, features, model, nodes, relationships

CLUSTERS, MEMBERSHIP = "identity.clusters", "identity.membership"


class TrainingOptions(dg.Config):
    """What may vary from run to run."""

    retrain: bool = Field(default=False, description="train a new model; every pair is scored afresh")


class ScoringOptions(dg.Config):
    """What may vary from run to run."""

    threshold: float | None = Field(
        default=None, description="match weight of a link; empty: as the rules say"
    )


class LedgerOptions(dg.Config):
    """What may vary from run to run."""

    approve: bool = Field(
        default=False, description="write changes of profile ids that exceed the limits of `churn:`"
    )


def assets(config: Config) -> list[dg.AssetsDefinition]:
    """From nodes to persistent ids."""
    return [
        _nodes(config),
        _features(config),
        _model(config),
        _edges(config),
        _clusters(config),
        _ledger(config),
        _relationships(config),
        _review(config),
    ]


def _nodes(config: Config) -> dg.AssetsDefinition:
    return table_step(
        config,
        {
            "identity.nodes": "Everything that can be linked: source records and identities seen in events.",
            "identity.identifiers": "Identifiers of all nodes.",
            "identity.generic_values": "Identifiers shared by too many disagreeing people: they link nobody.",
        },
        lambda con: nodes.build_nodes(con, config),
        deps=["records.current", "records.identifiers", "records.event_subjects"],
        numbers=runs.node_numbers,
    )


def _features(config: Config) -> dg.AssetsDefinition:
    return table_step(
        config,
        {"identity.features": "What matching compares: one row a matched record, generic values left out."},
        lambda con: features.build_features(con, config),
        deps=["records.current", "identity.generic_values"],
    )


def _model(config: Config) -> dg.AssetsDefinition:
    def build(con: DuckDBPyConnection, options: TrainingOptions) -> None:
        model.ensure_model(con, config, retrain=options.retrain)

    return table_step(
        config,
        {
            "identity.models": "Splink models, trained without labels; the active one scores until it is trained again."
        },
        build,
        deps=["identity.features"],
        options=TrainingOptions,
        kinds=("splink", "duckdb"),
        numbers=runs.model_numbers,
    )


def _edges(config: Config) -> dg.AssetsDefinition:
    def build(con: DuckDBPyConnection, options: ScoringOptions) -> None:
        edges.build_edges(con, runs.with_threshold(config, options.threshold))

    return table_step(
        config,
        {
            "identity.edges": "Pairs that share a strong identifier, and scored pairs; accepted ones are links.",
            "identity.blocking_keys": "Which records are compared with which: those that share a key.",
            "identity.components": "Nodes that links hold together, before limits and contradictions.",
        },
        build,
        deps=[
            "identity.nodes",
            "identity.identifiers",
            "identity.generic_values",
            "identity.features",
            "identity.models",
        ],
        options=ScoringOptions,
        kinds=("splink", "duckdb"),
        numbers=runs.edge_numbers,
    )


def _clusters(config: Config) -> dg.AssetsDefinition:
    key = key_of(CLUSTERS)
    return table_step(
        config,
        {
            CLUSTERS: "Nodes that are one person, in this run.",
            "identity.cut_links": "Links that do not hold: they would break a limit, or other records of both contradict them.",
            "identity.attachments": "Identities known from events only that joined the one holder of their identifier.",
        },
        lambda con: clusters.build_clusters(con, config),
        deps=["identity.edges"],
        numbers=runs.cluster_numbers,
        checks=[
            checks.spec(
                key,
                "limits_hold",
                "no cluster holds more identifiers of a namespace than allowed",
                blocking=True,
            ),
            checks.spec(
                key,
                "decided_apart",
                "no cluster joins what a steward decided is not one person",
                blocking=True,
            ),
            checks.spec(key, "nothing_cut", "no link had to be cut to keep a limit"),
        ],
        results=partial(_cluster_results, key=key, config=config),
    )


def _cluster_results(
    con: DuckDBPyConnection, *, key: dg.AssetKey, config: Config
) -> list[dg.AssetCheckResult]:
    broken, cut = laws.broken_limits(con, config), runs.cut_links(con)
    joined = laws.joined_against_decisions(con)
    return [
        checks.fact(
            key, "limits_hold", passed=not broken, critical=True, clusters=broken,
            why="a single record holds more identifiers of a unique namespace than identity.yaml allows",
        ),
        checks.fact(
            key, "decided_apart", passed=not joined, critical=True, pairs=joined,
            why="this is a fault of the program: please report it",
        ),
        checks.fact(
            key, "nothing_cut", passed=not cut, critical=False, links=cut,
            why="profiles around cut links are kept and flagged; see identity.cut_links",
        ),
    ]  # fmt: skip


def _ledger(config: Config) -> dg.AssetsDefinition:
    key = key_of(MEMBERSHIP)

    def build(con: DuckDBPyConnection, options: LedgerOptions) -> None:
        profile_ids.assign_profile_ids(con, config, approve=options.approve)

    return table_step(
        config,
        {
            MEMBERSHIP: "Which record belongs to which profile, from and to which ledger revision, and why.",
            "identity.registry": "Every profile id ever given, active or retired.",
            "identity.redirects": "Where retired ids lead.",
            "identity.profile_events": "What happened to profile ids, append-only.",
            "identity.pending_changes": "What waits for approval: changes of profile ids beyond the limits of `churn:`.",
        },
        build,
        deps=[CLUSTERS],
        options=LedgerOptions,
        numbers=runs.ledger_numbers,
        checks=[
            checks.spec(
                key, "one_profile_a_record", "every node has exactly one active profile", blocking=True
            ),
            checks.spec(key, "redirects_end", "every redirect ends at an active profile", blocking=True),
            checks.spec(
                key,
                "churn_within_limits",
                "no more profile ids change than `churn:` of identity.yaml allows",
                blocking=True,
            ),
        ],
        results=partial(_ledger_results, key=key),
    )


def _ledger_results(con: DuckDBPyConnection, *, key: dg.AssetKey) -> list[dg.AssetCheckResult]:
    over = profile_ids.pending(con)
    advice = "look at `profile-pipeline ids pending`, then `profile-pipeline run --approve`"
    found = [
        checks.fact(key, name, passed=not n, critical=True, rows=n)
        for name, n in laws.ledger_problems(con).items()
    ]
    why = "; ".join([*over, advice]) if over else ""
    return [*found, checks.fact(key, "churn_within_limits", passed=not over, critical=True, why=why)]


def _relationships(config: Config) -> dg.AssetsDefinition:
    return table_step(
        config,
        {
            "identity.relationships": "Values that several profiles share and that merge nobody: households,"
            " shared devices, shared contacts."
        },
        lambda con: relationships.build_relationships(con, config),
        deps=[MEMBERSHIP, "identity.identifiers", "records.event_subjects"],
        numbers=runs.relationship_numbers,
        memberships_wait=False,
    )


def _review(config: Config) -> dg.AssetsDefinition:
    key = key_of("identity.review_queue")
    return table_step(
        config,
        {"identity.review_queue": "Questions for a data steward: doubtful pairs, those of most value first."},
        lambda con: review.build_review_queue(con, config),
        deps=[CLUSTERS, MEMBERSHIP],
        numbers=review.numbers,
        checks=[
            checks.spec(
                key,
                "decisions_agree",
                "no two records decided different are the same by a chain of decisions",
            ),
            checks.spec(key, "decisions_kept", "profiles follow every decision on records that are there"),
        ],
        results=partial(_review_results, key=key),
        memberships_wait=False,
    )


def _review_results(con: DuckDBPyConnection, *, key: dg.AssetKey) -> list[dg.AssetCheckResult]:
    clashing, broken = len(decisions.contradictions(con)), decisions.broken(con)
    return [
        checks.fact(
            key, "decisions_agree", passed=not clashing, critical=False, pairs=clashing,
            why="some decisions cannot all be true; `profile-pipeline review check` names them",
        ),
        checks.fact(
            key, "decisions_kept", passed=not broken, critical=False, pairs=len(broken),
            why="some decisions would break a limit or contradict each other; `profile-pipeline review check` names them",
        ),
    ]  # fmt: skip
