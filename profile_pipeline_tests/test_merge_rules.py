"""Lists, conditions, filled groups, fading trust; mistakes in policies; and the truth tables of docs/merge-policies.md.

`python -m profile_pipeline_tests.test_merge_rules` writes the tables anew.
"""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection
from pydantic import ValidationError

from profile_pipeline.config.cross_check import cross_check
from profile_pipeline.config.profiles import ProfileRules
from profile_pipeline.config.wording import explain
from profile_pipeline.profiles.candidates import build_candidates
from profile_pipeline.profiles.lineage import build_lineage
from profile_pipeline.profiles.reasons import reasons
from profile_pipeline.profiles.unified import build_unified
from profile_pipeline.warehouse import records_of, rows
from profile_pipeline_tests.hand_made import BEGIN, DAY, config_of, set_records, warehouse

PAGE = Path(__file__).parents[1] / "docs" / "merge-policies.md"
FIELDS: dict[str, Any] = {
    "name": "text", "agreed": "consent", "points": "integer", "born": "birth_date", "mail": "email", "likes": "list",
    "street": "street_address", "city": "city", "sizes": {"type": "map"}, "spent": {"type": "map", "values": "number"},
    "phones": {"type": "list", "fields": {"id": "text", "seen": "date"}},
    "home": {"type": "struct", "fields": {"line": "text", "town": "text"}},
    "work": {"type": "struct", "atomic": True, "fields": {"line": "text", "town": "text"}},
}  # fmt: skip
CLEAR = "(cleared)"
Said = tuple[str, int, Mapping[str, Any]]
"""Source, day, and what the record says; CLEAR clears a field."""


@pytest.fixture
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        opened.execute("create table raw.batches (batch integer, as_of timestamptz)")
        opened.execute("insert into raw.batches values (1, ?)", [BEGIN + 10 * DAY])
        yield opened


def profile_of(con: DuckDBPyConnection, policy: Mapping[str, Any], said: Sequence[Said]) -> dict[str, Any]:
    """The profile of a person about whom these records speak."""
    config = config_of(FIELDS, {"golden": policy})
    records = []
    for number, (source, at, values) in enumerate(said):
        cleared = [field for field, value in values.items() if value == CLEAR]
        plain = {field: value for field, value in values.items() if field not in cleared}
        records.append({"key": f"{source}:{number}", "profile": "p", "at": at, "cleared": cleared, **plain})
    set_records(con, config, records)
    for build in (build_candidates, build_lineage, build_unified):
        build(con, config)
    [found] = records_of(con, "select * from profiles.unified")
    return found


# ---------------------------------------------------------------- truth tables

Case = tuple[str, dict[str, Any], list[Said], list[str]]
"""Policy in words, policy, records, and the columns to show."""


def of_field(field: str, **rule: Any) -> dict[str, Any]:
    return {"fields": {field: rule}}


def of_place(**group: Any) -> dict[str, Any]:
    return {"groups": {"place": {"fields": ["street", "city"], **group}}}


A_THEN_B: list[Said] = [("a", 1, {"name": "Ann"}), ("b", 2, {"name": "Anna"})]
CLEARED: list[Said] = [("a", 1, {"name": "Ann"}), ("b", 2, {"name": CLEAR})]
CLEARED_BEFORE: list[Said] = [("a", 2, {"name": "Ann"}), ("b", 1, {"name": CLEAR})]
MAILS: list[Said] = [
    ("a", 1, {"mail": "x@a.org"}),
    ("b", 3, {"mail": "y@a.org"}),
    ("c", 2, {"mail": "z@a.org"}),
]
LIKES: list[Said] = [("a", 1, {"likes": ["tea", "ale"]}), ("b", 2, {"likes": ["rum", "tea"]})]
HOMES: list[Said] = [("a", 1, {"street": "1 High St", "city": "York"}), ("b", 2, {"street": "9 Low Rd"})]
SIZES: list[Said] = [("a", 1, {"sizes": {"shoe": "43", "hat": "M"}}), ("b", 2, {"sizes": {"shoe": "44"}})]
TAKEN: list[Said] = [("a", 1, {"sizes": {"shoe": "43", "hat": "M"}}), ("b", 2, {"sizes": {"shoe": None}})]
SPENT: list[Said] = [("a", 1, {"spent": {"2025": 10.5, "2026": 3}}), ("b", 2, {"spent": {"2026": 4}})]
PHONES: list[Said] = [
    ("a", 1, {"phones": [{"id": "p1", "seen": "2026-01-01"}, {"id": "p2", "seen": None}]}),
    ("b", 2, {"phones": [{"id": "p1", "seen": "2026-02-01"}]}),
]
PLACES: list[Said] = [
    ("a", 1, {"home_line": "1 High St", "home_town": "York"}),
    ("b", 2, {"home_line": "9 Low Rd"}),
]
OFFICES: list[Said] = [
    ("a", 1, {"work_line": "1 High St", "work_town": "York"}),
    ("b", 2, {"work_line": "9 Low Rd"}),
]
# ruff: noqa: E501  a case is a line
TABLES: dict[str, list[Case]] = {
    "Single values": [
        ("most_recent", of_field("name", choose=["most_recent"]), A_THEN_B, ["name"]),
        ("least_recent", of_field("name", choose=["least_recent"]), A_THEN_B, ["name"]),
        ("source_priority, a before b", of_field("name", choose=["source_priority"], sources={"a": 1}), A_THEN_B, ["name"]),
        ("longest", of_field("name", choose=["longest"]), A_THEN_B, ["name"]),
        ("unanimous_or_null", of_field("name", choose=["unanimous_or_null"]), A_THEN_B, ["name"]),
        ("unanimous_or_null", of_field("name", choose=["unanimous_or_null"]), [("a", 1, {"name": "ANN"}), ("b", 1, {"name": "Ann"})], ["name"]),
        ("weighted_vote, a 0.9, b and c 0.4", of_field("name", choose=["weighted_vote"], trust={"a": 0.9, "b": 0.4, "c": 0.4}), [*A_THEN_B, ("c", 3, {"name": "Anna"})], ["name"]),
        ("trust, a 0.9, b 0.5", of_field("name", choose=["trust"], trust={"a": 0.9, "b": 0.5}), A_THEN_B, ["name"]),
        ("trust that halves in a day", of_field("name", choose=["trust"], trust={"a": 0.9, "b": 0.5}, decay={"half_life_days": 1}), A_THEN_B, ["name"]),
        ("when source = 'a', else most_recent", of_field("name", when=[{"if": "source = 'a'", "choose": ["most_recent"]}, {"else": ["most_recent"]}]), A_THEN_B, ["name"]),
        ("custom: length(shown)", of_field("name", choose=["custom"], custom="length(shown)"), A_THEN_B, ["name"]),
        ("most_restrictive", of_field("agreed", choose=["most_restrictive"]), [("a", 2, {"agreed": True}), ("b", 1, {"agreed": False})], ["agreed"]),
        ("most_recent, dates that agree", of_field("born", choose=["most_recent"]), [("a", 1, {"born": "1980-05-06"}), ("b", 2, {"born": "1980"})], ["born"]),
        ("most_recent, dates that differ", of_field("born", choose=["most_recent"]), [("a", 1, {"born": "1980-05-06"}), ("b", 2, {"born": "1985"})], ["born"]),
    ],
    "Nothing said, and explicit clears": [
        ("most_recent", of_field("name", choose=["most_recent"]), [("a", 1, {"name": "Ann"}), ("b", 2, {"name": None})], ["name"]),
        ("most_recent", of_field("name", choose=["most_recent"]), CLEARED, ["name"]),
        ("most_recent", of_field("name", choose=["most_recent"]), CLEARED_BEFORE, ["name"]),
        ("first_non_null", of_field("name", choose=["first_non_null"]), CLEARED, ["name"]),
        ("unanimous_or_null", of_field("name", choose=["unanimous_or_null"]), CLEARED_BEFORE, ["name"]),
        ("most_restrictive", of_field("agreed", choose=["most_restrictive"]), [("a", 2, {"agreed": True}), ("b", 1, {"agreed": CLEAR})], ["agreed"]),
    ],
    "Lists of values": [
        ("keep: list, max: 2", of_field("mail", keep="list", max=2, primary=["most_recent"]), MAILS, ["mail", "mail_all", "mail_capped"]),
        ("keep: list", of_field("mail", keep="list", primary=["least_recent"]), MAILS, ["mail", "mail_all", "mail_capped"]),
        ("keep: list, a clear is newest", of_field("mail", keep="list"), [*MAILS, ("a", 4, {"mail": CLEAR})], ["mail", "mail_all", "mail_capped"]),
        ("keep: list, a clear is not newest", of_field("mail", keep="list"), [*MAILS, ("a", 2, {"mail": CLEAR})], ["mail", "mail_all", "mail_capped"]),
    ],
    "Fields of type list": [
        ("keep: one (replace)", of_field("likes", choose=["most_recent"]), LIKES, ["likes"]),
        ("keep: union", of_field("likes", keep="union"), LIKES, ["likes", "likes_capped"]),
        ("keep: append, max: 3", of_field("likes", keep="append", max=3), LIKES, ["likes", "likes_capped"]),
    ],
    "Lists of objects": [
        ("keep: one (replace)", of_field("phones", choose=["most_recent"]), PHONES, ["phones"]),
        ("keep: union", of_field("phones", keep="union"), PHONES, ["phones", "phones_capped"]),
        ("keep: union, key: id", of_field("phones", keep="union", key="id"), PHONES, ["phones", "phones_capped"]),
        ("keep: union, key: id, max: 1", of_field("phones", keep="union", key="id", max=1), PHONES, ["phones", "phones_capped"]),
        ("keep: append", of_field("phones", keep="append"), PHONES, ["phones", "phones_capped"]),
    ],
    "Maps": [
        ("keep: one (replace)", of_field("sizes", choose=["most_recent"]), SIZES, ["sizes"]),
        ("keep: union, most_recent", of_field("sizes", keep="union"), SIZES, ["sizes", "sizes_capped"]),
        ("keep: union, source_priority", of_field("sizes", keep="union", choose=["source_priority"], sources={"a": 1}), SIZES, ["sizes", "sizes_capped"]),
        ("keep: union, a key taken away", of_field("sizes", keep="union"), TAKEN, ["sizes", "sizes_capped"]),
        ("keep: union, a clear is newest", of_field("sizes", keep="union"), [*SIZES, ("c", 3, {"sizes": CLEAR})], ["sizes"]),
        ("keep: union, values: number", of_field("spent", keep="union"), SPENT, ["spent", "spent_capped"]),
    ],
    "Structs": [
        ("most_recent", of_field("home", choose=["most_recent"]), PLACES, ["home"]),
        ("most_recent, b clears the town", of_field("home", choose=["most_recent"]), [PLACES[0], ("b", 2, {"home_line": "9 Low Rd", "home_town": CLEAR})], ["home"]),
        ("one field by source_priority", {"fields": {"home": {"choose": ["most_recent"]}, "home_line": {"choose": ["source_priority"], "sources": {"a": 1}}}}, PLACES, ["home"]),
        ("atomic: true", of_field("work", choose=["most_recent"]), OFFICES, ["work"]),
        ("atomic: true, without a rule (most_complete first)", {}, OFFICES, ["work"]),
        ("atomic: true, the newest is empty", of_field("work", choose=["most_recent"]), [OFFICES[0], ("b", 2, {"work_line": CLEAR, "work_town": CLEAR})], ["work"]),
    ],
    "Groups": [
        ("most_complete", of_place(), HOMES, ["street", "city"]),
        ("most_recent", of_place(choose=["most_recent"]), HOMES, ["street", "city"]),
        ("most_recent, fill: true", of_place(choose=["most_recent"], fill=True), HOMES, ["street", "city"]),
        ("most_recent, fill: true, city cleared", of_place(choose=["most_recent"], fill=True), [HOMES[0], ("b", 2, {"street": "9 Low Rd", "city": CLEAR})], ["street", "city"]),
        ("most_recent, the newest is empty", of_place(choose=["most_recent"]), [HOMES[0], ("b", 2, {"street": CLEAR, "city": CLEAR})], ["street", "city"]),
    ],
}  # fmt: skip


def written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {written(inner)}' for key, inner in value.items())}}}"
    return {None: "nothing", True: "true", False: "false"}.get(value, str(value))


def page(con: DuckDBPyConnection) -> str:
    parts = [
        "# Merge policies: truth tables\n",
        "What a profile shows, by policy and records. Written by the tests, which merge these records; the rules are"
        " described in [rules/profiles.yaml](rules/profiles.md). A record is `source day: what it says`.",
    ]
    for title, cases in TABLES.items():
        parts += [f"\n## {title}\n", "| policy | records | profile |", "|---|---|---|"]
        parts += [_row(con, case) for case in cases]
    return "\n".join(parts) + "\n"


def _row(con: DuckDBPyConnection, case: Case) -> str:
    words, policy, said, columns = case
    found = profile_of(con, policy, said)
    records = "; ".join(
        f"{source} {at}: {', '.join(written(value) for value in values.values())}"
        for source, at, values in said
    )
    shown = "; ".join(f"{column} {written(found[column])}" for column in columns)
    return f"| {words} | {records} | {shown} |"


def test_the_page_says_what_the_engine_does(con: DuckDBPyConnection) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(con), (
        "run `python -m profile_pipeline_tests.test_merge_rules`"
    )


# ---------------------------------------------------------------- reasons


def test_a_list_says_what_it_kept_and_what_had_no_room(con: DuckDBPyConnection) -> None:
    profile_of(con, of_field("mail", keep="list", max=2), [*MAILS, ("c", 0, {"mail": "y@a.org"})])
    assert rows(con, "select value, rank, won, rule from profiles.lineage order by rank") == [
        ("y@a.org", 1, True, "most_recent"), ("z@a.org", 2, True, "list"), ("x@a.org", 3, False, "list_full"),
        ("y@a.org", 4, False, "most_recent"),
    ]  # fmt: skip


def test_disagreement_lets_nobody_win(con: DuckDBPyConnection) -> None:
    profile_of(con, of_field("name", choose=["source_priority", "unanimous_or_null"], sources={"a": 1, "b": 1}), [
        *A_THEN_B, ("c", 3, {"name": "Zoe"}),
    ])  # fmt: skip
    assert rows(con, "select value, won, rule from profiles.lineage order by rank") == [
        ("Anna", False, "unanimous_or_null"), ("Ann", False, "unanimous_or_null"), ("Zoe", False, "source_priority"),
    ]  # fmt: skip


def test_trust_in_a_straight_line_depends_on_the_as_of_time(con: DuckDBPyConnection) -> None:
    trust = {"trust": {"a": 0.9, "b": 0.5}, "decay": {"zero_after_days": 12}, "choose": ["trust"]}
    said: list[Said] = [("a", 0, {"name": "Ann"}), ("b", 8, {"name": "Anna"})]
    assert profile_of(con, of_field("name", **trust), said)["name"] == "Anna", (
        "0.9 x 2/12 against 0.5 x 10/12"
    )
    con.execute("update raw.batches set as_of = ?", [BEGIN + 8 * DAY])
    assert profile_of(con, of_field("name", **trust), said)["name"] == "Anna", "0.9 x 4/12 against 0.5"
    con.execute("update raw.batches set as_of = ?", [BEGIN + 1 * DAY])
    assert profile_of(con, of_field("name", **trust), said)["name"] == "Ann"


@pytest.mark.parametrize(
    ("clock", "winner"),
    [(["observed_at", "ingested_at"], "Anna"), (["ingested_at"], "Ann"), ("business", "Anna")],
)
def test_a_clock_may_be_a_list_of_times(con: DuckDBPyConnection, clock: Any, winner: str) -> None:
    assert profile_of(con, {"clock": clock, "sources": {"a": 1}}, A_THEN_B)["name"] == winner


# ---------------------------------------------------------------- mistakes

MISTAKES: list[tuple[dict[str, Any], str]] = [
    (of_field("name", choose=["trust"]), "policies.golden: fields.name: rule trust needs `trust:`, a score"),
    (of_field("name", choose=["custom"]), "policies.golden: fields.name: rule custom needs `custom:`"),
    (of_field("name", choose=["longest", "longest"]), "fields.name: rule longest stands twice; keep the first"),
    (of_field("name", choose=["longest", "shortest"]), "rule shortest never decides after longest; remove one"),
    (of_field("name", choose=["longest"], custom="1"), "fields.name: `custom:` is never used; add rule custom"),
    (of_field("name", max=2, choose=["longest"]), "policies.golden.fields.name: `max` and `primary` belong to a list"),
    (of_field("name", keep="list", max=0), "policies.golden.fields.name.max: must be at least 1"),
    (of_field("likes", key="id", choose=["longest"]), "fields.likes: `key` tells the elements of united lists apart; add"),
    (of_field("name"), "policies.golden.fields.name: says nothing; add `choose:`"),
    (of_field("name", choose=["newest"]), "policies.golden.fields.name.choose.0: `newest` is not one of"),
    (of_field("name", when=[{"else": ["longest"]}]), "policies.golden.fields.name: `when` has no `if:`"),
    (of_field("name", when=[{"if": "true"}]), "policies.golden.fields.name.when.0: write `if:` with `choose:`"),
    ({"clock": ["updated_at"]}, "policies.golden.clock: no such order of times; write [observed_at, ingested_at]"),
    (of_field("name", choose=["trust"], trust={"a": 2}), "policies.golden.fields.name.trust.a: must be at most 1"),
    (of_field("name", choose=["trust"], trust={"a": 1}, decay={"half_life_days": 0}), "half_life_days: must be more than 0"),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "line"), MISTAKES)
def test_a_mistake_in_a_policy_is_one_line(policy: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ProfileRules.model_validate({"default": "golden", "policies": {"golden": policy}})
    [found] = explain(caught.value, ProfileRules)
    assert line in found
    assert "\n" not in found


MISFITS: list[tuple[dict[str, Any], str]] = [
    (of_field("name", choose=["minimum"]), "fields.name: rule minimum does not compare text, only birth_date, date"),
    (of_field("points", choose=["most_restrictive"]), "fields.points: rule most_restrictive does not compare integer"),
    (of_field("name", keep="union"), "fields.name.keep: union is for fields of type list; write `keep: list`"),
    (of_field("likes", keep="list"), "fields.likes.keep: is a list in every record already"),
    (of_field("sizes", keep="list"), "fields.sizes.keep: is a map; write `keep: union` to unite its keys"),
    (of_field("sizes", keep="append"), "fields.sizes.keep: a map has every key once; write `keep: union`"),
    (of_field("phones", keep="union", key="imei"), "fields.phones.key: `imei` is no field of the list's objects; they have id, seen"),
    (of_field("likes", keep="union", key="id"), "fields.likes.key: `id` is no field of the list's objects; they have none"),
    (of_field("home_line", choose=["minimum"]), "fields.home_line: rule minimum does not compare text"),
    (of_place(choose=["minimum"]), "groups.place: rule minimum compares single values"),
    (of_field("name", choose=["trust"], trust={"aa": 1}), "golden.trust: unknown source `aa`; did you mean `a`?"),
    (of_field("nam", choose=["longest"]), "unknown attribute `nam`; did you mean `name`?"),
    (of_field("name", choose=["custom"], custom="lenght(shown)"), "fields.name.custom: unknown function `lenght`"),
    (of_field("name", choose=["custom"], custom="(select 1)"), "fields.name.custom: a query inside an expression"),
    (of_field("name", choose=["custom"], custom="now()"), "fields.name.custom: `now` gives another value"),
    (of_field("name", when=[{"if": "sorce = 'a'", "choose": ["longest"]}]), "fields.name.when.0.if: unknown column `sorce`"),
    (of_field("name", when=[{"if": "length(value)", "choose": ["longest"]}]), "when.0.if: must be true or false"),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "line"), MISFITS)
def test_what_does_not_fit_the_other_rules_is_one_line(policy: dict[str, Any], line: str) -> None:
    [found] = cross_check(config_of(FIELDS, {"golden": policy}))
    assert found.startswith("profiles.yaml: policies.golden")
    assert line in found
    assert "\n" not in found


def test_a_list_may_not_hide_an_attribute() -> None:
    config = config_of({**FIELDS, "mail_all": "text"}, {"golden": of_field("mail", keep="list")})
    [found] = cross_check(config)
    assert "fields.mail.keep: adds a column `mail_all`, which is there already" in found


# ---------------------------------------------------------------- in words


def explained(policy: Mapping[str, Any], *records: Mapping[str, Any]) -> Any:
    config = config_of({"field": "text"}, {"golden": {"fields": {"field": policy}}})
    with warehouse() as con:
        con.execute("create or replace table raw.batches (batch integer, as_of timestamptz)")
        con.execute("insert into raw.batches values (1, ?)", [BEGIN + 9 * DAY])
        set_records(con, config, [{"profile": "p", **record} for record in records])
        build_candidates(con, config)
        build_lineage(con, config)
        return reasons(con, "p", "golden")[0]


def test_what_a_list_keeps_besides_is_not_beaten() -> None:
    found = explained(
        {"keep": "list", "max": 2, "choose": ["most_recent"]},
        {"key": "a:1", "field": "one", "at": 3},
        {"key": "b:1", "field": "two", "at": 2},
        {"key": "c:1", "field": "three", "at": 1},
    )
    assert (found.value, found.conflicts) == ("one", 1)
    assert [(o.value, o.kept, o.words) for o in found.beaten] == [
        ("two", True, "kept too"),
        ("three", False, "no room left in the list"),
    ]


def test_a_field_that_nobody_won_says_why() -> None:
    found = explained(
        {"choose": ["unanimous_or_null"]}, {"key": "a:1", "field": "one"}, {"key": "b:1", "field": "two"}
    )
    assert (found.value, found.record_key, found.conflicts) == (None, "", 2)
    assert found.words == "not all records agree, so nothing is shown"
    assert {offer.words for offer in found.beaten} == {"not all agree"}


def test_a_value_without_a_time_has_faded_where_trust_falls_to_nothing() -> None:
    found = explained(
        {"choose": ["trust"], "trust": {"a": 0.1, "b": 0.9}, "decay": {"zero_after_days": 3650}},
        {"key": "a:1", "field": "one", "at": 1},
        {"key": "b:1", "field": "two", "at": None},
    )
    assert found.value == "one"


if __name__ == "__main__":
    with warehouse() as made:
        PAGE.write_text(page(made), encoding="utf-8")
