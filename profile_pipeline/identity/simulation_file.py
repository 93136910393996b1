"""The text that a simulation reads: a line an event, `NS: value, NS: value`, optionally with a time before it.

It is the syntax of Adobe's graph simulation. Empty lines and lines that start with # are skipped. Either every
line has a time or none: lines without times follow each other a minute apart.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from profile_pipeline.config.wording import suggestion
from profile_pipeline.errors import PipelineError

LONGEST = 10_000
"""Lines; a simulation is for rules, not for data."""
MOST_IDENTITIES = 20
"""Identities in one line, as in Adobe's record limit."""
START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=1)
TIME = re.compile(r"(\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?)?(?:Z|[+-]\d{2}:\d{2})?)[ \t,]+(?=\D)")


@dataclass(frozen=True)
class Line:
    """An event: its line in the file, its time, and identities as (namespace, value as written)."""

    number: int
    at: datetime
    identities: tuple[tuple[str, str], ...]


def read_lines(path: Path, namespaces: Iterable[str]) -> list[Line]:
    """The events of a file; PipelineError with a line for every mistake. Names of namespaces in any case."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise PipelineError(f"{path}: cannot be read; name a UTF-8 text file, a line an event") from None
    return parse_lines(text, namespaces, path.name)


def parse_lines(text: str, namespaces: Iterable[str], name: str = "text") -> list[Line]:
    """The events of a text; `name` stands for it in messages."""
    known = {space.casefold(): space for space in namespaces}
    problems: list[str] = []
    timed = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            time, stated = _time(line.strip())
            identities = _identities(stated, known, f"{name}: line {number}", problems)
            timed.append((number, _moment(time, f"{name}: line {number}", problems), identities))
    if len(timed) > LONGEST:
        problems.append(f"{name}: more than {LONGEST:,} lines; simulate a part of it")
    untimed = [number for number, at, _ in timed if at is None]
    if 0 < len(untimed) < len(timed):
        problems.append(f"{name}: line {untimed[0]}: has no time, others have; give every line one, or none")
    if not timed:
        problems.append(f"{name}: no events; write lines such as `crm_id: 1, email: a@example.org`")
    if problems:
        raise PipelineError("\n".join(problems))
    return [Line(number, at or START + STEP * n, ids) for n, (number, at, ids) in enumerate(timed)]


def _time(line: str) -> tuple[str, str]:
    """The time before the first namespace, if there is one, and the rest."""
    found = TIME.match(line)
    return (found[1], line[found.end() :]) if found else ("", line)


def _moment(text: str, where: str, problems: list[str]) -> datetime | None:
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        problems.append(f"{where}: `{text}` is no time; write it such as 2026-03-01T10:30")
        return START
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _identities(
    stated: str, known: dict[str, str], where: str, problems: list[str]
) -> tuple[tuple[str, str], ...]:
    """Each identity once, in the order written; messages name the part, never a value."""
    parts = [part for part in stated.split(",") if part.strip()]
    if len(parts) > MOST_IDENTITIES:
        problems.append(f"{where}: more than {MOST_IDENTITIES} identities; split the line")
    found = {}
    for position, part in enumerate(parts, 1):
        space, colon, value = (piece.strip() for piece in part.partition(":"))
        if not (colon and space and value):
            problems.append(
                f"{where}: part {position} is not `NS: value`; write a namespace, a colon, a value"
            )
        elif space.casefold() not in known:
            fix = suggestion(space, known.values(), f"known: {', '.join(known.values()) or 'none'}")
            problems.append(f"{where}: unknown namespace `{space}`; {fix}")
        else:
            found[known[space.casefold()], value] = None
    return tuple(found)
