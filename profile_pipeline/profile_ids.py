"""The ledger of persistent profile ids: the promise to everybody downstream, apart from the statistics.

An id follows where most of its records went. In order: overlap weight, share of the old id, older id, id, records
that have been with the id for longer, smallest record key of the cluster; one id to one cluster. A cluster
without an id revives one that was retired and had its majority here, else mints one: UUIDv5 (RFC 9562) of its
birth record and a generation counter, so that a replay gives the same ids. An id without a cluster retires, with
a redirect when its records live on.

A revision is one change of the ledger; a run that changes nothing makes none.
"""

import uuid
from collections import defaultdict

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import (
    built,
    fingerprint,
    mark_built,
    replace_table,
    rows,
    scalar,
    transaction,
)

NAMESPACE = uuid.UUID("6f1d2c3a-5b7e-5c1f-9a55-0d3c8f0b7e21")
EVENT_NODE_WEIGHT = 0.5
"""What an identity known only from events weighs when records decide where an id goes."""
TABLES = """
create table if not exists identity.revisions (
    revision integer primary key, batch integer, as_of timestamptz, model_id text);
create table if not exists identity.registry (
    profile_id text primary key, status text not null, created_revision integer not null,
    retired_revision integer, reason text, birth_record_key text not null, generation integer not null);
create table if not exists identity.membership (
    record_key text not null, profile_id text not null, from_revision integer not null, to_revision integer,
    cause text not null);
create table if not exists identity.redirects (
    profile_id text primary key, successor text not null, revision integer not null);
create table if not exists identity.profile_events (
    revision integer not null, profile_id text not null, event text not null, other_profile_id text,
    record_count integer, model_id text);
"""
MEMBERS = "select record_key, profile_id from identity.membership where to_revision is null"
Claim = tuple[str, str]
"""A cluster and the id that claims it."""


def assign_profile_ids(con: DuckDBPyConnection) -> None:
    """Bring the ledger up to date with identity.clusters; atomic, and nothing when nothing changed."""
    con.execute(TABLES)
    mark = fingerprint(built(con, "identity.clusters"))
    if built(con, "identity.membership") == mark:
        return
    with transaction(con):
        _overlaps(con)
        con.execute("create or replace temp table claimed (cluster_key text, profile_id text)")
        _claim_undisputed(con)
        _claim(con, one_to_one(_disputed(con)))
        _claim(con, one_to_one(_revivals(con)))
        _mint(con)
        _assign(con)
        if _changed(con):
            _write_revision(con)
        con.execute("drop table overlap; drop table claimed; drop table minted; drop table assigned")
        mark_built(con, "identity.membership", mark)


def _overlaps(con: DuckDBPyConnection) -> None:
    """Which ids have records in which cluster; `ids` and `parts` tell what is disputed."""
    replace_table(
        con,
        "temp.overlap",
        f"""with prior as (
            select record_key, profile_id, from_revision from identity.membership where to_revision is null
        ), weighed as (
            select record_key, cluster_key, if(kind = 'record', 1.0, {EVENT_NODE_WEIGHT}) as weight
            from identity.clusters join identity.nodes using (record_key)
        ), sizes as (select profile_id, count(*) as size from prior group by profile_id),
        shared as (
            select cluster_key, profile_id, sum(weight) as weight, count(*) / any_value(size) as share,
                sum(weight * from_revision) as joined
            from prior join weighed using (record_key) join sizes using (profile_id)
            group by cluster_key, profile_id
        )
        select s.*, created_revision, count(*) over (partition by cluster_key) as ids,
            count(*) over (partition by profile_id) as parts
        from shared s join identity.registry using (profile_id)""",
    )


def _claim_undisputed(con: DuckDBPyConnection) -> None:
    con.execute("insert into claimed select cluster_key, profile_id from overlap where ids = 1 and parts = 1")


def _claim(con: DuckDBPyConnection, claims: list[Claim]) -> None:
    clusters, ids = [cluster for cluster, _ in claims], [profile_id for _, profile_id in claims]
    con.execute("insert into claimed select unnest(?::text[]), unnest(?::text[])", [clusters, ids])


def _disputed(con: DuckDBPyConnection) -> list[Claim]:
    """Ids that meet in a cluster or are spread over several, strongest claim first."""
    return rows(
        con,
        """select cluster_key, profile_id from overlap where ids > 1 or parts > 1
        order by weight desc, share desc, created_revision, profile_id, joined, cluster_key""",
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


def _revivals(con: DuckDBPyConnection) -> list[Claim]:
    """Retired ids whose last records are now, by majority, in a cluster that has no id."""
    return rows(
        con,
        """with former as (
            select m.record_key, m.profile_id, r.created_revision,
                count(*) over (partition by m.profile_id) as size
            from identity.membership m join identity.registry r on r.profile_id = m.profile_id
                and r.status = 'retired' and r.reason in ('merged', 'emptied')
                and m.to_revision = r.retired_revision
        )
        select c.cluster_key, f.profile_id from former f join identity.clusters c using (record_key)
        where c.cluster_key not in (select cluster_key from claimed)
        group by c.cluster_key, f.profile_id
        having 2 * count(*) > any_value(f.size)
        order by count(*) desc, min(f.created_revision), f.profile_id, c.cluster_key""",
    )


def _mint(con: DuckDBPyConnection) -> None:
    """Ids for clusters that have none; the name of the UUID is `<birth record>#<generation>`."""
    digest = f"sha1(unhex('{NAMESPACE.hex}') || encode(birth_record_key || '#' || generation))"
    replace_table(
        con,
        "temp.minted",
        f"""with births as (
            select cluster_key as birth_record_key, cluster_key from identity.clusters
            where cluster_key not in (select cluster_key from claimed) group by 1, 2
        ), counted as (
            select b.*, (select count(*) from identity.registry r where r.birth_record_key = b.birth_record_key)
                as generation from births b
        ), hashed as (select *, {digest} as h from counted)
        select cluster_key, birth_record_key, generation,
            concat_ws('-', h[1:8], h[9:12], '5' || h[14:16],
                substr('89ab', (strpos('0123456789abcdef', h[17]) - 1) % 4 + 1, 1) || h[18:20], h[21:32]) as profile_id
        from hashed""",
    )


def _assign(con: DuckDBPyConnection) -> None:
    """The new membership: every record of every cluster with the id of its cluster."""
    replace_table(
        con,
        "temp.assigned",
        """select c.record_key, a.profile_id, a.how from identity.clusters c join (
            select cluster_key, profile_id, 'kept' as how from claimed
            union all select cluster_key, profile_id, 'minted' from minted) a using (cluster_key)""",
    )


def _changed(con: DuckDBPyConnection) -> bool:
    differing = scalar(
        con,
        f"select count(*) from ({MEMBERS}) o full join temp.assigned n using (record_key)"
        " where o.profile_id is distinct from n.profile_id",
    )
    return bool(differing)


def _write_revision(con: DuckDBPyConnection) -> None:
    revision = (scalar(con, "select max(revision) from identity.revisions") or 0) + 1
    model = scalar(con, "select max(model_id) from identity.edges where type = 'probabilistic'")
    con.execute(
        "insert into identity.revisions select ?, max(batch), max(as_of), ? from raw.batches",
        [revision, model],
    )
    replace_table(con, "temp.prior", MEMBERS)
    _retire(con, revision)
    _enter_minted_and_revived(con, revision)
    _move_records(con, revision)
    _note_events(con, revision, model)
    con.execute("drop table temp.prior; drop table temp.retiring; drop table temp.reviving")


def _retire(con: DuckDBPyConnection, revision: int) -> None:
    """Ids without a cluster: `merged` into where most of their records went, or `emptied`."""
    replace_table(
        con,
        "temp.retiring",
        """with gone as (
            select profile_id from temp.prior except select profile_id from temp.assigned
        ), targets as (
            select p.profile_id, a.profile_id as successor, count(*) as n
            from temp.prior p join gone using (profile_id) join temp.assigned a on a.record_key = p.record_key
            group by 1, 2
        ), best as (
            select profile_id, successor from targets
            qualify row_number() over (partition by profile_id order by n desc, successor) = 1
        )
        select profile_id, successor from gone left join best using (profile_id)""",
    )
    con.execute(
        """update identity.registry r set status = 'retired', retired_revision = ?,
            reason = if(t.successor is null, 'emptied', 'merged')
        from temp.retiring t where t.profile_id = r.profile_id""",
        [revision],
    )
    con.execute(
        "insert or replace into identity.redirects select profile_id, successor, ? from temp.retiring"
        " where successor is not null",
        [revision],
    )


def _enter_minted_and_revived(con: DuckDBPyConnection, revision: int) -> None:
    replace_table(
        con,
        "temp.reviving",
        "select profile_id from identity.registry where status = 'retired'"
        " and profile_id in (select profile_id from claimed)",
    )
    con.execute(
        "update identity.registry set status = 'active', retired_revision = null, reason = null"
        " where profile_id in (select profile_id from temp.reviving)"
    )
    con.execute("delete from identity.redirects where profile_id in (select profile_id from temp.reviving)")
    con.execute(
        "insert into identity.registry select profile_id, 'active', ?, null, null, birth_record_key, generation"
        " from temp.minted",
        [revision],
    )


def _move_records(con: DuckDBPyConnection, revision: int) -> None:
    con.execute(
        """update identity.membership m set to_revision = ? from temp.prior p
        left join temp.assigned a using (record_key)
        where m.to_revision is null and m.record_key = p.record_key and a.profile_id is distinct from p.profile_id""",
        [revision],
    )
    con.execute(
        """insert into identity.membership
        select a.record_key, a.profile_id, ?, null,
            case when p.profile_id is null then 'new'
                when p.profile_id in (select profile_id from temp.retiring) then 'merged'
                when a.how = 'minted' or a.profile_id in (select profile_id from temp.reviving) then 'split'
                else 'moved' end
        from temp.assigned a left join temp.prior p using (record_key)
        where p.profile_id is distinct from a.profile_id""",
        [revision],
    )


def _note_events(con: DuckDBPyConnection, revision: int, model: str | None) -> None:
    con.execute(
        """insert into identity.profile_events
        with before as (select profile_id, count(*) as n from temp.prior group by 1),
        after as (select profile_id, count(*) as n from temp.assigned group by 1),
        parted as (
            select distinct p.profile_id, a.profile_id as other from temp.prior p join temp.assigned a using (record_key)
            where p.profile_id <> a.profile_id and p.profile_id not in (select profile_id from temp.retiring)
        ),
        found as (
            select profile_id, 'created' as event, null as other, null as n from temp.minted
            union all select profile_id, 'revived', null, null from temp.reviving
            union all select profile_id, if(successor is null, 'retired', 'merged'), successor, null from temp.retiring
            union all select profile_id,
                if(other in (select profile_id from temp.minted union all select profile_id from temp.reviving),
                    'split', 'record_moved'), other, null from parted
            union all select profile_id, if(a.n > b.n, 'grew', 'shrank'), null, a.n
                from before b join after a using (profile_id) where a.n <> b.n
        )
        select ?, f.profile_id, event, other, coalesce(f.n, a.n), ? from found f left join after a using (profile_id)
        order by f.profile_id, event, other""",
        [revision, model],
    )


def final_redirects_query() -> str:
    """Every retired id with the active (or erased) id its redirects lead to; none when all records are gone."""
    return """
        with recursive chain (profile_id, successor, hops) as (
            select profile_id, successor, 1 from identity.redirects
            union all
            select c.profile_id, r.successor, c.hops + 1 from chain c
            join identity.redirects r on r.profile_id = c.successor where c.hops < 10000
        ), ends as (select profile_id, arg_max(successor, hops) as successor from chain group by profile_id)
        select profile_id, successor from ends
        where successor not in (select profile_id from identity.registry where reason = 'emptied')"""


def successors(con: DuckDBPyConnection, profile_id: str) -> list[tuple[str, float]]:
    """Where everybody who ever was in a profile is now: (active id, share of the records that still exist)."""
    return rows(
        con,
        f"""select n.profile_id, count(*) / sum(count(*)) over () as share
        from (select distinct record_key from identity.membership where profile_id = ?)
        join ({MEMBERS}) n using (record_key) group by n.profile_id order by share desc, n.profile_id""",
        [profile_id],
    )


def changes(con: DuckDBPyConnection) -> dict[str, int]:
    """Number of ledger events of each kind in the newest revision."""
    found = rows(
        con,
        """select event, count(*) from identity.profile_events where revision = (
            select max(revision) from identity.revisions) group by 1""",
    )
    return defaultdict(int, dict(found))
