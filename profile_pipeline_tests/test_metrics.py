"""Every count equals a count in plain Python, day after day; counts agree with each other, are kept, and go when they must."""

from collections.abc import Generator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from duckdb import DuckDBPyConnection

from profile_pipeline import metrics, quality
from profile_pipeline.dictionary import published_tables
from profile_pipeline.metrics import destinations, fates, history
from profile_pipeline.profiles.lineage import conflicts
from profile_pipeline.warehouse import rolled_back, rows, scalar
from profile_pipeline_tests.conftest import validate_in_sql
from profile_pipeline_tests.hand_made import config_of, people, touch, warehouse
from profile_pipeline_tests.tally import Counted
from profile_pipeline_tests.test_batches import BRIDGE, FIRST, LAST, grown, run, take_back
from profile_pipeline_tests.test_batches import published as batches_published
from profile_pipeline_tests.worlds import AS_OF, LINKED, Row, deliver, run_core, warehouse_of, write_rules

DAYS = tuple(date(2026, month, 1) for month in (2, 3, 4))
DAILY = sorted(set(history.COLUMNS) - set(history.OF_BATCHES) - {"blocks"})


@pytest.fixture
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        yield opened


@pytest.fixture
def published(counted: Counted) -> Generator[DuckDBPyConnection]:
    with duckdb.connect(str(counted.database), read_only=True) as opened:
        opened.execute("set TimeZone = 'UTC'")
        yield opened


@pytest.fixture
def world(counted: Counted) -> Generator[DuckDBPyConnection]:
    """The warehouse of the counted world, put back afterwards."""
    with warehouse_of(counted.project) as opened, rolled_back(opened):
        yield opened


def by_key(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(found, key=lambda row: [str(value) for value in row if not isinstance(value, float)])


def assert_same(found: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    """Equal rows, but for the digits that rounding takes from shares."""
    assert len(found) == len(expected)
    for one, other in zip(by_key(found), by_key(expected), strict=True):
        assert len(one) == len(other)
        assert all(map(equal, one, other)), (one, other)


def equal(one: Any, other: Any) -> bool:
    """Whether two cells are equal, but for what rounding takes."""
    return one == pytest.approx(other, rel=1e-3, abs=1e-3) if isinstance(one, float) else one == other


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize("table", DAILY)
def test_every_day_is_as_counted_in_python(
    published: DuckDBPyConnection, counted: Counted, table: str, day: date
) -> None:
    found = rows(published, f"select * exclude (day) from metrics_{table} where day = ?", [day])
    assert found
    assert_same(found, counted.tallies[day][table])


@pytest.mark.parametrize("day", DAYS)
def test_every_batch_is_as_counted_in_python(
    published: DuckDBPyConnection, counted: Counted, day: date
) -> None:
    assert_same(
        rows(published, "select * exclude (batch, day) from metrics_policies where day = ?", [day]),
        counted.tallies[day]["policies"],
    )
    counts = "profile_count, person_count, pseudonymous_count, single_identity_count, unsegmented_count, identity_count"
    assert (
        rows(published, f"select {counts} from metrics_snapshots where day = ?", [day])
        == counted.tallies[day]["snapshots"]
    )


def test_what_happened_to_ids_explains_how_the_count_moved(published: DuckDBPyConnection) -> None:
    before = 0
    query = "select profile_count, created_count, revived_count, merged_count, retired_count from metrics_snapshots order by batch"
    for now, created, revived, merged, retired in rows(published, query):
        assert now == before + created + revived - merged - retired
        before = now
    assert scalar(published, "select max(merged_count) from metrics_snapshots") > 0


def test_blocks_are_counted_by_rule(counted: Counted) -> None:
    with warehouse_of(counted.project) as con:
        keys = rows(
            con, "select rule, key, count(*) from identity.blocking_keys where key is not null group by 1, 2"
        )
        names = scalar(con, "select facts->'rules' from state.built where name = 'identity.edges'")
        found = rows(
            con, "select * exclude (day, left_out_count) from metrics.blocks where day = ?", [counted.newest]
        )
    sizes: dict[int, list[int]] = {}
    for rule, _, size in keys:
        sizes.setdefault(rule, []).append(size)
    listed = names.strip('["]').split('","')
    assert sorted(found) == sorted(
        (listed[rule], sum(n > 1 for n in own), max(own), sum(n * (n - 1) // 2 for n in own))
        for rule, own in sizes.items()
    )


def test_conflicts_are_those_the_lineage_names(counted: Counted) -> None:
    with warehouse_of(counted.project) as con:
        found = rows(
            con,
            "select field, conflict_count from metrics.fields where policy = 'golden' and conflict_count > 0 and day = ?",
            [counted.newest],
        )
        assert sorted(found) == sorted(conflicts(con, "golden"))


def test_the_day_goes_on_until_something_comes(published: DuckDBPyConnection) -> None:
    dates = rows(published, "select day, counted_on from metrics_dates order by day")
    assert len(dates) == (DAYS[-1] - DAYS[0]).days + 1
    assert {counted_on for _, counted_on in dates} == set(DAYS)
    assert dict(dates)[date(2026, 3, 31)] == DAYS[1]


def test_numbers_of_destinations_are_those_of_rules_and_ledger(published: DuckDBPyConnection) -> None:
    at = datetime(2026, 3, 1, 7, tzinfo=UTC)
    assert rows(published, "select destination, platform, enabled, created_at from metrics_destinations") == [
        ("agency_bucket", "s3", False, None),
        ("handover", "local", True, at),
    ]
    assert rows(published, "from metrics_destination_audiences") == [("handover", "win_back", at, at, 12)]
    assert rows(published, "select status, row_count from metrics_deliveries") == [("delivered", 12)]


# ---------------------------------------------------------------- agreement


def test_the_counts_of_a_run_agree(counted: Counted) -> None:
    with warehouse_of(counted.project) as con:
        assert metrics.disagreements(con) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("delete from profiles.unified where kind = 'pseudonymous'", "the profile table: "),
        ("delete from metrics.namespace_overlaps where namespaces = 'cookie'", "combinations of namespaces"),
        ("delete from metrics.source_overlaps where sources = 'web'", "combinations of sources"),
        ("update metrics.snapshots set unsegmented_count = unsegmented_count - 1", "profiles in audiences and outside"),
        ("update metrics.snapshots set created_count = created_count + 1 where batch = 1", "ids given out and given up"),
        ("delete from profiles.identifiers where namespace = 'phone'", "namespaces: "),
        ("update metrics.audiences set member_count = member_count + 1 where audience = 'loyal_gold'", "audiences: 2 differ"),
        ("delete from metrics.audience_namespaces where namespace = 'email'", "audiences by namespace"),
        ("delete from metrics.audience_namespace_overlaps where namespace_count = 1", "audiences by combination"),
        ("update metrics.policies set low_count = low_count + 1 where policy = 'newest'", "merge policies"),
    ],
)  # fmt: skip
def test_counts_that_do_not_agree_are_named(world: DuckDBPyConnection, damage: str, said: str) -> None:
    world.execute(damage)
    assert any(line.startswith(said) for line in metrics.disagreements(world))


def test_before_the_first_batch_nothing_disagrees(con: DuckDBPyConnection) -> None:
    history.create_tables(con)
    con.execute("create table metrics.dates (day date)")
    assert metrics.disagreements(con) == []


# ---------------------------------------------------------------- what is kept


def test_facts_are_written_when_something_changed_and_only_then(
    world: DuckDBPyConnection, counted: Counted
) -> None:
    world.execute("delete from metrics.profiles where day = ?", [counted.newest])
    metrics.build_profile_facts(world, counted.config)
    assert scalar(world, "select max(day) from metrics.profiles") == DAYS[1]
    touch(world, "profiles.lineage")
    metrics.build_profile_facts(world, counted.config)
    assert scalar(world, "select max(day) from metrics.profiles") == counted.newest
    assert metrics.disagreements(world) == []


def test_a_later_batch_of_the_day_replaces_its_counts_and_adds_a_row_of_its_own(
    world: DuckDBPyConnection, counted: Counted
) -> None:
    world.execute("insert into raw.batches values (9, timestamptz '2026-04-01 20:00:00+00', false)")
    world.execute(
        "update raw.files set batch = 9 where file_id = (select max(file_id) from raw.files where state = 'loaded')"
    )
    world.execute("delete from profiles.unified where kind = 'pseudonymous'")
    touch(world, "profiles.unified")
    metrics.build_profile_facts(world, counted.config)
    assert rows(world, "select distinct kind from metrics.profiles where day = ?", [counted.newest]) == [
        ("person",)
    ]
    assert rows(world, "select batch, day from metrics.snapshots order by 1")[-2:] == [
        (3, DAYS[2]),
        (9, DAYS[2]),
    ]
    assert rows(world, "select batch from metrics.dates where day = ?", [DAYS[2]]) == [(9,)]
    history.forget_after(world, 3)
    assert history.incomplete(world), "the day of batch 3 has to be counted again"
    assert scalar(world, "select max(batch) from metrics.snapshots") == 3


@pytest.mark.slow
def test_a_day_whose_last_batch_is_reverted_is_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch replaced the counts of an earlier one of its day, which stands again."""
    monkeypatch.setattr(quality, "validate", validate_in_sql)
    parts = [(1, FIRST), (1.25, BRIDGE), (3, LAST)]
    project = grown(tmp_path / "with", parts)
    take_back(project, 2)
    run(project)
    found = batches_published(project)
    assert found == batches_published(grown(tmp_path / "without", parts[::2]))
    assert len({row["day"] for row in found["metrics_profiles"]}) == 2


def test_what_later_batches_counted_is_forgotten(world: DuckDBPyConnection) -> None:
    history.forget_after(world, 2)
    assert scalar(world, "select max(batch) from metrics.snapshots") == 2
    assert scalar(world, "select max(day) from metrics.fields") == DAYS[1]
    assert not history.incomplete(world)


def test_repeated_files_alone_make_no_day(world: DuckDBPyConnection) -> None:
    world.execute("insert into raw.batches values (9, timestamptz '2026-05-01', false)")
    assert history.newest(world) == history.Moment(3, datetime(2026, 4, 1, 6, tzinfo=UTC))


def test_a_table_of_before_there_was_history_is_replaced(con: DuckDBPyConnection) -> None:
    con.execute("create table metrics.audiences (audience text, member_count bigint, left_count bigint)")
    history.forget_after(con, 1)
    history.create_tables(con)
    assert rows(con, "select day from metrics.audiences") == []


def test_only_rows_that_say_when_they_are_from_tell_how_new_a_source_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "validate", validate_in_sql)
    made = write_rules(tmp_path, LINKED)
    rules = made.rules / "sources.yaml"
    before, card, after = rules.read_text(encoding="utf-8").partition("  card:")
    rules.write_text(before + card + after.replace("    time: {value: moment}\n", "", 1), encoding="utf-8")
    plain = {
        "id": "v",
        "cookie": "k",
        "email": "",
        "first": "",
        "type": "view",
        "moment": "2026-01-02T10:00:00Z",
    }
    visits = [plain, plain | {"id": "w", "moment": "2030-01-01T00:00:00Z"}]
    deliver(
        made,
        [
            *people({"id": "c1", "moment": "2026-01-01T10:00:00Z"}, {"id": "c2", "moment": "99.99.2026"}),
            *(Row("visit", tuple(visit.items())) for visit in visits),
            Row("card", (("number", "1"), ("moment", "2026-01-01T10:00:00Z"))),
        ],
        "1",
    )
    run_core(made)
    with warehouse_of(made) as con:
        found = dict(rows(con, "select source, newest_at from metrics.sources"))
    assert found["crm"] == datetime(2026, 1, 1, 10, tzinfo=UTC), "not that of a time nobody can read"
    assert found["visit"] == datetime(2026, 1, 2, 10, tzinfo=UTC), "not that of an event of the future"
    assert found["card"] == AS_OF, "a source without a clock is as new as its delivery"


def test_history_does_not_need_deliveries(con: DuckDBPyConnection) -> None:
    destinations.write(con, config_of({}, {"golden": {}}))
    assert [rows(con, f"from metrics.{name}") for name in destinations.TABLES] == [[], [], []]


def test_every_table_of_counts_is_published(counted: Counted) -> None:
    names = {table.name for table in published_tables(counted.config)}
    assert {f"metrics_{name}" for name in metrics.COUNTED} < names


# ---------------------------------------------------------------- the conservation law


def test_unbalanced_names_source_batch_and_rows(
    con: DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def three(*_: object) -> list[tuple[str, int, int, dict[str, int]]]:
        kept = dict.fromkeys(metrics.FATES, 1)
        return [("a", 1, 7, kept), ("a", 2, 9, kept), ("b", 1, 6, kept)]

    monkeypatch.setattr(fates, "fates", three)
    metrics.build_row_fates(con, config_of({}, {"golden": {}}))
    assert metrics.unbalanced(con) == [("a", 2, 2), ("b", 1, -1)]
    assert rows(con, "select * from metrics.row_fates where batch = 2") == [("a", 2, 9, *[1] * 7)]


def test_no_source_no_fates(con: DuckDBPyConnection) -> None:
    metrics.build_row_fates(con, config_of({}, {"golden": {}}, sources=[]))
    assert metrics.unbalanced(con) == []
    assert scalar(con, "select count(*) from metrics.row_fates") == 0
