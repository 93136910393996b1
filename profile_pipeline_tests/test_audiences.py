"""Audiences: the demo's and random ones against plain Python; consent, entry and exit, delivered lists."""

import json
import random
from collections import defaultdict
from collections.abc import Generator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_pipeline.audiences import build_audiences, sizes
from profile_pipeline.config.load import RuleError, load_config
from profile_pipeline.errors import PipelineError
from profile_pipeline.profile_ids import TABLES as LEDGER
from profile_pipeline.warehouse import rows, scalar
from profile_pipeline_tests.conftest import Projects
from profile_pipeline_tests.hand_made import BEGIN, DAY, config_of, day, touch, warehouse
from profile_pipeline_tests.worlds import DEMO_RULES

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
    touch(con, "profiles.unified")
    build_audiences(con, config_of(TIERS, {"golden": {}}, audiences=audiences))


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
        con.execute("insert into profiles.events values (?, ?, 'web', ?, 'web', ?, ?)",
                    [who, str(number), kind, at, json.dumps(payload)])  # fmt: skip


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
        for n in range(200)
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
    half_year, year = datetime(2025, 10, 1, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC)
    for who, person in people.items():
        mine = [(kind, at, totals[n]) for n, (w, kind, at) in enumerate(events) if w == who and at <= BEGIN]
        times = {kind: [at for k, at, _ in mine if k == kind] for kind in KINDS_OF_DEMO}
        consent, tier = person["marketing_consent"] is True, person["loyalty_tier"]
        orders, stores = times["order"], times["store_purchase"]
        bought = orders + stores
        lapsed = consent and tier in {"silver", "gold"} and bool(bought) and max(bought) <= half_year
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
        }
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
        for who, person in people.items():
            con.execute("insert into profiles.unified values (?, ?, ?, ?, ?, ?, ?)", [who, *person.values()])
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


PERSON = st.tuples(st.sampled_from([None, "gold", "silver"]), st.sampled_from([None, True, False]))
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
