"""The matching model: trained once without labels, stored, and used unchanged until it is trained again.

A model is two plain Splink settings: one person against strangers, and one household against strangers (in
the manifest). `training` finds their values, `edges` scores with both.
"""

import json
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity.blocking import BlockingRule, full_caps, project_rules
from profile_pipeline.identity.comparisons import settings
from profile_pipeline.identity.linker import frequency_fields
from profile_pipeline.identity.training import expected_quality, score_sample, train
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
BUNDLE_VERSION = 2
"""Changes when a bundle of an older version would not mean the same any more."""
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

    @property
    def threshold(self) -> float:
        """The match weight above which a pair is a link, chosen in training."""
        return self.manifest.get("threshold", 0.0)

    def rules(self, config: Config) -> list[BlockingRule]:
        """The derived blocking rules in use, in the order of their numbers."""
        return [rule for rule in project_rules(config) if rule.name in self.manifest["caps"]]


def rules_fingerprint(config: Config) -> str:
    """Changes whenever a model trained before would not fit the rules any more."""
    matching = config.identity.matching
    return fingerprint(
        normalise.VERSION, settings(config), matching.target_precision, matching.max_block, BUNDLE_VERSION
    )


def active_model(con: DuckDBPyConnection) -> Model | None:
    """The model that scores, or None before the first training."""
    found = rows(con, "select model_id, settings, manifest from identity.models where active")
    return Model(found[0][0], json.loads(found[0][1]), json.loads(found[0][2])) if found else None


def model_of(con: DuckDBPyConnection, model_id: str) -> Model | None:
    """A stored model, active or not; None when it is no longer kept."""
    found = rows(con, "select settings, manifest from identity.models where model_id = ?", [model_id])
    return Model(model_id, json.loads(found[0][0]), json.loads(found[0][1])) if found else None


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
            f"insert into identity.term_frequencies select ?, ?, * from scratch.main.frozen_{field}",
            [model_id, field],
        )


def _train(work: DuckDBPyConnection, config: Config, database: str) -> tuple[dict[str, Any], dict[str, Any]]:
    work.execute(f"create or replace view features as select * from {database}.identity.features")
    wanted, rules = settings(config), project_rules(config)
    matching = config.identity.matching
    manifest: dict[str, Any] = {
        "records": scalar(work, "select count(*) from features"),
        "frequencies": _term_frequencies(work, wanted),
        "caps": full_caps(rules, matching.max_block),
        "household": None,
        "threshold": 0.0,
    }
    if not wanted["comparisons"] or manifest["records"] < FEWEST_RECORDS:
        return wanted, {**manifest, "note": "nothing to learn from: starting values kept"}
    trained = train(work, wanted, rules, matching.max_training_pairs, matching.max_block)
    score_sample(work, trained)
    quality = expected_quality(work, matching.target_precision)
    found = {"household": trained.household, "caps": trained.caps, **trained.notes, **quality}
    return trained.settings, {**manifest, **found}


def _term_frequencies(work: DuckDBPyConnection, wanted: dict[str, Any]) -> list[str]:
    """Relative frequency of each value among filled ones, frozen with the model as tables frozen_<field>."""
    fields = frequency_fields(wanted)
    for field in fields:
        work.execute(
            f"create or replace table frozen_{field} as select {quote(field)},"
            f" count(*) / sum(count(*)) over () as tf_{field} from features where {quote(field)} is not null group by 1"
        )
    return fields


def has_model(con: DuckDBPyConnection) -> bool:
    """Whether a model was trained before."""
    return table_exists(con, "identity.models") and built(con, "identity.model") is not None
