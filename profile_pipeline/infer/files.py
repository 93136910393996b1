"""Delivered files as rows of text in an in-memory DuckDB: a sample as tables, the rest in passing."""

import csv
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from duckdb import DuckDBPyConnection

from profile_pipeline.config.sources import FileFormat, Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.infer import dialect
from profile_pipeline.raw import delimited, parquet
from profile_pipeline.raw.ledger import sha256_of
from profile_pipeline.raw.streams import text_lines
from profile_pipeline.warehouse import quote, scalar

SAMPLE_ROWS = 200_000
CHUNK_ROWS = 50_000


@dataclass
class Feed:
    """What is known of the files: format, contract, and notes for the user. `nested` columns hold JSON."""

    files: list[Path]
    format: FileFormat
    columns: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sampled: int = 0
    total: int = 0


def open_feed(con: DuckDBPyConnection, paths: list[Path]) -> tuple[Feed, Iterator[str]]:
    """The sample in table `delivered` (columns of the contract as text, `_file`), and queries for the other rows."""
    feed = _described(paths)
    batches = _batches(con, feed)
    first = True
    for query in batches:
        verb = "create or replace table delivered as" if first else "insert into delivered by name"
        con.execute(f"{verb} {query}")
        first = False
        feed.sampled = scalar(con, "select count(*) from delivered")
        if feed.sampled >= SAMPLE_ROWS:
            break
    if not feed.sampled:
        raise PipelineError(f"{paths[0].name}: holds no rows; infer from a delivery that does")
    feed.total = feed.sampled
    return feed, _counted(con, feed, batches)


def _counted(con: DuckDBPyConnection, feed: Feed, batches: Iterator[str]) -> Iterator[str]:
    for query in batches:
        con.execute(f"create or replace temp table batch as {query}")
        feed.total += scalar(con, "select count(*) from batch")
        yield "select * from batch"
    if feed.total > feed.sampled:
        feed.notes.append(
            f"types and keys were judged on the first {feed.sampled:,} of {feed.total:,} rows; date formats on all"
        )


def _described(paths: list[Path]) -> Feed:
    absent = [path.name for path in paths if not path.is_file()]
    if absent or not paths:
        raise PipelineError(f"{', '.join(absent) or 'files'}: not found; name one or more delivered files")
    notes = [f"{path.name} is empty or damaged: left out" for path in paths if not dialect.is_readable(path)]
    files = _distinct([path for path in paths if dialect.is_readable(path)], notes)
    if not files:
        raise PipelineError(f"{paths[0].name}: is empty or damaged; infer from a delivery that can be read")
    kinds = {dialect.kind_of(path) for path in files}
    if len(kinds) > 1:
        raise PipelineError(
            f"{files[0].name}: the files are {' and '.join(sorted(kinds))}; infer each kind alone"
        )
    return DESCRIBE[kinds.pop()](files, notes)


def _distinct(paths: list[Path], notes: list[str]) -> list[Path]:
    """Files of different content: a run, too, takes the same bytes only once."""
    found: dict[str, Path] = {}
    for path in paths:
        first = found.setdefault(sha256_of(path), path)
        if first is not path:
            notes.append(f"{path.name} has the same content as {first.name}: left out")
    return list(found.values())


def _describe_csv(files: list[Path], notes: list[str]) -> Feed:
    formats = [dialect.delimited_format(path) for path in files]
    encodings = list(dict.fromkeys(each.encoding for each in formats))
    chosen = next((each for each in formats if each.encoding != "utf-8"), formats[0])
    if len({each.delimiter for each in formats}) > 1:
        raise PipelineError(f"{files[0].name}: the files have different delimiters; infer each kind alone")
    if len(encodings) > 1:
        notes.append(
            f"encodings differ ({', '.join(encodings)}): declare two sources if umlauts come out wrong"
        )
    elif chosen.encoding == "windows-1252":
        notes.append(
            "not UTF-8: read as windows-1252, the usual one; set `encoding:` if letters come out wrong"
        )
    feed = Feed(files, chosen, notes=notes)
    headers = [_header(path, feed) for path in files]
    _agree(feed, headers)
    if not chosen.header:
        notes.append("no header line: columns are named by position; rename them under `columns:`")
    return feed


def _agree(feed: Feed, headers: list[list[str]]) -> None:
    feed.columns = list(dict.fromkeys(column for header in headers for column in header))
    feed.optional = [c for c in feed.columns if any(c not in header for header in headers)]
    lowered = [column.lower() for column in feed.columns]
    twice = sorted({column for column in feed.columns if lowered.count(column.lower()) > 1})
    if twice or any(len(set(header)) < len(header) for header in headers):
        raise PipelineError(f"{feed.files[0].name}: columns are named twice; deliver it with different names")


def _source(feed: Feed) -> Source:
    return Source.model_construct(format=feed.format, columns=feed.columns)


def _header(path: Path, feed: Feed) -> list[str]:
    text = text_lines(dialect.open_bytes(path), feed.format, "")
    if feed.format.header:
        return [name for name in delimited.read_header(text, _source(feed)) if name]
    line = text.readline(feed.format.max_line_bytes)
    [row] = csv.reader([line], delimiter=feed.format.delimiter, quotechar=feed.format.quote)
    return [f"column_{position}" for position in range(1, len(row) + 1)]


def _describe_json(files: list[Path], notes: list[str]) -> Feed:
    for path in files:
        problem = dialect.json_keys_note(path)
        if problem:
            raise PipelineError(f"{path.name}: {problem}")
    encoding = dialect.encoding_of(files[0])
    return Feed(files, FileFormat(type="jsonl", encoding=encoding), ["text"], notes=notes)


def _describe_parquet(files: list[Path], notes: list[str]) -> Feed:
    import pyarrow as pa
    import pyarrow.parquet as pq

    feed = Feed(files, FileFormat(type="parquet"), notes=notes)
    schemas = [pq.read_schema(path) for path in files]
    _agree(feed, [list(schema.names) for schema in schemas])
    feed.nested = [c.name for schema in schemas for c in schema if pa.types.is_nested(c.type)]
    return feed


DESCRIBE: dict[str, Callable[[list[Path], list[str]], Feed]] = {
    "csv": _describe_csv,
    "jsonl": _describe_json,
    "parquet": _describe_parquet,
}


def _batches(con: DuckDBPyConnection, feed: Feed) -> Iterator[str]:
    """Queries that give the next rows of the files; each is valid until the next is asked for."""
    for number, path in enumerate(feed.files):
        if feed.format.type == "parquet":
            yield from _parquet_batches(con, path, number)
        elif feed.format.type == "csv":
            yield from _csv_batches(con, feed, path, number)
        else:
            yield from _json_batches(con, feed, path, number)


def _parquet_batches(con: DuckDBPyConnection, path: Path, number: int) -> Iterator[str]:
    file = parquet.numbered(path)
    texts = parquet.text_queries(con, path)
    listed = ", ".join(f"{text} as {quote(column)}" for column, text in texts.items())
    total = scalar(con, f"select count(*) from {file}")
    for start in range(0, total, SAMPLE_ROWS):
        end = start + SAMPLE_ROWS - 1
        yield f"select {number} as _file, {listed} from {file} where file_row_number between {start} and {end}"


def _csv_batches(con: DuckDBPyConnection, feed: Feed, path: Path, number: int) -> Iterator[str]:
    import pyarrow as pa

    text = text_lines(dialect.open_bytes(path), feed.format, "")
    header = delimited.read_header(text, _source(feed))
    rejected = 0
    for chunk in delimited.read_rows(text, _source(feed), len(header)):
        rejected += len(chunk.rejects)
        if chunk.rows:
            values = dict(zip(header, zip(*chunk.rows, strict=True), strict=True))
            con.register("chunk", pa.table({n: pa.array(v, pa.string()) for n, v in values.items() if n}))
            absent = "".join(f", null::text as {quote(c)}" for c in feed.columns if c not in header)
            yield f"select {number} as _file, *{absent} from chunk"
    if rejected:
        feed.notes.append(f"{path.name}: {rejected:,} malformed lines; a run would put them into quarantine")


def _json_batches(con: DuckDBPyConnection, feed: Feed, path: Path, number: int) -> Iterator[str]:
    import pyarrow as pa

    text = text_lines(dialect.open_bytes(path), feed.format, "\n")
    filled = (line for line in text if not line.isspace())
    while lines := list(itertools.islice(filled, CHUNK_ROWS)):
        con.register("chunk", pa.table({"text": lines}))
        yield f"select {number} as _file, text from chunk where json_valid(text)"
