"""One table of edges: shared strong identifiers, Splink scores, and decisions; and the components they make.

Grain: one row a pair of nodes and type (and shared value). Scores are kept down to a floor well below the threshold,
so that another threshold needs no new scoring. `accepted` edges are links.

Only what touches a changed record is looked at again: its identifiers, its blocks, its pairs, and the whole
components on either side. Everything else stays as it is, which is the same as computing it afresh, since under
one model every edge depends on its own records and blocks, and every component on its own edges.
"""

from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline import decisions
from profile_pipeline.config.load import Config
from profile_pipeline.identity import blocking, changes, closures, strong
from profile_pipeline.identity.linker import load_frequencies, scoring_query, splink_version
from profile_pipeline.identity.missed import estimate_missed
from profile_pipeline.identity.model import Model, active_model
from profile_pipeline.identity.scoring import SCORED, Scorer, probability_query, scored_settings
from profile_pipeline.identity.training import own_pairs_query
from profile_pipeline.warehouse import (
    PLAIN,
    built,
    columns_of,
    continues,
    database_name,
    facts,
    fingerprint,
    last_full,
    literal,
    mark_built,
    records_of,
    replace_table,
    rows,
    scratch,
    transaction,
    upstream,
    write_differing,
)

EDGES = f"""create table if not exists identity.edges (
    left_key text not null {PLAIN}, right_key text not null {PLAIN}, type text not null, namespace text, strength integer not null,
    match_weight double, match_probability double, evidence text, model_id text, accepted boolean not null,
    closure boolean not null, value_key ubigint, left_node ubigint not null, right_node ubigint not null)"""
COMPONENTS = (
    "create table if not exists identity.components (node ubigint not null, component ubigint not null)"
)
TABLES = {"edges": EDGES, "components": COMPONENTS}
NEW_PAIRS = "a.unique_id <> b.unique_id and (a.unique_id < b.unique_id or b.unique_id not in (from changed))"
"""Both sides are looked up from the changed one; a pair of two changed records is seen from one side only."""


@dataclass(frozen=True)
class Scope:
    """What one run has to do: everything, or what `changed` of the scratch database touches."""

    work: DuckDBPyConnection
    config: Config
    model: Model | None
    database: str
    whole: bool

    @property
    def matches(self) -> Model | None:
        """The model, where there is anything to score with."""
        model = self.model if self.config.identity.matching.enabled else None
        return model if model and model.settings["comparisons"] else None

    def table(self, name: str) -> str:
        """A table of the identity schema, seen from the scratch database."""
        return f"{self.database}.identity.{name}"


def build_edges(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.edges, identity.blocking_keys and identity.components when nodes, features, decisions or rules changed."""
    con.execute(decisions.TABLES)
    model = active_model(con)
    base = _base(con, config, model)
    inputs = upstream(con, ["identity.nodes", "identity.features"])
    mark = fingerprint(inputs, decisions.fingerprint_of(con), base)
    if built(con, "identity.edges") == mark:
        return
    whole = not continues(con, "identity.edges", base)
    with scratch(con) as work:
        con.execute(changes.TABLE)
        for statement in TABLES.values():
            con.execute(statement)
        blocking.create_tables(con, afresh=False)
        scope = Scope(work, config, model, database_name(con), whole)
        scorer = _scorer(con, scope, scope.matches) if scope.matches else None
        noted = _compute(scope, scorer)
        with transaction(con):
            _write(con, scope)
            full = mark if whole else last_full(con, "identity.edges")
            kept = {} if whole else facts(con, "identity.edges")
            totals = scored_totals(con)
            noted |= {"scored": totals} | expected_quality(totals)
            mark_built(con, "identity.edges", mark, {**kept, **noted, "base": base, "full": full})


def _base(con: DuckDBPyConnection, config: Config, model: Model | None) -> str:
    """Whatever it depends on that every edge depends on: a change means a full rebuild."""
    matching = config.identity.matching
    return fingerprint(
        matching.model_dump(),
        {name: space.model_dump() for name, space in config.namespaces.items()},
        model and model.model_id,
        [last_full(con, f"identity.{name}") for name in ("nodes", "features")],
    )


def threshold_in_use(con: DuckDBPyConnection) -> float | None:
    """The match weight above which pairs are links, as last decided."""
    return facts(con, "identity.edges").get("threshold")


def _compute(scope: Scope, scorer: Scorer | None) -> dict[str, Any]:
    """Everything new, in the scratch database; what is worth noting."""
    work = scope.work
    _find_changed(scope)
    threshold = _threshold(scope)
    noted: dict[str, Any] = {"threshold": threshold}
    work.execute(f"create or replace table scored {SCORED}")
    work.execute(f"create or replace table keys {blocking.KEYS}")
    if scorer and scope.matches:
        noted |= _score(scope, scope.matches, scorer)
    strong.write_shared(work, scope.config, scope.database, "" if scope.whole else "changed")
    strong.write_decided(work, scope.database)
    _write_edges(scope, threshold)
    _find_affected(scope)
    if not scope.whole:
        _find_old_edges(scope)
    closures.write_components(work, _links_query(scope))
    work.execute(f"create or replace table closed {SCORED}")
    work.execute(f"create or replace table unfound {closures.UNFOUND}")
    if scorer:
        _show_features(scope)
        closures.write_pairs(work, _known_query(scope), _held_query(scope))
        _show_features(scope, "unscored")
        scorer.score("unscored", "closed")
    _add_closures(scope, threshold)
    return noted


def _find_changed(scope: Scope) -> None:
    """`changed` (unique_id): the nodes that were noted by the steps before."""
    query = changes.noted_query("edges", scope.database) + (" limit 0" if scope.whole else "")
    replace_table(scope.work, "changed", f"select node as unique_id from ({query})")


def _threshold(scope: Scope) -> float:
    own = scope.config.identity.matching.threshold
    return own if own is not None else (scope.model.threshold if scope.model else 0.0)


# ---------------------------------------------------------------- scores


def _scorer(con: DuckDBPyConnection, scope: Scope, model: Model) -> Scorer:
    _show_features(scope)
    load_frequencies(scope.work, model.settings, model.model_id, scope.database)
    household = model.manifest.get("household")
    query = _scoring_query(con, scored_settings(model.settings, household))
    return Scorer(scope.work, query, model.settings, household)


def _scoring_query(con: DuckDBPyConnection, settings: dict[str, Any]) -> str:
    """Splink's query under the active model: written once for a model, since to ask takes longer than a small change."""
    columns = columns_of(con, "identity.features")
    mark = fingerprint(settings, columns, splink_version())
    if built(con, "identity.scoring") != mark:
        mark_built(con, "identity.scoring", mark, {"query": scoring_query(settings, columns)})
    return facts(con, "identity.scoring")["query"]


def _score(scope: Scope, model: Model, scorer: Scorer) -> dict[str, Any]:
    """Write `scored`, the candidate pairs from the floor up, and `keys`, the blocking keys in use."""
    work = scope.work
    noted = _block(scope, model)
    _show_features(scope, "" if scope.whole else "pairs")
    pairs = scorer.score("pairs", "scored", floor=scope.config.identity.matching.floor)
    if scope.whole and noted["rules"]:
        noted["capped_blocks"] = estimate_missed(work, scorer, noted["rules"])
    work.execute("drop table pairs")
    return {**noted, "candidate_pairs": pairs}


def _show_features(scope: Scope, pairs: str = "") -> None:
    """Let `features` be those of all records, or, where few are needed, of the records in a table of pairs."""
    shown = scope.table("features")
    if pairs:
        shown += (
            f" where unique_id in (select join_key_l from {pairs} union all select join_key_r from {pairs})"
        )
    scope.work.execute(f"create or replace view features as select * from {shown}")


def _block(scope: Scope, model: Model) -> dict[str, Any]:
    """Write `keys` and `pairs`; the names of the rules in the order of their numbers."""
    work, rules, caps = scope.work, model.rules(scope.config), model.manifest["caps"]
    if not rules:
        replace_table(work, "pairs", own_pairs_query(model.settings, "" if scope.whole else "changed"))
    elif scope.whole:
        blocking.write_all_keys(work, rules, caps, "features")
        replace_table(work, "pairs", blocking.pairs_query("keys", "keys"))
    else:
        _block_changed(scope, rules, caps)
    return {"rules": [rule.name for rule in rules]}


def _block_changed(scope: Scope, rules: list[blocking.BlockingRule], caps: blocking.Caps) -> None:
    work = scope.work
    blocking.write_changed_keys(work, rules, caps, scope.table("features"), f"{scope.database}.identity")
    around = """(
        select key, unique_id, rule from others anti join keys using (base, unique_id)
        union all select key, unique_id, rule from keys)"""
    own = "(from keys semi join changed using (unique_id))"
    replace_table(work, "pairs", blocking.pairs_query(own, around, NEW_PAIRS))
    work.execute("drop table others")


# ---------------------------------------------------------------- edges of the scratch database


def _write_edges(scope: Scope, threshold: float) -> None:
    """`new_edges`: what replaces the edges of the changed records, closures not yet among them."""
    work = scope.work
    work.execute(
        EDGES.replace("identity.edges", "new_edges").replace(
            "create table if not exists", "create or replace table"
        )
    )
    work.execute(
        """insert into new_edges
        select left_key, right_key, 'deterministic', namespace, strength, null, 1.0, null, null, true, false, value_key,
            hash(left_key), hash(right_key)
        from shared
        union all
        select left_key, right_key, 'decision', null, $strength, null, accepted::integer, null, null, accepted, false, null,
            left_node, right_node
        from decided""",
        {"strength": strong.MATCH_STRENGTH},
    )
    if scope.matches:
        names = [rule.name for rule in scope.model.rules(scope.config)] if scope.model else []
        listed = ", ".join(literal(f"found by {name}") for name in names)
        evidence = f"[{listed}][match_key + 1]" if names else "'found by an own rule'"
        edges = _edges_query(scope, "scored", threshold, evidence, closure=False)
        work.execute(f"insert into new_edges {edges}")


def _edges_query(scope: Scope, scored: str, threshold: float, evidence: str, *, closure: bool) -> str:
    """Scored pairs as edges; under the same model a link stays one until it falls below the lower threshold."""
    band = scope.config.identity.matching.hysteresis
    model_id = scope.model.model_id if scope.model else ""
    before = f"""select hash(left_key), hash(right_key) from {scope.table("edges")}
        where type = 'probabilistic' and accepted and model_id = {literal(model_id)}"""
    kept = (
        f" or (match_weight >= {threshold - band} and (left_node, right_node) in ({before}))" if band else ""
    )
    return f"""
        with ends as (
            select unique_id, record_key from {scope.table("features")}
            where unique_id in (select unnest([join_key_l, join_key_r]) from {scored})
        ), named as (
            select least(l.record_key, r.record_key) as left_key, greatest(l.record_key, r.record_key) as right_key,
                hash(left_key) as left_node, hash(right_key) as right_node, match_weight, relief, match_key
            from {scored} join ends l on l.unique_id = join_key_l join ends r on r.unique_id = join_key_r
        )
        select left_key, right_key, 'probabilistic', null, 0, match_weight, {probability_query("match_weight")},
            {evidence} || if(relief >= 0.5, '; a shared household explains '
                || round(relief, 1)::decimal(9, 1) || ' bits', ''), {literal(model_id)},
            match_weight >= {threshold}{kept}, {closure}, null, left_node, right_node from named"""


def _add_closures(scope: Scope, threshold: float) -> None:
    if scope.matches:
        evidence = literal(closures.CLOSED)
        edges = _edges_query(scope, "closed", threshold, evidence, closure=True)
        scope.work.execute(f"insert into new_edges {edges}")


STALE = """
    (type = 'probabilistic' and (left_node in (from changed) or right_node in (from changed)))
    or (type = 'deterministic' and value_key in (from stale_values)) or type = 'decision'"""
"""Condition: edges from before that `new_edges` replaces, closures apart."""


def _find_affected(scope: Scope) -> None:
    """`affected`: every node of every component that lost, gained or re-weighted something; all when whole."""
    work, nodes = scope.work, scope.table("nodes")
    if scope.whole:
        replace_table(work, "affected", f"select node from {nodes}")
        return
    edges, components = scope.table("edges"), scope.table("components")
    before = f"select left_node, right_node, accepted from {edges} where type = 'decision'"
    decided = "select left_node, right_node, accepted from decided"
    replace_table(
        work,
        "dirty",
        f"""with ends as (
            select left_node, right_node from new_edges where accepted and type <> 'decision'
            union all
            select left_node, right_node from {edges} where type = 'deterministic' and value_key in (from stale_values)
            union all
            select left_node, right_node from (({before} except {decided}) union all ({decided} except {before}))
        )
        select unique_id as node from changed union select left_node from ends union select right_node from ends""",
    )
    replace_table(
        work,
        "gone_or_affected",
        f"""select node from dirty union
        select node from {components} where component in (
            select component from {components} where node in (from dirty))""",
    )
    replace_table(work, "affected", f"select node from gone_or_affected semi join {nodes} using (node)")
    work.execute("drop table dirty")


def _find_old_edges(scope: Scope) -> None:
    """`old_edges`: those from before that touch an affected node or a change, `stale` where `new_edges` replaces them.

    Closures are stale here, unless they turn out to hold as they are (`unfound`). Both ends of a link by a value of
    `stale_values` are affected.
    """
    work, edges = scope.work, scope.table("edges")
    apart = "left_node not in (from gone_or_affected)"
    # one query a condition reads one column each, and what is not asked for is passed over
    conditions = (
        "left_node in (from gone_or_affected)",
        f"right_node in (from changed) and {apart} and type <> 'decision'",
        f"type = 'decision' and {apart}",
    )
    columns = "rowid as place, left_node, right_node, type, match_weight, accepted, closure, value_key"
    found = " union all ".join(f"select {columns} from {edges} where {condition}" for condition in conditions)
    replace_table(
        work,
        "old_edges",
        f"""select * exclude (value_key),
            case when closure then left_node in (from gone_or_affected) else {STALE} end as stale
        from ({found})""",
    )


def _links_query(scope: Scope) -> str:
    """Links between affected nodes that need no closure to be known: (left_node, right_node, weight)."""
    found = "select left_node, right_node, match_weight, accepted, closure from new_edges"
    if not scope.whole:
        found += """ union all select left_node, right_node, match_weight, accepted, closure from old_edges
            where left_node in (from affected) and not stale"""
    return f"""select left_node, right_node, coalesce(match_weight, 1000.0) as weight from ({found})
        where accepted and not closure"""


def _known_query(scope: Scope) -> str:
    """Scored candidate pairs of affected nodes: (left_node, right_node)."""
    found = "select left_node, right_node from new_edges where type = 'probabilistic'"
    if scope.whole:
        return found
    return f"""{found} union all select left_node, right_node from old_edges
        where type = 'probabilistic' and left_node in (from affected) and not closure and not stale"""


def _held_query(scope: Scope) -> str:
    """Closures of two records that did not change: under one model they score what they did (place, left_node, right_node)."""
    if scope.whole:
        return "select null as place, left_node, right_node from new_edges limit 0"
    return """select place, left_node, right_node from old_edges
        where closure and stale and left_node not in (from changed) and right_node not in (from changed)"""


# ---------------------------------------------------------------- the warehouse


def _write(con: DuckDBPyConnection, scope: Scope) -> None:
    """Bring the warehouse up to date from the scratch database, and tell the clusters what to look at."""
    main = "scratch.main"
    if scope.whole:
        for statement in TABLES.values():
            con.execute(statement.replace("create table if not exists", "create or replace table"))
        blocking.create_tables(con, afresh=True)
    else:
        held = f"select place from {main}.unfound where place is not null"
        gone = f"select place from {main}.old_edges where stale and place not in ({held})"
        con.execute(f"delete from identity.edges where rowid in ({gone})")
        changes.note(con, "clusters", f"from {main}.gone_or_affected")
    con.execute(f"insert into identity.edges from {main}.new_edges")
    if scope.whole:
        con.execute(f"insert into identity.components from {main}.components")
    else:
        affected = f"from {main}.gone_or_affected"
        write_differing(con, "identity.components", f"{main}.components", ["component"], affected)
        con.execute("drop table temp.differing")
    if scope.matches and scope.whole:
        written = blocking.kept_query(f"{main}.keys")
        con.execute(f"insert into identity.settled_keys ({blocking.KEPT_COLUMNS}) {written}")
    elif scope.matches:
        blocking.keep_keys(con, f"{main}.keys", f"{main}.changed")
    changes.forget(con, "edges")


def scored_totals(con: DuckDBPyConnection) -> dict[str, float]:
    """Of the scored pairs that are kept: `links`, the sum of match probabilities of these (`found`) and of all (`total`)."""
    return records_of(
        con,
        """select count(*) filter (accepted) as links, coalesce(sum(match_probability) filter (accepted), 0) as found,
            coalesce(sum(match_probability), 0) as total
        from identity.edges where type = 'probabilistic'""",
    )[0]


def expected_quality(totals: dict[str, float]) -> dict[str, float | None]:
    """Mean match probability of links, and the share of the expected matches among candidates that they are."""
    links, found, total = (totals[name] for name in ("links", "found", "total"))
    return {
        "expected_precision": found / links if links else None,
        "expected_recall_of_candidates": found / total if links else None,
    }


def weight_histogram(con: DuckDBPyConnection) -> list[tuple[float, int]]:
    """Number of scored pairs by match weight, in steps of one."""
    return rows(
        con,
        "select floor(match_weight) as w, count(*) from identity.edges where type = 'probabilistic'"
        " group by 1 order by 1",
    )
