"""The laws of unified profiles, broken on purpose: each breach is counted, and nothing else is."""

from collections.abc import Generator

import pytest
from duckdb import DuckDBPyConnection

from profile_pipeline import laws, quality
from profile_pipeline.config.load import Config, load_config
from profile_pipeline.warehouse import rows, scalar
from profile_pipeline_tests.hand_made import all_hold, day, people
from profile_pipeline_tests.worlds import World, deliver, run_core, warehouse_of, write_rules

ROWS, VALUES = "one_row_a_profile", "lineage_names_every_value"
Opened = tuple[DuckDBPyConnection, Config]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Generator[Opened]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", all_hold)
        project = write_rules(tmp_path_factory.mktemp("laws"), World(()))
        persons = [
            {"id": str(n), "first": f"Ann{n}", "email": f"a{n}@x.org", "moment": "2026-03-01T00:00:00Z"}
            for n in (1, 2, 3)
        ]
        deliver(project, people(*persons), "1")
        run_core(project, day(1))
    with warehouse_of(project) as con:
        yield con, load_config(project.rules)


@pytest.fixture
def con(opened: Opened) -> Generator[DuckDBPyConnection]:
    """What a test changes is taken back."""
    found, _ = opened
    found.execute("begin")
    yield found
    found.execute("rollback")


def problems(con: DuckDBPyConnection, opened: Opened) -> dict[str, int]:
    return {name: n for name, n in laws.profile_problems(con, opened[1]).items() if n}


def one_value(con: DuckDBPyConnection) -> str:
    """A condition on the lineage: one winner of the default policy's e-mails."""
    policy, profile_id = rows(
        con,
        "select policy, min(profile_id) from profiles.lineage where field = 'email' and won group by 1 order by 1",
    )[0]
    return f"policy = '{policy}' and field = 'email' and won and rank = 1 and profile_id = '{profile_id}'"


def test_a_sound_world_has_no_problems(con: DuckDBPyConnection, opened: Opened) -> None:
    assert scalar(con, "select count(*) from profiles.unified") == 3
    assert problems(con, opened) == {}


def test_a_profile_without_a_row_and_a_row_without_a_profile_count(
    con: DuckDBPyConnection, opened: Opened
) -> None:
    con.execute("delete from profiles.lineage; update profiles.unified set given_name = null, email = null")
    con.execute(
        "update profiles.unified set profile_id = 'nobody' where profile_id = (select min(profile_id) from profiles.unified)"
    )
    assert problems(con, opened)[ROWS] == 2, "as many rows as profiles, and yet both are wrong"


def test_records_without_a_profile_and_with_two_count(con: DuckDBPyConnection) -> None:
    assert laws.ledger_problems(con)["one_profile_a_record"] == 0
    keys = [key for (key,) in rows(con, "select record_key from identity.nodes order by 1")]
    con.execute("delete from identity.membership where record_key = ?", [keys[0]])
    assert laws.ledger_problems(con)["one_profile_a_record"] == 1
    con.execute(
        "insert into identity.membership select * replace ((select min(profile_id) from profiles.unified) as profile_id)"
        " from identity.membership where record_key = ?",
        [keys[2]],
    )
    assert laws.ledger_problems(con)["one_profile_a_record"] == 2, "as many as nodes, and yet two are wrong"


def test_a_record_of_a_retired_profile_counts(con: DuckDBPyConnection) -> None:
    con.execute(
        "update identity.registry set status = 'retired' where profile_id = (select min(profile_id) from identity.registry)"
    )
    assert laws.ledger_problems(con)["one_profile_a_record"] == 1


def test_a_second_row_of_a_profile_counts(con: DuckDBPyConnection, opened: Opened) -> None:
    con.execute("insert into profiles.unified from profiles.unified limit 1")
    assert problems(con, opened)[ROWS] == 1


def test_a_value_without_a_winner_counts(con: DuckDBPyConnection, opened: Opened) -> None:
    con.execute(f"delete from profiles.lineage where {one_value(con)}")
    assert problems(con, opened) == {VALUES: 1}


def test_a_winner_that_is_not_shown_counts(con: DuckDBPyConnection, opened: Opened) -> None:
    con.execute(
        "update profiles.unified set email = null where profile_id = (select min(profile_id) from profiles.unified)"
    )
    assert problems(con, opened) == {VALUES: 1}


def test_two_winners_for_a_value_count(con: DuckDBPyConnection, opened: Opened) -> None:
    con.execute(f"insert into profiles.lineage from profiles.lineage where {one_value(con)}")
    assert problems(con, opened) == {VALUES: 1}


def test_a_winner_of_another_field_does_not_make_up_for_it(con: DuckDBPyConnection, opened: Opened) -> None:
    con.execute(f"update profiles.lineage set field = 'phone' where {one_value(con)}")
    assert problems(con, opened) == {VALUES: 2}, "an e-mail without a winner, a winner without a phone"
