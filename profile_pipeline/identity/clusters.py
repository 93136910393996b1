"""Groups of nodes that are one person: components of the links, refined where something speaks against.

Only a component that breaks a constraint or the size limit, or holds a pair that was decided or is likelier not to be
one person, is refined. The result depends on the links and scores of the component only, not on their order of arrival, and only
components that the edges step touched are looked at again.
"""

import gc
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity import changes
from profile_pipeline.identity.attach import attach_lone_identities
from profile_pipeline.identity.components import MOST_IN_PIECE
from profile_pipeline.identity.edges import expected_quality
from profile_pipeline.identity.refine import LIMIT_BROKEN, Bounds, Component, refine
from profile_pipeline.identity.scoring import probability_query
from profile_pipeline.warehouse import (
    PLAIN,
    built,
    continues,
    facts,
    fingerprint,
    last_full,
    literal,
    mark_built,
    quote,
    replace_table,
    rows,
    scalar,
    transaction,
    upstream,
    write_differing,
)

UNFOUND = -4.0
"""Weight of a pair that no blocking rule found and that is too far apart to be measured: the lowest that counts."""
TABLES = f"""
create table if not exists identity.groups (
    record_key text not null {PLAIN}, node ubigint not null, group_node ubigint not null, flagged boolean not null);
create table if not exists identity.cut_links (
    left_key text not null, right_key text not null, reason text not null, cut_probability double);
create table if not exists identity.clusters (
    record_key text not null {PLAIN}, cluster_key text not null {PLAIN}, cluster_size bigint not null, flagged boolean not null,
    node ubigint not null);
create table if not exists identity.attachments (
    record_key text not null, node ubigint not null, namespace text, holder_key text, group_node ubigint not null);
"""
NAMES = ("groups", "cut_links", "clusters", "attachments")
TEMPORARY = ("touched", "gone", "numbered", "refined", "scored_links", "groups_now", "groups_differing")
INSIDE = """
    with lefts as materialized (
        select component, left_node, right_node, type, strength, match_weight, accepted
        from identity.edges join touched on node = left_node
    )
    select component, left_node, right_node, type, strength, match_weight, accepted
    from lefts join (select node as right_node, component as right_component from touched) using (right_node)
    where component = right_component"""
"""Grain: one row an edge between two nodes of one touched component."""
NUMBERED = """
    select component, node, record_key, scorable, row_number() over (order by record_key) - 1 as n
    from touched semi join offending using (component)"""
"""Grain: one row a node of an offending component; numbers are in the order of the record keys."""
ENDS = "numbered a on a.node = left_node join numbered b on b.node = right_node"
SCORED_LINKS = f"""
    select a.n as l, b.n as r, {probability_query("match_weight")} as cut_probability
    from inside join {ENDS} where type = 'probabilistic' and accepted"""
"""Grain: one row a scored link of an offending component."""
Cut = tuple[int, int, str]
"""A link that does not hold, and why."""


def build_clusters(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.clusters and identity.cut_links when links, nodes or limits changed."""
    base = fingerprint(limits(config), _size(config), last_full(con, "identity.edges"))
    mark = fingerprint(upstream(con, ["identity.nodes", "identity.edges"]), base)
    if built(con, "identity.clusters") == mark:
        return
    whole = not continues(con, "identity.clusters", base)
    con.execute(changes.TABLE)
    with transaction(con):
        if whole:
            con.execute("".join(f"drop table if exists identity.{name};" for name in NAMES))
        con.execute(TABLES)
        replace_table(con, "temp.gone", changes.noted_query("clusters") + (" limit 0" if whole else ""))
        replace_table(con, "temp.touched", _touched_query(config, whole=whole))
        cut = _refine_all(con, config)
        _write_groups(con, cut, whole=whole)
        attach_lone_identities(con, config, whole=whole)
        for name in TEMPORARY:
            con.execute(f"drop table if exists temp.{name}")
        changes.forget(con, "clusters")
        full = mark if whole else last_full(con, "identity.clusters")
        noted = {
            "base": base,
            "full": full,
            "cut_links": scalar(con, "select count(*) from identity.cut_links"),
        }
        scored = facts(con, "identity.edges")["scored"]
        mark_built(con, "identity.clusters", mark, noted | published_quality(con, scored))


def _touched_query(config: Config, *, whole: bool) -> str:
    """Grain: one row a node of a touched component; `scorable` nodes are those that matching compares.

    A component is written with all of its nodes, and all of them are noted.
    """
    sources = ", ".join(literal(n) for n, s in config.record_sources.items() if s.matching) or "null"
    return f"""
        select node, record_key, component, kind = 'record' and coalesce(source in ({sources}), false) as scorable
        from identity.components join identity.nodes using (node) {"" if whole else "where node in (from temp.gone)"}"""


def limits(config: Config) -> dict[str, int]:
    """At most so many values of a namespace, records of a source (`source:<name>`) or values of a field (`field:<name>`)."""
    found = {name: space.unique for name, space in config.namespaces.items() if space.unique}
    found |= {f"source:{name}": 1 for name, s in config.record_sources.items() if s.one_per_person}
    return found | {f"field:{name}": 1 for name in config.identity.clustering.never_differ}


def _size(config: Config) -> int:
    return config.identity.clustering.max_cluster_size


def _refine_all(con: DuckDBPyConnection, config: Config) -> list[Cut]:
    """Refine offending components; writes `refined` (node, group) and `scored_links`, and returns the links left out."""
    bounds = Bounds(limits(config), _size(config), UNFOUND)
    members = "(select node, record_key, node as n from touched)"
    replace_table(con, "temp.limited", limited_query(bounds.values, members))
    replace_table(con, "temp.inside", INSIDE)
    replace_table(con, "temp.offending", _offending_query(bounds.values, bounds.size))
    replace_table(con, "temp.numbered", NUMBERED)
    groups: list[list[int]] = []
    cut: list[Cut] = []
    with _collector_off():
        for component in _offending_components(con):
            parts, left_out = refine(component, bounds)
            groups += parts
            cut += left_out
    _register_groups(con, groups)
    replace_table(con, "temp.scored_links", SCORED_LINKS)
    con.execute("drop table limited; drop table offending; drop table inside")
    return cut


@contextmanager
def _collector_off() -> Generator[None]:
    """Nothing that refinement makes is in a cycle, and the collector would walk through all that Splink has loaded."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _offending_components(con: DuckDBPyConnection) -> Iterator[Component]:
    """One after the other, so that only the columns of all of them are in memory, not their objects."""
    replace_table(
        con,
        "temp.ordered",
        "select component, row_number() over (order by min(n)) - 1 as place from numbered group by component",
    )
    inside = f"from inside join ordered using (component) join {ENDS}"
    parts = (
        "select place, n, scorable from ordered join numbered using (component) order by place, n",
        f"""select place, a.n as l, b.n as r, accepted {inside} where type <> 'probabilistic'
        order by place, strength desc, l, r""",
        # a pair that counts as little as one that was never scored need not be looked at
        f"""select place, a.n as l, b.n as r, match_weight, accepted {inside}
        where type = 'probabilistic' and (accepted or match_weight > {UNFOUND}) order by place, l, r""",
        """select place, m.n, kind, value from limited l join numbered m on m.node = l.n join ordered using (component)
        order by place""",
    )
    for nodes, strong, scores, values in zip(*(_by_place(con, query) for query in parts), strict=True):
        held: dict[int, list[tuple[str, str]]] = {}
        for n, kind, value in values:
            held.setdefault(n, []).append((kind, value))
        yield Component(
            [n for n, _ in nodes],
            {n for n, scorable in nodes if scorable},
            [(left, right) for left, right, accepted in strong if accepted],
            [(left, right) for left, right, accepted in strong if not accepted],
            scores,
            held,
        )
    con.execute("drop table ordered")


def _by_place(con: DuckDBPyConnection, query: str) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of each offending component in turn, without their first column, which is its place."""
    found = con.execute(query).fetchnumpy()
    places, *columns = (np.ma.getdata(column) for column in found.values())
    values = [column.tolist() for column in columns]
    total = scalar(con, "select count(*) from ordered")
    ends = np.searchsorted(places, np.arange(total + 1)).tolist()
    for first, last in pairwise(ends):
        yield list(zip(*(column[first:last] for column in values), strict=True))


def limited_query(bounds: dict[str, int], members: str) -> str:
    """Grain: one row a member `n` and value of a limited kind; `members` gives (node, record_key, n)."""
    spaces = ", ".join(literal(name) for name in bounds if ":" not in name) or "null"
    sources = (
        ", ".join(literal(n.removeprefix("source:")) for n in bounds if n.startswith("source:")) or "null"
    )
    fields = [name.removeprefix("field:") for name in bounds if name.startswith("field:")]
    differing = "".join(
        f""" union all select n, {literal(f"field:{name}")}, {quote(name)}::text
            from records.current join {members} using (record_key) where {quote(name)} is not null"""
        for name in fields
    )
    return f"""
        select n, namespace as kind, value from identity.identifiers join {members} using (node)
        where namespace in ({spaces})
            and value_key not in (select hash(namespace, value) from identity.generic_values)
        union all
        select n, 'source:' || source, m.record_key from identity.nodes join {members} m using (node)
        where source in ({sources}){differing}"""


def _offending_query(bounds: dict[str, int], size: int) -> str:
    """Components with too much of something, too large to know every pair of, or with a pair that speaks against.

    Where none does, no average of pairs does either, and everything would unite again.
    """
    cases = " ".join(f"when {literal(kind)} then {limit}" for kind, limit in bounds.items())
    limit = f"case kind {cases} end" if cases else "1000000"
    return f"""
        select component from touched group by component having count(*) > {min(size, MOST_IN_PIECE)}
        union
        select component from limited join touched on node = n
        group by component, kind having count(distinct value) > any_value({limit})
        union
        select component from inside where not accepted and coalesce(match_weight, -1) < 0"""


def _register_groups(con: DuckDBPyConnection, groups: list[list[int]]) -> None:
    nodes = [n for group in groups for n in group]
    labels = [group[0] for group in groups for _ in group]
    table = pa.table({"n": pa.array(nodes, pa.int64()), "first": pa.array(labels, pa.int64())})
    con.register("group_table", table)
    replace_table(con, "temp.refined", "select * from group_table")
    con.unregister("group_table")


def _write_groups(con: DuckDBPyConnection, cut: list[Cut], *, whole: bool) -> None:
    """identity.groups (grain: one row a node): who belongs together by links; a group is named by its smallest node.

    Where not all are computed afresh, leaves temp.groups_now, those that are, and temp.groups_differing, the nodes that
    differ with their group before.
    """
    left, right, reasons = ([part[k] for part in cut] for k in range(3))
    types = (pa.int64(), pa.int64(), pa.string())
    arrays = [pa.array(values, kind) for values, kind in zip((left, right, reasons), types, strict=True)]
    con.register("cut_table", pa.table(arrays, names=["l", "r", "reason"]))
    con.execute("delete from identity.cut_links where hash(left_key) in (from temp.gone)")
    con.execute(
        """insert into identity.cut_links
        select l.record_key, r.record_key, min(reason), any_value(cut_probability)
        from cut_table c join numbered l on l.n = c.l join numbered r on r.n = c.r left join scored_links s using (l, r)
        group by 1, 2 order by 1, 2"""
    )
    at_limit = f"from cut_table where reason = {literal(LIMIT_BROKEN)}"
    groups = f"""
        select record_key, node, component as group_node, false as flagged from touched
        where node not in (select node from numbered semi join refined using (n))
        union all
        select record_key, node, min(node) over same, bool_or(n in (select l {at_limit} union select r {at_limit})) over same
        from numbered join refined using (n) window same as (partition by first)"""
    if whole:
        con.execute(f"insert into identity.groups {groups}")
    else:
        replace_table(con, "temp.groups_now", groups)
        compared, looked_at = ("group_node", "flagged"), "from temp.gone"
        write_differing(
            con, "identity.groups", "temp.groups_now", compared, looked_at, "temp.groups_differing"
        )
    con.unregister("cut_table")


def published_quality(con: DuckDBPyConnection, scored: dict[str, float]) -> dict[str, float | None]:
    """Expected precision of the links that hold, and their expected share of the matches among candidate pairs.

    Expected precision is the mean match probability of the scored links inside clusters. `scored` are the totals of
    the edges (`edges.scored_totals`), from which those of the links that were cut are taken off.
    """
    lost = "select count(cut_probability), coalesce(sum(cut_probability), 0) from identity.cut_links"
    [(cut_links, lost_matches)] = rows(con, lost)
    held = {"links": scored["links"] - cut_links, "found": scored["found"] - lost_matches}
    return expected_quality(scored | held)


def size_histogram(con: DuckDBPyConnection) -> dict[int, int]:
    """Number of clusters by number of nodes."""
    found = rows(
        con, "select cluster_size, count(distinct cluster_key) from identity.clusters group by 1 order by 1"
    )
    return dict(Counter(dict(found)))
