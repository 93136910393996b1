"""The timeline: every event once, with its person, however deliveries, merges, splits and reverts interleave."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from profile_pipeline import batches, decisions, metrics, profile_ids, quality, replay, runs
from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import Project
from profile_pipeline.defs.records import _events_results
from profile_pipeline.identity import clusters, edges, features, model, nodes
from profile_pipeline.profiles import candidates, lineage, timeline, unified
from profile_pipeline.records import events, retention
from profile_pipeline.runs import forget_derived
from profile_pipeline.warehouse import connect, last_full, rows, scalar
from profile_pipeline_tests.conftest import Core, Projects, validate_in_sql
from profile_pipeline_tests.hand_made import people
from profile_pipeline_tests.worlds import LINKED, Row, deliver, moments, take_in, temporary_project

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


def batches_of(visits: st.SearchStrategy[Row]) -> st.SearchStrategy[list[Row]]:
    """What comes at one time."""
    return st.lists(st.one_of(visits, visits, visits, customers(), cards()), min_size=1, max_size=8)


BATCHES = st.lists(batches_of(visits()), min_size=2, max_size=4)


def examples(number: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],  # an example takes seconds: to shrink one would take minutes
        suppress_health_check=list(HealthCheck),
    )


DESCRIBED = "    key: lower(trim(email))\n    write: patch\n"
DESCRIPTION = "    attributes: {email: email, given_name: first}\n"
"""What makes records of visits in the rules."""


@contextmanager
def world(*, keep: str = "", expire: int = 0, plain: bool = False) -> Iterator[Project]:
    """A project that keeps its visits for a time, whose pseudonymous profiles expire, or whose visits describe nobody."""
    with temporary_project(LINKED) as project:
        for name, old, new in [
            ("sources", "    kind: event\n", f"    kind: event\n    retention: {keep}\n"),
            ("identity", "namespaces:\n", f"pseudonymous_expire_days: {expire}\nnamespaces:\n"),
        ]:
            path = project.rules / f"{name}.yaml"
            if {"sources": keep, "identity": expire}[name]:
                path.write_text(path.read_text().replace(old, new))
        if plain:
            path = project.rules / "sources.yaml"
            path.write_text(path.read_text().replace(DESCRIBED, "").replace(DESCRIPTION, ""))
        # events do not ask which values a policy chooses, nor who is in an audience
        (project.rules / "profiles.yaml").write_text("default: golden\npolicies: {golden: {}}\n")
        (project.rules / "audiences.yaml").unlink()
        yield project


def warehouse_of(project: Project) -> AbstractContextManager[DuckDBPyConnection]:
    return connect(project.database, memory="1GiB", threads=1)


def run(con: DuckDBPyConnection, config: Config, project: Project, as_of: datetime) -> None:
    """What events go through, and what looks at them first."""
    take_in(con, config, project, as_of)
    for build in (
        nodes.build_nodes, features.build_features, model.ensure_model, edges.build_edges, clusters.build_clusters,
        profile_ids.assign_profile_ids, timeline.build_timeline, candidates.build_candidates, lineage.build_lineage,
        unified.build_unified, metrics.build_row_fates,
    ):  # fmt: skip
        build(con, config)


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


Drawn = tuple[list[list[Row]], str, bool, int]
"""Batches, how long visits are kept, and a seed of file names."""
DRAWN = st.tuples(BATCHES, st.sampled_from(["", "29 days"]), st.booleans(), st.integers(0, 9))


@examples(2)
@given(DRAWN)
def test_incremental_equals_a_rebuild_and_no_event_is_lost_or_doubled(drawn: Drawn) -> None:
    check_deliveries(*drawn)


@pytest.mark.long
@examples(60)
@given(DRAWN)
def test_incremental_equals_a_rebuild_for_many_deliveries(drawn: Drawn) -> None:
    check_deliveries(*drawn)


def check_deliveries(batches: list[list[Row]], keep: str, plain: bool, seed: int) -> None:
    chance = random.Random(seed)
    quick = mock.patch.object(quality, "validate", validate_in_sql)
    with quick, world(keep=keep, plain=plain) as project, warehouse_of(project) as con:
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


# ---------------------------------------------------------------- merges, splits and reverts, against plain Python


@dataclass(frozen=True)
class Decide:
    """A steward decides about two of the current records; which two, as positions that wrap around."""

    decision: str
    left: int
    right: int


@dataclass(frozen=True)
class TakeBack:
    """A batch is reverted, or let in again when it is; its position wraps around."""

    position: int


Step = list[Row] | Decide | TakeBack


def visit_of(number: int, moment: str) -> Row:
    """What a visit says follows from its number, but for its time: of several deliveries the earliest counts."""
    return visit(number, moment, cookie=["", "k1", "k2"][number % 3], email=["", "", *PEOPLE][number % 5])


def steps() -> st.SearchStrategy[list[Step]]:
    batch = batches_of(st.builds(visit_of, st.integers(0, 14), moments()))
    some = st.integers(0, 40)
    decision = st.builds(Decide, st.sampled_from([*decisions.DECISIONS, decisions.NO_MATCH]), some, some)
    later = st.lists(st.one_of(batch, batch, decision, st.builds(TakeBack, some)), min_size=2, max_size=4)
    return st.builds(lambda first, rest: [first, *rest], batch, later)


@examples(3)
@given(steps())
def test_events_follow_their_identifiers_through_merges_splits_and_reverts(drawn: list[Step]) -> None:
    check_steps(drawn)


@pytest.mark.long
@examples(40)
@given(steps())
def test_events_follow_their_identifiers_through_many_merges_splits_and_reverts(drawn: list[Step]) -> None:
    check_steps(drawn)


def check_steps(drawn: list[Step]) -> None:
    quick = mock.patch.object(quality, "validate", validate_in_sql)
    with quick, world() as project, warehouse_of(project) as con:
        config, delivered = load_config(project.rules), []
        for number, step in enumerate(drawn):
            take(con, project, step, delivered)
            if replay.needed(con):
                replay.replay(con, config, project)
            as_of = AS_OF + timedelta(hours=7 * number)
            run(con, config, project, as_of)
            assert_no_event_is_lost_or_doubled(con)
            assert_every_event_is_where_its_identifiers_point(con, standing(con, delivered))
        assert_like_a_rebuild(con, config, project, as_of)


def take(con: DuckDBPyConnection, project: Project, step: Step, delivered: list[list[Row]]) -> None:
    if isinstance(step, list):
        delivered.append(step)
        deliver(project, step, str(len(delivered)))
    elif isinstance(step, Decide):
        keys = [key for (key,) in rows(con, "select record_key from records.current order by 1")]
        pair = {keys[n % len(keys)] for n in (step.left, step.right)} if keys else set()
        if len(pair) == 2:
            decisions.decide(con, [tuple(pair)], step.decision, "ann")
    else:
        batch = step.position % len(delivered) + 1
        change = batches.revert if batch in counting(con) else batches.restore
        change(con, batch, "ann", "by chance")


def counting(con: DuckDBPyConnection) -> set[int]:
    return {batch for (batch,) in rows(con, "select batch from raw.batches")}


@dataclass(frozen=True)
class Seen:
    """A visit as it counts."""

    id: str
    at: datetime
    cookie: str
    email: str


def standing(con: DuckDBPyConnection, delivered: Sequence[list[Row]]) -> list[Seen]:
    """Every visit of the batches that count, once, at the earliest time that was delivered."""
    found: dict[str, Seen] = {}
    for batch, each in enumerate(delivered, start=1):
        for row in each if batch in counting(con) else []:
            said = dict(row.fields)
            if row.source == "visit":
                at = datetime.fromisoformat(said["moment"] or "")
                seen = Seen(said["id"] or "", at, (said["cookie"] or "").upper(), said["email"] or "")
                found[seen.id] = min(seen, found.get(seen.id, seen), key=lambda s: s.at)
    return list(found.values())


def belongs_to(seen: Seen, every: list[Seen]) -> tuple[str | None, str | None]:
    """(node, attribution): who is named, else the login on the cookie nearest in time and within half an hour, else the cookie."""
    if seen.email:
        return f"visit:{seen.email}", "stated"
    if not seen.cookie:
        return None, None
    logins = [s for s in every if s.email and s.cookie == seen.cookie and abs(s.at - seen.at) <= GAP]
    if not logins:
        return f"event:cookie={seen.cookie}", "pseudonymous"
    # of two equally near the earlier; of two at one moment the smaller name
    nearest = min(logins, key=lambda s: (abs(s.at - seen.at), s.at, s.email))
    return f"visit:{nearest.email}", "inferred"


GAP = timedelta(minutes=30)


def assert_every_event_is_where_its_identifiers_point(con: DuckDBPyConnection, every: list[Seen]) -> None:
    member = dict(rows(con, profile_ids.MEMBERS))
    expected = {}
    for seen in every:
        node, attribution = belongs_to(seen, every)
        expected[seen.id] = (member[node] if node else None, attribution, seen.at)
    timeline_now = "select event_id, profile_id, attribution, occurred_at from profiles.events"
    assert {event: rest for event, *rest in rows(con, timeline_now)} == {e: [*x] for e, x in expected.items()}
    held = set(rows(con, "select profile_id, value from profiles.identifiers where namespace = 'email'"))
    assert {(expected[s.id][0], s.email) for s in every if s.email} <= held
    counted = dict(rows(con, "select profile_id, event_count from profiles.unified where event_count > 0"))
    assert counted == Counter(profile for profile, _, _ in expected.values() if profile)


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
        parts = [[*TABLET[1::2], TABLET[0]], [TABLET[2]], [TABLET[4], TABLET[6]]]
        for number, part in enumerate(parts):  # every login moves what is near to it, and only that
            deliver(project, part, str(number))
            run(con, config, project, AS_OF + timedelta(hours=number))
        ann, bob = "a@x.org", "b@x.org"
        assert owners(con) == {
            "v1": ann, "v2": ann, "v3": bob, "v4": bob, "v5": ann, "v6": ann, "v7": bob, "v8": "K1",
        }  # fmt: skip


@pytest.mark.usefixtures("quick")
def test_a_profile_of_which_nothing_but_an_event_is_new_counts_it() -> None:
    with world() as project, warehouse_of(project) as con:
        config = load_config(project.rules)
        for number in (0, 1):
            deliver(project, [TABLET[number]], str(number))
            run(con, config, project, AS_OF + timedelta(hours=number))
            assert rows(con, "select event_count from profiles.unified") == [(number + 1,)]


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
def test_whoever_loses_only_events_that_expire_has_lost_no_record() -> None:
    at = "2026-03-01T00:00:00Z"
    ann, bob = people({"id": "c1", "email": "a@x.org"}, {"id": "c2", "email": "b@x.org"})
    gone = people({"id": "c2", "email": "b@x.org", "status": "deleted", "moment": "2026-04-20T00:00:00Z"})
    with world(keep="30 days", plain=True) as project, warehouse_of(project) as con:
        config = load_config(project.rules)
        visits = [
            visit(1, at, email="a@x.org"),
            visit(2, at, email="b@x.org"),
            visit(3, at, cookie="k1"),
            visit(4, "2026-03-20T00:00:00Z", email="a@x.org", cookie="k2"),
        ]
        deliver(project, [ann, bob, *visits], "1")
        run(con, config, project, datetime(2026, 3, 21, tzinfo=UTC))
        ids = ids_by_record(con)
        deliver(project, [visit(5, "2026-04-10T00:00:00Z", cookie="k9")], "2")
        run(con, config, project, datetime(2026, 4, 10, tzinfo=UTC))
        happened = """select event, cause from identity.profile_events where profile_id = ?
            and revision = (select max(revision) from identity.revisions)"""
        assert rows(con, happened, [ids["crm:c1"]]) == [], "an event of hers is still kept"
        assert rows(con, happened, [ids["crm:c2"]]) == [("shrank", "expired")]
        assert rows(con, happened, [ids["event:cookie=K1"]]) == [("retired", "expired")]
        deliver(project, [*gone, visit(6, "2026-04-21T00:00:00Z", cookie="k9")], "3")
        run(con, config, project, datetime(2026, 4, 21, tzinfo=UTC))
        assert rows(con, happened, [ids["crm:c1"]]) == [("shrank", "expired")]
        assert rows(con, happened, [ids["crm:c2"]]) == [("retired", "deleted_records")]


def ids_by_record(con: DuckDBPyConnection) -> dict[str, str]:
    return dict(rows(con, "select record_key, profile_id from identity.membership where to_revision is null"))


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
def test_an_event_delivered_again_with_other_content_is_counted_and_said() -> None:
    at = "2026-03-02T00:00:00Z"
    with world(plain=True) as project, warehouse_of(project) as con:
        config = load_config(project.rules)
        same, wrong = visit(1, at, cookie="k1"), visit(2, at, cookie="k1")
        deliver(project, [same, wrong], "1")
        run(con, config, project, AS_OF)
        assert events.corrected(con) == {}
        deliver(project, [same, visit(2, at, cookie="k2")], "2")
        run(con, config, project, AS_OF + timedelta(hours=1))
        assert rows(con, "select event_id, deliveries, corrected from records.events order by 1") == [
            ("v1", 2, False), ("v2", 2, True),
        ]  # fmt: skip
        assert events.corrected(con) == {"visit": 1}
        assert runs.event_numbers(con)["corrected_events"] == 1
        [check] = _events_results(con)
        assert (check.passed, check.severity.value) == (False, "WARN")
        assert (check.description or "").startswith(
            "delivered again with other content: 1 of visit; of each the earliest"
        )
        assert_like_a_rebuild(con, config, project, AS_OF + timedelta(hours=1))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("later", ["    retention: 300 days\n", ""])
def test_a_longer_retention_brings_events_back(later: str) -> None:
    with world(keep="3 days") as project, warehouse_of(project) as con:
        shown = "select event_id from profiles.events order by 1"
        deliver(project, [visit(1, "2026-03-20T00:00:00Z"), visit(2, "2026-03-31T12:00:00Z")], "1")
        run(con, load_config(project.rules), project, AS_OF)
        assert rows(con, shown) == [("v2",)]
        path = project.rules / "sources.yaml"
        path.write_text(path.read_text().replace("    retention: 3 days\n", later))
        config = load_config(project.rules)
        run(con, config, project, AS_OF)
        assert rows(con, shown) == [("v1",), ("v2",)]
        assert_no_event_is_lost_or_doubled(con)
        assert_like_a_rebuild(con, config, project, AS_OF)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("plain", [False, True])
def test_a_pseudonymous_profile_expires_and_has_its_id_again_when_the_cookie_returns(plain: bool) -> None:
    with world(expire=20, plain=plain) as project, warehouse_of(project) as con:
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


def stated(number: int, moment: str, crm_id: str) -> str:
    return f'{{"id": "e{number}", "ts": "{moment}", "kind": "view", "crm_id": "{crm_id}"}}\n'


def test_identifiers_follow_events_and_leave_those_of_others_alone(
    project: Projects, run_core: Callable[..., Core]
) -> None:
    first = stated(1, "2026-03-02T00:00:00Z", "1") + stated(2, "2026-03-02T00:00:00Z", "2")
    where = project({"crm": project.crm(), "web": project.web()}, {"web_1.jsonl": first})
    core = run_core(where, everything=True)
    core.con.execute("update profiles.identifiers set raw_values = ['as it was'] where value = '2'")
    later = stated(3, "2026-03-01T00:00:00Z", "1") + stated(4, "2026-03-03T00:00:00Z", "3")
    project.deliver(where, "web_2.jsonl", later)
    core = run_core(where, AS_OF + timedelta(days=1), everything=True)
    assert core.rows("select value, raw_values, day(first_observed_at) from profiles.identifiers order by 1") == [
        ("1", ["1"], 1), ("2", ["as it was"], 2), ("3", ["3"], 3),
    ]  # fmt: skip
