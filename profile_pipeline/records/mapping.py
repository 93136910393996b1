"""The query that turns delivered rows of one source into the common shape: mapped, normalised, flagged.

Grain: one row a delivered row. Columns that start with `ok__` say whether a declared property holds; the
expectations derived from them live in `profile_pipeline.quality`.
"""

from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Mapping, Source
from profile_pipeline.records.normalise import (
    FOLDED,
    filled_query,
    folded_query,
    identifier_query,
    readable_query,
    time_query,
    value_query,
)
from profile_pipeline.warehouse import literal, quote

VERSION = "2"
"""Changes whenever the same rules give another query with other results, so that rows are mapped afresh."""
Step = tuple[str, str]
"""A named step and its select statement."""


def staged_query(config: Config, name: str, files: list[int]) -> str:
    """The common shape of a source's rows from the given files."""
    source = config.sources[name]
    steps: list[Step] = [
        ("delivered", _delivered_query(name, source, files)),
        ("extracted", _extracted_query(source)),
        ("filled", _filled_query(config, source)),
        ("folded", _folded_query(config, source)),
        ("normalised", _normalised_query(config, source)),
    ]
    ctes = ",\n".join(f"{step} as (\n{query}\n)" for step, query in steps)
    return f"with {ctes}\n{_shaped_query(config, name, source)}"


def _delivered_query(name: str, source: Source, files: list[int]) -> str:
    listed = ", ".join(map(str, files)) or "null"
    where = f" and coalesce(({source.where}), false)" if source.where else ""
    # filtered before the joins: `where` may name columns that the ledger has too, such as `source`
    return (
        f"select d.*, f.batch as _batch, b.as_of as _ingested_at from (select * from raw.{name} where _file in ({listed}){where}) d"
        " join raw.files f on f.file_id = d._file join raw.batches b on b.batch = f.batch"
    )


def _extracted_query(source: Source) -> str:
    columns = ["_file", "_line", "_batch as batch", "_ingested_at as ingested_at"]
    columns.append(f"{_key(source.key)} as source_key")
    columns.append(f"{_key(source.time.value if source.time else None)} as time_text")
    columns.append(f"coalesce(({source.delete_when or 'false'}), false) as deleted")
    if source.event:
        columns.append(f"{_key(source.event.id)} as event_id")
        columns.append(f"coalesce({_key(source.event.type)}, 'event') as event_type")
        columns.append(f"{_key(source.event.channel)} as channel")
        columns.append(f"{_payload(source)} as payload")
    for field in source.attributes:
        columns += _attribute_columns(source, field)
    columns += [f"{_text(text)} as id__{space}" for space, text in source.identifiers.items()]
    return "select " + ",\n    ".join(columns) + " from delivered"


def _payload(source: Source) -> str:
    """The row as one JSON object; in formats whose values have parts, objects and arrays are no texts in it."""
    value = _parsed if source.format.type in {"jsonl", "parquet"} else quote
    pairs = ", ".join(f"{quote(column)} := {value(column)}" for column in source.columns)
    return f"to_json(struct_pack({pairs}))"


def _parsed(column: str) -> str:
    """A column as JSON: what it says where that is an object or an array, else its text."""
    text = quote(column)
    # asked by its first letter: of all columns only the few that may be nested are parsed
    return (
        f"case when {text}[1] in ('{{', '[') then coalesce(try_cast({text} as json), to_json({text}))"
        f" else to_json({text}) end"
    )


def _text(expression: str | None) -> str:
    return f"cast(({expression}) as text)" if expression else "cast(null as text)"


def _key(expression: str | None) -> str:
    return filled_query(_text(expression)) if expression else "cast(null as text)"


def _attribute_columns(source: Source, field: str) -> list[str]:
    mapping = source.mapping(field)
    text, cleared = _value(mapping), _cleared(source, mapping)
    columns = [
        f"case when not coalesce({cleared}, false) then {text} end as raw__{field}",
        f"coalesce({cleared}, false) as clear__{field}",
    ]
    if mapping.field:
        whole = filled_query(_text(mapping.value))
        is_object = f"json_type({_object(mapping)}) = 'OBJECT'"
        columns.append(
            f"({whole} is null or coalesce({cleared}, false) or coalesce({is_object}, false)) as object__{field}"
        )
    return columns


def _value(mapping: Mapping) -> str:
    """The text of a field as delivered."""
    return f"({_object(mapping)} ->> '$.{mapping.field}')" if mapping.field else _text(mapping.value)


def _object(mapping: Mapping) -> str:
    return f"try_cast({_text(mapping.value)} as json)"


def _cleared(source: Source, mapping: Mapping) -> str:
    """Whether a row clears a field: itself, or the whole object that it is a field of."""
    inner = f"json_type({_object(mapping)}, '$.{mapping.field}') = 'NULL'"
    if mapping.cleared:
        return f"({mapping.cleared})"
    if source.clear_value is None:
        return "false"
    if source.clear_value == "null" and source.format.type in {"jsonl", "parquet"}:
        whole = f"list_contains(_nulls, {literal(mapping.value)})"
        return f"({whole} or coalesce({inner}, false))" if mapping.field else whole
    whole = f"(trim({_text(mapping.value)}) = {literal(source.clear_value)})"
    return f"({whole} or trim({_value(mapping)}) = {literal(source.clear_value)})" if mapping.field else whole


def _filled_query(config: Config, source: Source) -> str:
    """`text__` columns: clean text, NULL where the delivered text means missing."""
    fields = [
        f"{filled_query(f'raw__{f}', tuple(config.attributes[f].placeholders))} as text__{f}"
        for f in source.attributes
    ]
    spaces = [
        f"{filled_query(f'id__{s}', tuple(config.namespaces[s].blocked))} as text_id__{s}"
        for s in source.identifiers
    ]
    return "select " + ",\n    ".join(["*", *fields, *spaces]) + " from extracted"


def _folded_query(config: Config, source: Source) -> str:
    folded = [
        f"{folded_query(f'text__{f}')} as fold__{f}"
        for f in source.attributes
        if config.attributes[f].type in FOLDED
    ]
    return "select " + ",\n    ".join(["*", *folded]) + " from filled"


def _normalised_query(config: Config, source: Source) -> str:
    columns = ["*"]
    for field in source.attributes:
        attribute = config.attributes[field]
        text = f"fold__{field}" if attribute.type in FOLDED else f"text__{field}"
        value = value_query(attribute, source, text)
        if attribute.type == "birth_date":
            value = f"(case when {value} <= strftime(ingested_at, '%Y-%m-%d') then {value} end)"
        columns.append(f"{value} as value__{field}")
    columns += [
        f"{identifier_query(config.namespaces[space], source, f'text_id__{space}')} as key__{space}"
        for space in source.identifiers
    ]
    columns.append(f"{_time(source)} as source_time")
    return "select " + ",\n    ".join(columns) + " from folded"


def _time(source: Source) -> str:
    if not source.time:
        return "cast(null as timestamptz)"
    return time_query("time_text", source.time.formats, source.time.zone)


def _shaped_query(config: Config, name: str, source: Source) -> str:
    tolerance = f"interval '{config.profiles.future_tolerance_minutes} minutes'"
    future = f"source_time > ingested_at + {tolerance}"
    columns = [
        "row_number() over (order by _file, _line) - 1 as row_id",
        "_file, _line, batch, ingested_at, source_key",
        f"{literal(name + ':')} || source_key as record_key",
        f"case when source_time is null or {future} then ingested_at else source_time end as observed_at",
        f"case when source_time is null then 'ingestion' when {future} then 'clipped' else 'source' end as clock",
        "deleted",
        *_event_columns(name, source),
        *(f"value__{field} as {field}" for field in source.attributes),
        _raw_struct(source),
        _cleared_list(source),
        _identifier_list(source),
        *_flags(config, source),
    ]
    return "select " + ",\n    ".join(columns) + " from normalised"


def _event_columns(name: str, source: Source) -> list[str]:
    if not source.event:
        return []
    zone = source.time.zone if source.time else "UTC"
    return [
        f"{literal(name + ':')} || event_id as event_key, event_id",
        f"event_type, channel, {literal(zone)} as zone, payload",
    ]


def _raw_struct(source: Source) -> str:
    if not source.attributes:
        return "cast(null as struct(none text)) as raw"
    pairs = ", ".join(f"{field} := raw__{field}" for field in source.attributes)
    return f"struct_pack({pairs}) as raw"


def _cleared_list(source: Source) -> str:
    flags = ", ".join(f"case when clear__{field} then '{field}' end" for field in source.attributes)
    return f"list_filter(cast([{flags}] as text[]), lambda x: x is not null) as cleared"


def _identifier_list(source: Source) -> str:
    items = ", ".join(
        f"{{'namespace': '{space}', 'value': key__{space}, 'raw': text_id__{space}}}"
        for space in source.identifiers
    )
    return (
        "list_filter(cast([" + items + "] as struct(namespace text, value text, raw text)[]),"
        " lambda x: x.value is not null) as identifiers"
    )


def _flags(config: Config, source: Source) -> list[str]:
    flags = []
    if source.kind == "record":
        flags.append("source_key is not null and length(source_key) <= 1024 as ok__key_present")
    if source.event:
        flags.append("event_id is not null and length(event_id) <= 1024 as ok__event_id_present")
        flags.append("source_time is not null as ok__event_time_readable")
    elif source.time:
        flags.append("time_text is null or source_time is not null as ok__time_readable")
    for field in source.attributes:
        readable = readable_query(config.attributes[field], source, f"text__{field}", f"value__{field}")
        whole = f"object__{field}" if source.mapping(field).field else None
        if said := " and ".join(part for part in (whole, readable) if part):
            flags.append(f"coalesce({said}, true) as ok__{field}_readable")
    return flags
