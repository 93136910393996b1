"""Membership of audiences: who entered and left, when, and why.

Only profiles are asked again that changed or for which time passed an edge (`moved`), and only what changed is written.
Everybody is asked after other rules or lists, and where the tables this reads were computed as a whole.
"""

from datetime import datetime
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.audiences import external
from profile_pipeline.audiences.asked import columns_named
from profile_pipeline.audiences.evaluate import evaluated_query, leaves, write_facts, write_members
from profile_pipeline.audiences.moved import STEP, asks_all, moved_query
from profile_pipeline.clock import clock, moment
from profile_pipeline.config.audience_check import conditions_of, in_order, referred
from profile_pipeline.config.load import Config
from profile_pipeline.profile_ids import final_redirects_query
from profile_pipeline.profiles import touched
from profile_pipeline.warehouse import (
    built,
    continues,
    facts,
    fingerprint,
    last_full,
    literal,
    mark_built,
    replace_table,
    rows,
    table_exists,
    transaction,
    upstream,
)

NAME = "audiences.membership"
TABLE = f"""
create table if not exists {NAME} (
    audience text not null, profile_id text not null, entered_at timestamptz not null, exited_at timestamptz);
alter table {NAME} add column if not exists entry_reason text;
alter table {NAME} add column if not exists exit_reason text;
alter table {NAME} add column if not exists exit_detail text;
"""
EXIT = ("exited_at", "exit_reason", "exit_detail")
"""Columns that say that and why a stay ended."""
READS = ("profiles.unified", "profiles.computed", "profiles.events", "profiles.identifiers")
MERGED, RETIRED, RULES, CONSENT, CONDITION = "merged", "retired", "rules", "consent", "condition"


def build_audiences(con: DuckDBPyConnection, config: Config, data: Path | None = None) -> None:
    """Bring audiences.membership up to date; times are the as-of time of the newest batch.

    `data`: the project's data folder, whose audiences/ has delivered lists; without it lists are as they were last read.
    """
    con.execute(TABLE)
    external.create_tables(con)
    lists = external.state_of(data / external.FOLDER, config) if data else facts(con, NAME).get("lists", [])
    said = fingerprint(config.audiences.model_dump(), rule_marks(config), lists)
    inputs = fingerprint(upstream(con, READS), clock(con), said)
    kept, known = built(con, NAME), facts(con, NAME)
    if kept and known.get("inputs") == inputs:
        return
    with transaction(con):
        _read_lists(con, config, data)
    base = _base(con, said)
    try:
        # outside of a transaction: an error ends one, and the audience at fault is found by trying again
        only = _find_asked(con, config, base, known.get("as_of"))
        write_facts(con, config, clock(con), only)
        write_members(con, config, "temp.qualified", only)
        with transaction(con):
            moved = _enter_and_exit(con, config, only, _changed_rules(config, known.get("rules", {})))
            touched.forget(con, STEP)
            # time that moves nobody leaves nothing to do for those that follow
            mark = inputs if moved or known.get("said") != said else kept
            noted = {"rules": rule_marks(config), "lists": lists, "said": said, "inputs": inputs}
            noted |= {"base": base, "as_of": clock(con).isoformat()}
            mark_built(con, NAME, mark or inputs, noted)
    finally:
        for table in ("asked", "audience_facts", "qualified"):
            con.execute(f"drop table if exists temp.{table}")


def _base(con: DuckDBPyConnection, said: str) -> str:
    """What has to be as it was for only some to be asked."""
    full = [last_full(con, name) for name in ("profiles.unified", "profiles.computed", "profiles.events")]
    return fingerprint(full, said, duckdb.__version__)


RELISTED = """select profile_id from (
    (from temp.listed_before except from audiences.external_members)
    union all (from audiences.external_members except from temp.listed_before))"""
"""Grain: one row a list that a profile came to, or left."""


def _read_lists(con: DuckDBPyConnection, config: Config, data: Path | None) -> None:
    """Read and resolve delivered lists, and note who came to one or left it."""
    replace_table(con, "temp.listed_before", "from audiences.external_members")
    if data:
        external.read_lists(con, config, data / external.FOLDER)
    external.resolve_lists(con)
    touched.note(con, STEP, RELISTED)
    con.execute("drop table temp.listed_before")


def _find_asked(con: DuckDBPyConnection, config: Config, base: str, before: str | None) -> str:
    """Write temp.asked, the profiles to ask again, and return its name; an empty name when everybody is asked.

    `before`: the as-of time at which all were right. A batch taken back takes the clock back.
    """
    as_of = clock(con)
    whole = not continues(con, NAME, base) or not before or datetime.fromisoformat(before) > as_of
    if whole or asks_all(config):
        return ""
    con.execute(touched.QUEUE)
    moved = moved_query(con, config, datetime.fromisoformat(before), as_of)
    replace_table(con, "temp.asked", moved)
    return "temp.asked"


def rule_marks(config: Config) -> dict[str, str]:
    """A hash of the rules of each audience, and of those it names."""
    found: dict[str, str] = {}
    for name in in_order(config.audiences):
        audience = config.audiences.audiences[name]
        own = audience.model_dump(exclude={"description"})
        named = columns_named(config, [condition for _, condition in conditions_of(name, audience)])
        columns = {column: rule.model_dump() for column, rule in named.items()}
        inside = [found[other] for other in referred(audience)]
        found[name] = fingerprint(own, config.audiences.consents(name), columns, inside)
    return found


def _changed_rules(config: Config, before: dict[str, str]) -> list[str]:
    """Audiences whose rules are not those of the last run, or that are gone."""
    now = rule_marks(config)
    return [name for name in before | now if name in before and now.get(name) != before[name]]


def _enter_and_exit(con: DuckDBPyConnection, config: Config, only: str, changed: list[str]) -> bool:
    """Begin and end stays; whether there were any to begin or end. `only`: a relation of the profiles that were asked.

    A stay that begins and ends at the same as-of time (rules changed twice without data) never happened.
    """
    as_of = moment(clock(con))
    among = f" and profile_id in (from {only})" if only else ""
    replace_table(
        con,
        "temp.leaving",
        f"""select audience, profile_id from {NAME} m
            anti join temp.qualified q using (audience, profile_id) where exited_at is null{among}""",
    )
    exits = replace_table(con, "temp.exits", exits_query(con, changed))
    _find_failing(con, config)
    con.execute(
        f"""update {NAME} m set exited_at = {as_of}, exit_reason = e.reason, exit_detail = e.detail
        from temp.exits e where m.exited_at is null and m.audience = e.audience and m.profile_id = e.profile_id"""
    )
    [(entries,)] = con.execute(entries_query(con, changed, as_of)).fetchall()
    con.execute(f"delete from {NAME} where exited_at = entered_at")
    con.execute("drop table temp.leaving; drop table temp.exits")
    return exits + entries > 0


def _among(changed: list[str]) -> str:
    return f"audience in ({', '.join(map(literal, changed))})" if changed else "false"


def exits_query(con: DuckDBPyConnection, changed: list[str]) -> str:
    """Grain: one row a stay that ends: why, as far as the profile and the rules tell."""
    redirects = final_redirects_query() if table_exists(con, "identity.redirects") else NO_REDIRECTS
    return f"""
        select l.audience, l.profile_id, case
            when r.successor is not null then '{MERGED}'
            when u.profile_id is null then '{RETIRED}'
            when {_among(changed)} then '{RULES}'
            else '{CONDITION}' end as reason,
            if(r.successor is not null, 'into ' || r.successor, null)::text as detail
        from temp.leaving l left join profiles.unified u using (profile_id)
        left join ({redirects}) r on r.profile_id = l.profile_id and u.profile_id is null"""


NO_REDIRECTS = "select ''::text as profile_id, ''::text as successor limit 0"


def _find_failing(con: DuckDBPyConnection, config: Config) -> None:
    """Note the first condition that does not hold any more, for those who leave because of one."""
    names = rows(con, f"select distinct audience from temp.exits where reason = '{CONDITION}' order by 1")
    for (name,) in names:
        if name not in config.audiences.audiences:
            continue
        found = leaves(con, config, name)
        cases = " ".join(
            f"when {leaf.holds} = {str(leaf.negated).lower()}"
            f" then [{literal(CONSENT if leaf.path == 'consent' else CONDITION)}, {literal(leaf.said)}]"
            for leaf in sorted(found, key=lambda leaf: leaf.path != "consent")
        )
        whose = (
            f"select profile_id from temp.exits where audience = {literal(name)} and reason = '{CONDITION}'"
        )
        replace_table(con, "temp.whose", whose)
        query = evaluated_query(con, config, clock(con), "temp.whose")
        case = f"case {cases} end" if cases else "null::text[]"
        con.execute(
            f"""update temp.exits e set reason = coalesce(f.failed[1], e.reason), detail = f.failed[2]
            from (select profile_id, {case} as failed from ({query})) f
            where e.profile_id = f.profile_id and e.audience = {literal(name)}"""
        )
        con.execute("drop table temp.whose")


def entries_query(con: DuckDBPyConnection, changed: list[str], as_of: str) -> str:
    """Add the stays that begin, and whether by merging with a member, by other rules or by the condition."""
    redirects = final_redirects_query() if table_exists(con, "identity.redirects") else NO_REDIRECTS
    return f"""
        insert into {NAME} by name
        select q.audience, q.profile_id, {as_of} as entered_at, case
            when (q.audience, q.profile_id) in (
                select (e.audience, r.successor) from temp.exits e join ({redirects}) r using (profile_id)) then '{MERGED}'
            when {_among(changed)} then '{RULES}'
            else '{CONDITION}' end as entry_reason
        from temp.qualified q
        anti join (from {NAME} where exited_at is null) m using (audience, profile_id)"""


def sizes(con: DuckDBPyConnection) -> dict[str, int]:
    """Members of each audience now."""
    return dict(
        rows(
            con,
            f"select audience, count(*) from {NAME} where exited_at is null group by 1 order by 1",
        )
    )
