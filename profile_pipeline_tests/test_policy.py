"""Trying a policy before it is applied: what would change, why, in whom; versions; nothing is ever written."""

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from profile_pipeline.cli import app
from profile_pipeline.config.load import Config, RuleError
from profile_pipeline.config.policy_file import read_policy
from profile_pipeline.errors import PipelineError
from profile_pipeline.profiles import pins
from profile_pipeline.profiles.candidates import build_candidates
from profile_pipeline.profiles.lineage import build_lineage
from profile_pipeline.profiles.policy_versions import in_use, note_versions, unraised
from profile_pipeline.profiles.preview import (
    AudienceChange,
    Difference,
    FieldChange,
    Preview,
    as_published,
    as_written,
    difference,
    preview,
)
from profile_pipeline.profiles.unified import build_unified
from profile_pipeline.warehouse import rows
from profile_pipeline_tests.conftest import Projects
from profile_pipeline_tests.hand_made import config_of, set_records, warehouse

NEWEST: dict[str, Any] = {"choose": ["most_recent"]}
RANKED: dict[str, Any] = {"choose": ["source_priority", "most_recent"], "sources": {"a": 1, "b": 2}}
ONLY_A: dict[str, Any] = {"method": "dataset_precedence", "sources": {"a": 1}, "unlisted": "exclude"}
FIELDS = {"city": "text", "tier": "category"}
RECORDS = [
    {"profile": "p", "key": "a:1", "city": "Old", "tier": "gold", "at": 1},
    {"profile": "p", "key": "b:1", "city": "New", "tier": "gold", "at": 2},
    {"profile": "q", "key": "b:2", "city": "Bonn", "at": 1},
    {"profile": "r", "key": "a:3", "city": "Rome", "at": 2},
    {"profile": "r", "key": "b:3", "city": "Riga", "tier": "gold", "at": 1},
]


@pytest.fixture
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        yield opened


def run(con: DuckDBPyConnection, config: Config, records: list[dict[str, Any]] = RECORDS) -> None:
    """The profiles stage of a run."""
    set_records(con, config, records)
    apply(con, config)


def apply(con: DuckDBPyConnection, config: Config) -> None:
    """The profiles stage with other rules."""
    build_candidates(con, config)
    build_lineage(con, config)
    note_versions(con, config)
    build_unified(con, config)


def rules(policies: Mapping[str, Any], **other: Any) -> Config:
    return config_of(FIELDS, policies, **other)


def compared(con: DuckDBPyConnection, config: Config, before: str, after: str) -> Difference:
    return difference(con, config, as_published(con, config, before), as_written(con, config, after))


def previewed(con: DuckDBPyConnection, config: Config, before: str, after: str, **more: Any) -> Preview:
    return preview(con, config, as_published(con, config, before), as_written(con, config, after), **more)


def everything(con: DuckDBPyConnection) -> dict[str, list[Any]]:
    """Every row of every table of the warehouse."""
    tables = rows(
        con, "select schema_name || '.' || table_name from duckdb_tables() where not temporary order by 1"
    )
    return {name: rows(con, f"select t::text from {name} t order by 1") for (name,) in tables}


# ---------------------------------------------------------------- counts


def test_fields_are_counted_by_what_happens_to_them(con: DuckDBPyConnection) -> None:
    config = rules({"newest": NEWEST, "only_a": ONLY_A})
    run(con, config)
    found = compared(con, config, "newest", "only_a")
    assert (found.before, found.after, found.profiles, found.changed) == ("newest", "only_a", 3, 3)
    assert found.fields == (FieldChange("city", 1, 1, 0), FieldChange("tier", 0, 1, 0))
    back = compared(con, config, "only_a", "newest")
    assert back.fields == (FieldChange("city", 1, 0, 1), FieldChange("tier", 0, 0, 1))


def test_a_policy_is_no_different_from_itself(con: DuckDBPyConnection) -> None:
    config = rules({"newest": NEWEST})
    run(con, config)
    found = compared(con, config, "newest", "newest")
    assert (found.changed, found.fields) == (0, ())


def test_an_edit_is_compared_with_the_last_run(con: DuckDBPyConnection) -> None:
    run(con, rules({"golden": NEWEST}))
    edited = rules({"golden": {**RANKED, "version": 2}})
    found = compared(con, edited, "golden", "golden")
    assert found.before == "golden as of the last run"
    assert found.fields == (FieldChange("city", 1, 0, 0),)


def test_members_of_audiences_enter_and_leave(con: DuckDBPyConnection) -> None:
    audiences = {
        "gold": {"where": "tier = 'gold'"},
        "romans": {"where": "city = 'Rome'"},
        "old": {"where": "city = 'Old'"},
    }
    config = rules({"newest": NEWEST, "only_a": ONLY_A}, audiences=audiences)
    run(con, config)
    assert compared(con, config, "newest", "only_a").audiences == (
        AudienceChange("gold", 2, 1, 0, 1),
        AudienceChange("old", 0, 1, 1, 0),
        AudienceChange("romans", 1, 1, 0, 0),
    )


def test_a_list_changes_when_its_values_do(con: DuckDBPyConnection) -> None:
    two = {"fields": {"city": {"keep": "list", "choose": ["most_recent"]}}}
    config = rules({"newest": NEWEST, "listed": two})
    run(con, config)
    assert compared(con, config, "newest", "listed").fields == (FieldChange("city", 2, 0, 0),)


def test_a_pinned_value_wins_under_every_policy(con: DuckDBPyConnection) -> None:
    config = rules({"newest": NEWEST, "ranked": RANKED})
    run(con, config)
    con.execute("create table if not exists raw.batches (batch integer, as_of timestamptz)")
    pins.pin(con, config, "p", "city", "Pinned", "anna", "called", source="a")
    apply(con, config)
    assert compared(con, config, "newest", "ranked").changed == 0
    assert previewed(con, config, "newest", "ranked").changed == 0


POLICIES = st.sampled_from(
    [NEWEST, RANKED, ONLY_A, {"choose": ["longest"]}, {"choose": ["least_recent"], "clears": "ignore"}]
)
VALUES = st.sampled_from(["x", "yy", "zzz", None])
MANY = st.lists(
    st.tuples(st.sampled_from("pqr"), st.sampled_from("abc"), VALUES, st.integers(0, 3), st.booleans()),
    max_size=8,
)


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(before=POLICIES, after=POLICIES, offers=MANY)
def test_the_difference_is_what_applying_it_does(
    con: DuckDBPyConnection, before: dict[str, Any], after: dict[str, Any], offers: list[tuple[Any, ...]]
) -> None:
    records = [
        {
            "profile": profile, "key": f"{source}:{n}", "city": city, "at": at,
            "cleared": ["city"] if clear and city is None else [],
        }
        for n, (profile, source, city, at, clear) in enumerate(offers)
    ]  # fmt: skip
    con.execute("drop table if exists profiles.policy_versions")
    run(con, rules({"golden": before}), records)
    edited = rules({"golden": {**after, "version": 2}})
    untouched = everything(con)
    said = compared(con, edited, "golden", "golden")
    assert everything(con) == untouched
    sampled = previewed(con, edited, "golden", "golden", profiles=99)
    assert everything(con) == untouched
    was = dict(rows(con, "select profile_id, city from profiles.unified"))
    apply(con, edited)
    now = dict(rows(con, "select profile_id, city from profiles.unified"))
    changed = {profile for profile in was if was[profile] != now[profile]}
    assert said.changed == len(changed)
    assert {found.profile_id for found in sampled.shown} <= changed
    for found in sampled.shown:
        [field] = found.fields
        assert (field.before and field.before.value) == was[found.profile_id]
        assert (field.after and field.after.value) == now[found.profile_id]


# ---------------------------------------------------------------- reasons


def test_a_preview_names_winner_losers_and_rule_before_and_after(con: DuckDBPyConnection) -> None:
    config = rules({"newest": NEWEST, "ranked": RANKED})
    run(con, config)
    found = previewed(con, config, "newest", "ranked")
    assert (found.looked_at, found.changed) == (2, 1), "a profile of one record needs no policy"
    [profile] = found.shown
    [city] = profile.fields
    assert (profile.profile_id, city.field) == ("p", "city")
    assert city.before
    assert city.after
    assert (city.before.value, city.before.record_key, city.before.rule) == ("New", "b:1", "most_recent")
    assert [(offer.value, offer.rule) for offer in city.before.beaten] == [("Old", "most_recent")]
    assert (city.after.value, city.after.record_key, city.after.rule) == ("Old", "a:1", "source_priority")
    assert [(offer.value, offer.rule) for offer in city.after.beaten] == [("New", "source_priority")]


def test_one_profile_can_be_asked_for(con: DuckDBPyConnection) -> None:
    config = rules({"newest": NEWEST, "only_a": ONLY_A})
    run(con, config)
    found = previewed(con, config, "newest", "only_a", profile_id="q")
    [profile] = found.shown
    assert [(field.field, field.after) for field in profile.fields] == [("city", None)]


# ---------------------------------------------------------------- files and names


def test_a_candidate_may_be_a_file(con: DuckDBPyConnection, tmp_path: Path) -> None:
    config = rules({"newest": NEWEST})
    run(con, config)
    path = tmp_path / "candidate.yaml"
    path.write_text("choose: [source_priority]\nsources: {a: 1, b: 2}\n", encoding="utf-8")
    assert compared(con, config, "newest", str(path)).fields == (FieldChange("city", 1, 0, 0),)
    path.write_text("policies: {one: {choose: [source_priority], sources: {a: 1}}}\n", encoding="utf-8")
    assert compared(con, config, "newest", str(path)).changed == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "candidate.yaml: is not a group of keys"),
        ("choose: [newest]\n", "candidate.yaml: choose.0: `newest` is not one of"),
        ("sources: {crn: 1}\n", "candidate.yaml: sources: unknown source `crn`"),
        ("fields: {town: {choose: [longest]}}\n", "candidate.yaml: unknown attribute `town`"),
        ("policies: {one: {}, two: {}}\n", "candidate.yaml: holds 2 policies; keep one, or add `default:`"),
        ("a: [\n", "candidate.yaml: line"),
    ],
)
def test_a_mistake_in_a_candidate_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "candidate.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RuleError) as refused:
        read_policy(path, rules({"golden": {}}))
    assert any(line.startswith(said) for line in refused.value.problems), refused.value.problems


def test_unknown_names_are_refused(con: DuckDBPyConnection) -> None:
    config = rules({"newest": NEWEST})
    with pytest.raises(PipelineError, match="no profiles yet"):
        compared(con, config, "newest", "newest")
    with pytest.raises(PipelineError, match="unknown policy `newst`; did you mean `newest`"):
        as_written(con, config, "newst")
    with pytest.raises(PipelineError, match="no such file"):
        as_written(con, config, "none.yaml")


# ---------------------------------------------------------------- versions


def test_other_rules_under_the_same_version_are_noticed_until_it_is_raised(con: DuckDBPyConnection) -> None:
    run(con, rules({"golden": NEWEST}))
    assert unraised(con, rules({"golden": NEWEST})) == []
    assert unraised(con, rules({"golden": {**NEWEST, "description": "words are no rules"}})) == []
    apply(con, rules({"golden": RANKED}))
    [found] = unraised(con, rules({"golden": RANKED}))
    assert found.words == "policy `golden` changed but is still version 1: raise `version`"
    raised = rules({"golden": {**RANKED, "version": 2}})
    apply(con, raised)
    assert unraised(con, raised) == []
    apply(con, rules({"golden": NEWEST}))
    assert unraised(con, rules({"golden": NEWEST})) == [], "what version 1 has always stood for"


def test_every_version_keeps_what_it_said_and_the_last_run_is_known(con: DuckDBPyConnection) -> None:
    branch = {"fields": {"city": {"when": [{"if": "source = 'a'", "choose": ["longest"]}]}}}
    run(con, rules({"golden": NEWEST, "other": branch}))
    second = rules({"golden": {**RANKED, "version": 2}})
    apply(con, second)
    apply(con, second)
    assert rows(con, "select policy, version, in_use from profiles.policy_versions order by all") == [
        ("golden", 1, False), ("golden", 2, True), ("other", 1, False),
    ]  # fmt: skip
    assert in_use(con) == {"golden": second.profiles.policies["golden"]}
    [(content,)] = rows(con, "select content from profiles.policy_versions where policy = 'other'")
    assert json.loads(content)["fields"]["city"]["when"] == [{"if": "source = 'a'", "choose": ["longest"]}]


# ---------------------------------------------------------------- command line


def test_the_commands(project: Projects, run_core: Any, tmp_path: Path) -> None:
    loyalty = Projects.crm(files="loyalty_*.csv")
    made = project(
        {"crm": Projects.crm(), "loyalty": loyalty},
        {
            "crm_1.csv": "id,first,last,email,note,moment\n1,Ann,Lee,a@x.org,old,2026-03-01T00:00:00Z\n",
            "loyalty_1.csv": "id,first,last,email,note,moment\n1,Ann,Lee,a@x.org,new,2026-03-02T00:00:00Z\n",
        },
    )
    ranked = {
        "choose": ["source_priority"],
        "sources": {"crm": 1, "loyalty": 2},
        "description": "the best source",
    }
    rules_file = made.rules / "profiles.yaml"
    rules_file.write_text(
        json.dumps({"default": "golden", "policies": {"golden": {}, "ranked": ranked}}), encoding="utf-8"
    )

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["policy", *arguments, "--project", str(made.rules.parent)])

    def answer(*arguments: str) -> Any:
        result = call(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert [found["state"] for found in answer("list")] == ["not run yet", "not run yet"]
    assert "no run yet" in call("diff", "golden", "ranked").output
    core = run_core(made, everything=True)
    core.con.close()
    assert [found["state"] for found in answer("list")] == ["as in the last run", "as in the last run"]
    assert answer("show", "ranked")["decides"]["note"]["choose"] == ["source_priority"]
    assert "the best source" in call("show", "ranked").output

    found = answer("diff", "golden", "ranked")
    assert found["fields"] == [{"field": "note", "to_another": 1, "to_nothing": 0, "from_nothing": 0}]
    assert "1 of 1 profiles change" in call("diff", "golden", "ranked").output
    shown = call("preview", "ranked").output
    assert "note: new -> old" in shown
    assert "not new of loyalty:1 (" in shown
    [profile] = answer("preview", "ranked", "--profile", "crm:1")["shown"]
    assert profile["fields"][0]["after"]["rule"] == "source_priority"

    rules_file.write_text(json.dumps({"default": "golden", "policies": {"golden": ranked}}), encoding="utf-8")
    assert [p["state"] for p in answer("list")] == ["changed, still version 1: raise `version`"]

    document = {"name": "CRM", "identityGraph": {"type": "pdg"}, "default": True,
                "attributeMerge": {"type": "dataSetPrecedence", "order": ["5b", "crm"]}}  # fmt: skip
    path = tmp_path / "adobe.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    said = call("import", str(path), "--dataset", "5b=loyalty").output
    assert "sources: {loyalty: 1, crm: 2}" in said
    assert "# not carried over: policy `crm`: default" in said
