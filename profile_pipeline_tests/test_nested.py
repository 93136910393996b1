"""Structs, maps and lists of objects from delivered JSON to published columns; mistakes about them."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_pipeline.config.load import RuleError, load_config
from profile_pipeline.dictionary import column_description, is_personal
from profile_pipeline.errors import PipelineError
from profile_pipeline.profiles import pins
from profile_pipeline.profiles.candidates import build_candidates
from profile_pipeline.profiles.lineage import build_lineage
from profile_pipeline.profiles.unified import build_unified
from profile_pipeline.records import staging
from profile_pipeline.serve.masking import HIDDEN, Masks
from profile_pipeline.serve.render import said
from profile_pipeline.warehouse import rows
from profile_pipeline_tests.conftest import Core, Projects
from profile_pipeline_tests.hand_made import config_of, set_records, warehouse

ATTRIBUTES: dict[str, Any] = {
    "home": {"type": "struct", "fields": {"street": "street_address", "town": "city"}},
    "work": {"type": "struct", "atomic": True, "personal": False, "fields": {"street": "street_address", "town": "city"}},
    "sizes": {"type": "map"},
    "spent": {"type": "map", "values": "number"},
    "phones": {"type": "list", "fields": {"id": "text", "seen": "date"}},
}  # fmt: skip
MEMBERS: dict[str, Any] = {
    "kind": "record", "files": "members_*.jsonl", "format": {"type": "jsonl"}, "key": "id", "clear_value": "null",
    "columns": ["id", "home", "office", "sizes", "spent", "phones", "moment"],
    "optional_columns": ["home", "office", "sizes", "spent", "phones"], "time": {"value": "moment"}, "write": "patch",
    "attributes": {"home": "home", "work_street": "office ->> '$.line1'", "work_town": "office ->> '$.place'",
        "sizes": "sizes", "spent": "spent", "phones": "phones"},
    "identifiers": {"crm_id": "id"}, "guards": {"max_error_share": 1.0},
}  # fmt: skip
POLICY: dict[str, Any] = {
    "fields": {
        "sizes": {"keep": "union"},
        "spent": {"keep": "union"},
        "phones": {"keep": "union", "key": "id"},
    }
}


def lines(*said: dict[str, Any]) -> str:
    return "".join(json.dumps({"moment": "2026-03-01T00:00:00Z", **one}) + "\n" for one in said)


def members(project: Projects, *said: dict[str, Any], policy: dict[str, Any] | None = None) -> Any:
    """A project of one source whose members say this."""
    made = project({"members": MEMBERS}, {"members_1.jsonl": lines(*said)}, attributes=ATTRIBUTES)
    rules = {"default": "golden", "policies": {"golden": policy or POLICY}}
    (made.rules / "profiles.yaml").write_text(json.dumps(rules), encoding="utf-8")
    return made


def profile(core: Core, *columns: str) -> Any:
    return core.one(f"select {', '.join(columns)} from profiles.unified")


FULL = {
    "id": "1",
    "home": {"street": "1 High St", "town": "York", "else": [1]},
    "office": {"line1": "2 Low Rd", "place": "Leeds"},
    "sizes": {"shoe": 43, "hat": "M", "glove": "n/a"},
    "spent": {"2025": "10.50", "2026": 3, "all": "much"},
    "phones": [{"id": "p2", "seen": "2026-01-01"}, {"id": "p1"}, {"seen": "n/a"}, "p3"],
}


def test_delivered_json_becomes_typed_columns(project: Projects, run_core: Callable[..., Core]) -> None:
    core = run_core(members(project, FULL), everything=True)
    assert profile(core, "home", "work", "home_town", "sizes", "spent") == (
        {"street": "1 High St", "town": "York"}, {"street": "2 Low Rd", "town": "Leeds"}, "York",
        {"hat": "M", "shoe": "43"}, {"2025": 10.5, "2026": 3.0},
    )  # fmt: skip
    assert str(profile(core, "phones")) == (
        "[{'id': 'p1', 'seen': None}, {'id': 'p2', 'seen': datetime.date(2026, 1, 1)}]"
    )
    described = dict(row[:2] for row in core.rows("describe profiles.unified"))
    assert described["home"] == "STRUCT(street VARCHAR, town VARCHAR)"
    assert described["spent"] == "MAP(VARCHAR, DOUBLE)"
    assert described["phones"] == "STRUCT(id VARCHAR, seen DATE)[]"
    assert core.values("select distinct field from profiles.lineage where value is not null order by 1") == [
        "home_street", "home_town", "phones", "sizes", "spent", "work_street", "work_town",
    ]  # fmt: skip


COLUMNS = [
    ("id", pa.string()),
    ("home", pa.struct([("street", pa.string()), ("town", pa.string())])),
    ("office", pa.struct([("line1", pa.string()), ("place", pa.string())])),
    ("sizes", pa.map_(pa.string(), pa.string())),
    ("spent", pa.map_(pa.string(), pa.decimal128(10, 2))),
    ("phones", pa.list_(pa.struct([("id", pa.string()), ("seen", pa.date32())]))),
    ("moment", pa.timestamp("us", "UTC")),
]


def test_parquet_with_parts_says_what_json_says(project: Projects, run_core: Callable[..., Core]) -> None:
    told = {
        "id": "1", "moment": datetime(2026, 3, 1, tzinfo=UTC), "office": {"line1": None, "place": 'The "Old" Town'},
        "home": {"street": "1 High St", "town": None}, "sizes": {"shoe": "43"}, "spent": {"2025": Decimal("10.50")},
        "phones": [{"id": "p2", "seen": date(2026, 1, 1)}, {"id": "p1", "seen": None}],
    }  # fmt: skip
    sink = pa.BufferOutputStream()
    nobody = {"id": "2", "moment": told["moment"]}
    pq.write_table(pa.Table.from_pylist([told, nobody], pa.schema(COLUMNS)), sink)
    rule = {**MEMBERS, "files": "members_*.parquet", "format": {"type": "parquet"}}
    made = project(
        {"members": rule}, {"members_1.parquet": sink.getvalue().to_pybytes()}, attributes=ATTRIBUTES
    )
    core = run_core(made, everything=True)
    assert core.rows("select home, work, sizes, spent, phones from profiles.unified order by home_street") == [
        ({"street": "1 High St", "town": None}, {"street": None, "town": 'The "Old" Town'}, {"shoe": "43"},
         {"2025": 10.5}, [{"id": "p1", "seen": None}, {"id": "p2", "seen": date(2026, 1, 1)}]),
        (None, None, None, None, None),
    ]  # fmt: skip


def test_an_explicit_null_clears_a_struct_a_part_or_a_key(
    project: Projects, run_core: Callable[..., Core]
) -> None:
    made = members(project, FULL)
    run_core(made, everything=True)
    later = {"id": "1", "moment": "2026-03-02T00:00:00Z"}
    project.deliver(
        made, "members_2.jsonl", lines({**later, "home": {"street": None}, "sizes": {"shoe": None}})
    )
    core = run_core(made, everything=True)
    assert profile(core, "home", "sizes") == ({"street": None, "town": "York"}, {})
    project.deliver(
        made, "members_3.jsonl", lines({"id": "1", "moment": "2026-03-03T00:00:00Z", "home": None})
    )
    core = run_core(made, everything=True)
    assert profile(core, "home", "home_town", "work.town") == (None, None, "Leeds")


def test_what_is_no_json_of_its_kind_is_nothing_and_reported(
    project: Projects, run_core: Callable[..., Core]
) -> None:
    made = members(
        project, {"id": "1", "sizes": ["M"]}, {"id": "2", "phones": {"id": "p"}}, {"id": "3", "home": "York"},
        {"id": "4", "sizes": {}, "phones": [], "home": {}},
    )  # fmt: skip
    twice = '{"id": "5", "sizes": {"hat": "M", "hat": "L"}, "moment": "2026-03-01T00:00:00Z"}\n'
    project.deliver(made, "members_2.jsonl", twice)
    core = run_core(made, everything=True)
    checks = staging.checks(core.con, "members")
    assert {name: check.failed for name, check in checks.items() if name.endswith("_readable") and check.failed} == {
        "sizes_readable": 2, "phones_readable": 1, "home_street_readable": 1, "home_town_readable": 1,
    }  # fmt: skip
    assert core.values(
        "select count(*) from profiles.unified where sizes is null and phones is null and home is null"
    ) == [5]


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"home": {"type": "struct"}}, "attributes.home: a struct needs `fields:`, a name and a type for each"),
    ({"home": {"type": "city", "fields": {"a": "text"}}}, "attributes.home: `fields:` belong to a struct"),
    ({"home": {"type": "map", "atomic": True}}, "attributes.home: `atomic:` belongs to a struct; remove it"),
    ({"home": {"type": "list", "values": "number"}}, "attributes.home: `values:` belong to a map; remove them"),
    (
        {"home": {"type": "struct", "fields": {"at": {"type": "struct", "fields": {"x": "text"}}}}},
        "attributes.home: `fields.at` is a struct inside a struct",
    ),
    ({"home": {"type": "list", "fields": {"at": "email"}}}, "attributes.home: `fields.at` cannot be email in a list"),
    (
        {"home": {"type": "struct", "fields": {"town": "city"}}, "home_town": {"type": "city"}},
        "attributes.home.fields.town: becomes `home_town`, which is there already; rename one of them",
    ),
    ({"map": {"type": "struct", "fields": {"town": "city"}}}, "attributes.map: is a word of SQL; write `map_value`"),
    ({"raw": {"type": "struct", "fields": {"town": "city"}}}, "attributes.raw: is a column that every profile or record has"),
]  # fmt: skip


@pytest.mark.parametrize(("attributes", "line"), MISTAKES)
def test_a_mistake_is_one_line(project: Projects, attributes: dict[str, Any], line: str) -> None:
    made = project(attributes=attributes)
    with pytest.raises(RuleError) as caught:
        load_config(made.rules)
    [found] = caught.value.problems
    assert line in found


POLICIES: list[tuple[dict[str, Any], str]] = [
    ({"fields": {"work_town": {"choose": ["longest"]}}}, "golden: `work_town` has a rule, but `work` is atomic"),
    ({"fields": {"work": {"keep": "list"}}}, "golden.fields.work.keep: `work` is atomic, its record is chosen as a whole"),
    ({"groups": {"work": {"fields": ["home_street", "home_town"]}}}, "golden.groups.work: is an atomic struct; rename"),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "line"), POLICIES)
def test_an_atomic_struct_is_ruled_as_a_whole(project: Projects, policy: dict[str, Any], line: str) -> None:
    made = members(project, FULL, policy=policy)
    with pytest.raises(RuleError) as caught:
        load_config(made.rules)
    [found] = caught.value.problems
    assert line in found


def test_a_struct_is_mapped_as_a_whole_or_part_by_part(project: Projects) -> None:
    twice = {**MEMBERS, "attributes": {**MEMBERS["attributes"], "home_town": "home ->> '$.town'"}}
    made = project({"members": twice}, attributes=ATTRIBUTES)
    with pytest.raises(
        RuleError, match=r"members.attributes.home_town: `home` maps it already; keep one of them"
    ):
        load_config(made.rules)


# ---------------------------------------------------------------- behind the profile table

SOMETHING = st.one_of(st.none(), st.sampled_from(["York", "Hull"]))
SPOKEN = st.lists(
    st.fixed_dictionaries({"a": SOMETHING, "b": SOMETHING, "at": st.integers(0, 2), "clears": st.booleans()}),
    min_size=1,
    max_size=4,
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(said=SPOKEN, choose=st.sampled_from([None, "most_recent", "most_complete", "unanimous_or_null"]))
def test_an_atomic_struct_is_the_locked_group_of_its_fields(
    said: list[dict[str, Any]], choose: str | None
) -> None:
    rule = {"choose": [choose]} if choose else {}
    struct = {"type": "struct", "atomic": True, "fields": {"a": "city", "b": "city"}}
    group = {"fields": ["place_a", "place_b"], **rule}
    policies: list[dict[str, Any]] = [
        {"choose": ["least_recent"], "fields": {"place": rule} if rule else {}},
        {"choose": ["least_recent"], "groups": {"place": group}},
    ]
    found = []
    for attributes, policy in zip(
        ({"place": struct}, {"place_a": "city", "place_b": "city"}), policies, strict=True
    ):
        config = config_of(attributes, {"golden": policy})
        records = [
            {"key": f"a:{n}", "profile": "p", "at": one["at"], "place_a": one["a"], "place_b": one["b"],
             "cleared": [f"place_{part}" for part in "ab" if one["clears"] and one[part] is None]}
            for n, one in enumerate(said)
        ]  # fmt: skip
        with warehouse() as con:
            con.execute("create table raw.batches (batch integer, as_of timestamptz)")
            set_records(con, config, records)
            for build in (build_candidates, build_lineage, build_unified):
                build(con, config)
            found.append(rows(con, "select place_a, place_b from profiles.unified"))
            if "place" in attributes:
                shown = rows(con, "select place.a, place.b from profiles.unified")
    assert found == [shown, shown]


def test_pins_read_what_a_source_would_write(project: Projects, run_core: Callable[..., Core]) -> None:
    core = run_core(members(project, FULL), everything=True)
    [profile_id] = core.values("select profile_id from profiles.unified")
    made = pins.prepare(
        core.con, core.config, profile_id, "sizes", '{"shoe": "45", "hat": "n/a"}', "ann", "seen"
    )
    assert (made.value, made.field_type) == ('{"shoe":"45"}', "map(text, text)")
    made = pins.prepare(core.con, core.config, profile_id, "phones", '[{"id": "p9"}]', "ann", "seen")
    assert made.value == '[{"id":"p9","seen":null}]'
    with pytest.raises(
        PipelineError, match="`home` is a struct; pin one of its fields: home_street, home_town"
    ):
        pins.prepare(core.con, core.config, profile_id, "home", "x", "ann", "seen")


def test_the_dictionary_says_what_a_struct_holds(project: Projects) -> None:
    config = load_config(members(project, FULL).rules)
    assert column_description(config, "profiles", "home") == "Home. Holds home_street, home_town."
    assert column_description(config, "profiles", "home_town") == "Town of home."
    assert [is_personal(config, "profiles", name) for name in ("home", "work", "work_town")] == [
        True,
        False,
        False,
    ]


def test_a_struct_with_a_sensitive_field_is_hidden_with_it(project: Projects) -> None:
    secret = {"papers": {"type": "struct", "fields": {"passport": "national_id", "issued": "date"}}}
    config = load_config(project(attributes={**ATTRIBUTES, **secret}).rules)
    masks = Masks(config)
    assert masks.value("papers", {"passport": "AB1"}) == masks.value("papers_passport", "AB1") == HIDDEN
    assert masks.condition("papers.issued is not null", "AB1") == HIDDEN
    assert masks.value("home", {"town": "York"}) == {"town": "York"}


def test_pages_show_parts_not_json() -> None:
    assert said('{"hat":null,"shoe":"<b>"}', "map").striptags() == "hat: \N{EN DASH}, shoe: <b>"
    assert said('[{"id":"p1"},"tea"]', "list").striptags() == "id: p1, tea"
    assert said(HIDDEN, "map") == said(HIDDEN, "text")
    assert said(None, "list") == said(None, "text")


def test_a_page_shows_nested_payloads_and_nothing_of_one_that_nobody_can_read(project: Projects) -> None:
    mapped = {**MEMBERS, "kind": "event", "event": {"id": "id"}, "columns": [*MEMBERS["columns"], "born"]}
    mapped["attributes"] = {"birth_date": "born"}
    masks = Masks(load_config(project({"members": mapped}, attributes=ATTRIBUTES).rules))
    told = '{"home": {"town": ["York", NaN]}, "born": {"day": 1}}'
    assert masks.payload("members", told) == {"home": {"town": ["York", "NaN"]}, "born": HIDDEN}
    deep = '{"born": "1980-02-03", "note": ' + "[" * 5000 + "]" * 5000 + "}"
    assert masks.payload("members", deep) == {"event": HIDDEN}


def test_a_struct_does_not_undo_hashing(project: Projects) -> None:
    made = project(
        {"members": MEMBERS},
        attributes={
            **ATTRIBUTES,
            "home": {"type": "struct", "fields": {"mail": "email", "street": "text", "town": "city"}},
        },
    )
    out = {"to": {"type": "local", "folder": "out"}, "hash": {"columns": ["home_mail"], "method": "sha256"},
           "ship": {"all": {"table": "profiles", "columns": ["profile_id", "home", "work"]}}}  # fmt: skip
    (made.rules / "sharing.yaml").write_text(json.dumps({"destinations": {"out": out}}), encoding="utf-8")
    with pytest.raises(RuleError, match=r"ship.all.columns: `home` holds identifiers in the clear") as caught:
        load_config(made.rules)
    assert len(caught.value.problems) == 1
