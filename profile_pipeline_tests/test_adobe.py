"""Our behaviour and Adobe's, side by side on the same deliveries; and the importer of Adobe's merge policies."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from profile_pipeline.config.load import Config, RuleError, load_config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError
from profile_pipeline.profiles.adobe import add_to_rules, as_yaml, import_policies, read_mapping
from profile_pipeline_tests.conftest import Core, Projects
from profile_pipeline_tests.hand_made import config_of, day

Run = Callable[..., Core]
Side = dict[str, Any]
HEADER = "id,first,last,email,note,moment\n"
SHARED = {"email": {"type": "email", "link": True}}
OURS: Side = {"golden": {"choose": ["most_recent"]}}
ADOBE: Side = {"golden": {"adobe_compat": True, "method": "time_ordered"}}


def delivered(
    project: Projects,
    run_core: Run,
    deliveries: list[dict[str, str]],
    *,
    policies: Mapping[str, Any],
    identity: Mapping[str, Any] = {},
) -> Core:
    """The run after these deliveries (file name to lines without header), a day each; e-mail addresses link."""
    loyalty = Projects.crm(files="loyalty_*.csv", clear_value="<none>")
    crm = Projects.crm(files="crm_*.csv", clear_value="<none>")
    made = project({"crm": crm, "loyalty": loyalty}, namespaces=SHARED)
    _change(made, "profiles", {"default": next(iter(policies)), "policies": policies})
    _change(made, "identity", identity)
    for number, files in enumerate(deliveries, 1):
        for name, lines in files.items():
            project.deliver(made, name, HEADER + lines)
        core = run_core(made, day(number), everything=True)
    return core


def _change(project: Project, name: str, keys: Mapping[str, Any]) -> None:
    path = project.rules / f"{name}.yaml"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **keys}), encoding="utf-8")


def both(project: Projects, run_core: Run, *deliveries: dict[str, str]) -> tuple[Core, Core]:
    """The same deliveries by default and under both switches."""
    ours = delivered(project, run_core, list(deliveries), policies=OURS)
    adobe = delivered(project, run_core, list(deliveries), policies=ADOBE, identity={"adobe_compat": True})
    return ours, adobe


def notes(core: Core) -> list[Any]:
    return core.values("select note from profiles.unified order by 1")


# ---------------------------------------------------------------- side by side

JOHN = "1,John,Greene,John.Greene@luma.com,a,2026-03-01T00:00:00Z\n"
JOHN_AGAIN = "7,John,Greene,john.greene@luma.com,b,2026-03-02T00:00:00Z\n"


def test_the_greene_addresses_are_one_profile_by_default_and_two_under_adobe(
    project: Projects, run_core: Run
) -> None:
    ours, adobe = both(project, run_core, {"crm_1.csv": JOHN, "loyalty_1.csv": JOHN_AGAIN})
    assert notes(ours) == ["b"]
    assert notes(adobe) == ["a", "b"]
    assert adobe.values("select value from records.identifiers where namespace = 'email' order by 1") == [
        "John.Greene@luma.com",
        "john.greene@luma.com",
    ]


def test_adobe_links_what_is_written_alike(project: Projects, run_core: Run) -> None:
    """The two Greene profiles are not an accident of a switch that links nobody."""
    ours, adobe = both(
        project, run_core, {"crm_1.csv": JOHN, "loyalty_1.csv": JOHN.replace("1,John", "7,John", 1)}
    )
    assert notes(ours) == notes(adobe) == ["a"]


def test_a_clear_blanks_the_field_by_default_and_leaves_the_other_value_under_adobe(
    project: Projects, run_core: Run
) -> None:
    cleared = JOHN.replace("1,John", "7,John", 1).replace(",a,2026-03-01", ",<none>,2026-03-05")
    ours, adobe = both(project, run_core, {"crm_1.csv": JOHN}, {"loyalty_1.csv": cleared})
    assert notes(ours) == [None]
    assert notes(adobe) == ["a"]


def test_an_old_file_delivered_again_is_newest_under_adobe_only(project: Projects, run_core: Run) -> None:
    old = "7,John,Greene,John.Greene@luma.com,old,2020-01-01T00:00:00Z\n"
    deliveries = [{"loyalty_1.csv": old}, {"crm_1.csv": JOHN}, {"loyalty_2.csv": old + "\n"}]
    ours, adobe = both(project, run_core, *deliveries)
    assert notes(ours) == ["a"]
    assert notes(adobe) == ["old"]
    assert notes(delivered(project, run_core, deliveries, policies=ADOBE)) == ["old"], (
        "the policy's clock alone"
    )


def test_a_late_row_of_a_record_replaces_the_newer_one_under_adobe_only(
    project: Projects, run_core: Run
) -> None:
    late = JOHN.replace(",a,2026-03-01", ",late,2020-01-01")
    ours, adobe = both(project, run_core, {"crm_1.csv": JOHN}, {"crm_2.csv": late})
    assert notes(ours) == ["a"]
    assert notes(adobe) == ["late"]


RANKED = {"sources": {"loyalty": 1}}


def test_an_unlisted_dataset_comes_last_by_default_and_contributes_nothing_under_adobe(
    project: Projects, run_core: Run
) -> None:
    files = [
        {
            "crm_1.csv": JOHN,
            "loyalty_1.csv": "7,,,John.Greene@luma.com,,2026-03-02T00:00:00Z\n",
        }
    ]
    ours = delivered(
        project, run_core, files, policies={"golden": {"method": "dataset_precedence", **RANKED}}
    )
    adobe = delivered(
        project,
        run_core,
        files,
        policies={"golden": {"adobe_compat": True, "method": "dataset_precedence", **RANKED}},
    )
    assert notes(ours) == ["a"]
    assert notes(adobe) == [None]
    assert adobe.values("select distinct source from profiles.lineage") == ["loyalty"]


def test_dataset_precedence_goes_before_time_and_a_hole_is_filled_from_below(
    project: Projects, run_core: Run
) -> None:
    files = [
        {"loyalty_1.csv": "7,Jack,,John.Greene@luma.com,,2020-01-01T00:00:00Z\n"},
        {"crm_1.csv": JOHN},
    ]
    ranked = {"adobe_compat": True, "method": "dataset_precedence", "sources": {"loyalty": 1, "crm": 2}}
    core = delivered(project, run_core, files, policies={"ranked": ranked, "newest": ADOBE["golden"]})
    assert core.rows("select given_name, family_name, note from profiles.unified") == [
        ("Jack", "Greene", "a")
    ]
    assert core.rows("select given_name, family_name, note from profiles.unified_newest") == [
        ("John", "Greene", "a")
    ]


def test_without_a_graph_every_record_is_its_own_profile(project: Projects, run_core: Run) -> None:
    same = JOHN.replace("1,John", "7,John", 1).replace(",a,", ",b,")
    files = [{"crm_1.csv": JOHN, "loyalty_1.csv": same}]
    stitched = delivered(project, run_core, files, policies=OURS)
    apart = delivered(project, run_core, files, policies=OURS, identity={"graph": "none"})
    assert stitched.one("select count(*) from profiles.unified where kind = 'person'") == 1
    assert notes(apart) == ["a", "b"]
    adobe = delivered(
        project, run_core, files, policies=ADOBE, identity={"graph": "none", "adobe_compat": True}
    )
    assert notes(adobe) == ["a", "b"]


# ---------------------------------------------------------------- the switches


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({}, "adobe_compat needs `method:`, time_ordered or dataset_precedence"),
        ({"method": "per_field"}, "adobe_compat needs `method:`"),
        (
            {"method": "time_ordered", "clock": "business"},
            "adobe_compat has `clock: ingestion`; remove `clock`",
        ),
        ({"method": "time_ordered", "unlisted": "last"}, "adobe_compat has `unlisted: exclude`"),
        ({"method": "time_ordered", "clears": "compete"}, "adobe_compat has `clears: ignore`"),
        ({"method": "dataset_precedence"}, "dataset_precedence needs `sources:`"),
        (
            {"method": "time_ordered", "fields": {"note": {"choose": ["longest"]}}},
            "takes no fields or groups",
        ),
    ],
)
def test_a_policy_that_is_not_adobes_is_refused(
    project: Projects, policy: Mapping[str, Any], said: str
) -> None:
    made = project()
    _change(made, "profiles", {"policies": {"golden": {"adobe_compat": True, **policy}}})
    with pytest.raises(RuleError) as refused:
        load_config(made.rules)
    assert said in str(refused.value)


def test_the_identity_switch_turns_off_what_adobe_has_not(project: Projects) -> None:
    made = project({"crm": Projects.crm(), "web": Projects.web()})
    _change(made, "identity", {"adobe_compat": True, "matching": {"enabled": True}})
    config = load_config(made.rules)
    assert not config.identity.matching.enabled
    assert {space.type for space in config.namespaces.values()} == {"id"}
    assert config.record_sources["crm"].time is None
    assert config.event_sources["web"].time, "events have the time at which they happened"


# ---------------------------------------------------------------- import

DOCUMENT: dict[str, Any] = {
    "id": "0bf16e61",
    "name": "Timestamp: ordered",
    "imsOrgId": "A@AdobeOrg",
    "sandbox": {"sandboxName": "prod"},
    "schema": {"name": "_xdm.context.profile"},
    "version": 3,
    "identityGraph": {"type": "pdg"},
    "attributeMerge": {"type": "timestampOrdered"},
    "isActiveOnEdge": False,
    "default": False,
    "updateEpoch": 1551660639,
}
PRECEDENCE = {
    **DOCUMENT,
    "name": "CRM first",
    "attributeMerge": {"type": "dataSetPrecedence", "order": ["5b02", "5b76", "b"]},
}
MAPPING = {"5b02": "a", "5b76": "c"}
RULES = config_of({"city": "text"}, {"golden": {}})


def imported(
    folder: Path, document: Any, mapping: Mapping[str, str] = MAPPING, config: Config = RULES
) -> Any:
    path = folder / "policies.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return import_policies(path, config, mapping)


def test_both_methods_are_carried_over(tmp_path: Path) -> None:
    found = imported(tmp_path, [DOCUMENT, PRECEDENCE])
    assert found.policies == {
        "timestamp_ordered": {
            "version": 3,
            "description": "Adobe merge policy: Timestamp: ordered (0bf16e61)",
            "adobe_compat": True,
            "method": "time_ordered",
        },
        "crm_first": {
            "version": 3,
            "description": "Adobe merge policy: CRM first (0bf16e61)",
            "adobe_compat": True,
            "method": "dataset_precedence",
            "sources": {"a": 1, "c": 2, "b": 3},
        },
    }
    assert found.notes == tuple(
        f"policy `{name}`: imsOrgId, sandbox, updateEpoch: where and when it was kept, not what it does"
        for name in found.policies
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: d,
        lambda d: [d],
        lambda d: {"_page": {"totalCount": 1}, "children": [d], "_links": {}},
        lambda d: {"results": {"0bf16e61": d}},
    ],
)
def test_every_answer_of_the_api_is_read(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    assert set(imported(tmp_path, wrap(DOCUMENT)).policies) == {"timestamp_ordered"}


@pytest.mark.parametrize(
    ("change", "note", "kept"),
    [
        ({"identityGraph": {"type": "none"}}, "identityGraph none: ", True),
        ({"identityGraph": {"type": "coop"}}, "identityGraph `coop`: not one of none, pdg", True),
        ({"default": True}, "write `default: timestamp_ordered` in profiles.yaml", True),
        ({"isActiveOnEdge": True}, "isActiveOnEdge: there is no edge", True),
        ({"version": 0}, "version `0`: not a whole number from 1", True),
        ({"surprise": 1}, "surprise: unknown, and so left behind", True),
        ({"schema": {"name": "_xdm.context.profile", "x": 1}}, "schema.x: unknown, and so left behind", True),
        ({"schema": {"name": "_xdm.context.account"}}, "left out; schema `_xdm.context.account`", False),
        ({"attributeMerge": {"type": "newest"}}, "left out; attributeMerge.type `newest`", False),
        (
            {"attributeMerge": {"type": "timestampOrdered", "order": ["a"]}},
            "attributeMerge.order: has no meaning",
            True,
        ),
        (
            {"attributeMerge": {"type": "dataSetPrecedence", "order": ["x", "a"]}},
            "dataset x: no source is named for it; give --dataset x=SOURCE",
            True,
        ),
        (
            {"attributeMerge": {"type": "dataSetPrecedence", "order": ["a", "5b02"]}},
            "dataset 5b02: its source `a` has rank 1 already",
            True,
        ),
        (
            {"attributeMerge": {"type": "dataSetPrecedence", "order": ["x"]}},
            "left out; none of its datasets",
            False,
        ),
    ],
)
def test_what_is_not_carried_over_is_said(
    tmp_path: Path, change: Mapping[str, Any], note: str, kept: bool
) -> None:
    document = {
        key: value for key, value in {**DOCUMENT, **change}.items() if key not in {"imsOrgId", "sandbox"}
    }
    del document["updateEpoch"]
    found = imported(tmp_path, document)
    assert any(note in line for line in found.notes), found.notes
    assert bool(found.policies) == kept


def test_an_ordinary_policy_needs_no_note(tmp_path: Path) -> None:
    plain = {
        key: DOCUMENT[key] for key in ("id", "name", "schema", "identityGraph", "attributeMerge", "version")
    }
    assert imported(tmp_path, plain).notes == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON, line 1"),
        ("[]", "holds no merge policies"),
        ('{"children": 5}', "holds no merge policies"),
        ('[{"name": "x"}]', "holds no merge policies"),
    ],
)
def test_a_file_that_is_none_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "policies.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PipelineError, match=said):
        import_policies(path, RULES, {})


def test_datasets_are_mapped_by_file_and_by_option(tmp_path: Path) -> None:
    path = tmp_path / "datasets.yaml"
    path.write_text("5b02: crm\n5b76: web\n", encoding="utf-8")
    assert read_mapping(path, ["5b76=shop", "My set=crm"]) == {"5b02": "crm", "5b76": "shop", "My set": "crm"}
    with pytest.raises(PipelineError, match="is not ID=SOURCE"):
        read_mapping(None, ["5b76"])
    with pytest.raises(PipelineError, match="no source is called `shop`; the sources are: a, b, c"):
        imported(tmp_path, DOCUMENT, {"5b76": "shop"})


def test_policies_are_written_into_the_rules_once(tmp_path: Path, project: Projects) -> None:
    made = project()
    rules = made.rules / "profiles.yaml"
    rules.write_text("default: golden # ours\npolicies:\n  golden: {}\n", encoding="utf-8")
    found = imported(
        tmp_path, [DOCUMENT, PRECEDENCE], {"5b02": "crm", "5b76": "crm", "b": "crm"}, load_config(made.rules)
    )
    add_to_rules(made.rules, found)
    assert rules.read_text(encoding="utf-8").startswith("default: golden # ours\npolicies:\n  golden: {}\n")
    policies = load_config(made.rules).profiles.policies
    assert policies["crm_first"].sources == {"crm": 1}
    assert policies["timestamp_ordered"].clock == "ingestion"
    assert "method: dataset_precedence" in as_yaml(found)
    with pytest.raises(PipelineError, match=r"policies\.timestamp_ordered exists already"):
        add_to_rules(made.rules, found)


def test_nothing_is_written_while_a_dataset_has_no_source(tmp_path: Path, project: Projects) -> None:
    made = project()
    before = (made.rules / "profiles.yaml").read_text(encoding="utf-8")
    found = imported(tmp_path, PRECEDENCE, {"5b02": "crm"}, load_config(made.rules))
    with pytest.raises(PipelineError, match="dataset 5b76: no source is named for it"):
        add_to_rules(made.rules, found)
    assert (made.rules / "profiles.yaml").read_text(encoding="utf-8") == before
