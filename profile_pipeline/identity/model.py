"""The matching model: trained once without labels, stored, and used unchanged until it is trained again.

A model is two plain Splink settings: one person against strangers, and one household against strangers (in
the manifest). `training` finds their values, `edges` scores with both.
"""

import json
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity.comparisons import settings
from profile_pipeline.identity.features import build_features, match_fields, usable_rules
from profile_pipeline.identity.training import train
from profile_pipeline.records import normalise
from profile_pipeline.warehouse import (
    built,
    database_name,
    fingerprint,
    mark_built,
    quote,
    rows,
    scalar,
    scratch,
    table_exists,
    transaction,
)

FEWEST_RECORDS = 4
"""Below this nothing can be learned: the starting values stay."""
TABLES = """
create table if not exists identity.models (
    model_id text primary key, trained_as_of timestamptz, rules text, settings json, manifest json, active boolean);
create table if not exists identity.term_frequencies (model_id text, field text, value text, frequency double);
"""


@dataclass(frozen=True)
class Model:
    """The active model: Splink settings with trained parameters, and how it was trained."""

    model_id: str
    settings: dict[str, Any]
    manifest: dict[str, Any]


def rules_fingerprint(config: Config) -> str:
    """Changes whenever a model trained before would not fit the rules any more."""
    return fingerprint(normalise.VERSION, settings(config))


def active_model(con: DuckDBPyConnection) -> Model | None:
    """The model that scores, or None before the first training."""
    found = rows(con, "select model_id, settings, manifest from identity.models where active")
    return Model(found[0][0], json.loads(found[0][1]), json.loads(found[0][2])) if found else None


def ensure_model(con: DuckDBPyConnection, config: Config, *, retrain: bool = False) -> None:
    """Train when there is no model for these rules, or when asked to; the result depends on records only."""
    con.execute(TABLES)
    if not config.identity.matching.enabled:
        return
    rules = rules_fingerprint(config)
    fitting = scalar(con, "select count(*) from identity.models where active and rules = ?", [rules])
    if fitting and not retrain:
        return
    with scratch(con) as work:
        trained, manifest = _train(work, config, database_name(con))
        with transaction(con):
            _store(con, trained, manifest, rules)
            mark_built(con, "identity.model", fingerprint(trained))


def _store(con: DuckDBPyConnection, trained: dict[str, Any], manifest: dict[str, Any], rules: str) -> None:
    model_id = fingerprint(trained, manifest["frequencies"])[:12]
    frequencies = manifest.pop("frequencies")
    con.execute("update identity.models set active = false")
    con.execute("delete from identity.models where model_id = ?", [model_id])
    con.execute("delete from identity.term_frequencies where model_id = ?", [model_id])
    as_of = scalar(con, "select max(as_of) from raw.batches")
    con.execute(
        "insert into identity.models values (?, ?, ?, ?, ?, true)",
        [model_id, as_of, rules, json.dumps(trained), json.dumps(manifest)],
    )
    for field in frequencies:
        con.execute(
            f"insert into identity.term_frequencies select ?, ?, {quote(field)}, tf from scratch.main.tf_{field}",
            [model_id, field],
        )


def _train(work: DuckDBPyConnection, config: Config, database: str) -> tuple[dict[str, Any], dict[str, Any]]:
    capped = build_features(work, config, database)
    wanted = settings(config)
    manifest: dict[str, Any] = {
        "records": scalar(work, "select count(*) from features"),
        "capped_blocks": capped,
        "frequencies": _term_frequencies(work, wanted),
        "household": None,
    }
    if not wanted["comparisons"] or manifest["records"] < FEWEST_RECORDS:
        return wanted, {**manifest, "note": "nothing to learn from: starting values kept"}
    weak = {rule.name for rule in usable_rules(set(match_fields(config))) if rule.weak}
    person, household, notes = train(work, wanted, config.identity.matching.max_training_pairs, weak)
    return person, {**manifest, **notes, "household": household}


def _term_frequencies(work: DuckDBPyConnection, wanted: dict[str, Any]) -> list[str]:
    """Relative frequency of each value among filled ones, frozen with the model as tables tf_<field>."""
    levels = [level for comparison in wanted["comparisons"] for level in comparison["comparison_levels"]]
    fields = sorted({level["tf_adjustment_column"] for level in levels if "tf_adjustment_column" in level})
    for field in fields:
        work.execute(
            f"create or replace table tf_{field} as select {quote(field)},"
            f" count(*) / sum(count(*)) over () as tf from features where {quote(field)} is not null group by 1"
        )
    return fields


def has_model(con: DuckDBPyConnection) -> bool:
    """Whether a model was trained before."""
    return table_exists(con, "identity.models") and built(con, "identity.model") is not None
