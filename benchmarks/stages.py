"""The identity stage, step by step and timed: from current records to published profile ids."""

from duckdb import DuckDBPyConnection
from measured import Clock

from profile_pipeline import profile_ids
from profile_pipeline.config.load import Config
from profile_pipeline.identity import clusters, edges, features, model, nodes
from profile_pipeline.warehouse import transaction

LEDGER = ("identity.model", "identity.models", "identity.membership", "identity.registry")
"""What a rebuild keeps: the model that scores and the ledger of ids."""


def load_heavy_libraries() -> None:
    """So that loading Splink and what it needs is nobody's matching time."""
    import pandas as pd  # noqa: F401
    import scipy.sparse.csgraph  # noqa: F401
    import splink  # noqa: F401


def run_identity(con: DuckDBPyConnection, config: Config, clock: Clock, *, retrain: bool = False) -> None:
    """All steps up to profile ids; a step whose inputs did not change does nothing. No churn limit applies."""
    with clock.stage("nodes"):
        nodes.build_nodes(con, config)
        features.build_features(con, config)
    with clock.stage("model"):
        model.ensure_model(con, config, retrain=retrain)
    with clock.stage("edges"):
        edges.build_edges(con, config)
    with clock.stage("clusters"):
        clusters.build_clusters(con, config)
    with clock.stage("profile ids"):
        profile_ids.assign_profile_ids(con, config, approve=True)


def force_rebuild(con: DuckDBPyConnection) -> None:
    """Make the next run compute everything but the model afresh; ids are assigned over the ledger as it is."""
    kept = ", ".join(f"'{name}'" for name in LEDGER)
    with transaction(con):
        con.execute(f"delete from state.built where starts_with(name, 'identity.') and name not in ({kept})")
