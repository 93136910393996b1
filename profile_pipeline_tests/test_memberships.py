"""Members of audiences published ahead of the generation: what they are, and that a rollback takes them along."""

import json
import shutil
from collections.abc import Generator
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from profile_pipeline import memberships, publish, quality
from profile_pipeline.cli import app
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project, project_at
from profile_pipeline.raw.ledger import sha256_of
from profile_pipeline_tests.hand_made import all_hold, day, people
from profile_pipeline_tests.worlds import World, deliver, run_core, warehouse_of, write_rules

Members = list[tuple[str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Generator[Project]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", all_hold)
        project = write_rules(tmp_path_factory.mktemp("made"), World(()))
        deliver(project, people({"id": "1", "first": "Ann", "moment": "2026-03-01T00:00:00Z"}), "1")
        run_core(project, day(1))
        yield project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    return project_at(Path(shutil.copytree(made.rules.parent, tmp_path / "p", symlinks=True)))


def publish_members(project: Project, members: str, *, generation: bool = False) -> memberships.Memberships:
    """Publish these members, a letter each, of one audience, as if a run had found them; z has left."""
    with warehouse_of(project) as con:
        con.execute("delete from audiences.membership")
        for name in members + "z":
            exited = "'2026-03-02'" if name == "z" else "null"
            stay = f"'all', '{name}', '2026-03-01', {exited}"
            con.execute(
                f"insert into audiences.membership (audience, profile_id, entered_at, exited_at) values ({stay})"
            )
        con.execute("update state.built set fingerprint = ? where name = 'audiences.membership'", [members])
        found = memberships.publish(con, project)
        if generation:
            publish.publish(con, load_config(project.rules), project, {})
        return found


def live_members(project: Project) -> str:
    """What a reader of the pointer finds, whose bytes are those of the manifest."""
    folder = project.published / "memberships" / "current"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["files"]["members.parquet"]["sha256"] == sha256_of(folder / "members.parquet")
    found = duckdb.sql(f"select audience, profile_id from '{folder}/members.parquet'").fetchall()
    assert manifest["audiences"] == ({"all": len(found)} if found else {})
    return "".join(profile_id for _, profile_id in found)


def roll_back(project: Project, *number: str) -> None:
    done = CliRunner().invoke(
        app, ["publish", "rollback", *number, "--project", str(project.rules.parent), "--yes"]
    )
    assert done.exit_code == 0, done.output


def test_members_are_those_who_are_in_now_in_order(project: Project) -> None:
    found = publish_members(project, "ba")
    assert live_members(project) == "ab"
    assert (found.manifest["batch"], found.manifest["as_of"][:10]) == (1, day(1).date().isoformat())


def test_the_generation_of_the_batch_has_the_same_members(project: Project) -> None:
    publish_members(project, "ba", generation=True)
    own = "select profile_id from audience_membership where exited_at is null order by 1"
    with duckdb.connect(project.published / "current" / "profiles.duckdb", read_only=True) as con:
        assert "".join(name for (name,) in con.execute(own).fetchall()) == live_members(project)


def test_status_names_memberships_that_are_ahead(project: Project) -> None:
    publish_members(project, "a", generation=True)
    status = ["status", "--project", str(project.rules.parent)]
    assert "memberships" not in CliRunner().invoke(app, status).output, "they say the same as the generation"
    manifest = project.published / "memberships" / "current" / "manifest.json"
    ahead = json.loads(manifest.read_text(encoding="utf-8")) | {"as_of": "2026-05-01T00:00:00+00:00"}
    manifest.write_text(json.dumps(ahead), encoding="utf-8")
    assert "memberships of audiences: as of 2026-05-01" in CliRunner().invoke(app, status).output
    assert json.loads(CliRunner().invoke(app, [*status, "--json"]).output)["memberships"] == 1


def test_the_same_members_are_not_published_again(project: Project) -> None:
    first = publish_members(project, "a")
    assert publish_members(project, "a").folder == first.folder
    assert publish_members(project, "ab").folder != first.folder
    assert live_members(project) == "ab"


def test_nobody_in_an_audience_is_published_too(project: Project) -> None:
    publish_members(project, "")
    assert live_members(project) == ""


def test_a_rollback_brings_its_members_until_a_run_finds_others(project: Project) -> None:
    publish_members(project, "a", generation=True)
    publish_members(project, "ab", generation=True)
    roll_back(project)
    assert live_members(project) == "a"
    publish_members(project, "ab")
    assert live_members(project) == "a", "these were rolled back"
    publish_members(project, "abc", generation=True)
    assert live_members(project) == "abc"


def test_a_rollback_of_a_rollback_brings_back_the_members(project: Project) -> None:
    publish_members(project, "a", generation=True)
    publish_members(project, "ab", generation=True)
    roll_back(project)
    roll_back(project, "2")
    assert live_members(project) == "ab"
    publish_members(project, "ab")
    assert live_members(project) == "ab"


def test_what_a_killed_publication_left_goes_and_older_states_with_it(project: Project) -> None:
    home = publish_members(project, "a").folder.parent
    (home / ".building-000007").mkdir()
    (home / ".current-1").symlink_to("000001")
    for members in ("ab", "abc", "abcd", "abcde"):
        publish_members(project, members)
    assert sorted(path.name for path in home.iterdir()) == ["000003", "000004", "000005", "current"]
    assert live_members(project) == "abcde"


def test_a_failed_write_leaves_the_members_that_were_live(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_members(project, "a")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(memberships, "sync", fail)
    with pytest.raises(OSError, match="disk full"):
        publish_members(project, "ab")
    assert live_members(project) == "a"


def test_folders_are_private(project: Project) -> None:
    folder = publish_members(project, "a").folder
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]
