"""Groups of nodes that are one person: connected components of the links, refined where something speaks against.

Components are found by scipy (a union-find over 12 million edges takes a second). Only a component that breaks
a constraint or the size limit, or holds a scored pair that is no link, is refined. The result depends on the
links and scores only, not on their order of arrival.
"""

from collections import Counter

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity.attach import attach_lone_identities
from profile_pipeline.identity.components import MOST_IN_PIECE, connected
from profile_pipeline.identity.refine import LIMIT_BROKEN, Bounds, Component, refine
from profile_pipeline.warehouse import (
    built,
    facts,
    fingerprint,
    literal,
    mark_built,
    replace_table,
    rows,
    transaction,
    upstream,
)

LINKS = "select left_key, right_key, strength, match_weight from identity.edges where accepted"
UNFOUND = -2.0
"""Weight of a pair that no blocking rule found, until a run has measured it."""
Cut = tuple[int, int, str]
"""A link that does not hold, and why."""


def build_clusters(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.clusters and identity.cut_links when links, nodes or limits changed."""
    mark = fingerprint(upstream(con, ["identity.nodes", "identity.edges"]), limits(config), _size(config))
    if built(con, "identity.clusters") == mark:
        return
    with transaction(con):
        replace_table(con, "temp.numbered", _numbered_query(config))
        _components(con)
        cut = _refine_all(con, config)
        _write(con, cut)
        attach_lone_identities(con, config)
        con.execute("drop table numbered; drop table components; drop table if exists refined")
        mark_built(con, "identity.clusters", mark, {"cut_links": len(cut)})


def _numbered_query(config: Config) -> str:
    """Grain: one row a node; `scorable` nodes are those that matching compares."""
    sources = ", ".join(literal(n) for n, s in config.record_sources.items() if s.matching) or "null"
    return f"""
        select record_key, row_number() over (order by record_key) - 1 as n,
            kind = 'record' and coalesce(source in ({sources}), false) as scorable
        from identity.nodes"""


def limits(config: Config) -> dict[str, int]:
    """At most so many values of a namespace, or records of a source (`source:<name>`), in one profile."""
    found = {name: space.unique for name, space in config.namespaces.items() if space.unique}
    return found | {f"source:{name}": 1 for name, s in config.record_sources.items() if s.one_per_person}


def _size(config: Config) -> int:
    return config.identity.clustering.max_cluster_size


def _components(con: DuckDBPyConnection) -> None:
    pairs = con.sql(
        f"select l.n as l, r.n as r from ({LINKS}) e join numbered l on l.record_key = e.left_key"
        " join numbered r on r.record_key = e.right_key"
    ).fetchnumpy()
    [(size,)] = rows(con, "select count(*) from numbered")
    left, right = (np.ma.getdata(pairs[side]).astype(np.int64) for side in ("l", "r"))
    con.register("labels", pa.table({"n": np.arange(size), "component": connected(left, right, size)}))
    replace_table(con, "temp.components", "select * from labels")
    con.unregister("labels")


def _refine_all(con: DuckDBPyConnection, config: Config) -> list[Cut]:
    """Refine offending components; writes `refined` (node, group) and returns the links left out."""
    bounds = Bounds(
        limits(config), _size(config), facts(con, "identity.edges").get("unfound_weight", UNFOUND)
    )
    replace_table(con, "temp.limited", _limited_query(bounds.values))
    replace_table(con, "temp.offending", _offending_query(bounds.values, bounds.size))
    groups: list[list[int]] = []
    cut: list[Cut] = []
    for component in _offending_components(con):
        parts, left_out = refine(component, bounds)
        groups += parts
        cut += left_out
    _register_groups(con, groups)
    con.execute("drop table limited; drop table offending")
    return cut


def _offending_components(con: DuckDBPyConnection) -> list[Component]:
    found = {
        number: Component(nodes, set(scorable or []), [], [], {})
        for number, nodes, scorable in rows(
            con,
            """select component, list(n order by n), list(n) filter (scorable)
            from offending join components using (component) join numbered using (n) group by 1 order by 1""",
        )
    }
    for number, n, kind, value in rows(
        con,
        "select component, n, kind, value from limited join components using (n) join offending using (component)",
    ):
        found[number].values.setdefault(n, []).append((kind, value))
    for number, left, right in rows(
        con, _inside_query("e.type <> 'probabilistic'", "e.strength desc, l.n, r.n")
    ):
        found[number].strong.append((left, right))
    weights = ", e.match_weight, e.accepted"
    for number, *pair in rows(con, _inside_query("e.type = 'probabilistic'", "l.n, r.n", weights)):
        found[number].scores.append(tuple(pair))
    return list(found.values())


def _limited_query(bounds: dict[str, int]) -> str:
    spaces = ", ".join(literal(name) for name in bounds if not name.startswith("source:")) or "null"
    sources = (
        ", ".join(literal(name.removeprefix("source:")) for name in bounds if name.startswith("source:"))
        or "null"
    )
    return f"""
        select n, namespace as kind, value from identity.identifiers join numbered using (record_key)
        where namespace in ({spaces})
            and (namespace, value) not in (select (namespace, value) from identity.generic_values)
        union all
        select n, 'source:' || source, record_key from identity.nodes join numbered using (record_key)
        where source in ({sources})"""


def _offending_query(bounds: dict[str, int], size: int) -> str:
    """Components with too much of something, too large to know every pair of, or with a pair that is no link."""
    cases = " ".join(f"when {literal(kind)} then {limit}" for kind, limit in bounds.items())
    limit = f"case kind {cases} end" if cases else "1000000"
    return f"""
        select component from components group by component having count(*) > {min(size, MOST_IN_PIECE)}
        union
        select component from limited join components using (n)
        group by component, kind having count(distinct value) > any_value({limit})
        union
        select l.component from identity.edges e
        join numbered a on a.record_key = e.left_key join numbered b on b.record_key = e.right_key
        join components l on l.n = a.n join components r on r.n = b.n
        where not e.accepted and l.component = r.component"""


def _inside_query(where: str, order: str, more: str = "") -> str:
    """Edges inside offending components."""
    return f"""
        select c.component, l.n, r.n{more} from identity.edges e
        join numbered l on l.record_key = e.left_key join numbered r on r.record_key = e.right_key
        join components c on c.n = l.n join components d on d.n = r.n and d.component = c.component
        join offending on offending.component = c.component
        where {where} order by c.component, {order}"""


def _register_groups(con: DuckDBPyConnection, groups: list[list[int]]) -> None:
    nodes = [n for group in groups for n in group]
    labels = [group[0] for group in groups for _ in group]
    table = pa.table({"n": pa.array(nodes, pa.int64()), "first": pa.array(labels, pa.int64())})
    con.register("group_table", table)
    replace_table(con, "temp.refined", "select * from group_table")
    con.unregister("group_table")


def _write(con: DuckDBPyConnection, cut: list[Cut]) -> None:
    """Grain of identity.clusters: one row a node; a cluster is named by its smallest record key in this run."""
    left, right, reasons = ([part[k] for part in cut] for k in range(3))
    types = (pa.int64(), pa.int64(), pa.string())
    arrays = [pa.array(values, kind) for values, kind in zip((left, right, reasons), types, strict=True)]
    con.register("cut_table", pa.table(arrays, names=["l", "r", "reason"]))
    replace_table(
        con,
        "identity.cut_links",
        """select l.record_key as left_key, r.record_key as right_key, min(reason) as reason
        from cut_table c join numbered l on l.n = c.l join numbered r on r.n = c.r group by all order by all""",
    )
    replace_table(
        con,
        "identity.clusters",
        """with labelled as (
            select n, record_key, component, first, n in (select l from limit_cuts union all select r from limit_cuts) as cut
            from numbered join components using (n) left join refined using (n)
        ), named as (
            select *, min(record_key) over (partition by component, first) as cluster_key from labelled
        )
        select record_key, cluster_key, count(*) over (partition by cluster_key) as cluster_size,
            bool_or(cut) over (partition by cluster_key) as flagged from named""".replace(
            "limit_cuts", f"cut_table where reason = {literal(LIMIT_BROKEN)}"
        ),
    )
    con.unregister("cut_table")


def size_histogram(con: DuckDBPyConnection) -> dict[int, int]:
    """Number of clusters by number of nodes."""
    found = rows(
        con, "select cluster_size, count(distinct cluster_key) from identity.clusters group by 1 order by 1"
    )
    return dict(Counter(dict(found)))
