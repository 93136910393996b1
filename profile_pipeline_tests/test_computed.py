"""Computed attributes: the demo's against plain Python, incremental against full, and mistakes in their rules."""

import json
import random
import statistics
from collections import Counter
from collections.abc import Generator, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from profile_pipeline import quality
from profile_pipeline.cli import app
from profile_pipeline.computed import build, preview
from profile_pipeline.computed.build import build_computed
from profile_pipeline.config.load import Config, RuleError, load_config
from profile_pipeline.errors import PipelineError
from profile_pipeline.profile_ids import TABLES as LEDGER
from profile_pipeline.profiles import touched
from profile_pipeline.records.normalise import value_type
from profile_pipeline.warehouse import mark_built, records_of, rows
from profile_pipeline_tests.conftest import Projects, validate_in_sql
from profile_pipeline_tests.hand_made import BEGIN, DAY, config_of, touch, warehouse
from profile_pipeline_tests.worlds import DEMO_RULES, LINKED, Row, deliver, write_rules
from profile_pipeline_tests.worlds import run_core as run_project

Event = dict[str, Any]
Seen = dict[str, dict[str, Any]]
PEOPLE = ("p1", "p2", "p3", "p4", "p5", "p6", "nobody")


@pytest.fixture(scope="module")
def demo() -> Config:
    return load_config(DEMO_RULES)


@pytest.fixture
def con(demo: Config) -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        prepare(opened, demo)
        yield opened


def prepare(con: DuckDBPyConnection, config: Config) -> None:
    """Profiles and records, no events yet. `nobody` has neither."""
    fields = {name: value_type(a) for name, a in config.attributes.items()}
    listed = "".join(f", {name} {kind}" for name, kind in fields.items())
    con.execute(LEDGER)
    con.execute("create table raw.batches (batch integer, as_of timestamptz)")
    con.execute("create table profiles.events (profile_id text, event_key text, source text, event_type text, channel text,"
                " occurred_at timestamptz, payload json)")  # fmt: skip
    con.execute(f"create table profiles.unified (profile_id text{listed})")
    con.execute("create table records.current (record_key text, source text, source_key text, observed_at timestamptz,"
                f" ingested_at timestamptz{listed})")  # fmt: skip
    for number, person in enumerate(PEOPLE):
        con.execute("insert into profiles.unified (profile_id) values (?)", [person])
        if number % 2 == 0 and "loyalty_tier" in fields:
            con.execute("update profiles.unified set loyalty_tier = 'gold' where profile_id = ?", [person])
        for key in range(number % 3):
            record = f"{'crm' if key else 'loyalty'}:{number}"
            con.execute(
                "insert into identity.membership values (?, ?, 1, null, 'new', hash(?))",
                [record, person, record],
            )
            con.execute("insert into records.current by name select ? as record_key, ? as source, ? as observed_at",
                        [record, record.split(":")[0], BEGIN - number * DAY])  # fmt: skip
    touch(con, "profiles.unified", "records.current")


def arrive(con: DuckDBPyConnection, events: Iterable[Event], as_of: datetime) -> None:
    """A batch: events come, and their profiles are noted as the timeline notes them."""
    con.execute("insert into raw.batches values ((select count(*) + 1 from raw.batches), ?)", [as_of])
    for e in events:
        con.execute("insert into profiles.events values (?, ?, ?, ?, ?, ?, ?)",
                    [e["who"], e["key"], e["source"], e["type"], e["channel"], e["at"], json.dumps(e["payload"])])  # fmt: skip
        touched.note_events(con, f"select '{e['who']}' as profile_id")
    mark_built(con, "profiles.events", str(as_of), {"full": "once"})


def computed(con: DuckDBPyConnection) -> Seen:
    return {row.pop("profile_id"): row for row in records_of(con, "from profiles.computed")}


def events_of(seed: int, number: int, start: datetime = BEGIN - 400 * DAY, days: int = 400) -> list[Event]:
    draw = random.Random(seed)
    return [
        _event(draw, f"{seed}:{n}", start + timedelta(minutes=draw.randrange(days * 1440) // 90 * 90))
        for n in range(number)
    ]


def _event(draw: random.Random, key: str, at: datetime) -> Event:
    kind = draw.choice(["order", "store_purchase", "add_to_cart", "product_view"])
    pence = draw.choice([1999, 2650, 17095, 5])
    payloads = {
        "order": {"total": draw.choice([pence / 100, None, "odd"])},
        "store_purchase": {"amount": f"{pence / 100:.2f}".replace(".", ",")},
    }
    page = {"page": draw.choice(["/p/LL-1", "/p/LL-2", "/p/LL-3", "/home"])}
    source = {"order": "shop", "store_purchase": "store"}.get(kind, "web")
    channel = "store" if source == "store" else draw.choice(["web", "app", None])
    return {"who": draw.choice(PEOPLE[:-1]), "key": f"{source}:{key}", "source": source, "type": kind, "channel": channel,
            "at": at, "payload": payloads.get(kind, page)}  # fmt: skip


# ---------------------------------------------------------------- the demo's attributes in plain Python


def amount(e: Event) -> Decimal | None:
    text = {
        "order": e["payload"].get("total"),
        "store_purchase": str(e["payload"].get("amount")).replace(",", "."),
    }[e["type"]]
    return None if text in {None, "odd"} else Decimal(str(text))


def product(e: Event) -> str | None:
    page = e["payload"].get("page") or ""
    return page.removeprefix("/p/") if page.startswith("/p/") else None


def most(values: list[str]) -> str | None:
    counted = Counter(values)
    return min(counted, key=lambda v: (-counted[v], v)) if counted else None


def days_since(as_of: datetime, times: list[datetime]) -> int | None:
    return (as_of - max(times)) // DAY if times else None


def fifth(value: Any, among: list[Any]) -> int:
    return 1 + 5 * sum(other < value for other in among) // len(among)


def by_hand(con: DuckDBPyConnection, events: list[Event], as_of: datetime) -> Seen:
    found = {who: _one(con, sorted((e for e in events if e["who"] == who), key=lambda e: (e["at"], e["key"])), as_of, who)
             for who in PEOPLE}  # fmt: skip
    scored = {who: row.pop("_rfm") for who, row in found.items()}
    known = [each for each in scored.values() if each]
    for who, row in found.items():
        mine = scored[who]
        row["rfm"] = mine and "".join(str(fifth(m, [k[i] for k in known])) for i, m in enumerate(mine))
    return found


def _one(con: DuckDBPyConnection, events: list[Event], as_of: datetime, who: str) -> dict[str, Any]:
    def within(days: int, among: list[Event]) -> list[Event]:
        return [e for e in among if e["at"] > as_of - days * DAY]

    bought = [e for e in events if e["source"] != "web"]
    year = within(365, bought)
    paid = [a for e in bought if (a := amount(e)) is not None]
    products = [p for e in events if e["source"] == "web" and (p := product(e))]
    channels = [e["channel"] for e in events if e["channel"]]
    cart = [e["at"] for e in events if e["type"] == "add_to_cart"]
    revenue = float(sum((amount(e) or 0 for e in year), Decimal(0)))
    average = float(sum(paid)) / len(paid) if paid else None
    records = rows(con, "select source, observed_at from records.current r join identity.membership m using (record_key)"
                   " where profile_id = ? and observed_at <= ?", [who, as_of])  # fmt: skip
    gold = rows(con, "select loyalty_tier from profiles.unified where profile_id = ?", [who])[0][0]
    loyal = [None if gold is None else gold == "gold", None if average is None else revenue > 2 * average]
    return {
        "orders_90d": len(within(90, bought)),
        "revenue_365d": revenue,
        "average_basket": average,
        "median_basket": float(statistics.median(map(float, paid))) if paid else None,
        "largest_basket": float(max(paid)) if paid else None,
        "first_order_at": min((e["at"] for e in bought), default=None),
        "days_since_order": days_since(as_of, [e["at"] for e in bought]),
        "days_since_seen": days_since(as_of, [e["at"] for e in events]),
        "last_channel": channels[-1] if channels else None,
        "favourite_channel": most([e["channel"] for e in within(365, events) if e["channel"]]),
        "favourite_product": most(products),
        "last_products": products[::-1][:5] or None,
        "channels_used": sorted(set(channels)) or None,
        "products_seen": len({p for e in within(30, events) if (p := product(e))}),
        "online_share": sum(e["type"] == "order" for e in bought) / len(bought) if bought else None,
        "last_cart_at": max(cart, default=None),
        "last_order_at": max((e["at"] for e in bought), default=None),
        "cart_left": bool(cart) and (not bought or max(cart) > max(e["at"] for e in bought)),
        "spread_of_baskets": float(statistics.stdev(paid)) if len(paid) > 1 else None,
        "card_sources": len({source for source, _ in records}),
        "newest_record_at": max((at for _, at in records), default=None),
        "loyal_spender": False if False in loyal else None if None in loyal else True,
        "_rfm": (max(e["at"] for e in year), len(year), sum((amount(e) or 0 for e in year), Decimal(0))) if year else None,
    }  # fmt: skip


def assert_equal(found: Seen, expected: Seen) -> None:
    assert set(found) == set(expected)
    for who, row in expected.items():
        assert set(row) == set(found[who])
        for name, value in row.items():
            wanted = pytest.approx(value, abs=2e-6) if isinstance(value, float) else value
            assert found[who][name] == wanted, (who, name)


@pytest.mark.parametrize("at_once", [2, 100_000])
def test_every_attribute_of_the_demo_is_what_plain_python_finds(
    con: DuckDBPyConnection, demo: Config, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(build, "PROFILES_AT_ONCE", at_once)
    events = events_of(1, 150)
    arrive(con, events, BEGIN)
    build_computed(con, demo)
    assert len(demo.computed.attributes) >= 10
    assert_equal(computed(con), by_hand(con, events, BEGIN))


def test_a_window_ends_exactly_where_it_says(con: DuckDBPyConnection, demo: Config) -> None:
    order = _event(random.Random(1), "x", BEGIN) | {
        "who": "p1",
        "type": "order",
        "source": "shop",
        "payload": {"total": 5},
    }
    arrive(con, [order | {"at": BEGIN - 90 * DAY}], BEGIN - timedelta(microseconds=1))
    build_computed(con, demo)
    assert computed(con)["p1"]["orders_90d"] == 1
    arrive(con, [], BEGIN)
    build_computed(con, demo)
    assert computed(con)["p1"]["orders_90d"] == 0, "nobody's events changed, the window moved past the order"


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 200)), min_size=1, max_size=4),
)
def test_what_is_brought_up_to_date_is_what_a_full_build_gives(
    demo: Config, seed: int, steps: list[tuple[int, int]]
) -> None:
    with warehouse() as con:
        prepare(con, demo)
        as_of, events = BEGIN, events_of(seed, 60)
        arrive(con, events, as_of)
        build_computed(con, demo)
        for number, (new, days) in enumerate(steps):
            as_of += timedelta(days=days, minutes=7)
            come = events_of(seed + number + 1, new, as_of - 200 * DAY, 200)
            events += come
            arrive(con, come, as_of)
            build_computed(con, demo)
        assert_equal(computed(con), by_hand(con, events, as_of))
        updated = rows(con, "from profiles.computed order by profile_id")
        con.execute("delete from state.built where name = 'profiles.computed'")
        build_computed(con, demo)
        assert rows(con, "from profiles.computed order by profile_id") == updated


def test_audiences_are_told_of_profiles_that_only_the_clock_moved(
    con: DuckDBPyConnection, demo: Config
) -> None:
    arrive(con, events_of(3, 40), BEGIN)
    build_computed(con, demo)
    touched.forget(con, "audiences")
    arrive(con, [], BEGIN + DAY)
    build_computed(con, demo)
    noted = {who for (who,) in rows(con, touched.noted_query("audiences"))}
    assert noted == {who for who, row in computed(con).items() if row["days_since_seen"] is not None}
    assert rows(con, touched.noted_query("computed")) == []


def test_without_a_clock_only_touched_profiles_are_read(
    con: DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of({}, {"golden": {}}, computed={"attributes": {"seen": {"compute": "count"}}})
    arrive(con, events_of(4, 40), BEGIN)
    build_computed(con, config)
    con.execute("update profiles.events set profile_id = 'p2' where profile_id = 'p1'")
    touched.note(con, "computed", "select 'p3' as profile_id")
    touch(con, "profiles.unified")
    build_computed(con, config)
    assert computed(con)["p1"]["seen"] > 0, "nobody said that p1 changed"


def test_expressions_over_the_time_and_what_is_made_of_them_move_with_it(con: DuckDBPyConnection) -> None:
    attributes = {
        "last_at": {"compute": "max", "value": "occurred_at", "type": "timestamp"},
        "fresh": {"expression": "last_at > as_of - interval 3 days", "type": "boolean"},
        "mark": {"expression": "if(fresh, 'fresh', 'stale')", "type": "text"},
    }
    config = config_of({}, {"golden": {}}, computed={"attributes": attributes})
    arrive(con, [_event(random.Random(1), "x", BEGIN - DAY) | {"who": "p1"}], BEGIN)
    build_computed(con, config)
    assert computed(con)["p1"]["mark"] == "fresh"
    arrive(con, [], BEGIN + 2 * DAY)
    build_computed(con, config)
    assert computed(con)["p1"] == {"last_at": BEGIN - DAY, "fresh": False, "mark": "stale"}


def test_a_score_moves_when_others_do(con: DuckDBPyConnection) -> None:
    config = config_of({}, {"golden": {}}, computed={"attributes": {"rfm": {"compute": "rfm", "value": "1"}}})
    draw = random.Random(1)
    arrive(con, [_event(draw, f"{n}", BEGIN - n * DAY) | {"who": f"p{n}"} for n in (1, 2)], BEGIN)
    build_computed(con, config)
    assert {who: row["rfm"] for who, row in computed(con).items() if row["rfm"]} == {"p1": "311", "p2": "111"}
    arrive(con, [_event(draw, "new", BEGIN - 3 * DAY) | {"who": "p3"}], BEGIN + timedelta(minutes=1))
    build_computed(con, config)
    assert {who: row["rfm"] for who, row in computed(con).items() if row["rfm"]} == {
        "p1": "411", "p2": "211", "p3": "111"}  # fmt: skip


def test_a_batch_taken_back_takes_the_clock_back(con: DuckDBPyConnection, demo: Config) -> None:
    events = events_of(5, 40)
    arrive(con, events, BEGIN)
    build_computed(con, demo)
    arrive(con, [], BEGIN + 100 * DAY)
    build_computed(con, demo)
    con.execute("delete from raw.batches where batch = 2")
    build_computed(con, demo)
    assert_equal(computed(con), by_hand(con, events, BEGIN))
    assert build.clock(con) == BEGIN


# ---------------------------------------------------------------- tried before a run, and told in words


def test_a_trial_tells_who_has_a_value_and_what_the_next_run_changes(
    con: DuckDBPyConnection, demo: Config
) -> None:
    events = events_of(6, 120)
    arrive(con, events, BEGIN)
    build_computed(con, demo)
    tables = ("profiles.computed", "profiles.computed_events", "profiles.computed_records")
    before = [rows(con, f"from {table} order by all") for table in tables]
    shorter = demo.computed.attributes["orders_90d"].model_copy(update={"within": "300 days"})
    attributes = demo.computed.attributes | {"orders_90d": shorter}
    tried = demo.model_copy(update={"computed": demo.computed.model_copy(update={"attributes": attributes})})

    def orders(days: int) -> list[int]:
        return [sum(e["who"] == who and e["source"] != "web" and e["at"] > BEGIN - days * DAY for e in events)
                for who in PEOPLE]  # fmt: skip

    found = preview.preview(con, tried, "orders_90d", 100)
    assert (found.profiles, found.with_value, found.as_of) == (len(PEOPLE), len(PEOPLE), BEGIN)
    assert found.changed == sum(a != b for a, b in zip(orders(90), orders(300), strict=True)) > 0
    assert (found.spread["smallest"], found.spread["largest"]) == (min(orders(300)), max(orders(300)))
    shown = {e["profile_id"]: (e["value"], e["last_run"]) for e in found.examples}
    assert shown == dict(zip(PEOPLE, zip(orders(300), orders(90), strict=True), strict=True))
    assert [rows(con, f"from {table} order by all") for table in tables] == before, "a trial writes nothing"


def test_a_trial_of_an_attribute_made_of_others_needs_no_run_with_it(
    con: DuckDBPyConnection, demo: Config
) -> None:
    events = events_of(7, 80)
    arrive(con, events, BEGIN)
    expected = by_hand(con, events, BEGIN)
    for name in ("cart_left", "channels_used", "rfm"):
        found = preview.preview(con, demo, name, 0)
        values = [row[name] for row in expected.values() if row[name] is not None]
        assert (found.with_value, found.changed, found.examples) == (len(values), len(values), ())
        each = [v for value in values for v in (value if isinstance(value, list) else [value])]
        assert found.common == {
            str(v).lower() if isinstance(v, bool) else v: n for v, n in Counter(each).items()
        }


@pytest.mark.parametrize(
    ("rule", "where_to_look"),
    [
        ({"compute": "sum", "value": "payload ->> '$.basket.total'"}, "`value:`; a path is written payload ->> '$.a.b'"),
        ({"compute": "last", "value": "payload ->> '$.x'"}, "`value:`; a path"),
        ({"compute": "distinct", "value": "payload ->> '$.x'", "within": "9 days"}, "`value:` and `within:`; a path"),
        ({"compute": "count", "where": "event_type = 'never'"}, "`where:`"),
        ({"compute": "recency", "sources": ["web"], "where": "false"}, "`where:` and `sources:`"),
        ({"aggregate": "max(payload ->> '$.x')", "type": "text"}, "`aggregate:`; a path"),
        ({"expression": "nothing || 'x'", "type": "text"}, "`expression:`"),
        ({"compute": "rfm", "value": "1", "where": "false"}, "`value:` and `where:`"),
    ],
)  # fmt: skip
def test_a_trial_says_when_no_row_gives_a_value(
    con: DuckDBPyConnection, rule: dict[str, Any], where_to_look: str
) -> None:
    attributes = {
        "nothing": {"compute": "last", "value": "null::text"},
        "seen": {"compute": "count"},
        "tried": rule,
    }
    config = config_of({}, {"golden": {}}, computed={"attributes": attributes})
    arrive(con, events_of(6, 40), BEGIN)
    warning = preview.preview(con, config, "tried", 0).warning
    what = "profile has" if "expression" in rule else "row gives"
    assert warning.startswith(f"no {what} a value: look at {where_to_look}"), warning
    assert preview.preview(con, config, "seen", 0).warning == ""


def test_commands_list_and_try_computed_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "validate", validate_in_sql)
    made = write_rules(tmp_path, LINKED)
    attributes = {"visits": {"compute": "count", "where": "event_type = 'view'", "within": "60 days",
                             "description": "Pages looked at."}}  # fmt: skip
    write(made.rules, attributes)
    views = [Row("visit", (("id", f"v{n}"), ("moment", "2026-03-01T10:00:00Z"), ("cookie", cookie), ("type", "view")))
             for n, cookie in enumerate(["k1", "k1", "k2"])]  # fmt: skip
    deliver(made, views, "1")
    assert asked(tmp_path, "list")[0]["profiles_with_value"] is None, "no run yet"
    run_project(made)
    write(made.rules, attributes | {"last": {"compute": "last", "value": "upper(event_type)"}})
    listed = asked(tmp_path, "list")
    assert [(a["attribute"], a["type"], a["profiles_with_value"]) for a in listed] == [
        ("visits", "bigint", 2), ("last", "text", None),
    ]  # fmt: skip
    assert listed[0]["is"] == "how many events where event_type = 'view' of the last 60 days"
    assert asked(tmp_path, "preview", "visits")["spread"] == {
        "smallest": 1, "a quarter below": 1, "half below": 1, "three quarters below": 2, "largest": 2,
    }  # fmt: skip
    found = asked(tmp_path, "preview", "last")
    assert (found["common"], found["changed"]) == ({"VIEW": 2}, 2)
    told = CliRunner().invoke(app, ["computed", "preview", "visits", "--project", str(tmp_path)])
    assert "Pages looked at." in told.stdout
    assert "no row gives a value" not in told.stdout
    write(made.rules, {"visits": attributes["visits"] | {"where": "event_type = 'vjew'"}})
    told = CliRunner().invoke(app, ["computed", "preview", "visits", "--project", str(tmp_path)])
    assert "warning: no row gives a value: look at `where:` and `within:`" in " ".join(told.stdout.split())
    wrong = CliRunner().invoke(app, ["computed", "preview", "visit", "--project", str(tmp_path)])
    assert (wrong.exit_code, " ".join(wrong.stderr.split())) == (
        1, "error: computed.yaml: unknown computed attribute `visit`; did you mean `visits`?",
    )  # fmt: skip


def asked(folder: Path, *arguments: str) -> Any:
    found = CliRunner().invoke(app, ["computed", *arguments, "--project", str(folder), "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


# ---------------------------------------------------------------- mistakes


def test_an_aggregate_that_fails_on_the_data_names_the_attribute_and_no_value(
    con: DuckDBPyConnection,
) -> None:
    counted = {"compute": "count"}
    total = "max((payload ->> '$.total')::integer)"
    attributes = {
        "seen": counted,
        "dearest": {"aggregate": total, "type": "integer", "where": "event_type = 'order'"},
    }
    config = config_of({}, {"golden": {}}, computed={"attributes": attributes})
    arrive(con, [_event(random.Random(n), str(n), BEGIN) for n in range(20)], BEGIN)
    con.execute(
        "update profiles.events set payload = '{\"total\": \"4711 or so\"}' where event_type = 'order'"
    )
    for work in (build_computed, lambda con, config: preview.preview(con, config, "dearest", 3)):
        with pytest.raises(PipelineError) as problem:
            work(con, config)
        text = str(problem.value)
        assert text.startswith("computed.yaml: attributes.dearest.aggregate: does not work: ")
        assert text.endswith("; use try_cast in it")
        assert "4711" not in text
        assert "\n" not in text
    assert rows(con, "select count(*) from state.built where name = 'profiles.computed'") == [(0,)]


MISTAKES = {
    "a circle": ({"a": {"expression": "b + 1", "type": "integer"}, "b": {"expression": "a + 1", "type": "integer"}},
                 "attributes.a: needs itself: a -> b -> a; take one of these out of the circle"),
    "a column": ({"a": {"compute": "count", "where": "event_typ = 'x'"}},
                 "attributes.a.where: unknown column `event_typ`; did you mean `event_type`?"),
    "an attribute": ({"a": {"compute": "count"}, "b": {"expression": "aa + 1", "type": "integer"}},
                     "attributes.b.expression: unknown column `aa`; did you mean `a`?"),
    "an aggregate in a filter": ({"a": {"compute": "count", "where": "count(*) > 1"}},
                                 "attributes.a.where: `count_star` looks at or makes many rows; use the columns of the row only"),
    "no condition": ({"a": {"compute": "count", "where": "channel"}},
                     "attributes.a.where: must be true or false, not varchar; compare it with something"),
    "a source": ({"a": {"compute": "count", "sources": ["wep"]}},
                 "attributes.a.sources: unknown source of events `wep`; did you mean `web`?"),
    "a source in words": ({"a": {"compute": "count", "where": "source = 'wep'"}},
                          "attributes.a.where: unknown source of events `wep`; did you mean `web`?"),
    "a field": ({"email": {"compute": "count"}}, "attributes.email: is a column that is there already; write `computed_email`"),
    "order of rows": ({"a": {"aggregate": "any_value(channel)", "type": "text"}},
                      "attributes.a.aggregate: `any_value` depends on the order of rows; use `compute: first`, `last`,"
                      " `last_values` or `most_frequent`"),
    "no aggregate": ({"a": {"aggregate": "1 + 1", "type": "integer"}},
                     "attributes.a.aggregate: looks at no rows; write an aggregate such as sum(amount), or use `expression:`"),
    "no value": ({"a": {"compute": "sum"}}, "attributes.a: `sum` needs `value:`, an expression over a row"),
    "another's key": ({"a": {"compute": "count", "n": 3}}, "attributes.a: `n:` is for `compute: last_values`; remove it"),
    "the clock": ({"a": {"expression": "now()", "type": "timestamp"}},
                  "attributes.a.expression: `now` gives another value at another run; use the columns of the row only"),
    "too long": ({"a": {"compute": "count", "within": "3 months"}},
                 "attributes.a.within: 3 months is longer than the 60 days that events of `web` are kept; shorten it, or name"
                 " other `sources:`"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_file_key_and_fix(project: Projects, name: str) -> None:
    attributes, line = MISTAKES[name]
    made = project({"crm": Projects.crm(), "web": Projects.web(retention="60 days")})
    write(made.rules, attributes)
    with pytest.raises(RuleError) as found:
        load_config(made.rules)
    assert found.value.problems == [f"computed.yaml: {line}"]


def write(folder: Path, attributes: dict[str, Any]) -> None:
    (folder / "computed.yaml").write_text(json.dumps({"attributes": attributes}), encoding="utf-8")
