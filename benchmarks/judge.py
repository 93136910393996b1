"""The one evaluator of every system: the product's own, over any assignment of records to clusters."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb

from profile_pipeline.evaluate import evaluate


def judge(clusters: Path, labels: Path) -> dict[str, Any]:
    """Pairwise, B-cubed and cluster figures of a Parquet file with source, record_id and cluster.

    Only labelled records count; a record that a system left out should be in the file as a cluster of its own.
    """
    with duckdb.connect() as con:
        con.execute("create schema records; create schema identity")
        con.execute(
            """create table records.current as select source || ':' || record_id as record_key, source,
                record_id as source_key, cluster from read_parquet(?)""",
            [str(clusters)],
        )
        con.execute(
            """create table identity.membership as select record_key, cluster::text as profile_id,
                null::integer as to_revision from records.current"""
        )
        return rounded(asdict(evaluate(con, labels)))


def rounded(figures: Any) -> Any:  # noqa: ANN401
    """Shares to six digits: beyond that, sums in another order differ."""
    if isinstance(figures, dict):
        return {name: rounded(value) for name, value in figures.items()}
    return round(figures, 6) if isinstance(figures, float) else figures
