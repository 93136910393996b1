"""Match weights of pairs: candidates found by blocking, and the pairs inside a piece that no rule found.

Match weight: log2 of P(one person) / (P(one household) + P(strangers)), with Splink's weights of the person
model and of the household model. Under one model it depends on the two records only.
"""

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection

from profile_pipeline.identity.components import pieces
from profile_pipeline.identity.linker import make_linker, quiet_splink, register_frequencies, register_pairs
from profile_pipeline.identity.model import Model
from profile_pipeline.identity.training import rule_sql
from profile_pipeline.warehouse import literal, replace_table, rows, scalar

EMPTY = (
    "select ''::text as left_key, ''::text as right_key, 0.0::double as match_weight,"
    " 0.0::double as match_probability, ''::text as evidence limit 0"
)
CLOSED = "not found by blocking; compared because others link both"


def score_candidates(work: DuckDBPyConnection, model: Model, floor: float, database: str) -> None:
    """Write `scored`: the pairs that blocking finds, from the floor up, with their evidence."""
    _weigh(work, model, database, "candidates", floor=floor)
    rules = model.settings["blocking_rules_to_generate_predictions"]
    found_by = ", ".join(literal("found by " + rule_sql(rule).split("block_")[-1]) for rule in rules)
    evidence = f"[{found_by}][match_key::integer + 1]"
    replace_table(work, "scored", f"{_scored_query('candidates', evidence)} where weight >= {floor}")


def score_closures(work: DuckDBPyConnection, model: Model, threshold: float, database: str) -> float | None:
    """Add to `scored` every pair inside a piece that is not there yet; their mean weight, None without any.

    A piece is a component of links by `strong` and `scored`, cut down where it is too large to know every pair.
    """
    _write_pieces(work, threshold, database)
    found = replace_table(
        work,
        "unfound",
        """select '0' as match_key, a.record_key as join_key_l, b.record_key as join_key_r
        from pieces a join pieces b on a.piece = b.piece and a.record_key < b.record_key
        anti join scored s on s.left_key = a.record_key and s.right_key = b.record_key""",
    )
    if not found:
        return None
    _weigh(work, model, database, "closures", pairs="unfound")
    work.execute(f"insert into scored {_scored_query('closures', literal(CLOSED))}")
    mean = scalar(work, "select avg(least(greatest(match_weight, -10), 0)) from closures")
    return float(f"{mean:.6g}")


def _weigh(
    work: DuckDBPyConnection,
    model: Model,
    database: str,
    name: str,
    *,
    pairs: str = "",
    floor: float | None = None,
) -> None:
    """Table of pairs with the weights of both models; blocks when no table of pairs is given."""
    with quiet_splink():
        linker = make_linker(work, model.settings, f"{name}_persons")
        register_frequencies(work, linker, model.model_id, database)
        if pairs:
            register_pairs(linker, work, pairs)
        found = linker.inference.predict(threshold_match_weight=floor, warning_mode="never").physical_name
        replace_table(
            work,
            name,
            f"select match_key, unique_id_l as join_key_l, unique_id_r as join_key_r, match_weight from {found}",
        )
        work.execute(f"drop table {found}")
        _add_household_weights(work, model, database, name)


def _add_household_weights(work: DuckDBPyConnection, model: Model, database: str, name: str) -> None:
    work.execute(f"alter table {name} add column household_weight double")
    settings = model.manifest.get("household")
    if not settings or not scalar(work, f"select count(*) from {name}"):
        return
    linker = make_linker(work, settings, f"{name}_households")
    register_frequencies(work, linker, model.model_id, database)
    register_pairs(linker, work, name)
    found = linker.inference.predict(warning_mode="never").physical_name
    replace_table(
        work,
        name,
        f"""select n.* replace (h.match_weight as household_weight) from {name} n
        join {found} h on h.unique_id_l = n.join_key_l and h.unique_id_r = n.join_key_r""",
    )
    work.execute(f"drop table {found}")


def _scored_query(name: str, evidence: str) -> str:
    return f"""
        with weighed as (
            select *, log2(1 + pow(2, least(coalesce(household_weight, -1000), 1000))) as relief,
                match_weight - relief as weight
            from {name}
        )
        select least(join_key_l, join_key_r) as left_key, greatest(join_key_l, join_key_r) as right_key,
            weight as match_weight, 1 / (1 + pow(2, -least(greatest(weight, -500), 500))) as match_probability,
            {evidence} || if(relief >= 0.5, '; a shared household explains '
                || round(relief, 1)::decimal(9, 1) || ' bits', '') as evidence
        from weighed"""


def _write_pieces(work: DuckDBPyConnection, threshold: float, database: str) -> None:
    """Table `pieces` (record_key, piece), of the records that matching compares."""
    replace_table(
        work,
        "numbered",
        f"select record_key, row_number() over (order by record_key) - 1 as n from {database}.identity.nodes",
    )
    links = work.execute(
        f"""select l.n as l, r.n as r, w from (
            select left_key, right_key, 1000.0 as w from strong
            union all select left_key, right_key, match_weight from scored where match_weight >= {threshold}
        ) join numbered l on l.record_key = left_key join numbered r on r.record_key = right_key"""
    ).fetchnumpy()
    [(size,)] = rows(work, "select count(*) from numbered")
    left, right = (np.ma.getdata(links[side]).astype(np.int64) for side in ("l", "r"))
    labels = pieces(left, right, np.ma.getdata(links["w"]).astype(np.float64), size)
    work.register("labels", pa.table({"n": np.arange(size), "piece": labels}))
    replace_table(
        work,
        "pieces",
        "select record_key, piece from labels join numbered using (n)"
        " semi join features on features.unique_id = record_key"
        " where piece in (select piece from labels group by 1 having count(*) > 1)",
    )
    work.unregister("labels")
