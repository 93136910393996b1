"""How the bytes of delivered files are to be read: kind, encoding, delimiter, quote, header line."""

import codecs
import csv
import io
import json
import re
from pathlib import Path
from typing import Literal

from profile_pipeline.config.sources import FileFormat
from profile_pipeline.errors import PipelineError
from profile_pipeline.raw.streams import HashedFile, decompressed

COMPRESSED = (".gz", ".zst", ".zstd")
KINDS: dict[str, Literal["csv", "jsonl", "parquet"]] = {
    ".csv": "csv", ".tsv": "csv", ".psv": "csv", ".txt": "csv", ".dat": "csv", ".tab": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
DELIMITERS = (",", ";", "\t", "|", "^", "~", ":", "\x01")
MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
CHUNK = 1 << 20
HEAD_LINES = 1000


def open_bytes(path: Path) -> io.BufferedReader:
    """The decompressed bytes of a delivery, under the caps that a run has."""
    return decompressed(HashedFile(path), path, FileFormat(type="csv"))


def kind_of(path: Path) -> Literal["csv", "jsonl", "parquet"]:
    """The file type, from the name and the first bytes; raises PipelineError for what a run cannot read."""
    with open_bytes(path) as file:
        head = file.read(4096)
    if head[:2] == b"PK":
        raise PipelineError(f"{path.name}: is a spreadsheet or archive; save it as CSV")
    if head[:4] == b"PAR1":
        return "parquet"
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSED]
    kind = KINDS.get(suffixes[-1] if suffixes else "")
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if start == b"[" and kind != "csv":
        raise PipelineError(f"{path.name}: is one JSON list; deliver one object a line (jq -c '.[]')")
    return kind or ("jsonl" if start == b"{" else "csv")


def is_readable(path: Path) -> bool:
    """Whether a file holds anything and its kind can be told from it; damaged ones are left to `check`."""
    try:
        with open_bytes(path) as file:
            head = file.read(CHUNK)
    except (OSError, EOFError, ValueError):
        return False
    return bool(head.strip()) and (path.suffix != ".parquet" or _is_parquet(path))


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-4, 2)
        return file.read(4) == b"PAR1"


def encoding_of(path: Path) -> str:
    """utf-8 when every byte fits it, the UTF named by a byte order mark, otherwise windows-1252."""
    with open_bytes(path) as file:
        head = file.read(CHUNK)
        marked = next((name for mark, name in MARKS.items() if head.startswith(mark)), None)
        if marked:
            return marked
        if head.count(b"\0") > len(head) // 4:
            return "utf-16-be" if head[:1] == b"\0" else "utf-16-le"
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while head:
                decoder.decode(head)
                head = file.read(CHUNK)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "windows-1252"
    return "utf-8"


def delimited_format(path: Path) -> FileFormat:
    """The format of a delimited file: the delimiter and quote under which its lines agree best."""
    encoding = encoding_of(path)
    with open_bytes(path) as file:
        text = file.read(4 * CHUNK).decode("utf-8-sig" if encoding == "utf-8" else encoding, "replace")
    lines = text.splitlines(keepends=True)[:HEAD_LINES]
    quote = "'" if _wrapped(text, "'") > 4 * max(1, _wrapped(text, '"')) else '"'
    delimiter = max(DELIMITERS, key=lambda each: (*_agreement(lines, each, quote), -DELIMITERS.index(each)))
    rows = list(csv.reader(lines, delimiter=delimiter, quotechar=quote))
    return FileFormat(
        type="csv", delimiter=delimiter, quote=quote, encoding=encoding, header=_has_header(rows)
    )


def _wrapped(text: str, quote: str) -> int:
    """How often a field seems to be wrapped in a quote character."""
    q = re.escape(quote)
    return len(re.findall(rf"(?:^|[,;\t|]){q}[^{q}\n]*{q}(?=[,;\t|]|$)", text[:CHUNK], re.MULTILINE))


def _agreement(lines: list[str], delimiter: str, quote: str) -> tuple[float, int]:
    """Share of lines as wide as the first, with a delimiter; 0 where it splits nothing."""
    try:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter, quotechar=quote) if row]
    except csv.Error:
        return 0.0, 0
    if not widths or widths[0] < 2:
        return 0.0, 0
    return round(sum(width == widths[0] for width in widths) / len(widths), 1), widths[0]


def _has_header(rows: list[list[str]]) -> bool:
    """A header names columns: filled, distinct, no number, date or address, and no value that comes again below."""
    first = [cell.strip() for cell in rows[0]] if rows else []
    value = re.compile(r"[-+\d.,:/ ]*\d[-+\d.,:/ ]*|\S+@\S+\.\S+|\d{4}-\d\d-\d\d.*")
    if not all(first) or len(set(first)) < len(first) or any(map(value.fullmatch, first)):
        return False
    return bool(first) and not any(
        cell.strip() == name for row in rows[1:] for name, cell in zip(first, row, strict=False)
    )


def json_keys_note(path: Path) -> str | None:
    """What is wrong when the first line of a JSON-lines file is not an object; None when it is."""
    with open_bytes(path) as file:
        line = file.readline(1_000_000)
    try:
        return None if isinstance(json.loads(line), dict) else "its lines are not JSON objects"
    except ValueError:
        return "it is one JSON text over many lines; deliver one object a line (jq -c .)"
