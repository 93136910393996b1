"""Incremental profiles equal those merged afresh, whatever changed; and only touched profiles are merged again."""

from collections.abc import Mapping, Sequence
from typing import Any

from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_pipeline.config.load import Config
from profile_pipeline.profiles import pins, touched
from profile_pipeline.profiles.candidates import build_candidates
from profile_pipeline.profiles.lineage import build_lineage
from profile_pipeline.profiles.unified import build_unified, table_of
from profile_pipeline.warehouse import (
    last_full,
    literal,
    rows,
    scalar,
    table_exists,
)
from profile_pipeline_tests.hand_made import BEGIN, DAY, config_of, set_records, touch, warehouse

Record = Mapping[str, Any]
FIELDS = {"given_name": "given_name", "city": "text", "postcode": "text", "marketing_consent": "consent"}
POLICIES = {
    "golden": {
        "choose": ["most_frequent", "most_recent"],
        "groups": {"place": {"fields": ["city", "postcode"]}},
    },
    "ranked": {"method": "dataset_precedence", "sources": {"a": 1, "b": 2}, "unlisted": "exclude"},
}
RECORDS = st.fixed_dictionaries(
    {
        "profile": st.sampled_from("pqr"),
        "at": st.integers(0, 3),
        "given_name": st.sampled_from(["Ann", "ANN", "Bob", None]),
        "city": st.sampled_from(["Bath", "York", None]),
        "postcode": st.sampled_from(["1", "2", None]),
        "marketing_consent": st.sampled_from([True, False, None]),
    }
)
STATES = st.dictionaries(st.sampled_from(["a:1", "a:2", "b:1", "b:2", "c:1"]), RECORDS, max_size=5)
"""What there is at one run: records by key. Keys that stay, go and come back change by themselves."""


def build(con: DuckDBPyConnection, config: Config, *, apart: bool = False) -> None:
    """Run the steps; `apart`: each in a run of its own, so that nothing is handed over."""
    for step in (build_candidates, build_lineage, build_unified):
        step(con, config)
        if apart:
            for handed in (touched.CANDIDATES, touched.LINEAGE):
                touched.drop_handed_over(con, handed)


def deliver(
    con: DuckDBPyConnection, config: Config, state: Mapping[str, Record], events: Sequence[str] = ()
) -> None:
    before = rows(con, "from profiles.events") if table_exists(con, "profiles.events") else []
    set_records(con, config, [{"key": key, **record} for key, record in state.items()])
    now = [(profile, BEGIN + number * DAY) for number, profile in enumerate(events)]
    for event in now:
        con.execute("insert into profiles.events values (?, ?)", event)
    for profile, _ in set(before) ^ set(now):  # as the timeline does
        touched.note_events(con, f"select {literal(profile)} as profile_id")


def contents(con: DuckDBPyConnection, config: Config) -> dict[str, list[Any]]:
    tables = ["profiles.candidates", "profiles.lineage", *(table_of(config, name) for name in POLICIES)]
    return {table: rows(con, f"select * from {table} order by all") for table in tables}


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(STATES, st.lists(st.sampled_from("pqr"), max_size=3), st.booleans()), min_size=2, max_size=4
    )
)
def test_incremental_equals_full(history: list[tuple[dict[str, Record], list[str], bool]]) -> None:
    config = config_of(FIELDS, POLICIES)
    with warehouse() as kept:
        for state, events, apart in history:
            deliver(kept, config, state, events)
            build(kept, config, apart=apart)
            with warehouse() as fresh:
                deliver(fresh, config, state, events)
                build(fresh, config)
                assert contents(kept, config) == contents(fresh, config)
        waiting = "select count(*) from profiles.changes where stage in ('lineage', 'unified', 'activity')"
        assert not scalar(kept, waiting), "what a step dealt with stays in its queue"


def test_only_touched_profiles_are_merged_again() -> None:
    config = config_of(FIELDS, POLICIES)
    ann = {"profile": "p", "given_name": "Ann"}
    with warehouse() as con:
        deliver(con, config, {"a:1": ann, "b:1": {"profile": "q", "given_name": "Bob"}})
        build(con, config)
        first = last_full(con, "profiles.unified")
        for table in ("candidates", "lineage", "unified"):
            # a mark that only a row that is written again can lose
            con.execute(f"alter table profiles.{table} add column old boolean default true")
            con.execute(f"alter table profiles.{table} alter column old drop default")
        deliver(con, config, {"a:1": {**ann, "city": "Bath"}, "b:1": {"profile": "q", "given_name": "Bob"}})
        build(con, config)
        assert first == last_full(con, "profiles.unified") != ""
        for table in ("candidates", "lineage", "unified"):
            marked = f"select distinct profile_id, coalesce(old, false) from profiles.{table} order by 1"
            assert rows(con, marked) == [("p", False), ("q", True)], table


def test_a_profile_with_other_events_only_is_not_merged_again() -> None:
    config = config_of(FIELDS, POLICIES)
    state = {"a:1": {"profile": "p", "given_name": "Ann"}, "b:1": {"profile": "q", "given_name": "Bob"}}
    shown = "select profile_id, given_name, event_count, old from profiles.unified order by 1"
    with warehouse() as con:
        deliver(con, config, state)
        build(con, config)
        con.execute("alter table profiles.unified add column old boolean default true")
        con.execute("update profiles.lineage set value = 'nobody looks here'")
        deliver(con, config, state, events=["p"])
        build(con, config)
        assert rows(con, shown) == [("p", "Ann", 1, True), ("q", "Bob", 0, True)]


def test_rows_handed_over_are_used_for_exactly_their_profiles() -> None:
    """A step that failed before leaves more to do than what the step before it hands over."""
    config = config_of(FIELDS, POLICIES)
    ann, bob = {"profile": "p", "given_name": "Ann"}, {"profile": "q", "given_name": "Bob"}
    with warehouse() as con:
        deliver(con, config, {"a:1": ann, "b:1": bob})
        build(con, config)
        deliver(con, config, {"a:1": {**ann, "city": "Bath"}, "b:1": bob})
        build_candidates(con, config)
        deliver(con, config, {"a:1": {**ann, "city": "Bath"}, "b:1": {**bob, "city": "York"}})
        build(con, config)
        shown = "select profile_id, city from profiles.unified order by 1"
        assert rows(con, shown) == [("p", "Bath"), ("q", "York")]


def test_other_rules_of_a_source_begin_afresh() -> None:
    """They can give other values to rows that say the same."""
    config = config_of(FIELDS, POLICIES)
    state = {"a:1": {"profile": "p", "given_name": "Ann"}}
    with warehouse() as con:
        deliver(con, config, state)
        build(con, config)
        first = last_full(con, "profiles.candidates")
        elsewhere = config.sources["a"].model_copy(update={"country": "DE"})
        config = config.model_copy(update={"sources": {**config.sources, "a": elsewhere}})
        deliver(con, config, state)
        build(con, config)
        assert first != last_full(con, "profiles.candidates")


def test_events_alone_touch_their_profile() -> None:
    config = config_of(FIELDS, POLICIES)
    state = {"a:1": {"profile": "p", "given_name": "Ann"}, "b:1": {"profile": "q", "given_name": "Bob"}}
    with warehouse() as con:
        for events in ([], ["p", "p"], ["p", "q"]):
            deliver(con, config, state, events)
            build(con, config)
            counted = [(profile, events.count(profile)) for profile in "pq"]
            for table in ("profiles.unified", "profiles.unified_ranked"):
                assert rows(con, f"select profile_id, event_count from {table} order by 1") == counted


def test_a_pin_touches_its_profile() -> None:
    config = config_of(FIELDS, POLICIES)
    state = {
        "a:1": {"profile": "p", "given_name": "Ann", "city": "Bath"},
        "b:1": {"profile": "q", "given_name": "Bob", "city": "York"},
    }
    with warehouse() as con:
        con.execute("create table if not exists raw.batches (batch integer, as_of timestamptz)")
        con.execute("insert into raw.batches values (1, ?)", [BEGIN])
        deliver(con, config, state)
        build(con, config)
        first = last_full(con, "profiles.unified")
        pins.pin(con, config, "p", "city", "Wells", "me", "asked")
        build(con, config)
        assert first == last_full(con, "profiles.unified")
        cities = "select profile_id, city from profiles.unified order by 1"
        assert rows(con, cities) == [("p", "Wells"), ("q", "York")]
        found = contents(con, config)
        con.execute("delete from state.built where starts_with(name, 'profiles.')")
        touch(con, "records.current", "identity.membership", "profiles.identifiers", "profiles.events")
        build(con, config)
        assert contents(con, config) == found
        pins.withdraw(con, "p", "city", "me", "no more")
        build(con, config)
        assert rows(con, cities) == [("p", "Bath"), ("q", "York")]
