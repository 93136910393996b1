"""Loads entered files into raw.<source>, each file in one transaction and each exactly once."""

import io
from collections.abc import Iterator
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.config.sources import Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.raw import delimited, ledger
from profile_pipeline.raw.streams import FileRefused, decompressed, is_text, text_lines, verified
from profile_pipeline.warehouse import literal, mark_built, quote, rows, scalar, scrubbed, transaction

CHUNK_ROWS = 50_000


def create_table(con: DuckDBPyConnection, name: str, source: Source) -> None:
    """raw.<source>: text as delivered. A column that joins the contract later is added."""
    con.execute(
        f"create table if not exists raw.{name} (_file integer not null, _line bigint not null, _nulls text[])"
    )
    for column in source.columns:
        con.execute(f"alter table raw.{name} add column if not exists {quote(column)} text")


def load_source(con: DuckDBPyConnection, config: Config, project: Project, name: str) -> None:
    """Read every pending file of a source; a file that cannot be read is refused with its reason."""
    source = config.sources[name]
    create_table(con, name, source)
    for file_id, file_name, sha256 in ledger.pending(con, name):
        path = project.data / file_name
        try:
            with transaction(con):
                _load_file(con, name, source, file_id, path, sha256, project)
        except FileRefused as refusal:
            _refuse(con, config, name, file_id, str(refusal))
        except (UnicodeError, EOFError, OSError, duckdb.Error) as error:
            _refuse(con, config, name, file_id, f"damaged, or not {source.format.type}: {_plain(error)}")
    mark_built(con, f"raw.{name}", ledger.source_fingerprint(con, name))


def _plain(error: Exception) -> str:
    return str(scrubbed(error)).splitlines()[0]


def _refuse(con: DuckDBPyConnection, config: Config, name: str, file_id: int, reason: str) -> None:
    con.execute(
        "update raw.files set state = 'refused', reason = ?, read_as = ? where file_id = ?",
        [reason, ledger.reading_rules(config, name), file_id],
    )


def _load_file(
    con: DuckDBPyConnection,
    name: str,
    source: Source,
    file_id: int,
    path: Path,
    sha256: str,
    project: Project,
) -> None:
    if not any(path.resolve().is_relative_to(folder.resolve()) for folder in project.deliveries):
        raise FileRefused("leads outside the delivery folders; deliver a copy, not a link")
    with verified(path, sha256) as file:
        if source.format.type == "parquet":
            notes = _load_parquet(con, name, source, file_id, path)
        else:
            # not closed here: that would close the file whose hash is still to be read
            text = text_lines(decompressed(file, path, source.format), source.format, _newline(source))
            load = _load_delimited if source.format.type == "csv" else _load_json_lines
            notes = load(con, name, source, file_id, text)
    con.execute(
        f"""update raw.files set state = 'loaded', notes = ?,
            row_count = (select count(*) from raw.{name} where _file = file_id)
                      + (select count(*) from raw.rejects r where r.file_id = files.file_id),
            rejected_count = (select count(*) from raw.rejects r where r.file_id = files.file_id)
        where file_id = ?""",
        [notes, file_id],
    )


def _newline(source: Source) -> str:
    return "" if source.format.type == "csv" else "\n"


def agree_columns(delivered: list[str], source: Source) -> list[str]:
    """Notes on added columns; raises FileRefused when a contract column is absent or named twice."""
    lowered = [column.lower() for column in delivered]
    twice = sorted({column for column in delivered if lowered.count(column.lower()) > 1})
    if twice:
        raise FileRefused(
            f"has columns named twice: {', '.join(twice)}; letter case does not tell them apart"
        )
    absent = [c for c in source.columns if c not in delivered and c not in source.optional_columns]
    if absent:
        raise FileRefused(
            f"lacks the columns {', '.join(absent)}; deliver them or list them under optional_columns"
        )
    added = [column for column in delivered if column not in source.columns]
    return [f"new column {column}, not in the contract: ignored" for column in added]


def _load_delimited(
    con: DuckDBPyConnection, name: str, source: Source, file_id: int, text: io.TextIOWrapper
) -> list[str]:
    header = delimited.read_header(text, source)
    notes = agree_columns(header, source)
    for chunk in delimited.read_rows(text, source, len(header), CHUNK_ROWS):
        _insert_rows(con, name, source, file_id, header, chunk)
    return notes


def _insert_rows(
    con: DuckDBPyConnection, name: str, source: Source, file_id: int, header: list[str], chunk: delimited.Rows
) -> None:
    import pyarrow as pa

    _insert_rejects(con, file_id, chunk.rejects)
    if not chunk.rows:
        return
    columns = dict(zip(header, zip(*chunk.rows, strict=True), strict=True))
    kept = [column for column in source.columns if column in columns]
    table = pa.table(
        {"_line": chunk.lines, **{f"c{i}": pa.array(columns[c], pa.string()) for i, c in enumerate(kept)}}
    )
    con.register("chunk", table)
    con.execute(
        f"insert into raw.{name} (_file, _line{''.join(', ' + quote(c) for c in kept)})"
        f" select {file_id}, _line{''.join(f', c{i}' for i in range(len(kept)))} from chunk"
    )
    con.unregister("chunk")


def _insert_rejects(con: DuckDBPyConnection, file_id: int, rejects: list[tuple[int, str, str]]) -> None:
    if rejects:
        printable = [
            (file_id, line, reason, content.encode("utf-8", "backslashreplace").decode())
            for line, reason, content in rejects
        ]
        con.executemany("insert into raw.rejects values (?, ?, ?, ?)", printable)


def _line_chunks(text: io.TextIOWrapper, limit: int) -> Iterator[delimited.Rows]:
    """Lines of a JSON-lines file in chunks; over-long and undecodable ones are rejected."""
    feed = delimited.Lines(text, limit)
    result = delimited.Rows()
    for line in feed:
        number = feed.number
        feed.begin()
        if len(line) > limit:
            result.rejects.append((number, f"line longer than {limit:,} characters", line[:1000]))
        elif not is_text(line):
            result.rejects.append((number, "bytes that do not fit the declared encoding", line))
        elif not line.isspace():
            result.lines.append(number)
            result.rows.append([line])
        if len(result.lines) + len(result.rejects) >= CHUNK_ROWS:
            yield result
            result = delimited.Rows()
    yield result


def _load_json_lines(
    con: DuckDBPyConnection, name: str, source: Source, file_id: int, text: io.TextIOWrapper
) -> list[str]:
    con.execute("create or replace temp table json_keys (key text)")
    for chunk in _line_chunks(text, source.format.max_line_bytes):
        _insert_json(con, name, source, file_id, chunk)
    seen = [key for (key,) in rows(con, "select distinct key from json_keys order by 1")]
    con.execute("drop table json_keys")
    total = scalar(con, f"select count(*) from raw.{name} where _file = {file_id}")
    return agree_columns(seen, source) if total else []


def _insert_json(
    con: DuckDBPyConnection, name: str, source: Source, file_id: int, chunk: delimited.Rows
) -> None:
    import pyarrow as pa

    _insert_rejects(con, file_id, chunk.rejects)
    lines = pa.table({"line": pa.array(chunk.lines, pa.int64()), "text": [row[0] for row in chunk.rows]})
    con.register("chunk", lines)
    paths = ", ".join(literal('$."' + column.replace('"', '\\"') + '"') for column in source.columns)
    names = "".join(", " + quote(column) for column in source.columns)
    values = "".join(f", found[{i + 1}]" for i in range(len(source.columns)))
    nulls = (
        "nullif(list_filter(json_keys(text), lambda k: json_type(text, concat('$.\"', k, '\"')) = 'NULL'), [])"
        if source.clear_value == "null"
        else "null"
    )
    con.execute(
        "create or replace temp table parsed as select line, text,"
        " json_valid(text) and json_type(try_cast(text as json)) = 'OBJECT' as good from chunk"
    )
    con.execute(
        f"""insert into raw.{name} (_file, _line, _nulls{names})
        select {file_id}, line, nulls{values} from (
            select line, json_extract_string(text, [{paths}]) as found, {nulls} as nulls from parsed where good)"""
    )
    con.execute(
        f"insert into raw.rejects select {file_id}, line, 'not a JSON object', rtrim(text, chr(10)) from parsed"
        " where good is not true"
    )
    con.execute("insert into json_keys select distinct unnest(json_keys(text)) from parsed where good")
    con.execute("drop table parsed")
    con.unregister("chunk")


def _load_parquet(con: DuckDBPyConnection, name: str, source: Source, file_id: int, path: Path) -> list[str]:
    file = f"read_parquet({literal(path)}, file_row_number = true)"
    delivered = [
        column for column, *_ in rows(con, f"describe select * exclude (file_row_number) from {file}")
    ]
    notes = agree_columns(delivered, source)
    kept = [column for column in source.columns if column in delivered]
    names = "".join(", " + quote(column) for column in kept)
    values = "".join(f", cast({quote(column)} as text)" for column in kept)
    con.execute(
        f"insert into raw.{name} (_file, _line{names}) select {file_id}, file_row_number + 1{values} from {file}"
    )
    return notes


def require_loaded(con: DuckDBPyConnection, config: Config) -> None:
    """Raise when a run has nothing to work with at all."""
    if not config.sources:
        raise PipelineError(
            "sources.yaml: no sources yet; `profile-pipeline sources infer FILE` proposes one"
        )
    if not scalar(con, "select count(*) from raw.files where state = 'loaded'"):
        raise PipelineError("no delivery could be loaded; put files that match `files:` into data/sources")
