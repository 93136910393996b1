"""Every recipe of docs/recipes runs on a published database and answers its question; the page lists them all."""

from collections.abc import Generator
from pathlib import Path

import duckdb
import pytest
from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import records_of, rows
from profile_pipeline_tests.tally import Counted

FOLDER = Path(__file__).parents[1] / "docs" / "recipes"
RECIPES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.sql"))}


@pytest.fixture
def published(counted: Counted) -> Generator[DuckDBPyConnection]:
    with duckdb.connect(str(counted.database), read_only=True) as con:
        yield con


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_answers(published: DuckDBPyConnection, name: str) -> None:
    assert RECIPES[name].startswith("-- ")
    found = rows(published, RECIPES[name])
    assert found
    assert found == rows(published, RECIPES[name]), "the order is total"


def test_the_page_lists_every_recipe_with_its_question() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for name, text in RECIPES.items():
        assert f"| {text.splitlines()[0].removeprefix('-- ')} | [{name}]({name}.sql) |" in page
    assert page.count(".sql) |") == len(RECIPES) >= 10


def test_answers_are_those_of_plain_python(published: DuckDBPyConnection, counted: Counted) -> None:
    tally = counted.tallies[counted.newest]
    sets = [(set(names.split(",")), n) for names, _, n, *_ in tally["namespace_overlaps"]]
    both = sum(n for names, n in sets if names >= {"email", "cookie"})
    assert rows(published, RECIPES["04_identifiers_that_meet"]) == [(both,)]
    sizes = {name: n for name, n, *_ in tally["audiences"]}
    assert {
        r["audience"]: r["member_count"] for r in records_of(published, RECIPES["06_audience_sizes"])
    } == sizes
    [today] = records_of(published, RECIPES["01_profiles_today"])
    assert today["profile_count"] == tally["snapshots"][0][0]
    [newest, *_] = records_of(published, RECIPES["02_growth_by_day"])[::-1]
    before = counted.tallies[sorted(counted.tallies)[-2]]["snapshots"][0][0]
    assert (newest["profile_count"], newest["change"]) == (
        today["profile_count"],
        today["profile_count"] - before,
    )


def test_rows_that_went_somewhere_add_up(published: DuckDBPyConnection) -> None:
    for row in records_of(published, RECIPES["16_where_rows_went"]):
        assert row.pop("delivered") == sum(n for name, n in row.items() if name != "source")
