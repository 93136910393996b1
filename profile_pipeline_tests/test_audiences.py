"""Audiences: conditions, consent, entry and exit, on a profile table made by hand."""

from collections.abc import Generator
from typing import Any

import pytest
from duckdb import DuckDBPyConnection

from profile_pipeline.audiences import build_audiences, sizes
from profile_pipeline.errors import PipelineError
from profile_pipeline.warehouse import rows, scalar
from profile_pipeline_tests.hand_made import config_of, day, touch, warehouse

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
