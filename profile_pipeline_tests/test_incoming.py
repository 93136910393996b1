"""Lookup of an incoming record: it is scored exactly as a run would score it, and nothing changes."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from profile_pipeline.cli import app
from profile_pipeline.cli.shell import PROBLEM
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError
from profile_pipeline.identity.blocking import every_key_query
from profile_pipeline.identity.incoming import Incoming, find_person
from profile_pipeline.identity.model import active_model
from profile_pipeline.warehouse import count, records_of
from profile_pipeline_tests.town import SWITCHBOARD, build_town, contents, town
from profile_pipeline_tests.worlds import ids_of, warehouse_of

FIELDS = {
    "given_name": "first", "family_name": "last", "birth_date": "born", "email": "email", "phone": "phone",
    "street": "street", "city": "city",
}  # fmt: skip
SMALL_BLOCKS = "{floor: -30, max_block: 2}"
"""Many blocks are refined."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return build_town(tmp_path_factory.mktemp("town"), SMALL_BLOCKS)


def ask(project: Project, source: str | None = None, **record: str) -> Incoming:
    with warehouse_of(project) as con:
        return find_person(con, load_config(project.rules), record, source=source)


def delivered(key: str) -> dict[str, str]:
    """A row of the CRM as a record of profile fields."""
    [row] = [row for row in town() if row["id"] == key]
    return {field: row[column] for field, column in FIELDS.items() if row[column]}


def call(project: Project, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["lookup", *arguments, "--project", str(project.rules.parent)])


def said(result: Result) -> str:
    return " ".join((result.stdout + result.stderr).split())


# ---------------------------------------------------------------- as a run would


@pytest.mark.parametrize("key", ["a0", "b2", "b4", "a6", "a31", "s1"])
def test_a_record_is_compared_with_whom_a_run_compares_it_and_scored_alike(
    project: Project, key: str
) -> None:
    own = f"crm:{key}"
    with warehouse_of(project) as con:
        edges = records_of(
            con,
            """select if(left_key = own, right_key, left_key) as other, match_weight, accepted
            from identity.edges cross join (select ? as own)
            where type = 'probabilistic' and not closure and own in (left_key, right_key)""",
            [own],
        )
    found = ask(project, "crm", **delivered(key))
    near = {record.record_key: record for candidate in found.candidates for record in candidate.records}
    assert set(near) - {own} == {edge["other"] for edge in edges}
    for edge in edges:
        assert near[edge["other"]].score.weight == pytest.approx(edge["match_weight"], abs=1e-9)
        assert near[edge["other"]].is_link == edge["accepted"]


def test_every_stored_key_is_one_that_an_incoming_record_would_get(project: Project) -> None:
    """Keys in use after any number of refinements are found; here many are refined."""
    with warehouse_of(project) as con:
        model = active_model(con)
        assert model
        possible = every_key_query(model.rules(load_config(project.rules)), "identity.features")
        unknown = f"key is not null and (rule, key, unique_id) not in (select (rule, key, unique_id) from ({possible}))"
        assert count(con, "identity.blocking_keys", "key <> base") > 20
        assert count(con, "identity.blocking_keys", unknown) == 0


# ---------------------------------------------------------------- who is found


def test_a_record_that_is_known_finds_its_profile(project: Project) -> None:
    found = ask(project, **delivered("a4"))
    best = found.candidates[0]
    assert best.profile_id == ids_of(project)["crm:a4"]
    assert best.match_probability is not None
    assert 0.99 < best.match_probability < 1
    assert best.is_link
    assert best.records[0].record_key == "crm:a4"
    assert [(item.namespace, item.links) for item in best.shared if item.namespace == "email"] == [
        ("email", False)
    ]
    weights = [candidate.records[0].score.weight for candidate in found.candidates if candidate.records]
    assert weights == sorted(weights, reverse=True)


def test_a_misspelt_record_finds_its_profile(project: Project) -> None:
    misspelt = delivered("a4") | {"given_name": " EGGON", "family_name": "Smyth", "phone": "", "street": ""}
    best = ask(project, **misspelt).candidates[0]
    assert best.profile_id == ids_of(project)["crm:a4"]
    assert best.match_probability is not None
    assert best.match_probability > 0.99
    levels = {part.comparison: part.level for part in best.records[0].score.parts}
    assert levels["given"] == "one edit"


def test_values_are_normalised_as_the_pipeline_does(project: Project) -> None:
    found = ask(
        project, given_name="  ÉGON ", email="Egon.Smith4@X.org", phone="020 7946 0101", birth_date="n/a"
    )
    assert found.values == {"given_name": "egon", "email": "egon.smith4@x.org", "phone": "+442079460101"}
    assert found.identifiers == {"email": ["egon.smith4@x.org"], "phone": ["+442079460101"]}
    assert found.unread == ("birth_date",)


def test_a_linking_identifier_decides(project: Project) -> None:
    found = ask(project, crm_id=" a7 ", given_name="Somebody")
    best = found.candidates[0]
    assert best.profile_id == ids_of(project)["crm:a7"]
    assert (best.match_probability, best.is_link) == (1.0, True)
    assert [(item.namespace, item.value, item.links) for item in best.shared] == [("crm_id", "A7", True)]


def test_a_shared_address_is_evidence_only(project: Project) -> None:
    """Known from events too, and without anything that matching could compare."""
    best = ask(project, email="bert.meyer1@x.org").candidates[0]
    assert best.profile_id == ids_of(project)["crm:a1"]
    [shared] = best.shared
    assert (shared.record_count, shared.links) == (2, False)


def test_generic_values_are_set_aside(project: Project) -> None:
    found = ask(project, phone=SWITCHBOARD, given_name="Nobody")
    assert found.set_aside == ("phone +442079460999",)
    assert not any(candidate.shared for candidate in found.candidates)


def test_nobody(project: Project) -> None:
    found = ask(project, given_name="Xaver", family_name="Qwyx", birth_date="1801-01-01")
    assert (found.candidates, found.compared) == ((), 0)


def test_nothing_changes(project: Project) -> None:
    before = contents(project)
    assert ask(project, **delivered("a4")).candidates
    assert contents(project) == before


# ---------------------------------------------------------------- other ways of matching


def test_blocking_rules_of_the_project_find_candidates_too(tmp_path: Path) -> None:
    rules = "{settings: {blocking_rules_to_generate_predictions: [l.family = r.family and l.city = r.city]}}"
    project = build_town(tmp_path, rules)
    found = ask(project, given_name="Egon", family_name="Smith", city="York")
    assert found.candidates[0].profile_id == ids_of(project)["crm:a4"]
    with warehouse_of(project) as con:
        assert found.compared == count(con, "identity.features", "family = 'smith' and city = 'york'")


def test_without_matching_identifiers_still_count(tmp_path: Path) -> None:
    project = build_town(tmp_path, "{enabled: false}")
    found = ask(project, crm_id="a7", **delivered("a4"))
    assert found.compared == 0
    first, second = found.candidates[:2]
    assert (first.profile_id, first.match_probability) == (ids_of(project)["crm:a7"], 1.0)
    assert (second.match_probability, second.is_link) == (None, False)


# ---------------------------------------------------------------- what is refused, in one line


def test_unknown_fields_and_sources_name_what_there_is(project: Project) -> None:
    with pytest.raises(
        PipelineError,
        match=r"no field 'name'; the keys are profile fields and namespaces, not columns of files: given_name, .*, card$",
    ):
        ask(project, name="Jon")
    with pytest.raises(
        PipelineError, match=r"no field 'First'; .* not columns of files \(`First` of crm is given_name\): "
    ):
        ask(project, "crm", First="Jon")
    with pytest.raises(PipelineError, match=r"no field 'number'; .* \(`number` of card is card\): "):
        ask(project, "card", number="1")
    with pytest.raises(PipelineError, match="no record source 'shop'; there are: crm, card"):
        ask(project, "shop", given_name="Jon")
    with pytest.raises(PipelineError, match="the record is empty"):
        ask(project, given_name=" ")


def test_text_that_sources_read_differently_is_not_guessed(project: Project) -> None:
    path = project.rules / "sources.yaml"
    text = path.read_text(encoding="utf-8")
    crm, card = (
        text.replace("    write: replace\n", '    write: replace\n    dates: ["%d/%m/%Y"]\n'),
        "    write: patch\n",
    )
    path.write_text(crm.replace(card, f'{card}    dates: ["%m/%d/%Y"]\n', 1), encoding="utf-8")
    try:
        with pytest.raises(PipelineError, match="the sources read this birth_date differently") as refused:
            ask(project, birth_date="03/04/1980")
        assert "1980" not in str(refused.value)
        assert ask(project, "crm", birth_date="03/04/1980").values == {"birth_date": "1980-04-03"}
        assert ask(project, birth_date="03/14/1980").values == {"birth_date": "1980-03-14"}
    finally:
        path.write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- the command


def test_the_command_ranks_profiles_in_words(project: Project) -> None:
    fields = [f"--record={field}={value}" for field, value in delivered("a4").items()]
    result = call(project, *fields)
    assert result.exit_code == 0, said(result)
    assert f"profile {ids_of(project)['crm:a4']} p > 0.9999 would be a link" in said(result)
    assert "same birth date +" in said(result)
    assert "carries email egon.smith4@x.org, which does not link by itself" in said(result)


def test_json_in_and_out(project: Project) -> None:
    result = call(project, "--record-json", json.dumps({"crm_id": "A7", "city": None}), "--json")
    found = json.loads(result.stdout)
    assert found["candidates"][0]["profile_id"] == ids_of(project)["crm:a7"]
    assert found["identifiers"] == {"crm_id": ["A7"]}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "give an identifier, or a record"),
        (["x", "--record", "given_name=x"], "give an identifier or a record, not both"),
        (["--record", "given_name"], "--record takes FIELD=VALUE"),
        (["--record-json", "{"], "--record-json takes one object"),
        (["--record-json", '{"given_name": ["x"]}'], "--record-json takes one object"),
        (["--record", "[/]=x"], "no field '[/]'"),
    ],
)
def test_mistakes_are_one_plain_line(project: Project, arguments: list[str], line: str) -> None:
    result = call(project, *arguments)
    assert result.exit_code == PROBLEM
    assert line in said(result)


def test_hostile_text_stays_text(project: Project) -> None:
    result = call(project, "--record", "crm_id=[/]\x1b[31m[red]x", "--record", "given_name=Qwyx")
    assert result.exit_code == PROBLEM
    assert "[/][31M[RED]X" in result.stdout
    assert "\x1b" not in result.stdout
    assert "nobody like this" in said(result)


def test_before_the_first_run(tmp_path: Path, project: Project) -> None:
    (tmp_path / "rules").symlink_to(project.rules)
    result = CliRunner().invoke(app, ["lookup", "--record", "crm_id=1", "--project", str(tmp_path)])
    assert result.exit_code == PROBLEM
    assert "no run yet" in said(result)
