"""Rule files: every mistake is one line with file, key and fix; what loads survives a round trip."""
# ruff: noqa: E501  a table of mistakes reads best with a line each

import json
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_pipeline.config.cross_check import RESERVED_WORDS
from profile_pipeline.config.load import RuleError, load_config
from profile_pipeline.config.project import PACKAGE_RULES
from profile_pipeline.config.reading import parse_yaml
from profile_pipeline.config.sources import SourceRules
from profile_pipeline.schemas import FOLDER, MODELS, schema_of, schema_texts

SOURCES = """
attributes:
  email: {type: email}
  city: {type: city}
sources:
  crm:
    kind: record
    files: crm_*.csv
    format: {type: csv}
    columns: [id, mail, town]
    key: id
    attributes: {email: mail, city: town}
    identifiers: {email: mail}
"""
OTHERS = {
    "identity.yaml": "namespaces: {email: {type: email, link: false}}\n",
    "profiles.yaml": "default: golden\npolicies: {golden: {}}\n",
    "audiences.yaml": "audiences: {reachable: {where: email is not null}}\n",
    "publication.yaml": "keep_generations: 5\n",
}


def write_rules(folder: Path, **changed: str) -> Path:
    for name, text in {"sources.yaml": SOURCES, **OTHERS}.items():
        (folder / name).write_text(changed.get(name.removesuffix(".yaml"), text), encoding="utf-8")
    return folder


def problems(folder: Path) -> list[str]:
    with pytest.raises(RuleError) as caught:
        load_config(folder)
    assert str(caught.value).splitlines() == caught.value.problems, "a mistake is one line"
    return caught.value.problems


MISTAKES = [
    ("kind: record", "kind: recrod", "sources.yaml: sources.crm.kind: `recrod` is not one of record, event; did you mean `record`?"),
    ("kind: record", "", "sources.yaml: sources.crm.kind: is missing; add `kind:` (record or event)"),
    ("columns: [id", "colums: [id", "sources.yaml: sources.crm.colums: unknown key; did you mean `columns`?"),
    ("    key: id", "    delimiter: ;", "sources.yaml: sources.crm.delimiter: unknown key; it belongs under `format:`"),
    ("{type: csv}", "{type: csv, delimeter: x}", "sources.yaml: sources.crm.format.delimeter: unknown key; did you mean `delimiter`?"),
    ("{type: csv}", "{type: csv, delimiter: ab}", "sources.yaml: sources.crm.format.delimiter: `ab` is longer than 1 character; shorten it"),
    ("{type: csv}", "{type: csv, max_ratio: 0}", "sources.yaml: sources.crm.format.max_ratio: must be more than 0, not `0`"),
    ("{type: csv}", "csv", "sources.yaml: sources.crm.format: must be a group of keys, not `csv`; indent keys below it, for example `type: ...`"),
    ("columns: [id, mail, town]", "columns: id", "sources.yaml: sources.crm.columns: must be a list, not `id`; write [id]"),
    ("columns: [id, mail, town]", "columns: []", "sources.yaml: sources.crm.columns: needs at least 1 entry; add one"),
    ("columns: [id,", "columns: [1,", 'sources.yaml: sources.crm.columns.0: must be text, not `1`; put it in quotes: "1"'),
    ("files: crm_*.csv", "files: 2025-01-01", 'sources.yaml: sources.crm.files: must be text, not `2025-01-01`; put it in quotes: "2025-01-01"'),
    ("key: id", "key: [id]", "sources.yaml: sources.crm.key: must be text, not a list; write one value"),
    ("key: id", "matching: perhaps", "sources.yaml: sources.crm.matching: must be true or false, not `perhaps`"),
    ("key: id", "guards: {min_rows: many}", "sources.yaml: sources.crm.guards.min_rows: must be a whole number, not `many`"),
    ("key: id", "guards: {max_drift: 2}", "sources.yaml: sources.crm.guards.max_drift: must be at most 1, not `2`"),
    ("key: id", "", "sources.yaml: sources.crm: a record source needs `key:`, the expression that names a record"),
    ("key: id", "key: id\n    country: gb", "sources.yaml: sources.crm.country: `gb` is not a two-letter country code in capitals; write one such as GB"),
    ("key: id", "key: id\n    optional_columns: [twn]", "sources.yaml: sources.crm.optional_columns: unknown column `twn`; did you mean `town`?"),
    ("[id, mail, town]", "[id, mail, town, ID]", "sources.yaml: sources.crm.columns: `id` appears twice (letter case does not count); keep one"),
    ("city: town}", "city: {vlaue: town}}", "sources.yaml: sources.crm.attributes.city.value: is missing; add `value:` (expression that gives the value as text)"),
    ("city: town}", "city: [town]}", "sources.yaml: sources.crm.attributes.city: must be text, not a list; write one value, or the keys `value:` and `cleared:`"),
    ("city: town}", "citty: town}", "sources.yaml: sources.crm.attributes: unknown attribute `citty`; did you mean `city`?"),
    ("{email: mail}", "{phone: mail}", "sources.yaml: sources.crm.identifiers: unknown namespace `phone`; known: email (namespaces are declared in identity.yaml)"),
    ("  crm:", "  My-Feed:", "sources.yaml: sources.My-Feed: `My-Feed` is not a name of lower-case letters, digits and _ that starts with a letter; write `my_feed`"),
    ("  crm:", "  event:", "sources.yaml: sources.event: is how keys of identities known from events begin; write `event_feed`"),
    ("  crm:", "  current:", "sources.yaml: sources.current: is the name of a table of our own; write `current_feed`"),
    ("  crm:", "  order:", "sources.yaml: sources.order: is a word of SQL; write `order_feed`"),
    ("  city: {type: city}", "  city: {type: town}", None),
    ("  city: {type: city}", "  city: {type: city}\n  kind: {type: text}", "sources.yaml: attributes.kind: is a column that every profile or record has; write `customer_kind`"),
    ("  city: {type: city}", "  city: {type: city}\n  city: {type: text}", "sources.yaml: line 5: `city` appears twice; keep one"),
    ("  city: {type: city}", "\tcity: {type: city}", "sources.yaml: line 4: a tab; indent with spaces"),
    ("  city: {type: city}", "  city: *town", "sources.yaml: line 4: anchors and aliases are not allowed; put the value in quotes"),
    ("  city: {type: city}", "  city: &a {type: city}", "sources.yaml: line 4: anchors and aliases are not allowed; put the value in quotes"),
    ("  city: {type: city}", "  city: !town {type: city}", "sources.yaml: line 4: `!town` is a tag; write a plain value, or put it in quotes"),
    ("  city: {type: city}", "  <<: {type: city}", "sources.yaml: line 4: `<<` is not allowed; write the value out"),
    ("  city: {type: city}", "  city: {type: city", "sources.yaml: line 5: a [ or { is not closed; close it, and put values with : or , in quotes"),
    ("  city: {type: city}", "  city: a: b", "sources.yaml: line 4: a second `: ` in one line; put the value in quotes"),
    ("  city: {type: city}", '  city: "a', "sources.yaml: line 14: a quote is opened and never closed; close it"),
    ("  city: {type: city}", " city: {type: city}", "sources.yaml: line 4: does not line up with the lines above; mend the indentation"),
    ("  city: {type: city}", "  city: %d", "sources.yaml: line 4: a value starts with `%`; put it in quotes"),
    ("\nattributes:", "%YAML 1.1\n---\nattributes:", "sources.yaml: line 2: a % directive; remove it, rule files are YAML 1.2"),
    ("\nattributes:", "[1]\n---\nattributes:", "sources.yaml: line 2: `---` starts a second document; keep one a file"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "line"), MISTAKES, ids=[f"{new.strip()[:40]!r}" for _, new, _ in MISTAKES]
)
def test_a_mistake_is_one_line_with_its_fix(tmp_path, old, new, line):
    assert old in SOURCES
    found = problems(write_rules(tmp_path, sources=SOURCES.replace(old, new, 1)))
    if line is None:
        assert found[0].startswith(
            "sources.yaml: attributes.city.type: `town` is not one of given_name, middle_name, "
        )
    else:
        assert line in found


OTHER_MISTAKES = [
    ("profiles", "default: gold\npolicies: {golden: {}}", "profiles.yaml: default: unknown policy `gold`; did you mean `golden`?"),
    ("profiles", "default: golden\npolicies: {golden: {choose: [newest]}}", None),
    ("profiles", "default: golden\npolicies: {golden: {sources: {crn: 1}}}", "profiles.yaml: policies.golden.sources: unknown source `crn`; did you mean `crm`?"),
    ("profiles", "default: golden\npolicies: {golden: {method: time_ordered, fields: {city: {choose: [longest]}}}}", "profiles.yaml: policies.golden: method time_ordered takes no fields or groups; use method: per_field"),
    ("profiles", "policies: {golden: {}}", "profiles.yaml: default: is missing; add `default:` (the policy that audiences and lookups use)"),
    ("identity", "namespaces: {email: {unique: 0}}", "identity.yaml: namespaces.email.unique: must be at least 1, not `0`"),
    ("identity", "matching: {target_precision: 1}", "identity.yaml: matching.target_precision: must be less than 1, not `1`"),
    ("identity", "matching: {threshold: high}", "identity.yaml: matching.threshold: must be a number, not `high`"),
    ("audiences", "audiences: {a: {where: x, consent: emial}}", "audiences.yaml: audiences.a.consent: unknown attribute `emial`; did you mean `email`?"),
    ("publication", "- 5", "publication.yaml: (file): must be a group of keys, not a list; indent keys below it, for example `keep_generations: ...`"),
    ("publication", "keep: 5", None),
    ("publication", "x: '" + "a" * 1_000_000 + "'", "publication.yaml: larger than 1,000,000 bytes; rule files are small, split data from rules"),
    ("publication", "x: " + "[" * 5000 + "]" * 5000, "publication.yaml: line 1: nested more than 40 deep; rule files are flat"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "line"), OTHER_MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_of_the_other_files(tmp_path, name, text, line):
    found = problems(write_rules(tmp_path, **{name: text}))
    assert line in found if line else found[0].startswith(f"{name}.yaml: ")
    assert not any("Input should" in each or "Field required" in each for each in found)


def test_all_mistakes_of_all_files_are_reported_at_once(tmp_path):
    folder = write_rules(tmp_path, sources="attributes: 5\n", publication="keep_generations: 1\n")
    assert [line.split(":")[0] for line in problems(folder)] == ["sources.yaml", "publication.yaml"]


def test_a_missing_file_names_the_command_that_makes_it(tmp_path):
    (write_rules(tmp_path) / "profiles.yaml").unlink()
    [line] = problems(tmp_path)
    assert line.startswith("profiles.yaml: (file): not found in ")
    assert line.endswith("`profile-pipeline init` makes a commented one")


def test_a_file_that_is_not_utf_8(tmp_path):
    (write_rules(tmp_path) / "audiences.yaml").write_bytes(b"audiences: {a: {where: '\xe9'}}")
    assert problems(tmp_path) == ["audiences.yaml: is not UTF-8; save it with that encoding"]


def test_norway_is_a_country_and_a_tab_a_delimiter(tmp_path):
    text = SOURCES.replace("key: id", "key: id\n    country: NO").replace(
        "{type: csv}", '{type: csv, delimiter: "\\t"}'
    )
    source = load_config(write_rules(tmp_path, sources=text)).sources["crm"]
    assert (source.country, source.format.delimiter) == ("NO", "\t")


def test_a_key_with_nothing_behind_it_has_its_default(tmp_path):
    rules = load_config(write_rules(tmp_path, publication="schedule:\n", sources="attributes:\nsources:\n"))
    assert (rules.sources, rules.publication.schedule) == ({}, "0 5 * * *")


def test_reserved_words_are_those_of_this_duckdb():
    query = (
        "select keyword_name from duckdb_keywords() where keyword_category in ('reserved', 'type_function')"
    )
    assert {word for (word,) in duckdb.execute(query).fetchall()} == RESERVED_WORDS


names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        names,
        st.fixed_dictionaries({"type": st.sampled_from(["text", "email", "city"]), "description": texts}),
    ),
    st.dictionaries(names, st.lists(texts, min_size=1, max_size=4), max_size=2),
)
def test_what_is_dumped_loads_again(attributes, sources):
    rules = SourceRules.model_validate(
        {
            "attributes": attributes,
            "sources": {
                name: {
                    "kind": "record",
                    "files": "x",
                    "format": {"type": "csv"},
                    "columns": columns,
                    "key": "x",
                }
                for name, columns in sources.items()
            },
        }
    )
    text = json.dumps(rules.model_dump(), ensure_ascii=False)  # JSON is YAML, and every text is in quotes
    assert SourceRules.model_validate(parse_yaml(text)) == rules


def test_committed_schemas_are_those_of_the_models():
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert committed == schema_texts(), "run `python -m profile_pipeline.schemas`"


def test_every_rule_file_names_a_schema_that_exists():
    for path in PACKAGE_RULES.rglob("*.yaml"):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        assert (path.parent / first.partition("=")[2]).is_file(), path.name


def test_every_key_has_a_description_for_editors():
    bare = [
        f"{name}: {part.get('title')}.{key}"
        for name, model in MODELS.items()
        for part in [schema_of(model), *schema_of(model).get("$defs", {}).values()]
        for key, inner in part.get("properties", {}).items()
        if not inner.get("description")
    ]
    assert not bare, json.dumps(bare, indent=1)
