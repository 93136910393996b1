"""The timeline: every event once, with its person, however deliveries, merges, splits and reverts interleave."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_pipeline import metrics, quality
from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import Project
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
