"""Identities known from events only join the profile that holds their identifier, when there is exactly one.

An e-mail or payment card may be shared in a family, so it does not link records by itself. Yet a newsletter
click that names it belongs to its only holder. With several holders nobody can tell: the identity stays apart.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity import changes
from profile_pipeline.warehouse import literal, replace_table, write_differing

TOUCHED = """
    with before as (from identity.attachments), now as (from temp.attached),
    moved as ((from before except from now) union all (from now except from before)),
    differing as (
        select group_node from temp.groups_differing where group_node is not null
        union select group_node from temp.groups_now semi join temp.groups_differing using (node)
    ), found as (
        from differing
        union
        select group_node from (from before union all from now)
        where node in (from differing union all select node from moved)
    )
    from found union select node from (from before union all from now) where group_node in (from found)"""
"""Groups whose cluster is written again: they differ, or an identity that joins or left them does, or it joined or left
them now; and all such identities, each of which is a group of one."""
MEMBERS = """
    from temp.groups_now where group_node in (from temp.groups_touched) union all
    select record_key, node, group_node, flagged from identity.groups
    where group_node in (from temp.groups_touched except select group_node from temp.groups_now)"""
"""All nodes of these groups; a group that was computed afresh is in temp.groups_now as a whole."""
CLUSTERS = """
    with placed as (
        select g.record_key, g.node, coalesce(a.group_node, g.group_node) as place, flagged
        from {} g left join temp.attached a using (node)
    )
    select record_key, cluster_key, cluster_size, flagged, node
    from (select place, record_key, node from placed) join (
        select place, min(record_key) as cluster_key, count(*) as cluster_size, bool_or(flagged) as flagged
        from placed group by place) using (place)"""
"""Grain: one row a node of a table of whole groups."""
NOTED = """
    with moved as (
        select cluster_key from temp.differing where cluster_key is not null
        union select cluster_key from temp.clusters_now semi join temp.differing using (node)
    )
    select node from temp.differing union all select node from temp.clusters_now where cluster_key in (from moved)"""
"""All nodes of clusters, before and now, in which any differs. One that does not has the same cluster in both."""


def attach_lone_identities(con: DuckDBPyConnection, config: Config, *, whole: bool) -> None:
    """Write identity.attachments (grain: one row an identity that found its holder) and identity.clusters.

    Cookies and devices are never attached: whose they are is decided event by event. Reads `groups_now`, the groups that
    were computed afresh, and `groups_differing`, the nodes that differ with their group before. A cluster that lost or
    gained a node, or was flagged, is noted for the ledger with all its nodes, before and now.
    """
    replace_table(con, "temp.attached", _only_holders_query(config))
    _leave_crowding(con, config)
    if whole:
        con.execute(f"insert into identity.clusters {CLUSTERS.format('identity.groups')}")
    else:
        _rewrite(con)
    con.execute("create or replace table identity.attachments as from temp.attached")
    con.execute("drop table temp.attached")


def _rewrite(con: DuckDBPyConnection) -> None:
    """Compute the clusters of touched groups again, and write what differs."""
    replace_table(con, "temp.groups_touched", TOUCHED)
    replace_table(con, "temp.rewritten", MEMBERS)
    replace_table(con, "temp.clusters_now", CLUSTERS.format("temp.rewritten"))
    looked_at = "select node from temp.groups_differing union select node from temp.rewritten"
    compared = ("cluster_key", "cluster_size", "flagged")
    write_differing(con, "identity.clusters", "temp.clusters_now", compared, looked_at)
    changes.note(con, "ids", NOTED)
    for table in ("groups_touched", "rewritten", "clusters_now", "differing"):
        con.execute(f"drop table temp.{table}")


def _leave_crowding(con: DuckDBPyConnection, config: Config) -> None:
    """Take out of temp.attached whoever would bring a group more values of a limited namespace than it may have.

    Of several that together would, all that bring a value it does not hold: nobody can tell which of them belongs.
    """
    most = {name: space.unique for name, space in config.namespaces.items() if space.unique}
    cases = " ".join(f"when {literal(name)} then {limit}" for name, limit in most.items())
    limited = f"""
        namespace in ({", ".join(map(literal, most)) or "null"})
        and value_key not in (select hash(namespace, value) from identity.generic_values)"""
    stated = f"""
        select node, group_node, namespace, value_key
        from (select node, group_node from temp.attached) join identity.subject_identifiers using (node) where {limited}"""
    if replace_table(con, "temp.stated", stated):
        con.execute(
            f"""delete from temp.attached where node in (
            with members as materialized (
                select node, group_node from identity.groups where group_node in (select group_node from stated)
            ), held as materialized (
                select distinct group_node, namespace, value_key
                from (from identity.identifiers where {limited} and node in (select node from members)) join members using (node)
            ), brought as (from stated anti join held using (group_node, value_key)),
            crowded as (
                select group_node, namespace from (
                    from held union all select group_node, namespace, value_key from brought)
                group by all having count(distinct value_key) > case namespace {cases or "when '' then 0"} end
            )
            select node from brought semi join crowded using (group_node, namespace))"""
        )
    con.execute("drop table temp.stated")


def _only_holders_query(config: Config) -> str:
    """Grain: one row an identity whose identifiers exactly one other group holds."""
    return f"""
        with lone as materialized ({lone_query(config)}),
        held as materialized (
            select node, record_key, value_key from identity.identifiers where value_key in (select value_key from lone)
        )
        select lone.record_key, lone.node, min(lone.namespace) as namespace, min(h.record_key) as holder_key,
            min(g.group_node) as group_node
        from lone join held h using (value_key) join identity.groups g on g.node = h.node
        where h.record_key <> lone.record_key
        group by lone.record_key, lone.node
        having count(distinct g.group_node) = 1 and min(g.group_node) not in (select node from lone)"""


def lone_query(config: Config) -> str:
    """What may lead an identity by itself to its holder: (node, record_key, namespace, value_key), a row an identifier."""
    spaces = [n for n, s in config.namespaces.items() if s.kind == "person" and not s.link and not s.unique]
    listed = ", ".join(map(literal, spaces)) or "null"
    return f"""
        with people as (select node, record_key from identity.nodes where kind = 'person'),
        alone as (
            select group_node as node from identity.groups
            where group_node in (select node from people) group by group_node having count(*) = 1
        )
        select node, record_key, namespace, value_key
        from people semi join alone using (node) join identity.subject_identifiers using (record_key)
        where namespace in ({listed})
            and value_key not in (select hash(namespace, value) from identity.generic_values)"""
