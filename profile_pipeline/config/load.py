"""Reads the rule files into one frozen object; every mistake becomes one line with file, key and fix."""

from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from profile_pipeline.config.as_adobe import acting_identity, acting_sources
from profile_pipeline.config.audiences import AudienceRules
from profile_pipeline.config.computed import ComputedRules
from profile_pipeline.config.cross_check import cross_check
from profile_pipeline.config.expectations import Suite
from profile_pipeline.config.identity import IdentityRules, Namespace
from profile_pipeline.config.model import Rule
from profile_pipeline.config.profiles import ProfileRules
from profile_pipeline.config.publication import PublicationRules
from profile_pipeline.config.reading import read_yaml
from profile_pipeline.config.sharing import SharingRules
from profile_pipeline.config.sources import Attribute, Source, SourceRules
from profile_pipeline.config.structs import flattened, struct_problems
from profile_pipeline.config.wording import explain
from profile_pipeline.errors import PipelineError

__all__ = ["Config", "RuleError", "load_config", "read_yaml"]
OPTIONAL = {"identity.yaml", "computed.yaml", "audiences.yaml", "publication.yaml", "sharing.yaml"}
AnyRule = TypeVar("AnyRule", bound=Rule)


class RuleError(PipelineError):
    """One or more mistakes in the rule files, a line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Config(Rule):
    """Everything a project declares. `attributes` has the parts of each struct in its place; `structs` has the structs."""

    attributes: dict[str, Attribute]
    structs: dict[str, Attribute] = {}
    sources: dict[str, Source]
    identity: IdentityRules
    profiles: ProfileRules
    audiences: AudienceRules
    publication: PublicationRules
    computed: ComputedRules = ComputedRules()
    sharing: SharingRules = SharingRules()
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
    """Read and cross-check a rules folder, again only when a file changed; raises RuleError with a line for each mistake."""
    paths = sorted(path for path in folder.glob("**/*.yaml") if path.is_file())
    return _load(folder, tuple((path, path.read_bytes()) for path in paths))


@lru_cache(maxsize=2)
def _load(folder: Path, _: tuple[tuple[Path, bytes], ...]) -> Config:
    problems: list[str] = []
    sources = _read(folder, "sources.yaml", SourceRules, problems)
    identity = _read(folder, "identity.yaml", IdentityRules, problems)
    profiles = _read(folder, "profiles.yaml", ProfileRules, problems)
    computed = _read(folder, "computed.yaml", ComputedRules, problems)
    audiences = _read(folder, "audiences.yaml", AudienceRules, problems)
    publication = _read(folder, "publication.yaml", PublicationRules, problems)
    sharing = _read(folder, "sharing.yaml", SharingRules, problems)
    suites = _read_suites(folder / "expectations", problems)
    if (
        not (sources and identity and profiles and computed and audiences and publication and sharing)
        or problems
    ):
        raise RuleError(problems)
    problems = struct_problems(sources.attributes, sources.sources, profiles.policies)
    if problems:
        raise RuleError(problems)
    config = Config.model_construct(
        **flattened(sources.attributes, sources.sources, profiles),
        identity=identity,
        audiences=audiences,
        publication=publication,
        computed=computed,
        sharing=sharing,
        suites=suites,
    )
    problems = cross_check(config)
    if problems:
        raise RuleError(problems)
    # constructed anew, for nothing that was worked out from the rules as written may stay
    acting = {
        "identity": acting_identity(identity),
        "sources": acting_sources(identity, config.sources),
    }
    return Config.model_construct(None, **{**dict(config), **acting})


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
        problems.append(
            f"{label}: (file): not found in {folder}; `profile-pipeline init` makes a commented one"
        )
        return None
    try:
        data = read_yaml(path)
        return model.model_validate({} if data is None else data)
    except ValidationError as error:
        problems += [f"{label}: {line}" for line in explain(error, model)]
    except PipelineError as error:
        problems.append(f"{label}: {error}")
    return None
