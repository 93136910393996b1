"""What every command shares: the terminal, options, plain errors, the project and its warehouse."""

import getpass
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from profile_pipeline import display
from profile_pipeline.config.project import Project, current_project, project_at
from profile_pipeline.errors import BusyError, PipelineError

if TYPE_CHECKING:
    from profile_pipeline.defs.run import Result

console = Console()
errors = Console(stderr=True)
PROBLEM, PENDING, BUSY = 1, 2, 75
"""Exit codes: something to mend; blocked by a check, the old generation is live; another run is at work."""

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only problems.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Author = Annotated[str, typer.Option(help="Who decides; default: the user of this computer.")]
Reason = Annotated[str, typer.Option(help="Why, in words.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, change nothing.")]
ProjectFolder = Annotated[
    Path | None,
    typer.Option("--project", "-p", help="Project folder; default: the current one, else the demo."),
]


@contextmanager
def plain_errors() -> Generator[None]:
    """One line instead of a traceback, and an exit code that scripts can use."""
    try:
        yield
    except BusyError as error:
        errors.print(f"[yellow]busy:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(BUSY) from None
    except PipelineError as error:
        for line in str(error).splitlines():
            errors.print("[red]error:[/] ", end="")
            errors.print(line, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(PROBLEM) from None


def chosen(folder: Path | None) -> Project:
    """The project a command works on."""
    return project_at(folder.resolve()) if folder else current_project()


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is taken away."""
    if not yes and not typer.confirm(question):
        raise typer.Exit


def as_json(value: Any) -> None:  # noqa: ANN401
    """Print a value as JSON, dates as ISO text."""
    sys.stdout.write(json.dumps(value, indent=1, default=str, ensure_ascii=False) + "\n")


def show(found: list[dict[str, Any]], columns: dict[str, str], *, json_output: bool) -> None:
    """Rows with all they hold as JSON, or some columns as a table: heading by key."""
    if json_output:
        as_json(found)
    else:
        display.table(console, list(columns.values()), [tuple(row[key] for key in columns) for row in found])


@contextmanager
def opened(project: Project) -> Generator[Any]:
    """The warehouse under the project's lock."""
    from profile_pipeline.warehouse import connect, run_lock

    if not project.database.exists():
        raise PipelineError("no run yet; `profile-pipeline run` makes the first one")
    with run_lock(project.state), connect(project.database) as con:
        yield con


def show_failure(result: "Result") -> None:
    """Why a run failed, and what its blocking checks have to say, a line each."""
    if result.failure and not result.success:
        errors.print(f"[red]error:[/] {display.plain(result.failure)}", highlight=False, soft_wrap=True)
    for check in result.failed_checks:
        if check.blocking:
            what = f"{check.asset} {check.name}: {display.plain(check.why)}"
            errors.print(f"[red]blocked:[/] {what}", highlight=False, soft_wrap=True)


def who(author: str) -> str:
    """The author of a decision: as given, else the user of this computer. Raises where there is neither."""
    if author:
        return author
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise PipelineError("this computer does not say who you are; give --author") from None
