"""In which fields two records agree, in words: what a scored link rests on, told from what is published."""

from collections.abc import Sequence
from typing import Any

LEAST_SHOWN = 3
"""Letters below which one value inside another says nothing."""


def likeness(left: dict[str, Any], right: dict[str, Any], order: Sequence[str]) -> str:
    """Fields with the same, a similar and another value, `same e-mail, postcode; different given name`."""
    said: dict[str, list[str]] = {"same": [], "similar": [], "different": []}
    for field in order:
        one, other = left.get(field), right.get(field)
        if one is not None and other is not None:
            said[_alike(str(one), str(other))].append(field.replace("_", " "))
    return "; ".join(f"{how} {', '.join(fields)}" for how, fields in said.items() if fields)


def _alike(one: str, other: str) -> str:
    one, other = one.casefold().strip(), other.casefold().strip()
    if one == other:
        return "same"
    shorter, longer = sorted((one, other), key=len)
    return "similar" if len(shorter) >= LEAST_SHOWN and shorter in longer else "different"
