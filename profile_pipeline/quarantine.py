"""Refused rows: listed, exported for repair, and delivered again as a new file.

A replayed row stays in quarantine as what it was; the repaired one is a new row of a new delivery, so every
delivered row keeps exactly one fate. Exports hold personal data and are readable by their owner only.
"""

import fnmatch
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.config.sources import Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.raw import ledger
from profile_pipeline.raw.repair import EXTENSIONS, Row, as_bytes, compressed, read_rows, told
from profile_pipeline.warehouse import (
    quote,
    records_of,
    rows,
    scalar,
    table_exists,
    transaction,
)

HELPERS = ("_file", "_line", "_reasons", "_content")
"""Columns an export adds. `_content` is the delivered text of a line that could not be read into columns."""
OPEN = """
    select q.* from records.quarantine q anti join (
        select r.file_id, r.line from raw.replays r left join raw.files f on f.name = r.replayed_by_name
        where f.state is null or f.state not in ('refused', 'removed', 'reverted')
    ) r on r.file_id = q.file_id and r.line = q.line"""
"""Refused rows without a repaired one; they open again when the replay is refused or taken back."""


@dataclass(frozen=True)
class Replayed:
    """A delivery of repaired rows: its name in the data folder, its rows, and rows of the file that wait on as they were."""

    name: str
    repaired: int
    left_open: int


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
    if _tells_absence(source):
        row = {key: value for key, value in row.items() if value is not None or key in nulls}
    return row


def _tells_absence(source: Source) -> bool:
    """Whether a column that is not there says something else than an empty one."""
    return source.format.type in {"jsonl", "parquet"} and source.clear_value == "null"


def _whole(row: Row, source: Source) -> Row:
    """The row with every column of the contract, where an empty one says no more than an absent one."""
    return row if _tells_absence(source) else dict.fromkeys(source.columns) | row


def _malformed(con: DuckDBPyConnection, name: str, source: Source) -> list[Row]:
    found = records_of(
        con,
        "select f.name as _file, q.line::text as _line, array_to_string(q.reasons, '; ') as _reasons,"
        f" q.content as _content from ({OPEN}) q join raw.files f using (file_id)"
        " where q.source = ? and q.stage = 'raw' order by q.file_id, q.line",
        [name],
    )
    return [_whole(row, source) for row in found]


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def replay(con: DuckDBPyConnection, config: Config, project: Project, path: Path, name: str) -> Replayed:
    """Deliver the repaired rows of an export as a new file.

    Rows that were deleted from the file, rows that are as they were refused, and lines whose columns are still empty,
    stay open. Raises PipelineError when nothing is repaired, and when the batch that brought these very rows is reverted.
    """
    source = config.sources.get(name)
    if source is None:
        raise PipelineError(f"unknown source `{name}`; known: {', '.join(config.sources) or 'none'}")
    found = _exported_rows(path, source)
    repaired = _repaired(con, path, name, source, found)
    places = _open_places(con, path, name, repaired)
    columns = _contract_columns(path, source, repaired)
    content = as_bytes(source.format, columns, map(_without_helpers, repaired), header=source.format.header)
    target = project.inbox / _delivery_name(name, source, content)
    delivered = target.relative_to(project.data).as_posix()
    _refuse_reverted(con, path, name, delivered)
    with transaction(con):
        con.executemany(
            "insert into raw.replays values (?, ?, ?, ?)",
            [(file_id, line, delivered, ledger.as_of(con)) for file_id, line in places],
        )
        _deliver(target, compressed(content, target.name))
    return Replayed(delivered, len(repaired), len(found) - len(repaired))


def _exported_rows(path: Path, source: Source) -> list[Row]:
    """Rows of a repaired file; raises PipelineError for one that was never exported."""
    found = read_rows(path, source.format)
    if not {"_file", "_line"} <= {column for row in found for column in row}:
        raise PipelineError(
            f"{path.name}: lacks `_file` and `_line`; replay takes files of `quarantine export`"
        )
    # people leave out keys that hold nothing; the other formats have a header that must be whole
    return [_whole(row, source) for row in found] if source.format.type == "jsonl" else found


def _repaired(con: DuckDBPyConnection, path: Path, name: str, source: Source, found: list[Row]) -> list[Row]:
    """Rows that hold something, and something else than what was refused; raises PipelineError when there are none."""
    if not _ready(con):
        raise PipelineError(f"{path.name}: no row is in quarantine yet; `profile-pipeline run` comes first")
    refused = [*_refused(con, name, source), *_malformed(con, name, source)]
    originals = {_place(row): row for row in refused}
    before = {place: told(source.format, source.columns, row) for place, row in originals.items()}
    if source.format.type == "parquet" and _tells_absence(source):
        found = [_silent(row, originals.get(_place(row), row)) for row in found]
    filled = [row for row in found if any(row.get(column) for column in source.columns)]
    repaired = [row for row in filled if told(source.format, source.columns, row) != before.get(_place(row))]
    if not repaired:
        raise PipelineError(
            f"{path.name}: holds no repaired row: none differs from what was refused; mend at least one"
        )
    return repaired


def _silent(row: Row, original: Row) -> Row:
    """The row without empty columns that were not delivered: a Parquet file has a column for all rows or for none."""
    return {
        key: value for key, value in row.items() if value is not None or key in HELPERS or key in original
    }


def _place(row: Row) -> tuple[str, str]:
    return str(row.get("_file")), str(row.get("_line"))


def _contract_columns(path: Path, source: Source, found: list[Row]) -> list[str]:
    """The columns to deliver; raises PipelineError when the run would refuse the file because it lacks some."""
    present = {column for row in found for column in row}
    lacking = [c for c in source.columns if c not in present and c not in source.optional_columns]
    if lacking and source.format.type == "jsonl":
        raise PipelineError(
            f'{path.name}: no repaired row has the columns {", ".join(lacking)}; write "" into one row, which clears'
            " nothing, or list them under optional_columns"
        )
    if lacking:
        raise PipelineError(f"{path.name}: lacks the columns {', '.join(lacking)}; keep those of the export")
    uneven = [column for column in source.columns if 0 < sum(column in row for row in found) < len(found)]
    if uneven and source.format.type == "parquet":
        raise PipelineError(
            f"{path.name}: only some of the rows were delivered with the columns {', '.join(uneven)}, and for the others"
            " a NULL would clear; replay them as two files"
        )
    return [column for column in source.columns if column in present]


def _refuse_reverted(con: DuckDBPyConnection, path: Path, name: str, delivered: str) -> None:
    """Raise PipelineError where the ledger knows the file as reverted: the run would not look at it again."""
    batch = scalar(
        con,
        "select batch from raw.files where source = ? and name = ? and state = 'reverted'",
        [name, delivered],
    )
    if batch is not None:
        raise PipelineError(
            f"{path.name}: these rows were delivered as {delivered} and taken back with batch {batch};"
            f" `profile-pipeline batch restore {batch}` lets them count again"
        )


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
    places = {_place(row) for row in found}
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
