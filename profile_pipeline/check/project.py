"""All checks of a project, in the order in which they are best mended."""

from profile_pipeline.check.expressions import audience_problems, source_problems
from profile_pipeline.check.files import file_problems
from profile_pipeline.check.formats import format_problems
from profile_pipeline.check.problem import Problem
from profile_pipeline.check.questions import open_questions
from profile_pipeline.check.sharing import sharing_table_problems
from profile_pipeline.check.suites import suite_problems
from profile_pipeline.config.load import Config, RuleError, load_config
from profile_pipeline.config.project import Project


def check_project(project: Project, *, expectations: bool = True) -> list[Problem]:
    """Every mistake found, errors and warnings; an empty list means that a run can start.

    `expectations=False` leaves Great Expectations out, whose import takes about ten seconds.
    """
    asked = open_questions(project.rules)
    try:
        config = load_config(project.rules)
    except RuleError as error:
        return [*asked, *(Problem.from_line(line) for line in error.problems)]
    found = [
        *source_problems(config),
        *format_problems(config),
        *audience_problems(config),
        *sharing_table_problems(config),
        *(suite_problems(config) if expectations else []),
        *file_problems(config, project),
        *unused_names(config),
    ]
    return [*asked, *(problem for problem in found if not _is_asked(problem, asked))]


def _is_asked(problem: Problem, asked: list[Problem]) -> bool:
    """Whether a problem is the `?` that an open question left behind: saying it twice does not help."""
    return "`?`" in problem.message and any(problem.key.startswith(question.key) for question in asked)


def unused_names(config: Config) -> list[Problem]:
    """Warnings about declared fields, namespaces and whole projects that no source fills."""
    if not config.sources:
        fix = "`profile-pipeline sources infer FILE...` proposes one"
        return [Problem("sources.yaml", "sources", f"no source is declared yet; {fix}", "warning")]
    filled = {field for source in config.sources.values() for field in source.attributes}
    named = {space for source in config.sources.values() for space in source.identifiers}
    return [
        *(
            Problem(
                "sources.yaml", f"attributes.{field}", "no source fills it; map it or remove it", "warning"
            )
            for field in config.attributes
            if field not in filled
        ),
        *(
            Problem(
                "identity.yaml", f"namespaces.{space}", "no source uses it; map it or remove it", "warning"
            )
            for space in config.namespaces
            if space not in named
        ),
    ]
