"""The identifiers and the events of each profile.

After the first build only events are written again that changed, and those whose subject is with another profile
than before: identities merged or split. The profiles on both sides are noted for the steps that look at events. So with
identifiers, as long as only events changed: other records or other generic values write all of them again.
"""

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.profile_ids import MEMBERS
from profile_pipeline.profiles import touched
from profile_pipeline.records import changes as record_changes
from profile_pipeline.warehouse import (
    built,
    continues,
    facts,
    fingerprint,
    last_full,
    literal,
    mark_built,
    replace_table,
    rows_where,
    scalar,
    transaction,
    upstream,
)


def build_timeline(con: DuckDBPyConnection, config: Config) -> None:
    """Bring profiles.identifiers and profiles.events up to date when memberships or events changed."""
    mark = fingerprint(
        upstream(con, ["identity.nodes", "identity.membership", "records.event_subjects"]),
        {name: space.kind for name, space in config.namespaces.items()},
    )
    if built(con, "profiles.events") == mark:
        return
    base = fingerprint(last_full(con, "records.events"), duckdb.__version__)
    whole = not continues(con, "profiles.events", base)
    with transaction(con):
        _write_identifiers(con, config, mark)
        if whole:
            replace_table(con, "profiles.events", events_query())
        else:
            _write_changed(con, facts(con, "profiles.events")["revision"])
        record_changes.forget(con, "timeline", "identifiers")
        full = mark if whole else last_full(con, "profiles.events")
        noted = {"base": base, "full": full, "revision": _revision(con)}
        mark_built(con, "profiles.events", mark, noted)


def _write_identifiers(con: DuckDBPyConnection, config: Config, mark: str) -> None:
    name = "profiles.identifiers"
    base = fingerprint(
        built(con, "records.current"),
        [last_full(con, table) for table in ("records.events", "identity.nodes")],
        scalar(con, "select bit_xor(hash(namespace, value)) from identity.generic_values"),
        {space: rules.kind for space, rules in config.namespaces.items()},
        duckdb.__version__,
    )
    if continues(con, name, base):
        replace_table(con, "temp.renamed", renamed_query(facts(con, name)["revision"]))
        con.execute(f"delete from {name} where profile_id in (from temp.renamed)")
        con.execute(
            f"insert into {name} {identifiers_query(config, 'where profile_id in (from temp.renamed)')}"
        )
        con.execute("drop table renamed")
    else:
        replace_table(con, name, identifiers_query(config))
    mark_built(con, name, mark, {"base": base, "revision": _revision(con)})


def renamed_query(revision: int) -> str:
    """Grain: one row a profile with an identity whose events changed, or that came or went after a ledger revision."""
    return f"""
        select profile_id from ({MEMBERS}) where record_key in ({record_changes.noted_query("identifiers")})
        union select profile_id from identity.membership where from_revision > {revision} or to_revision > {revision}"""


def _revision(con: DuckDBPyConnection) -> int:
    """The newest change of the profile id ledger."""
    return scalar(con, "select max(revision) from identity.revisions") or 0


def _write_changed(con: DuckDBPyConnection, revision: int) -> None:
    """`revision`: what the timeline knows of the ledger."""
    replace_table(
        con, "temp.changed_events", f"{record_changes.noted_query('timeline')} union {moved_query(revision)}"
    )
    changed = "event_key in (from temp.changed_events)"
    replace_table(con, "temp.before", f"select rowid as row, profile_id from profiles.events where {changed}")
    replace_table(con, "temp.after", events_query(rows_where("records.events", changed)))
    con.execute("delete from profiles.events where rowid in (select row from temp.before)")
    con.execute("insert into profiles.events by name from temp.after")
    owners = "select profile_id from temp.before union select profile_id from temp.after"
    touched.note_events(con, f"from ({owners}) where profile_id is not null")
    con.execute("drop table before; drop table after; drop table changed_events")


def moved_query(revision: int) -> str:
    """Grain: one row an event whose subject came to another profile, or from none or to none, after a ledger revision."""
    return f"""
        select event_key from records.event_subjects where subject in (
            select record_key from identity.membership where from_revision > {revision} or to_revision > {revision})"""


def identifiers_query(config: Config, where: str = "") -> str:
    """Grain: profile, namespace, value. Raw spellings are kept: they show what normalisation united.

    `where` narrows the profiles.
    """
    kinds = " ".join(f"when {literal(n)} then {literal(s.kind)}" for n, s in config.namespaces.items())
    kind = f"case namespace {kinds} end" if kinds else "null::text"
    return f"""
        select profile_id, namespace, value, {kind} as kind, list_sort(list(distinct raw_value)) as raw_values,
            count(distinct record_key) as record_count, list_sort(list(distinct source)) as sources,
            min(observed_at) as first_observed_at, max(observed_at) as last_observed_at,
            (namespace, value) in (select (namespace, value) from identity.generic_values) as generic
        from identity.identifiers join (from ({MEMBERS}) {where}) m using (record_key)
        group by profile_id, namespace, value"""


def events_query(events: str = "from records.events") -> str:
    """Grain: one row an event. Events that name nobody have no profile, and are kept."""
    return f"""
        select e.event_key, m.profile_id, e.attribution, e.source, e.event_id, e.event_type, e.channel, e.occurred_at,
            e.zone, e.identifiers, e.payload, e.deliveries, e.batch
        from ({events}) e left join ({MEMBERS}) m on m.record_key = e.subject"""
