"""One table of edges: deterministic (a shared strong identifier) and probabilistic (a Splink score).

Grain: one row a pair of nodes and type. Scores are kept down to a floor well below the threshold, so that
another threshold needs no new scoring. `accepted` edges are links.
"""

import json
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity.features import build_features
from profile_pipeline.identity.model import Model, active_model
from profile_pipeline.identity.scoring import EMPTY, score_candidates, score_closures
from profile_pipeline.warehouse import (
    built,
    database_name,
    facts,
    fingerprint,
    literal,
    mark_built,
    replace_table,
    rows,
    scalar,
    scratch,
    transaction,
    upstream,
)

EDGES = """create or replace table identity.edges (
    left_key text not null, right_key text not null, type text not null, namespace text, strength integer not null,
    match_weight double, match_probability double, evidence text, model_id text, accepted boolean not null)"""


def build_edges(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.edges when nodes, model or matching rules changed."""
    model = active_model(con)
    mark = fingerprint(
        upstream(con, ["identity.nodes", "identity.model"]),
        config.identity.model_dump(),
        model and model.model_id,
    )
    if built(con, "identity.edges") == mark:
        return
    with scratch(con) as work:
        database = database_name(con)
        _find_strong(work, config, database)
        noted = _score(work, config, model, database)
        with transaction(con):
            con.execute(EDGES)
            con.execute("insert into identity.edges select * from scratch.main.strong")
            _insert_probabilistic(con, model, noted["threshold"])
            mark_built(con, "identity.edges", mark, {**noted, **_expected_quality(con, noted["threshold"])})


def threshold_in_use(con: DuckDBPyConnection) -> float | None:
    """The match weight above which pairs are links, as last decided."""
    return facts(con, "identity.edges").get("threshold")


def _score(work: DuckDBPyConnection, config: Config, model: Model | None, database: str) -> dict[str, Any]:
    """Write `scored` into the scratch database; the threshold and what else is worth noting."""
    matching = config.identity.matching
    replace_table(work, "scored", EMPTY)
    if not (matching.enabled and model and model.settings["comparisons"]):
        return {"threshold": matching.threshold or 0.0, "capped_blocks": []}
    capped = build_features(work, config, database)
    records = scalar(work, "select count(*) from features")
    if records < 2 or not model.settings["blocking_rules_to_generate_predictions"]:
        return {"threshold": matching.threshold or 0.0, "capped_blocks": capped}
    score_candidates(work, model, matching.floor, database)
    threshold = _threshold(work, config)
    noted = {"threshold": threshold, "capped_blocks": capped}
    unfound = score_closures(work, model, threshold, database)
    return noted if unfound is None else {**noted, "unfound_weight": unfound}


def _threshold(work: DuckDBPyConnection, config: Config) -> float:
    """The lowest match weight at which the pairs above it are expected to reach the target precision.

    Expected precision is the mean match probability of the accepted pairs; a link is never less likely than not.
    """
    if config.identity.matching.threshold is not None:
        return config.identity.matching.threshold
    found = scalar(
        work,
        """with ordered as (
            select match_weight, avg(match_probability) over (order by match_weight desc, left_key, right_key
                rows unbounded preceding) as precision_above
            from scored where match_weight >= 0)
        select min(match_weight) from ordered where precision_above >= ?""",
        [config.identity.matching.target_precision],
    )
    return round(float(found), 6) if found is not None else 0.0


def _expected_quality(con: DuckDBPyConnection, threshold: float) -> dict[str, float | int | None]:
    [(precision, found, missed)] = rows(
        con,
        """select avg(match_probability) filter (where match_weight >= ?),
            sum(match_probability) filter (where match_weight >= ?),
            sum(match_probability) filter (where match_weight < ?)
        from identity.edges where type = 'probabilistic'""",
        [threshold] * 3,
    )
    recall = found / (found + (missed or 0)) if found else None
    return {"expected_precision": precision, "expected_recall_of_candidates": recall}


def _find_strong(work: DuckDBPyConnection, config: Config, database: str) -> None:
    """Write `strong`: nodes that share a value of a linking namespace, a star around the smallest key.

    Strength orders links when a constraint forces a choice: namespaces by priority, scores after them.
    """
    work.execute(EDGES.replace("identity.edges", "strong"))
    spaces = [(s.priority, name) for name, s in config.namespaces.items() if s.kind == "person" and s.link]
    for rank, (_, name) in enumerate(sorted(spaces)):
        work.execute(
            f"""insert into strong
            select hub, record_key, 'deterministic', namespace, {1000 - rank}, null, 1.0, null, null, true from (
                select record_key, namespace, value, min(record_key) over (partition by value) as hub
                from {database}.identity.identifiers where namespace = {literal(name)}
                and value not in (select value from {database}.identity.generic_values where namespace = {literal(name)}))
            where record_key <> hub"""
        )


def _insert_probabilistic(con: DuckDBPyConnection, model: Model | None, threshold: float) -> None:
    con.execute(
        """insert into identity.edges
        select left_key, right_key, 'probabilistic', null, 0, match_weight, match_probability, evidence, ?,
            match_weight >= ? from scratch.main.scored""",
        [model.model_id if model else None, threshold],
    )


def weight_histogram(con: DuckDBPyConnection) -> list[tuple[float, int]]:
    """Number of scored pairs by match weight, in steps of one."""
    return rows(
        con,
        "select floor(match_weight) as w, count(*) from identity.edges where type = 'probabilistic'"
        " group by 1 order by 1",
    )


def describe_model(model: Model) -> str:
    """The model's comparisons with the Bayes factor of each level, for people."""
    return json.dumps(
        {
            c["output_column_name"]: {
                level["label_for_charts"]: [level.get("m_probability"), level.get("u_probability")]
                for level in c["comparison_levels"]
            }
            for c in model.settings["comparisons"]
        },
        indent=1,
    )
