"""`profile-pipeline report`: where the page is that says whether today's profiles can be trusted."""

from typing import Annotated

import typer

from profile_pipeline import display
from profile_pipeline.cli.shell import AsJson, ProjectFolder, as_json, chosen, console, plain_errors


def report(
    project: ProjectFolder = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    json_output: AsJson = False,
) -> None:
    """Say where the report of the live generation is; before the first, write a page that says what to do next."""
    with plain_errors():
        from profile_pipeline.report.start import report_path

        path = report_path(chosen(project))
        if json_output:
            as_json({"report": str(path)})
        else:
            display.line(console, str(path))
        if show:
            import webbrowser

            webbrowser.open(path.as_uri())
