"""Reads the rule files into one frozen object; every mistake becomes one line with file, key and fix."""

import difflib
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from profile_pipeline.config.audiences import AudienceRules
from profile_pipeline.config.expectations import Suite
from profile_pipeline.config.identity import IdentityRules, Namespace
from profile_pipeline.config.model import Rule
from profile_pipeline.config.profiles import ProfileRules
from profile_pipeline.config.publication import PublicationRules
from profile_pipeline.config.sources import Attribute, Source, SourceRules
from profile_pipeline.errors import PipelineError

MAX_RULE_BYTES = 1_000_000
FILES: dict[str, type[Rule]] = {
    "sources.yaml": SourceRules,
    "identity.yaml": IdentityRules,
    "profiles.yaml": ProfileRules,
    "audiences.yaml": AudienceRules,
    "publication.yaml": PublicationRules,
}
OPTIONAL = {"identity.yaml", "audiences.yaml", "publication.yaml"}
AnyRule = TypeVar("AnyRule", bound=Rule)


class RuleError(PipelineError):
    """One or more mistakes in the rule files, a line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Config(Rule):
    """Everything a project declares."""

    attributes: dict[str, Attribute]
    sources: dict[str, Source]
    identity: IdentityRules
    profiles: ProfileRules
    audiences: AudienceRules
    publication: PublicationRules
    suites: dict[str, Suite] = {}

    @cached_property
    def record_sources(self) -> dict[str, Source]:
        """Sources whose rows describe a person: record sources and events that carry attributes."""
        return {name: source for name, source in self.sources.items() if source.key}

    @cached_property
    def event_sources(self) -> dict[str, Source]:
        """Sources whose rows are events."""
        return {name: source for name, source in self.sources.items() if source.kind == "event"}

    @property
    def namespaces(self) -> dict[str, Namespace]:
        """Identifier namespaces by name."""
        return self.identity.namespaces


def load_config(folder: Path) -> Config:
    """Read and cross-check a rules folder; raises RuleError with a line for each mistake."""
    problems: list[str] = []
    parts = {name: _read(folder, name, model, problems) for name, model in FILES.items()}
    suites = _read_suites(folder / "expectations", problems)
    if problems:
        raise RuleError(problems)
    sources = parts["sources.yaml"]
    assert isinstance(sources, SourceRules)
    config = Config.model_construct(
        attributes=sources.attributes,
        sources=sources.sources,
        identity=parts["identity.yaml"],
        profiles=parts["profiles.yaml"],
        audiences=parts["audiences.yaml"],
        publication=parts["publication.yaml"],
        suites=suites,
    )
    problems = cross_check(config)
    if problems:
        raise RuleError(problems)
    return config


def _read_suites(folder: Path, problems: list[str]) -> dict[str, Suite]:
    suites = {}
    for path in sorted(folder.glob("*.yaml")):
        suite = _read(folder, path.name, Suite, problems, label=f"expectations/{path.name}")
        if suite:
            suites[path.stem] = suite
    return suites


def _read(
    folder: Path, name: str, model: type[AnyRule], problems: list[str], label: str = ""
) -> AnyRule | None:
    path, label = folder / name, label or name
    if not path.exists():
        if name in OPTIONAL:
            return model()
        problems.append(f"{label}: not found in {folder}; `profile-pipeline init` makes a commented one")
        return None
    try:
        return model.model_validate(read_yaml(path) or {})
    except ValidationError as error:
        problems += [f"{label}: {line}" for line in _explain(error, model)]
    except PipelineError as error:
        problems.append(f"{label}: {error}")
    return None


def read_yaml(path: Path) -> Any:  # noqa: ANN401
    """A YAML 1.2 document: at most 1 MB, no aliases, tags or duplicate keys."""
    if path.stat().st_size > MAX_RULE_BYTES:
        raise PipelineError(f"larger than {MAX_RULE_BYTES:,} bytes; rule files are small")
    yaml = YAML(typ="safe", pure=True)
    text = path.read_text(encoding="utf-8")
    try:
        if any(_is_alias(event) for event in yaml.parse(text)):
            raise PipelineError("anchors and aliases are not allowed; write the value out")
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise PipelineError(f"line {line}: {error.problem}; mend the YAML") from None
    except YAMLError as error:
        raise PipelineError(f"{str(error).splitlines()[0]}; mend the YAML") from None


def _is_alias(event: object) -> bool:
    return type(event).__name__ == "AliasEvent"


def _explain(error: ValidationError, model: type[Rule]) -> list[str]:
    lines = []
    for problem in error.errors():
        # a union reports every arm; arms that are not the plain key path carry a type name
        where = ".".join(str(part) for part in problem["loc"] if not _union_arm(part))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key" + _suggestion(str(problem["loc"][-1]), model)
        lines.append(f"{where or '(file)'}: {message}")
    return list(dict.fromkeys(lines))


def _union_arm(part: object) -> bool:
    return isinstance(part, str) and (part in {"Mapping"} or "constrained-str" in part)


def _suggestion(key: str, model: type[Rule]) -> str:
    names = _field_names(model)
    close = difflib.get_close_matches(key, names, n=1)
    return f"; did you mean `{close[0]}`?" if close else "; remove it"


def _field_names(model: type[Rule]) -> list[str]:
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return sorted({name for part in parts for name in part.get("properties", {})})


def cross_check(config: Config) -> list[str]:
    """Mistakes between rule files: names that nothing declares."""
    return [
        *_check_sources(config),
        *_check_policies(config),
        *_check_audiences(config),
        *_check_suites(config),
    ]


def _unknown(where: str, kind: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(known) or 'none'}"
    return f"{where}: unknown {kind} `{name}`; {hint}"


def _check_sources(config: Config) -> list[str]:
    problems = []
    for name, source in config.sources.items():
        where = f"sources.yaml: sources.{name}"
        problems += [
            _unknown(f"{where}.attributes", "attribute", field, list(config.attributes))
            for field in source.attributes
            if field not in config.attributes
        ]
        problems += [
            _unknown(f"{where}.identifiers", "namespace", space, list(config.namespaces))
            + " (namespaces are declared in identity.yaml)"
            for space in source.identifiers
            if space not in config.namespaces
        ]
        lowered = [column.lower() for column in source.columns]
        problems += [
            f"{where}.columns: `{column}` appears twice (letter case does not count)"
            for column in dict.fromkeys(lowered)
            if lowered.count(column) > 1
        ]
    return problems


def _check_policies(config: Config) -> list[str]:
    rules = config.profiles
    problems = []
    if rules.default not in rules.policies:
        problems.append(_unknown("profiles.yaml: default", "policy", rules.default, list(rules.policies)))
    for name, policy in rules.policies.items():
        where = f"profiles.yaml: policies.{name}"
        named = [*policy.fields, *(f for group in policy.groups.values() for f in group.fields)]
        ranked = [*policy.sources, *(s for f in policy.fields.values() for s in f.sources or {})]
        problems += [
            _unknown(where, "attribute", field, list(config.attributes))
            for field in named
            if field not in config.attributes
        ]
        problems += [
            _unknown(f"{where}.sources", "source", source, list(config.record_sources))
            for source in ranked
            if source not in config.record_sources
        ]
        problems += [
            f"{where}: `{field}` is in a group and has its own rule, or in two groups; keep one"
            for field in dict.fromkeys(named)
            if named.count(field) > 1
        ]
    return problems


def _check_audiences(config: Config) -> list[str]:
    return [
        _unknown(
            f"audiences.yaml: audiences.{name}.consent",
            "attribute",
            audience.consent,
            list(config.attributes),
        )
        for name, audience in config.audiences.audiences.items()
        if audience.consent and audience.consent not in config.attributes
    ]


def _check_suites(config: Config) -> list[str]:
    problems = []
    for table in config.suites:
        schema, _, name = table.partition(".")
        if schema in {"raw", "records"} and name in config.sources:
            continue
        if schema not in {"records", "identity", "profiles", "audiences", "metrics"} or not name:
            problems.append(
                f"expectations/{table}.yaml: no such table; name the file <schema>.<table>.yaml,"
                " for example raw.crm.yaml"
            )
    return problems
