"""Links that lead out of a profile and do not hold, and identities that did not join their holder, with the reason why."""

from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.explain.constraints import broken_limits
from profile_pipeline.explain.links import ATTACHED, pair_of, scores_of
from profile_pipeline.explain.members import MEMBER_TABLE
from profile_pipeline.identity.attach import lone_query
from profile_pipeline.identity.edges import threshold_in_use
from profile_pipeline.identity.refine import DECIDED_APART, LIMIT_BROKEN
from profile_pipeline.identity.weights import Score
from profile_pipeline.profile_ids import MEMBERS
from profile_pipeline.warehouse import records_of

SHOWN = 20
"""Rejected links of most weight that are shown; the others are counted."""


@dataclass(frozen=True)
class RejectedLink:
    """A pair of a record of the profile and another one that is not taken for the same person."""

    own_key: str
    other_key: str
    other_profile_id: str | None
    kind: str
    match_weight: float | None
    match_probability: float | None
    reason: str
    evidence: str
    score: Score | None


def rejected(con: DuckDBPyConnection, config: Config) -> tuple[tuple[RejectedLink, ...], int]:
    """The rejected links of temp.explained, those without a weight first and then by weight, and how many there are in all."""
    lone = records_of(con, f"{_unattached_query(config)} limit {SHOWN}")
    unattached = [_unattached(con, config, row) for row in lone]
    found = records_of(con, f"{_pairs_query()} limit {SHOWN}")
    total = sum(rows[0]["total"] for rows in (lone, found) if rows)
    scores = scores_of(con, [{**row, "type": "probabilistic"} for row in found if row["model_id"]])
    threshold = threshold_in_use(con)
    links = [_link(row, _reason(con, config, row, threshold), scores.get(pair_of(row))) for row in found]
    return tuple([*unattached, *links][:SHOWN]), total


def _link(row: dict[str, Any], reason: str, score: Score | None) -> RejectedLink:
    return RejectedLink(
        row["own_key"],
        row["other_key"],
        row["other_profile_id"],
        row["kind"],
        row["match_weight"],
        row["match_probability"],
        reason,
        score.words if score else row["evidence"] or "",
        score,
    )


def _unattached_query(config: Config) -> str:
    """Grain: one row an identity that joined nobody and a group that holds its identifiers, one of them in temp.explained."""
    return f"""
        with lone as materialized (
            from ({lone_query(config)}) where node not in (select node from identity.attachments)
        ), held as (
            select value_key, node, record_key, namespace || ' ' || value as identifier
            from identity.identifiers where value_key in (select value_key from lone)
        ), holders as (
            select lone.record_key as lone_key, g.group_node, min(h.record_key) as holder_key,
                list(distinct identifier order by identifier) as identifiers
            from lone join held h using (value_key) join identity.groups g on g.node = h.node
            where h.record_key <> lone.record_key group by all
        ), apart as (
            select *, count(*) over (partition by lone_key) as holder_count,
                lone_key in (from {MEMBER_TABLE}) as lone_own, holder_key in (from {MEMBER_TABLE}) as holder_own,
                group_node in (select node from lone) as both_lone
            from holders
        )
        select apart.*, if(lone_own, lone_key, holder_key) as own_key, if(lone_own, holder_key, lone_key) as other_key,
            m.profile_id as other_profile_id, count(*) over () as total
        from apart left join ({MEMBERS}) m on m.record_key = if(lone_own, holder_key, lone_key)
        where lone_own <> holder_own order by own_key, other_key"""


def _unattached(con: DuckDBPyConnection, config: Config, row: dict[str, Any]) -> RejectedLink:
    evidence = f"both carry {', '.join(row['identifiers'])}"
    reason = _unattached_reason(con, config, row)
    other = row["other_profile_id"]
    return RejectedLink(row["own_key"], row["other_key"], other, ATTACHED, None, None, reason, evidence, None)


def _unattached_reason(con: DuckDBPyConnection, config: Config, row: dict[str, Any]) -> str:
    if row["holder_count"] > 1:
        return f"{row['holder_count']} profiles hold its identifiers: nobody can tell whose it is"
    if row["both_lone"]:
        return "both are known from events only, and this does not link by itself"
    broken = broken_limits(con, config, row["other_profile_id"])
    return f"{LIMIT_BROKEN}: {'; '.join(broken) or 'together with others that hold it'}"


def _pairs_query() -> str:
    """Grain: one row a pair with one end in temp.explained, whatever kinds of edges it has; most weight first."""
    own = f"left_key in (from {MEMBER_TABLE})"
    return f"""
        with touching as (
            select *, {own} as left_own from identity.edges
            where {own} <> (right_key in (from {MEMBER_TABLE}))
        ), pairs as (
            select left_key, right_key, any_value(left_own) as left_own,
                arg_max(type, (strength, type)) as kind, max(match_weight) as match_weight,
                max(match_probability) filter (type = 'probabilistic') as match_probability,
                max(model_id) as model_id, max(evidence) as evidence, bool_or(accepted) as accepted,
                bool_or(type = 'decision' and not accepted) as decided_apart
            from touching group by left_key, right_key
        )
        select p.*, if(left_own, left_key, right_key) as own_key, if(left_own, right_key, left_key) as other_key,
            m.profile_id as other_profile_id, c.reason as cut_reason, count(*) over () as total
        from pairs p left join identity.cut_links c using (left_key, right_key)
        left join ({MEMBERS}) m on m.record_key = if(left_own, right_key, left_key)
        order by match_weight desc nulls first, left_key, right_key"""


def _reason(con: DuckDBPyConnection, config: Config, row: dict[str, Any], threshold: float | None) -> str:
    if row["decided_apart"]:
        return DECIDED_APART
    if row["cut_reason"] == LIMIT_BROKEN:
        broken = broken_limits(con, config, row["other_profile_id"])
        return f"{LIMIT_BROKEN}: {'; '.join(broken)}" if broken else LIMIT_BROKEN
    if row["cut_reason"]:
        return row["cut_reason"]
    if row["accepted"]:
        return "a link that no run has acted on yet"
    return f"below the threshold of {threshold or 0.0:.1f}"
