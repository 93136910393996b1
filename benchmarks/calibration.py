"""Whether scores mean what they say: among pairs scored p, is the share of true matches about p?

The pairs are all scored ones that are kept (identity.edges), accepted or not, of records with a label.
"""

from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import rows

BINS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Lower ends of the bins of match probability and the upper end of the last; finer where most pairs are."""


def calibration(con: DuckDBPyConnection, labels: Path) -> dict[str, Any]:
    """Reliability by bin, and the expected calibration error: mean |probability - share true| over pairs."""
    table = _reliability(con, labels)
    pairs = sum(row["pairs"] for row in table)
    error = sum(row["pairs"] * abs(row["mean_probability"] - row["true_share"]) for row in table)
    return {
        "pairs": pairs,
        "expected_calibration_error": round(error / pairs, 5) if pairs else None,
        "accepted": _accepted(con, labels),
        "reliability": table,
    }


def _judged_query() -> str:
    """Grain: one row a scored pair of labelled records. Bound: the path of the labels."""
    return """
        with labelled as (
            select c.record_key, f.entity_id from records.current c
            join read_parquet($1) f on f.source = c.source and f.record_id::text = c.source_key
        )
        select e.match_probability as p, e.accepted, l.entity_id = r.entity_id as same
        from identity.edges e join labelled l on l.record_key = e.left_key
            join labelled r on r.record_key = e.right_key
        where e.type = 'probabilistic'"""


def _reliability(con: DuckDBPyConnection, labels: Path) -> list[dict[str, Any]]:
    ends = ", ".join(str(end) for end in BINS[1:-1])
    found = rows(
        con,
        f"""select len(list_filter([{ends}], lambda x: x <= p)) as bin, count(*), avg(p), count(*) filter (same)
        from ({_judged_query()}) group by 1 order by 1""",
        [str(labels)],
    )
    return [
        {
            "from": BINS[k],
            "to": BINS[k + 1],
            "pairs": pairs,
            "mean_probability": round(mean, 5),
            "true_share": round(true / pairs, 5),
        }
        for k, pairs, mean, true in found
    ]


def _accepted(con: DuckDBPyConnection, labels: Path) -> dict[str, Any]:
    """Accepted scored pairs: what precision the scores promise, and what labels say."""
    [(pairs, expected, true)] = rows(
        con,
        f"select count(*), avg(p), count(*) filter (same) from ({_judged_query()}) where accepted",
        [str(labels)],
    )
    if not pairs:
        return {"pairs": 0, "expected_precision": None, "precision": None}
    return {"pairs": pairs, "expected_precision": round(expected, 5), "precision": round(true / pairs, 5)}
