"""CSV files that people open in a spreadsheet: no cell is taken for a formula, and every text comes back as it was.

A cell that a spreadsheet would calculate gets an apostrophe in front; reading takes it off again. Files may hold
personal data and are readable by their owner only.
"""

import csv
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from profile_pipeline.errors import PipelineError

FORMULA = re.compile(
    r"'*[=+\-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}"
    r"\N{FULLWIDTH COMMERCIAL AT}]"
)
"""What starts a formula, behind any apostrophes: those of the text itself are kept apart from ours."""
LONGEST = 100_000
"""Characters of a cell; Python's reader refuses more than 131,072."""
DELIMITERS = ",;\t"
MOST_PROBLEMS = 10
"""Mistakes of a file that are named; the others are counted."""


@dataclass(frozen=True)
class Line:
    """A row of a file: the line it begins in, and its cells by column."""

    number: int
    cells: dict[str, str]


class Problems:
    """Mistakes of a file, a line each, in the order of its lines."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._found: list[tuple[int, str]] = []

    def add(self, number: int, what: str) -> None:
        """A mistake in a line, with its fix."""
        self._found.append((number, what))

    def raise_any(self) -> None:
        """Raise PipelineError with the first mistakes, if there are any."""
        if not self._found:
            return
        shown = [
            f"{self._name}: line {number}: {what}" for number, what in sorted(self._found)[:MOST_PROBLEMS]
        ]
        more = len(self._found) - len(shown)
        raise PipelineError(
            "\n".join([*shown, *([f"{self._name}: {more:,} more lines have mistakes"] if more else [])])
        )


def harmless(text: str) -> str:
    """The text as a cell that no spreadsheet calculates."""
    return f"'{text}" if FORMULA.match(text) else text


def original(cell: str) -> str:
    """The text behind a cell; undoes `harmless`, and leaves cells that people wrote as they are."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def write_sheet(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Write a file at once or not at all; the number of rows. None becomes an empty cell."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    written = 0
    with os.fdopen(
        os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline=""
    ) as file:
        out = csv.writer(file)
        out.writerow(columns)
        for row in rows:
            out.writerow(["" if value is None else harmless(str(value)) for value in row])
            written += 1
    part.replace(path)
    return written


def read_sheet(path: Path, needed: Sequence[str]) -> list[Line]:
    """The rows of a file that people may have saved with another delimiter; empty rows are left out.

    Raises PipelineError when a needed column is missing or a line cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _lines(path, file, needed)
    except OSError as error:
        raise PipelineError(f"{path.name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise PipelineError(f"{path.name}: is not UTF-8; save it as `CSV UTF-8`") from None


def _lines(path: Path, file: Iterable[str], needed: Sequence[str]) -> list[Line]:
    text = iter(file)
    header = next(text, "")
    delimiter = max(DELIMITERS, key=header.count)
    columns = next(csv.reader([header], delimiter=delimiter), [])
    columns = [column.strip().lower() for column in columns]
    missing = [column for column in needed if column not in columns]
    if missing:
        raise PipelineError(
            f"{path.name}: line 1: lacks the columns {', '.join(missing)}; keep those of the export"
        )
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    found, begins = [], 2
    try:
        for cells in reader:
            if len(cells) > len(columns):
                raise PipelineError(
                    f"{path.name}: line {begins}: has more cells than the header; quote cells that hold `{delimiter}`"
                )
            if any(cells):
                found.append(Line(begins, dict(zip(columns, map(original, cells), strict=False))))
            begins = reader.line_num + 2
    except csv.Error as error:
        raise PipelineError(f"{path.name}: line {begins}: cannot be read as CSV ({error})") from None
    return found
