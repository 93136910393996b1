"""What a revision would do, in temporary tables; nothing here writes to the ledger.

`shift` has a row for each affected record with its id before and after, and `happened` the profile events.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.profile_ids.affected import find_affected
from profile_pipeline.profile_ids.claims import claim_clusters
from profile_pipeline.warehouse import literal, replace_table, scalar

TEMPORARY = ("affected", "claimed", "minted", "shift", "retiring", "reviving")


def propose(con: DuckDBPyConnection, config: Config, *, known: bool, everything: bool = False) -> None:
    """Write the temporary tables; their names are in TEMPORARY."""
    find_affected(con, known=known, everything=everything)
    claim_clusters(con, config)
    replace_table(con, "temp.shift", _shift_query(config))
    replace_table(con, "temp.retiring", _retiring_query())
    replace_table(con, "temp.reviving", _reviving_query())


def changes_something(con: DuckDBPyConnection) -> bool:
    """Whether the ledger would change: a record changes its id, or a pin is not noted yet."""
    query = """select exists (select 1 from shift where old_id is distinct from new_id)
        or exists (select 1 from identity.pins where revision is null)"""
    return bool(scalar(con, query))


def _shift_query(config: Config) -> str:
    """Grain: one row an affected record. `how` its cluster has its id: kept (revived included) or minted."""
    return f"""
        select node, record_key, a.profile_id as old_id, n.profile_id as new_id, how, {pseudonymous(config)} as pseudonymous
        from affected a left join (
            select cluster_key, profile_id, 'kept' as how from claimed
            union all select cluster_key, profile_id, 'minted' from minted) n using (cluster_key)"""


def pseudonymous(config: Config) -> str:
    """Whether a record key is the node of a cookie or device; a record that is gone has no other trace."""
    people = [name for name, space in config.namespaces.items() if space.kind == "person"]
    listed = ", ".join(literal(name) for name in people) or "''"
    return f"(starts_with(record_key, 'event:') and split_part(record_key[7:], '=', 1) not in ({listed}))"


def _retiring_query() -> str:
    """Ids without a cluster, with the id that most of their records go to; none when all are gone."""
    return """
        with gone as (
            select old_id as profile_id from shift where old_id is not null except select new_id from shift
        ), targets as (
            select old_id as profile_id, new_id as successor, count(*) as n from shift
            where old_id in (select profile_id from gone) and new_id is not null group by 1, 2
        ), best as (
            select * from targets qualify row_number() over (partition by profile_id order by n desc, successor) = 1
        )
        select profile_id, successor, n from gone left join best using (profile_id)"""


def _reviving_query() -> str:
    return """
        select profile_id from identity.registry where status = 'retired'
            and profile_id in (select profile_id from claimed)"""


def happened_query() -> str:
    """Grain: profile_id, event, other_profile_id. `moved_count` records go from the one to the other.

    A split is a part that gets an id of its own; record_moved goes to an id that was there.
    """
    return """
        with before as (select old_id as profile_id, count(*) as n from shift where old_id is not null group by 1),
        after as (select new_id as profile_id, count(*) as n from shift where new_id is not null group by 1),
        parted as (
            select old_id as profile_id, new_id as other, count(*) as moved from shift
            where old_id <> new_id and old_id not in (select profile_id from retiring) group by 1, 2
        ), fresh as (select profile_id from minted union all select profile_id from reviving),
        found as (
            select profile_id, 'created' as event, null as other, null as moved from minted
            union all select profile_id, 'revived', null, null from reviving
            union all select profile_id, if(successor is null, 'retired', 'merged'), successor, n from retiring
            union all select profile_id, if(other in (select profile_id from fresh), 'split', 'record_moved'), other, moved
                from parted
            union all select profile_id, if(a.n > b.n, 'grew', 'shrank'), null, null
                from before b join after a using (profile_id) where a.n <> b.n
            union all select profile_id, 'pinned', null, null from identity.pins where revision is null
        )
        select profile_id, event, other as other_profile_id, a.n as record_count, moved as moved_count
        from found left join after a using (profile_id)"""
