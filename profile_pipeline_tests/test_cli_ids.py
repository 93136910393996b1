"""Profile ids from the command line, and the churn gate of a whole run: what blocks, waits, and is approved."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from profile_pipeline import profile_ids, publish, quality
from profile_pipeline.cli import app
from profile_pipeline.cli.shell import PENDING, PROBLEM
from profile_pipeline.config.project import Project
from profile_pipeline_tests.hand_made import all_hold, day, people
from profile_pipeline_tests.parcels import write_sharing
from profile_pipeline_tests.worlds import LINKED, deliver, ids_of, run_core, warehouse_of, write_rules

CHURN = "churn: {min_profiles: 10, max_retired: 0.1, max_moved: 0.5, max_minted: 0.5, max_changed_profiles: 0.5}\n"
NEXT_DAY = "2026-03-02T00:00:00Z"


def call(project: Project, *arguments: object, answer: str = "") -> Result:
    folder = str(project.rules.parent)
    return CliRunner().invoke(app, [*map(str, arguments), "--project", folder], input=answer)


def said(result: Result) -> str:
    return " ".join((result.stdout + result.stderr).split())


def answer(project: Project, *arguments: object) -> Any:
    result = call(project, *arguments, "--json")
    assert result.exit_code == 0, said(result)
    return json.loads(result.stdout)


def person(number: int, email: str = "", at: str = "2026-03-01T00:00:00Z") -> dict[str, str]:
    return {
        "id": str(number),
        "first": "Anna",
        "last": "Meyer",
        "email": email or f"p{number}@x.org",
        "moment": at,
    }


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the seconds that Great Expectations takes to load."""
    monkeypatch.setattr(quality, "validate", all_hold)
    return


def linked(folder: Path) -> Project:
    """People who share an e-mail address are one; little churn is allowed."""
    project = write_rules(folder, LINKED)
    with (project.rules / "identity.yaml").open("a", encoding="utf-8") as file:
        file.write(CHURN)
    return project


@pytest.fixture
def twelve(tmp_path: Path) -> Project:
    """Twelve people with a profile each."""
    project = linked(tmp_path / "p")
    deliver(project, people(*(person(n) for n in range(12))), "1")
    run_core(project, day(1))
    return project


def test_a_run_over_the_limits_publishes_nothing_until_it_is_approved(tmp_path: Path) -> None:
    project = linked(tmp_path / "p")
    deliver(project, people(*(person(n) for n in range(12))), "1")
    assert call(project, "run", "--as-of", "2026-04-01T00:00:00Z").exit_code == 0
    before = ids_of(project)

    deliver(project, people(*(person(n, "info@x.org", NEXT_DAY) for n in range(4)), person(99)), "2")
    blocked = call(project, "run", "--as-of", "2026-04-02T00:00:00Z")
    assert blocked.exit_code == PENDING, said(blocked)
    assert "3 of 12 profile ids would retire (25.0 %, limit 10 %)" in said(blocked)
    assert "profile-pipeline ids pending" in said(blocked)
    assert "one_profile_a_record" not in said(blocked), "one reason, not two"
    assert ids_of(project) == before
    live = publish.current(project)
    assert live
    assert (live.number, live.profile_count) == (1, 12)

    shown = said(call(project, "ids", "pending"))
    assert "run --approve" in shown
    assert "merged 3 3" in shown
    waiting = answer(project, "ids", "pending")
    assert {"change": "merged", "profiles": 3, "records_moved": 3} in waiting["totals"]
    assert {"change": "created", "profiles": 1, "records_moved": 0} in waiting["totals"]
    assert "info@x.org" not in json.dumps(waiting)

    approved = call(project, "run", "--as-of", "2026-04-02T00:00:00Z", "--approve")
    assert approved.exit_code == 0, said(approved)
    assert len(set(ids_of(project).values())) == 10
    live = publish.current(project)
    assert live
    assert (live.number, live.profile_count) == (2, 10)
    assert "no change of profile ids waits" in said(call(project, "ids", "pending"))
    [merged] = [key for key in ("crm:0",) if key in before]
    events = answer(project, "ids", "history", before[merged])["events"]
    assert {event["cause"] for event in events} == {"new_records", "approval"}


def test_the_end_of_a_run_tells_what_it_did_itself(tmp_path: Path) -> None:
    project = linked(tmp_path / "p")
    ship = {"to": {"type": "local", "folder": "shared/mail"}, "ship": {"s": {"table": "profiles"}}}
    write_sharing(project, {"mail": ship})
    deliver(project, people(person(1), person(2)), "1")
    first = said(call(project, "run", "--as-of", "2026-04-01T00:00:00Z"))
    assert "profile ids created 2" in first
    assert "published: generation 1 in" in first
    assert "shared: mail s, 2 rows" in first

    again = said(call(project, "run", "--as-of", "2026-04-02T00:00:00Z"))
    assert "nothing changed; generation 1 stays live" in again
    assert not any(word in again for word in ("profile ids created", "published:", "shared:")), again
    told = answer(project, "run", "--as-of", "2026-04-02T00:00:00Z")
    assert (told["generation"], told["published"], told["happened"]) == (1, False, {})

    deliver(project, people({**person(1, at=NEXT_DAY), "city": "Bath"}), "2")
    third = said(call(project, "run", "--as-of", "2026-04-03T00:00:00Z"))
    assert "published: generation 2 in" in third
    assert "shared: mail s, 2 rows" in third
    assert "profile ids created" not in third, "the record changed, no id did"


def test_history_and_successors_of_an_id(twelve: Project) -> None:
    before = ids_of(twelve)
    deliver(twelve, people(person(0, "p1@x.org", NEXT_DAY)), "2")
    run_core(twelve, day(2))
    after = ids_of(twelve)
    [lost] = {before["crm:0"], before["crm:1"]} - set(after.values())
    assert answer(twelve, "ids", "successors", lost) == [{"profile_id": after["crm:0"], "share": 1.0}]
    assert "merged" in said(call(twelve, "ids", "history", lost))
    assert "merged from" in said(call(twelve, "ids", "history", after["crm:0"]))
    causes = {(event["event"], event["cause"]) for event in answer(twelve, "ids", "history", lost)["events"]}
    assert causes == {("created", "new_records"), ("merged", "changed_records")}
    for command in ("history", "successors"):
        unknown = call(twelve, "ids", command, "nobody")
        assert unknown.exit_code == PROBLEM
        assert "never given out" in said(unknown)


def test_pin_and_unpin(twelve: Project) -> None:
    before = ids_of(twelve)
    profile = before["crm:0"]
    assert (
        call(twelve, "ids", "pin", profile, "crm:1", "--author", "eva", "--reason", "printed").exit_code == 0
    )
    assert answer(twelve, "ids", "history", profile)["pin"]["author"] == "eva"
    run_core(twelve, day(2))
    assert ids_of(twelve)["crm:1"] == profile
    assert "printed" in said(call(twelve, "ids", "unpin", profile, "--dry-run"))
    assert call(twelve, "ids", "unpin", profile, answer="n\n").exit_code == 0
    assert answer(twelve, "ids", "history", profile)["pin"]
    assert call(twelve, "ids", "unpin", profile, "--yes").exit_code == 0
    assert call(twelve, "ids", "unpin", profile, "--yes").exit_code == PROBLEM
    assert call(twelve, "ids", "pin", profile, "crm:no").exit_code == PROBLEM


def test_a_ledger_that_never_waited_has_an_empty_table(twelve: Project) -> None:
    with warehouse_of(twelve) as con:
        assert profile_ids.pending(con) == []
    assert answer(twelve, "ids", "pending") == {"over": [], "totals": [], "changes": []}
