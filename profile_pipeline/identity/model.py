"""The matching model: trained once without labels, stored, and used unchanged until it is trained again.

Training follows the rules measured for Splink: u from random pairs, m by expectation maximisation over two or
three blocking rules that leave the other comparisons free (Fellegi and Sunter 1969; Winkler 1988 for EM).
"""

import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity.comparisons import settings
from profile_pipeline.identity.features import build_features, match_fields
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

if TYPE_CHECKING:
    from splink import Linker

FEWEST_RECORDS = 100
"""Below this, expectation maximisation has too little to learn from: the starting values stay."""
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
    records = scalar(work, "select count(*) from features")
    manifest: dict[str, Any] = {
        "records": records, "capped_blocks": capped, "sessions": [], "frequencies": _term_frequencies(work, wanted),
    }  # fmt: skip
    if not wanted["comparisons"] or records < FEWEST_RECORDS:
        return wanted, {**manifest, "note": f"fewer than {FEWEST_RECORDS} records: starting values kept"}
    with quiet_splink():
        linker = make_linker(work, wanted)
        _estimate_prior(linker, config)
        linker.training.estimate_u_using_random_sampling(
            max_pairs=config.identity.matching.max_training_pairs, seed=1
        )
        for rule in training_rules(config):
            manifest["sessions"].append([rule, _maximise(linker, rule, config)])
        return linker.misc.save_model_to_json(), manifest


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


@contextmanager
def quiet_splink() -> Generator[None]:
    """Splink's progress notes are for notebooks; its warnings could quote column contents."""
    import warnings

    loggers = [logging.getLogger(name) for name in ("splink", "splink.internals")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def make_linker(work: DuckDBPyConnection, wanted: dict[str, Any]) -> "Linker":
    """A Splink linker over the `features` table of the scratch database."""
    from splink import DuckDBAPI, Linker

    api = DuckDBAPI(connection=work)
    return Linker(
        api.register(work.table("features"), dataset_display_name="match_records"), wanted, log_level=40
    )


def _estimate_prior(linker: "Linker", config: Config) -> None:
    """Share of random pairs that match, from rules that are nearly always right and find about 70 %."""
    fields = set(match_fields(config))
    if "full" in fields:
        fields |= {"given", "family"}
    candidates = [
        (
            {"given", "family", "birth_date"},
            "l.given = r.given and l.family = r.family and l.birth_date = r.birth_date",
        ),
        ({"email", "family"}, "l.email = r.email and l.family = r.family"),
        ({"phone", "given"}, "l.phone = r.phone and l.given = r.given"),
        ({"national_id"}, "l.national_id = r.national_id"),
        ({"given", "family", "street"}, "l.given = r.given and l.family = r.family and l.street = r.street"),
    ]
    rules = [sql for needs, sql in candidates if needs <= fields]
    if rules:
        linker.training.estimate_probability_two_random_records_match(rules, recall=0.7)


def training_rules(config: Config) -> list[str]:
    """Blocking rules for EM: each leaves most comparisons free; what it blocks on is learned by another."""
    fields = set(match_fields(config))
    if "full" in fields:
        fields |= {"given", "family"}
    candidates = [
        ({"given", "family"}, "l.given = r.given and l.family = r.family"),
        ({"birth_date"}, "l.birth_date = r.birth_date"),
        ({"email"}, "l.email = r.email"),
        ({"phone"}, "l.phone = r.phone"),
        ({"national_id"}, "l.national_id = r.national_id"),
        ({"street", "postcode"}, "l.street = r.street and l.postcode = r.postcode"),
    ]
    found = [sql for needs, sql in candidates if needs <= fields]
    return found[:3]


def _maximise(linker: "Linker", rule: str, config: Config) -> str:
    from splink.internals.exceptions import EMTrainingException

    try:
        linker.training.estimate_parameters_using_expectation_maximisation(
            rule, max_pairs=config.identity.matching.max_training_pairs, fix_u_probabilities=True
        )
    except EMTrainingException:
        return "no pairs to learn from"
    return "done"


def register_frequencies(work: DuckDBPyConnection, linker: "Linker", model: Model, database: str) -> None:
    """Give Splink the term frequencies of the model, so that a score never depends on other records."""
    if not table_exists_in(work, database, "identity", "term_frequencies"):
        return
    fields = rows(
        work,
        f"select distinct field from {database}.identity.term_frequencies where model_id = ?",
        [model.model_id],
    )
    for (field,) in sorted(fields):
        work.execute(
            f"create or replace table frozen_{field} as select value as {quote(field)}, frequency as tf_{field}"
            f" from {database}.identity.term_frequencies where model_id = '{model.model_id}' and field = '{field}'"
        )
        frame = linker._db_api.register(work.table(f"frozen_{field}"))  # noqa: SLF001  no public way in 5.0
        linker.table_management.register_term_frequency_lookup(frame, field)


def table_exists_in(con: DuckDBPyConnection, database: str, schema: str, table: str) -> bool:
    """Whether a table exists in an attached database."""
    return bool(
        scalar(
            con,
            "select count(*) from duckdb_tables() where database_name = ? and schema_name = ? and table_name = ?",
            [database, schema, table],
        )
    )


def has_model(con: DuckDBPyConnection) -> bool:
    """Whether a model was trained before."""
    return table_exists(con, "identity.models") and built(con, "identity.model") is not None
