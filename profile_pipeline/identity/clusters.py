"""Groups of nodes that are one person: connected components of the links, refined where a limit is broken.

Components are found by scipy (a union-find over 12 million edges takes a second). Only a component that breaks
a constraint or the size limit is refined: its links are taken strongest first, and one that would unite two
groups against a constraint is left out. The result depends on the links only, not on their order of arrival.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.warehouse import (
    built,
    fingerprint,
    literal,
    mark_built,
    replace_table,
    rows,
    transaction,
    upstream,
)

LINKS = "select left_key, right_key, strength, match_weight from identity.edges where accepted"


@dataclass
class Group:
    """Nodes united so far, with the limited values they hold: (namespace, value) or (source, record)."""

    nodes: set[int]
    held: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def build_clusters(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.clusters and identity.cut_links when links, nodes or limits changed."""
    mark = fingerprint(upstream(con, ["identity.nodes", "identity.edges"]), limits(config), _size(config))
    if built(con, "identity.clusters") == mark:
        return
    with transaction(con):
        con.execute(
            "create or replace temp table numbered as select record_key, row_number() over (order by record_key) - 1 as n from identity.nodes"
        )
        _components(con)
        cut = _refine_all(con, config)
        _write(con, cut)
        con.execute("drop table numbered; drop table components; drop table if exists refined")
        mark_built(con, "identity.clusters", mark, {"cut_links": len(cut)})


def limits(config: Config) -> dict[str, int]:
    """At most so many values of a namespace, or records of a source (`source:<name>`), in one profile."""
    found = {name: space.unique for name, space in config.namespaces.items() if space.unique}
    return found | {f"source:{name}": 1 for name, s in config.record_sources.items() if s.one_per_person}


def _size(config: Config) -> int:
    return config.identity.clustering.max_cluster_size


def _components(con: DuckDBPyConnection) -> None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = con.sql(
        f"select l.n as l, r.n as r from ({LINKS}) e join numbered l on l.record_key = e.left_key"
        " join numbered r on r.record_key = e.right_key"
    ).fetchnumpy()
    [(size,)] = rows(con, "select count(*) from numbered")
    left, right = (np.ma.getdata(pairs[side]).astype(np.int64) for side in ("l", "r"))
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1] if size else np.array([], dtype=np.int32)
    con.register("labels", pa.table({"n": np.arange(size), "component": labels.astype(np.int64)}))
    replace_table(con, "temp.components", "select * from labels")
    con.unregister("labels")


def _refine_all(con: DuckDBPyConnection, config: Config) -> list[tuple[int, int]]:
    """Refine offending components; writes `refined` (node, group) and returns the links left out."""
    bounds = limits(config)
    con.execute("create or replace temp table limited as " + _limited_query(bounds))
    offending = _offending(con, bounds, _size(config))
    values: dict[int, list[tuple[str, str]]] = defaultdict(list)
    inside = f"where component in ({', '.join(map(str, offending)) or 'null'})"
    for n, kind, value in rows(con, f"select n, kind, value from limited join components using (n) {inside}"):
        values[n].append((kind, value))
    members = defaultdict(list)
    for n, component in rows(con, f"select n, component from components {inside} order by n"):
        members[component].append(n)
    links = defaultdict(list)
    for component, left, right in rows(con, _links_query(inside)):
        links[component].append((left, right))
    groups, cut = [], []
    for component in sorted(members):
        for left, right, united in agglomerate(
            members[component], links[component], values, bounds, _size(config), groups
        ):
            if not united:
                cut.append((left, right))
    _register_groups(con, groups)
    con.execute("drop table limited")
    return cut


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


def _offending(con: DuckDBPyConnection, bounds: dict[str, int], size: int) -> list[int]:
    cases = " ".join(f"when {literal(kind)} then {limit}" for kind, limit in bounds.items())
    limit = f"case kind {cases} end" if cases else "1000000"
    found = rows(
        con,
        f"""select component from components group by component having count(*) > {size}
        union
        select component from limited join components using (n)
        group by component, kind having count(distinct value) > any_value({limit}) order by 1""",
    )
    return [component for (component,) in found]


def _links_query(inside: str) -> str:
    """Links of the offending components, strongest first, in an order that is total."""
    return f"""
        select c.component, l.n, r.n from ({LINKS}) e
        join numbered l on l.record_key = e.left_key join numbered r on r.record_key = e.right_key
        join (select * from components {inside}) c on c.n = l.n
        order by c.component, e.strength desc, e.match_weight desc nulls first, e.left_key, e.right_key"""


def agglomerate(
    nodes: list[int],
    links: Iterable[tuple[int, int]],
    values: dict[int, list[tuple[str, str]]],
    bounds: dict[str, int],
    size: int,
    groups: list[list[int]],
) -> Iterator[tuple[int, int, bool]]:
    """Unite along links in the given order unless a limit would break; yields each link and whether it held."""
    member: dict[int, Group] = {}
    for node in nodes:
        member[node] = Group({node})
        for kind, value in values.get(node, ()):
            member[node].held[kind].add(value)
    for left, right in links:
        a, b = member[left], member[right]
        fits = a is b or _fits(a, b, bounds, size)
        if fits and a is not b:
            _unite(a, b, member)
        yield left, right, fits
    groups += [sorted(g.nodes) for g in {id(g): g for g in member.values()}.values()]


def _fits(a: Group, b: Group, bounds: dict[str, int], size: int) -> bool:
    if len(a.nodes) + len(b.nodes) > size:
        return False
    return all(len(a.held[k] | b.held[k]) <= bounds[k] for k in a.held.keys() & b.held.keys())


def _unite(a: Group, b: Group, member: dict[int, Group]) -> None:
    small, large = sorted((a, b), key=lambda g: len(g.nodes))
    large.nodes |= small.nodes
    for kind, held in small.held.items():
        large.held[kind] |= held
    for node in small.nodes:
        member[node] = large


def _register_groups(con: DuckDBPyConnection, groups: list[list[int]]) -> None:
    nodes = [n for group in groups for n in group]
    labels = [group[0] for group in groups for _ in group]
    table = pa.table({"n": pa.array(nodes, pa.int64()), "first": pa.array(labels, pa.int64())})
    con.register("group_table", table)
    replace_table(con, "temp.refined", "select * from group_table")
    con.unregister("group_table")


def _write(con: DuckDBPyConnection, cut: list[tuple[int, int]]) -> None:
    """Grain of identity.clusters: one row a node; a cluster is named by its smallest record key in this run."""
    replace_table(
        con,
        "identity.clusters",
        """with labelled as (
            select n, record_key, component, first, first is not null as refined
            from numbered join components using (n) left join refined using (n)
        ), named as (
            select *, min(record_key) over (partition by component, first) as cluster_key from labelled
        )
        select record_key, cluster_key, count(*) over (partition by cluster_key) as cluster_size,
            refined as flagged from named""",
    )
    con.register(
        "cut_table",
        pa.table(
            {"l": pa.array([p[0] for p in cut], pa.int64()), "r": pa.array([p[1] for p in cut], pa.int64())}
        ),
    )
    replace_table(
        con,
        "identity.cut_links",
        "select l.record_key as left_key, r.record_key as right_key, 'a limit of identity.yaml' as reason"
        " from cut_table c join numbered l on l.n = c.l join numbered r on r.n = c.r",
    )
    con.unregister("cut_table")


def size_histogram(con: DuckDBPyConnection) -> dict[int, int]:
    """Number of clusters by number of nodes."""
    found = rows(
        con, "select cluster_size, count(distinct cluster_key) from identity.clusters group by 1 order by 1"
    )
    return dict(Counter(dict(found)))
