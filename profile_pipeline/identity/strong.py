"""Edges that need no score: nodes that share a strong identifier, and what a steward has decided."""

from duckdb import DuckDBPyConnection

from profile_pipeline import decisions
from profile_pipeline.config.load import Config
from profile_pipeline.warehouse import literal, replace_table

MATCH_STRENGTH, STRONGEST_NAMESPACE = 2000, 1000
"""Order in which links are taken when a limit forces a choice: decisions, namespaces by priority, then scores (0)."""


def write_shared(work: DuckDBPyConnection, config: Config, database: str, changed: str = "") -> None:
    """Write `shared`: nodes that share a value of a linking namespace, a star around the smallest key.

    With `changed`, a table of nodes: only for values that these nodes hold or held; `stale_values` are the
    value keys whose edges are replaced.
    """
    strength = {
        name: STRONGEST_NAMESPACE - rank
        for rank, (_, name) in enumerate(
            sorted((s.priority, n) for n, s in config.namespaces.items() if s.kind == "person" and s.link)
        )
    }
    cases = " ".join(f"when {literal(name)} then {value}" for name, value in strength.items())
    spaces = ", ".join(map(literal, strength)) or "null"
    linking = f"""
        select record_key, namespace, value_key from {database}.identity.identifiers
        where namespace in ({spaces})
            and value_key not in (select hash(namespace, value) from {database}.identity.generic_values)"""
    if changed:
        replace_table(
            work,
            "stale_values",
            f"""select value_key from {database}.identity.identifiers
            where namespace in ({spaces}) and node in (from {changed})
            union select value_key from {database}.identity.edges
            where value_key is not null and (left_node in (from {changed}) or right_node in (from {changed}))""",
        )
        linking += " and value_key in (from stale_values)"
    replace_table(work, "linking", linking)
    replace_table(
        work,
        "shared",
        f"""with held as (
            select * from linking semi join (
                select value_key from linking group by value_key having count(*) > 1) using (value_key)
        ), stars as (
            select *, min(record_key) over (partition by value_key) as hub from held
        )
        select hub as left_key, record_key as right_key, namespace,
            case namespace {cases or "when '' then 0"} end as strength, value_key
        from stars where record_key <> hub""",
    )
    work.execute("drop table linking")


def write_decided(work: DuckDBPyConnection, database: str) -> None:
    """Write `decided`: the decisions in force between nodes that exist now."""
    nodes = f"select node from {database}.identity.nodes"
    replace_table(
        work,
        "decided",
        f"""select *, hash(left_key) as left_node, hash(right_key) as right_node from (
            select left_key, right_key, decision = {literal(decisions.MATCH)} as accepted
            from ({decisions.effective_query(f"{database}.identity")}))
        where left_node in ({nodes}) and right_node in ({nodes})""",
    )
