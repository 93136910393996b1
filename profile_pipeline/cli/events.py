"""Commands about events: which of them the rules let go."""

import typer

from profile_pipeline.cli.shell import AsJson, ProjectFolder, chosen, opened, plain_errors, show
from profile_pipeline.config.load import load_config

commands = typer.Typer(no_args_is_help=True, help="Events and how long they stay.")


@commands.callback()
def _group() -> None:
    """Keep `retention` a command of a group."""


@commands.command("retention")
def events_retention(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """Dry run of `retention:`: events of each source that the next run would let go or bring back. Changes nothing."""
    with plain_errors():
        from profile_pipeline.records.retention import preview

        where = chosen(project)
        with opened(where) as con:
            found = preview(con, load_config(where.rules))
        columns = {"source": "source", "retention": "retention", "events": "events"}
        columns |= {"would_leave": "would leave", "would_return": "would return"}
        show(found, columns, json_output=json_output)
