"""Commands about audiences: see them, try the rules without a trace, ask why somebody is in or out."""

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
from profile_pipeline.errors import PipelineError

commands = typer.Typer(no_args_is_help=True, help="Audiences: see, try, compare, ask why.")
AudienceName = Annotated[str, typer.Argument(metavar="AUDIENCE", help="An audience of audiences.yaml.")]


@commands.command("list")
def audience_list(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """Every audience with its members after the last run and the consent it needs."""
    with plain_errors():
        from profile_pipeline import audiences

        where = chosen(project)
        config = load_config(where.rules)
        sizes = {}
        if where.database.exists():
            with opened(where) as con:
                sizes = audiences.sizes(con)
        found = [
            {
                "audience": name,
                "members": sizes.get(name, 0),
                "consent": ", ".join(config.audiences.consents(name)) or "none",
                "description": audience.description,
            }
            for name, audience in config.audiences.audiences.items()
        ]
        columns = ("audience", "members", "consent", "description")
        show(found, {name: name for name in columns}, json_output=json_output)


@commands.command("show")
def audience_show(name: AudienceName, project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """What an audience asks, condition by condition."""
    with plain_errors():
        from profile_pipeline.audiences import explain
        from profile_pipeline.audiences.leaves import condition_text, leaves_of
        from profile_pipeline.clock import NO_BATCH

        config = load_config(chosen(project).rules)
        explain.required(config, name)
        audience = config.audiences.audiences[name]
        found = {
            "audience": name,
            "description": audience.description,
            "purpose": audience.purpose or "default",
            "consent": config.audiences.consents(name),
            "condition": condition_text(config, name),
            "parts": [
                {"path": leaf.path, "asks": leaf.said} for leaf in leaves_of(config, {}, name, NO_BATCH)
            ],
        }
        if json_output:
            as_json(found)
            return
        display.line(console, f"{name}: {audience.description or 'no description'}")
        display.table(console, ["condition", "asks"], [tuple(part.values()) for part in found["parts"]])


@commands.command("preview")
def audience_preview(
    name: Annotated[
        str | None, typer.Argument(metavar="AUDIENCE", help="Only this one, with profile ids.")
    ] = None,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Exact counts by the rules as they are now: who would enter and leave. Changes nothing."""
    with plain_errors():
        from profile_pipeline.audiences import explain

        where = chosen(project)
        config = load_config(where.rules)
        if name:
            explain.required(config, name)
        with opened(where) as con:
            if name:
                trial, moved = explain.preview_one(con, config, name)
                trials, found = [trial], {**asdict(trial), **moved}
            else:
                trials, found = explain.preview(con, config), None
        problems = dict.fromkeys(trial.problem for trial in trials if trial.problem)
        if json_output:
            as_json(found or [asdict(trial) for trial in trials])
        else:
            _show_trials(trials, found)
        if problems:
            raise PipelineError("\n".join(problems))


def _show_trials(trials: list[Any], found: dict[str, Any] | None) -> None:
    titles = ["audience", "members", "now", "entering", "leaving"]
    display.table(
        console, titles, [tuple(asdict(trial).values())[:5] for trial in trials if not trial.problem]
    )
    if found and found["entering"] + found["leaving"]:
        lines = [(what, profile) for what in ("entering", "leaving") for profile in found[what]]
        display.table(console, ["change", "profile"], lines)


@commands.command("why")
def audience_why(
    name: AudienceName,
    profile: Annotated[str, typer.Argument(help="Profile id, or any identifier of the person.")],
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Whether a profile is in an audience, and which condition decides, with the value it saw."""
    with plain_errors():
        from profile_pipeline.audiences import explain
        from profile_pipeline.explain.members import find_profile

        where = chosen(project)
        config = load_config(where.rules)
        with opened(where) as con:
            found = explain.why(con, config, name, find_profile(con, config, profile))
        if json_output:
            as_json({**asdict(found), "failing": [asdict(part) for part in found.failing]})
            return
        since = "" if found.inside == found.member else "; the next run changes it"
        display.line(console, f"{found.profile_id} is {'in' if found.inside else 'not in'} {name}{since}")
        lines = [
            (
                "no" if part.holds == part.negated else "yes",
                f"{'not: ' if part.negated else ''}{part.condition}",
                part.seen,
            )
            for part in found.parts
        ]
        display.table(console, ["", "condition", "saw"], lines)


@commands.command("overlap")
def audience_overlap(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="AUDIENCE...", help="Only these; default: all.")
    ] = None,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """How many members every two audiences share."""
    with plain_errors():
        from profile_pipeline.audiences import explain

        where = chosen(project)
        config = load_config(where.rules)
        for name in names or []:
            explain.required(config, name)
        with opened(where) as con:
            found = explain.overlap(con, names or [])
        columns = {
            "audience": "audience", "other": "other", "members": "members", "other_members": "of the other",
            "shared": "shared", "jaccard": "share",
        }  # fmt: skip
        show(found, columns, json_output=json_output)


@commands.command("members")
def audience_members(
    name: AudienceName,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.", min=1)] = 20,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Who is in an audience, since when and why."""
    with plain_errors():
        from profile_pipeline.audiences import explain

        where = chosen(project)
        with opened(where) as con:
            found = explain.members(con, load_config(where.rules), name, limit)
        columns = {"profile_id": "profile", "entered_at": "entered", "entry_reason": "because of"}
        show(found, columns, json_output=json_output)
