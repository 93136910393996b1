"""Components of links, and the pairs inside them that no blocking rule found: what they say counts too.

A piece is a component cut down, where it is too large to know every pair of it, along its weakest links. One that
stays too large is held together by identifiers: its pairs are not looked at.
"""

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection

from profile_pipeline.identity.components import MOST_IN_PIECE, Ints, connected, pieces
from profile_pipeline.warehouse import replace_table, scalar

CLOSED = "not found by blocking; compared because others link both"
UNFOUND = "(low ubigint not null, high ubigint not null, place ubigint)"
"""Grain: one row a pair inside a piece that no blocking rule found; `place` is that of an edge from before that holds."""


def write_components(work: DuckDBPyConnection, links: str) -> None:
    """Write `numbered` (node, n) and `components` (node, component) of the `affected` nodes.

    A component is named by its smallest node.
    """
    replace_table(
        work,
        "numbered",
        "select node, (row_number() over () - 1)::bigint as n from affected",
    )
    replace_table(
        work,
        "numbered_links",
        f"""select l.n as l, r.n as r, weight from ({links})
        join numbered l on l.node = left_node join numbered r on r.node = right_node""",
    )
    left, right, _ = _arrays(work)
    size = scalar(work, "select count(*) from numbered")
    _register(work, connected(left, right, size))
    replace_table(
        work,
        "components",
        "select node, min(node) over (partition by label) as component from numbered join labels using (n)",
    )
    work.unregister("labels")


def write_pairs(work: DuckDBPyConnection, known: str, before: str) -> None:
    """Write `unfound`: the pairs of matched records inside one piece that are not among the known ones.

    `before` gives edges that hold as they are (place, left_node, right_node): their pairs have that place. `unscored` are
    the others.
    """
    left, right, weight = _arrays(work)
    size = scalar(work, "select count(*) from numbered")
    _register(work, pieces(left, right, weight, size))
    replace_table(
        work,
        "piece_members",
        f"""select label, unique_id from labels
        semi join (select label from labels group by label having count(*) between 2 and {MOST_IN_PIECE}) using (label)
        join numbered using (n) join features on unique_id = node""",
    )
    work.unregister("labels")
    ends = "least(left_node, right_node) as low, greatest(left_node, right_node) as high"
    work.execute(
        f"""insert into unfound select low, high, place from (
            select a.unique_id as low, b.unique_id as high
            from piece_members a join piece_members b on a.label = b.label and a.unique_id < b.unique_id
        ) anti join (select {ends} from ({known})) using (low, high)
        left join (select place, {ends} from ({before})) using (low, high)"""
    )
    work.execute(
        """create or replace view unscored as
        select 0 as match_key, low as join_key_l, high as join_key_r from unfound where place is null"""
    )
    work.execute("drop table piece_members; drop table numbered_links")


def _arrays(work: DuckDBPyConnection) -> tuple[Ints, Ints, np.ndarray]:
    found = work.execute("select l, r, weight from numbered_links").fetchnumpy()
    left, right, weight = (np.ma.getdata(found[column]) for column in ("l", "r", "weight"))
    return left.astype(np.int64), right.astype(np.int64), weight.astype(np.float64)


def _register(work: DuckDBPyConnection, labels: Ints) -> None:
    work.register("labels", pa.table({"n": np.arange(len(labels)), "label": labels}))
