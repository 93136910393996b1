"""Why a profile shows each of its values, in words: where it is from, by which rule it won, what it beat.

Reads a lineage (of the warehouse or of a published generation) and the pins that made it; decides nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import records_of, table_exists

SAME, KEPT = "says the same", "kept too"
NOBODY = "not all records agree, so nothing is shown"
SILENT = "the record that won its group says nothing of it"
WON = {
    "pin": "pinned",
    "only_record": "the only record with a value",
    "all_agree": "all records agree",
    "source_priority": "its source ranks first",
    "most_recent": "the newest",
    "least_recent": "the oldest",
    "most_frequent": "most sources say so",
    "most_complete": "the most complete",
    "longest": "the longest",
    "shortest": "the shortest",
    "minimum": "the smallest",
    "maximum": "the largest",
    "most_precise": "the most precise",
    "most_restrictive": "the most restrictive",
    "better_looking": "better written",
    "first_non_null": "a value comes before a clear",
    "valid": "no expectation failed",
    "trust": "the most trusted",
    "weighted_vote": "trusted sources say so",
    "custom": "first by the policy's own expression",
    "when": "a condition of the policy holds",
    "fill": "fills a gap of the chosen record",
    "record_key": "a tie, decided by record key",
}
"""What to say of a winner by the rule that decided; a rule that is not here speaks for itself."""
LOST = {
    "pin": "a steward's pin comes first",
    "source_priority": "its source ranks lower",
    "most_recent": "older",
    "least_recent": "newer",
    "most_frequent": "fewer sources say so",
    "most_complete": "less complete",
    "longest": "shorter",
    "shortest": "longer",
    "minimum": "larger",
    "maximum": "smaller",
    "most_precise": "less precise",
    "most_restrictive": "less restrictive",
    "better_looking": "not so well written",
    "first_non_null": "a clear",
    "valid": "an expectation failed",
    "trust": "less trusted",
    "weighted_vote": "less trusted sources say so",
    "custom": "later by the policy's own expression",
    "when": "a condition of the policy does not hold",
    "list_full": "no room left in the list",
    "unanimous_or_null": "not all agree",
    "record_key": "a tie, decided by record key",
}


@dataclass(frozen=True)
class PinnedBy:
    """Who pinned a value, why, when, and the last day on which it holds (None: no end)."""

    author: str
    reason: str
    pinned_at: datetime
    until_on: date | None

    @property
    def words(self) -> str:
        """All of it in words."""
        last = f" until {self.until_on}" if self.until_on else ""
        return f"pinned by {self.author}{last}: {self.reason}"


@dataclass(frozen=True)
class Offer:
    """What a record offered besides the winner, and what became of it in words.

    `same`: it says what the profile shows; `kept`: the profile shows it as well, in a list.
    """

    value: str | None
    record_key: str
    source: str
    observed_at: datetime | None
    rule: str
    same: bool
    kept: bool
    words: str


@dataclass(frozen=True)
class Reason:
    """A field as the profile shows it: the value (None: it was cleared), its record, and the rule in words.

    Where nobody won the value is None and there is no record (both names are empty).

    `beaten` are all other offers, best first; `conflicts` the number of different values among them that the
    profile does not show. `pin` is there when a steward pinned the value.
    """

    field: str
    value: str | None
    record_key: str
    source: str
    observed_at: datetime | None
    rule: str
    words: str
    beaten: tuple[Offer, ...]
    conflicts: int
    pin: PinnedBy | None


def reasons(
    con: DuckDBPyConnection,
    profile_id: str,
    policy: str,
    lineage: str = "profiles.lineage",
    pins: str = "profiles.pinned_values",
) -> tuple[Reason, ...]:
    """Every field of a profile that any record offers a value for, under a policy, by name; `lineage` and `pins` are tables."""
    if not table_exists(con, lineage):
        return ()
    found = records_of(
        con,
        f"""select field, won, value, record_key, source, observed_at, rule from {lineage}
        where profile_id = ? and policy = ? order by field, rank, record_key""",
        [profile_id, policy],
    )
    pinned = {row.pop("field"): PinnedBy(**row) for row in _pins(con, profile_id, pins)}
    return tuple(_explained(pinned, found))


def _pins(con: DuckDBPyConnection, profile_id: str, pins: str) -> list[dict[str, Any]]:
    if not table_exists(con, pins):
        return []  # published before values could be pinned
    return records_of(
        con,
        f"select field, author, pin_reason as reason, pinned_at, until_on from {pins} where profile_id = ?",
        [profile_id],
    )


def _explained(pinned: dict[str, PinnedBy], found: list[dict[str, Any]]) -> Iterator[Reason]:
    for field, rows in groupby(found, key=lambda row: row["field"]):
        offers = list(rows)
        winner = next((row for row in offers if row["won"]), None)
        shown = winner["value"] if winner else None
        others = tuple(_offer(row, shown) for row in offers if row is not winner)
        if winner:
            yield _reason(field, winner, others, pinned.get(field) if winner["rule"] == "pin" else None)
        else:
            values = {_folded(offer.value) for offer in others} - {None}
            rule = offers[0]["rule"]
            words = NOBODY if rule == "unanimous_or_null" else SILENT
            yield Reason(field, None, "", "", None, rule, words, others, len(values), None)


def _reason(field: str, winner: dict[str, Any], others: tuple[Offer, ...], pin: PinnedBy | None) -> Reason:
    rule = winner["rule"]
    return Reason(
        field,
        winner["value"],
        winner["record_key"],
        winner["source"],
        winner["observed_at"],
        rule,
        pin.words if pin else WON.get(rule, rule.replace("_", " ")),
        others,
        len({_folded(offer.value) for offer in others if not offer.kept} - {_folded(winner["value"]), None}),
        pin,
    )


def _offer(row: dict[str, Any], shown: str | None) -> Offer:
    same, kept = _folded(row["value"]) == _folded(shown), row["won"]
    words = KEPT if kept else SAME if same else LOST.get(row["rule"], row["rule"].replace("_", " "))
    return Offer(
        row["value"], row["record_key"], row["source"], row["observed_at"], row["rule"], same, kept, words
    )


def _folded(value: str | None) -> str | None:
    """Capitals make no conflict, as in `lineage.conflicts`."""
    return value if value is None else value.lower()
