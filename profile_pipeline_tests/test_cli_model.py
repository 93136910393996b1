"""`profile-pipeline model`: see, compare, train and choose models, without a run and without changing more than asked."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from profile_pipeline import quality, runs
from profile_pipeline.cli import app
from profile_pipeline.cli.shell import PROBLEM
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project, project_at
from profile_pipeline.identity import features, model, nodes
from profile_pipeline.warehouse import connect, rows
from profile_pipeline_tests.conftest import AS_OF, CRM, Projects, run_records, validate_in_sql

FIRST = ("Anna", "Bert", "Cleo", "Dora", "Egon", "Fred", "Gina", "Hugo")
LAST = ("Meyer", "Smith", "Jones", "Novak", "Rossi", "Silva", "Dubois", "Jansen", "Weber", "Moore")


def delivery(people: int) -> str:
    """Each person twice: once as they are, once with a typo in the family name or another address."""
    lines = ["id,first,last,email,note,moment"]
    for number in range(people):
        first, last = FIRST[number % len(FIRST)], LAST[number // len(FIRST) % len(LAST)] + str(number // 80)
        email = f"{first}.{last}{number}@x.org".lower()
        typo = last[:-1] + "x" if number % 3 else last
        other = email if number % 2 else f"other{number}@y.org"
        lines += [
            f"a{number},{first},{last},{email},,2026-03-01",
            f"b{number},{first},{typo},{other},,2026-03-02",
        ]
    return "\n".join(lines) + "\n"


def match(project: Project, **matching: Any) -> None:
    """Switch matching on, with these rules."""
    path = project.rules / "identity.yaml"
    rules = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**rules, "matching": {"enabled": True, **matching}}), encoding="utf-8")


def prepare(project: Project) -> None:
    """Records and match features, as a run leaves them; other tables with columns of all sorts of names."""
    config = load_config(project.rules)
    with connect(project.database, memory="1GB", threads=1) as con:
        run_records(con, config, project, AS_OF)
        nodes.build_nodes(con, config)
        features.build_features(con, config)
        con.execute("create table if not exists profiles.candidates (profile_id text, value text)")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two trained models: the older on 60 people, the active one on 120."""
    projects = Projects(tmp_path_factory.mktemp("models"))
    project = projects({"crm": CRM}, {"crm_1.csv": delivery(60)})
    match(project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", validate_in_sql)
        for people in (60, 120):
            projects.deliver(project, f"crm_{people}.csv", delivery(people))
            prepare(project)
            with connect(project.database, memory="1GB", threads=1) as con:
                model.ensure_model(con, load_config(project.rules), retrain=True)
    return project


@pytest.fixture
def project(trained: Project, tmp_path: Path) -> Project:
    shutil.copytree(trained.rules.parent, tmp_path / "p")
    return project_at(tmp_path / "p")


def on(project: Project, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["model", *arguments, "--project", str(project.rules.parent)])


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def answer(project: Project, *arguments: str) -> Any:
    return json.loads(ok(on(project, *arguments, "--json")))


def said(result: Result) -> str:
    """What a person read, without the line breaks of a narrow terminal."""
    return " ".join((result.stdout + result.stderr).split())


def models_of(project: Project) -> dict[str, bool]:
    with connect(project.database) as con:
        return dict(rows(con, "select model_id, active from identity.models"))


def forget_some_records(project: Project) -> None:
    """Other records, so that another training finds another model."""
    with connect(project.database) as con:
        con.execute("delete from identity.features where hash(unique_id) % 5 = 0")


def older_and_active(project: Project) -> tuple[str, str]:
    found = models_of(project)
    assert sorted(found.values()) == [False, True]
    [older], [active] = ([name for name, yes in found.items() if yes is wanted] for wanted in (False, True))
    return older, active


def test_list_marks_the_active_model(project: Project) -> None:
    older, active = older_and_active(project)
    found = {row["model_id"]: row for row in answer(project, "list")}
    assert set(found) == {older, active}
    assert found[active]["active"]
    assert found[active]["fits"]
    assert (found[older]["figures"]["records"], found[active]["figures"]["records"]) == (120, 240)
    assert active in ok(on(project, "list"))


def test_show_says_every_level_in_words_and_weights(project: Project) -> None:
    older, active = older_and_active(project)
    shown = ok(on(project, "show"))
    for text in (
        f"model {active}",
        "given",
        "family",
        "same",
        "times likelier",
        "blocking rule",
        "threshold",
    ):
        assert text in shown
    found = answer(project, "show", older[:6])
    assert found["model_id"] == older
    levels = {(row["comparison"], row["level"]): row for row in found["levels"]}
    assert levels["email", "same"]["match_weight"] > 3
    assert levels["email", "same"]["in_words"].endswith("likelier")
    assert levels["given", "different"]["match_weight"] < 0


def test_compare_names_what_differs_and_no_value(project: Project) -> None:
    older, active = older_and_active(project)
    found = answer(project, "compare", older)
    assert (found["left"], found["right"]) == (older, active)
    assert {"figure": "records", "left": 120, "right": 240} in found["figures"]
    assert [row["field"] for row in found["frequencies"]] == ["family", "given"]
    shown = said(on(project, "compare", older, active))
    assert f"from {older} to {active}" in shown
    assert not any(name.lower() in shown.lower() for name in (*FIRST, *LAST))
    assert "the models are the same" in said(on(project, "compare", active, active))


def test_train_on_trial_compares_and_keeps_nothing(project: Project) -> None:
    forget_some_records(project)
    before = models_of(project)
    found = answer(project, "train", "--dry-run")
    assert not found["kept"]
    assert found["model_id"] not in before
    assert found["difference"]["left"] == next(name for name, active in before.items() if active)
    assert "nothing is kept" in said(on(project, "train", "--dry-run"))
    assert models_of(project) == before


def test_train_activates_the_new_model_and_says_what_comes_next(project: Project) -> None:
    before = models_of(project)
    forget_some_records(project)
    shown = said(on(project, "train"))
    assert "next: profile-pipeline run" in shown
    after = models_of(project)
    [new] = set(after) - set(before)
    assert after[new]
    assert sum(after.values()) == 1
    assert f"trained model {new}, now active" in shown


def test_use_goes_back_to_an_earlier_model_and_it_stays(project: Project) -> None:
    older, active = older_and_active(project)
    assert "next: profile-pipeline run" in said(on(project, "use", older[:8]))
    assert models_of(project) == {older: True, active: False}
    with connect(project.database) as con:
        model.ensure_model(con, load_config(project.rules))
        found = model.active_model(con)
        assert found is not None
        assert found.model_id == older
        assert model.has_model(con)
    assert answer(project, "use", active) == {"model_id": active, "active": True}
    assert models_of(project) == {older: False, active: True}


def test_use_refuses_a_model_of_other_rules_and_says_why(project: Project) -> None:
    older, _ = older_and_active(project)
    before = models_of(project)
    path = project.rules / "sources.yaml"
    rules = json.loads(path.read_text(encoding="utf-8"))
    rules["attributes"]["email"]["match"] = False
    path.write_text(json.dumps(rules), encoding="utf-8")
    result = on(project, "use", older)
    assert result.exit_code == PROBLEM
    assert "comparison email: no longer in the rules" in said(result)
    assert "model train" in said(result)
    assert models_of(project) == before
    assert not any(row["fits"] for row in answer(project, "list"))


def test_use_refuses_rules_that_only_differ_in_what_cannot_be_seen(project: Project) -> None:
    older, _ = older_and_active(project)
    match(project, settings={"probability_two_random_records_match": 0.2})
    result = on(project, "use", older)
    assert (result.exit_code, "starting values changed since" in said(result)) == (PROBLEM, True)


def test_a_run_shows_the_active_model_in_numbers_and_pictures(project: Project) -> None:
    _, active = older_and_active(project)
    with connect(project.database) as con:
        found = runs.model_numbers(con)
        con.execute("update identity.models set active = false")
        assert runs.model_numbers(con) == {"model_id": "none", "models": 2}
    assert (found["model_id"], found["models"], found["records"]) == (active, 2, 240)
    assert {
        "threshold",
        "expected_precision",
        "expected_recall_of_candidates",
        "comparisons",
        "blocking_rules",
    } <= set(found)
    pictures = [value for value in found.values() if isinstance(value, runs.Chart)]
    assert len(pictures) == 3
    assert not any(name in json.dumps(found, default=str) for name in ("Meyer", "meyer", "x.org"))


@pytest.mark.parametrize("arguments", [("show", "zz"), ("compare", "zz"), ("use", "zz")])
def test_an_unknown_model_is_one_line_with_the_way_out(project: Project, arguments: tuple[str, ...]) -> None:
    result = on(project, *arguments)
    assert (result.exit_code, "no model zz; `profile-pipeline model list`" in said(result)) == (PROBLEM, True)


def test_nothing_is_trained_where_matching_is_off(project: Project) -> None:
    match(project, enabled=False)
    result = on(project, "train")
    assert (result.exit_code, "`matching.enabled` is false" in said(result)) == (PROBLEM, True)


def test_an_error_in_training_shows_no_value(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("could not read 'anna.meyer@x.org'")

    monkeypatch.setattr("profile_pipeline.identity.model_choice.ensure_model", refuse)
    result = on(project, "train")
    assert result.exit_code == PROBLEM
    assert "anna" not in said(result)


def test_before_the_first_run_every_command_says_what_to_do(tmp_path: Path) -> None:
    project = Projects(tmp_path)({"crm": CRM})
    for arguments in (("list",), ("show",), ("compare", "a"), ("train",), ("use", "a")):
        result = on(project, *arguments)
        assert (result.exit_code, "no run yet" in said(result)) == (PROBLEM, True)
    with connect(project.database):
        pass
    match(project)
    assert answer(project, "list") == []
    assert "no model yet" in said(on(project, "show"))
    assert "no records to learn from yet" in said(on(project, "train"))
