"""Delimited text (CSV) read strictly: a malformed line is rejected alone, with its number and a reason.

Speed is traded for certainty: sniffing readers merge columns and accept open quotes in silence (see
docs/adr/0003-python-csv.md). Lines that are whole records are parsed in blocks; a block with a quoted line
break or a malformed line is read again record by record.
"""

import csv
import io
from collections.abc import Iterable, Iterator

from profile_pipeline.config.sources import Source
from profile_pipeline.raw.lines import Lines, Rows
from profile_pipeline.raw.streams import FileRefused, is_text
from profile_pipeline.raw.target import Target, agree_columns

NEWLINE = ""
PROBLEMS = {
    "unexpected end of data": "a quote that is never closed",
    "field larger": "a quote that is never closed, or a field longer than max_line_bytes",
    "new-line character": "a line break inside a field without quotes",
    "'": "text behind a closing quote",
}
"""Our words for the beginnings of the csv module's messages; a reason never quotes what was delivered."""


def load(target: Target, text: io.TextIOWrapper) -> list[str]:
    """Append the rows of a file to its raw table; notes for the ledger."""
    header = read_header(text, target.source)
    notes = agree_columns(header, target.source)
    for chunk in read_rows(text, target.source, len(header)):
        target.reject(chunk.rejects)
        if chunk.rows:
            target.insert(chunk.lines, chunk.rows, header)
    return notes


def read_header(text: io.TextIOWrapper, source: Source) -> list[str]:
    """Column names of the file in order; without a header line, those of the contract."""
    if not source.format.header:
        return source.columns
    line = text.readline(source.format.max_line_bytes)
    if not line.strip():
        raise FileRefused("is empty: not even a header line; deliver it again")
    if not is_text(line):
        raise FileRefused(
            f"has a header that is not {source.format.encoding}; set the `encoding` of the source"
        )
    try:
        return [name.strip() for name in next(_reader([line], source))]
    except csv.Error:
        raise FileRefused(
            "has a header line with an open quote; mend it or set `quote` of the source"
        ) from None


def _reader(lines: Iterable[str], source: Source) -> Iterator[list[str]]:
    return csv.reader(lines, strict=True, delimiter=source.format.delimiter, quotechar=source.format.quote)


def read_rows(text: io.TextIOWrapper, source: Source, width: int) -> Iterator[Rows[list[str]]]:
    """The file in chunks of several blocks, each row `width` texts long."""
    limit = source.format.max_line_bytes
    csv.field_size_limit(limit)
    feed = Lines(text, limit, NEWLINE, number=1 if source.format.header else 0)
    for blocks in feed.chunks():
        result: Rows[list[str]] = Rows()
        for block in blocks:
            if not _read_block(result, feed, block, source, width):
                feed.hand_back(block)
                _read_records(result, feed, source, width)
        yield result


def _read_block(result: Rows[list[str]], feed: Lines, block: list[str], source: Source, width: int) -> bool:
    """Add the rows of a block in which every line is a record by itself; False, and nothing added, for others."""
    limit = source.format.max_line_bytes
    try:
        rows = list(_reader(block, source))
    except csv.Error:
        return False
    if len(rows) != len(block) or len(max(block, key=len)) > limit:
        return False
    first = feed.number + 1
    feed.number += len(block)
    if is_text("".join(block)) and all(len(row) == width for row in rows):
        result.lines.extend(range(first, feed.number + 1))
        result.rows.extend(rows)
        return True
    for number, row, line in zip(range(first, feed.number + 1), rows, block, strict=True):
        _add(result, number, row, _problem(row, [line], width, limit), line, limit)
    return True


def _read_records(result: Rows[list[str]], feed: Lines, source: Source, width: int) -> None:
    """Add records until none of the lines that were handed back is left."""
    limit = source.format.max_line_bytes
    reader = _reader(feed, source)
    while feed.waiting:
        start, row = feed.begin(), []
        try:
            row = next(reader)
            problem = _problem(row, feed.taken, width, limit)
        except csv.Error as error:
            problem = _too_long(feed.taken[:1], limit) or _reason(error)
        _add(result, start, row, problem, feed.taken[0], limit)
        if problem:
            feed.keep_first()
            reader = _reader(feed, source)


def _add(
    result: Rows[list[str]], number: int, row: list[str], problem: str | None, line: str, limit: int
) -> None:
    if problem is None:
        result.keep(number, row)
    elif problem:
        result.reject(number, problem, line, limit)


def _problem(row: list[str], taken: list[str], width: int, limit: int) -> str | None:
    """Why a row is refused; None when it is good, empty text when the line is blank."""
    if long := _too_long(taken, limit):
        return long
    if not row:
        return ""
    if not all(map(is_text, taken)):
        return "bytes that do not fit the declared encoding"
    return None if len(row) == width else f"{len(row)} fields instead of {width}"


def _too_long(taken: list[str], limit: int) -> str | None:
    return f"line longer than {limit:,} characters" if any(len(line) > limit for line in taken) else None


def _reason(error: csv.Error) -> str:
    text = str(error)
    return next((words for start, words in PROBLEMS.items() if text.startswith(start)), "malformed quoting")
