"""The review queue: questions whose answer by a person is worth most, from what the run itself found doubtful.

An item asks about one pair of records. Its value is its uncertainty in bits (the binary entropy of the match
probability; one bit where facts contradict each other, whatever the score says) times the records that would
change profile: the smaller of two profiles that might be one, or the lighter part of one that might fall apart.
Two profiles are asked about once, by their likeliest pair. What is decided does not belong here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from duckdb import DuckDBPyConnection

from profile_pipeline import decisions
from profile_pipeline.config.load import Config
from profile_pipeline.decisions import MATCH, NO_MATCH, PAIR_ID, effective_query
from profile_pipeline.errors import PipelineError
from profile_pipeline.identity.bridges import bridges
from profile_pipeline.identity.edges import threshold_in_use
from profile_pipeline.identity.refine import CONTRADICTED, LIMIT_BROKEN
from profile_pipeline.profile_ids import MEMBERS
from profile_pipeline.sheets import write_sheet
from profile_pipeline.warehouse import (
    built,
    facts,
    fingerprint,
    literal,
    mark_built,
    records_of,
    replace_table,
    rows,
    table_exists,
    transaction,
    upstream,
)

REASONS = {
    "decision_ignored": "decided `match`, yet kept apart: together they would break a limit",
    "conflict_triangle": "two records were decided different, and this one is close to both",
    "limit_broken": "a link that would break a limit of identity.yaml",
    "contradicted": "a link that other records of both contradict",
    "bridge": "one scored link alone holds two parts of a profile together",
    "large_cluster": "the weakest link of a very large profile",
    "borderline": "a score near the threshold",
}
"""Reason codes, the most telling first: a pair with several is listed under the first of them."""
CERTAIN_DOUBT = ("decision_ignored", "conflict_triangle", "limit_broken", "contradicted", "large_cluster")
"""Reasons in which facts contradict each other: one bit of uncertainty."""
NEAR = 3.0
"""Bits of match weight around the threshold, and around even odds, within which a pair is borderline."""
LEARNING_SHARE = 5
"""One place in so many is kept for what teaches most, when the queue is full."""
ORDERS = {"value": "value desc, item_id", "learning": "learning_rank, item_id"}
SHEET = (
    "item_id", "decision", "reason", "asked", "left_key", "right_key", "match_weight", "match_probability",
    "records_affected", "value", "details",
)  # fmt: skip
"""Columns of an exported queue before those of the records; `decision` and `reason` are the steward's."""


def build_review_queue(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.review_queue when clusters, ids, decisions or limits changed."""
    con.execute(decisions.TABLES)
    most, size = config.identity.review.max_items, config.identity.clustering.max_cluster_size
    inputs = ["identity.clusters", "identity.membership", "identity.edges"]
    mark = fingerprint(upstream(con, inputs), decisions.fingerprint_of(con), most, size)
    if built(con, "identity.review_queue") == mark:
        return
    with transaction(con):
        replace_table(con, "temp.decided", effective_query())
        replace_table(con, "temp.doubts", _doubts_query(con, size))
        _add_bridges(con)
        replace_table(con, "temp.items", _items_query())
        kept = replace_table(con, "identity.review_queue", _kept_query(most))
        [(found,)] = rows(con, "select count(*) from temp.items")
        con.execute("drop table temp.decided; drop table temp.doubts; drop table temp.items")
        mark_built(con, "identity.review_queue", mark, {"left_out": found - kept})


# ---------------------------------------------------------------- what is doubtful

DOUBT = "left_key, right_key, match_weight, match_probability, evidence"


def _best_query(where: str) -> str:
    """Grain: one row a pair that has edges, decisions aside; its best score and how it was found."""
    return f"""
        select left_key, right_key, max(match_weight) as match_weight, max(match_probability) as match_probability,
            min(coalesce(evidence, 'shared ' || namespace)) as evidence
        from identity.edges where type <> 'decision' and {where} group by left_key, right_key"""


def _doubts_query(con: DuckDBPyConnection, size: int) -> str:
    """Grain: a pair and reason; `parted` is how many records would part, where a query knows."""
    threshold = threshold_in_use(con) or 0.0
    parts = {
        "borderline": _borderline_query(threshold),
        "large_cluster": _large_query(size),
        "conflict_triangle": _triangle_query(threshold),
        "decision_ignored": _ignored_query(),
    }
    found = [
        f"select {literal(reason)} as reason, {DOUBT}, null::bigint as parted, details from ({query})"
        for reason, query in parts.items()
    ]
    return " union all ".join([*found, _cut_query()])


def _borderline_query(threshold: float) -> str:
    """Scored pairs near the threshold or near even odds, unless a shared identifier links them."""
    low, high = min(threshold, 0.0) - NEAR, max(threshold, 0.0) + NEAR
    return f"""
        select {DOUBT}, printf('match weight %.1f, threshold {threshold:.1f}', match_weight) as details
        from identity.edges where type = 'probabilistic' and match_weight between {low} and {high}
            and (left_key, right_key) not in (
                select (left_key, right_key) from identity.edges where type = 'deterministic')"""


def _cut_query() -> str:
    """Links that clustering left out, unless a decision made it do so."""
    return f"""
        select if(reason = {literal(LIMIT_BROKEN)}, 'limit_broken', 'contradicted') as reason, {DOUBT},
            null::bigint as parted, 'the link does not hold: ' || reason as details
        from identity.cut_links join ({_best_query("accepted")}) using (left_key, right_key)
        where reason in ({literal(LIMIT_BROKEN)}, {literal(CONTRADICTED)})"""


def _large_query(size: int) -> str:
    """The weakest link of every cluster that is flagged and more than half as large as allowed."""
    return f"""
        select {DOUBT}, printf('%d records in one profile, at most {size} are allowed', c.cluster_size) as details
        from ({_best_query("accepted")})
        join identity.clusters c on c.record_key = left_key and c.flagged and 2 * c.cluster_size > {size}
        join identity.clusters d on d.record_key = right_key and d.cluster_key = c.cluster_key
        qualify row_number() over (
            partition by c.cluster_key order by coalesce(match_weight, 'infinity'), left_key, right_key) = 1"""


def _triangle_query(threshold: float) -> str:
    """A third record about as close to one as to the other of two that were decided different.

    The question is the weaker of its two ties; there is none when one of them is decided.
    """
    touching = "(left_key in (select node from ends) or right_key in (select node from ends))"
    return f"""
        with apart as (select left_key as a, right_key as b from temp.decided where decision = '{NO_MATCH}'),
        ends as (select a as node from apart union select b from apart),
        near as (
            {_best_query(f"(accepted or match_weight >= {threshold - NEAR}) and {touching}")}
        ), ties as (
            select left_key as node, right_key as other, near.* from near
            union all select right_key, left_key, near.* from near
        ), pairs as (
            select unnest([x, y]) as tie, coalesce(x.match_weight, 'infinity') as wx,
                coalesce(y.match_weight, 'infinity') as wy
            from apart join ties x on x.node = a join ties y on y.node = b and y.other = x.other
            where (x.left_key, x.right_key) not in (select (left_key, right_key) from temp.decided)
                and (y.left_key, y.right_key) not in (select (left_key, right_key) from temp.decided)
        )
        select tie.left_key, tie.right_key, tie.match_weight, tie.match_probability, tie.evidence,
            printf('tied to two records that were decided different, by match weights %.1f and %.1f',
                least(wx, wy), greatest(wx, wy)) as details
        from pairs where coalesce(tie.match_weight, 'infinity') = least(wx, wy)
            and (wx = wy or greatest(wx, wy) - least(wx, wy) <= {2 * NEAR})"""


def _ignored_query() -> str:
    """Pairs decided to match that are in different clusters."""
    return f"""
        select left_key, right_key, max(e.match_weight) as match_weight,
            max(e.match_probability) as match_probability, 'decision' as evidence,
            'decided match, yet kept apart' || coalesce(': ' || min(c.reason), '') as details
        from temp.decided d join identity.clusters l on l.record_key = left_key
        join identity.clusters r on r.record_key = right_key and r.cluster_key <> l.cluster_key
        left join identity.edges e using (left_key, right_key)
        left join identity.cut_links c using (left_key, right_key)
        where decision = '{MATCH}' group by left_key, right_key"""


# ---------------------------------------------------------------- bridges


def _add_bridges(con: DuckDBPyConnection) -> None:
    """Scored links that alone hold two parts of a cluster together, each with at least two records."""
    replace_table(con, "temp.bridge_links", _bridge_links_query())
    replace_table(
        con,
        "temp.bridge_nodes",
        """select record_key, row_number() over (order by record_key) - 1 as n, (kind = 'record')::bigint as weight
        from identity.nodes where record_key in (
            select left_key from temp.bridge_links union select right_key from temp.bridge_links)""",
    )
    ends = con.sql(
        """select l.n as l, r.n as r from temp.bridge_links
        join temp.bridge_nodes l on l.record_key = left_key join temp.bridge_nodes r on r.record_key = right_key
        where true order by left_key, right_key"""
    ).fetchnumpy()
    weight = con.sql("select weight from temp.bridge_nodes order by n").fetchnumpy()["weight"]
    parted = bridges(ends["l"], ends["r"], weight) if len(weight) else []
    con.register(
        "parted_table", pa.table({"l": ends["l"], "r": ends["r"], "parted": pa.array(parted, pa.int64())})
    )
    con.execute(
        f"""insert into temp.doubts
        select 'bridge', {DOUBT}, parted, printf('one link holds %d records to the rest of the profile', parted)
        from parted_table join temp.bridge_nodes a on a.n = l join temp.bridge_nodes b on b.n = r
        join temp.bridge_links on left_key = a.record_key and right_key = b.record_key
        where parted >= 2 and scored_only"""
    )
    con.unregister("parted_table")
    con.execute("drop table temp.bridge_links; drop table temp.bridge_nodes")


def _bridge_links_query() -> str:
    """Links of the clusters that can hold such a bridge: scored ones, and not nearly every pair is linked.

    Two parts of at least two nodes, joined by one link, leave room for (n - 2) (n - 3) / 2 + 2 links at most.
    """
    return f"""
        with links as (
            select left_key, right_key, bool_and(type = 'probabilistic') as scored_only,
                max(match_weight) as match_weight, max(match_probability) as match_probability,
                min(evidence) as evidence
            from identity.edges anti join identity.cut_links using (left_key, right_key)
            where accepted group by left_key, right_key
        ), inside as (
            select k.*, l.cluster_key, l.cluster_size as size from links k
            join identity.clusters l on l.record_key = left_key and l.cluster_size >= 4
            join identity.clusters r on r.record_key = right_key and r.cluster_key = l.cluster_key
        )
        select {DOUBT}, scored_only from inside
        qualify bool_or(scored_only) over (partition by cluster_key)
            and count(*) over (partition by cluster_key) <= (size - 2) * (size - 3) // 2 + 2"""


# ---------------------------------------------------------------- items


def _items_query() -> str:
    """Grain: one row a question, which is a pair of clusters or a pair inside one; decided ones are left out."""
    ranked = " ".join(f"when {literal(reason)} then {rank}" for rank, reason in enumerate(REASONS))
    doubtful = ", ".join(map(literal, CERTAIN_DOUBT))
    return f"""
        with placed as (
            select d.*, case reason {ranked} end as reason_rank, l.cluster_size as left_size,
                r.cluster_size as right_size, l.cluster_key <> r.cluster_key as is_apart,
                least(l.cluster_key, r.cluster_key) as one, greatest(l.cluster_key, r.cluster_key) as two,
                if(is_apart, one, left_key) as this, if(is_apart, two, right_key) as that
            from temp.doubts d join identity.clusters l on l.record_key = left_key
            join identity.clusters r on r.record_key = right_key
        ), kept_apart as (
            select distinct least(l.cluster_key, r.cluster_key) as one, greatest(l.cluster_key, r.cluster_key) as two
            from temp.decided join identity.clusters l on l.record_key = left_key
            join identity.clusters r on r.record_key = right_key where decision = '{NO_MATCH}'
        ), undecided as (
            select * from placed where reason = 'decision_ignored' or (
                (left_key, right_key) not in (select (left_key, right_key) from temp.decided)
                and (reason = 'conflict_triangle' or (one, two) not in (select (one, two) from kept_apart)))
        ), asked as (
            select *, row_number() over question as position, list(reason) over whole as reasons,
                max(parted) over whole as most_parted
            from undecided window whole as (partition by this, that),
                question as (partition by this, that order by reason_rank, match_probability desc nulls last, left_key, right_key)
        ), weighed as (
            select *, coalesce(match_probability, 1.0) as p,
                if(is_apart, least(left_size, right_size), coalesce(most_parted, 1)) as records_affected
            from asked where position = 1
        ), valued as (
            select *, if(reason in ({doubtful}), 1.0, round({_entropy("p")}, 6)) as uncertainty from weighed
        )
        select {PAIR_ID} as item_id, reason,
            list_sort(list_filter(list_distinct(reasons), lambda r: r <> reason)) as other_reasons,
            left_key, right_key, match_weight, match_probability, evidence, records_affected, uncertainty,
            round(uncertainty * records_affected, 6) as value, details
        from valued"""


def _entropy(p: str) -> str:
    """Binary entropy in bits of a probability; 0 at both ends."""
    return f"if({p} > 0 and {p} < 1, -{p} * log2({p}) - (1 - {p}) * log2(1 - {p}), 0.0)"


def _kept_query(most: int) -> str:
    """The items of most value, and some that teach most, with profile ids; `turn` numbers items of one kind of evidence."""
    learning = "turn, uncertainty desc, value desc, item_id"
    return f"""
        with turns as (
            select item_id, uncertainty, value, row_number() over (
                partition by reason, floor(match_weight), split_part(evidence, ';', 1)
                order by uncertainty desc, value desc, item_id) as turn
            from temp.items
        ), best as (
            select item_id, row_number() over (order by {ORDERS["value"]}) as place
            from (select item_id, value from temp.items order by {ORDERS["value"]} limit {most})
        ), teaching as (
            select item_id, {LEARNING_SHARE} * row_number() over (order by {learning}) - 1 as place
            from (from turns order by {learning} limit {most} // {LEARNING_SHARE})
        ), kept as (
            select item_id from (from best union all from teaching)
            group by item_id order by min(place), item_id limit {most}
        ), members as ({MEMBERS})
        select item_id, reason, other_reasons, left_key, right_key, l.profile_id as left_profile_id,
            r.profile_id as right_profile_id, match_weight, match_probability, evidence, records_affected,
            i.uncertainty, i.value, row_number() over (order by turn, i.uncertainty desc, i.value desc, item_id)
                as learning_rank, details
        from kept join temp.items i using (item_id) join turns using (item_id)
        left join members l on l.record_key = left_key left join members r on r.record_key = right_key
        order by i.value desc, item_id"""


# ---------------------------------------------------------------- reading


def queue(
    con: DuckDBPyConnection, order: str = "value", reason: str | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """Items in order that are not decided yet, those included that would have a further reason of that code."""
    _require_queue(con)
    if order not in ORDERS:
        raise PipelineError(f"unknown order `{order}`; known: {', '.join(ORDERS)}")
    if reason is not None and reason not in REASONS:
        raise PipelineError(f"unknown reason `{reason}`; known: {', '.join(REASONS)}")
    return records_of(
        con,
        f"""select * from ({_open_query()}) where ? is null or reason = ? or list_contains(other_reasons, ?)
        order by {ORDERS[order]} limit ?""",
        [reason, reason, reason, limit if limit is not None else 2**31],
    )


def _require_queue(con: DuckDBPyConnection) -> None:
    con.execute(decisions.TABLES)
    if not table_exists(con, "identity.review_queue"):
        raise PipelineError("no review queue yet; `profile-pipeline run` makes it")


def _open_query() -> str:
    """The queue without what was decided since it was written."""
    return f"""
        select * from identity.review_queue q where not exists (
            select 1 from ({effective_query()}) d where d.left_key = q.left_key and d.right_key = q.right_key
                and not (q.reason = 'decision_ignored' and d.decision = '{MATCH}'))"""


@dataclass(frozen=True)
class Item:
    """A pair with everything a steward looks at; `records` are by field, left and right."""

    facts: dict[str, Any]
    records: list[tuple[str, Any, Any]]
    history: list[dict[str, Any]]


def export_queue(
    con: DuckDBPyConnection,
    config: Config,
    path: Path,
    order: str = "value",
    reason: str | None = None,
    limit: int | None = None,
) -> int:
    """Write items to a file in which `decision` and `reason` are to be filled in; how many.

    It holds both records of each item, field by field, left beside right.
    """
    found = queue(con, order, reason, limit)
    values = values_of(con, config, [row[key] for row in found for key in ("left_key", "right_key")])
    fields = [name for name in field_names(config) if any(name in record for record in values.values())]
    rows_ = []
    for row in found:
        left, right = values[row["left_key"]], values[row["right_key"]]
        cells = {**row, "asked": row["reason"], "decision": None, "reason": None}
        both = [record.get(name) for name in fields for record in (left, right)]
        rows_.append([*(cells[column] for column in SHEET), *both])
    sides = [f"{name} {side}" for name in fields for side in ("left", "right")]
    return write_sheet(path, [*SHEET, *sides], rows_)


def pairs_of(con: DuckDBPyConnection, item_ids: list[str]) -> list[decisions.Pair]:
    """The pairs behind names of items, open or decided; raises PipelineError when one is unknown."""
    _require_queue(con)
    found = {
        item_id: (left, right)
        for item_id, left, right in rows(
            con,
            f"""select distinct {PAIR_ID} as item_id, left_key, right_key from (
                select left_key, right_key from identity.review_queue
                union all select left_key, right_key from identity.decisions) where item_id in (select unnest(?))""",
            [item_ids],
        )
    }
    unknown = [item_id for item_id in dict.fromkeys(item_ids) if item_id not in found]
    if unknown:
        raise PipelineError(
            f"no item {', '.join(unknown[:5])} in the queue; `review list` shows those that are"
        )
    return [found[item_id] for item_id in dict.fromkeys(item_ids)]


def item(con: DuckDBPyConnection, config: Config, item_id: str) -> Item:
    """Both records of an item side by side, and what was decided about them."""
    [(left, right)] = pairs_of(con, [item_id])
    known = records_of(con, "select * from identity.review_queue where item_id = ?", [item_id])
    facts_ = known[0] if known else {"item_id": item_id, "left_key": left, "right_key": right}
    history = records_of(
        con,
        "select decision, reason, author, decided_at from identity.decisions where left_key = ? and right_key = ?"
        " order by decided_at desc",
        [left, right],
    )
    return Item(facts_, _side_by_side(con, config, left, right), history)


def _side_by_side(
    con: DuckDBPyConnection, config: Config, left: str, right: str
) -> list[tuple[str, Any, Any]]:
    found = values_of(con, config, [left, right])
    names = [name for name in field_names(config) if any(name in found[key] for key in (left, right))]
    return [(name, found[left].get(name), found[right].get(name)) for name in names]


def field_names(config: Config) -> list[str]:
    """What is shown of a record, in order: its time, its attributes, its identifiers by namespace."""
    return ["observed_at", *config.attributes, *(f"id {name}" for name in config.namespaces)]


def values_of(con: DuckDBPyConnection, config: Config, keys: list[str]) -> dict[str, dict[str, Any]]:
    """Values by record and name, as matching sees them; a record that is gone has none."""
    found: dict[str, dict[str, Any]] = {key: {} for key in keys}
    listed = "".join(f", {name}" for name in config.attributes)
    for row in records_of(
        con,
        f"select record_key, observed_at{listed} from records.current where record_key in (select unnest(?))",
        [keys],
    ):
        found[row.pop("record_key")] |= {name: value for name, value in row.items() if value is not None}
    for key, name, value in rows(
        con,
        "select record_key, namespace, string_agg(distinct value, ', ' order by value) from identity.identifiers"
        " where record_key in (select unnest(?)) group by all",
        [keys],
    ):
        found[key][f"id {name}"] = value
    return found


def numbers(con: DuckDBPyConnection) -> dict[str, int]:
    """Items by reason, and what did not fit."""
    found = dict(rows(con, "select reason, count(*) from identity.review_queue group by 1"))
    return {
        "items": sum(found.values()),
        **{f"items_{reason}": found.get(reason, 0) for reason in REASONS},
        "items_left_out": int(facts(con, "identity.review_queue").get("left_out", 0)),
    }
