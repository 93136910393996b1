"""Generations on disk: idempotent, atomic, checksummed, reversible; and the analyst's contract, the dictionary."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from profile_pipeline import dictionary, publish, quality
from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import PACKAGE_RULES, Project, project_at
from profile_pipeline.defs.graph import build_definitions
from profile_pipeline.errors import PipelineError
from profile_pipeline.publish import Generation, current, generations, rolled_back
from profile_pipeline.raw.ledger import sha256_of
from profile_pipeline.warehouse import columns_of, rows, table_exists
from profile_pipeline_tests.hand_made import all_hold, day, people
from profile_pipeline_tests.worlds import World, deliver, parquet_hashes, run_core, warehouse_of, write_rules

FIRST = people(
    {"id": "1", "first": "Anna", "last": "Meyer", "email": "ANNA@x.org", "segment": "gold"},
    {"id": "2", "first": "O'Brien", "last": "[red]", "email": "ob@x.org", "city": "Köln"},
    {"id": "3", "first": "Gone", "last": "Soon", "email": "gone@x.org"},
)
SECOND = people(
    {
        "id": "1",
        "first": "Anne",
        "last": "Meyer",
        "email": "anna@x.org",
        "segment": "silver",
        "moment": "2026-03-02T00:00:00Z",
    },
    {"id": "3", "status": "deleted", "moment": "2026-03-02T00:00:00Z"},
    {"id": "4", "first": "New", "last": "Person", "email": "new@x.org"},
)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Generator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", all_hold)
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first batch, published once."""
    project = write_rules(tmp_path_factory.mktemp("first"), World(()))
    deliver(project, FIRST, "1")
    run_core(project, day(1))
    publish_now(project)
    return project


@pytest.fixture(scope="module")
def second(first: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same after a second batch that changes, adds and removes people."""
    project = copy_of(first, tmp_path_factory.mktemp("second") / "p")
    deliver(project, SECOND, "2")
    run_core(project, day(2))
    publish_now(project)
    return project


@pytest.fixture
def project(first: Project, tmp_path: Path) -> Project:
    return copy_of(first, tmp_path / "p")


@pytest.fixture
def changed(second: Project, tmp_path: Path) -> Project:
    return copy_of(second, tmp_path / "p")


def copy_of(project: Project, folder: Path) -> Project:
    shutil.copytree(project.rules.parent, folder, symlinks=True)
    return project_at(folder)


def publish_now(project: Project, change: str = "", **rules: Any) -> Generation:
    """Publish; `change` is a new fingerprint for a table, as if it had been written anew."""
    config = load_config(project.rules)
    publication = config.publication.model_copy(update=rules)
    with warehouse_of(project) as con:
        if change:
            con.execute("update state.built set fingerprint = ? where name = 'profiles.unified'", [change])
        return publish.publish(
            con, config.model_copy(update={"publication": publication}), project, {"expectations": 3}
        )


def roll_back(project: Project, number: int | None = None) -> None:
    publish.withhold_newest(project)
    publish.point_to(project, publish.rollback_target(project, number).folder)


def bytes_in(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def live_number(project: Project) -> int:
    live = current(project)
    assert live
    return live.number


def withheld(project: Project) -> int | None:
    newest = rolled_back(project)
    return newest.number if newest else None


# ---------------------------------------------------------------- publishing


def test_nothing_is_published_when_nothing_changed(project: Project) -> None:
    before = bytes_in(project.published)
    assert publish_now(project).number == 1
    assert bytes_in(project.published) == before


@pytest.mark.parametrize("change", ["warehouse", "parquet", "description"])
def test_a_change_of_anything_published_makes_a_generation(project: Project, change: str) -> None:
    if change == "description":
        path = project.rules / "sources.yaml"
        path.write_text(
            path.read_text().replace("{type: city}", "{type: city, description: Where they live.}")
        )
    found = publish_now(project, change="x" if change == "warehouse" else "", parquet=change != "parquet")
    assert (found.number, live_number(project)) == (2, 2)


def test_a_generation_holds_the_same_bytes_wherever_it_is_made(project: Project) -> None:
    [only] = generations(project)
    again = publish_now(project, change="x")
    assert parquet_hashes(again) == parquet_hashes(only)
    assert publish.checksum_of(again) == publish.checksum_of(only)


def test_the_manifest_tells_bytes_hash_and_rows_of_every_file(project: Project) -> None:
    [live] = generations(project)
    found = {path.name for path in live.folder.iterdir()} - {"manifest.json"}
    assert set(live.manifest["files"]) == found
    for name, entry in live.manifest["files"].items():
        path = live.folder / name
        assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, sha256_of(path))
        counted = pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None
        assert entry["rows"] == counted
        if counted is not None:
            assert live.manifest["tables"][path.stem]["rows"] == counted
    assert live.profile_count == 3
    assert live.manifest["checks"] == {"expectations": 3}
    assert live.manifest["policies"] == {"golden": 1, "newest": 1, "ranked": 1}
    assert (live.manifest["batch"], live.manifest["revision"]) == (1, 1)
    assert live.manifest["as_of"] == day(1).isoformat()


def test_every_table_has_its_grain_and_order(project: Project) -> None:
    [live] = generations(project)
    with duckdb.connect(str(live.folder / publish.DATABASE), read_only=True) as con:
        for name, table in live.manifest["tables"].items():
            grain = table["grain"]
            twice = rows(con, f"select {grain} from {name} group by {grain} having count(*) > 1")
            assert not twice, f"{name} is not one row a {grain}"


def test_files_and_folders_are_private(project: Project) -> None:
    assert project.published.stat().st_mode & 0o077 == 0
    assert (project.published / "gen-000001").stat().st_mode & 0o077 == 0


def test_an_older_client_reads_the_file(project: Project) -> None:
    cli = Path(sys.executable).with_name("duckdb")
    if not cli.exists():
        pytest.skip("the package duckdb-cli is not installed")
    assert "v1." in subprocess.run([cli, "--version"], capture_output=True, text=True, check=True).stdout
    query = "select given_name, identity_map['email'][1] from profiles order by profile_id"
    done = subprocess.run(
        [cli, "-readonly", "-json", project.published / "current" / publish.DATABASE, query],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {row["given_name"] for row in json.loads(done.stdout)} == {"Anna", "O'Brien", "Gone"}


# ---------------------------------------------------------------- interrupted, damaged, too many


def test_what_a_killed_publication_left_is_removed(project: Project) -> None:
    for name in (".building-000002", "gen-000007"):
        (project.published / name).mkdir()
        (project.published / name / "profiles.duckdb").write_text("half")
    (project.published / ".current-99").symlink_to("gen-000007")
    (project.published / "gen-notes").mkdir()
    publish_now(project)
    assert {path.name for path in project.published.iterdir()} == {"gen-000001", "gen-notes", "current"}
    assert publish_now(project, change="x").number == 2


def test_the_live_folder_is_never_removed_not_even_without_manifest(project: Project) -> None:
    (project.published / "gen-000001" / "manifest.json").unlink()
    assert publish_now(project).number == 2
    assert live_number(project) == 2
    publish_now(project)
    assert [g.number for g in generations(project)] == [2]


@pytest.mark.parametrize("step", ["_write_parquet", "sync", "point_to"])
def test_readers_keep_the_old_generation_when_publishing_fails(
    project: Project, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = bytes_in(project.published / "gen-000001")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(publish, step, fail)
    with pytest.raises(OSError, match="disk full"):
        publish_now(project, change="x")
    monkeypatch.undo()
    assert live_number(project) == 1
    assert bytes_in(project.published / "gen-000001") == before
    after = publish_now(project)
    assert (live_number(project), publish.verify(after)) == (after.number, [])
    assert not list(project.published.glob(".building-*"))


def test_verify_finds_a_flipped_byte_and_a_missing_file(project: Project) -> None:
    live = current(project)
    assert live
    assert publish.verify(live) == []
    path = live.folder / "profiles.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (live.folder / "links.parquet").unlink()
    assert publish.verify(live) == ["links.parquet", "profiles.parquet"]


def test_retention_keeps_the_newest_and_never_removes_the_live_one(project: Project) -> None:
    rules = {"keep_generations": 2, "parquet": False}
    publish_now(project, change="a", **rules)
    publish_now(project, change="b", **rules)
    assert [g.number for g in generations(project)] == [3, 2]
    roll_back(project, 2)
    publish._remove_old(project, 1)
    assert [g.number for g in generations(project)] == [3, 2], "the live one stays, beyond the limit or not"
    publish_now(project, change="c", **rules)
    assert ([g.number for g in generations(project)], live_number(project)) == ([4, 3], 4)


def test_deleted_rows_give_their_room_back_now_and_then(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(publish, "vacuum", asked.append)
    monkeypatch.setattr(publish, "GENERATIONS_BETWEEN_VACUUMS", 3)
    for change in "abcd":
        publish_now(project, change=change, parquet=False)
    assert (live_number(project), len(asked)) == (5, 1)


def test_a_half_removed_generation_does_not_count(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_now(project, change="a")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(publish.shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        publish_now(project, change="b", keep_generations=2)
    assert [g.number for g in generations(project)] == [3, 2]


# ---------------------------------------------------------------- rollback


def test_a_rollback_holds_until_there_is_something_else_to_publish(project: Project) -> None:
    publish_now(project, change="bad")
    roll_back(project)
    assert (live_number(project), withheld(project)) == (1, 2)
    assert publish_now(project).number == 1, "the run has the content that was rolled back"
    assert live_number(project) == 1
    assert publish_now(project, change="mended").number == 3, "above every number on disk"
    assert (live_number(project), withheld(project)) == (3, None)


def test_a_rolled_back_generation_can_be_made_live_again(project: Project) -> None:
    publish_now(project, change="good after all")
    roll_back(project)
    roll_back(project, 2)
    assert (live_number(project), withheld(project)) == (2, None)
    assert publish_now(project).number == 2


def test_a_rollback_target_is_intact_and_exists(project: Project) -> None:
    with pytest.raises(PipelineError, match="no such generation to roll back to; on disk: 1"):
        publish.rollback_target(project)
    with pytest.raises(PipelineError, match="on disk: 1"):
        publish.rollback_target(project, 9)
    publish_now(project, change="x")
    (project.published / "gen-000001" / "dictionary.md").write_text("other")
    with pytest.raises(PipelineError, match=r"generation 1 is damaged \(dictionary\.md\); choose another"):
        publish.rollback_target(project)


# ---------------------------------------------------------------- difference


def test_difference_counts_people_and_values(changed: Project) -> None:
    assert publish.difference(changed) == {
        "new": 1, "gone": 1, "changed": 1,
        "value of given_name": 1, "value of last_observed_at": 1, "value of first_observed_at": 1, "value of segment": 1,
    }  # fmt: skip


def test_difference_needs_two_generations(project: Project) -> None:
    with pytest.raises(PipelineError, match="two generations are needed"):
        publish.difference(project)
    publish_now(project, change="x")
    assert publish.difference(project) == {"new": 0, "gone": 0, "changed": 0}


def test_difference_compares_the_fields_both_have(project: Project) -> None:
    path = project.rules / "sources.yaml"
    path.write_text(
        path.read_text().replace("  city: {type: city}", "  city: {type: city}\n  extra: {type: text}")
    )
    run_core(project, day(2))
    assert publish_now(project).number == 2
    assert publish.difference(project) == {"new": 0, "gone": 0, "changed": 0}


# ---------------------------------------------------------------- the dictionary


def test_profiles_are_explained_in_the_published_file(changed: Project) -> None:
    with duckdb.connect(str(changed.published / "current" / publish.DATABASE), read_only=True) as con:
        unexplained = rows(
            con,
            "select table_name, column_name from duckdb_columns() where not internal and coalesce(comment, '') = ''",
        )
        tables = rows(
            con, "select table_name from duckdb_tables() where not internal and coalesce(comment, '') = ''"
        )
    assert (unexplained, tables) == ([], [])
    described = json.loads((changed.published / "current" / "dictionary.json").read_text())
    [profiles] = [table for table in described if table["name"] == "profiles"]
    personal = {column["name"] for column in profiles["columns"] if column["personal"]}
    assert {"given_name", "email", "birth_date", "identity_map"} <= personal
    assert not personal & {"profile_id", "kind", "record_count", "policy"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The demo rules without a single delivery: every table exists, and is empty."""
    project = Project(rules=PACKAGE_RULES, data=tmp_path_factory.mktemp("demo"))
    for folder in project.deliveries:
        folder.mkdir(parents=True)
    run_core(project, day(1))
    return project


def check_demo(demo: Project, look: Callable[[Any, Config], None]) -> None:
    with warehouse_of(demo) as con:
        look(con, load_config(demo.rules))


def test_every_published_column_of_the_demo_is_described(demo: Project) -> None:
    def look(con: Any, config: Config) -> None:
        described = dictionary.describe(con, config, dictionary.published_tables(config))
        missing = [
            (t["name"], c["name"]) for t in described for c in t["columns"] if not c["description"].strip()
        ]
        assert missing == []
        assert all(table["description"] and table["grain"] for table in described)
        page = dictionary.as_markdown(described)
        assert page.count("\n## ") == len(described)

    check_demo(demo, look)


def test_nothing_in_the_dictionary_is_stale(demo: Project) -> None:
    def look(con: Any, config: Config) -> None:
        texts = dictionary._descriptions()
        tables = dictionary.published_tables(config)
        published = {table.described_as: set(columns_of(con, f"({table.query})")) for table in tables}
        assert set(texts) - {"common", "internal"} == set(published)
        for table, columns in published.items():
            assert set(texts[table]["columns"]) <= columns, table
        for table, columns in texts["internal"].items():
            assert set(columns) <= set(columns_of(con, table)), table
        internal = {
            name for (name,) in rows(con, "select column_name from duckdb_columns() where not internal")
        }
        assert set(texts["common"]) <= internal | set().union(*published.values())

    check_demo(demo, look)


def test_every_column_shown_in_dagster_is_described(demo: Project) -> None:
    def look(con: Any, config: Config) -> None:
        keys = [key.path for key in build_definitions(config, demo).resolve_all_asset_keys()]
        tables = [".".join(path) for path in keys if path[0] not in {"published", "shared"}]
        assert all(table_exists(con, table) for table in tables)
        delivered = {f"raw.{name}" for name in config.sources}
        missing = [
            f"{table}.{column}"
            for table in tables
            for column in columns_of(con, table)
            if not dictionary.describe_internal(config, table, column)
            and not (table in delivered and column in config.sources[table[4:]].columns)
        ]
        assert missing == []

    check_demo(demo, look)


def test_policy_and_audience_texts_reach_the_analyst(demo: Project) -> None:
    def look(con: Any, config: Config) -> None:
        [table] = [t for t in dictionary.published_tables(config) if t.name == "audiences"]
        consents = dict(rows(con, f"select audience, consent from ({table.query})"))
        assert consents["reachable_by_email"] == "marketing_consent"
        assert dictionary.published_as("profiles.unified_newest") == "profiles"
        assert dictionary.published_as("metrics.fields") == "metrics_fields"
        assert dictionary.published_as("identity.nodes") == "identity.nodes"

    check_demo(demo, look)


@pytest.mark.parametrize(
    ("table", "column", "personal"),
    [
        ("profiles", "email", True), ("profiles", "loyalty_tier", False), ("profiles", "record_count", False),
        ("records.current", "given_name", True), ("records.current", "raw", True), ("records.crm", "segment", False),
        ("raw.crm", "last_name", True), ("raw.crm", "_line", False), ("raw.files", "name", False),
        ("links", "right_key", True), ("quarantine_summary", "reason", False), ("records.quarantine", "content", True),
        ("metrics_fields", "field", False), ("profile_lineage", "value", True), ("profile_events", "payload", True),
    ],
)  # fmt: skip
def test_personal_columns_are_known(table: str, column: str, personal: bool) -> None:
    assert dictionary.is_personal(load_config(PACKAGE_RULES), table, column) is personal


def test_a_project_without_audiences_publishes_an_empty_table(demo: Project) -> None:
    def look(con: Any, config: Config) -> None:
        none = config.model_copy(update={"audiences": config.audiences.model_copy(update={"audiences": {}})})
        [table] = [t for t in dictionary.published_tables(none) if t.name == "audiences"]
        assert rows(con, table.query) == []

    check_demo(demo, look)


def test_column_texts_are_sentences_that_fit_a_table_cell() -> None:
    texts = dictionary._descriptions()
    columns = [texts["common"], *texts["internal"].values()]
    columns += [entry["columns"] for table, entry in texts.items() if table not in {"common", "internal"}]
    found = [text for table in columns for text in table.values()]
    assert len(found) > 100
    assert not [text for text in found if "|" in text or not text.endswith(".")]
