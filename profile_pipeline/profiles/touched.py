"""Which profiles have to be merged again: those whose nodes, or what these contribute, are not what they were.

A profile follows from what its nodes contribute. A hash of that by node, kept from the run before, shows which
nodes came, went, moved or changed; a queue carries their profiles through the steps of the stage. A step takes its
notes away in the transaction that deals with them, so a killed run loses none.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.profile_ids import MEMBERS
from profile_pipeline.warehouse import literal, replace_table, scalar

FOLLOW_EVENTS = ("activity", "computed", "audiences")
"""Steps that look again at a profile whose events changed; `activity` is what a unified profile shows of them."""
CANDIDATES, LINEAGE = "temp.touched_candidates", "temp.touched_lineage"
"""Rows of profiles.candidates and profiles.lineage that a step of an incremental run hands over to the next."""
STEPS = ("lineage", "unified", "computed", "audiences")
"""Steps that follow the candidates."""
QUEUE = """
create table if not exists profiles.changes (stage text not null, profile_id text not null);
create table if not exists profiles.contributions (record_key text not null, profile_id text not null, content ubigint not null);
"""


def find_touched(con: DuckDBPyConnection, *, whole: bool) -> None:
    """Write temp.touched (grain: one row a profile), bring profiles.contributions up to date and note the steps to follow.

    When everything is computed afresh nobody is touched in particular: temp.touched is empty, and so is the queue.
    """
    con.execute(QUEUE)
    if whole:
        replace_table(con, "temp.touched", "select ''::text as profile_id limit 0")
        replace_table(con, "profiles.contributions", contributions_query())
        con.execute("delete from profiles.changes")
    else:
        _compare(con)


def _compare(con: DuckDBPyConnection) -> None:
    replace_table(
        con,
        "temp.differing",
        f"""select record_key, o.profile_id as old_id, n.profile_id as new_id, n.content
        from profiles.contributions o full join ({contributions_query()}) n using (record_key)
        where (o.content, o.profile_id) is distinct from (n.content, n.profile_id)""",
    )
    replace_table(
        con,
        "temp.touched",
        "select profile_id from (select distinct unnest([old_id, new_id]) as profile_id from temp.differing)"
        " where profile_id is not null",
    )
    con.execute(
        "delete from profiles.contributions where record_key in (select record_key from temp.differing)"
    )
    con.execute(
        "insert into profiles.contributions select record_key, new_id, content from temp.differing where new_id is not null"
    )
    note_followers(con, "from temp.touched")
    con.execute("drop table temp.differing")


def contributions_query() -> str:
    """Grain: one row a node of an active profile; `content` is a hash of all that it gives to the profile.

    What a record shows follows from what its row says and from the rules of its source; other rules begin afresh.
    Of nodes without a record the identifiers count, and of every node whether its cluster is flagged.
    """
    return f"""
        select m.record_key, m.profile_id,
            hash(said, n.content, c.flagged) as content
        from ({MEMBERS}) m
        left join (select record_key, content from identity.nodes where kind <> 'record') n using (record_key)
        left join (select record_key, flagged from identity.clusters where flagged) c using (record_key)
        left join (
            select record_key, hash(content_hash, observed_at, clock, ingested_at, doubtful) as said from records.current
        ) r using (record_key)"""


def note_followers(con: DuckDBPyConnection, profiles: str) -> None:
    """Queue the profiles that a query gives for every step that follows the candidates."""
    for step in STEPS:
        note(con, step, profiles)


def note_events(con: DuckDBPyConnection, profiles: str) -> None:
    """Queue the profiles that a query gives, whose events changed, for every step that looks at events."""
    for step in FOLLOW_EVENTS:
        note(con, step, profiles)


def note(con: DuckDBPyConnection, step: str, profiles: str) -> None:
    """Queue the profiles that a query gives (one column, `profile_id`) for a step."""
    con.execute(QUEUE)
    con.execute(f"insert into profiles.changes select distinct {literal(step)}, profile_id from ({profiles})")


def noted_query(step: str) -> str:
    """Grain: one row a queued profile of a step."""
    return f"select distinct profile_id from profiles.changes where stage = {literal(step)}"


def forget(con: DuckDBPyConnection, step: str) -> None:
    """Take a step's notes away: they have been dealt with, or everything was computed afresh."""
    con.execute(QUEUE)
    con.execute("delete from profiles.changes where stage = ?", [step])


# ---------------------------------------------------------------- rows handed over inside a run


def hand_over(con: DuckDBPyConnection, rows: str, profiles: str) -> None:
    """Keep the temporary table `rows` for the next step: all rows of the profiles that a query gives.

    The steps of a run share a connection, so the next one need not look for them among all others. Where it runs
    later, or has to look at more profiles, it does.
    """
    replace_table(con, f"{rows}_profiles", profiles)


def handed_over(con: DuckDBPyConnection, rows: str, profiles: str) -> bool:
    """Whether the step before left the rows of exactly the profiles that a query gives."""
    name = rows.removeprefix("temp.")
    both = "temporary and table_name in (?, ?)"
    if scalar(con, f"select count(*) < 2 from duckdb_tables() where {both}", [name, f"{name}_profiles"]):
        return False
    kept = f"select profile_id from {rows}_profiles"
    differing = f"(({kept} except {profiles}) union all ({profiles} except {kept}))"
    return not scalar(con, f"select count(*) from {differing}")


def drop_handed_over(con: DuckDBPyConnection, rows: str) -> None:
    """Forget what a step left for the next one."""
    con.execute(f"drop table if exists {rows}; drop table if exists {rows}_profiles")
