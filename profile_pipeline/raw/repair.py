"""Rows as a file in the format of their source: written for people to repair, and read back.

A value is text or None. In JSON lines an absent key is left out, and only an explicit null is written as one.
"""

import csv
import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from profile_pipeline.config.sources import FileFormat
from profile_pipeline.errors import PipelineError

Row = dict[str, str | None]
EXTENSIONS = {"csv": "csv", "jsonl": "jsonl", "parquet": "parquet"}


def as_bytes(rule: FileFormat, columns: list[str], found: Iterable[Row], *, header: bool) -> bytes:
    """The rows as the content of a file; `header` concerns CSV only."""
    writers = {"csv": _csv_bytes, "jsonl": _json_bytes, "parquet": _parquet_bytes}
    return writers[rule.type](rule, columns, list(found), header)


def _csv_bytes(rule: FileFormat, columns: list[str], found: list[Row], header: bool) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=rule.delimiter, quotechar=rule.quote, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows([row.get(column) for column in columns] for row in found)
    return text.getvalue().encode(rule.encoding, "backslashreplace")


def _json_bytes(rule: FileFormat, columns: list[str], found: list[Row], header: bool) -> bytes:  # noqa: ARG001
    lines = (
        json.dumps({c: _as_json(row[c]) for c in columns if c in row}, ensure_ascii=False) for row in found
    )
    return "".join(line + "\n" for line in lines).encode(rule.encoding, "backslashreplace")


def told(rule: FileFormat, columns: list[str], row: Row) -> bytes:
    """What a row says, to compare rows by; Parquet knows no single rows, so one is told as JSON."""
    write = _csv_bytes if rule.type == "csv" else _json_bytes
    return write(rule, columns, [row], header=False)


def _as_json(text: str | None) -> Any:  # noqa: ANN401
    """Objects and lists as such; any other value reads the same as a string as it did as a number."""
    if text is None or not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parquet_bytes(rule: FileFormat, columns: list[str], found: list[Row], header: bool) -> bytes:  # noqa: ARG001
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({c: pa.array([row.get(c) for row in found], pa.string()) for c in columns})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def read_rows(path: Path, rule: FileFormat) -> list[Row]:
    """Rows of a repaired file; raises PipelineError when it is not in the format of its source."""
    readers = {"csv": _read_csv, "jsonl": _read_json, "parquet": _read_parquet}
    try:
        return readers[rule.type](path, rule)
    except FileNotFoundError:
        raise PipelineError(f"{path.name}: not found") from None
    except (csv.Error, ValueError, OSError) as error:
        raise PipelineError(
            f"{path.name}: cannot be read as {rule.type} ({type(error).__name__}); keep the format of the export"
        ) from None


def _read_csv(path: Path, rule: FileFormat) -> list[Row]:
    encoding = "utf-8-sig" if rule.encoding.lower() in {"utf-8", "utf8"} else rule.encoding
    with path.open(encoding=encoding, newline="") as file:
        lines = csv.reader(file, strict=True, delimiter=rule.delimiter, quotechar=rule.quote)
        header = next(lines, [])
        found = [line for line in lines if line]
    ragged = next((n for n, line in enumerate(found, 1) if len(line) != len(header)), None)
    if ragged:
        raise PipelineError(f"{path.name}: row {ragged} does not have {len(header)} fields; mend it")
    return [dict(zip(header, line, strict=True)) for line in found]


def _read_json(path: Path, rule: FileFormat) -> list[Row]:
    lines = path.read_text(encoding=rule.encoding).split("\n")
    found = [json.loads(line) for line in lines if line.strip()]
    if not all(isinstance(row, dict) for row in found):
        raise ValueError
    return [{key: _as_text(value) for key, value in row.items()} for row in found]


def _as_text(value: Any) -> str | None:  # noqa: ANN401
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read_parquet(path: Path, rule: FileFormat) -> list[Row]:  # noqa: ARG001
    import pyarrow.parquet as pq

    return [
        {key: _as_text(value) for key, value in row.items()}
        for row in pq.read_table(path.as_posix()).to_pylist()
    ]


def compressed(content: bytes, name: str) -> bytes:
    """The content as a file of that name holds it."""
    if name.endswith(".gz"):
        return gzip.compress(content, mtime=0)
    if name.endswith((".zst", ".zstd")):
        import pyarrow as pa

        return pa.compress(content, codec="zstd", asbytes=True)
    return content
