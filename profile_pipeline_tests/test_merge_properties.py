"""The merge engine against a reference that is slow and plain: any policy, any records, one profile.

The reference sorts candidates in Python, one field at a time; the engine ranks them all at once in SQL.
"""

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import log2
from typing import Any, get_args

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_pipeline.config.profiles import OPPOSITES, Choice
from profile_pipeline.laws import profile_problems
from profile_pipeline.profiles.candidates import build_candidates
from profile_pipeline.profiles.lineage import build_lineage
from profile_pipeline.profiles.unified import build_unified
from profile_pipeline.warehouse import records_of, rows
from profile_pipeline_tests.hand_made import (
    BEGIN,
    DAY,
    OPTIONS,
    config_of,
    options_for,
    set_records,
    touch,
    warehouse,
)

FIELDS: dict[str, Any] = {
    "city": "city", "note": "text", "agreed": "consent", "points": "integer", "born": "birth_date", "mail": "email",
    "likes": "list", "sizes": {"type": "map"}, "phones": {"type": "list", "fields": {"id": "text", "at": "text"}},
}  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "city": ["York", "YORK", "york", "Hull"], "note": ["zinc", "ZINC", "Long note"], "agreed": [True, False],
    "points": [9, 10, -1], "born": ["1980", "1980-05", "1980-05-06", "1981-01-01"],
    "mail": ["a@x.org", "b@x.org", "c@x.org"], "likes": [["tea"], ["ale", "tea"], ["rum"]],
    "sizes": [{"hat": "M", "shoe": "43"}, {"shoe": "44"}, {"hat": None, "shoe": "44"}, {"hat": None}],
    "phones": [[{"id": "p", "at": "1"}], [{"id": None, "at": "1"}, {"id": "p", "at": None}, {"id": "q", "at": "1"}]],
}  # fmt: skip
GROUP = ("city", "note")
AS_OF = 5
TRUST: dict[str, float] = OPTIONS["trust"]
Offer = Mapping[str, Any]
Number = float | tuple[int, float]


@dataclass(frozen=True)
class Candidate:
    """What a record says of a field, or of a group as a whole: `value` compares, `shown` is read."""

    field: str
    key: str
    source: str
    at: int | None
    ingested: int
    value: str | None
    shown: str | None
    cleared: bool
    valid: bool
    filled: int


# ---------------------------------------------------------------- the reference


def candidates_of(field: str, records: Sequence[Offer]) -> list[Candidate]:
    found = []
    for record in records:
        cleared = field in record["cleared"]
        if record[field] is not None or cleared:
            shown = written(record[field])
            value = shown.lower() if shown and field == "note" else shown
            found.append(
                Candidate(
                    field, record["key"], record["key"][0], record["at"], record["ingested"], value, shown, cleared,
                    field not in record["doubtful"], int(not cleared),
                )
            )  # fmt: skip
    return found


def blocks_of(fields: Sequence[str], records: Sequence[Offer]) -> list[Candidate]:
    found = []
    for record in records:
        parts = [next(iter(candidates_of(field, [record])), None) for field in fields]
        said = [part for part in parts if part]
        if any(part.value is not None for part in said):
            found.append(
                Candidate(
                    "place", record["key"], record["key"][0], record["at"], record["ingested"],
                    "\x1f".join(part.value or "" if part else "" for part in parts),
                    "\x1f".join(part.shown or "" if part else "" for part in parts),
                    False, all(part.valid for part in said), sum(part.value is not None for part in said),
                )
            )  # fmt: skip
    return found


def written(value: Any) -> str | None:
    if isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"))
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)


def last_if_none(value: float | None) -> tuple[int, float]:
    return (1, 0.0) if value is None else (0, value)


def number_of(rule: str, one: Candidate, rivals: Sequence[Candidate], policy: Mapping[str, Any]) -> Number:
    at = one.ingested if policy["clock"] == "ingestion" else one.at
    alike = {rival.source for rival in rivals if rival.value == one.value}
    plain: dict[str, Callable[[], Number]] = {
        "source_priority": lambda: policy["sources"].get(one.source, 1_000_000),
        "trust": lambda: trust_of(one.source, at, policy.get("decay", {})),
        "weighted_vote": lambda: -round(sum(TRUST[source] for source in alike), 9),
        "most_recent": lambda: last_if_none(None if at is None else -at),
        "least_recent": lambda: last_if_none(at),
        "most_frequent": lambda: -len(alike),
        "most_complete": lambda: -one.filled,
        "first_non_null": lambda: one.cleared,
        "valid": lambda: not one.valid,
        "longest": lambda: -len(one.shown or ""),
        "shortest": lambda: last_if_none(None if one.shown is None else len(one.shown)),
        "minimum": lambda: last_if_none(amount(one)),
        "maximum": lambda: last_if_none(None if amount(one) is None else -(amount(one) or 0)),
        "most_precise": lambda: -len(one.value or ""),
        "most_restrictive": lambda: 0 if one.value == "false" else 1 if one.cleared else 2,
        "custom": lambda: 0 if (one.value or "").startswith("z") else 1,
        "better_looking": lambda: looks(one),
    }
    return plain[rule]()


def trust_of(source: str, at: int | None, decay: Mapping[str, float]) -> float | tuple[int, float]:
    if "half_life_days" in decay:
        return last_if_none(None if at is None else -(log2(TRUST[source]) + at / decay["half_life_days"]))
    if "zero_after_days" in decay:
        left = 0 if at is None else max(0, 1 - (AS_OF - at) / decay["zero_after_days"])
        return -TRUST[source] * left
    return -TRUST[source]


def amount(one: Candidate) -> float | None:
    if one.value is None or one.field not in {"points", "born"}:
        return None
    if one.field == "points":
        return float(one.value)
    return date.fromisoformat((one.value + "-01-01")[:10]).toordinal()


def looks(one: Candidate) -> int:
    shown = one.shown
    if shown is None:
        return 3
    if shown not in {shown.upper(), shown.lower()}:
        return 0
    return 2 if shown == shown.upper() else 1


def in_order(
    rivals: Sequence[Candidate], choose: Sequence[str], policy: Mapping[str, Any]
) -> list[Candidate]:
    order = [rule for rule in choose if rule != "unanimous_or_null"]
    order += ["better_looking", "most_recent", "source_priority"]
    return sorted(
        rivals, key=lambda one: (*(number_of(rule, one, rivals, policy) for rule in order), one.key)
    )


def ranked(rivals: Sequence[Candidate], choose: Sequence[str], policy: Mapping[str, Any]) -> list[Candidate]:
    """Best first, the more precise birth date before the one it agrees with."""
    order = in_order(rivals, choose, policy)
    if not order or order[0].field != "born" or order[0].value is None:
        return order
    best = order[0].value
    finer = [one for one in order if one.value and one.value.startswith(best) and len(one.value) > len(best)]
    finer.sort(key=lambda one: -len(one.value or ""))
    return [*finer, *(one for one in order if one not in finer)]


def divided(rivals: Sequence[Candidate], choose: Sequence[str], policy: Mapping[str, Any]) -> bool:
    """Whether those that the rules before unanimous_or_null leave tied for the first place disagree."""
    if "unanimous_or_null" not in choose or not rivals:
        return False
    before = choose[: choose.index("unanimous_or_null")]
    best = in_order(rivals, choose, policy)[0]
    tied = [
        one
        for one in rivals
        if all(number_of(r, one, rivals, policy) == number_of(r, best, rivals, policy) for r in before)
    ]
    return any(not agree(one, best) for one in tied)


def agree(one: Candidate, other: Candidate) -> bool:
    if one.field == "born" and one.value and other.value:
        return one.value.startswith(other.value) or other.value.startswith(one.value)
    return one.value == other.value


def expected(records: Sequence[Offer], policy: Mapping[str, Any]) -> dict[str, Any]:
    """What the profile shows: field to text, lists as lists."""
    admitted = policy["sources"] if policy["unlisted"] == "exclude" and policy["sources"] else "abc"
    heard = [record for record in records if record["key"][0] in admitted]
    grouped = GROUP if policy["groups"] else ()
    found: dict[str, Any] = {}
    if grouped:
        found |= expected_group(heard, policy)
    for field in FIELDS:
        if field not in grouped:
            found |= expected_field(field, candidates_of(field, heard), policy)
    return found


def expected_group(records: Sequence[Offer], policy: Mapping[str, Any]) -> dict[str, Any]:
    group = policy["groups"]["place"]
    blocks = blocks_of(GROUP, records)
    if divided(blocks, group["choose"], policy):
        return dict.fromkeys(GROUP)
    keys = [one.key for one in ranked(blocks, group["choose"], policy)]
    found = {}
    for field in GROUP:
        said = {one.key: one for one in candidates_of(field, records)}
        asked = [key for key in keys if key in said] if group["fill"] else keys[:1]
        found[field] = said[asked[0]].shown if asked and asked[0] in said else None
    return found


def expected_field(field: str, rivals: Sequence[Candidate], policy: Mapping[str, Any]) -> dict[str, Any]:
    rule = policy["fields"].get(field, {})
    keep = rule.get("keep", "one")
    if rule.get("when"):
        return {field: shown_of(conditional(rivals, rule, policy))}
    choose = rule.get("choose", policy["choose"])
    if divided(rivals, choose, policy):
        return {field: None}
    order = ranked(rivals, choose, policy) if keep == "one" else in_order(rivals, choose, policy)
    if keep == "one":
        shown = shown_of(order)
        return {field: filled(json.loads(shown).items()) if field == "sizes" and shown else shown}
    if order and order[0].value is None:
        order = []
    values = [one for one in order if one.value is not None]
    if keep == "list":
        distinct = list({one.value: one.shown for one in reversed(values)}.items())
        best = [one.shown for n, one in enumerate(values) if one.value not in {v.value for v in values[:n]}]
        assert len(distinct) == len(best)
        return {
            field: best[0] if best else None,
            f"{field}_all": best[: rule["max"]],
            f"{field}_capped": len(best) > rule["max"],
        }
    return united(field, rule, [json.loads(one.value or "") for one in values])


def united(field: str, rule: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """The elements of lists, or entries of maps, best first: with `union` the first of each name."""
    items = [item for value in values for item in (value.items() if field == "sizes" else value)]
    if rule["keep"] == "union":
        firsts: dict[str, Any] = {}
        for item in items:
            firsts.setdefault(name_of(field, rule, item), item)
        items = [item for item in firsts.values() if field != "sizes" or item[1] is not None]
    kept, capped = items[: rule["max"]], {f"{field}_capped": len(items) > rule["max"]}
    if field == "sizes":
        return {field: filled(kept) if values else None, **capped}
    return {field: kept or None, **capped}


def name_of(field: str, rule: Mapping[str, Any], item: Any) -> str:
    if field == "sizes":
        return item[0]
    key = item.get(rule["key"]) if rule.get("key") else None
    return key or json.dumps(item)


def filled(entries: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A map as it is shown: what a record took away is not in it."""
    return {key: value for key, value in sorted(entries) if value is not None}


def conditional(
    rivals: Sequence[Candidate], rule: Mapping[str, Any], policy: Mapping[str, Any]
) -> list[Candidate]:
    """The branch of source b first, in its own order."""
    first, other = rule["when"]
    chosen = [one for one in rivals if one.source == "b"]
    order = sorted(
        chosen,
        key=lambda one: (
            *(
                number_of(r, one, rivals, policy)
                for r in [*first["choose"], "better_looking", "most_recent", "source_priority"]
            ),
            one.key,
        ),
    )
    if order:
        return order
    return in_order(rivals, other["else"], policy)


def shown_of(order: Sequence[Candidate]) -> str | None:
    return order[0].shown if order else None


# ---------------------------------------------------------------- any policy, any records

CHOICES = st.lists(st.sampled_from(get_args(Choice)), min_size=1, max_size=3, unique=True).filter(
    lambda rules: not any(pair <= set(rules) for pair in OPPOSITES)
)
ORDERING = CHOICES.map(lambda rules: [r for r in rules if r != "unanimous_or_null"] or ["most_recent"])


def lists(field: str, kinds: Sequence[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"keep": st.sampled_from(kinds), "max": st.integers(1, 3), "choose": ORDERING}
    ).map(lambda rule: {field: rule})


@st.composite
def any_policy(draw: st.DrawFn) -> dict[str, Any]:
    fields = {
        **draw(st.one_of(st.just({}), lists("mail", ["list"]))),
        **draw(st.one_of(st.just({}), lists("likes", ["union", "append"]))),
        **draw(st.one_of(st.just({}), lists("sizes", ["union"]))),
        **draw(st.one_of(st.just({}), lists("phones", ["union", "append"]))),
        **draw(st.one_of(st.just({}), CHOICES.map(lambda choose: {"born": {"choose": choose}}))),
    }
    if fields.get("phones", {}).get("keep") == "union" and draw(st.booleans()):
        fields["phones"] = {**fields["phones"], "key": "id"}
    if draw(st.booleans()):
        branches = [{"if": "source = 'b'", "choose": draw(ORDERING)}, {"else": draw(ORDERING)}]
        fields["points"] = {"when": branches}
    groups = {}
    if draw(st.booleans()):
        groups["place"] = {"fields": list(GROUP), "choose": draw(CHOICES), "fill": draw(st.booleans())}
    policy = {
        "choose": draw(CHOICES), "sources": draw(st.dictionaries(st.sampled_from("abc"), st.integers(1, 3))),
        "unlisted": draw(st.sampled_from(["last", "exclude"])),
        "clock": draw(st.sampled_from(["business", "ingestion"])), "groups": groups, "fields": fields,
    }  # fmt: skip
    named = rules_named(policy)
    decay = draw(st.sampled_from([{}, {"half_life_days": 2}, {"zero_after_days": 3}]))
    options = {"decay": decay} if decay and "trust" in named else {}
    return {**policy, **options_for(*named), **options}


def rules_named(policy: Mapping[str, Any]) -> set[str]:
    parts = [policy, *policy["groups"].values(), *policy["fields"].values()]
    branches = [branch for part in parts for branch in part.get("when", [])]
    return {rule for part in [*parts, *branches] for rule in [*part.get("choose", []), *part.get("else", [])]}


@st.composite
def any_records(draw: st.DrawFn) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(1, 6))):
        values = {field: draw(st.sampled_from([None, *known])) for field, known in VALUES.items()}
        empty = [field for field, value in values.items() if value is None]
        found.append({
            "key": f"{draw(st.sampled_from('abc'))}:{number}", "profile": "p",
            "at": draw(st.one_of(st.none(), st.integers(0, 3))), "ingested": draw(st.integers(0, 1)),
            "cleared": [field for field in empty if draw(st.booleans())],
            "doubtful": draw(st.lists(st.sampled_from(list(FIELDS)), max_size=2, unique=True)), **values,
        })  # fmt: skip
    return found


@pytest.fixture(scope="module")
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        opened.execute("create table raw.batches (batch integer, as_of timestamptz)")
        opened.execute("insert into raw.batches values (1, ?)", [BEGIN + AS_OF * DAY])
        yield opened


def merge(con: DuckDBPyConnection, policy: Mapping[str, Any], records: Sequence[Offer]) -> dict[str, Any]:
    config = config_of(FIELDS, {"golden": policy})
    set_records(con, config, records)
    for build in (build_candidates, build_lineage, build_unified):
        build(con, config)
    assert not any(profile_problems(con, config).values())
    [found] = records_of(con, "select * from profiles.unified")
    return found


def as_in(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The same columns, as text where text is wanted."""
    return {
        name: found[name] if isinstance(value, list | dict | bool) else written(found[name])
        for name, value in wanted.items()
    }


SETTINGS = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@SETTINGS
@given(policy=any_policy(), records=any_records())
def test_the_engine_does_what_the_reference_does(
    con: DuckDBPyConnection, policy: dict[str, Any], records: list[Offer]
) -> None:
    found, wanted = merge(con, policy, records), expected(records, policy)
    assert as_in(wanted, found) == wanted


@SETTINGS
@given(policy=any_policy(), records=any_records())
def test_order_of_records_does_not_matter_and_merging_again_changes_nothing(
    con: DuckDBPyConnection, policy: dict[str, Any], records: list[Offer]
) -> None:
    merge(con, policy, records)
    first = outcome(con)
    con.execute("delete from state.built")  # the same records in another order are no change
    merge(con, policy, records[::-1])
    assert outcome(con) == first
    con.execute("delete from state.built")
    touch(con, "records.current")
    config = config_of(FIELDS, {"golden": policy})
    for build in (build_candidates, build_lineage, build_unified):
        build(con, config)
    assert outcome(con) == first


def outcome(con: DuckDBPyConnection) -> tuple[list[Any], list[Any]]:
    return (
        rows(con, "select * from profiles.lineage order by field, rank, record_key"),
        rows(con, "select * exclude (profile_id) from profiles.unified"),
    )


@SETTINGS
@given(policy=any_policy(), records=any_records())
def test_every_value_follows_from_the_lineage_and_comes_from_a_record(
    con: DuckDBPyConnection, policy: dict[str, Any], records: list[Offer]
) -> None:
    found = merge(con, policy, records)
    lineage = records_of(con, "select * from profiles.lineage order by field, rank")
    by_key = {record["key"]: record for record in records}
    places = [(row["field"], row["rank"]) for row in lineage]
    assert len(places) == len(set(places)), "two candidates share a place"
    for row in lineage:
        assert row["value"] == written(by_key[row["record_key"]][row["field"]])
    for field in FIELDS:
        rule = policy["fields"].get(field, {})
        won = [row["value"] for row in lineage if row["field"] == field and row["won"]]
        if rule.get("keep") == "list":
            assert [value for value in won if value is not None] == found[f"{field}_all"]
        if rule.get("keep") in {"union", "append"}:
            shown = united(field, rule, [json.loads(value) for value in won if value])
            assert shown[field] == found[field]
        elif field == "sizes" and won and won[0]:
            assert filled(json.loads(won[0]).items()) == found[field]
        else:
            assert (won[0] if won else None) == written(found[field])


@SETTINGS
@given(policy=any_policy(), records=any_records())
def test_a_locked_group_comes_from_one_record(
    con: DuckDBPyConnection, policy: dict[str, Any], records: list[Offer]
) -> None:
    found = merge(con, policy, records)
    if policy["groups"] and not policy["groups"]["place"]["fill"]:
        pairs = [(record["city"], record["note"]) for record in records]
        assert (found["city"], found["note"]) in [(None, None), *pairs]
