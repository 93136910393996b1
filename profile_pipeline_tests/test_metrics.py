"""Metrics reconcile: rows delivered with their fates, profiles with the profile table, fields with the lineage."""

from collections.abc import Generator

import pytest
from duckdb import DuckDBPyConnection

from profile_pipeline import metrics
from profile_pipeline.audiences import build_audiences
from profile_pipeline.profiles.candidates import build_candidates
from profile_pipeline.profiles.lineage import build_lineage, conflicts
from profile_pipeline.profiles.unified import build_unified
from profile_pipeline.warehouse import rows, scalar
from profile_pipeline_tests.hand_made import add_member, config_of, day, set_records, touch, warehouse

POLICIES = {
    "golden": {},
    "ranked": {"method": "dataset_precedence", "sources": {"a": 1}, "unlisted": "exclude"},
}


@pytest.fixture
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        yield opened


@pytest.fixture
def facts(con: DuckDBPyConnection) -> DuckDBPyConnection:
    """Profile facts of fourteen records of three people and a visitor."""
    config = config_of({"city": "text", "tier": "text"}, POLICIES, audiences={"all": {"where": "true"}})
    many = [{"key": f"a:{n}", "profile": "many", "city": "York"} for n in range(12)]
    two = [
        {"key": "a:x", "profile": "two", "city": "York", "at": 1},
        {"key": "b:x", "profile": "two", "city": "Hull", "tier": "gold", "at": 2},
    ]
    set_records(con, config, [*many, *two, {"key": "a:y", "profile": "bare"}])
    add_member(con, "event:cookie=k", "visitor", "pseudonymous")
    con.execute("insert into profiles.events values ('visitor', ?), ('two', ?), (null, ?)", [day(1)] * 3)
    con.execute("create table raw.batches as select 1 as batch, ?::timestamptz as as_of", [day(1)])
    for build in (build_candidates, build_lineage, build_unified, build_audiences):
        build(con, config)
    con.execute(
        "create table identity.identifiers (record_key text, namespace text, value text, raw_value text)"
    )
    con.execute("create table identity.generic_values (namespace text, value text)")
    metrics.build_profile_facts(con, config)
    return con


def test_profiles_by_kind_add_up(facts: DuckDBPyConnection) -> None:
    assert rows(facts, "select kind, record_count, profile_count, event_count from metrics.profiles order by 1, 2") == [
        ("person", 1, 1, 0), ("person", 2, 1, 1), ("person", 10, 1, 0), ("pseudonymous", 0, 1, 1),
    ]  # fmt: skip
    assert scalar(facts, "select sum(profile_count) from metrics.profiles") == scalar(
        facts, "select count(*) from profiles.unified"
    )
    assert scalar(facts, "select sum(event_count) from metrics.profiles") == 2, (
        "the event of nobody belongs to no profile"
    )


def test_fields_reconcile_with_profiles_and_conflicts(facts: DuckDBPyConnection) -> None:
    assert rows(facts, "select * from metrics.fields order by 1, 2") == [
        ("golden", "city", 2, 1), ("golden", "tier", 1, 0), ("ranked", "city", 2, 0),
    ]  # fmt: skip
    for policy, table in (("golden", "profiles.unified"), ("ranked", "profiles.unified_ranked")):
        filled = dict(
            rows(facts, "select field, filled_count from metrics.fields where policy = ?", [policy])
        )
        assert filled == {
            f: n for f in ("city", "tier") if (n := scalar(facts, f"select count({f}) from {table}"))
        }
        found = rows(
            facts,
            "select field, conflict_count from metrics.fields where policy = ? and conflict_count > 0",
            [policy],
        )
        assert found == conflicts(facts, policy)


def test_audiences_reconcile_with_memberships(facts: DuckDBPyConnection) -> None:
    assert rows(facts, "select * from metrics.audiences") == [("all", 4, 0)]
    facts.execute("update audiences.membership set exited_at = ? where profile_id = 'bare'", [day(2)])
    touch(facts, "audiences.membership")
    metrics.build_profile_facts(facts, config_of({}, POLICIES))
    assert rows(facts, "select * from metrics.audiences") == [("all", 3, 1)]


def test_facts_are_written_when_something_changed_and_only_then(facts: DuckDBPyConnection) -> None:
    facts.execute("delete from metrics.profiles")
    metrics.build_profile_facts(facts, config_of({}, POLICIES))
    assert scalar(facts, "select count(*) from metrics.profiles") == 0
    touch(facts, "profiles.lineage")
    metrics.build_profile_facts(facts, config_of({}, POLICIES))
    assert scalar(facts, "select count(*) from metrics.profiles") == 4


def test_unbalanced_names_source_batch_and_rows(
    con: DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fates(*_: object) -> list[tuple[str, int, int, dict[str, int]]]:
        kept = dict.fromkeys(metrics.FATES, 1)
        return [("a", 1, 7, kept), ("a", 2, 9, kept), ("b", 1, 6, kept)]

    monkeypatch.setattr(metrics, "fates", fates)
    metrics.build_row_fates(con, config_of({}, {"golden": {}}))
    assert metrics.unbalanced(con) == [("a", 2, 2), ("b", 1, -1)]
    assert rows(con, "select * from metrics.row_fates where batch = 2") == [("a", 2, 9, *[1] * 7)]


def test_no_source_no_fates(con: DuckDBPyConnection) -> None:
    metrics.build_row_fates(con, config_of({}, {"golden": {}}, sources=[]))
    assert metrics.unbalanced(con) == []
    assert scalar(con, "select count(*) from metrics.row_fates") == 0
