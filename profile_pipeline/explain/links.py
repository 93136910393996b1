"""The links that hold a profile together: a spanning tree of the strongest ones, and the evidence of each in words.

Strongest first: decisions, then shared identifiers by the strength of their namespace, then match weights, then
identities attached to their only holder (Kruskal 1956).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.explain.members import MEMBER_TABLE
from profile_pipeline.identity.model import model_of
from profile_pipeline.identity.weights import Score, load_own_frequencies, score_in_parts
from profile_pipeline.warehouse import database_name, records_of, replace_table, rows, scratch

ATTACHED = "attached"
ORDER = ("decision", "deterministic", "probabilistic", ATTACHED)
"""Kinds of links, strongest first."""
Edge = dict[str, Any]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Link:
    """An accepted link of the spanning tree with its evidence; `score` for scored pairs only."""

    left_key: str
    right_key: str
    kind: str
    evidence: str
    score: Score | None


def tree(con: DuckDBPyConnection) -> tuple[Link, ...]:
    """The spanning tree of temp.explained, strongest links first; a forest while changes wait for approval."""
    kept = spanning(_links(con))
    scores = scores_of(con, kept)
    shared = _shared_values(con, kept)
    return tuple(
        Link(
            edge["left_key"],
            edge["right_key"],
            edge["type"],
            _evidence(edge, scores.get(pair_of(edge)), shared),
            scores.get(pair_of(edge)),
        )
        for edge in kept
    )


def pair_of(edge: Edge) -> Pair:
    """The two ends of an edge."""
    return edge["left_key"], edge["right_key"]


def _links(con: DuckDBPyConnection) -> list[Edge]:
    """Links between members that hold, strongest first."""
    order = ", ".join(f"'{kind}'" for kind in ORDER)
    return records_of(
        con,
        f"""with inside as (
            select left_key, right_key, type, namespace, strength, match_weight, match_probability, evidence, model_id
            from identity.edges anti join identity.cut_links using (left_key, right_key)
            where accepted and left_key in (from {MEMBER_TABLE}) and right_key in (from {MEMBER_TABLE})
            union all
            select least(record_key, holder_key), greatest(record_key, holder_key), '{ATTACHED}', namespace, 0, null, null,
                null, null
            from identity.attachments
            where record_key in (from {MEMBER_TABLE}) and holder_key in (from {MEMBER_TABLE})
        )
        from inside order by list_position([{order}], type), strength desc, match_weight desc nulls last,
            left_key, right_key, namespace""",
    )


def spanning(links: Iterable[Edge]) -> list[Edge]:
    """The links that connect what was not connected by stronger ones."""
    parent: dict[str, str] = {}

    def top(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    kept = []
    for link in links:
        left, right = top(link["left_key"]), top(link["right_key"])
        if left != right:
            parent[max(left, right)] = min(left, right)
            kept.append(link)
    return kept


def scores_of(con: DuckDBPyConnection, edges: Sequence[Edge]) -> dict[Pair, Score]:
    """Scores in parts of the probabilistic edges among these, each under the model that gave it its weight."""
    by_model: dict[str, list[Pair]] = defaultdict(list)
    for edge in edges:
        if edge["type"] == "probabilistic":
            by_model[edge["model_id"]].append(pair_of(edge))
    return {
        pair: score
        for model_id, pairs in sorted(by_model.items())
        for pair, score in _scores(con, model_id, pairs)
    }


def _scores(con: DuckDBPyConnection, model_id: str, pairs: Sequence[Pair]) -> list[tuple[Pair, Score]]:
    model = model_of(con, model_id)
    if model is None:
        return []
    database = database_name(con)
    with scratch(con) as work:
        work.execute(
            "create table asked as select unnest(?) as left_key, unnest(?) as right_key", _sides(pairs)
        )
        replace_table(
            work,
            "features",
            f"""select * from {database}.identity.features
            where record_key in (select left_key from asked union select right_key from asked)""",
        )
        replace_table(
            work,
            "pairs",
            """select '0' as match_key, least(hash(left_key), hash(right_key)) as join_key_l,
                greatest(hash(left_key), hash(right_key)) as join_key_r from asked""",
        )
        load_own_frequencies(work, model, database)
        found = score_in_parts(work, model, "pairs")
        names = dict(rows(work, "select unique_id, record_key from features"))
    return [(_pair(names[f.left_id], names[f.right_id]), f.score) for f in found]


def _sides(pairs: Sequence[Pair]) -> list[list[str]]:
    return [[left for left, _ in pairs], [right for _, right in pairs]]


def _pair(one: str, other: str) -> Pair:
    return min(one, other), max(one, other)


def _shared_values(con: DuckDBPyConnection, edges: Sequence[Edge]) -> dict[tuple[str, str, str], list[str]]:
    """Values by (record, record, namespace) that both ends of the links by identifiers carry."""
    named = [edge for edge in edges if edge["namespace"]]
    if not named:
        return {}
    columns = [[edge[name] for edge in named] for name in ("left_key", "right_key", "namespace")]
    found = rows(
        con,
        """with asked as (
            select distinct unnest(?::text[]) as left_key, unnest(?::text[]) as right_key, unnest(?::text[]) as namespace
        )
        select left_key, right_key, a.namespace, list(distinct l.value order by l.value)
        from asked a join identity.identifiers l on l.record_key = left_key and l.namespace = a.namespace
        join identity.identifiers r on r.record_key = right_key and r.namespace = a.namespace and r.value = l.value
        where (l.namespace, l.value) not in (select (namespace, value) from identity.generic_values)
        group by all""",
        columns,
    )
    return {(left, right, namespace): values for left, right, namespace, values in found}


def _evidence(edge: Edge, score: Score | None, shared: dict[tuple[str, str, str], list[str]]) -> str:
    if edge["type"] == "decision":
        return "decided to be one person"
    if edge["type"] == "probabilistic":
        return f"{score.words}; {_found_by(edge)}" if score else edge["evidence"]
    values = ", ".join(shared.get((*pair_of(edge), edge["namespace"]), []))
    if edge["type"] == ATTACHED:
        return f"only this profile holds its {edge['namespace']} {values}"
    return f"both carry {edge['namespace']} {values}"


def _found_by(edge: Edge) -> str:
    """The stored evidence without what the score says itself."""
    return edge["evidence"].partition("; a shared household")[0]
