"""What holds now: one row a source record, from its accepted versions in the order of their own time.

Order of versions: business time, then (only where a source has no clock of its own) order of delivery, then
content, so that the result does not depend on how rows were split into files.

A record depends on its own rows only, and, where a source delivers everything, on whether the newest batch has it. So
after new files only the records in them are computed again, and those that a full delivery left out.
"""

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Source
from profile_pipeline.records import changes
from profile_pipeline.records.normalise import value_type
from profile_pipeline.warehouse import (
    PLAIN,
    built,
    continues,
    count,
    facts,
    fingerprint,
    fixed_query,
    last_full,
    literal,
    mark_built,
    quote,
    replace_plain,
    replace_table,
    rows,
    rows_where,
    transaction,
)

NEWEST = (
    "observed_at, if(clock = 'source', 0, _file), if(clock = 'source', 0, _line), content_hash, _file, _line"
)
MOST_CHANGED, FEW = 0.5, 1000
"""Beyond this share of the records (or of so many, where there are fewer) all are written afresh."""
FIXED = ("_file", "_line", "batch", "ingested_at", "source_key", "record_key", "observed_at", "clock")


def build_current(con: DuckDBPyConnection, config: Config) -> None:
    """Write records.current and records.identifiers when a source of records has changed.

    Records that may differ from before are noted for the identity graph.
    """
    sources = list(config.record_sources)
    whole = [last_full(con, f"records.{name}") for name in sources]
    base = fingerprint(_attribute_types(config), whole, duckdb.__version__)
    mark = fingerprint([built(con, f"records.{name}") for name in sources], base)
    if built(con, "records.current") == mark:
        return
    files, full = _files(con, sources), last_full(con, "records.current")
    with transaction(con):
        if not (continues(con, "records.current", base) and _write_changed(con, config, files)):
            _write_all(con, config)
            full = mark
        mark_built(con, "records.current", mark, {"base": base, "full": full, "files": files})
        mark_built(con, "records.identifiers", mark)


def _files(con: DuckDBPyConnection, sources: list[str]) -> list[int]:
    """Files whose rows are in the tables of these sources, by number."""
    query = "select file_id from records.loads where source in (select unnest(?::text[])) order by file_id"
    return [file_id for (file_id,) in rows(con, query, [sources])]


def _write_all(con: DuckDBPyConnection, config: Config) -> None:
    con.execute(empty_current(config))
    for name in config.record_sources:
        con.execute(f"insert into records.current by name {effective_query(config, name)}")
    replace_plain(con, "records.identifiers", identifiers_query(), {"record_key", "value", "node"})
    changes.forget(con, changes.RECORDS)


def _write_changed(con: DuckDBPyConnection, config: Config, files: list[int]) -> bool:
    """Write again the records with rows in new files, and take out those that a full delivery leaves out.

    False, and nothing is done, where that is most of them: rows taken out of a table go on taking room for a time.
    """
    new = sorted(set(files) - set(facts(con, "records.current")["files"]))
    listed = ", ".join(map(str, new)) or "null"
    looked_at = [_keys_query(name, source, listed) for name, source in config.record_sources.items()]
    found = replace_table(con, "temp.looked_at", " union ".join(looked_at))
    few = found <= MOST_CHANGED * max(count(con, "records.current"), FEW)
    if few:
        _write_looked_at(con, config)
    con.execute("drop table temp.looked_at")
    return few


def _write_looked_at(con: DuckDBPyConnection, config: Config) -> None:
    noted = "record_key in (select record_key from temp.looked_at)"
    con.execute(f"delete from records.current where {noted}")
    for name in config.record_sources:
        con.execute(f"insert into records.current by name {effective_query(config, name, few=True)}")
    con.execute(f"delete from records.identifiers where {noted}")
    con.execute(f"insert into records.identifiers by name {identifiers_query(f'where {noted}')}")
    changes.note(con, changes.RECORDS, "select record_key as key from temp.looked_at")


def _keys_query(name: str, source: Source, files: str) -> str:
    """Grain: one row a record of a source that may differ from before: (source, source_key, record_key)."""
    columns = f"{literal(name)} as source, source_key, record_key"
    query = f"select {columns} from records.{name} where source_key is not null and _file in ({files})"
    if source.delivery != "full":
        return query
    return f"""{query} union
        select {columns} from records.current where source = {literal(name)}
            and source_key not in ({_newest_keys(name)})"""


def _attribute_types(config: Config) -> dict[str, str]:
    return {field: value_type(attribute) for field, attribute in config.attributes.items()}


def empty_current(config: Config) -> str:
    """Creates records.current without a row."""
    fields = "".join(f", {field} {kind}" for field, kind in _attribute_types(config).items())
    raw = ", ".join(f"{field} text" for field in config.attributes) or "none text"
    return f"""create or replace table records.current (
        record_key text not null {PLAIN}, node ubigint not null, source text not null, source_key text not null,
        observed_at timestamptz, clock text, ingested_at timestamptz, batch integer, _file integer, _line bigint, content_hash text,
        cleared text[], field_times map(text, timestamptz), doubtful text[],
        identifiers struct(namespace text, value text, raw text)[]{fields}, raw struct({raw}))"""


def effective_query(config: Config, name: str, *, few: bool = False) -> str:
    """The effective state of every record of a source that is not deleted, or only of the `few` in temp.looked_at."""
    source = config.record_sources[name]
    versions = _versions(name, few=few)
    effective = _patched_query(source, versions) if source.write == "patch" else _replaced_query(versions)
    raw = ", ".join(
        f"{field} := {f'raw.{field}' if field in source.attributes else 'null::text'}"
        for field in config.attributes
    )
    fields = "".join(f", {field}" for field in source.attributes)
    return f"""select {", ".join(FIXED)}, hash(record_key) as node, {literal(name)} as source, content_hash, cleared,
        field_times, doubtful, identifiers{fields}, struct_pack({raw or "none := null::text"}) as raw
        from ({effective}) where not deleted{_still_delivered(name, source)}"""


def _versions(name: str, *, few: bool) -> str:
    accepted = "reasons is null and source_key is not null"
    if few:
        accepted += (
            f" and source_key in (select source_key from temp.looked_at where source = {literal(name)})"
        )
        return f"({rows_where(f'records.{name}', accepted)})"
    return f"(select * from records.{name} where {accepted})"


def _still_delivered(name: str, source: Source) -> str:
    if source.delivery != "full":
        return ""
    return f" and source_key in ({_newest_keys(name)})"


def _newest_keys(name: str) -> str:
    """Query of the keys in the newest batch of a source; a row in quarantine is delivered nevertheless."""
    newest = f"(select max(batch) from raw.files where source = {literal(name)} and state = 'loaded')"
    return f"select source_key from records.{name} where source_key is not null and batch = {newest}"


def _replaced_query(versions: str) -> str:
    return (
        f"select *, cast(null as map(text, timestamptz)) as field_times from {versions}"
        f" qualify row_number() over (partition by source_key order by {_descending(NEWEST)}) = 1"
    )


def _descending(order: str) -> str:
    parts = order.replace("if(clock = 'source', 0, _file)", "§f").replace(
        "if(clock = 'source', 0, _line)", "§l"
    )
    named = parts.replace(", ", " desc, ") + " desc"
    return named.replace("§f", "if(clock = 'source', 0, _file)").replace(
        "§l", "if(clock = 'source', 0, _line)"
    )


def _patched_query(source: Source, versions: str) -> str:
    """Each field from the newest version that mentions it, since the record was last deleted."""
    fields = list(source.attributes)
    mentioned = {f: f"({f} is not null or list_contains(cleared, {literal(f)}))" for f in fields}
    last = {
        f: f"arg_max(struct_pack(v := {f}, r := raw.{f}, t := observed_at, d := list_contains(doubtful, {literal(f)})), n)"
        f" filter ({mentioned[f]})"
        for f in fields
    }
    winners = "".join(f", {last[f]} as w__{f}" for f in fields)
    values = "".join(f", w__{f}.v as {f}" for f in fields)
    raw = ", ".join(f"{f} := w__{f}.r" for f in fields) or "none := null::text"
    cleared = ", ".join(f"case when w__{f} is not null and w__{f}.v is null then '{f}' end" for f in fields)
    times = ", ".join(f"{{'k': '{f}', 'v': w__{f}.t}}" for f in fields)
    doubtful = ", ".join(f"case when w__{f}.d then '{f}' end" for f in fields)
    newest = ", ".join(f"arg_max({column}, n) as {column}" for column in FIXED)
    # every version has a say in the fields
    said = (
        "md5(string_agg(concat_ws('|', content_hash, observed_at, doubtful), ' ' order by n)) as content_hash"
    )
    return f"""
        with ordered as (
            select *, row_number() over (partition by source_key order by {NEWEST}) as n from {versions}
        ), alive as (
            select *, coalesce(max(n) filter (deleted) over (partition by source_key), 0) as died from ordered
        ), folded as (
            select {newest.replace("arg_max(source_key, n) as source_key", "source_key")}{winners}, {said},
                list_sort(list_distinct(flatten(list(identifiers)))) as identifiers
            from alive where n > died group by source_key
        )
        select {", ".join(FIXED)}, content_hash, false as deleted, identifiers{values}, struct_pack({raw}) as raw,
            list_filter(cast([{cleared}] as text[]), lambda x: x is not null) as cleared,
            nullif(list_filter(cast([{doubtful}] as text[]), lambda x: x is not null), []) as doubtful,
            map_from_entries(list_filter(cast([{times}] as struct(k text, v timestamptz)[]), lambda e: e.v is not null))
                as field_times
        from folded"""


def identifiers_query(where: str = "") -> str:
    """Grain: one row a record and identifier value, of all records or those of a clause over records.current.

    `raw_value` as it was written, for people to recognise; `value_key` is a hash of namespace and value, `node` of the
    record key: numbers are found faster than texts.
    """
    return f"""
        select record_key, source, i.namespace as namespace, i.value as value, min(i.raw) as raw_value,
            any_value(observed_at) as observed_at, hash(i.namespace, i.value) as value_key, node
        from (select record_key, node, source, observed_at, unnest(identifiers) as i from records.current {where})
        group by all"""


def build_quarantine(con: DuckDBPyConnection, config: Config) -> None:
    """Write records.quarantine: malformed lines and refused rows of files that count, with reasons."""
    mark = fingerprint([built(con, f"records.{name}") for name in config.sources])
    if built(con, "records.quarantine") == mark:
        return
    refused = "".join(
        f" union all by name {_refused_query(name, source)}" for name, source in config.sources.items()
    )
    with transaction(con):
        replace_table(con, "records.quarantine", fixed_query("records/quarantine") + refused)
        mark_built(con, "records.quarantine", mark)


def _refused_query(name: str, source: Source) -> str:
    pairs = ", ".join(f"{quote(c)} := d.{quote(c)}" for c in source.columns)
    return f"""select s._file as file_id, s._line as line, {literal(name)} as source, s.batch, 'records' as stage,
        s.reasons, to_json(struct_pack({pairs}))::text as content
        from records.{name} s join raw.{name} d on d._file = s._file and d._line = s._line
        where s.reasons is not null"""


def fates(con: DuckDBPyConnection, config: Config) -> list[tuple[str, int, int, dict[str, int]]]:
    """The conservation law by source and batch: (source, batch, rows delivered, rows by fate)."""
    names = ("current", "superseded", "events", "expired", "quarantined", "not_selected", "reverted")
    found = []
    for name, source in config.sources.items():
        query = _event_fates(name) if source.kind == "event" else _record_fates(name)
        for batch, delivered, *counts in [*rows(con, query), *rows(con, _reverted_fates(name))]:
            found.append((name, batch, int(delivered), dict(zip(names, map(int, counts), strict=True))))
    return found


def _reverted_fates(name: str) -> str:
    """A batch counts as a whole or not at all, so none is in two rows."""
    return f"""
        select batch, sum(row_count) as delivered, 0, 0, 0, 0, 0, 0, sum(row_count) as reverted from raw.files
        where source = {literal(name)} and state = 'reverted' group by batch having delivered > 0 order by batch"""


def _record_fates(name: str) -> str:
    kept = f"select _file, _line, 'current' as fate from records.current where source = {literal(name)}"
    return _fates_query(name, kept)


def _event_fates(name: str) -> str:
    tables = {"events": "records.events", "expired": "records.expired_events"}
    kept = " union all ".join(
        f"select _file, _line, '{fate}' as fate from {table} where source = {literal(name)}"
        for fate, table in tables.items()
    )
    return _fates_query(name, kept)


def _fates_query(name: str, kept: str) -> str:
    counted = ", ".join(
        f"count(*) filter (fate = '{fate}') as {fate}" for fate in ("current", "events", "expired")
    )
    return f"""
        with files as (
            select file_id, batch, row_count from raw.files where source = {literal(name)} and state = 'loaded'
        ), accepted as (
            select s.batch, count(*) filter (fate is null) as superseded, {counted}
            from records.{name} s left join ({kept}) k on k._file = s._file and k._line = s._line
            where s.reasons is null group by s.batch
        ), held as (
            select batch, count(*) as quarantined from records.quarantine where source = {literal(name)} group by batch
        ), unselected as (
            select f.batch, count(*) as unselected from raw.{name} d join files f on f.file_id = d._file
            anti join records.{name} s on s._file = d._file and s._line = d._line group by f.batch
        ), delivered as (select batch, sum(row_count) as delivered from files group by batch)
        select batch, delivered, coalesce(current, 0) as current, coalesce(superseded, 0) as superseded,
            coalesce(events, 0) as events, coalesce(expired, 0) as expired, coalesce(quarantined, 0) as quarantined,
            coalesce(unselected, 0) as not_selected, 0 as reverted
        from delivered left join accepted using (batch) left join held using (batch)
            left join unselected using (batch) order by batch"""
