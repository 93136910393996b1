"""What the caps on blocks cost: the matches that are estimated to be among the pairs they left out."""

from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.identity.scoring import Scorer, probability_query
from profile_pipeline.warehouse import replace_table, rows

SAMPLED_PAIRS = 2_000
"""Pairs looked at for each rule; enough for a loss of one match in a thousand pairs."""


def estimate_missed(work: DuckDBPyConnection, scorer: Scorer, names: list[str]) -> list[dict[str, Any]]:
    """By rule with blocks over the last cap: records, blocks, pairs left out, and expected matches among those pairs.

    Pairs are sampled inside the blocks, each record with a random other one, scored like any pair, and counted unless another rule
    finds them. Needs `keys` and `scored` of a whole run.
    """
    replace_table(
        work,
        "dropped",
        """select rule, base, unique_id, count(*) over (partition by rule, base) as size,
            row_number() over (partition by rule, base order by hash('missed', unique_id), unique_id) as place
        from keys where key is null""",
    )
    counted = rows(
        work,
        """select rule, count(*), count(distinct base), sum((size - 1) / 2)::bigint from dropped group by 1 order by 1""",
    )
    if not counted:
        return []
    replace_table(
        work,
        "missed_pairs",
        f"""select a.rule as match_key, least(a.unique_id, b.unique_id) as join_key_l,
            greatest(a.unique_id, b.unique_id) as join_key_r
        from dropped a join dropped b on a.rule = b.rule and a.base = b.base and b.place = a.place % a.size + 1
        where a.unique_id <> b.unique_id
        qualify row_number() over (partition by a.rule order by hash('sample', a.unique_id), a.unique_id) <= {SAMPLED_PAIRS}""",
    )
    work.execute("drop table if exists missed_scored")
    scorer.score("missed_pairs", "missed_scored")
    shares = dict(
        rows(
            work,
            f"""select m.match_key, avg(if(s.join_key_l is null, {probability_query("m.match_weight")}, 0))
            from missed_scored m left join scored s using (join_key_l, join_key_r) group by 1""",
        )
    )
    work.execute("drop table dropped; drop table missed_pairs; drop table missed_scored")
    return [
        {
            "rule": names[rule], "records": records, "blocks": blocks, "pairs": pairs,
            "expected_matches_missed": float(f"{pairs * shares.get(rule, 0.0):.4g}"),
        }
        for rule, records, blocks, pairs in counted
    ]  # fmt: skip
