"""Numbers and times as people read them: thousands apart, shares in percent, every time in UTC."""

from datetime import UTC, datetime, timedelta

NEVER, NOTHING, MINUS = "never", "\N{EN DASH}", "\N{MINUS SIGN}"
FILTERS = ("amount", "signed", "share", "plural", "moment", "day", "age")
"""What templates call."""
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))


def amount(value: float | None) -> str:
    """A number with its thousands apart; fractions to two digits, nothing as a dash."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def signed(value: int) -> str:
    """A change, its sign always said; no change is zero."""
    return f"{value:+,}".replace("-", MINUS) if value else "0"


def share(part: float, whole: float) -> str:
    """A part of a whole in percent; small ones are not rounded to nothing, nor large ones to all."""
    if not whole:
        return NOTHING
    found = 100 * part / whole
    if 0 < found < 0.1:
        return "<0.1%"
    if 99.9 < found < 100:
        return ">99.9%"
    return f"{found:.1f}%" if found not in {0, 100} else f"{found:.0f}%"


def percent(limit: float) -> str:
    """A limit in percent, with as many digits as it was given."""
    return f"{100 * limit:.6g}%"


def compact(value: float) -> str:
    """A round number for the scale of a picture."""
    for size, unit in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def moment(at: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return f"{at.astimezone(UTC):%d %b %Y, %H:%M} UTC".lstrip("0") if at else NEVER


def day(at: datetime | None) -> str:
    """A date in UTC."""
    return f"{at.astimezone(UTC):%d %b %Y}".lstrip("0") if at else NEVER


def age(span: timedelta | None) -> str:
    """How long ago, in the largest unit that fits."""
    if span is None:
        return NEVER
    seconds = max(span.total_seconds(), 0)
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (60, "minute"))
    return plural(int(seconds // size), unit)


def legible(text: str) -> str:
    """A name without control and direction characters, which would break a picture or turn a line around."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
