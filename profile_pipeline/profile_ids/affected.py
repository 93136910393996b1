"""Which records the ledger has to look at: those of ids and clusters that are not simply the same people.

An id and a cluster are the same people when the same records are in both. Such a pair is an island: nothing
outside can claim the id or the cluster, so leaving it out changes no result. Cost follows what is left.

After a revision all are islands. So when clusters were only brought up to date since, the records whose cluster was
written again tell what to look at, with all others of that cluster, before and now; when all were computed afresh, ids
and clusters are compared.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.identity import changes
from profile_pipeline.profile_ids.tables import MEMBERS
from profile_pipeline.warehouse import count, replace_table

PEOPLE = "bit_xor(node) as x, sum(node) as s"
"""128 bits of a set of nodes: among a million sets, two that differ agree with odds of 1 in 10^25."""


def find_affected(con: DuckDBPyConnection, *, known: bool, everything: bool = False) -> int:
    """Write temp.affected (node, record_key, cluster_key, profile_id, from_revision) and return its rows.

    Grain: one row a record; no cluster: it is gone, no id: it is new. `known`: what changed since the last revision
    has been noted. `everything` leaves nothing out.
    """
    held = "select node, record_key, profile_id, from_revision from identity.membership where to_revision is null"
    grouped = "select node, record_key, cluster_key from identity.clusters"
    if not (everything or count(con, "identity.revisions") == 0):
        replace_table(con, "temp.touched", _touched_query(known=known, pins=count(con, "identity.pins") > 0))
        held += " and node in (from touched)"
        grouped += " where node in (from touched)"
    found = replace_table(
        con, "temp.affected", f"select * from ({held}) full join ({grouped}) using (node, record_key)"
    )
    con.execute("drop table if exists touched")
    return found


def _touched_query(*, known: bool, pins: bool) -> str:
    """Nodes of the ids and clusters without a twin; with pins, also of those that a pin pulls apart."""
    query = changes.noted_query("ids") if known else _nodes_query(_compared_query())
    return f"{query} union {_nodes_query(_pulled_query())}" if pins else query


def _nodes_query(found: str) -> str:
    """Nodes of ids and clusters (profile_id, cluster_key; either may be missing)."""
    return f"""
        from (
            with found as materialized ({found})
            select node from identity.membership
            where to_revision is null and profile_id in (select profile_id from found where profile_id is not null)
            union
            select node from identity.clusters
            where cluster_key in (select cluster_key from found where cluster_key is not null)
        )"""


def _compared_query() -> str:
    """Ids and clusters that have not the same records (profile_id, cluster_key)."""
    return f"""
        with profiles as (
            select profile_id, {PEOPLE} from identity.membership where to_revision is null group by profile_id
        ), clusters as (select cluster_key, {PEOPLE} from identity.clusters group by cluster_key)
        select profile_id, cluster_key from profiles full join clusters using (x, s)
        where profile_id is null or cluster_key is null"""


def _pulled_query() -> str:
    """What a pin concerns that is new or whose record has another id: both ids, with the clusters of both."""
    return f"""
        with members as ({MEMBERS}), pulled as (
            select p.profile_id, c.cluster_key, m.profile_id as holder
            from identity.pins p left join identity.clusters c using (record_key) left join members m using (record_key)
            where p.revision is null or (c.cluster_key is not null and m.profile_id is distinct from p.profile_id)
        )
        select profile_id, cluster_key from pulled
        union all select holder, null from pulled
        union all select null, c.cluster_key from pulled join members m using (profile_id)
            join identity.clusters c on c.record_key = m.record_key"""
