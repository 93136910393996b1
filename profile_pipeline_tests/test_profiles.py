"""Merge policies on records made by hand: who wins which field, by which rule, and what the profile shows."""

import random
from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, get_args

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_pipeline.config.load import Config
from profile_pipeline.config.profiles import OPPOSITES, Choice
from profile_pipeline.profiles import lineage
from profile_pipeline.profiles.candidates import build_candidates
from profile_pipeline.profiles.lineage import build_lineage
from profile_pipeline.profiles.timeline import build_timeline
from profile_pipeline.profiles.unified import build_unified, table_of
from profile_pipeline.warehouse import built, records_of, rows, scalar
from profile_pipeline_tests.hand_made import (
    BEGIN,
    DAY,
    add_member,
    config_of,
    options_for,
    set_records,
    source,
    touch,
    warehouse,
)

Record = Mapping[str, Any]
TEXT = {"city": "text"}


@pytest.fixture
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        yield opened


def merge(con: DuckDBPyConnection, config: Config, records: Sequence[Record]) -> None:
    """Candidates, lineage and profiles of these records; `profile` is p unless given."""
    set_records(con, config, [{"profile": "p", **record} for record in records])
    build_candidates(con, config)
    build_lineage(con, config)
    build_unified(con, config)


def shown(
    con: DuckDBPyConnection, policy: Mapping[str, Any], records: Sequence[Record], kind: str = "text"
) -> Any:
    """The one value of `field` that the profile of these records shows under a policy."""
    config = config_of({"field": kind}, {"golden": policy})
    merge(con, config, records)
    return scalar(con, "select field from profiles.unified")


def said(key: str, value: Any, **more: Any) -> Record:
    """A record `source:key` that says `field`."""
    return {"key": key, "field": value, **more}


def winning_rule(con: DuckDBPyConnection) -> str:
    return scalar(con, "select rule from profiles.lineage where won")


# ---------------------------------------------------------------- each rule decides

RECENT = [said("a:1", "old", at=1), said("b:1", "new", at=2)]
CONTESTS: dict[str, tuple[list[Record], str, str]] = {
    # rule: (records, type of the field, winner); in each, record key and time point the other way where they can
    "source_priority": ([said("a:1", "A", at=2), said("b:1", "B", at=1)], "text", "B"),
    "most_recent": ([said("a:1", "old", at=1), said("b:1", "new", at=2)], "text", "new"),
    "least_recent": ([said("a:1", "new", at=2), said("b:1", "old", at=1)], "text", "old"),
    "most_frequent": (
        [
            said("a:1", "one", at=9),
            said("a:2", "one", at=9),
            said("a:3", "one", at=9),
            said("b:1", "two"),
            said("c:1", "two"),
        ],
        "text",
        "two",
    ),
    "most_complete": ([said("a:1", None, cleared=["field"], at=9), said("b:1", "filled")], "text", "filled"),
    "longest": ([said("a:1", "x", at=2), said("b:1", "xxx", at=1)], "text", "xxx"),
    "shortest": ([said("a:1", "xxx", at=2), said("b:1", "x", at=1)], "text", "x"),
    "minimum": ([said("a:1", 10, at=2), said("b:1", 9, at=1)], "integer", "9"),
    "maximum": ([said("a:1", 9, at=2), said("b:1", 10, at=1)], "integer", "10"),
    "most_precise": (
        [said("a:1", "1980", at=2), said("b:1", "1980-05-06", at=1)],
        "birth_date",
        "1980-05-06",
    ),
    "most_restrictive": ([said("a:1", True, at=2), said("b:1", False, at=1)], "consent", "False"),
    "first_non_null": ([said("a:1", None, cleared=["field"], at=9), said("b:1", "filled")], "text", "filled"),
    "valid": ([said("a:1", "odd", at=2, doubtful=["field"]), said("b:1", "fine", at=1)], "text", "fine"),
    "trust": ([said("a:1", "A", at=2), said("b:1", "B", at=1)], "text", "B"),
    "weighted_vote": (
        [said("a:1", "one", at=9), said("a:2", "one", at=9), said("c:1", "one", at=9), said("b:1", "two")],
        "text",
        "two",
    ),
    "unanimous_or_null": ([said("a:1", "x", at=2), said("b:1", "y", at=1)], "text", "None"),
    "custom": ([said("a:1", "xyz", at=2), said("b:1", "zyx", at=1)], "text", "zyx"),
}


def test_every_rule_has_a_contest() -> None:
    assert set(CONTESTS) == set(get_args(Choice))


@pytest.mark.parametrize("rule", CONTESTS)
def test_a_rule_decides_and_the_lineage_names_it(con: DuckDBPyConnection, rule: str) -> None:
    records, kind, winner = CONTESTS[rule]
    policy = {"choose": [rule], "sources": {"b": 1, "a": 2}, **options_for(rule)}
    assert str(shown(con, policy, records, kind)) == winner
    assert scalar(con, "select rule from profiles.lineage where rank = 1") == rule
    beaten = rows(
        con, "select distinct rule from profiles.lineage where not won and value is distinct from ?", [winner]
    )
    assert {found for (found,) in beaten} <= {rule, "source_priority"}


def test_the_next_rule_decides_what_the_one_before_left_tied(con: DuckDBPyConnection) -> None:
    policy = {"choose": ["longest", "source_priority", "most_recent"], "sources": {"a": 2, "b": 1}}
    records = [
        said("a:1", "xx", at=9),
        said("b:1", "yy", at=1),
        said("b:2", "zz", at=2),
        said("c:1", "q", at=9),
    ]
    assert shown(con, policy, records) == "zz"
    assert rows(con, "select value, rank, rule from profiles.lineage order by rank") == [
        ("zz", 1, "most_recent"), ("yy", 2, "most_recent"), ("xx", 3, "source_priority"), ("q", 4, "longest"),
    ]  # fmt: skip


def test_the_winners_rule_is_the_one_that_beat_another_value(con: DuckDBPyConnection) -> None:
    records = [said("a:1", "same", at=3), said("b:1", "same", at=3), said("c:1", "other", at=2)]
    assert shown(con, {"choose": ["most_recent"]}, records) == "same"
    assert winning_rule(con) == "most_recent", "not record_key, which only parted equal values"


def test_agreement_and_loneliness_are_said(con: DuckDBPyConnection) -> None:
    shown(con, {}, [said("a:1", "x")])
    assert winning_rule(con) == "only_record"
    shown(con, {}, [said("a:1", "x", at=1), said("b:1", "x", at=2)])
    assert winning_rule(con) == "all_agree"
    shown(
        con,
        {"method": "dataset_precedence", "sources": {"a": 1}, "unlisted": "exclude"},
        [said("a:1", "x"), said("b:1", "y")],
    )
    assert winning_rule(con) == "only_record", "an excluded source is no rival"


def test_one_vote_a_source_and_votes_count_normalised_values(con: DuckDBPyConnection) -> None:
    records = [
        {"key": "a:1", "name": "anna", "raw": {"name": "ANNA"}, "at": 3},
        {"key": "b:1", "name": "anna", "raw": {"name": "Anna"}, "at": 1},
        {"key": "c:1", "name": "ann", "raw": {"name": "Ann"}, "at": 9},
    ]
    config = config_of({"name": "given_name"}, {"golden": {"choose": ["most_frequent"]}})
    merge(con, config, records)
    assert scalar(con, "select name from profiles.unified") == "Anna", (
        "the better looking of two equal spellings"
    )


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("integer", 9, 10),
        ("number", -1.5, 1e6),
        ("date", date(1999, 12, 31), date(2000, 1, 1)),
        ("birth_date", "1980", "1981-02"),
        ("birth_date", "1979-12-31", "1980"),
        ("timestamp", datetime(1999, 1, 1, tzinfo=UTC), datetime(1999, 1, 1, 1, tzinfo=UTC)),
    ],
)
def test_minimum_and_maximum_compare_amounts_and_moments(
    con: DuckDBPyConnection, kind: str, low: Any, high: Any
) -> None:
    for first, second in [(low, high), (high, low)]:
        records = [said("a:1", first), said("b:1", second, at=5), said("c:1", None, cleared=["field"], at=9)]
        assert shown(con, {"choose": ["minimum"]}, records, kind) == low
        assert shown(con, {"choose": ["maximum"]}, records, kind) == high


# ---------------------------------------------------------------- Adobe's two methods


def test_time_ordered_takes_the_newest_on_the_chosen_clock(con: DuckDBPyConnection) -> None:
    records = [said("a:1", "late file", at=1, ingested=9), said("b:1", "newer fact", at=2, ingested=3)]
    policies = {
        "business": {"method": "time_ordered"},
        "ingestion": {"method": "time_ordered", "clock": "ingestion"},
    }
    config = config_of({"field": "text"}, policies)
    merge(con, config, records)
    assert scalar(con, "select field from profiles.unified") == "newer fact"
    assert scalar(con, "select field from profiles.unified_ingestion") == "late file"


@pytest.mark.parametrize(("unlisted", "winner"), [("exclude", None), ("last", "c")])
def test_dataset_precedence_ranks_sources_then_time(
    con: DuckDBPyConnection, unlisted: str, winner: str | None
) -> None:
    policy = {"method": "dataset_precedence", "sources": {"b": 1, "a": 2}, "unlisted": unlisted}
    records = [
        said("a:1", "a", at=9),
        said("b:1", "b old"),
        said("b:2", "b new", at=1),
        said("c:1", "c", at=99),
    ]
    assert shown(con, policy, records) == "b new"
    assert shown(con, policy, [said("c:1", "c", at=99)]) == winner
    assert scalar(con, "select count(*) from profiles.unified") == 1, (
        "a profile without a listed value still has its row"
    )


def test_a_field_may_have_source_ranks_of_its_own(con: DuckDBPyConnection) -> None:
    policy = {
        "sources": {"a": 1, "b": 2},
        "choose": ["source_priority"],
        "fields": {"tier": {"choose": ["source_priority"], "sources": {"b": 1}}},
    }
    config = config_of({"city": "text", "tier": "text"}, {"golden": policy})
    merge(con, config, [{"key": "a:1", "city": "A", "tier": "A"}, {"key": "b:1", "city": "B", "tier": "B"}])
    assert rows(con, "select city, tier from profiles.unified") == [("A", "B")]


# ---------------------------------------------------------------- times and clears


def test_a_patched_field_has_the_time_at_which_it_was_patched(con: DuckDBPyConnection) -> None:
    records = [
        said("a:1", "patched long ago", at=9, times={"field": 1}),
        said("b:1", "newer", at=5),
    ]
    assert shown(con, {}, records) == "newer"
    assert rows(con, "select observed_at from profiles.lineage order by record_key") == [
        (BEGIN + DAY,),
        (BEGIN + 5 * DAY,),
    ]


def test_a_record_without_a_time_is_older_than_any(con: DuckDBPyConnection) -> None:
    records = [said("a:1", "timeless", at=None), said("b:1", "dated", at=0)]
    assert shown(con, {"choose": ["most_recent"]}, records) == "dated"
    assert shown(con, {"choose": ["least_recent"]}, records) == "dated"


@pytest.mark.parametrize(("clear_at", "value"), [(2, None), (0, "x")])
@pytest.mark.parametrize("policy", [{}, {"method": "time_ordered"}])
def test_a_clear_wins_when_it_is_newest_and_only_then(
    con: DuckDBPyConnection, policy: dict[str, Any], clear_at: int, value: str | None
) -> None:
    records = [said("a:1", "x", at=1), said("b:1", None, cleared=["field"], at=clear_at)]
    assert shown(con, policy, records) == value
    won = rows(con, "select value, cleared, record_key, rule from profiles.lineage where won")
    assert won == [(value, value is None, "b:1" if value is None else "a:1", "most_recent")]


def test_saying_nothing_is_no_clear(con: DuckDBPyConnection) -> None:
    assert shown(con, {}, [said("a:1", "x", at=1), said("b:1", None, at=9)]) == "x"
    assert scalar(con, "select count(*) from profiles.candidates") == 1


def test_a_withdrawn_consent_is_not_given_back_by_an_older_yes(con: DuckDBPyConnection) -> None:
    policy = {"choose": ["most_restrictive", "most_recent"]}
    records = [said("a:1", True, at=1), said("b:1", None, cleared=["field"], at=2)]
    assert shown(con, policy, records, "consent") is None
    assert shown(con, policy, [*records, said("c:1", False, at=0)], "consent") is False


def test_a_clear_never_wins_a_tie_of_looks(con: DuckDBPyConnection) -> None:
    for value in ("SHOUTED", "quiet", "42"):
        assert (
            shown(
                con, {"choose": ["most_recent"]}, [said("a:1", None, cleared=["field"]), said("b:1", value)]
            )
            == value
        )


def test_mixed_case_beats_capitals_among_equals_only(con: DuckDBPyConnection) -> None:
    equal = [said("a:1", "LEEDS", at=1), said("b:1", "leeds", at=1), said("c:1", "Leeds", at=1)]
    assert shown(con, {"choose": ["most_recent"]}, equal) == "Leeds"
    assert winning_rule(con) == "all_agree", "they say the same; how it is written is decided by looks"
    assert rows(con, "select distinct rule from profiles.lineage where not won") == [("better_looking",)]
    assert shown(con, {"choose": ["most_recent"]}, [*equal, said("a:2", "YORK", at=2)]) == "YORK"


# ---------------------------------------------------------------- locked groups

ADDRESS = {"street": "street_address", "city": "city", "postcode": "postcode"}
GROUPED = {"groups": {"address": {"fields": list(ADDRESS)}}}


def address(
    key: str, street: str | None, city: str | None, postcode: str | None = None, **more: Any
) -> Record:
    return {"key": key, "street": street, "city": city, "postcode": postcode, **more}


def addressed(con: DuckDBPyConnection, records: Sequence[Record], **group: Any) -> tuple[Any, ...]:
    asked = options_for(*group.get("choose", ()))
    policy = {"groups": {"address": {"fields": list(ADDRESS), **group, **asked}}, "sources": {"a": 1, "b": 2}}
    merge(con, config_of(ADDRESS, {"golden": policy}), records)
    return rows(con, "select street, city, postcode from profiles.unified")[0]


def test_a_group_comes_from_one_record_and_is_never_filled(con: DuckDBPyConnection) -> None:
    records = [address("a:1", "1 High St", "York", at=1), address("b:1", "9 Low Rd", None, "LS1", at=2)]
    assert addressed(con, records) == ("9 Low Rd", None, "LS1")
    assert rows(con, "select distinct record_key from profiles.lineage where won") == [("b:1",)]
    assert {rule for (rule,) in rows(con, "select rule from profiles.lineage")} == {"most_recent"}


def test_the_more_complete_record_wins_a_group_before_the_newer(con: DuckDBPyConnection) -> None:
    records = [
        address("a:1", "1 High St", "York", "YO1", at=1),
        address("b:1", "9 Low Rd", None, "LS1", at=2),
    ]
    assert addressed(con, records) == ("1 High St", "York", "YO1")
    assert winning_rule_of(con, "city") == "most_complete"


def winning_rule_of(con: DuckDBPyConnection, field: str) -> str:
    return scalar(con, "select rule from profiles.lineage where won and field = ?", [field])


def test_an_all_empty_group_gives_way(con: DuckDBPyConnection) -> None:
    records = [
        address("a:1", None, None, cleared=list(ADDRESS), at=9),
        address("b:1", None, "York", at=1),
    ]
    assert addressed(con, records, choose=["most_recent"]) == (None, "York", None)


def test_a_clear_inside_a_winning_group_shows_as_nothing(con: DuckDBPyConnection) -> None:
    records = [
        address("a:1", "1 High St", None, cleared=["city"], at=9),
        address("b:1", "2 Low Rd", "York", at=1),
    ]
    assert addressed(con, records, choose=["most_recent"]) == ("1 High St", None, None)
    assert rows(con, "select cleared from profiles.lineage where won and field = 'city'") == [(True,)]


@pytest.mark.parametrize("rule", get_args(Choice))
def test_every_rule_keeps_a_group_together(con: DuckDBPyConnection, rule: str) -> None:
    records = [
        address("a:1", "a very long street", "x", "1", at=3),
        address("b:1", "s", "a very long city", "3", at=2),
        address("c:1", "st", "y", "a very long postcode", at=1),
        address("c:2", None, "z", "2", at=4),
    ]
    found = addressed(con, records, choose=[rule])
    whole = [(r["street"], r["city"], r["postcode"]) for r in records]
    assert found in ([(None, None, None)] if rule == "unanimous_or_null" else whole)
    winners = scalar(con, "select count(distinct record_key) from profiles.lineage where won")
    assert winners == (0 if rule == "unanimous_or_null" else 1)


def test_a_group_most_sources_agree_on_wins_as_a_block(con: DuckDBPyConnection) -> None:
    records = [
        address("a:1", "1 High St", "York", at=9), address("a:2", "1 High St", "York", at=9),
        address("b:1", "2 Low Rd", "Hull", at=1), address("c:1", "2 Low Rd", "Hull", at=1),
    ]  # fmt: skip
    assert addressed(con, records, choose=["most_frequent"])[:2] == ("2 Low Rd", "Hull")


# ---------------------------------------------------------------- what the profile table holds

TYPED = {
    "born": "birth_date", "joined": "date", "seen": "timestamp", "points": "integer", "score": "number",
    "agreed": "consent", "owner": "boolean", "likes": "list", "note": "text",
}  # fmt: skip


def test_typed_columns_round_trip(con: DuckDBPyConnection) -> None:
    values = {
        "born": "1980-05", "joined": date(2020, 2, 29), "seen": datetime(2020, 1, 1, 12, 30, 15, 123456, tzinfo=UTC),
        "points": 2**60, "score": 0.1, "agreed": False, "owner": True, "likes": ['a"b', "c,d", "é", "[x]"], "note": "  two  words ",
    }  # fmt: skip
    config = config_of(TYPED, {"golden": {}})
    merge(con, config, [{"key": "a:1", **values}])
    [found] = records_of(con, f"select {', '.join(TYPED)} from profiles.unified")
    assert found == {**values, "note": "two words"}, "text is shown as written, with its blanks tidied"


def test_text_is_shown_as_written_and_compared_as_normalised(con: DuckDBPyConnection) -> None:
    config = config_of({"name": "family_name", "mail": "email"}, {"golden": {}})
    merge(
        con,
        config,
        [{"key": "a:1", "name": "obrien", "mail": "x@y.org", "raw": {"name": "O'Brien", "mail": "X@Y.org"}}],
    )
    assert rows(con, "select value, shown from profiles.candidates order by field") == [
        ("x@y.org", "x@y.org"), ("obrien", "O'Brien"),
    ]  # fmt: skip
    assert rows(con, "select name, mail from profiles.unified") == [("O'Brien", "x@y.org")]


POLICIES = {
    "golden": {"sources": {"a": 1}, "fields": {"city": {"choose": ["longest"]}}},
    "newest": {"method": "time_ordered"},
    "ranked": {"method": "dataset_precedence", "sources": {"a": 1}, "unlisted": "exclude"},
}


def test_every_policy_has_one_row_an_active_profile(con: DuckDBPyConnection) -> None:
    config = config_of(TEXT, POLICIES, identity={"namespaces": {"crm_id": {}, "cookie": {"kind": "cookie"}}})
    set_records(
        con,
        config,
        [
            {"key": "a:1", "profile": "p", "city": "York"},
            {"key": "b:1", "profile": "q", "city": "Hull"},
            {"key": "a:2", "profile": "silent"},
        ],
    )
    add_member(con, "event:cookie=k", "visitor", "pseudonymous")
    add_member(con, "event:crm_id=7", "buyer", "person")
    con.execute(
        "insert into profiles.identifiers values ('visitor', 'cookie', 'k', 1), ('p', 'cookie', 'z', 1)"
    )
    con.execute(
        "insert into profiles.events values ('visitor', ?), ('visitor', ?), (null, ?)",
        [BEGIN, BEGIN + DAY, BEGIN],
    )
    for build in (build_candidates, build_lineage, build_unified):
        build(con, config)
    for policy in POLICIES:
        found = records_of(con, f"select * from {table_of(config, policy)} order by profile_id")
        assert [row["profile_id"] for row in found] == ["buyer", "p", "q", "silent", "visitor"]
        assert {(row["policy"], row["policy_version"]) for row in found} == {(policy, 1)}
        assert [row["kind"] for row in found] == ["person", "person", "person", "person", "pseudonymous"]
        assert [row["city"] for row in found] == [
            None,
            "York",
            None if policy == "ranked" else "Hull",
            None,
            None,
        ]
        assert [row["sources"] for row in found] == [[], ["a"], ["b"], ["a"], []]
        assert [row["record_count"] for row in found] == [0, 1, 1, 1, 0]
        assert [row["event_count"] for row in found] == [0, 0, 0, 0, 2]
        assert found[4]["last_event_at"] == BEGIN + DAY
        assert found[1]["identity_map"] == {"cookie": ["z"], "crm_id": ["1"]}
        assert found[4]["identity_map"] == {"cookie": ["k"]}


def test_a_source_without_survivorship_offers_nothing(con: DuckDBPyConnection) -> None:
    config = config_of(TEXT, {"golden": {}})
    bought = config.model_copy(update={"sources": {**config.sources, "b": source(survivorship=False)}})
    merge(con, bought, [{"key": "a:1", "city": "York", "at": 1}, {"key": "b:1", "city": "Hull", "at": 2}])
    assert rows(con, "select city, record_count from profiles.unified") == [("York", 2)]


def test_a_changed_policy_rewrites_lineage_and_an_unchanged_one_does_not(con: DuckDBPyConnection) -> None:
    records = [said("a:1", "xx", at=1), said("b:1", "y", at=2)]
    assert shown(con, {"choose": ["most_recent"]}, records) == "y"
    before = [built(con, name) for name in ("profiles.lineage", "profiles.unified")]
    config = config_of({"field": "text"}, {"golden": {"choose": ["most_recent"]}})
    con.execute("delete from profiles.unified")
    build_lineage(con, config)
    build_unified(con, config)
    assert [built(con, name) for name in ("profiles.lineage", "profiles.unified")] == before
    assert scalar(con, "select count(*) from profiles.unified") == 0, "nothing was written again"
    build_lineage(con, other := config_of({"field": "text"}, {"golden": {"choose": ["longest"]}}))
    build_unified(con, other)
    assert scalar(con, "select field from profiles.unified") == "xx"


def test_survivorship_and_conflicts_count_fields(con: DuckDBPyConnection) -> None:
    config = config_of({"city": "text", "note": "text"}, {"golden": {}})
    merge(
        con,
        config,
        [
            {"key": "a:1", "profile": "p", "city": "York", "note": "x", "at": 1},
            {"key": "b:1", "profile": "p", "city": "Hull", "note": "X", "at": 2},
            {"key": "a:2", "profile": "q", "city": "York"},
        ],
    )
    assert lineage.survivorship(con, "golden") == [("b", 2), ("a", 1)]
    assert lineage.conflicts(con, "golden") == [("city", 1)], "a difference of case is no conflict"


# ---------------------------------------------------------------- identifiers and timeline


def test_identifiers_and_events_of_each_profile(con: DuckDBPyConnection) -> None:
    config = config_of(
        TEXT,
        {"golden": {}},
        identity={"namespaces": {"email": {"type": "email"}, "cookie": {"kind": "cookie"}}},
    )
    set_records(con, config, [{"key": "a:1", "profile": "p"}, {"key": "b:1", "profile": "p"}])
    add_member(con, "event:cookie=k", "visitor", "pseudonymous")
    con.execute("drop table profiles.events; drop table profiles.identifiers")
    con.execute(
        "create table identity.identifiers (record_key text, source text, namespace text, value text, raw_value text,"
        " observed_at timestamptz)"
    )
    for key, raw, day in [("a:1", "X@y.org", 1), ("b:1", "x@y.org", 3), ("b:1", "x@Y.org", 2)]:
        con.execute(
            "insert into identity.identifiers values (?, ?, 'email', 'x@y.org', ?, ?)",
            [key, key[0], raw, BEGIN + day * DAY],
        )
    con.execute("create table identity.generic_values as select 'email' as namespace, 'x@y.org' as value")
    con.execute(
        """create table records.events as select unnest(['e:1', 'e:2', 'e:3']) as event_key, 'web' as source, '1' as event_id,
        'view' as event_type, 'app' as channel, now() as occurred_at, 'UTC' as zone, [] as identifiers, '{}' as payload,
        1 as deliveries, 1 as batch, unnest(['event:cookie=k', 'a:1', null]) as subject, 'stated' as attribution"""
    )
    touch(con, "identity.nodes", "records.event_subjects")
    build_timeline(con, config)
    assert rows(
        con,
        "select profile_id, kind, raw_values, record_count, sources, first_observed_at, last_observed_at, generic"
        " from profiles.identifiers",
    ) == [
        ("p", "person", ["X@y.org", "x@Y.org", "x@y.org"], 2, ["a", "b"], BEGIN + DAY, BEGIN + 3 * DAY, True)
    ]
    assert rows(con, "select event_key, profile_id from profiles.events order by 1") == [
        ("e:1", "visitor"), ("e:2", "p"), ("e:3", None),
    ]  # fmt: skip


# ---------------------------------------------------------------- any records, any policy

FIELDS = {"city": "city", "note": "text", "agreed": "consent", "points": "integer"}
CHOICES = st.lists(st.sampled_from(get_args(Choice)), min_size=1, max_size=3, unique=True).filter(
    lambda rules: not any(pair <= set(rules) for pair in OPPOSITES)
)
RANKS = st.dictionaries(st.sampled_from("abc"), st.integers(1, 3))


def with_options(policy: dict[str, Any]) -> dict[str, Any]:
    parts = [policy, *policy["groups"].values(), *policy["fields"].values()]
    return {**policy, **options_for(*(rule for part in parts for rule in part["choose"]))}


ANY_POLICY = st.fixed_dictionaries(
    {
        "choose": CHOICES,
        "sources": RANKS,
        "unlisted": st.sampled_from(["last", "exclude"]),
        "clock": st.sampled_from(["business", "ingestion"]),
        "groups": st.one_of(
            st.just({}), CHOICES.map(lambda rules: {"place": {"fields": ["city", "note"], "choose": rules}})
        ),
        "fields": st.one_of(st.just({}), CHOICES.map(lambda rules: {"points": {"choose": rules}})),
    }
).map(with_options)


@st.composite
def any_records(draw: st.DrawFn) -> list[Record]:
    found = []
    for number in range(draw(st.integers(1, 10))):
        values = {
            "city": draw(st.sampled_from([None, "York", "YORK", "york", "Hull"])),
            "note": draw(st.sampled_from([None, "x", "X", "long note"])),
            "agreed": draw(st.sampled_from([None, True, False])),
            "points": draw(st.sampled_from([None, 9, 10, -1])),
        }
        clearable = [name for name, value in values.items() if value is None]
        found.append(
            {
                "key": f"{draw(st.sampled_from('abc'))}:{number}",
                "profile": draw(st.sampled_from(["p", "q"])),
                "at": draw(st.one_of(st.none(), st.integers(0, 2))),
                "ingested": draw(st.integers(0, 1)),
                "cleared": [name for name in clearable if draw(st.booleans())],
                **values,
            }
        )
    return found


@pytest.fixture(scope="module")
def shared() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        yield opened


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policy=ANY_POLICY, records=any_records(), seed=st.integers(0, 99))
def test_any_merge_is_total_explained_and_independent_of_order(
    shared: DuckDBPyConnection, policy: dict[str, Any], records: list[Record], seed: int
) -> None:
    config = config_of(FIELDS, {"golden": policy})
    merge(shared, config, records)
    first = outcome(shared)
    _check_winners(shared, policy, records)
    _check_profiles_follow_from_lineage(shared)
    shuffled = records[:]
    random.Random(seed).shuffle(shuffled)
    merge(shared, config, shuffled)
    assert outcome(shared) == first


def outcome(con: DuckDBPyConnection) -> tuple[list[Any], list[Any]]:
    return (
        rows(con, "select * from profiles.lineage order by profile_id, field, rank, record_key"),
        rows(con, "select * from profiles.unified order by profile_id"),
    )


def _check_winners(con: DuckDBPyConnection, policy: Mapping[str, Any], records: Sequence[Record]) -> None:
    by_key = {record["key"]: record for record in records}
    admitted = policy["sources"] if policy["unlisted"] == "exclude" and policy["sources"] else "abc"
    ranks: dict[tuple[str, str], list[int]] = {}
    for row in records_of(con, "select * from profiles.lineage"):
        record = by_key[row["record_key"]]
        value = record[row["field"]]
        assert row["value"] == (
            str(value).lower() if isinstance(value, bool) else None if value is None else str(value)
        )
        assert row["cleared"] == (row["field"] in record["cleared"])
        assert row["source"] in admitted
        assert row["won"] == (row["rank"] == 1 and row["rule"] != "unanimous_or_null")
        ranks.setdefault((row["profile_id"], row["field"]), []).append(row["rank"])
    assert all(len(set(found)) == len(found) for found in ranks.values()), "two candidates share a place"
    grouped = policy["groups"]["place"]["fields"] if policy["groups"] else []
    assert all(1 in found for (_, field), found in ranks.items() if field not in grouped)
    assert scalar(
        con,
        "select coalesce(max(n), 0) from (select count(distinct record_key) as n from profiles.lineage"
        " where won and list_contains(?, field) group by profile_id)",
        [grouped],
    ) in {0, 1}


def _check_profiles_follow_from_lineage(con: DuckDBPyConnection) -> None:
    for row in records_of(con, "select * from profiles.unified"):
        won = dict(
            rows(
                con,
                "select field, value from profiles.lineage where won and profile_id = ?",
                [row["profile_id"]],
            )
        )
        for field in FIELDS:
            value = row[field]
            assert won.get(field) == (
                str(value).lower() if isinstance(value, bool) else None if value is None else str(value)
            )
