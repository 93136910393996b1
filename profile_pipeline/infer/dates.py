"""Which declared date formats the values of a column fit: tested on every value, never guessed.

A format that only fits because day and month can be exchanged is half of a question.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from profile_pipeline.infer.evidence import Evidence
from profile_pipeline.warehouse import literal, rows

DAYS = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m.%d.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d",
        "%d %m %Y", "%d%m%Y", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%m-%y", "%m-%d-%y", "%d %b %Y", "%d-%b-%Y",
        "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%y")  # fmt: skip
CLOCKS = (" %H:%M:%S", " %H:%M", "T%H:%M:%S", "T%H:%M", " %I:%M:%S %p", " %I:%M %p", " %H:%M:%S.%f", " %H:%M:%S%z",
          " %H:%M:%S %z")  # fmt: skip
STAMPS = tuple(day + clock for day in ("%Y-%m-%d", *DAYS[:9], *DAYS[11:13]) for clock in CLOCKS if day + clock not in {
    "%Y-%m-%d" + iso for iso in (" %H:%M:%S", " %H:%M", "T%H:%M:%S", "T%H:%M", " %H:%M:%S.%f", " %H:%M:%S%z")
})  # fmt: skip
ISO_TIME = "iso with a time"
"""Not a format to declare: counts how many of the `iso` values have a time of day."""
FIRST_LOOK = 1_000
LEAST_SHARE = 0.005
CLEAR_SHARE = 0.02
ISO = r"\d{4}-\d{2}-\d{2}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?(Z|[+-]\d{2}(:?\d{2})?))?)?"


@dataclass(frozen=True)
class DateReading:
    """How a column's dates are read. `day_first`: formats that fit only as well with day and month exchanged."""

    formats: list[str]
    day_first: list[str]
    fitted: float
    has_time: bool
    without_offset: bool
    short_years: bool


def candidates(con: DuckDBPyConnection, found: Evidence, named: bool) -> list[str]:
    """Formats that at least some of the sampled values fit; empty for a column that holds no dates."""
    least = 0.3 if named else 0.8
    if found.share("date_like") < least and not (named and found.share("postcode_digits") > least):
        return []
    con.execute(
        f"create or replace temp table looked as select distinct c{found.index} as v from sampled"
        f" where c{found.index} is not null order by hash(v) limit {FIRST_LOOK}"
    )
    seen = set("".join(value for (value,) in rows(con, "select v from looked")))
    stamps = ("epoch_s", "epoch_ms") if named else ()
    formats = ["iso", ISO_TIME, *(each for each in (*DAYS, *STAMPS) if _marks(each) <= seen), *stamps]
    fits = ", ".join(fits_query(each, "v") for each in formats)
    sets = rows(con, f"select [{fits}] as fits, count(*) from looked group by 1")
    total = sum(count for _, count in sets)
    if sum(count for fit, count in sets if any(fit)) < least * total:
        return []
    shares = [sum(count for fit, count in sets if fit[i]) / total for i in range(len(formats))]
    return [each for each, share in zip(formats, shares, strict=True) if share >= LEAST_SHARE]


def _marks(pattern: str) -> set[str]:
    """The characters that stand between the parts of a date."""
    return set(re.sub(r"%[A-Za-z]", "", pattern))


def fits_query(pattern: str, text: str) -> str:
    """Whether a text can be read with a format, in a believable year."""
    if pattern == ISO_TIME:
        return f"coalesce(length({text}) > 12 and regexp_full_match({text}, {literal(ISO)}), false)"
    if pattern == "iso":
        return f"coalesce(regexp_full_match({text}, {literal(ISO)}) and try_cast(left({text}, 10) as date) is not null, false)"
    if pattern in {"epoch_s", "epoch_ms"}:
        digits = 10 if pattern == "epoch_s" else 13
        return f"coalesce(regexp_full_match({text}, '1\\d{{{digits - 1}}}'), false)"
    earliest = 1000 if re.search(r"[^%dmYy]", pattern) else 1850
    return f"coalesce(year(try_strptime({text}, {literal(pattern)})) between {earliest} and 2200, false)"


class Tally:
    """How many values fit which of the candidates together, over all rows seen: every set of formats with its count."""

    def __init__(self, index: int, formats: list[str]) -> None:
        self.index = index
        self.formats = formats
        self.offsets = 0
        self.sets: dict[frozenset[str], int] = {}

    def add(self, con: DuckDBPyConnection, table: str) -> None:
        """Count the values of column c<index> of a table."""
        c = f"c{self.index}"
        offset = f"regexp_matches({c}, '(Z|[+-]\\d{{2}}:?\\d{{2}})$') and length({c}) > 10"
        fits = ", ".join(fits_query(each, c) for each in self.formats)
        counted = f"select [{fits}] as fits, count(*), count_if({offset}) from {table} where {c} is not null group by 1"
        for fit, count, offsets in rows(con, counted):
            key = frozenset(each for each, holds in zip(self.formats, fit, strict=True) if holds)
            self.sets[key] = self.sets.get(key, 0) + count
            self.offsets += offsets

    @property
    def values(self) -> int:
        """Values counted."""
        return sum(self.sets.values())

    def reading(self) -> DateReading:
        """The fewest formats that read the values, and the choice that is left to a person."""
        left = {key: count for key, count in self.sets.items() if key}
        chosen: list[str] = []
        day_first: list[str] = []
        while left:
            best = max(self.formats, key=lambda f: (_count(left, f), -self.formats.index(f)))
            if _count(left, best) < LEAST_SHARE * self.values:
                break
            order = [f for f in (best, swapped(best)) if f in self.formats and self._settled(f)]
            chosen += order[:1]
            day_first += [] if order else [min(best, swapped(best), key=lambda f: f.index("%d"))]
            read = order[:1] or [best, swapped(best)]
            left = {key: count for key, count in left.items() if not key & set(read)}
        return self._summary(chosen, day_first, sum(left.values()) + self.sets.get(frozenset(), 0))

    def _settled(self, each: str) -> bool:
        """Whether days above 12 settle the order: enough of them, and hardly any the other way round."""
        twin = swapped(each)
        if twin == each or twin not in self.formats:
            return True
        only = sum(n for key, n in self.sets.items() if each in key and twin not in key)
        other = sum(n for key, n in self.sets.items() if twin in key and each not in key)
        return only >= max(1, CLEAR_SHARE * _count(self.sets, each)) and other <= 0.05 * only

    def _summary(self, chosen: list[str], day_first: list[str], unread: int) -> DateReading:
        listed = [*chosen, *day_first]
        return DateReading(
            formats=chosen,
            day_first=day_first,
            fitted=1 - unread / self.values if self.values else 0.0,
            has_time=any(code in each for each in listed for code in ("%H", "%I", "epoch"))
            or self._iso_times(chosen),
            without_offset=self.offsets < 0.99 * self.values and not any(map(_has_offset, listed)),
            short_years=any("%y" in each for each in listed),
        )

    def _iso_times(self, chosen: list[str]) -> bool:
        return (
            "iso" in chosen
            and ISO_TIME in self.formats
            and _count(self.sets, ISO_TIME) > 0.5 * _count(self.sets, "iso")
        )


def _count(sets: dict[frozenset[str], int], each: str) -> int:
    return sum(count for key, count in sets.items() if each in key)


def _has_offset(pattern: str) -> bool:
    return "%z" in pattern or pattern.startswith("epoch")


def swapped(pattern: str) -> str:
    """The same format with day and month exchanged."""
    return pattern.replace("%d", "\0").replace("%m", "%d").replace("\0", "%m")


def tallies(con: DuckDBPyConnection, evidence: Iterable[Evidence], named: set[int]) -> dict[int, Tally]:
    """A tally, filled from the sample, for every column that may hold dates."""
    found = {}
    for each in evidence:
        formats = candidates(con, each, each.index in named) if each.filled else []
        if formats:
            tally = Tally(each.index, formats)
            tally.add(con, "sampled")
            found[each.index] = tally
    return found
