"""Delimited text (CSV) read strictly: a malformed line is rejected alone, with its number and a reason.

Speed is traded for certainty: sniffing readers merge columns and accept open quotes in silence (see
docs/adr/0003-python-csv.md).
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

from profile_pipeline.config.sources import Source
from profile_pipeline.raw.streams import FileRefused, is_text


@dataclass
class Rows:
    """A chunk of a file: good rows with their line numbers, and rejects as (line, reason, content)."""

    lines: list[int] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    rejects: list[tuple[int, str, str]] = field(default_factory=list)


class Lines:
    """Lines of a text stream with their numbers; lines can be handed back to be read again."""

    def __init__(self, text: io.TextIOWrapper, limit: int) -> None:
        self._text = text
        self._limit = limit
        self._returned: list[str] = []
        self.number = 0
        self.taken: list[str] = []

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self._returned.pop() if self._returned else self._read()
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        return line

    def _read(self) -> str:
        line = self._text.readline(self._limit + 1)
        if len(line) > self._limit and not line.endswith("\n"):
            while (rest := self._text.readline(self._limit)) and not rest.endswith("\n"):
                pass
        return line

    def begin(self) -> int:
        """Forget the lines of the last record; the number of the line that comes next."""
        self.taken = []
        return self.number + 1

    def hand_back(self) -> None:
        """Keep only the first line of the record; the others are read again as records of their own."""
        again = self.taken[1:]
        self._returned += reversed(again)
        self.number -= len(again)


def read_header(text: io.TextIOWrapper, source: Source) -> list[str]:
    """Column names of the file in order; without a header line, those of the contract."""
    if not source.format.header:
        return source.columns
    line = text.readline(source.format.max_line_bytes)
    if not line.strip():
        raise FileRefused("is empty: not even a header line; deliver it again or remove it")
    return [name.strip() for name in next(csv.reader([line], **_dialect(source)))]


def _dialect(source: Source) -> dict[str, str]:
    return {"delimiter": source.format.delimiter, "quotechar": source.format.quote}


def read_rows(text: io.TextIOWrapper, source: Source, width: int, chunk: int) -> Iterator[Rows]:
    """The file in chunks of about `chunk` rows, each row `width` texts long."""
    limit = source.format.max_line_bytes
    csv.field_size_limit(limit)
    feed = Lines(text, limit)
    feed.number = 1 if source.format.header else 0
    result = Rows()
    reader = csv.reader(feed, strict=True, **_dialect(source))
    while True:
        start = feed.begin()
        try:
            row = next(reader)
            problem = _problem(row, feed.taken, width, limit)
        except StopIteration:
            break
        except csv.Error as error:
            problem = f"malformed: {error}"
        if problem is None:
            result.lines.append(start)
            result.rows.append(row)
        elif problem:
            result.rejects.append((start, problem, feed.taken[0][:limit].rstrip("\r\n")))
            feed.hand_back()
            reader = csv.reader(feed, strict=True, **_dialect(source))
        if len(result.rows) + len(result.rejects) >= chunk:
            yield result
            result = Rows()
    yield result


def _problem(row: list[str], taken: list[str], width: int, limit: int) -> str | None:
    """Why a row is refused; None when it is good, empty text when the line is blank."""
    if len(row) == width:
        if len(taken) == 1 and len(taken[0]) > limit:
            return f"line longer than {limit:,} characters"
        return None if all(map(is_text, taken)) else "bytes that do not fit the declared encoding"
    if not row:
        return ""
    if len(taken[0]) > limit:
        return f"line longer than {limit:,} characters"
    return f"{len(row)} fields instead of {width}"
