"""What differs between what a destination has and what it should have now, row by row.

Kinds: inserted, updated, deleted; of profiles also merged (into a profile that the destination gets too) and split
(off one that it had). Leaving an audience and withdrawing consent are deletions: the destination is not told why.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.sharing.ledger import Channel, held_query
from profile_pipeline.warehouse import replace_table, rows

KINDS = ("inserted", "split", "updated", "merged", "deleted")


def find_changes(
    con: DuckDBPyConnection,
    channel: Channel,
    *,
    of_profiles: bool,
    since_revision: int | None,
    everything: bool = False,
) -> dict[str, int]:
    """Write scratch.changes (_key, _who, _hash, change, other) from scratch.outgoing; rows by kind.

    `since_revision`: the ledger revision of profile ids that the last delivery showed. `everything`: what is held counts as
    updated, equal or not.
    """
    relatives = _relatives_query(since_revision) if of_profiles else NO_RELATIVES
    replace_table(
        con,
        "scratch.changes",
        f"""
        with held as ({held_query(channel)}), relatives as ({relatives}), compared as (
            select coalesce(o._key, h.row_key) as _key, coalesce(o._who, h.profile_id) as _who, o._hash,
                case when h.row_key is null then 'inserted' when o._key is null then 'deleted' else 'updated' end as change
            from held h full join scratch.outgoing o on o._key = h.row_key
            where h.row_key is null or o._key is null or h.row_hash <> o._hash or {everything}
        )
        select c._key, _who, _hash, if(r.change is null, c.change, r.change) as change, r.other
        from compared c left join relatives r on r.profile_id = c._key and r.instead_of = c.change
        order by c._key""",
    )
    found = dict(rows(con, "select change, count(*) from scratch.changes group by 1"))
    return {kind: found[kind] for kind in KINDS if kind in found}


NO_RELATIVES = (
    "select null::uuid as profile_id, ''::text as instead_of, ''::text as change, null::uuid as other limit 0"
)


def _relatives_query(since_revision: int | None) -> str:
    """Grain: profile_id, instead_of: retired ids with the successor that leaves too, new ids with where they split off."""
    return f"""
        select profile_id::uuid as profile_id, 'deleted' as instead_of, 'merged' as change, successor::uuid as other
        from generation.profile_redirects where successor::uuid in (select _key from scratch.outgoing)
        union all
        select other_profile_id::uuid, 'inserted', 'split', arg_max(profile_id, (revision, profile_id))::uuid
        from generation.profile_history
        where event = 'split' and revision > {since_revision if since_revision is not None else 2**31 - 1}
        group by other_profile_id"""
