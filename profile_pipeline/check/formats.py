"""Formats, zones, encodings, countries and the cron line: names that only an outside authority knows."""

import codecs
import difflib
import functools
import re
import zoneinfo

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.check.problem import Problem
from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Source
from profile_pipeline.config.wording import suggestion
from profile_pipeline.records.normalise import country_code
from profile_pipeline.sandbox import sandbox
from profile_pipeline.warehouse import rows

SPREADSHEET = (("yyyy", "%Y"), ("yy", "%y"), ("dd", "%d"), ("hh", "%H"), ("ss", "%S"))
YEARS = ("%Y", "%y", "%x", "%c", "%G")
CRON_FIELD = re.compile(r"[0-9*/,\-A-Za-z?#]+")
Found = list[tuple[str, str]]
"""Key path and message."""


def format_problems(config: Config) -> list[Problem]:
    """Names in sources.yaml and publication.yaml that nobody knows, and formats that contradict each other."""
    with sandbox() as con:
        found = [
            Problem("sources.yaml", f"sources.{name}.{key}", message)
            for name, source in config.sources.items()
            for key, message in _of_source(con, source)
        ]
    published = [("timezone", zone_problem(config.publication.timezone)), ("schedule", _cron(config))]
    return [*found, *(Problem("publication.yaml", key, message) for key, message in published if message)]


def _of_source(con: DuckDBPyConnection, source: Source) -> Found:
    found = [*_formats(con, "dates", source.dates, {"iso"})]
    if source.time:
        found += _formats(con, "time.formats", source.time.formats, {"iso", "epoch_s", "epoch_ms"})
        found.append(("time.zone", zone_problem(source.time.zone)))
    if source.format.type != "parquet":
        found.append(("format.encoding", encoding_problem(source.format.encoding)))
    found.append(("country", country_problem(source.country)))
    return [(key, message) for key, message in found if message]


def _formats(
    con: DuckDBPyConnection, key: str, formats: list[str], named: set[str]
) -> list[tuple[str, str | None]]:
    found = [(key, format_problem(con, each, named)) for each in formats]
    if not formats:
        found.append((key, 'needs at least one format; write ["iso"] or the formats that occur'))
    for index, one in enumerate(formats):
        for other in formats[index + 1 :]:
            if _swapped(one) == other:
                message = (
                    f'"{one}" and "{other}" read 03/04/2025 in two ways; keep the one the source means'
                    " (a column in another format is converted in its own expression)"
                )
                found.append((key, message))
    return found


def _swapped(pattern: str) -> str:
    """The same format with day and month exchanged."""
    return pattern.replace("%d", "\0").replace("%m", "%d").replace("\0", "%m")


def format_problem(con: DuckDBPyConnection, pattern: str, named: set[str]) -> str | None:
    """What is wrong with a strptime pattern of DuckDB and how to mend it; None when nothing is."""
    if pattern in named:
        return None
    if "%" not in pattern:
        return f"`{pattern}` is not a date format; {_format_fix(pattern, named)}"
    try:
        rows(con, "select try_strptime('', ?)", [pattern])
    except duckdb.Error as error:
        reason = re.sub(r"^.*Error: Failed to parse format specifier [^:]*: ", "", str(error).splitlines()[0])
        return f"`{pattern}` is not a date format: {reason[:1].lower()}{reason[1:]}; see strptime of DuckDB"
    if not any(year in pattern for year in YEARS):
        return f"`{pattern}` has no year; add %Y"
    return None


def _format_fix(pattern: str, named: set[str]) -> str:
    """Spreadsheet patterns such as dd/MM/yyyy in strptime's letters."""
    guess = pattern.lower()
    for letters, code in SPREADSHEET:
        guess = guess.replace(letters, code)
    guess = re.sub(r"mm(?=.*%S)(?<=%H.mm)|(?<=%H:)mm", "%M", guess).replace("mm", "%m")
    if "%" in guess and not re.search(r"(?<!%)[a-zA-Z]", guess.replace("t%H", "%H")):
        return f'write "{guess}"'
    return suggestion(pattern, named, f'write {", ".join(sorted(named))} or a pattern such as "%d/%m/%Y"')


@functools.cache
def _zones() -> dict[str, str]:
    return {name.lower(): name for name in zoneinfo.available_timezones()}


def zone_problem(zone: str) -> str | None:
    """Whether an IANA time zone exists; with the zone that was meant, where a city or spelling tells."""
    if zone in _zones().values():
        return None
    lowered = zone.lower().replace(" ", "_")
    ends = [name for key, name in _zones().items() if key == lowered or key.rpartition("/")[2] == lowered]
    close = ends or [_zones()[key] for key in difflib.get_close_matches(lowered, _zones(), n=1)]
    fix = f"did you mean `{close[0]}`?" if close else "write an IANA name such as Europe/London"
    return f"`{zone}` is not a time zone; {fix}"


def encoding_problem(encoding: str) -> str | None:
    """Whether Python knows a text encoding of that name."""
    try:
        known = codecs.lookup(encoding)
        "".encode(known.name)
    except (LookupError, ValueError):
        names = ("utf-8", "utf-16", "windows-1250", "windows-1251", "windows-1252", "iso-8859-1", "iso-8859-2",
                 "iso-8859-15", "shift_jis", "gb18030", "mac-roman")  # fmt: skip
        return f"`{encoding}` is not a text encoding; {suggestion(encoding, names, 'write one such as windows-1252')}"
    return None


def country_problem(country: str) -> str | None:
    """Whether a code is ISO 3166-1 alpha-2 and has phone numbers."""
    import phonenumbers

    if not country or country in phonenumbers.SUPPORTED_REGIONS:
        return None
    meant = country_code(country)
    fix = f"did you mean `{meant}`?" if meant and meant != country else "write one such as GB"
    return f"`{country}` is not a country code; {fix}"


def _cron(config: Config) -> str | None:
    fields = config.publication.schedule.split()
    if len(fields) == 5 and all(CRON_FIELD.fullmatch(field) for field in fields):
        return None
    return f"`{config.publication.schedule}` is not a cron line of five fields; write one such as 0 5 * * *"
