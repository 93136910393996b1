"""What a computed attribute is, in words, for people who do not read its rule."""

from profile_pipeline.config.computed import ComputedAttribute

MADE = {
    "count": "how many", "sum": "sum of {value}", "average": "average of {value}", "min": "smallest {value}",
    "max": "largest {value}", "percentile": "percentile {at:g} of {value}", "first": "first {value}", "last": "last {value}",
    "last_values": "last {n} values of {value}", "most_frequent": "most frequent {value}",
    "distinct": "how many different {value}", "distinct_values": "every {value}", "recency": "days since the last of the",
    "rfm": "recency, frequency and sum of {value} as digits from 1 to 5, of the",
}  # fmt: skip
JOINED = {"count": " ", "recency": " ", "rfm": " "}
"""What stands between that and the rows it is made of, where it is not ` of the `."""


def words(attribute: ComputedAttribute) -> str:
    """One line: what is made of which rows, or of which attributes."""
    if attribute.of:
        return f"{attribute.of[0]} by {attribute.of[1]}"
    if attribute.expression:
        return " ".join(attribute.expression.split())
    if attribute.compute == "ratio":
        return f"share of {_flat(attribute.part)} among the {_rows(attribute)}"
    if attribute.aggregate:
        return f"{_flat(attribute.aggregate)} of the {_rows(attribute)}"
    given = {"value": _flat(attribute.value), "n": attribute.n, "at": attribute.at}
    made = MADE[attribute.compute or ""].format(**given)
    return f"{made}{JOINED.get(attribute.compute or '', ' of the ')}{_rows(attribute)}"


def _rows(attribute: ComputedAttribute) -> str:
    """Which rows, in words."""
    parts = [
        attribute.over,
        f"from {' or '.join(attribute.sources)}" if attribute.sources else "",
        f"where {_flat(attribute.where)}" if attribute.where else "",
        f"of the last {attribute.within}" if attribute.within else "",
    ]
    return " ".join(part for part in parts if part)


def _flat(expression: str | None) -> str:
    """An expression on one line."""
    return " ".join((expression or "").split())
