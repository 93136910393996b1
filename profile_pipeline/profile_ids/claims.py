"""Which id goes to which cluster: claims in a total order, walked greedily; then revival; then new ids.

The order: pinned, weight of the shared records, share of the old id, older id, id, records that have been with
the id for longer, smallest record key of the cluster.
"""

import uuid

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.decisions import effective_query
from profile_pipeline.warehouse import literal, replace_table, rows, table_exists

NAMESPACE = uuid.UUID("6f1d2c3a-5b7e-5c1f-9a55-0d3c8f0b7e21")
EVENT_NODE_WEIGHT = 0.5
"""What an identity known only from events weighs when records decide where an id goes; a record weighs 1."""
DECIDED_WEIGHT = 1000
"""What a record weighs that a steward has decided about: more than any cluster of others."""
Claim = tuple[str, str]
"""A cluster and the id that claims it."""


def claim_clusters(con: DuckDBPyConnection, config: Config) -> None:
    """Write temp.claimed (cluster_key, profile_id) and temp.minted for the clusters of temp.affected."""
    replace_table(con, "temp.overlap", _overlap_query(_weight(con, config)))
    con.execute("create or replace temp table claimed (cluster_key text, profile_id text)")
    con.execute("insert into claimed select cluster_key, profile_id from overlap where ids = 1 and parts = 1")
    _claim(con, one_to_one(_disputed(con)))
    replace_table(con, "temp.unclaimed", _unclaimed_query())
    _claim(con, one_to_one(_revivals(con)))
    replace_table(con, "temp.minted", _minted_query())
    con.execute("drop table overlap; drop table unclaimed")


def _weight(con: DuckDBPyConnection, config: Config) -> str:
    """The weight of a record (decimal: sums do not depend on the order of rows)."""
    anchors = " ".join(f"when {literal(name)} then {w}" for name, w in config.identity.ids.anchors.items())
    record = f"case split_part(record_key, ':', 1) {anchors} else 1 end" if anchors else "1"
    weight = f"if(starts_with(record_key, 'event:'), {EVENT_NODE_WEIGHT}, {record})"
    if table_exists(con, "identity.decisions"):
        decided = f"select unnest([left_key, right_key]) from ({effective_query()})"
        weight = f"greatest({weight}, if(record_key in ({decided}), {DECIDED_WEIGHT}, 0))"
    return f"cast({weight} as decimal(18, 3))"


def _overlap_query(weight: str) -> str:
    """Grain: a cluster and an id that has records (or a pin) there; `ids` and `parts` tell what is disputed."""
    return f"""
        with weighed as (
            select cluster_key, profile_id, from_revision, {weight} as weight
            from affected where cluster_key is not null and profile_id is not null
        ), sizes as (select profile_id, count(*) as size from affected where profile_id is not null group by 1),
        shared as (
            select cluster_key, profile_id, sum(weight) as weight, count(*) / any_value(size) as share,
                sum(weight * from_revision) as joined
            from weighed join sizes using (profile_id) group by cluster_key, profile_id
        ), pinned as (
            select distinct cluster_key, p.profile_id from identity.pins p join affected using (record_key)
            where cluster_key is not null
        ), claims as (
            select cluster_key, profile_id, p.cluster_key is not null as pinned, coalesce(weight, 0) as weight,
                coalesce(share, 0) as share, coalesce(joined, 0) as joined
            from shared full join pinned p using (cluster_key, profile_id)
        )
        select *, count(*) over (partition by cluster_key) as ids, count(*) over (partition by profile_id) as parts
        from claims"""


def _disputed(con: DuckDBPyConnection) -> list[Claim]:
    """Ids that meet in a cluster or are spread over several, strongest claim first."""
    return rows(
        con,
        """select cluster_key, profile_id from overlap join identity.registry using (profile_id)
        where ids > 1 or parts > 1
        order by pinned desc, weight desc, share desc, created_revision, profile_id, joined, cluster_key""",
    )


def one_to_one(ordered: list[Claim]) -> list[Claim]:
    """Greedy walk: a claim holds when neither its cluster nor its id is taken by an earlier one."""
    clusters: set[str] = set()
    ids: set[str] = set()
    held = []
    for cluster, profile_id in ordered:
        if cluster not in clusters and profile_id not in ids:
            clusters.add(cluster)
            ids.add(profile_id)
            held.append((cluster, profile_id))
    return held


def _claim(con: DuckDBPyConnection, claims: list[Claim]) -> None:
    clusters, ids = [cluster for cluster, _ in claims], [profile_id for _, profile_id in claims]
    con.execute("insert into claimed select unnest(?::text[]), unnest(?::text[])", [clusters, ids])


def _unclaimed_query() -> str:
    """Grain: one row a record of a cluster that no living id claims."""
    return """
        select node, record_key, cluster_key from affected
        where cluster_key is not null and cluster_key not in (select cluster_key from claimed)"""


def _revivals(con: DuckDBPyConnection) -> list[Claim]:
    """Retired ids whose last records are now, by majority, in a cluster that has no id.

    Of several, the one that was given up last: who is deleted and delivered again has the id from before.
    """
    return rows(
        con,
        """with retired as (
            select profile_id, created_revision, retired_revision from identity.registry
            where status = 'retired' and reason in ('merged', 'emptied')
                and profile_id not in (select profile_id from claimed)
        ), met as (
            select u.cluster_key, r.*, count(*) as n
            from unclaimed u join identity.membership m using (node)
            join retired r on r.profile_id = m.profile_id and r.retired_revision = m.to_revision group by all
        ), sizes as (
            select m.profile_id, count(*) as size from identity.membership m
            join (select distinct profile_id, retired_revision from met) r
                on r.profile_id = m.profile_id and r.retired_revision = m.to_revision group by 1
        )
        select cluster_key, profile_id from met join sizes using (profile_id) where 2 * n > size
        order by n desc, retired_revision desc, created_revision, profile_id, cluster_key""",
    )


def _minted_query() -> str:
    """Ids for clusters that have none; the name of the UUID (version 5, RFC 9562) is `<birth record>#<generation>`."""
    digest = f"sha1(unhex('{NAMESPACE.hex}') || encode(birth_record_key || '#' || generation))"
    return f"""
        with births as (
            select distinct cluster_key as birth_record_key, cluster_key from unclaimed
            where cluster_key not in (select cluster_key from claimed)
        ), former as (
            select birth_record_key, count(*) as n from identity.registry
            where birth_record_key in (select birth_record_key from births) group by 1
        ), counted as (
            select b.*, coalesce(n, 0) as generation from births b left join former using (birth_record_key)
        ), hashed as (select *, {digest} as h from counted)
        select cluster_key, birth_record_key, generation,
            concat_ws('-', h[1:8], h[9:12], '5' || h[14:16],
                substr('89ab', (strpos('0123456789abcdef', h[17]) - 1) % 4 + 1, 1) || h[18:20], h[21:32]) as profile_id
        from hashed"""
