"""The command line on a small prepared project: exit codes, JSON, dry runs, and text that tries to be markup."""

import fcntl
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from profile_pipeline import publish, quality
from profile_pipeline.cli import app, main
from profile_pipeline.cli.shell import BUSY, PROBLEM
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project, project_at
from profile_pipeline.generate import DEMO_AS_OF
from profile_pipeline.raw import ledger
from profile_pipeline_tests.hand_made import all_hold, day, people
from profile_pipeline_tests.worlds import World, deliver, run_core, warehouse_of, write_rules

ANNA = {"id": "1", "first": "Anna", "last": "Meyer", "email": "anna@x.org", "segment": "gold"}
HOSTILE = {
    "id": "2",
    "first": "[red]Bob[/red]",
    "last": "[/b]",
    "email": "bob@x.org",
    "city": "[link=x]here[/link]",
    "segment": "\x1b[31m",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two batches, a generation after each."""
    project = write_rules(tmp_path_factory.mktemp("prepared"), World(()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", all_hold)
        for number, rows in enumerate(
            [people(ANNA, HOSTILE), people({**ANNA, "last": "Smith", "moment": "2026-03-05T00:00:00Z"})],
            start=1,
        ):
            deliver(project, rows, str(number))
            run_core(project, day(number))
            with warehouse_of(project) as con:
                publish.publish(con, load_config(project.rules), project, {})
    return project


@pytest.fixture
def project(prepared: Project, tmp_path: Path) -> Project:
    shutil.copytree(prepared.rules.parent, tmp_path / "p", symlinks=True)
    return project_at(tmp_path / "p")


def call(*arguments: object, answer: str = "") -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)


def on(project: Project, *arguments: object, answer: str = "") -> Result:
    return call(*arguments, "--project", project.rules.parent, answer=answer)


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def said(result: Result) -> str:
    """What a person read, without the line breaks of a narrow terminal."""
    return " ".join((result.stdout + result.stderr).split())


def state_of(project: Project) -> dict[str, str]:
    """Every file of a project by hash, and where the pointer leads."""
    folder = project.rules.parent
    found = {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }
    return {**found, "current": (project.published / "current").resolve().name}


# ---------------------------------------------------------------- reading


def test_help_names_every_command() -> None:
    result = call("--help")
    for name in (
        "run",
        "status",
        "init",
        "check",
        "lookup",
        "batch",
        "publish",
        "quarantine",
        "sources",
        "ui",
    ):
        assert name in ok(result)


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",), ("batch", "list"), ("publish", "list"), ("publish", "diff"), ("quarantine", "list"),
        ("lookup", "anna@x.org"), ("check",),
    ],
)  # fmt: skip
def test_reading_commands_answer_in_text_and_json_and_change_nothing(
    project: Project, arguments: tuple[str, ...]
) -> None:
    before = state_of(project)
    assert ok(on(project, *arguments)).strip()
    json.loads(ok(on(project, *arguments, "--json")))
    after = state_of(project)
    assert {name for name in before if after.get(name) != before[name]} <= {"data/state/warehouse.duckdb"}
    assert after["current"] == before["current"]


def test_status_names_the_live_generation_and_the_batches(project: Project) -> None:
    assert "live: generation 2" in ok(on(project, "status"))
    found = json.loads(ok(on(project, "status", "--json")))
    assert found["generation"] == 2
    assert [row[0] for row in found["batches"]] == [2, 1]
    assert found["refused"] == []


def test_lookup_shows_values_with_their_sources(project: Project) -> None:
    shown = ok(on(project, "lookup", " ANNA@X.ORG "))
    for text in ("found by email", "crm:1", "Smith", "only record"):
        assert text in shown
    [found] = json.loads(ok(on(project, "lookup", "anna@x.org", "--json")))
    assert found["values"]["family_name"] == "Smith"
    assert {row["rule"] for row in found["lineage"] if row["field"] == "family_name"} == {"only_record"}


def test_lookup_of_a_stranger_fails_and_says_so(project: Project) -> None:
    result = on(project, "lookup", "nobody@x.org")
    assert (result.exit_code, "no profile carries this identifier" in said(result)) == (PROBLEM, True)
    assert json.loads(on(project, "lookup", "nobody@x.org", "--json").stdout) == []


def test_text_that_looks_like_markup_is_shown_as_it_is(project: Project) -> None:
    result = on(project, "lookup", "bob@x.org")
    shown = "".join(ok(result).split())  # a narrow terminal wraps
    for text in ("[red]Bob[/red]", "[/b]", "[link=x]here[/link]"):
        assert text in shown
    assert "\x1b" not in result.output
    [found] = json.loads(ok(on(project, "lookup", "bob@x.org", "--json")))
    assert found["values"]["given_name"] == "[red]Bob[/red]"


def test_diff_counts_changed_people(project: Project) -> None:
    found: dict[str, Any] = json.loads(ok(on(project, "publish", "diff", "--json")))
    assert (found["new"], found["gone"], found["changed"], found["value of family_name"]) == (0, 0, 1, 1)


# ---------------------------------------------------------------- changing


@pytest.mark.parametrize(
    "arguments",
    [("batch", "revert", 2, "--reason", "wrong file"), ("publish", "rollback"), ("publish", "rollback", 1)],
)
def test_a_dry_run_and_a_no_change_nothing(project: Project, arguments: tuple[object, ...]) -> None:
    before = state_of(project)
    assert ok(on(project, *arguments, "--dry-run")).strip()
    refused = on(project, *arguments, answer="n\n")
    assert refused.exit_code == 0
    with warehouse_of(project) as con:
        assert ledger.files_of(con, 2) != []
    before.pop("data/state/warehouse.duckdb")
    assert before.items() <= state_of(project).items()


def test_rollback_makes_the_generation_before_live(project: Project) -> None:
    assert "live: generation 1" in ok(on(project, "publish", "rollback", "--yes"))
    assert [row[:2] for row in json.loads(ok(on(project, "publish", "list", "--json")))] == [
        [2, ""],
        [1, "live"],
    ]
    result = on(project, "publish", "rollback", "--yes")
    assert (result.exit_code, said(result)) == (
        PROBLEM,
        "error: no such generation to roll back to; on disk: 2, 1",
    )


def test_revert_takes_a_batch_out_once(project: Project) -> None:
    assert "reverted" in ok(on(project, "batch", "revert", 2, "--reason", "wrong file", "--yes"))
    assert json.loads(ok(on(project, "batch", "list", "--json")))[0]["taken_back"] is True
    result = on(project, "batch", "revert", 2, "--reason", "again", "--yes")
    assert result.exit_code == PROBLEM
    assert said(result).startswith("error: batch 2 has no loaded files")


def test_another_run_makes_every_writing_command_busy(project: Project) -> None:
    with (project.state / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for arguments in (
            ["status"],
            ["batch", "revert", 2, "--yes"],
            ["publish", "rollback", "--yes"],
            ["run"],
        ):
            result = on(project, *arguments)
            assert (result.exit_code, said(result).startswith("busy: another run holds this project")) == (
                BUSY,
                True,
            ), arguments
        assert ok(on(project, "lookup", "anna@x.org")), "readers do not wait"


# ---------------------------------------------------------------- a new project, and mistakes


def test_init_makes_a_project_that_checks(tmp_path: Path) -> None:
    assert f"{tmp_path}/new/rules/sources.yaml\n" in ok(call("init", tmp_path / "new"))
    assert (tmp_path / "new" / "rules" / "sources.yaml").exists()
    again = call("init", tmp_path / "new")
    assert (again.exit_code, again.stdout) == (PROBLEM, "")
    new = project_at(tmp_path / "new")
    assert on(new, "check").exit_code == 0
    for arguments in (["status"], ["batch", "list"], ["lookup", "x"], ["publish", "diff"]):
        result = on(new, *arguments)
        assert result.exit_code == PROBLEM
        assert said(result).startswith("error: ")
        assert "Traceback" not in said(result)


def test_init_in_a_folder_whose_name_is_markup(tmp_path: Path) -> None:
    assert "[red]x[/red]/rules/sources.yaml\n" in ok(call("init", tmp_path / "[red]x[/red]"))


def test_a_mistake_in_the_rules_is_one_line(project: Project) -> None:
    path = project.rules / "profiles.yaml"
    path.write_text(path.read_text().replace("least_recent", "'[bold]oldest[/bold]'"))
    for command in ("check", "run"):
        result = on(project, command)
        assert result.exit_code == PROBLEM
        assert said(result).startswith("error: profiles.yaml: policies.golden.fields.segment.choose")
        assert "[bold]oldest[/bold]" in said(result)
        assert "Traceback" not in said(result)
    found = json.loads(on(project, "check", "--json").stdout)
    assert {problem["severity"] for problem in found} == {"error"}


def test_an_unknown_batch_is_no_traceback(project: Project) -> None:
    result = on(project, "batch", "revert", 99, "--yes")
    assert (result.exit_code, "`profile-pipeline batch list` shows batches" in said(result)) == (
        PROBLEM,
        True,
    )


def test_only_the_first_run_of_the_demo_counts_the_end_of_its_data_as_now(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(main, "_run", lambda _, choices, **__: asked.append(choices["as_of"]) or 0)
    (tmp_path / "data" / "sources").mkdir(parents=True)
    monkeypatch.setenv("PROFILE_DATA", str(tmp_path / "data"))
    told = said(call("demo"))
    assert asked == [DEMO_AS_OF]
    assert DEMO_AS_OF[:16] in told
    monkeypatch.setenv("PROFILE_DATA", str(project.data))
    call("demo")  # something is published there
    monkeypatch.setenv("PROFILE_RULES", str(project.rules))
    monkeypatch.setenv("PROFILE_DATA", str(tmp_path / "data"))
    call("demo")  # these are not the demo's rules
    assert asked[1:] == ["", ""]
