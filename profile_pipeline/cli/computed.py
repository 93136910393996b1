"""Commands about computed attributes: see them, try one without a trace."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from profile_pipeline import display
from profile_pipeline.cli.shell import (
    AsJson,
    ProjectFolder,
    as_json,
    chosen,
    console,
    opened,
    plain_errors,
    show,
)
from profile_pipeline.config.load import load_config

commands = typer.Typer(no_args_is_help=True, help="Computed attributes: see, try.")


@commands.command("list")
def computed_list(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """Every computed attribute: what it is in words, its type, and how many profiles had a value after the last run."""
    with plain_errors():
        from profile_pipeline.computed import preview
        from profile_pipeline.computed.compile import column_types
        from profile_pipeline.computed.words import words

        where = chosen(project)
        config = load_config(where.rules)
        counts: dict[str, int] = {}
        if where.database.exists():
            with opened(where) as con:
                counts = preview.with_value(con, config)
        types = column_types(config)
        found = [
            {
                "attribute": name,
                "type": types[name],
                "profiles_with_value": counts.get(name),
                "is": words(attribute),
                "within": attribute.within,
                "description": attribute.description,
            }
            for name, attribute in config.computed.attributes.items()
        ]
        columns = {
            "attribute": "attribute", "type": "type", "profiles_with_value": "profiles with a value", "is": "what it is",
        }  # fmt: skip
        show(found, columns, json_output=json_output)


@commands.command("preview")
def computed_preview(
    name: Annotated[str, typer.Argument(metavar="ATTRIBUTE", help="An attribute of computed.yaml.")],
    limit: Annotated[int, typer.Option(help="Profiles to show, those that would change first.", min=0)] = 10,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """An attribute by the rules as they are now, before a run applies them. Changes nothing."""
    with plain_errors():
        from profile_pipeline.computed import preview
        from profile_pipeline.computed.words import words

        where = chosen(project)
        config = load_config(where.rules)
        preview.required(config, name)
        attribute = config.computed.attributes[name]
        with opened(where) as con:
            found = preview.preview(con, config, name, limit)
        if json_output:
            as_json({**asdict(found), "is": words(attribute), "description": attribute.description})
            return
        display.line(console, f"{name}: {attribute.description or 'no description'}")
        display.table(console, ["", ""], _facts(found, words(attribute)))
        if found.warning:
            display.line(console, f"warning: {found.warning}")
        if found.common:
            console.print()
            display.table(console, ["value", "profiles"], list(found.common.items()))
        if found.examples:
            console.print()
            display.table(
                console,
                ["profile", "value", "after the last run"],
                [tuple(e.values()) for e in found.examples],
            )


def _facts(found: Any, meaning: str) -> list[tuple[str, Any]]:  # noqa: ANN401
    return [
        ("what it is", meaning),
        ("type", found.type),
        ("as of (UTC)", found.as_of),
        ("active profiles", found.profiles),
        ("with a value", found.with_value),
        ("that the next run changes", found.changed),
        *found.spread.items(),
    ]
