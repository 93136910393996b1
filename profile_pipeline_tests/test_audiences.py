"""Audiences: the demo's and random ones against plain Python; consent, entry and exit, delivered lists."""

import json
import random
from collections import defaultdict
from collections.abc import Generator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from profile_pipeline import batches, quality, replay
from profile_pipeline.audiences import build, build_audiences, evaluate, explain, sizes
from profile_pipeline.audiences.evaluate import write_members
from profile_pipeline.audiences.moved import time_is_up
from profile_pipeline.check.expressions import audience_problems
from profile_pipeline.cli import app
from profile_pipeline.clock import moment
from profile_pipeline.config.load import Config, RuleError, load_config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError
from profile_pipeline.profile_ids import TABLES as LEDGER
from profile_pipeline.profiles import touched
from profile_pipeline.warehouse import mark_built, rolled_back, rows, scalar
from profile_pipeline_tests.conftest import Projects, validate_in_sql
from profile_pipeline_tests.hand_made import BEGIN, DAY, config_of, day, people, touch, warehouse
from profile_pipeline_tests.worlds import (
    DEMO_RULES,
    LINKED,
    Row,
    deliver,
    run_core,
    warehouse_of,
    write_rules,
)

Happened = tuple[str, str, datetime]
"""Who, event type, when."""

GOLD = {"gold": {"where": "tier = 'gold'"}}
TIERS = {"tier": "text", "agreed": "consent", "points": "integer"}


@pytest.fixture
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        opened.execute(
            "create table profiles.unified (profile_id text, tier text, agreed boolean, points bigint)"
        )
        opened.execute("create table raw.batches (batch integer, as_of timestamptz)")
        yield opened


def run(con: DuckDBPyConnection, batch: int, audiences: dict[str, Any], *people: tuple[Any, ...]) -> None:
    """One batch in which these are the profiles: (id, tier, agreed, points)."""
    con.execute("delete from profiles.unified")
    for person in people:
        con.execute(
            "insert into profiles.unified values (?, ?, ?, ?)", [*person, *[None] * (4 - len(person))]
        )
    con.execute("delete from raw.batches")
    con.execute("insert into raw.batches values (?, ?)", [batch, day(batch)])
    wholly(con, "profiles.unified", batch)
    build_audiences(con, config_of(TIERS, {"golden": {}}, audiences=audiences))


def wholly(con: DuckDBPyConnection, table: str, batch: int) -> None:
    """Say that a table was computed as a whole."""
    mark_built(con, table, f"{table} {batch}", {"full": f"{table} {batch}"})


def history(con: DuckDBPyConnection) -> list[tuple[Any, ...]]:
    """(profile, day of entry, day of exit), in order."""
    return [
        (who, (entered - day(0)).days, left and (left - day(0)).days)
        for who, entered, left in rows(
            con,
            "select profile_id, entered_at, exited_at from audiences.membership order by profile_id, entered_at",
        )
    ]


def test_entry_exit_and_re_entry(con: DuckDBPyConnection) -> None:
    run(con, 1, GOLD, ("p", "gold"), ("q", "silver"))
    run(con, 2, GOLD, ("p", "silver"), ("q", "gold"))
    run(con, 3, GOLD, ("p", "silver"), ("q", "gold"))
    run(con, 4, GOLD, ("p", "gold"))
    assert history(con) == [("p", 1, 2), ("p", 4, None), ("q", 2, 4)]
    assert sizes(con) == {"gold": 1}


def test_nothing_is_written_when_nothing_changed(con: DuckDBPyConnection) -> None:
    run(con, 1, GOLD, ("p", "gold"))
    con.execute("delete from audiences.membership")
    build_audiences(con, config_of(TIERS, {"golden": {}}, audiences=GOLD))
    assert history(con) == []


def test_unknown_is_no(con: DuckDBPyConnection) -> None:
    run(
        con,
        1,
        {"rich": {"where": "points > 10"}, "poor": {"where": "not points > 10"}},
        ("p", None, None, None),
        ("q", None, None, 11),
    )
    assert sizes(con) == {"rich": 1}


@pytest.mark.parametrize(("agreed", "members"), [(True, 1), (False, 0), (None, 0)])
def test_consent_is_asked_whatever_the_condition_says(
    con: DuckDBPyConnection, agreed: bool | None, members: int
) -> None:
    audience = {"all": {"where": "true or tier = 'x'", "consent": "agreed"}}
    run(con, 1, audience, ("p", "x", agreed))
    assert sum(sizes(con).values()) == members


def test_a_condition_may_end_in_a_comment(con: DuckDBPyConnection) -> None:
    run(
        con,
        1,
        {"gold": {"where": "tier = 'gold' -- card holders", "consent": "agreed"}},
        ("p", "gold", True),
        ("q", "gold"),
    )
    assert sizes(con) == {"gold": 1}


def test_an_audience_that_is_no_longer_defined_is_left_by_all(con: DuckDBPyConnection) -> None:
    run(con, 1, GOLD, ("p", "gold"))
    run(con, 2, {}, ("p", "gold"))
    assert history(con) == [("p", 1, 2)]
    assert sizes(con) == {}


def test_rules_that_change_without_data_leave_one_row_an_entry(con: DuckDBPyConnection) -> None:
    none = {"gold": {"where": "false"}}
    run(con, 1, GOLD, ("p", "gold"))
    run(con, 1, none, ("p", "gold"))
    assert history(con) == [], "a stay of no time never happened"
    run(con, 2, GOLD, ("p", "gold"))
    run(con, 3, none, ("p", "gold"))
    run(con, 3, GOLD, ("p", "gold"))
    run(con, 3, none, ("p", "gold"))
    run(con, 3, GOLD, ("p", "gold"))
    assert history(con) == [("p", 2, 3), ("p", 3, None)]


def test_a_broken_condition_is_one_line_without_data_and_changes_nothing(con: DuckDBPyConnection) -> None:
    run(con, 1, GOLD, ("p", "gold"))
    for where in ("tier::integer > 1", "teir = 'gold'", "tier = = 'gold'"):
        with pytest.raises(PipelineError) as problem:
            run(con, 2, {**GOLD, "bad": {"where": where}}, ("secret-person", "platinum 4711"))
        text = str(problem.value)
        assert text.startswith("audiences.yaml: audiences.bad.where does not work: ")
        assert "\n" not in text
        assert "platinum" not in text
        assert "4711" not in text
    assert history(con) == [("p", 1, None)]
    assert scalar(con, "select count(*) from duckdb_tables() where temporary") == 0


# ---------------------------------------------------------------- the demo's audiences in plain Python


def at_hour(number: int) -> datetime:
    """So many hours before the as-of time."""
    return BEGIN - timedelta(hours=number)


def make_events(con: DuckDBPyConnection, events: Iterable[Happened], payloads: bool = False) -> None:
    con.execute("create table profiles.events (profile_id text, event_key text, source text, event_type text,"
                " channel text, occurred_at timestamptz, payload json)")  # fmt: skip
    for number, (who, kind, at) in enumerate(events):
        payload = {"total": ["299.99", "300", "1200.5", "odd"][number % 4]} if payloads else {}
        channel = "app" if payloads and number % 5 == 0 else "web"
        con.execute("insert into profiles.events values (?, ?, 'web', ?, ?, ?, ?)",
                    [who, str(number), kind, channel, at, json.dumps(payload)])  # fmt: skip


def members_of(con: DuckDBPyConnection) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for name, who in rows(
        con, "select audience, profile_id from audiences.membership where exited_at is null"
    ):
        found[name].add(who)
    return found


def demo_people(draw: random.Random) -> dict[str, dict[str, Any]]:
    return {
        f"p{n}": {
            "kind": draw.choice(["person", "person", "pseudonymous"]),
            "loyalty_tier": draw.choice([None, "silver", "gold", "bronze"]),
            "email": draw.choice([None, "x@example.com", "y@example.com"]),
            "marketing_consent": draw.choice([None, False, True, True, True]),
            "sources": draw.choice([["crm"], ["loyalty"], ["loyalty", "shop"], ["shop"]]),
            "event_count": draw.randrange(6),
        }
        for n in range(300)
    }


def demo_computed(draw: random.Random) -> dict[str, Any]:
    """What audiences ask of computed attributes; test_computed has these themselves."""
    return {
        "rfm": draw.choice([None, "111", "444", "454", "545", "454", "345", "554"]),
        "revenue_365d": draw.choice([0.0, 199.99, 200.0, 1000.0]),
        "days_since_order": draw.choice([None, 0, 29, 30, 60]),
        "first_order_at": draw.choice([None, BEGIN - 30 * DAY, BEGIN - 29 * DAY, BEGIN, BEGIN - 300 * DAY]),
        "average_basket": draw.choice([None, 99.99, 100.0, 500.0]),
        "online_share": draw.choice([None, 0.0, 0.0, 0.25, 1.0]),
        "channels_used": draw.choice([None, ["app"], ["app", "store"], ["store"]]),
        "products_seen": draw.choice([0, 2, 3, 9]),
    }


def demo_events(draw: random.Random, people: Iterable[str]) -> list[Happened]:
    kinds = ["order", "store_purchase", "add_to_cart", "product_view", "product_view"]
    hours = [0, 1, 2, 3, 24, 24 * 59, 24 * 60, 24 * 61, 24 * 181, 24 * 182, 24 * 183, 24 * 365, 24 * 366, -1]
    return [
        (who, draw.choice(kinds), at_hour(draw.choice([*hours, draw.randrange(9000)])))
        for who in people
        for _ in range(draw.randrange(7))
    ]


def demo_by_hand(people: dict[str, dict[str, Any]], events: list[Happened]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    totals = {number: [299.99, 300, 1200.5, 0][number % 4] for number in range(len(events))}
    year = datetime(2025, 4, 1, tzinfo=UTC)
    for who, person in people.items():
        mine = [(kind, at, totals[n]) for n, (w, kind, at) in enumerate(events) if w == who and at <= BEGIN]
        times = {kind: [at for k, at, _ in mine if k == kind] for kind in KINDS_OF_DEMO}
        consent, tier = person["marketing_consent"] is True, person["loyalty_tier"]
        orders, stores = times["order"], times["store_purchase"]
        bought = orders + stores
        lapsed = consent and tier in {"silver", "gold"} and bool(bought) and max(bought) <= BEGIN - 42 * DAY
        reachable = consent and person["email"] is not None
        human = person["kind"] == "person"
        left = [t for t in times["add_to_cart"] if t <= at_hour(2) and not any(o > t for o in orders)]
        answers = {
            "loyal_gold": tier == "gold",
            "reachable_by_email": reachable,
            "offline_only": human and "loyalty" in person["sources"] and "shop" not in person["sources"],
            "unknown_visitors": not human and person["event_count"] >= 3,
            "lapsed_loyal": lapsed,
            "cart_abandoned": human and bool(left),
            "high_value": consent
            and any(k == "order" and at > year and total >= 300 for k, at, total in mine),
            "browsing_not_buying": consent and human and len(times["product_view"]) >= 3 and not orders,
            "store_then_online": any(s < o <= s + 60 * DAY for s in stores for o in orders),
            "win_back": lapsed and reachable and tier != "gold",
            "best_customers": consent and person["rfm"] is not None and min(person["rfm"]) >= "4",
            "slipping_away": consent and person["revenue_365d"] >= 200 and (person["days_since_order"] or 0) >= 30,
            "new_customers": person["first_order_at"] is not None and person["first_order_at"] > BEGIN - 30 * DAY,
            "one_time_buyers": consent and len(bought) == 1 and bought[0] <= BEGIN - 21 * DAY,
            "large_baskets": consent and (person["average_basket"] or 0) >= 100 and len(bought) >= 3,
            "app_users": consent and any(n % 5 == 0 and w == who and BEGIN >= at > BEGIN - 90 * DAY
                                         for n, (w, _, at) in enumerate(events)),
            "stores_only": consent and person["online_share"] == 0 and "store" in (person["channels_used"] or []),
            "window_shoppers": person["products_seen"] >= 3 and not any(t > BEGIN - 30 * DAY for t in times["add_to_cart"]),
            "gold_at_risk": consent and tier == "gold" and bool(mine) and max(at for _, at, _ in mine) <= BEGIN - 30 * DAY,
            "cart_rescued": any(c < o <= c + DAY and not any(c < other < o for other in times["add_to_cart"])
                                for c in times["add_to_cart"] for o in orders),
        }  # fmt: skip
        for name, answer in answers.items():
            found[name] |= {who} if answer else set()
    return found


KINDS_OF_DEMO = ("order", "store_purchase", "add_to_cart", "product_view")


def test_every_audience_of_the_demo_is_what_plain_python_finds() -> None:
    config, draw = load_config(DEMO_RULES), random.Random(7)
    people = demo_people(draw)
    events = demo_events(draw, people)
    with warehouse() as con:
        con.execute("create table raw.batches (batch integer, as_of timestamptz)")
        con.execute("insert into raw.batches values (1, ?)", [BEGIN])
        con.execute("create table profiles.unified (profile_id text, kind text, loyalty_tier text, email text,"
                    " marketing_consent boolean, sources text[], event_count bigint)")  # fmt: skip
        con.execute("create table profiles.computed (profile_id text, rfm text, revenue_365d double, days_since_order bigint,"
                    " first_order_at timestamptz, average_basket double, online_share double, channels_used text[],"
                    " products_seen bigint)")  # fmt: skip
        for who, person in people.items():
            con.execute("insert into profiles.unified values (?, ?, ?, ?, ?, ?, ?)", [who, *person.values()])
            computed = demo_computed(draw)
            con.execute(
                "insert into profiles.computed values (?, ?, ?, ?, ?, ?, ?, ?, ?)", [who, *computed.values()]
            )
            person |= computed
        make_events(con, events, payloads=True)
        touch(con, "profiles.unified", "profiles.events")
        build_audiences(con, config)
        expected = demo_by_hand(people, events)
        assert set(expected) == set(config.audiences.audiences)
        found = members_of(con)
        for name, who in expected.items():
            assert found[name] == who, name
            assert 0 < len(who) < len(people), f"{name} tells nobody apart"


# ---------------------------------------------------------------- any rules over any events


def durations() -> st.SearchStrategy[str]:
    return st.integers(1, 8).map(lambda n: f"{n} hours")


def hours(duration: str) -> timedelta:
    return timedelta(hours=int(duration.split()[0]))


KINDS = st.sampled_from(["x", "y", "any"])


def counts() -> st.SearchStrategy[dict[str, Any]]:
    window = st.one_of(st.just({}), st.fixed_dictionaries({"within": durations()}))
    bound = st.sampled_from(
        [{}, {"absent": True}, {"at_least": 2}, {"at_most": 1}, {"at_least": 1, "at_most": 2}]
    )
    ever = st.builds(lambda e, d: {"event": e, "not_for": d}, KINDS, durations())
    return st.one_of(ever, st.builds(lambda e, w, b: {"event": e, **w, **b}, KINDS, window, bound))


@st.composite
def sequences(draw: st.DrawFn) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"event": draw(KINDS)}]
    for _ in range(draw(st.integers(1, 3))):
        limit = {"within": draw(durations())} if draw(st.booleans()) else {}
        steps.append({"event": draw(KINDS), **({"absent": True} if draw(st.booleans()) else {}), **limit})
    for step in reversed(steps):
        if not step.get("absent"):
            break
        if "within" in step and draw(st.booleans()):
            step["or_late"] = True
    whole = {"within": draw(durations())} if draw(st.booleans()) else {}
    return {"sequence": steps, **whole}


def trees(others: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    plain = [counts(), sequences(), sequences(), st.just({"field": "tier", "is": "gold"}),
             st.just({"field": "tier", "is_not": "gold"})]  # fmt: skip
    named = [st.sampled_from(others).map(lambda name: {"audience": name})] if others else []
    return st.recursive(
        st.one_of(*plain, *named),
        lambda inside: st.one_of(
            inside.map(lambda part: {"not": part}),
            st.lists(inside, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
            st.lists(inside, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        ),
        max_leaves=4,
    )


@st.composite
def rule_sets(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in ("first", "second", "third"):
        made[name] = draw(trees(list(made))) | draw(st.sampled_from([{}, {"consent": "agreed"}]))
    return made


def times_of(events: list[tuple[str, datetime]], kind: str) -> list[datetime]:
    return [at for k, at in events if kind in {k, "any"}]


def meets(
    rule: dict[str, Any],
    person: tuple[Any, ...],
    events: list[tuple[str, datetime]],
    rules: dict[str, Any],
) -> bool:
    if "consent" in rule and person[2] is not True:
        return False
    if "not" in rule:
        return not meets(rule["not"], person, events, rules)
    for key, join in (("all", all), ("any", any)):
        if key in rule:
            return join(meets(part, person, events, rules) for part in rule[key])
    if "audience" in rule:
        return meets(rules[rule["audience"]], person, events, rules)
    if "field" in rule:
        return person[1] is not None and (person[1] == "gold") == ("is" in rule)
    if "sequence" in rule:
        start = BEGIN - hours(rule["within"]) if "within" in rule else None
        inside = [(kind, at) for kind, at in events if start is None or at > start]
        first, *rest = rule["sequence"]
        return any(follows(rest, at, inside) for at in times_of(inside, first["event"]))
    return counted(rule, times_of(events, rule["event"]))


def counted(rule: dict[str, Any], times: list[datetime]) -> bool:
    if "not_for" in rule:
        return bool(times) and max(times) <= BEGIN - hours(rule["not_for"])
    number = sum("within" not in rule or at > BEGIN - hours(rule["within"]) for at in times)
    if "absent" in rule:
        return number == 0
    low = rule.get("at_least", 0 if "at_most" in rule else 1)
    return low <= number <= rule.get("at_most", number)


def follows(steps: list[dict[str, Any]], at: datetime, events: list[tuple[str, datetime]]) -> bool:
    """Whether these steps come behind an event at this time."""
    number = next((n for n, step in enumerate(steps) if not step.get("absent")), None)
    if number is None:
        return all(still_absent(step, at, times_of(events, step["event"])) for step in steps)
    absences, step, rest = steps[:number], steps[number], steps[number + 1 :]
    return any(
        at < then
        and ("within" not in step or then <= at + hours(step["within"]))
        and not any(
            at < t < then and ("within" not in absence or t <= at + hours(absence["within"]))
            for absence in absences
            for t in times_of(events, absence["event"])
        )
        and follows(rest, then, events)
        for then in times_of(events, step["event"])
    )


def still_absent(step: dict[str, Any], at: datetime, times: list[datetime]) -> bool:
    later = [t for t in times if t > at]
    if "within" not in step:
        return not later
    end = at + hours(step["within"])
    return end <= BEGIN and (all(t > end for t in later) if step.get("or_late") else not later)


TIER, AGREED = st.sampled_from([None, "gold", "silver"]), st.sampled_from([None, True, False])
PERSON = st.tuples(TIER, AGREED)
EVENT = st.tuples(st.integers(0, 5), st.sampled_from(["x", "y", "z"]), st.integers(-1, 9))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_sets(), st.lists(PERSON, min_size=6, max_size=6), st.lists(EVENT, min_size=8, max_size=36))
def test_any_rules_find_whom_plain_python_finds(
    rules: dict[str, Any], attributes: list[tuple[Any, ...]], happened: list[tuple[int, str, int]]
) -> None:
    people = [(f"p{n}", *person) for n, person in enumerate(attributes)]
    events = [(f"p{n}", kind, at_hour(hour)) for n, kind, hour in happened]
    with warehouse() as con:
        con.execute("create table profiles.unified (profile_id text, tier text, agreed boolean)")
        con.execute("create table raw.batches as select 1 as batch, ?::timestamptz as as_of", [BEGIN])
        con.executemany("insert into profiles.unified values (?, ?, ?)", people)
        make_events(con, events)
        touch(con, "profiles.unified", "profiles.events")
        build_audiences(
            con, config_of({"tier": "text", "agreed": "consent"}, {"golden": {}}, audiences=rules)
        )
        found = members_of(con)
    for name, rule in rules.items():
        expected = {
            person[0]
            for person in people
            if meets(rule, person, [(k, at) for w, k, at in events if w == person[0] and at <= BEGIN], rules)
        }
        assert found[name] == expected, name


# ---------------------------------------------------------------- exactly at the limit

HOUR, TICK = timedelta(hours=1), timedelta(microseconds=1)
SOON = {"sequence": [{"event": "x"}, {"event": "y", "within": "1 hour"}]}
NOT_YET = {"sequence": [{"event": "x"}, {"event": "y", "absent": True, "within": "1 hour"}]}
LATE = {"sequence": [{"event": "x"}, {"event": "y", "absent": True, "within": "1 hour", "or_late": True}]}
UNDISTURBED = {"sequence": [{"event": "x"}, {"event": "z", "absent": True}, {"event": "y"}]}
QUIET_HOUR = {
    "sequence": [{"event": "x"}, {"event": "z", "absent": True, "within": "1 hour"}, {"event": "y"}]
}
LIMITS = {
    "a step at its limit is in time": (SOON, {"x": 3 * HOUR, "y": 2 * HOUR}, True),
    "a step behind its limit is not": (SOON, {"x": 3 * HOUR, "y": 2 * HOUR - TICK}, False),
    "an absence whose time is just up": (NOT_YET, {"x": HOUR}, True),
    "an absence whose time is not up": (NOT_YET, {"x": HOUR - TICK}, False),
    "an event at the limit is not late": (LATE, {"x": 3 * HOUR, "y": 2 * HOUR}, False),
    "an event behind the limit is late": (LATE, {"x": 3 * HOUR, "y": 2 * HOUR - TICK}, True),
    "an event between two others": (UNDISTURBED, {"x": 3 * HOUR, "z": 3 * HOUR - TICK, "y": HOUR}, False),
    "at the moment of the first it is not between": (UNDISTURBED, {"x": 3 * HOUR, "z": 3 * HOUR, "y": HOUR}, True),
    "at the moment of the second it is not between": (UNDISTURBED, {"x": 3 * HOUR, "z": HOUR, "y": HOUR}, True),
    "between, at the limit": (QUIET_HOUR, {"x": 3 * HOUR, "z": 2 * HOUR, "y": HOUR}, False),
    "between, behind the limit": (QUIET_HOUR, {"x": 3 * HOUR, "z": 2 * HOUR - TICK, "y": HOUR}, True),
    "as old as the window": ({"event": "x", "within": "1 hour"}, {"x": HOUR}, False),
    "younger than the window": ({"event": "x", "within": "1 hour"}, {"x": HOUR - TICK}, True),
    "a sequence that began before its window": (
        {"sequence": [{"event": "x"}, {"event": "y"}], "within": "3 hours"}, {"x": 3 * HOUR, "y": HOUR}, False),
    "just so long ago": ({"event": "x", "not_for": "1 hour"}, {"x": HOUR}, True),
    "not so long ago": ({"event": "x", "not_for": "1 hour"}, {"x": HOUR - TICK}, False),
    "at this moment": ({"event": "x"}, {"x": 0 * HOUR}, True),
    "later than now": ({"event": "x"}, {"x": -TICK}, False),
}  # fmt: skip
"""Rule, how long ago each event was, and whether the profile is a member."""


@pytest.mark.parametrize("case", LIMITS)
def test_exactly_at_the_limit(con: DuckDBPyConnection, case: str) -> None:
    rule, ago, inside = LIMITS[case]
    make_events(con, [("p", kind, BEGIN - before) for kind, before in ago.items()])
    run(con, 0, {"some": rule}, ("p",))
    assert members_of(con)["some"] == ({"p"} if inside else set())


# ---------------------------------------------------------------- event columns of computed.yaml

PAID = {"event_columns": {"paid": {"type": "number", "value": "payload ->> '$.total'"}}}


def test_conditions_over_events_may_name_event_columns(con: DuckDBPyConnection) -> None:
    make_events(con, [(who, "x", day(0)) for who in ("p", "q", "r", "s")], payloads=True)
    con.execute("insert into profiles.unified (profile_id) values ('p'), ('q'), ('r'), ('s')")
    con.execute("insert into raw.batches values (1, ?)", [BEGIN])
    touch(con, "profiles.unified", "profiles.events")
    step = {"event": "x", "where": "paid >= 300"}
    rules = {"spent": step, "then_left": {"sequence": [step, {"event": "y", "absent": True}]}}
    build_audiences(con, config_of(TIERS, {"golden": {}}, audiences=rules, computed=PAID))
    assert members_of(con) == {"spent": {"q", "r"}, "then_left": {"q", "r"}}, "of 299.99, 300, 1200.5 and odd"


def test_an_event_column_that_changes_is_a_rule_that_changes(con: DuckDBPyConnection) -> None:
    make_events(con, [("p", "x", day(0))], payloads=True)
    con.execute("insert into profiles.unified (profile_id) values ('p')")
    rules = {"some": {"event": "x", "where": "paid > 1"}, "other": {"event": "x"}}
    pence = {
        "event_columns": {
            "paid": {"type": "number", "value": "try_cast(payload ->> '$.total' as double) / 1000"}
        }
    }
    for number, columns in enumerate((PAID, pence)):
        con.execute("insert into raw.batches values (?, ?)", [number, day(number)])
        touch(con, "profiles.unified")
        build_audiences(con, config_of(TIERS, {"golden": {}}, audiences=rules, computed=columns))
    left = rows(con, "select audience, exit_reason from audiences.membership where exited_at is not null")
    assert left == [("some", "rules")]


def test_a_check_knows_event_columns_and_the_as_of_time_in_conditions_over_events() -> None:
    steps = [{"event": "x"}, {"event": "y", "where": "payd > 3"}]
    rules = {
        "fine": {"event": "x", "where": "paid > 3 and occurred_at < as_of"},
        "wrong": {"sequence": steps},
    }
    [problem] = audience_problems(config_of(TIERS, {"golden": {}}, audiences=rules, computed=PAID))
    assert problem.line == (
        "audiences.yaml: audiences.wrong.sequence.1.where: unknown column `payd`; did you mean `paid`?"
    )


# ---------------------------------------------------------------- why stays begin and end


def test_entries_and_exits_say_why(con: DuckDBPyConnection) -> None:
    con.execute(LEDGER)
    rule = {"gold": {"field": "tier", "is": "gold", "consent": "agreed"}}
    gold = [(who, "gold", True) for who in ("condition", "consent", "merged", "retired", "rules")]
    run(con, 1, rule, *gold, ("taker", "silver", True))
    con.execute(
        "insert into identity.redirects by name"
        " select 'merged' as profile_id, 'taker' as successor, 1 as revision"
    )
    run(con, 2, rule, ("condition", "silver", True), ("consent", "gold", False), ("rules", "gold", True),
        ("taker", "gold", True))  # fmt: skip
    run(
        con,
        3,
        {"gold": {"field": "tier", "is": "silver"}},
        ("condition", "silver", True),
        ("rules", "gold", True),
    )
    found = rows(con, "select profile_id, entry_reason, exit_reason, exit_detail from audiences.membership"
                      " where profile_id != 'taker' order by profile_id, entered_at")  # fmt: skip
    assert found == [
        ("condition", "condition", "condition", "tier is gold"),
        ("condition", "rules", None, None),
        ("consent", "condition", "consent", "consent: agreed"),
        ("merged", "condition", "merged", "into taker"),
        ("retired", "condition", "retired", None),
        ("rules", "condition", "rules", None),
    ]
    taker = rows(con, "select entry_reason, exit_reason from audiences.membership where profile_id = 'taker'")
    assert taker == [("merged", "retired")]


def test_of_several_conditions_that_fail_consent_is_named_first(con: DuckDBPyConnection) -> None:
    rule = {
        "gold": {
            "all": [{"field": "points", "above": 1}, {"field": "tier", "is": "gold"}],
            "consent": "agreed",
        }
    }
    run(con, 1, rule, ("p", "gold", True, 5), ("q", "gold", True, 5), ("r", "gold", True, 5))
    run(con, 2, rule, ("p", "silver", False, 0), ("q", "silver", True, 0), ("r", "silver", True, 5))
    found = "select profile_id, exit_reason, exit_detail from audiences.membership order by 1"
    assert rows(con, found) == [
        ("p", "consent", "consent: agreed"),
        ("q", "condition", "points above 1"),
        ("r", "condition", "tier is gold"),
    ]


# ---------------------------------------------------------------- tried before a run


def test_a_trial_of_one_audience_says_who_moves_and_looks_at_nothing_else(con: DuckDBPyConnection) -> None:
    run(con, 1, GOLD, ("p", "gold"), ("q", "silver"), ("r", "gold"), ("s", None))
    changed = {
        "gold": {"any": [{"field": "tier", "is": "silver"}, {"audience": "named"}]},
        "named": {"where": "profile_id = 'p'"},
        "broken": {"where": "tier::integer > 1"},
    }
    config = config_of(TIERS, {"golden": {}}, audiences=changed)
    before = history(con)
    trial, moved = explain.preview_one(con, config, "gold")
    assert trial == explain.Trial("gold", 2, 2, 1, 1)
    assert moved == {"entering": ["q"], "leaving": ["r"]}
    assert history(con) == before, "a trial writes nothing"
    trials = {trial.audience: trial for trial in explain.preview(con, config)}
    assert "audiences.broken.where does not work" in trials["broken"].problem
    assert (trials["gold"], trials["named"].now) == (trial, 1), "the others work all the same"
    with rolled_back(con), pytest.raises(PipelineError, match="audiences: a condition does not work: "):
        evaluate(con, config, "temp.trial")
    assert scalar(con, "select count(*) from duckdb_tables() where temporary") == 0
    with pytest.raises(PipelineError, match="unknown audience `golt`; did you mean `gold`"):
        explain.preview_one(con, config, "golt")


def test_commands_about_audiences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "validate", validate_in_sql)
    made = write_rules(tmp_path, LINKED)
    anna = {"id": "c1", "first": "Ann", "email": "ann@x.org", "segment": "gold"}
    deliver(made, people(anna, {"id": "c2", "first": "Bob", "segment": "gold"}), "1")
    run_core(made)
    assert [(a["audience"], a["members"], a["consent"]) for a in asked(tmp_path, "list")] == [
        ("reachable", 1, "none"), ("gold", 2, "none"),
    ]  # fmt: skip
    assert asked(tmp_path, "show", "gold")["parts"] == [{"path": "where", "asks": "segment = 'gold'"}]
    (made.rules / "audiences.yaml").write_text(
        "audiences: {reachable: {field: email, missing: true}, gold: {field: segment, is: gold}}"
    )
    assert asked(tmp_path, "preview") == [
        {"audience": "reachable", "members": 1, "now": 1, "entering": 1, "leaving": 1, "problem": ""},
        {"audience": "gold", "members": 2, "now": 2, "entering": 0, "leaving": 0, "problem": ""},
    ]
    one = asked(tmp_path, "preview", "reachable")
    why = asked(tmp_path, "why", "reachable", "ANN@x.org")
    assert (one["leaving"], len(one["entering"])) == ([why["profile_id"]], 1)
    assert (why["inside"], why["member"]) == (False, True)
    assert [(part["condition"], part["seen"]) for part in why["failing"]] == [
        ("email is missing", "ann@x.org")
    ]
    [pair] = asked(tmp_path, "overlap")
    assert (pair["audience"], pair["other"], pair["shared"], pair["jaccard"]) == ("gold", "reachable", 1, 0.5)
    assert [m["entry_reason"] for m in asked(tmp_path, "members", "gold")] == ["condition"] * 2
    for arguments in (("list",), ("show", "gold"), ("preview", "reachable"), ("why", "gold", "ann@x.org"),
                      ("overlap",), ("members", "gold")):  # fmt: skip
        told = CliRunner().invoke(app, ["audience", *arguments, "--project", str(tmp_path)])
        assert (
            told.exit_code,
            "gold" in told.stdout or "reachable" in told.stdout or "condition" in told.stdout,
        ) == (0, True)


def test_rules_on_attributes_that_no_run_has_worked_out_yet_can_be_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "validate", validate_in_sql)
    made = write_rules(tmp_path, LINKED)
    old = {"compute": "count", "where": "event_type = 'view'"}
    attributes = {"seen": old, "often": {"expression": "seen > 1", "type": "boolean"}}
    write_computed(made, attributes)
    deliver(made, views("k1", "k1", "k2"), "1")
    run_core(made)
    ids = [who for (who,) in rows_of(made, "select profile_id from profiles.unified order by 1")]
    attributes["seen"] = old | {"where": "event_type = 'order'"}
    write_computed(made, attributes | {"latest": {"compute": "last", "value": "lower(event_type)"}})
    rules = {
        "new": {"all": [{"field": "latest", "is": "view"}, {"where": "latest is not null"}]},
        "changed": {"field": "often", "is": False},
        "plain": {"where": "kind = 'pseudonymous'"},
    }
    (made.rules / "audiences.yaml").write_text(json.dumps({"audiences": rules}))
    before = rows_of(made, "from profiles.computed order by all")
    counts = {trial["audience"]: trial["now"] for trial in asked(tmp_path, "preview")}
    assert counts == {"new": 2, "changed": 2, "plain": 2}
    assert sorted(asked(tmp_path, "preview", "changed")["entering"]) == ids
    why = asked(tmp_path, "why", "new", "k1")
    assert (why["profile_id"] in ids, why["inside"], why["member"]) == (True, True, False)
    assert [part["seen"] for part in why["parts"]] == ["view", "true"]
    assert asked(tmp_path, "why", "changed", "k1")["parts"][0]["seen"] == "false"
    assert rows_of(made, "from profiles.computed order by all") == before, "a trial writes nothing"


def test_what_does_not_work_is_one_line_and_hides_no_other_audience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "validate", validate_in_sql)
    made = write_rules(tmp_path, LINKED)
    deliver(made, people({"id": "c1", "first": "Ann", "segment": "gold"}), "1")
    run_core(made)
    rules = {
        "gold": {"field": "segment", "is": "gold"},
        "broken": {"where": "segment::integer > 1"},
        "behind": {"audience": "broken"},
    }
    (made.rules / "audiences.yaml").write_text(json.dumps({"audiences": rules}))
    where = ("--project", str(tmp_path))
    found = CliRunner().invoke(app, ["audience", "preview", "--json", *where])
    trials = {trial["audience"]: trial for trial in json.loads(found.stdout)}
    assert (found.exit_code, trials["gold"]["now"], trials["gold"]["problem"]) == (1, 1, "")
    for name in ("broken", "behind"):
        assert "audiences.broken.where does not work: ConversionException" in trials[name]["problem"]
    told = CliRunner().invoke(app, ["audience", "preview", *where])
    assert (told.exit_code, "gold" in told.stdout, told.stderr.count("error: ")) == (1, True, 1)
    wrong = CliRunner().invoke(app, ["audience", "why", "broken", "c1", *where])
    line = "error: audiences.yaml: audiences.broken does not work: ConversionException"
    assert (wrong.exit_code, wrong.stderr.count("\n"), wrong.stderr.startswith(line)) == (1, 1, True)
    assert asked(tmp_path, "why", "gold", "c1")["inside"], "the others can be asked all the same"


def write_computed(made: Project, attributes: dict[str, Any]) -> None:
    (made.rules / "computed.yaml").write_text(json.dumps({"attributes": attributes}))


def views(*cookies: str) -> list[Row]:
    """Pages looked at by these browsers."""
    plain = {"moment": "2026-03-01T10:00:00Z", "type": "view"}
    return [
        Row("visit", tuple({"id": f"v{n}", "cookie": cookie, **plain}.items()))
        for n, cookie in enumerate(cookies)
    ]


def rows_of(made: Project, query: str) -> list[tuple[Any, ...]]:
    with warehouse_of(made) as con:
        return rows(con, query)


def asked(folder: Path, *arguments: str) -> Any:
    found = CliRunner().invoke(app, ["audience", *arguments, "--project", str(folder), "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


# ---------------------------------------------------------------- delivered lists


def test_a_delivered_list_is_normalised_and_says_whom_it_did_not_find(
    con: DuckDBPyConnection, tmp_path: Path
) -> None:
    con.execute(
        "create table profiles.identifiers (profile_id text, namespace text, value text, generic boolean)"
    )
    con.execute("insert into profiles.identifiers values ('p', 'email', 'anna@example.com', false),"
                " ('q', 'email', 'info@example.com', true)")  # fmt: skip
    folder = tmp_path / "audiences"
    folder.mkdir()
    lines = [
        '"No.","E-Mail, private"',
        "1, Anna@Example.COM ",
        "2,new@example.com",
        "3,nonsense",
        "4,info@example.com",
    ]
    (folder / "vip_1.csv").write_text("\n".join(lines), encoding="utf-8")
    listed = {"files": "vip_*.csv", "column": "E-Mail, private", "namespace": "email"}
    config = config_of(TIERS, {"golden": {}}, audiences={"vip": {"external": listed}},
                       identity={"namespaces": {"email": {"type": "email"}}})  # fmt: skip
    con.execute("insert into profiles.unified (profile_id) values ('p'), ('q')")
    con.execute("insert into raw.batches values (1, ?)", [BEGIN])
    touch(con, "profiles.unified", "profiles.identifiers")
    build_audiences(con, config, tmp_path)
    assert members_of(con) == {"vip": {"p"}}
    assert rows(con, "select file, line, reason from audiences.external_unmatched order by line") == [
        ("vip_1.csv", 3, "unknown"),
        ("vip_1.csv", 4, "unreadable"),
        ("vip_1.csv", 5, "generic"),
    ]


@pytest.mark.slow
def test_stays_on_a_delivered_list_begin_when_they_did_after_a_batch_came_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "validate", validate_in_sql)
    made = write_rules(tmp_path, LINKED)
    listed = {"files": "vip.csv", "column": "mail", "namespace": "email"}
    (made.rules / "audiences.yaml").write_text(json.dumps({"audiences": {"vip": {"external": listed}}}))
    folder = made.data / "audiences"
    folder.mkdir(parents=True)
    lists = ["mail\n", "mail\nann@x.org\n", "mail\nann@x.org\nbob@x.org\n"]
    for number, (name, text) in enumerate(zip(("ann", "bob", "cid"), lists, strict=True), start=1):
        deliver(made, people({"id": name, "first": name, "email": f"{name}@x.org"}), str(number))
        (folder / "vip.csv").write_text(text)
        run_with_lists(made, day(number))
    before = stays_of(made)
    assert before == [("ann@x.org", 2, None), ("bob@x.org", 3, None)]
    for change in (batches.revert, batches.restore):
        with warehouse_of(made) as con:
            change(con, 1, "ann", "by chance")
        replay.settle(load_config(made.rules), made)
        run_with_lists(made, day(9))
        assert stays_of(made) == (before if change is batches.restore else before[1:])


def run_with_lists(project: Project, as_of: datetime) -> None:
    run_core(project, as_of)
    with warehouse_of(project) as con:
        build_audiences(con, load_config(project.rules), project.data)


def stays_of(project: Project) -> list[tuple[Any, ...]]:
    """(e-mail address, day of entry, day of exit)"""
    with warehouse_of(project) as con:
        mail = "(select any_value(value) from profiles.identifiers i where i.profile_id = m.profile_id and namespace = 'email')"
        found = rows(con, f"select {mail}, entered_at, exited_at from audiences.membership m order by 1, 2")
    return [(who, (entered - day(0)).days, left and (left - day(0)).days) for who, entered, left in found]


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("audience", "key", "name"),
    [
        ({"where": "last_event_at > now() - interval 1 day"}, "where", "now"),
        ({"event": "x", "where": "occurred_at > Current_Timestamp"}, "where", "Current_Timestamp"),
        ({"all": [{"not": {"where": "random() > 0.5"}}]}, "all.0.not.where", "random"),
        (
            {"sequence": [{"event": "x"}, {"event": "y", "where": "today() > date '2026-01-01'"}]},
            "sequence.1.where",
            "today",
        ),
    ],
)
def test_conditions_do_not_ask_the_computer_what_time_it_is(
    project: Projects, audience: dict[str, Any], key: str, name: str
) -> None:
    made = project({"crm": Projects.crm(), "web": Projects.web()})
    (made.rules / "audiences.yaml").write_text(
        json.dumps({"audiences": {"late": audience}}), encoding="utf-8"
    )
    with pytest.raises(RuleError) as found:
        load_config(made.rules)
    line = (
        f"audiences.yaml: audiences.late.{key}: `{name}` gives another value at another run;"
        " use the columns of the row, and as_of for the time"
    )
    assert found.value.problems == [line]


def test_conditions_over_events_may_name_the_as_of_time(con: DuckDBPyConnection) -> None:
    make_events(con, [("p", "x", day(0)), ("q", "x", day(-2))])
    run(con, 1, {"late": {"event": "x", "where": "occurred_at > as_of - interval 2 days"}}, ("p",), ("q",))
    assert members_of(con) == {"late": {"p"}}


# ---------------------------------------------------------------- only whom something happened to is asked again

DATES = st.integers(-2, 1)
LATER = st.tuples(st.integers(0, 5), st.sampled_from(["x", "y", "z"]), st.integers(0, 9))
BATCH = st.tuples(
    st.integers(0, 3), st.lists(LATER, max_size=2), st.lists(st.tuples(st.integers(0, 5), PERSON), max_size=1)
)
"""Hours that pass, events of the hours before, and profiles that are others then."""
WITH_DATES = st.one_of(
    st.just({"field": "since", "within_days": 1}),
    st.just({"field": "since", "within_days": 2}),
    st.just({"not": {"field": "since", "within_days": 1}}),
)


def empty_world(con: DuckDBPyConnection, people: list[tuple[Any, ...]]) -> None:
    con.execute(
        "create table profiles.unified (profile_id text, tier text, agreed boolean, since timestamptz)"
    )
    con.execute("create table raw.batches (batch integer, as_of timestamptz)")
    for number, (*person, days) in enumerate(people):
        con.execute("insert into profiles.unified values (?, ?, ?, ?)", [f"p{number}", *person, BEGIN + days * DAY])  # fmt: skip
    make_events(con, [])
    for table in ("profiles.unified", "profiles.events"):
        wholly(con, table, 0)


def goes_by(con: DuckDBPyConnection, number: int, now: datetime, batch: Any) -> None:
    """A batch, noted as the steps before audiences note it."""
    _, happened, changed = batch
    con.execute("insert into raw.batches values (?, ?)", [number, now])
    for who, (tier, agreed) in changed:
        con.execute("update profiles.unified set tier = ?, agreed = ? where profile_id = ?", [tier, agreed, f"p{who}"])  # fmt: skip
        touched.note(con, "audiences", f"select 'p{who}' as profile_id")
    for key, (who, kind, ago) in enumerate(happened):
        con.execute("insert into profiles.events values (?, ?, 'web', ?, 'web', ?, '{}')",
                    [f"p{who}", f"{number}:{key}", kind, now - timedelta(hours=ago)])  # fmt: skip
        touched.note_events(con, f"select 'p{who}' as profile_id")
    mark_built(con, "profiles.events", str(number), {"full": "profiles.events 0"})


PEOPLE = st.lists(st.tuples(TIER, AGREED, DATES), min_size=6, max_size=6)
BATCHES = st.lists(BATCH, min_size=3, max_size=6)
EVERY_EDGE: dict[str, Any] = {
    "lately": {"event": "x", "within": "3 hours", "at_least": 2},
    "quiet": {"event": "y", "not_for": "8 hours"},
    "left": {"sequence": [{"event": "x"}, {"event": "y", "absent": True, "within": "4 hours"}]},
    "all_lately": {"sequence": [{"event": "z"}, {"event": "any"}], "within": "6 hours"},
    "dated": {"field": "since", "within_days": 1},
    "gold": {"field": "tier", "is": "gold", "consent": "agreed"},
}


def test_members_kept_up_to_date_are_those_of_asking_everybody() -> None:
    draw = random.Random(5)
    people = [
        (draw.choice([None, "gold"]), draw.choice([None, True]), draw.randint(-2, 1)) for _ in range(80)
    ]
    batches = [
        (
            draw.randint(0, 2),
            # some are still to come: a clock that is fast
            [(draw.randrange(80), draw.choice("xyz"), draw.randint(-3, 9)) for _ in range(12)],
            [(draw.randrange(80), (draw.choice([None, "gold"]), True)) for _ in range(2)],
        )
        for _ in range(14)
    ]
    check_kept(EVERY_EDGE, people, batches)


@pytest.mark.long
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rule_sets(), WITH_DATES, PEOPLE, BATCHES)
def test_members_by_any_rules_kept_up_to_date_are_those_of_asking_everybody(
    rules: dict[str, Any], dated: dict[str, Any], people: list[tuple[Any, ...]], batches: list[Any]
) -> None:
    check_kept(rules | {"dated": dated}, people, batches)


def check_kept(rules: dict[str, Any], people: list[tuple[Any, ...]], batches: list[Any]) -> None:
    kinds = {"tier": "text", "agreed": "consent", "since": "timestamp"}
    config, now = config_of(kinds, {"golden": {}}, audiences=rules), BEGIN
    with warehouse() as con:
        empty_world(con, people)
        for number, batch in enumerate(batches):
            now += timedelta(hours=batch[0])
            goes_by(con, number, now, batch)
            build_audiences(con, config)
            kept = {(name, who) for name, found in members_of(con).items() for who in found}
            evaluate(con, config, "temp.everybody")
            assert kept == set(rows(con, "from temp.everybody"))


def test_only_those_are_asked_whom_something_happened_to(
    con: DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def spy(con: DuckDBPyConnection, config: Config, into: str, only: str = "") -> None:
        asked.append([who for (who,) in rows(con, f"from {only} order by 1")] if only else ["everybody"])
        write_members(con, config, into, only)

    monkeypatch.setattr(build, "write_members", spy)
    rules = {"lately": {"event": "x", "within": "2 hours"}, "quiet": {"event": "y", "not_for": "5 hours"}}
    config = config_of(TIERS, {"golden": {}}, audiences=rules)
    con.executemany("insert into profiles.unified (profile_id) values (?)", [(f"p{n}",) for n in range(5)])
    make_events(
        con,
        [("p0", "x", at_hour(1)), ("p1", "y", at_hour(3)), ("p2", "x", at_hour(4)), ("p3", "z", at_hour(1))],
    )
    for table in ("profiles.unified", "profiles.events"):
        wholly(con, table, 0)
    for number, hour in enumerate((0, 1, 2)):
        goes_by(con, number, BEGIN + timedelta(hours=hour), (0, [(4, "z", 0)] if number == 1 else [], []))
        build_audiences(con, config)
    assert asked == [["everybody"], ["p0", "p4"], ["p1"]]
    assert members_of(con) == {"quiet": {"p1"}}


@pytest.mark.parametrize(
    "where", ["as_of > timestamptz '2026-04-01 02:00:00Z'", "points >= (select max(points) from profiles.unified)",
              "rank() over (order by points desc) = 1"],
)  # fmt: skip
def test_conditions_that_may_turn_for_anybody_are_asked_of_everybody(
    con: DuckDBPyConnection, where: str
) -> None:
    config = config_of(TIERS, {"golden": {}}, audiences={"odd": {"where": where}})
    con.execute("insert into profiles.unified values ('p', null, null, 1)")
    wholly(con, "profiles.unified", 0)
    goes_by(con, 0, BEGIN, (0, [], []))
    build_audiences(con, config)
    con.execute("insert into profiles.unified values ('q', null, null, 5)")
    con.execute("update profiles.unified set points = 0 where profile_id = 'p'")
    touched.note(con, "audiences", "select 'q' as profile_id")
    goes_by(con, 1, BEGIN + DAY, (0, [], []))
    build_audiences(con, config)
    evaluate(con, config, "temp.everybody")
    assert {("odd", who) for who in members_of(con)["odd"]} == set(rows(con, "from temp.everybody"))


@pytest.mark.parametrize("within", ["1 month", "3 months", "1 year", "6 weeks", "2 hours"])
def test_the_time_to_wait_runs_out_for_the_same_events_as_without_the_shortcut(within: str) -> None:
    """Every day of four years as event, ends of months and a leap day among the days on which the time is up."""
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(
            "create table events as select timestamptz '2023-01-01' + to_hours(6 * n::integer) as occurred_at from range(5844) t(n)"
        )
        for as_of in (
            datetime(2024, month, last, 12, tzinfo=UTC) for month in range(1, 13) for last in (1, 28, 29)
        ):
            before = as_of - timedelta(days=2)
            sum_of = f"occurred_at + interval '{within}'"
            exact = f"{sum_of} > {moment(before)} and {sum_of} <= {moment(as_of)}"
            found = [
                scalar(con, f"select list(occurred_at order by 1) from events where {w}")
                for w in (exact, time_is_up(within, before, as_of))
            ]
            assert found[0] == found[1]
            assert found[0]
