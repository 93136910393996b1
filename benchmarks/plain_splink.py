"""Splink as its documentation teaches it: library comparisons, three training steps, a fixed threshold.

The sources of every choice are pages of Splink's documentation (https://moj-analytical-services.github.io/splink/),
named beside it. Nothing here is tuned to a data set.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from duckdb import DuckDBPyConnection
from measured import Clock

if TYPE_CHECKING:
    from splink import Linker, SplinkDataFrame

MOST_EDGES = 3_000_000
"""Above this many links Splink's own clustering may need more memory than the machine has; scipy finds the same."""


@dataclass(frozen=True)
class Plan:
    """One way to use Splink. `em_rules` are tried in turn; one that finds no pairs is noted and left out."""

    link_type: str
    comparisons: list[Any]
    blocking_rules: list[Any]
    prior_rules: list[Any]
    prior_recall: float
    em_rules: list[Any]
    u_pairs: float = 1e6
    u_seed: int | None = None
    em_without_frequencies: bool = True
    threshold: float = 0.95
    retain_matching: bool = True
    retain_calculations: bool = False
    predict_from: float | None = None
    """Match probability below which pairs are not even kept; Splink keeps all of them by default."""


def resolve(con: DuckDBPyConnection, tables: list[str], plan: Plan, clusters: Path) -> dict[str, Any]:
    """Train, predict and cluster tables with `unique_id`; writes (unique_id, cluster), returns what to report."""
    import splink  # noqa: F401  (loading it is nobody's matching time)

    clock = Clock()
    with clock.stage("training"):
        linker = _linker(con, tables, plan)
        notes = _train(linker, plan)
    with clock.stage("prediction"):
        scored = linker.inference.predict(threshold_match_probability=plan.predict_from)
    with clock.stage("clusters"):
        links = _count(con, scored, plan.threshold)
        write = _cluster_by_splink if links <= MOST_EDGES else _cluster_by_scipy
        write(con, linker, scored, tables, plan.threshold, clusters)
    return {
        "seconds": clock.seconds,
        "scored_pairs": _count(con, scored, 0.0),
        "links": links,
        "clustering": "splink" if links <= MOST_EDGES else "scipy",
        "threshold": plan.threshold,
        "notes": notes,
    }


def _linker(con: DuckDBPyConnection, tables: list[str], plan: Plan) -> "Linker":
    from splink import DuckDBAPI, Linker, SettingsCreator

    for name in ("splink", "splink.internals"):
        logging.getLogger(name).setLevel(logging.ERROR)
    settings = SettingsCreator(
        link_type=plan.link_type,
        comparisons=plan.comparisons,
        blocking_rules_to_generate_predictions=plan.blocking_rules,
        retain_matching_columns=plan.retain_matching,
        retain_intermediate_calculation_columns=plan.retain_calculations,
    )
    api = DuckDBAPI(connection=con)
    frames = [api.register(con.table(table), dataset_display_name=f"input_{table}") for table in tables]
    return Linker(frames if len(frames) > 1 else frames[0], settings)


def _train(linker: "Linker", plan: Plan) -> list[str]:
    from splink.internals.exceptions import EMTrainingException

    training = linker.training
    training.estimate_probability_two_random_records_match(plan.prior_rules, recall=plan.prior_recall)
    training.estimate_u_using_random_sampling(max_pairs=plan.u_pairs, seed=plan.u_seed)
    left_out = []
    for number, rule in enumerate(plan.em_rules):
        try:
            training.estimate_parameters_using_expectation_maximisation(
                rule, estimate_without_term_frequencies=plan.em_without_frequencies
            )
        except EMTrainingException:
            left_out.append(f"training rule {number + 1} found too little to learn from")
    return left_out


def _count(con: DuckDBPyConnection, scored: "SplinkDataFrame", least: float) -> int:
    query = f"select count(*) from {scored.physical_name} where match_probability >= ?"
    return con.execute(query, [least]).fetchall()[0][0]


def _cluster_by_splink(
    con: DuckDBPyConnection,
    linker: "Linker",
    scored: "SplinkDataFrame",
    _tables: list[str],
    threshold: float,
    clusters: Path,
) -> None:
    found = linker.clustering.cluster_pairwise_predictions_at_threshold(
        scored, threshold_match_probability=threshold
    )
    _write(con, f"select unique_id, cluster_id::text as cluster from {found.physical_name}", clusters)


def _cluster_by_scipy(
    con: DuckDBPyConnection,
    _linker_unused: "Linker",
    scored: "SplinkDataFrame",
    tables: list[str],
    threshold: float,
    clusters: Path,
) -> None:
    links = f"select unique_id_l as l, unique_id_r as r from {scored.physical_name} where match_probability >= {threshold}"
    con.execute(f"create temp table links as {links}")
    write_components(con, tables, "links", clusters)


def write_components(con: DuckDBPyConnection, tables: list[str], links: str, clusters: Path) -> None:
    """Connected components of the table `links` (l, r) over the unique ids of tables, as (unique_id, cluster)."""
    import numpy as np
    import pyarrow as pa
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = " union all ".join(f"select unique_id from {table}" for table in tables)
    con.execute(
        f"create or replace temp table nodes as select unique_id, row_number() over (order by unique_id) - 1 as n from ({nodes})"
    )
    pairs = con.execute(
        f"select a.n as l, b.n as r from {links} join nodes a on a.unique_id = l join nodes b on b.unique_id = r"
    ).fetchnumpy()
    [(size,)] = con.execute("select count(*) from nodes").fetchall()
    left, right = (np.ma.getdata(pairs[side]).astype(np.int64) for side in ("l", "r"))
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    con.register("component_table", pa.table({"n": np.arange(size), "cluster": labels}))
    _write(
        con, "select unique_id, cluster::text as cluster from component_table join nodes using (n)", clusters
    )
    con.unregister("component_table")


def _write(con: DuckDBPyConnection, query: str, path: Path) -> None:
    con.execute(f"copy ({query}) to '{path}' (format parquet)")


def open_database(threads: int) -> DuckDBPyConnection:
    """In memory, with DuckDB's own limits: what `DuckDBAPI()` gives, but for the number of threads."""
    return duckdb.connect(config={"threads": threads})


def library_plan(fields: set[str], blocking_rules: list[str], *, lean: bool = False) -> Plan:
    """Splink's ready-made comparison of each semantic type, and its tutorial's three training steps.

    Comparisons: topic guide "Out-of-the-box comparisons"; ids, phone and exact matches with term frequencies as
    in the examples febrl4, fake_1000 and historical_50k. One comparison for the place, because (febrl4) "we don't
    consider further location columns as they will be strongly correlated with postcode".
    """
    from splink import block_on

    prior = [
        ("given", "family", "birth_date"),
        ("national_id",),
        ("email",),
        ("given", "birth_date", "postcode"),
    ]
    training = [("birth_date",), ("given", "family"), ("email",), ("postcode",)]
    return Plan(
        link_type="dedupe_only",
        comparisons=_library_comparisons(fields),
        blocking_rules=[block_on(rule) for rule in blocking_rules],
        prior_rules=[block_on(*rule) for rule in prior if set(rule) <= fields],
        prior_recall=0.7,
        em_rules=[block_on(*rule) for rule in training if set(rule) <= fields][:3],
        retain_matching=not lean,
        predict_from=0.95 if lean else None,
    )


def _library_comparisons(fields: set[str]) -> list[Any]:
    import splink.comparison_library as cl

    place = "postcode" if "postcode" in fields else "city"
    library = {
        "given": lambda: cl.NameComparison("given"),
        "middle": lambda: cl.ExactMatch("middle").configure(term_frequency_adjustments=True),
        "family": lambda: cl.NameComparison("family"),
        "birth_date": lambda: cl.DateOfBirthComparison("birth_date", input_is_string=True),
        "email": lambda: cl.EmailComparison("email"),
        "phone": lambda: cl.DamerauLevenshteinAtThresholds("phone", [1, 2]),
        "national_id": lambda: cl.DamerauLevenshteinAtThresholds("national_id", [1, 2]),
        "postcode": lambda: cl.PostcodeComparison("postcode"),
        "city": lambda: cl.ExactMatch("city").configure(term_frequency_adjustments=True),
        "gender": lambda: cl.ExactMatch("gender"),
    }
    wanted = [name for name in library if name in fields and name not in {"postcode", "city"} - {place}]
    extra = sorted(name for name in fields if name.startswith("x_"))
    return [library[name]() for name in wanted] + [
        cl.ExactMatch(name).configure(term_frequency_adjustments=True) for name in extra
    ]
