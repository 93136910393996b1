"""The page of a project that has published nothing yet: which steps are done, which is next, and where it is written down."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from profile_pipeline import publish
from profile_pipeline.config.load import Config, RuleError, load_config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError
from profile_pipeline.report import REPORT

DOCUMENTATION = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Step:
    """One step towards profiles."""

    title: str
    done: bool
    says: str
    command: str
    page: str
    """The page of the documentation, below docs/."""
    optional: bool = False


def report_path(project: Project) -> Path:
    """The report of the live generation; before the first one, the page of next steps, written now.

    Raises PipelineError for a generation that was published without a report.
    """
    live, start = publish.current(project), project.published / REPORT
    if live is None:
        return _write_start(project, start)
    start.unlink(missing_ok=True)
    path = project.published / "current" / REPORT
    if not path.exists():
        raise PipelineError(
            f"generation {live.number} is from before there were reports; the next run that changes something writes one"
        )
    return path


def _write_start(project: Project, path: Path) -> Path:
    from profile_pipeline.report.page import start_page

    project.published.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        config, problems = load_config(project.rules), []
    except RuleError as error:
        config, problems = None, error.problems
    found = start_page(steps(project, config), problems, _documentation(path.parent))
    path.write_text(found, encoding="utf-8", newline="\n")
    return path


def _documentation(folder: Path) -> str:
    """Where links to the documentation lead from a folder; nowhere when it did not come with the program."""
    return Path(os.path.relpath(DOCUMENTATION, folder)).as_posix() if DOCUMENTATION.is_dir() else ""


def steps(project: Project, config: Config | None) -> Sequence[Step]:
    """What has to be there before profiles are, in order."""
    sources = len(config.sources) if config else 0
    policies = len(config.profiles.policies) if config else 0
    audiences = len(config.audiences.audiences) if config else 0
    files = sum(
        path.is_file() for folder in project.deliveries if folder.exists() for path in folder.rglob("*")
    )
    return [
        Step("Put deliveries in place", files > 0, f"{files} files in data/sources and data/inbox.",
             "cp exports/*.csv data/sources/", "rules/sources.md"),
        Step("Describe a source", sources > 0, f"{sources} in rules/sources.yaml.",
             "profile-pipeline sources infer data/sources/FILE --add", "rules/sources.md"),
        Step("Choose a merge policy", policies > 0, f"{policies} in rules/profiles.yaml: which value a profile shows.",
             "profile-pipeline policy show", "rules/profiles.md"),
        Step("Define an audience", audiences > 0, f"{audiences} in rules/audiences.yaml: profiles by conditions and consent.",
             "profile-pipeline audience preview", "rules/audiences.md", optional=True),
        Step("Run", project.database.exists(),
             "A run has begun but has published nothing: run again, it names what blocks it." if project.database.exists()
             else "Not yet: takes files in, resolves who is who, merges, checks and publishes.",
             "profile-pipeline check && profile-pipeline run", "rules/publication.md"),
    ]  # fmt: skip
