"""The timeline: every event once, with its person, however deliveries, merges, splits and reverts interleave."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_pipeline import metrics, quality, runs
from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import Project
from profile_pipeline.records import retention
from profile_pipeline.runs import forget_derived
from profile_pipeline.warehouse import last_full, rows, scalar
from profile_pipeline_tests.conftest import validate_in_sql
from profile_pipeline_tests.worlds import (
    LINKED,
    Row,
    deliver,
    moments,
    resolve,
    take_in,
    temporary_project,
    unify,
    warehouse_of,
)

AS_OF = datetime(2026, 4, 1, tzinfo=UTC)
DERIVED = (
    "records.events", "records.event_subjects", "records.expired_events", "identity.subject_identifiers", "identity.nodes",
    "identity.expired", "profiles.events", "profiles.identifiers", "profiles.unified", "metrics.row_fates",
)  # fmt: skip
PEOPLE = ["a@x.org", "b@x.org", "c@x.org"]


@st.composite
def visits(draw: st.DrawFn) -> Row:
    """Few people, cookies, moments and ids: repeated deliveries, that may say something else, are likely."""
    values = {
        "id": f"v{draw(st.integers(0, 12))}",
        "moment": draw(moments()),
        "cookie": draw(st.sampled_from(["", "k1", "k2"])),
        "email": draw(st.sampled_from(["", "", *PEOPLE])),
        "first": draw(st.sampled_from(["", "Ann"])),
        "type": draw(st.sampled_from(["view", "order"])),
    }
    return Row("visit", tuple(values.items()))


@st.composite
def customers(draw: st.DrawFn) -> Row:
    """Records that come, go and bring addresses together: people merge and split."""
    values = dict.fromkeys(["first", "last", "born", "phone", "street", "city", "segment"], "") | {
        "id": f"c{draw(st.integers(0, 2))}",
        "email": draw(st.sampled_from(PEOPLE)),
        "status": draw(st.sampled_from(["active", "active", "deleted"])),
        "moment": draw(moments()),
    }
    return Row("crm", tuple(values.items()))


@st.composite
def cards(draw: st.DrawFn) -> Row:
    values = {"number": f"n{draw(st.integers(0, 1))}", "crm_id": f"c{draw(st.integers(0, 2))}",
              "email": draw(st.sampled_from(PEOPLE)), "moment": draw(moments())}  # fmt: skip
    return Row("card", tuple(values.items()))


BATCHES = st.lists(
    st.lists(st.one_of(visits(), visits(), visits(), customers(), cards()), min_size=1, max_size=8),
    min_size=2,
    max_size=5,
)


@contextmanager
def world(*, keep: str = "", expire: int = 0) -> Iterator[Project]:
    """A project that keeps its visits for a time, or whose pseudonymous profiles expire."""
    with temporary_project(LINKED) as project:
        for name, old, new in [
            ("sources", "    kind: event\n", f"    kind: event\n    retention: {keep}\n"),
            ("identity", "namespaces:\n", f"pseudonymous_expire_days: {expire}\nnamespaces:\n"),
        ]:
            path = project.rules / f"{name}.yaml"
            if {"sources": keep, "identity": expire}[name]:
                path.write_text(path.read_text().replace(old, new))
        yield project


def run(con: DuckDBPyConnection, config: Config, project: Project, as_of: datetime) -> None:
    take_in(con, config, project, as_of)
    resolve(con, config)
    unify(con, config)


def contents(con: DuckDBPyConnection) -> dict[str, list[Any]]:
    found = {}
    for table in DERIVED:
        found[table] = rows(con, f"select * from {table} order by all")
    return found


def assert_like_a_rebuild(con: DuckDBPyConnection, config: Config, project: Project, as_of: datetime) -> None:
    found = contents(con)
    forget_derived(con)
    run(con, config, project, as_of)
    again = contents(con)
    for table in DERIVED:
        assert found[table] == again[table], table


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(batches=BATCHES, keep=st.sampled_from(["", "29 days"]), seed=st.integers(0, 9))
def test_incremental_equals_a_rebuild_and_no_event_is_lost_or_doubled(
    batches: list[list[Row]], keep: str, seed: int
) -> None:
    chance = random.Random(seed)
    quick = mock.patch.object(quality, "validate", validate_in_sql)
    with quick, world(keep=keep) as project, warehouse_of(project) as con:
        config = load_config(project.rules)
        for number, batch in enumerate(batches):
            for part in (batch[::2], batch[1::2]):
                deliver(project, part, f"{number}_{len(part)}_{chance.random()}")
            as_of = AS_OF + timedelta(hours=7 * number)
            run(con, config, project, as_of)
            if number == 1:
                first = last_full(con, "profiles.events")
            assert_no_event_is_lost_or_doubled(con)
        assert last_full(con, "profiles.events") == first, "the timeline was built as a whole again"
        assert_like_a_rebuild(con, config, project, as_of)


def assert_no_event_is_lost_or_doubled(con: DuckDBPyConnection) -> None:
    accepted = "select distinct event_key from records.visit where reasons is null"
    kept = "select event_key from profiles.events union all select event_key from records.expired_events"
    assert rows(con, f"{accepted} order by 1") == rows(con, f"{kept} order by 1")
    deliveries = "select count(*) from records.visit where reasons is null"
    expired = (
        "select coalesce(count(*), 0) from records.visit semi join records.expired_events using (event_key)"
    )
    counted = scalar(con, "select coalesce(sum(deliveries), 0) from records.events")
    assert counted + scalar(con, expired) == scalar(con, deliveries)
    assert metrics.unbalanced(con) == []


# ---------------------------------------------------------------- named cases


def visit(number: int, moment: str, *, cookie: str = "", email: str = "") -> Row:
    return Row("visit", (("id", f"v{number}"), ("moment", moment), ("cookie", cookie), ("email", email), ("first", ""),
                         ("type", "view")))  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "validate", validate_in_sql)


TABLET = [
    visit(1, "2026-03-01T10:00:00Z", cookie="k1", email="a@x.org"),
    visit(2, "2026-03-01T10:05:00Z", cookie="k1"),
    visit(3, "2026-03-02T10:00:00Z", cookie="k1", email="b@x.org"),
    visit(4, "2026-03-02T10:05:00Z", cookie="k1"),
    visit(5, "2026-03-03T10:00:00Z", cookie="k1", email="a@x.org"),
    visit(6, "2026-03-03T10:05:00Z", cookie="k1"),
    visit(7, "2026-03-04T10:00:00Z", cookie="k1", email="b@x.org"),
    visit(8, "2026-03-20T10:00:00Z", cookie="k1"),
]


def owners(con: DuckDBPyConnection) -> dict[str, str]:
    """E-mail address of the profile of each event, or the cookie's value."""
    return dict(
        rows(
            con,
            """select event_id, string_agg(distinct i.value, '+') from profiles.events e join profiles.identifiers i
            using (profile_id) where i.namespace = 'email' or (i.namespace = 'cookie' and e.attribution = 'pseudonymous')
            group by 1""",
        )
    )


@pytest.mark.usefixtures("quick")
def test_two_people_who_alternate_on_one_tablet_each_keep_their_own_events() -> None:
    with world() as project, warehouse_of(project) as con:
        config = load_config(project.rules)
        for number, row in enumerate(TABLET):  # one by one: every login moves only what is near to it
            deliver(project, [row], str(number))
            run(con, config, project, AS_OF + timedelta(hours=number))
        ann, bob = "a@x.org", "b@x.org"
        assert owners(con) == {
            "v1": ann, "v2": ann, "v3": bob, "v4": bob, "v5": ann, "v6": ann, "v7": bob, "v8": "K1",
        }  # fmt: skip


@pytest.mark.usefixtures("quick")
def test_under_adobe_compat_all_anonymous_history_of_a_tablet_goes_to_the_last_one() -> None:
    with world() as project, warehouse_of(project) as con:
        path = project.rules / "identity.yaml"
        path.write_text("adobe_compat: true\n" + path.read_text())
        config = load_config(project.rules)
        deliver(project, TABLET[:6], "1")
        run(con, config, project, AS_OF)
        ann, bob = "a@x.org", "b@x.org"
        assert owners(con) == {"v1": ann, "v2": ann, "v3": bob, "v4": ann, "v5": ann, "v6": ann}
        deliver(project, TABLET[6:], "2")
        run(con, config, project, AS_OF + timedelta(hours=1))
        assert owners(con) == {
            "v1": ann, "v2": bob, "v3": bob, "v4": bob, "v5": ann, "v6": bob, "v7": bob, "v8": bob,
        }  # fmt: skip


@pytest.mark.usefixtures("quick")
def test_events_leave_the_timeline_when_their_source_keeps_them_no_more() -> None:
    with world(keep="30 days") as project, warehouse_of(project) as con:
        config = load_config(project.rules)
        deliver(project, [TABLET[0], TABLET[7]], "1")
        run(con, config, project, datetime(2026, 3, 25, tzinfo=UTC))
        held = "select event_id from profiles.events order by 1"
        assert rows(con, held) == [("v1",), ("v8",)]
        path = project.rules / "sources.yaml"
        path.write_text(path.read_text().replace("30 days", "3 days"))
        tried = load_config(project.rules)
        assert retention.preview(con, tried) == [
            {"source": "visit", "retention": "3 days", "events": 2, "would_leave": 2, "would_return": 0}
        ]
        assert rows(con, held) == [("v1",), ("v8",)], "a dry run changes nothing"
        deliver(project, [visit(9, "2026-04-05T00:00:00Z", cookie="k2")], "2")
        run(con, config, project, datetime(2026, 4, 6, tzinfo=UTC))
        assert rows(con, held) == [("v8",), ("v9",)]
        assert scalar(con, "select count(*) from raw.visit") == 3, "raw keeps what was delivered"
        fates = "select delivered, events, expired, superseded from metrics.row_fates order by batch"
        assert rows(con, fates) == [(2, 1, 1, 0), (1, 1, 0, 0)]
        assert metrics.unbalanced(con) == []


@pytest.mark.usefixtures("quick")
def test_late_and_repeated_deliveries_are_counted() -> None:
    with world() as project, warehouse_of(project) as con:
        config = load_config(project.rules)
        deliver(project, [visit(2, "2026-03-02T00:00:00Z", cookie="k1")], "1")
        run(con, config, project, AS_OF)
        late, new = (
            visit(1, "2026-03-01T00:00:00Z", cookie="k1"),
            visit(3, "2026-03-03T00:00:00Z", cookie="k1"),
        )
        deliver(project, [late, new, visit(2, "2026-03-02T00:00:00Z", cookie="k1")], "2")
        run(con, config, project, AS_OF)
        assert rows(con, "select event_id, deliveries, late from records.events order by 1") == [
            ("v1", 1, True), ("v2", 2, False), ("v3", 1, False),
        ]  # fmt: skip
        numbers = runs.event_numbers(con)
        assert (numbers["late_events"], numbers["repeated_deliveries"]) == (1, 1)


@pytest.mark.usefixtures("quick")
def test_a_pseudonymous_profile_expires_and_has_its_id_again_when_the_cookie_returns() -> None:
    with world(expire=20) as project, warehouse_of(project) as con:
        config = load_config(project.rules)
        cookie = visit(1, "2026-03-01T00:00:00Z", cookie="k1")
        deliver(project, [cookie, visit(2, "2026-03-01T00:00:00Z", email="a@x.org")], "1")
        run(con, config, project, datetime(2026, 3, 2, tzinfo=UTC))
        [(before,)] = rows(con, "select profile_id from profiles.unified where kind = 'pseudonymous'")
        deliver(project, [visit(3, "2026-04-01T00:00:00Z", email="b@x.org")], "2")
        run(con, config, project, datetime(2026, 4, 1, tzinfo=UTC))
        assert rows(con, "select kind from profiles.unified") == [("person",)] * 2, "people do not expire"
        ended = "select event, cause from identity.profile_events where profile_id = ? order by revision desc"
        assert rows(con, ended, [before])[0] == ("retired", "expired")
        assert rows(con, "select profile_id from profiles.events where event_id = 'v1'") == [(None,)]
        deliver(project, [visit(4, "2026-04-02T00:00:00Z", cookie="k1")], "3")
        run(con, config, project, datetime(2026, 4, 3, tzinfo=UTC))
        assert rows(con, "select profile_id from profiles.unified where kind = 'pseudonymous'") == [(before,)]
        own = "select event_id from profiles.events where profile_id = ? order by 1"
        assert rows(con, own, [before]) == [("v1",), ("v4",)]
        assert_like_a_rebuild(con, config, project, datetime(2026, 4, 3, tzinfo=UTC))


@pytest.mark.usefixtures("quick")
def test_events_move_with_identities_that_merge_and_split() -> None:
    person = dict.fromkeys(["first", "last", "born", "phone", "street", "city", "segment"], "") | {
        "id": "c1", "email": "a@x.org", "status": "active", "moment": "2026-03-02T00:00:00Z",
    }  # fmt: skip
    card = Row(
        "card", (("number", "n1"), ("crm_id", "c1"), ("email", "b@x.org"), ("moment", "2026-03-02T00:00:00Z"))
    )
    gone = person | {"status": "deleted", "moment": "2026-03-03T00:00:00Z"}
    with world() as project, warehouse_of(project) as con:
        config = load_config(project.rules)
        visits = [
            visit(n, f"2026-03-01T0{n}:00:00Z", email=who) for n, who in enumerate(["a@x.org", "b@x.org"])
        ]
        steps = [
            (visits, 2),
            ([Row("crm", tuple(person.items())), card], 1),
            ([Row("crm", tuple(gone.items()))], 2),
        ]
        for number, (delivered, profiles) in enumerate(steps):
            deliver(project, delivered, str(number))
            run(con, config, project, AS_OF + timedelta(days=number))
            assert scalar(con, "select count(distinct profile_id) from profiles.events") == profiles
            assert scalar(con, "select sum(event_count) from profiles.unified") == 2
        assert_like_a_rebuild(con, config, project, AS_OF + timedelta(days=2))
