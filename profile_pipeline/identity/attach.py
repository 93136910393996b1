"""Identities known from events only join the profile that holds their identifier, when there is exactly one.

An e-mail or payment card may be shared in a family, so it does not link records by itself. Yet a newsletter
click that names it belongs to its only holder. With several holders nobody can tell: the identity stays apart.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.warehouse import literal, replace_table


def attach_lone_identities(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.attachments (one row an identity that found its holder) and move those in identity.clusters.

    Cookies and devices are never attached: whose they are is decided event by event.
    """
    spaces = [n for n, s in config.namespaces.items() if s.kind == "person" and not s.link and not s.unique]
    listed = ", ".join(map(literal, spaces)) or "null"
    replace_table(
        con,
        "identity.attachments",
        f"""with lone as (
            select record_key, namespace, value from identity.clusters join identity.nodes using (record_key)
            join identity.identifiers using (record_key)
            where kind = 'person' and cluster_size = 1 and namespace in ({listed})
                and (namespace, value) not in (select (namespace, value) from identity.generic_values)
        )
        select lone.record_key, min(lone.namespace) as namespace, min(h.record_key) as holder_key,
            min(c.cluster_key) as cluster_key
        from lone join identity.identifiers h on h.namespace = lone.namespace and h.value = lone.value
            and h.record_key <> lone.record_key
        join identity.clusters c on c.record_key = h.record_key
        group by lone.record_key
        having count(distinct c.cluster_key) = 1 and min(c.cluster_key) not in (select record_key from lone)""",
    )
    _move(con)


def _move(con: DuckDBPyConnection) -> None:
    """A cluster keeps its smallest record key as its name, and its new size."""
    replace_table(
        con,
        "identity.clusters",
        """with moved as (
            select c.* replace (coalesce(a.cluster_key, c.cluster_key) as cluster_key)
            from identity.clusters c left join identity.attachments a using (record_key)
        )
        select record_key, min(record_key) over (partition by cluster_key) as cluster_key,
            count(*) over (partition by cluster_key) as cluster_size, flagged from moved""",
    )
