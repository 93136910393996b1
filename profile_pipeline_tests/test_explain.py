"""Explanation: the tree spans the profile, the parts are the weight, and every rejected link says why."""

import json
from collections import defaultdict
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from profile_pipeline.cli import app
from profile_pipeline.cli.shell import PROBLEM
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.decisions import MATCH, NO_MATCH, decide
from profile_pipeline.errors import PipelineError
from profile_pipeline.explain import Explanation, explain
from profile_pipeline.explain.links import scores_of
from profile_pipeline.identity.generic import GENERIC
from profile_pipeline.identity.refine import DECIDED_APART, LIMIT_BROKEN
from profile_pipeline.identity.weights import Part, Score
from profile_pipeline.warehouse import records_of
from profile_pipeline_tests.town import COUPLE, HOSTILE, SWITCHBOARD, build_town, contents, run_town
from profile_pipeline_tests.worlds import ids_of, warehouse_of

UNITED, PARTED = ("crm:a10", "crm:a11"), ("crm:a20", "crm:b20")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, str]]:
    """The town after a steward united two strangers and parted a person; profile ids before that."""
    project = build_town(tmp_path_factory.mktemp("town"))
    before = ids_of(project)
    assert before["crm:a20"] == before["crm:b20"]
    assert before["crm:a10"] != before["crm:a11"]
    with warehouse_of(project) as con:
        decide(con, [UNITED], MATCH, "eva", "married")
        decide(con, [PARTED], NO_MATCH, "eva", "twins")
    run_town(project, 2)
    return project, before


@pytest.fixture
def project(town: tuple[Project, dict[str, str]]) -> Project:
    return town[0]


def ask(project: Project, text: str) -> Explanation:
    with warehouse_of(project) as con:
        return explain(con, load_config(project.rules), text)


def call(project: Project, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--project", str(project.rules.parent)])


def said(result: Result) -> str:
    return " ".join((result.stdout + result.stderr).split())


def reached(found: Explanation) -> set[str]:
    """What the links connect, from the first record on."""
    inside = {found.records[0].record_key}
    for _ in found.links:
        for link in found.links:
            if {link.left_key, link.right_key} & inside:
                inside |= {link.left_key, link.right_key}
    return inside


# ---------------------------------------------------------------- weights


def test_parts_sum_to_the_weight_of_the_edge(project: Project) -> None:
    with warehouse_of(project) as con:
        edges = records_of(con, "select * from identity.edges where type = 'probabilistic'")
        scores = scores_of(con, edges)
    assert len(scores) == len(edges) > 40
    for edge in edges:
        score = scores[edge["left_key"], edge["right_key"]]
        assert score.weight == pytest.approx(edge["match_weight"], abs=1e-9)
        assert score.probability == pytest.approx(edge["match_probability"], abs=1e-12)
        parts = score.prior + sum(part.weight for part in score.parts) - score.household
        assert parts == pytest.approx(edge["match_weight"], abs=1e-9)


@pytest.mark.parametrize(
    ("comparison", "level", "words"),
    [
        ("email", "same", "same e-mail +2.0"),
        ("birth_date", "one edit", "birth date one digit apart +2.0"),
        ("family", "one edit", "family name one character apart +2.0"),
        ("given", "nickname", "given name a nickname of the other +2.0"),
        ("address", "same street, similar postcode", "same street, similar postcode +2.0"),
        ("address", "different", "different address +2.0"),
        ("x_tier", "similar", "similar tier +2.0"),
        ("email", "same local part", "e-mail: same local part +2.0"),
    ],
)
def test_a_part_in_words(comparison: str, level: str, words: str) -> None:
    assert Part(comparison, level, 2.0, 0.0).words == words


def test_a_score_in_words() -> None:
    parts = (
        Part("birth_date", "different", -5.0, 0.0),
        Part("family", "same", 9.0, 1.5),
        Part("given", "same", 6.0, -0.5),
    )
    assert Score(-2.0, 0.2, -10.0, 2.0, parts).words == (
        "same family name +9.0 (rare +1.5), same given name +6.0 (common -0.5), different birth date -5.0, prior -10.0,"
        " a shared household explains 2.0 bits"
    )


# ---------------------------------------------------------------- the tree


def test_the_tree_spans_every_profile(project: Project) -> None:
    members: dict[str, set[str]] = defaultdict(set)
    for key, profile_id in ids_of(project).items():
        members[profile_id].add(key)
    for profile_id, keys in sorted(members.items(), key=lambda item: (-len(item[1]), item))[:5]:
        found = ask(project, profile_id)
        assert {member.record_key for member in found.records} == keys == reached(found)
        assert len(found.links) == len(keys) - 1


def test_links_of_every_kind_come_strongest_first(project: Project) -> None:
    found = ask(project, "crm:a10")
    assert [link.kind for link in found.links] == ["decision", "probabilistic"]
    assert found.links[0].evidence == "decided to be one person"
    card = ask(project, "crm:a4")
    first, second = card.links
    assert (first.kind, first.left_key, first.right_key) == ("deterministic", "card:k4", "crm:a4")
    assert first.evidence == "both carry crm_id A4"
    assert second.kind == "probabilistic"
    assert second.score
    assert second.evidence.startswith(second.score.words)
    click = ask(project, "crm:a1")
    [attached] = click.links
    assert attached.kind == "attached"
    assert "only this profile holds its email" in attached.evidence


def test_a_record_shows_what_matching_sees(project: Project) -> None:
    member = ask(project, "crm:a4").records[1]
    assert member.record_key == "crm:a4"
    assert member.values["email"] == "egon.smith4@x.org"
    assert member.identifiers["crm_id"] == ["A4"]


# ---------------------------------------------------------------- what does not hold


def test_a_pair_decided_apart_says_so(project: Project) -> None:
    found = ask(project, "crm:a20")
    [link] = [link for link in found.rejected if link.other_key == "crm:b20"]
    assert link.reason == DECIDED_APART
    assert link.other_profile_id == ids_of(project)["crm:b20"]
    assert link.score
    assert link.match_weight == pytest.approx(link.score.weight)


def test_a_limit_names_what_would_be_too_much(project: Project) -> None:
    found = ask(project, "crm:a41")
    [link] = [link for link in found.rejected if link.kind == "deterministic"]
    assert {link.own_key, link.other_key} == {"card:k900", "card:k901"}
    assert link.reason == f"{LIMIT_BROKEN}: together 2 values of card, at most 1"
    assert f"1 link does not hold: {LIMIT_BROKEN}" in found.constraints
    assert "card: 1 of at most 1" in found.constraints


def test_pairs_below_the_threshold_come_by_weight(project: Project) -> None:
    found = ask(project, "crm:a30")
    below = [link for link in found.rejected if link.reason.startswith("below the threshold")]
    assert below
    weights = [link.match_weight for link in found.rejected if link.match_weight is not None]
    assert weights == sorted(weights, reverse=True)
    assert found.threshold is not None
    assert all(link.match_weight < found.threshold for link in below)
    ids = ids_of(project)
    assert all(ids[link.other_key] == link.other_profile_id != found.profile_id for link in found.rejected)


def test_at_most_twenty_rejected_links_and_the_rest_counted(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(project, "crm:a30")
    assert whole.rejected_count == len(whole.rejected) > 1
    monkeypatch.setattr("profile_pipeline.explain.rejected.SHOWN", 1)
    short = ask(project, "crm:a30")
    assert short.rejected == whole.rejected[:1]
    assert short.rejected_count == whole.rejected_count
    assert f"the 1 of most weight of {whole.rejected_count}" in said(call(project, "explain", "crm:a30"))


def test_an_identity_that_several_hold_says_why_it_joined_none(project: Project) -> None:
    ids = ids_of(project)
    click = ask(project, f"event:email={COUPLE}")
    assert [(link.own_key, link.other_key) for link in click.rejected] == [
        (f"event:email={COUPLE}", "crm:c0"),
        (f"event:email={COUPLE}", "crm:c1"),
    ]
    assert {link.reason for link in click.rejected} == {
        "2 profiles hold its identifiers: nobody can tell whose it is"
    }
    assert [link.other_profile_id for link in click.rejected] == [ids["crm:c0"], ids["crm:c1"]]
    first, *_ = ask(project, "crm:c0").rejected
    assert (first.kind, first.other_key) == ("attached", f"event:email={COUPLE}")
    assert first.evidence == f"both carry email {COUPLE}"
    assert "nobody can tell whose it is" in said(call(project, "explain", "crm:c1"))


def test_generic_values_of_the_profile_are_named(project: Project) -> None:
    found = ask(project, "crm:s1")
    assert [words for words in found.constraints if "set aside" in words] == [
        f"phone +442079460999 is set aside, {GENERIC} (8 records, 8 people)"
    ]
    assert not [words for words in ask(project, "crm:a2").constraints if "set aside" in words]


# ---------------------------------------------------------------- which profile is meant


def test_a_retired_id_explains_its_successor(town: tuple[Project, dict[str, str]]) -> None:
    project, before = town
    now = ids_of(project)
    [retired] = {before["crm:a10"], before["crm:a11"]} - set(now.values())
    found = ask(project, retired.upper())
    assert found.profile_id == now["crm:a10"] == now["crm:a11"]
    assert ("merged", "decision") in {(event["event"], event["cause"]) for event in found.history["events"]}


@pytest.mark.parametrize("text", ["crm:a4", " A4 ", "EGON.smith4@x.org"])
def test_record_keys_and_identifiers_lead_to_the_profile(project: Project, text: str) -> None:
    assert ask(project, text).profile_id == ids_of(project)["crm:a4"]


def test_what_leads_nowhere_or_to_several_is_one_plain_line(project: Project) -> None:
    with pytest.raises(PipelineError, match="no profile has this id or identifier"):
        ask(project, "nobody@x.org")
    with pytest.raises(
        PipelineError, match=r"8 profiles carry this identifier; explain one of: [0-9a-f-]{36}, "
    ):
        ask(project, SWITCHBOARD)


def test_nothing_changes(project: Project) -> None:
    before = contents(project)
    ask(project, "crm:a4")
    assert contents(project) == before


# ---------------------------------------------------------------- the command


def test_the_command_shows_every_part(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    result = call(project, "explain", "crm:a4")
    assert result.exit_code == 0, said(result)
    for part in (
        "(found by crm:a4)", "both carry crm_id A4", "same birth date", "prior -", "links that do not hold",
        "limits and set-aside values", "card: 1 of at most 1", "what happened to the id", "created",
    ):  # fmt: skip
        assert part in said(result), part
    assert max(map(len, result.stdout.splitlines())) <= 100


def test_json_is_the_whole_explanation(project: Project) -> None:
    result = call(project, "explain", "crm:a20", "--json")
    found = json.loads(result.stdout)
    assert found["profile_id"] == ids_of(project)["crm:a20"]
    assert {"comparison", "level", "weight", "frequency"} == set(found["rejected"][0]["score"]["parts"][0])
    assert found["rejected"][0]["reason"] == DECIDED_APART


def test_hostile_text_stays_text(project: Project) -> None:
    result = call(project, "explain", f"crm:{HOSTILE}")
    assert result.exit_code == 0, said(result)
    assert f"crm:{HOSTILE}" in result.stdout
    assert "one record by itself" in result.stdout
    unknown = call(project, "explain", "[/]\x1b[31m")
    assert unknown.exit_code == PROBLEM
    assert "no profile has this" in said(unknown)


def test_before_the_first_run(tmp_path: Path, project: Project) -> None:
    result = CliRunner().invoke(app, ["explain", "x", "--project", str(tmp_path)])
    assert result.exit_code == PROBLEM
