"""Pins of values in a CSV file: their whole history, to be kept and brought back, and new pins from a spreadsheet."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.profiles.pins import EVENTS, PINNED, TABLE, Pin, append, pin_id_of, prepare
from profile_pipeline.sheets import Line, Problems, read_sheet, write_sheet
from profile_pipeline.warehouse import rows, transaction

NEEDED = ("profile_id", "field", "shown", "reason")
HISTORY = ("pin_id", "event", "noted_at", "value", "cleared", "field_type", "corrected", "batch")
"""What an export adds to a pin; a new one leaves it empty."""
COLUMNS = (*NEEDED, "until_on", "author", *HISTORY)
YES, NO = "true", "false"
Row = dict[str, Any]


@dataclass(frozen=True)
class Imported:
    """What a file brought: new pins, events of history that were not there, and those that were."""

    pinned: int
    brought_back: int
    known: int


def export_csv(con: DuckDBPyConnection, path: Path) -> int:
    """Write everything that ever happened to pins, oldest first; the number of events."""
    con.execute(TABLE)
    time = "strftime(noted_at at time zone 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')"
    found = rows(
        con,
        f"""select {", ".join(COLUMNS)} from (select * replace ({time} as noted_at, to_json(corrected)::text as corrected,
            cleared::text as cleared) from profiles.value_pins) order by noted_at, pin_id, event, batch""",
    )
    return write_sheet(path, COLUMNS, found)


def import_csv(
    con: DuckDBPyConnection, config: Config, path: Path, author: str, *, dry_run: bool = False
) -> Imported:
    """Take pins from a file, all or nothing.

    A row with a `pin_id` is history that comes back: its profile may not be there yet. One without is a new pin,
    of `author` where the row names nobody; an empty `shown` with `cleared` true clears the field.
    """
    con.execute(TABLE)
    problems = Problems(path)
    lines = read_sheet(path, NEEDED)
    old = {line.number: _event(line, problems) for line in lines if line.cells.get("pin_id")}
    new = [
        (line, _pin(con, config, line, author, problems)) for line in lines if not line.cells.get("pin_id")
    ]
    _reject_doubles(new, problems)
    back = _unknown(con, {number: row for number, row in old.items() if row}, problems)
    problems.raise_any()
    if not dry_run:
        with transaction(con):
            for row in back:
                _write(con, row)
            for _, made in new:
                if made:
                    append(con, made)
    return Imported(len(new), len(back), len(old) - len(back))


def _pin(con: DuckDBPyConnection, config: Config, line: Line, author: str, problems: Problems) -> Pin | None:
    cells = line.cells
    text, clears = cells.get("shown") or None, cells.get("cleared", "").strip().lower() == YES
    if clears == (text is not None):
        problems.add(line.number, f"write the value into `shown`, or `{YES}` into `cleared` to show none")
        return None
    try:
        until = _day(cells.get("until_on", ""))
        who, why = cells.get("author") or author, cells.get("reason", "")
        return prepare(
            con, config, cells["profile_id"].strip(), cells["field"].strip(), text, who, why, until=until
        )
    except PipelineError as error:
        problems.add(line.number, str(error))
        return None


def _reject_doubles(new: list[tuple[Line, Pin | None]], problems: Problems) -> None:
    first: dict[tuple[str, str], int] = {}
    for line, made in new:
        if made and first.setdefault((made.profile_id, made.field), line.number) != line.number:
            earlier = first[made.profile_id, made.field]
            problems.add(line.number, f"pins the field of line {earlier} again; keep one of them")


def _day(text: str) -> date | None:
    if not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise PipelineError("until_on is no ISO date; write it like 2026-12-31 or leave it empty") from None


# ---------------------------------------------------------------- history that comes back


def _event(line: Line, problems: Problems) -> Row | None:
    try:
        return _read_event(line.cells)
    except PipelineError as error:
        problems.add(line.number, str(error))
    except (ValueError, KeyError, TypeError):
        problems.add(line.number, "is not as it was exported; empty pin_id to pin anew")
    return None


def _read_event(cells: dict[str, str]) -> Row:
    at = datetime.fromisoformat(cells["noted_at"]).astimezone(UTC)
    row: Row = {
        name: cells[name] or None for name in ("profile_id", "field", "author", "reason", "pin_id", "event")
    }
    row |= {name: cells[name] or None for name in ("value", "shown", "field_type")}
    row |= {
        "noted_at": at,
        "until_on": _day(cells["until_on"]),
        "cleared": {YES: True, NO: False}[cells["cleared"].lower()],
    }
    row["batch"] = int(cells["batch"]) if cells["batch"] else None
    row["corrected"] = _corrected(cells["corrected"])
    if row["event"] not in EVENTS or not all(
        row[name] for name in ("profile_id", "field", "author", "reason")
    ):
        raise ValueError(row["event"])
    if row["event"] == PINNED and row["pin_id"] != pin_id_of(row["profile_id"], row["field"], at):
        raise PipelineError("pin_id is not that of this profile, field and time; empty it to pin anew")
    return row


def _corrected(text: str) -> list[Row] | None:
    names = ("record_key", "value", "raw")
    return [{name: item[name] for name in names} for item in json.loads(text)] if text else None


def _unknown(con: DuckDBPyConnection, found: dict[int, Row], problems: Problems) -> list[Row]:
    """Events that are not recorded yet; one that is recorded otherwise, or ends a pin that nobody made, is a mistake."""
    recorded = {
        (pin_id, event, at.astimezone(UTC)): shown
        for pin_id, event, at, *shown in rows(
            con,
            "select pin_id, event, noted_at, shown, cleared, until_on, author, reason from profiles.value_pins",
        )
    }
    made = {key[0] for key in recorded} | {row["pin_id"] for row in found.values() if row["event"] == PINNED}
    back = []
    for number, row in found.items():
        key = row["pin_id"], row["event"], row["noted_at"]
        if row["pin_id"] not in made:
            problems.add(number, "ends a pin that nobody made; import its line `pinned` too")
        elif key not in recorded:
            recorded[key] = _said(row)
            back.append(row)
        elif recorded[key] != _said(row):
            problems.add(number, "differs from what is known of this pin; empty pin_id to pin anew")
    return back


def _said(row: Row) -> list[Any]:
    return [row[name] for name in ("shown", "cleared", "until_on", "author", "reason")]


def _write(con: DuckDBPyConnection, row: Row) -> None:
    places = ", ".join(f"? as {name}" for name in row)
    con.execute(f"insert into profiles.value_pins by name select {places}", list(row.values()))
