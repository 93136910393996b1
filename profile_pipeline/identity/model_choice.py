"""Which model scores: train another one on the present records, on trial or for good, or go back to an earlier one.

The next run scores with the active model; nothing is scored here.
"""

from contextlib import nullcontext
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.identity.comparisons import settings
from profile_pipeline.identity.model import Model, active_model, ensure_model, rules_fingerprint
from profile_pipeline.identity.model_report import (
    Figures,
    ModelDifference,
    changed_parts,
    compare,
    figures,
    find_model,
)
from profile_pipeline.warehouse import (
    fingerprint,
    mark_built,
    rolled_back,
    scalar,
    scrubbed,
    table_exists,
    transaction,
)

MOST_REASONS = 5
"""Differences from the present rules that a refusal names; the first say enough."""


@dataclass(frozen=True)
class Trained:
    """A model just trained; what differs from the one before, or None when it is the first."""

    model_id: str
    figures: Figures
    difference: ModelDifference | None


def train(con: DuckDBPyConnection, config: Config, *, keep: bool) -> Trained:
    """Train on the present records; `keep=False` leaves the warehouse as it was."""
    if not config.identity.matching.enabled:
        raise PipelineError("identity.yaml: `matching.enabled` is false, so there is no model to train")
    if not table_exists(con, "identity.features"):
        raise PipelineError("no records to learn from yet; `profile-pipeline run` takes deliveries in")
    with nullcontext() if keep else rolled_back(con):
        before = active_model(con) if table_exists(con, "identity.models") else None
        _train(con, config)
        model = find_model(con)
        difference = compare(con, before.model_id, model.model_id) if before else None
        return Trained(model.model_id, figures(model), difference)


def _train(con: DuckDBPyConnection, config: Config) -> None:
    try:
        ensure_model(con, config, retrain=True)
    except PipelineError:
        raise
    except Exception as error:
        raise scrubbed(error) from None  # any library may quote data in its message


def use_model(con: DuckDBPyConnection, config: Config, wanted: str) -> Model:
    """Make a stored model the active one; refused when it was trained for other rules than the present ones."""
    model = find_model(con, wanted)
    reasons = misfits(con, config, model)
    if reasons:
        raise PipelineError(
            f"model {model.model_id} was trained for other rules than the present ones:\n"
            + "\n".join(f"  {reason}" for reason in _first(reasons))
            + "\nbring those rules back, or train anew: profile-pipeline model train"
        )
    with transaction(con):
        con.execute("update identity.models set active = (model_id = ?)", [model.model_id])
        mark_built(con, "identity.model", fingerprint(model.settings))
    return model


def _first(reasons: list[str]) -> list[str]:
    more = len(reasons) - MOST_REASONS
    return [*reasons[:MOST_REASONS], f"and {more} more"] if more > 0 else reasons


def misfits(con: DuckDBPyConnection, config: Config, model: Model) -> list[str]:
    """Why a model does not fit the present rules, in words; empty when it does."""
    rules = scalar(con, "select rules from identity.models where model_id = ?", [model.model_id])
    if rules == rules_fingerprint(config):
        return []
    present = Model("present rules", settings(config), {})
    learned = Model(model.model_id, model.settings, {})
    said = {
        "added": "new in the rules",
        "removed": "no longer in the rules",
        "redefined": "has another condition now",
    }
    parts = changed_parts(learned, present)
    # training leaves out blocking rules that find next to nothing: one that a model lacks is no reason
    reasons = [
        f"{p.part} {p.name}: {said[p.change]}"
        for p in parts
        if (p.part, p.change) != ("blocking rule", "added")
    ]
    return reasons or [
        "the normaliser, the target precision, the largest block or starting values changed since"
    ]
