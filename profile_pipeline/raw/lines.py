"""Numbered lines of a text stream: in blocks for speed, and one by one where a record needs care."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, takewhile
from typing import Generic, TypeVar

BLOCK_CHARACTERS = 1 << 20
CHUNK_BLOCKS = 8
"""Blocks that go to the database together: few statements, little memory."""
KEPT_CHARACTERS = 1000
"""How much of a line that is too long is kept for people to recognise it."""
LINE_ENDS = ("\n", "\r")

Row = TypeVar("Row")


@dataclass
class Rows(Generic[Row]):
    """A chunk of a file: good rows with their line numbers, and rejects as (line, reason, content)."""

    lines: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    rejects: list[tuple[int, str, str]] = field(default_factory=list)

    def keep(self, line: int, row: Row) -> None:
        """Add a good row."""
        self.lines.append(line)
        self.rows.append(row)

    def reject(self, line: int, reason: str, content: str, limit: int) -> None:
        """Add a line that cannot be read; the reason never quotes it."""
        kept = content[:KEPT_CHARACTERS] if len(content) > limit else content
        self.rejects.append((line, reason, kept.rstrip("\r\n")))


class Lines:
    """Lines with their numbers; what was read can be handed back to be read again.

    A line longer than `limit` characters is cut just behind the limit, so no line can fill the memory.
    """

    def __init__(self, text: io.TextIOWrapper, limit: int, newline: str, number: int = 0) -> None:
        self._text = text
        self._limit = limit
        self._newline = newline
        self._returned: list[str] = []
        self.number = number
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
        if len(line) > self._limit and not line.endswith(LINE_ENDS):
            self._skip_rest()
        return line

    def _skip_rest(self) -> None:
        while (rest := self._text.readline(self._limit)) and not rest.endswith(LINE_ENDS):
            pass

    def chunks(self) -> Iterator[Iterator[list[str]]]:
        """The rest of the text as chunks of blocks; every block of one is to be read before the next."""
        while first := self._block():
            yield chain([first], takewhile(bool, (self._block() for _ in range(CHUNK_BLOCKS - 1))))

    def _block(self) -> list[str]:
        """The next lines, about a million characters of them; `number` stays that of the line before."""
        text = self._text.read(BLOCK_CHARACTERS)
        cut = bool(text) and not text.endswith("\n")
        if cut:
            text += self._text.readline(self._limit + 1)
        lines = list(io.StringIO(text, newline=self._newline))
        if cut and len(lines[-1]) > self._limit and not lines[-1].endswith(LINE_ENDS):
            self._skip_rest()
        return lines

    @property
    def waiting(self) -> bool:
        """Whether lines that were handed back are still to be read."""
        return bool(self._returned)

    def hand_back(self, lines: list[str]) -> None:
        """Read these lines again, before all others."""
        self._returned += reversed(lines)

    def begin(self) -> int:
        """Forget the lines of the last record; the number of the line that comes next."""
        self.taken = []
        return self.number + 1

    def keep_first(self) -> None:
        """End the record after its first line; the others are read again as records of their own."""
        again = self.taken[1:]
        self.hand_back(again)
        self.number -= len(again)
