"""Lookup: any identifier in any spelling, profile ids living and retired, record keys; with the lineage behind."""

from pathlib import Path

import pytest

from profile_pipeline import publish, quality
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError
from profile_pipeline.lookup import Found, lookup
from profile_pipeline_tests.hand_made import all_hold, day, people
from profile_pipeline_tests.worlds import World, deliver, ids_of, run_core, warehouse_of, write_rules

ANNA = {
    "id": "C-1a",
    "first": "Anna",
    "last": "Meyer",
    "email": "Anna.Meyer@Example.org",
    "phone": "020 7946 0123",
    "segment": "gold",
}
ALSO = {"id": "C-2", "first": "ANNA", "last": "MEYER", "email": "am@x.org", "moment": "2026-02-01T00:00:00Z"}
HOUSE = [{"id": f"H-{n}", "first": f"P{n}", "last": "Quinn", "phone": "020 7946 0999"} for n in range(3)]


@pytest.fixture(scope="module")
def found_ids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str, str]:
    """A project in which two profiles became one: (project, living id, retired id)."""
    project = write_rules(tmp_path_factory.mktemp("lookup"), World(()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", all_hold)
        deliver(project, people(ANNA, ALSO, *HOUSE), "1")
        run_core(project, day(1))
        before = ids_of(project)
        deliver(
            project,
            people({**ALSO, "email": "anna.meyer@example.org", "moment": "2026-02-02T00:00:00Z"}),
            "2",
        )
        run_core(project, day(2))
    config = load_config(project.rules)
    with warehouse_of(project) as con:
        publish.publish(con, config, project, {})
    [living] = {ids_of(project)["crm:C-1a"]}
    [retired] = {before["crm:C-1a"], before["crm:C-2"]} - {living}
    return project, living, retired


@pytest.fixture
def project(found_ids: tuple[Project, str, str]) -> Project:
    return found_ids[0]


def ask(project: Project, text: str) -> list[Found]:
    return lookup(load_config(project.rules), project, text)


@pytest.mark.parametrize(
    ("text", "found_by"),
    [
        ("anna.meyer@example.org", "email"),
        ("  ANNA.Meyer@EXAMPLE.org ", "email"),
        ("+442079460123", "phone"),
        ("020 7946 0123", "phone"),
        ("(020) 7946-0123", "phone"),
        ("c-1A", "crm_id"),
        ("C-2", "crm_id"),
        ("crm:C-1a", "source record"),
    ],
)
def test_any_spelling_of_an_identifier_finds_the_person(
    found_ids: tuple[Project, str, str], text: str, found_by: str
) -> None:
    project, living, _ = found_ids
    [found] = ask(project, text)
    assert (found.profile_id, found.found_by) == (living, found_by)


@pytest.mark.parametrize("spell", [str, str.upper])
def test_ids_living_and_retired_lead_to_the_living_profile(
    found_ids: tuple[Project, str, str], spell: type
) -> None:
    project, living, retired = found_ids
    assert [(f.profile_id, f.found_by) for f in ask(project, spell(living))] == [(living, "profile id")]
    assert [(f.profile_id, f.found_by) for f in ask(project, spell(retired))] == [(living, "retired id")]


@pytest.mark.parametrize(
    "text", ["", "   ", "nobody@example.org", "%", "' or 1=1 --", "crm:", "x" * 5000, "\x00", "n/a"]
)
def test_what_nobody_carries_finds_nobody(project: Project, text: str) -> None:
    assert ask(project, text) == []


def test_a_shared_identifier_finds_all_who_share_it_in_order(project: Project) -> None:
    found = ask(project, "020 7946 0999")
    assert len(found) == 3
    assert [f.profile_id for f in found] == sorted(f.profile_id for f in found)


def test_every_value_comes_with_its_source_and_rule(project: Project) -> None:
    [found] = ask(project, "c-1a")
    assert found.values["given_name"] == "Anna"
    assert found.values["policy"] == "golden"
    lineage = {row["field"]: row for row in found.lineage}
    assert lineage["segment"]["value"] == "gold"
    assert lineage["segment"]["record_key"] == "crm:C-1a"
    assert lineage["given_name"]["rule"] == "all_agree", "capitals are the same name"
    shown = {field for field, value in found.values.items() if field in lineage and value is not None}
    assert shown == {row["field"] for row in found.lineage if row["value"] is not None}
    [email] = [row for row in found.identifiers if row["namespace"] == "email"]
    assert email["raw_values"] == ["Anna.Meyer@Example.org", "anna.meyer@example.org"]


def test_before_the_first_publication_there_is_nothing_to_look_into(project: Project, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="nothing is published yet; `profile-pipeline run`"):
        lookup(load_config(project.rules), Project(project.rules, tmp_path), "x")
