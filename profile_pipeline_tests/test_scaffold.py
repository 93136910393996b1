"""A new project loads, explains every key, never overwrites; the pages about rule files load too."""

import re
from pathlib import Path

import pytest

from profile_pipeline.check import check_project
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import PACKAGE_RULES, project_at
from profile_pipeline.config.reading import parse_yaml
from profile_pipeline.errors import PipelineError
from profile_pipeline.scaffold import init_project, project_texts
from profile_pipeline.schemas import MODELS, schema_of

DOCS = Path(__file__).parent.parent / "docs" / "rules"


def uncommented(text: str) -> str:
    """Lines with # are examples, lines with ## explain; the first line names the schema."""
    return re.sub(r"^#(?=[^#])(?! yaml-language-server)", "", text, flags=re.MULTILINE)


def keys_of(model: type) -> set[str]:
    schema = schema_of(model)
    parts = [schema, *schema.get("$defs", {}).values()]
    return {key for part in parts for key in part.get("properties", {})}


def test_a_new_project_loads_and_only_asks_for_sources(tmp_path):
    made = init_project(tmp_path / "new")
    rules = load_config(tmp_path / "new" / "rules")
    assert (rules.sources, set(rules.namespaces), list(rules.profiles.policies)) == (
        {},
        {"email", "phone"},
        ["golden"],
    )
    assert [p.severity for p in check_project(project_at(tmp_path / "new"))] == ["warning"]
    assert all(path.exists() for path in made)
    names = {path.relative_to(tmp_path / "new").as_posix() for path in made}
    assert {"README.md", ".gitignore", "data/sources", "data/inbox", "rules/schemas/sources.json"} <= names


def test_each_rule_file_names_its_schema_first(tmp_path):
    init_project(tmp_path / "new")
    for path in (tmp_path / "new" / "rules").rglob("*.yaml*"):
        schema = path.read_text(encoding="utf-8").splitlines()[0].partition("$schema=")[2]
        assert (path.parent / schema).is_file(), path.name


def test_the_commented_examples_load_and_check(tmp_path):
    init_project(tmp_path / "new")
    rules = tmp_path / "new" / "rules"
    for path in rules.glob("*.yaml"):
        path.write_text(uncommented(path.read_text(encoding="utf-8")), encoding="utf-8")
    suite = uncommented((rules / "expectations" / "example.yaml.txt").read_text(encoding="utf-8"))
    (rules / "expectations" / "raw.crm.yaml").write_text(suite, encoding="utf-8")
    config = load_config(rules)
    assert (set(config.sources), set(config.suites)) == ({"crm", "shop"}, {"raw.crm"})
    found = check_project(project_at(tmp_path / "new"), expectations=False)
    assert [p.line for p in found if p.severity == "error"] == []


@pytest.mark.parametrize("name", [name for name in MODELS if name != "expectations"])
def test_the_template_mentions_every_key(name):
    text = project_texts()[f"rules/{name}.yaml"]
    assert {key for key in keys_of(MODELS[name]) if not re.search(rf"\b{key}\b", text)} == set()


def test_init_overwrites_nothing(tmp_path):
    mine = tmp_path / "rules" / "profiles.yaml"
    mine.parent.mkdir()
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(
        PipelineError, match=r"holds rules/profiles\.yaml already; choose an empty folder"
    ) as caught:
        init_project(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["rules", "profiles.yaml"]
    assert mine.read_text(encoding="utf-8") == "mine"


def test_init_works_beside_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert len(init_project(tmp_path)) > 10


def doc_examples() -> list[tuple[str, int, str]]:
    found = []
    for page in sorted(DOCS.glob("*.md")):
        blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        found += [(page.stem, number, block) for number, block in enumerate(blocks)]
    return found


@pytest.mark.parametrize(("page", "number", "block"), doc_examples(), ids=lambda value: str(value)[:20])
def test_examples_of_the_documentation_load(tmp_path, page, number, block):
    """An example replaces the keys it has in the demo's rule file of that name."""
    from ruamel.yaml import YAML

    for path in PACKAGE_RULES.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if page == "expectations":
        (tmp_path / "expectations").mkdir()
        (tmp_path / "expectations" / "raw.crm.yaml").write_text(block, encoding="utf-8")
    else:
        rules = parse_yaml((tmp_path / f"{page}.yaml").read_text(encoding="utf-8"))
        example = parse_yaml(block)
        for key, value in example.items():
            rules[key] = (
                {**rules[key], **value}
                if isinstance(value, dict) and isinstance(rules.get(key), dict)
                else value
            )
        with (tmp_path / f"{page}.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(rules, file)
    load_config(tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_the_page_of_a_rule_file_mentions_every_key(name):
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert {key for key in keys_of(MODELS[name]) if not re.search(rf"\b{key}\b", text)} == set()
