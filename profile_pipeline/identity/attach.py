"""Identities known from events only join the profile that holds their identifier, when there is exactly one.

An e-mail or payment card may be shared in a family, so it does not link records by itself. Yet a newsletter
click that names it belongs to its only holder. With several holders nobody can tell: the identity stays apart.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity import changes
from profile_pipeline.warehouse import literal, replace_table

TOUCHED = """
    select group_key from identity.groups where record_key in (select record_key from numbered)
    union
    select group_key from (
        (from identity.attachments except from temp.attached) union all
        (from temp.attached except from identity.attachments))"""
"""Groups whose cluster is written again: they were computed afresh, or somebody joined or left them."""
CLUSTERS = """insert into identity.clusters
    with placed as (
        select g.record_key, coalesce(a.group_key, g.group_key) as place, flagged
        from identity.groups g left join temp.attached a using (record_key) {}
    )
    select record_key, cluster_key, cluster_size, flagged
    from (select place, record_key from placed) join (
        select place, min(record_key) as cluster_key, count(*) as cluster_size, bool_or(flagged) as flagged
        from placed group by place) using (place)"""


def attach_lone_identities(con: DuckDBPyConnection, config: Config, *, whole: bool) -> None:
    """Write identity.attachments (grain: one row an identity that found its holder) and identity.clusters.

    Cookies and devices are never attached: whose they are is decided event by event. Reads `gone` and `numbered`,
    the nodes whose group may have changed. Records in clusters that are written again are noted for the ledger.
    """
    replace_table(con, "temp.attached", _attachments_query(config))
    if whole:
        con.execute(CLUSTERS.format(""))
    else:
        _rewrite(con)
    con.execute("create or replace table identity.attachments as from temp.attached")
    con.execute("drop table temp.attached")


def _rewrite(con: DuckDBPyConnection) -> None:
    """Write the clusters of touched groups again."""
    replace_table(con, "temp.groups_touched", TOUCHED)
    replace_table(
        con,
        "temp.rewritten",
        """select record_key from temp.gone
        union select record_key from identity.groups semi join temp.groups_touched using (group_key)
        union select record_key from temp.attached semi join temp.groups_touched using (group_key)
        union select record_key from identity.attachments semi join temp.groups_touched using (group_key)""",
    )
    con.execute("delete from identity.clusters where record_key in (from temp.rewritten)")
    con.execute(CLUSTERS.format("where g.record_key in (from temp.rewritten)"))
    changes.note(con, "ids", "from temp.rewritten")
    con.execute("drop table temp.groups_touched; drop table temp.rewritten")


def _attachments_query(config: Config) -> str:
    spaces = [n for n, s in config.namespaces.items() if s.kind == "person" and not s.link and not s.unique]
    listed = ", ".join(map(literal, spaces)) or "null"
    return f"""
        with people as (select record_key from identity.nodes where kind = 'person'),
        alone as (
            select group_key as record_key from identity.groups
            where group_key in (from people) group by group_key having count(*) = 1
        ), lone as (
            select record_key, namespace, value, hash(namespace, value) as value_key
            from people semi join alone using (record_key) join identity.identifiers using (record_key)
            where namespace in ({listed})
                and (namespace, value) not in (select (namespace, value) from identity.generic_values)
        ), held as (
            select record_key, hash(namespace, value) as value_key from identity.identifiers where namespace in ({listed})
        )
        select lone.record_key, min(lone.namespace) as namespace, min(h.record_key) as holder_key,
            min(g.group_key) as group_key
        from lone join held h using (value_key) join identity.groups g on g.record_key = h.record_key
        where h.record_key <> lone.record_key
        group by lone.record_key
        having count(distinct g.group_key) = 1 and min(g.group_key) not in (select record_key from lone)"""
