"""The whole graph in Dagster on the demo deliveries: what it publishes, what blocks it, and how it heals."""

import csv
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from profile_pipeline import publish
from profile_pipeline.cli import app
from profile_pipeline.cli.shell import PENDING
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project, project_at
from profile_pipeline.defs.run import Options, Result, instance_of, run_graph
from profile_pipeline.metrics.adobe_views import VIEWS
from profile_pipeline_tests.worlds import (
    DEMO_RULES,
    DEMO_SOURCES,
    LINKED,
    Row,
    deliver,
    files_below,
    parquet_hashes,
    quick_folder,
    write_rules,
)

AS_OF = "2026-04-01T00:00:00+00:00"


@dataclass(frozen=True)
class Finished:
    """A project after its first run."""

    project: Project
    result: Result


def run(project: Project, as_of: str = AS_OF, **options: bool) -> Result:
    return run_graph(load_config(project.rules), project, Options(as_of=as_of, **options))


def command(project: Project, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--project", str(project.rules.parent)])
    return result.exit_code, result.output


@contextmanager
def published(generation: publish.Generation) -> Iterator[duckdb.DuckDBPyConnection]:
    con = duckdb.connect(str(generation.folder / publish.DATABASE), read_only=True)
    try:
        yield con
    finally:
        con.close()


def live(project: Project) -> publish.Generation:
    found = publish.current(project)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the projects of this module live."""
    with quick_folder() as found:
        yield found


@pytest.fixture(scope="module")
def demo(folder: Path) -> Finished:
    """The demo project after one run; tests that change something work on a copy."""
    shutil.copytree(DEMO_RULES, folder / "demo" / "rules")
    shutil.copytree(DEMO_SOURCES, folder / "demo" / "data" / "sources")
    project = project_at(folder / "demo")
    return Finished(project, run(project))


@contextmanager
def copy_of(project: Project, folder: Path) -> Iterator[Project]:
    """A copy to change, removed afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as target:
        yield project_at(shutil.copytree(project.rules.parent, Path(target) / "copy", symlinks=True))


@pytest.fixture
def copied(demo: Finished, folder: Path) -> Iterator[Project]:
    """A copy of the finished demo."""
    with copy_of(demo.project, folder) as project:
        yield project


# ---------------------------------------------------------------- the demo


def test_the_demo_succeeds_and_every_blocking_check_passes(demo: Finished) -> None:
    assert demo.result.success, demo.result.failure
    assert demo.result.failure == ""
    assert [check for check in demo.result.failed_checks if check.blocking] == []
    assert live(demo.project).number == 1
    assert publish.verify(live(demo.project)) == []


def test_john_greene_is_one_profile_of_all_his_sources(demo: Finished) -> None:
    with published(live(demo.project)) as con:
        [(profile_id, sources)] = con.execute(
            "select distinct i.profile_id, p.sources from profile_identifiers i join profiles p using (profile_id)"
            " where namespace = 'email' and value = 'john.greene@luma.com'"
        ).fetchall()
        assert {"crm", "loyalty", "shop"} <= set(sources)
        spellings = con.execute(
            "select raw_values from profile_identifiers where profile_id = ? and value = 'john.greene@luma.com'",
            [profile_id],
        ).fetchall()
        assert len(spellings[0][0]) > 1, "the demo shows several spellings of one address"
    assert profile_id in command(demo.project, "lookup", "JOHN.GREENE@luma.com")[1]


def test_every_published_table_has_its_grain(demo: Finished) -> None:
    generation = live(demo.project)
    with published(generation) as con:
        for name, entry in generation.manifest["tables"].items():
            [(total, distinct)] = con.execute(
                f"select count(*), count(distinct ({entry['grain']},)) from {name}"
            ).fetchall()
            assert (total, distinct) == (entry["rows"], entry["rows"]), name


def test_the_dictionary_describes_exactly_what_is_published(demo: Finished) -> None:
    generation = live(demo.project)
    described = json.loads((generation.folder / "dictionary.json").read_text(encoding="utf-8"))
    with published(generation) as con:
        real = con.execute(
            "select table_name, column_name, data_type, comment from duckdb_columns() where schema_name = 'main'"
            " and not internal"
        ).fetchall()
    views = [
        row for row in real if row[0] in VIEWS
    ]  # over published tables, and described in the file itself
    assert {name for name, *_ in views} == set(VIEWS)
    assert all(text for *_, text in views)
    real = [row for row in real if row not in views]
    told = {(t["name"], c["name"], c["type"], c["description"]) for t in described for c in t["columns"]}
    assert told == set(real)
    assert {name for name, *_ in real} == set(generation.manifest["tables"])
    empty = [(table, column) for table, column, _, text in told if not (text or "").strip()]
    assert empty == []
    assert all(t["description"].strip() and t["grain"].strip() for t in described)
    page = (generation.folder / "dictionary.md").read_text(encoding="utf-8")
    assert all(f"## {table}\n" in page for table in generation.manifest["tables"])


def test_parquet_and_database_hold_the_same_rows(demo: Finished) -> None:
    generation = live(demo.project)
    with published(generation) as con:
        for name in generation.manifest["tables"]:
            file = generation.folder / f"{name}.parquet"
            assert con.execute(f"select count(*) from (from {name} except all from '{file}')").fetchall() == [
                (0,)
            ]
            assert con.execute(f"select count(*) from (from '{file}' except all from {name})").fetchall() == [
                (0,)
            ]


def test_a_client_of_the_1_x_line_opens_the_published_database(demo: Finished) -> None:
    client = Path(sys.executable).with_name("duckdb")
    version = subprocess.run([client, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("v1."), version
    asked = "select count(*) from profiles; select count(*) from profile_lineage; select sources from profiles limit 1;"
    file = live(demo.project).folder / publish.DATABASE
    done = subprocess.run(
        [client, "-readonly", "-csv", "-noheader", file, asked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    tables = live(demo.project).manifest["tables"]
    assert done.stdout.splitlines()[:2] == [
        str(tables[name]["rows"]) for name in ("profiles", "profile_lineage")
    ]


def test_nothing_of_the_run_is_readable_by_others(demo: Finished) -> None:
    data = demo.project.data
    for folder in ("state", "published", "dagster"):
        assert (data / folder).stat().st_mode & 0o077 == 0, folder


# ---------------------------------------------------------------- further runs


def test_a_run_without_news_is_quick_and_publishes_nothing(copied: Project) -> None:
    before = live(copied)
    files = {path.name: path.read_bytes() for path in files_below(before.folder)}
    started = time.process_time()  # of this process: other work on the machine does not count
    result = run(copied, "2026-04-02T00:00:00+00:00")
    took = time.process_time() - started
    assert result.success
    assert [g.number for g in publish.generations(copied)] == [1]
    assert {path.name: path.read_bytes() for path in files_below(live(copied).folder)} == files
    assert took < 20, f"{took:.0f} s"


@pytest.fixture(scope="module")
def with_fifty_more(demo: Finished, folder: Path) -> Iterator[Project]:
    """The demo after a further delivery of fifty rows of the CRM."""
    with copy_of(demo.project, folder) as project:
        write_crm(project, "crm_2026-04-02.csv", 50, "N")
        result = run(project, "2026-04-02T00:00:00+00:00")
        assert result.success, result
        yield project


@pytest.fixture
def grown(with_fifty_more: Project, folder: Path) -> Iterator[Project]:
    """A copy of the demo with fifty more rows."""
    with copy_of(with_fifty_more, folder) as project:
        yield project


def write_crm(project: Project, name: str, number: int, key: str, **changes: str) -> None:
    """New customers that share nothing with those of the demo."""
    first = (project.data / "sources" / "crm_2026-01-05.csv").read_text(encoding="utf-8")
    header = first.splitlines()[0].split(",")
    project.inbox.mkdir(parents=True, exist_ok=True)
    with (project.inbox / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        for n in range(number):
            values = {
                "customer_id": f"{key}{n:05}", "first_name": f"Xan{'abcdefghij'[n % 10]}",
                "last_name": f"Quill{'abcdefghij'[n // 10 % 10]}or",
                "date_of_birth": f"{1 + n % 28:02}/11/{1931 + n % 9}", "email": f"{key.lower()}{n}@quillor.example",
                "street": f"{n} Nowhere Row", "city": "Lerwick", "postcode": "ZE1 0AA", "country": "GB", "status": "active",
                "modified_at": "2026-04-01 10:00:00",
            }  # fmt: skip
            writer.writerow(values | changes)


def test_fifty_new_rows_make_a_new_generation_and_leave_other_ids_alone(
    demo: Finished, grown: Project
) -> None:
    assert live(grown).number == 2
    with published(live(demo.project)) as before, published(live(grown)) as after:
        query = "select record_key, profile_id from source_records"
        old, new = dict(before.execute(query).fetchall()), dict(after.execute(query).fetchall())
        changed = {key for key in old if new.get(key) != old[key]}
        touched = {new[key] for key in new.keys() - old.keys()}
        assert len(new) == len(old) + 50
        assert all(new[key] in touched for key in changed), "an id changed far from the new rows"
        fields = "profile_id, given_name, family_name, email, phone, postcode, loyalty_tier, event_count"
        shown = [set(con.execute(f"select {fields} from profiles").fetchall()) for con in (before, after)]
        gone = {row[0] for row in shown[0] - shown[1]}
        assert gone <= touched, "a value changed far from the new rows"


def test_publish_diff_counts_what_changed(grown: Project) -> None:
    code, text = command(grown, "publish", "diff", "--json")
    found = json.loads(text)
    assert code == 0
    with published(live(grown)) as con:
        [(persons,)] = con.execute(
            "select count(distinct profile_id) from source_records where record_key like 'crm:N0%'"
        ).fetchall()
    assert 0 < found["new"] <= persons <= 50
    assert found["gone"] == 0


def test_rollback_makes_the_earlier_generation_live_and_says_what_follows(grown: Project) -> None:
    code, text = command(grown, "publish", "rollback", "--dry-run")
    assert (code, live(grown).number) == (0, 2)
    code, text = command(grown, "publish", "rollback", "--yes")
    assert (code, live(grown).number) == (0, 1), text
    code, text = command(grown, "publish", "list", "--json")
    assert [(row[0], row[1]) for row in json.loads(text)][-1] == (1, "live")
    code, text = command(grown, "publish", "rollback", "7", "--yes")
    assert (code, "no such generation" in text) == (1, True)


@pytest.mark.slow
def test_a_reverted_batch_is_as_if_it_had_never_come(demo: Finished, grown: Project) -> None:
    code, text = command(grown, "batch", "revert", "2", "--reason", "wrong file", "--yes")
    assert code == 0, text
    assert run(grown, "2026-04-03T00:00:00+00:00").success
    with published(live(demo.project)) as before, published(live(grown)) as after:
        query = "select * from source_records order by record_key"
        assert after.execute(query).fetchall() == before.execute(query).fetchall()
        query = "select * exclude (flagged) from profiles order by profile_id"
        assert after.execute(query).fetchall() == before.execute(query).fetchall()


def test_damage_to_a_published_file_is_noticed(grown: Project) -> None:
    first = publish.generations(grown)[-1]
    file = first.folder / "profiles.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert publish.verify(first) == ["profiles.parquet"]
    code, text = command(grown, "publish", "rollback", "--yes")
    assert (code, live(grown).number) == (1, 2)
    assert "damaged (profiles.parquet)" in " ".join(text.split())


# ---------------------------------------------------------------- what blocks


@pytest.fixture(scope="module")
def small_one(folder: Path) -> Project:
    """A small project of our own after a first run."""
    project = write_rules(folder / "small", LINKED)
    deliver(project, [customer(n) for n in range(30)], "1")
    assert run(project).success
    return project


@pytest.fixture
def small(small_one: Project, folder: Path) -> Iterator[Project]:
    """A copy of the small project."""
    with copy_of(small_one, folder) as project:
        yield project


@pytest.fixture(scope="module")
def full_one(folder: Path) -> Project:
    """A small project whose record source delivers everything each time, after a first run."""
    project = write_rules(folder / "full", LINKED)
    rules = project.rules / "sources.yaml"
    text = rules.read_text(encoding="utf-8").replace("write: replace", "write: replace\n    delivery: full")
    rules.write_text(text, encoding="utf-8")
    deliver(project, [customer(n) for n in range(30)], "1")
    assert run(project).success
    return project


@pytest.fixture
def full(full_one: Project, folder: Path) -> Iterator[Project]:
    """A copy of the small project with full deliveries."""
    with copy_of(full_one, folder) as project:
        yield project


def customer(n: int, **changes: str) -> Row:
    values = {"id": f"c{n}", "first": "Ann", "last": "Lee", "born": "", "email": f"p{n}@mail.org", "phone": "", "street": "",
              "city": "", "segment": "", "status": "active", "moment": "2026-03-01T00:00:00Z"}  # fmt: skip
    return Row("crm", tuple((values | changes).items()))


def _assert_blocked_until_reverted(project: Project, check: str) -> None:
    """Blocked now and at the next run without any change; reverting the batch heals."""
    before = live(project)
    result = run(project, "2026-04-02T00:00:00+00:00")
    assert not result.success
    assert [c.name for c in result.failed_checks if c.blocking] == [check]
    assert live(project).number == before.number
    assert publish.verify(before) == []
    code, text = command(project, "run", "--quiet")
    assert code == PENDING, text
    assert len(text.strip().splitlines()) == 2, text
    blocked, stays = text.strip().splitlines()
    assert blocked.startswith("blocked: ")
    assert f"{check}: batch 2: " in blocked, "the guard's own numbers come first"
    assert "`profile-pipeline batch revert 2`" in blocked
    assert stays == "the previous generation stays live"
    assert command(project, "batch", "revert", "2", "--reason", "refused", "--yes")[0] == 0
    healed = run(project, "2026-04-05T00:00:00+00:00")
    assert healed.success, healed
    assert parquet_hashes(live(project))["profiles.parquet"] == parquet_hashes(before)["profiles.parquet"]


def test_too_many_refused_rows_block_until_the_batch_is_reverted(small: Project) -> None:
    bad = [Row("crm", line=",No,Key,,,,,,,active,2026-03-02T00:00:00Z") for _ in range(5)]
    deliver(small, [*bad, *(customer(n) for n in range(40, 50))], "2")
    _assert_blocked_until_reverted(small, "error_share")


def test_a_far_smaller_full_delivery_blocks_until_it_is_reverted(full: Project) -> None:
    deliver(full, [customer(1)], "2")
    _assert_blocked_until_reverted(full, "volume")


def test_a_small_full_delivery_that_is_accepted_deletes_what_it_lacks(full: Project) -> None:
    deliver(full, [customer(1)], "2")
    assert not run(full, "2026-04-02T00:00:00+00:00").success
    result = run(full, "2026-04-03T00:00:00+00:00", accept_volume_change=True)
    assert result.success, result
    assert live(full).profile_count == 1


def test_a_delivery_under_a_known_name_with_other_content_blocks(small: Project) -> None:
    deliver(small, [customer(n, last="Other") for n in range(30)], "1")
    result = run(small, "2026-04-02T00:00:00+00:00")
    assert [c.name for c in result.failed_checks if c.blocking] == ["same_name_same_content"]
    assert live(small).number == 1


def test_a_critical_expectation_on_profiles_blocks_and_its_removal_heals(small: Project) -> None:
    suite = small.rules / "expectations" / "profiles.unified.yaml"
    suite.parent.mkdir()
    suite.write_text(
        "expectations:\n  - {name: no_lee, type: expect_column_values_to_not_be_in_set, severity: critical,"
        " kwargs: {column: family_name, value_set: [Lee]}}\n",
        encoding="utf-8",
    )
    result = run(small, "2026-04-02T00:00:00+00:00")
    assert [c.name for c in result.failed_checks if c.blocking] == ["no_lee"]
    assert live(small).number == 1
    suite.unlink()
    assert run(small, "2026-04-04T00:00:00+00:00").success


def test_every_run_is_in_the_dagster_history_with_its_numbers(small: Project) -> None:
    with instance_of(small) as instance:
        [record] = instance.get_run_records()
        assert record.dagster_run.is_success
        found = instance.get_latest_materialization_event(_key("profiles/unified"))
        assert found
        assert found.asset_materialization
        numbers = found.asset_materialization.metadata
        assert numbers["dagster/row_count"].value == 30
        assert numbers["persons"].value == 30


def _key(name: str):
    import dagster as dg

    return dg.AssetKey(name.split("/"))
