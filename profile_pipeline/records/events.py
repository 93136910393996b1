"""Events, each exactly once, and the subject of each: the node of the identity graph it belongs to.

The subject is the record an event itself describes (an order that says who ordered), else the best person
identifier it states, as the node `event:<namespace>=<value>`. An event with only a cookie or device belongs to
whoever was identified on it nearest in time within the session gap; otherwise its subject is the cookie or device
itself, a pseudonymous identity. So a shared tablet does not hand its history to its last user.

After the first build only events change that came with new files, that grew older than their source keeps them, whose
record came or went, and those on a device on which a login came or went. `changes` notes them for the stages that follow.
"""

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.records import changes, retention
from profile_pipeline.records.staging import rules_fingerprint
from profile_pipeline.records.subjects import AS_STATED, best, inferred_query
from profile_pipeline.warehouse import (
    built,
    continues,
    fingerprint,
    last_full,
    literal,
    mark_built,
    replace_table,
    rows,
    rows_where,
    table_kind,
    transaction,
)

EVENT_COLUMNS = (
    "event_key text, source text, event_id text, event_type text, channel text, occurred_at timestamptz, clock text,"
    " zone text, record_key text, payload json, identifiers struct(namespace text, value text, raw text)[], batch integer,"
    " _file integer, _line bigint, deliveries bigint, corrected boolean, late boolean, device text, subject text, attribution text"
)
SUBJECTS = "select event_key, subject, attribution from records.events where subject is not null"
"""Grain: one row an event that names anybody. `attribution`: stated, inferred or pseudonymous."""
FILES = "create table if not exists records.event_files (file_id integer not null)"
"""Files whose events have been taken in."""
SIGHTINGS = "_file integer, _line bigint, device text, occurred_at timestamptz, person text"
"""Where somebody was: `person` is empty where the event does not say who."""
POSITION = "_file, _line"


def build_events(con: DuckDBPyConnection, config: Config) -> None:
    """Bring records.events up to date when an event source, the records behind its events, or the clock changed."""
    base = fingerprint(_rules(config), duckdb.__version__)
    mark = fingerprint(base, _inputs(con, config))
    if built(con, "records.events") == mark:
        return
    con.execute(FILES)
    whole = not continues(con, "records.events", base) or bool(_files_gone(con))
    with transaction(con):
        (_write_all if whole else _update)(con, config)
        _note_taken(con, config)
        full = mark if whole else last_full(con, "records.events")
        mark_built(con, "records.events", mark, {"base": base, "full": full})
        mark_built(con, "records.event_subjects", mark)
        mark_built(con, "records.expired_events", mark)


def corrected(con: DuckDBPyConnection) -> dict[str, int]:
    """Events of a source that were delivered again with other content, for the sources that have any."""
    query = "select source, count(*) from records.events where corrected group by source order by source"
    return dict(rows(con, query))


def _rules(config: Config) -> list[object]:
    spaces = {name: (space.kind, space.priority) for name, space in config.namespaces.items()}
    own = {name: rules_fingerprint(config, name) for name in config.event_sources}
    rules = config.identity
    return [spaces, own, rules.session_gap_minutes, rules.adobe_compat]


def _inputs(con: DuckDBPyConnection, config: Config) -> list[object]:
    """Records count only where events describe them; the clock only where a source keeps its events for a time."""
    described = _describing(config)
    return [
        [built(con, f"records.{name}") for name in config.event_sources],
        built(con, "records.current") if described else None,
        retention.cutoffs(con, config),
    ]


def _describing(config: Config) -> list[str]:
    """Event sources whose events describe a record."""
    return [name for name, source in config.event_sources.items() if source.key]


def _files_gone(con: DuckDBPyConnection) -> list[int]:
    loaded = "select file_id from records.loads"
    return [f for (f,) in rows(con, f"from records.event_files where file_id not in ({loaded})")]


def _note_taken(con: DuckDBPyConnection, config: Config) -> None:
    names = ", ".join(map(literal, config.event_sources)) or "null"
    loaded = f"select file_id from records.loads where source in ({names})"
    con.execute(f"create or replace table records.event_files as {loaded}")
    replace_table(con, "records.event_records", _held_records(config))


def _held_records(config: Config) -> str:
    names = ", ".join(map(literal, _describing(config))) or "null"
    return f"select record_key from records.current where source in ({names})"


# ---------------------------------------------------------------- everything


def _write_all(con: DuckDBPyConnection, config: Config) -> None:
    con.execute(f"create or replace table records.events ({EVENT_COLUMNS})")
    con.execute(retention.TABLE)
    con.execute("delete from records.expired_events")
    con.execute(f"create or replace temp table sightings ({SIGHTINGS})")
    for name in config.event_sources:
        _find_repeated(con, name, _accepted(name))
        con.execute(f"insert into sightings by name {_sightings_query(con, config, name)}")
    replace_table(con, "temp.inferred", inferred_query(config))
    for name in config.event_sources:
        chosen = _chosen_query(config, name, _accepted(name))
        con.execute(f"insert into records.events by name {_events_query(con, config, name, chosen)}")
        con.execute(f"insert into records.expired_events by name {_expired_query(con, config, name, chosen)}")
        con.execute(f"drop table {_repeated(name)}")
    con.execute("drop table sightings; drop table inferred")
    if table_kind(con, "records.event_subjects") == "BASE TABLE":
        con.execute("drop table records.event_subjects")  # as versions before 0.2 had it
    con.execute(f"create or replace view records.event_subjects as {SUBJECTS}")
    changes.forget(con, *changes.STAGES)


def _repeated(name: str) -> str:
    return f"temp.repeated_{name}"


ACCEPTED = "reasons is null and event_id is not null"


def _accepted(name: str) -> str:
    return f"(from records.{name} where {ACCEPTED})"


def _find_repeated(con: DuckDBPyConnection, name: str, accepted: str) -> None:
    """Events that were delivered several times, with the delivery that counts: the choice depends on content only.

    `accepted`: a relation of deliveries of the source, with all of every event it has.
    """
    replace_table(
        con,
        _repeated(name),
        f"""with found as (select event_key from {accepted} group by event_key having count(*) > 1)
        select event_key, count(*) as deliveries, min(hash(payload)) <> max(hash(payload)) as corrected,
            min(batch) as first_batch,
            arg_min((_file, _line), (observed_at, content_hash, md5(payload), _file, _line)) as chosen
        from {accepted} semi join found using (event_key) group by event_key""",
    )


def _chosen_query(config: Config, name: str, accepted: str) -> str:
    """Grain: one row an event of a source. `person`: whom it states, `device`: the best cookie or device it names."""
    described = bool(config.sources[name].key)
    person = f"coalesce(owner, {best(config, ('person',))})" if described else best(config, ("person",))
    owner = (
        " left join (select record_key as owner from records.current) c on owner = e.record_key"
        if described
        else ""
    )
    return f"""
        select e.* replace ({"e.record_key" if described else "null::text"} as record_key), observed_at as occurred_at,
            {literal(name)} as source, coalesce(r.deliveries, 1) as deliveries, coalesce(r.corrected, false) as corrected,
            coalesce(r.first_batch, e.batch) as first_batch, {person} as person,
            {best(config, ("device", "cookie"))} as device
        from {accepted} e left join {_repeated(name)} r using (event_key){owner}
        where r.event_key is null or (e._file, e._line) = r.chosen"""


def _sightings_query(con: DuckDBPyConnection, config: Config, name: str) -> str:
    kept = retention.kept(con, config, name)
    return f"""select _file, _line, device, occurred_at, person from ({_chosen_query(config, name, _accepted(name))})
        where device is not null and {kept}"""


def _events_query(con: DuckDBPyConnection, config: Config, name: str, chosen: str) -> str:
    """Grain: one row an event that its source still keeps, with its subject as temp.inferred has it."""
    return f"""
        with chosen as ({chosen}), newest as ({_newest_query(name)})
        select event_key, source, event_id, event_type, channel, occurred_at, clock, zone, record_key, payload, identifiers,
            chosen.batch as batch, _file, _line, deliveries, corrected, coalesce(occurred_at < newest.at, false) as late, device,
            {AS_STATED.format(person="i.person")}
        from chosen left join temp.inferred i using ({POSITION}) left join newest on newest.batch = first_batch
        where {retention.kept(con, config, name)}"""


def _newest_query(name: str) -> str:
    """Grain: one row a batch of a source; `at`: when the newest event of earlier batches happened."""
    return f"""
        select batch, max(newest) over (order by batch rows between unbounded preceding and 1 preceding) as at
        from (select batch, max(observed_at) as newest from {_accepted(name)} group by batch)"""


def _expired_query(con: DuckDBPyConnection, config: Config, name: str, chosen: str) -> str:
    stated = best(config, ("person",))
    return f"""select event_key, source, occurred_at, batch, _file, _line, if({stated} is null, null, hash({stated})) as person,
            if(device is null, null, hash(device)) as device
        from ({chosen}) where not {retention.kept(con, config, name)}"""


# ---------------------------------------------------------------- what changed

SEEN = "event_key, subject, device, attribution"
BEFORE_AND_AFTER = f"select {SEEN} from events_before union all select {SEEN} from events_after"


def _update(con: DuckDBPyConnection, config: Config) -> None:
    if replace_table(con, "temp.changed_events", _changed_query(con, config)):
        changed = (
            f"select rowid as row, {SEEN} from records.events semi join temp.changed_events using (event_key)"
        )
        replace_table(con, "temp.events_before", changed)
        _write_changed(con, config)
        _infer_again(con, config)
        _note_changes(con)
        con.execute("drop table events_before; drop table events_after; drop table attributed")
    con.execute("drop table changed_events")


def _changed_query(con: DuckDBPyConnection, config: Config) -> str:
    """Grain: one row an event that was delivered (again), expires or comes back now, or whose record came or went."""
    new = _new_files(con, config)  # as numbers, so that only their rows are read
    parts = [f"select event_key from {_accepted(name)} where {new}" for name in config.event_sources]
    parts += [
        f"select event_key from records.events where source = {literal(name)} and not {retention.kept(con, config, name)}"
        for name in retention.cutoffs(con, config)
    ]
    parts += [
        f"select event_key from records.expired_events where source = {literal(name)} and {retention.kept(con, config, name)}"
        for name in config.event_sources
    ]
    if _describing(config):
        held = _held_records(config)
        parts.append(
            f"""select event_key from records.events where record_key in (
                (from records.event_records except ({held})) union all (({held}) except from records.event_records))"""
        )
    return f"select distinct event_key from ({' union all '.join(parts) or 'select null'}) where event_key is not null"


def _new_files(con: DuckDBPyConnection, config: Config) -> str:
    """A condition on `_file`: loaded since events were last taken in."""
    names = ", ".join(map(literal, config.event_sources)) or "null"
    taken = "from records.event_files"
    new = rows(
        con, f"select file_id from records.loads where source in ({names}) and file_id not in ({taken})"
    )
    return f"_file in ({', '.join(str(file) for (file,) in new) or 'null'})"


def _write_changed(con: DuckDBPyConnection, config: Config) -> None:
    """Changed events as they are now; the anonymous among them belong to their device until `_infer_again`.

    Every table of events is gone through once: what is found in it is kept in temporary ones.
    """
    con.execute("delete from records.events where rowid in (select row from temp.events_before)")
    con.execute("delete from records.expired_events where event_key in (from temp.changed_events)")
    con.execute("create or replace temp table inferred (_file integer, _line bigint, person text)")
    con.execute("create or replace temp table events_after as from records.events limit 0")
    for name in config.event_sources:
        wanted = f"{ACCEPTED} and event_key in (from temp.changed_events)"
        if replace_table(con, "temp.deliveries", rows_where(f"records.{name}", wanted)):
            _find_repeated(con, name, "temp.deliveries")
            chosen = _chosen_query(config, name, "temp.deliveries")
            con.execute(f"insert into events_after by name {_events_query(con, config, name, chosen)}")
            con.execute(
                f"insert into records.expired_events by name {_expired_query(con, config, name, chosen)}"
            )
            con.execute(f"drop table {_repeated(name)}")
    con.execute("drop table deliveries")
    con.execute("insert into records.events from events_after")


def _infer_again(con: DuckDBPyConnection, config: Config) -> None:
    """Attribute the anonymous events of devices on which a login came or went; temp.attributed has those that moved."""
    replace_table(
        con,
        "temp.devices",
        f"""select distinct device from ({BEFORE_AND_AFTER}) where attribution = 'stated' and device is not null
        union select device from events_after where attribution = 'pseudonymous'""",
    )
    replace_table(
        con,
        "temp.sightings",
        f"""select _file, _line, device, occurred_at, if(attribution = 'stated', subject, null) as person, event_key,
            subject, attribution, row
        from ({rows_where("records.events", "device in (from devices)", "*, rowid as row")})""",
    )
    replace_table(con, "temp.inferred", inferred_query(config))
    replace_table(
        con,
        "temp.attributed",
        f"""select event_key, row, s.subject as old_subject, coalesce(i.person, device) as new_subject,
            if(i.person is null, 'pseudonymous', 'inferred') as attribution
        from sightings s left join inferred i using ({POSITION}) where s.person is null
            and (s.subject is distinct from new_subject or s.attribution is distinct from
                if(i.person is null, 'pseudonymous', 'inferred'))""",
    )
    con.execute(
        "update records.events e set subject = new_subject, attribution = a.attribution from attributed a"
        " where a.row = e.rowid"
    )
    con.execute("drop table devices; drop table sightings; drop table inferred")


def _note_changes(con: DuckDBPyConnection) -> None:
    changes.note(
        con,
        "timeline",
        "select event_key as key from changed_events union all select event_key from attributed",
    )
    for stage in ("nodes", "identifiers"):
        changes.note(
            con,
            stage,
            f"""select subject as key from ({BEFORE_AND_AFTER})
            union all select unnest([old_subject, new_subject]) from attributed""",
        )
