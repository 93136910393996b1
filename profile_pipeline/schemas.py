"""JSON Schemas of the rule files, for completion and checks in editors; generated from the models, committed.

`python -m profile_pipeline.schemas` writes them anew.
"""

import json
from pathlib import Path
from typing import Any

from profile_pipeline.config.audiences import AudienceRules
from profile_pipeline.config.computed import ComputedRules
from profile_pipeline.config.expectations import Suite
from profile_pipeline.config.identity import IdentityRules
from profile_pipeline.config.model import Rule
from profile_pipeline.config.profiles import ProfileRules
from profile_pipeline.config.publication import PublicationRules
from profile_pipeline.config.sharing import SharingRules
from profile_pipeline.config.sources import SourceRules

MODELS: dict[str, type[Rule]] = {
    "sources": SourceRules,
    "identity": IdentityRules,
    "profiles": ProfileRules,
    "computed": ComputedRules,
    "audiences": AudienceRules,
    "publication": PublicationRules,
    "sharing": SharingRules,
    "expectations": Suite,
}
DRAFT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = Path(__file__).parent / "rules" / "schemas"


def schema_texts() -> dict[str, str]:
    """File name to JSON text, a schema a rule file."""
    return {f"{name}.json": json.dumps(schema_of(model), indent=2) + "\n" for name, model in MODELS.items()}


def schema_of(model: type[Rule]) -> dict[str, Any]:
    """The schema of a rule file. A key with nothing behind it has its default, so null is allowed for optional ones."""
    schema = model.model_json_schema()
    for part in [schema, *schema.get("$defs", {}).values()]:
        for name, inner in part.get("properties", {}).items():
            if name not in part.get("required", []) and "enum" not in inner:
                part["properties"][name] = _or_null(inner)
    return {"$schema": DRAFT, **schema}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    if "$ref" in schema:
        others = {key: value for key, value in schema.items() if key != "$ref"}
        return {"anyOf": [{"$ref": schema["$ref"]}, {"type": "null"}], **others}
    return schema


def write_schemas(folder: Path = FOLDER) -> list[Path]:
    """Write every schema into a folder; the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in schema_texts().items():
        (folder / name).write_text(text, encoding="utf-8")
        paths.append(folder / name)
    return paths


if __name__ == "__main__":
    write_schemas()
