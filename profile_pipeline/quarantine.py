"""Refused rows: listed, exported for repair, and delivered again as a new file.

A replayed row stays in quarantine as what it was; the repaired one is a new row of a new delivery, so every
delivered row keeps exactly one fate. Exports hold personal data and are readable by their owner only.
"""

import fnmatch
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.config.sources import Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.raw import ledger
from profile_pipeline.raw.repair import EXTENSIONS, Row, as_bytes, compressed, read_rows
from profile_pipeline.warehouse import (
    quote,
    records_of,
    rows,
    table_exists,
    transaction,
)

HELPERS = ("_file", "_line", "_reasons", "_content")
"""Columns an export adds. `_content` is the delivered text of a line that could not be read into columns."""
OPEN = """
    select q.* from records.quarantine q anti join (
        select r.file_id, r.line from raw.replays r left join raw.files f on f.name = r.replayed_by_name
        where f.state is null or f.state not in ('refused', 'reverted')
    ) r on r.file_id = q.file_id and r.line = q.line"""
"""Refused rows without a repaired one; they open again when the replay is refused or taken back."""


def open_rows(con: DuckDBPyConnection) -> list[tuple[str, int, str, str, int]]:
    """Refused rows that wait for repair, counted: (source, batch, stage, reason, rows)."""
    if not _ready(con):
        return []
    return rows(
        con,
        f"select source, batch, stage, reason, count(*) from (select *, unnest(reasons) as reason from ({OPEN}))"
        " group by all order by all",
    )


def _ready(con: DuckDBPyConnection) -> bool:
    ledger.create_tables(con)
    return table_exists(con, "records.quarantine")


def export(con: DuckDBPyConnection, config: Config, folder: Path) -> list[Path]:
    """Write the open rows of each source to a file in its own format, with the helper columns; the files written.

    A line that could not be read has its text in `_content`: fill in the columns, or leave it as it is.
    """
    written = []
    for name, source in config.sources.items() if _ready(con) else ():
        found = [*_refused(con, name, source), *_malformed(con, name, source)]
        if found:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = folder / f"{name}.{EXTENSIONS[source.format.type]}"
            columns = [*HELPERS, *source.columns]
            _write_private(path, as_bytes(source.format, columns, found, header=True))
            written.append(path)
    return written


def _refused(con: DuckDBPyConnection, name: str, source: Source) -> list[Row]:
    listed = "".join(f", d.{quote(column)}" for column in source.columns)
    found = records_of(
        con,
        "select f.name as _file, q.line::text as _line, array_to_string(q.reasons, '; ') as _reasons,"
        f" '' as _content, coalesce(d._nulls, []) as _nulls{listed} from ({OPEN}) q"
        f" join raw.{name} d on d._file = q.file_id and d._line = q.line join raw.files f using (file_id)"
        " where q.source = ? and q.stage = 'records' order by q.file_id, q.line",
        [name],
    )
    return [_mentioned(row, source) for row in found]


def _mentioned(row: dict[str, Any], source: Source) -> Row:
    """The row without the columns it did not have, where that differs from an empty value."""
    nulls = row.pop("_nulls")
    if source.format.type == "jsonl":
        row = {key: value for key, value in row.items() if value is not None or key in nulls}
    return row


def _malformed(con: DuckDBPyConnection, name: str, source: Source) -> list[Row]:
    found = records_of(
        con,
        "select f.name as _file, q.line::text as _line, array_to_string(q.reasons, '; ') as _reasons,"
        f" q.content as _content from ({OPEN}) q join raw.files f using (file_id)"
        " where q.source = ? and q.stage = 'raw' order by q.file_id, q.line",
        [name],
    )
    empty = {} if source.format.type == "jsonl" else dict.fromkeys(source.columns)
    return [row | empty for row in found]


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def replay(con: DuckDBPyConnection, config: Config, project: Project, path: Path, name: str) -> str:
    """Deliver the repaired rows of an export as a new file; its name in the data folder.

    Rows that were deleted from the file, and lines whose columns are still empty, stay open.
    """
    source = config.sources.get(name)
    if source is None:
        raise PipelineError(f"unknown source `{name}`; known: {', '.join(config.sources) or 'none'}")
    found = read_rows(path, source.format)
    columns = _contract_columns(path, source, found)
    repaired = [row for row in found if any(row.get(column) for column in columns)]
    if not repaired or not _ready(con):
        raise PipelineError(f"{path.name}: holds no repaired row; fill in the columns of at least one")
    places = _open_places(con, path, name, repaired)
    content = as_bytes(source.format, columns, map(_without_helpers, repaired), header=source.format.header)
    target = project.inbox / _delivery_name(name, source, content)
    with transaction(con):
        delivered = target.relative_to(project.data).as_posix()
        con.executemany(
            "insert into raw.replays values (?, ?, ?, ?)",
            [(file_id, line, delivered, ledger.as_of(con)) for file_id, line in places],
        )
        _deliver(target, compressed(content, target.name))
    return delivered


def _contract_columns(path: Path, source: Source, found: list[Row]) -> list[str]:
    """The columns to deliver; raises PipelineError when the file lacks some."""
    present = {column for row in found for column in row}
    if not {"_file", "_line"} <= present:
        raise PipelineError(
            f"{path.name}: lacks `_file` and `_line`; replay takes files of `quarantine export`"
        )
    if source.format.type == "jsonl":
        return source.columns
    lacking = [c for c in source.columns if c not in present and c not in source.optional_columns]
    if lacking:
        raise PipelineError(f"{path.name}: lacks the columns {', '.join(lacking)}; keep those of the export")
    return [column for column in source.columns if column in present]


def _without_helpers(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in HELPERS}


def _open_places(con: DuckDBPyConnection, path: Path, name: str, found: list[Row]) -> list[tuple[int, int]]:
    """Ledger places (file_id, line) of the rows; raises PipelineError when one is not open."""
    waiting = {
        (file, str(line)): (file_id, line)
        for file, line, file_id in rows(
            con, f"select f.name, q.line, q.file_id from ({OPEN}) q join raw.files f using (file_id) where q.source = ?", [name]
        )
    }  # fmt: skip
    places = {(str(row.get("_file")), str(row.get("_line"))) for row in found}
    strange = len(places - waiting.keys())
    if strange:
        raise PipelineError(
            f"{path.name}: {strange} of {len(places)} rows do not wait in the quarantine of {name}"
            " (replayed already?); export again"
        )
    return sorted(waiting[place] for place in places if place in waiting)


def _delivery_name(name: str, source: Source, content: bytes) -> str:
    """A name that the source's pattern matches; equal content has an equal name, so a repetition is harmless."""
    mark = f"replay_{hashlib.sha256(content).hexdigest()[:12]}"
    made = (
        re.sub(r"\[!?(.)[^\]]*\]", r"\1", source.files)
        .replace("*", mark, 1)
        .replace("*", "")
        .replace("?", "0")
    )
    if mark not in made or not fnmatch.fnmatchcase(made, source.files):
        raise PipelineError(
            f"sources.yaml: sources.{name}.files: no name for a replay can be made from `{source.files}`;"
            " use a pattern with *"
        )
    return made


def _deliver(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = target.with_name(target.name + ".part")
    _write_private(part, content)
    part.replace(target)
