"""Commands of a data steward about values: pin one before every rule, let it go again, see what is pinned.

Not the pins of ids (`ids pin`). What is shown and exported holds personal data: that is what a steward corrects.
"""

from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profile_pipeline import display
from profile_pipeline.cli.shell import (
    AsJson,
    Author,
    DryRun,
    ProjectFolder,
    Reason,
    Yes,
    as_json,
    chosen,
    confirm,
    console,
    opened,
    plain_errors,
    who,
)
from profile_pipeline.config.load import load_config
from profile_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from profile_pipeline.profiles.pins import Pin

NEXT = "next: profile-pipeline run"
Profile = Annotated[
    str,
    typer.Argument(metavar="PROFILE", help="Profile id, active or retired, record key or any identifier."),
]
Field = Annotated[str, typer.Argument(metavar="FIELD", help="Profile field.")]

commands = typer.Typer(no_args_is_help=True, help="Values that stewards pin, before every rule.")


@commands.command("pin")
def values_pin(
    profile: Profile,
    field: Field,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="Written as a source would; `--` before a minus.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Instead of a value: show none.")] = False,
    reason: Reason = "",
    until: Annotated[str, typer.Option(metavar="DATE", help="Last day on which it holds.")] = "",
    author: Author = "",
    source: Annotated[
        str | None, typer.Option(help="Read the value as this source does, where they differ.")
    ] = None,
    project: ProjectFolder = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json_output: AsJson = False,
) -> None:
    """Show a value in a profile whatever the sources say, from the next run on, until one of them corrects itself."""
    with plain_errors():
        from profile_pipeline.profiles import pins

        text, last = _value(value, clear=clear), _day(until)
        where = chosen(project)
        with opened(where) as con:
            config = load_config(where.rules)
            named = con, config, _profile_id(con, config, profile), field, text, who(author), reason
            made = pins.pin(*named, until=last, source=source, dry_run=True)
            if not dry_run:
                if made.replaces:
                    earlier = pins.in_effect(con, made.profile_id, field)[0]
                    display.line(console, f"pinned to {_shown(earlier)} by {_by(earlier)}")
                    confirm("replace this pin?", yes=yes)
                made = pins.pin(*named, until=last, source=source)
        _pinned(made, dry_run=dry_run, json_output=json_output)


def _value(value: str | None, *, clear: bool) -> str | None:
    if clear == (value is not None):
        raise PipelineError("give a value, or --clear to show none")
    return value


def _day(text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise PipelineError("--until: not an ISO date; write it like 2026-12-31") from None


def _profile_id(con: Any, config: Any, text: str) -> str:  # noqa: ANN401
    from profile_pipeline.explain.members import find_profile

    return find_profile(con, config, text)


def _pinned(made: "Pin", *, dry_run: bool, json_output: bool) -> None:
    if json_output:
        as_json({**asdict(made), "dry_run": dry_run})
        return
    last = f" until {made.until_on}" if made.until_on else ""
    keys = ", ".join(found["record_key"] for found in made.corrected)
    corrects = f"corrects {keys}" if keys else "contradicts no value shown"
    end = "dry run: nothing is written" if dry_run else NEXT
    words = f"{made.field} of {made.profile_id} pinned to {_shown(asdict(made))}{last}; {corrects}; {end}"
    display.line(console, words)


def _shown(pin: dict[str, Any]) -> str:
    return "nothing" if pin["cleared"] else pin["shown"]


def _by(pin: dict[str, Any]) -> str:
    last = f", until {pin['until_on']}" if pin["until_on"] else ""
    return f"{pin['author']}: {pin['reason']}{last}"


@commands.command("unpin")
def values_unpin(
    profile: Profile,
    field: Field,
    reason: Reason = "",
    author: Author = "",
    project: ProjectFolder = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json_output: AsJson = False,
) -> None:
    """Let the rules decide a field again."""
    with plain_errors():
        from profile_pipeline.profiles import pins

        where = chosen(project)
        with opened(where) as con:
            profile_id = _profile_id(con, load_config(where.rules), profile)
            found = pins.withdraw(con, profile_id, field, who(author), reason, dry_run=True)
            if not dry_run:
                if not json_output:
                    display.line(console, f"pinned to {_shown(found[0])} by {_by(found[0])}")
                confirm("take this pin away?", yes=yes)
                pins.withdraw(con, profile_id, field, who(author), reason)
        if json_output:
            as_json({"withdrawn": found, "dry_run": dry_run})
        else:
            display.line(console, "dry run: nothing is written" if dry_run else f"unpinned; {NEXT}")


@commands.command("pins")
def values_pins(
    profile: Annotated[
        str | None,
        typer.Argument(metavar="[PROFILE]", help="Only those of this profile: any id or identifier."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every pin there ever was, and what ended it.")
    ] = False,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """What is pinned now, by whom, until when; with --all also what was, and why it ended."""
    with plain_errors():
        from profile_pipeline.profiles import pins

        where = chosen(project)
        with opened(where) as con:
            profile_id = profile and _profile_id(con, load_config(where.rules), profile)
            found = pins.history(con, profile_id) if everything else pins.in_effect(con, profile_id)
        if json_output:
            as_json(found)
        elif everything:
            _show_history(found)
        else:
            _show_pins(found)


def _show_pins(found: list[dict[str, Any]]) -> None:
    headings = ["profile id", "field", "pinned to", "until", "by", "reason"]
    rows = [
        (row["profile_id"], row["field"], _shown(row), row["until_on"], row["author"], row["reason"])
        for row in found
    ]
    display.table(console, headings, rows)


def _show_history(found: list[dict[str, Any]]) -> None:
    headings = ["profile id", "field", "event", "at", "value", "by", "reason"]
    rows = [
        (
            row["profile_id"], row["field"], row["event"], row["noted_at"].date(),
            _shown(row) if row["event"] == "pinned" else None, row["author"], row["reason"],
        )
        for row in found
    ]  # fmt: skip
    display.table(console, headings, rows)


@commands.command("export")
def values_export(
    file: Annotated[Path, typer.Argument(help="CSV file to write.")],
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Write every pin there ever was and what ended it. The file holds personal data."""
    with plain_errors():
        from profile_pipeline.profiles.pin_sheets import export_csv

        with opened(chosen(project)) as con:
            written = export_csv(con, file)
        if json_output:
            as_json({"file": str(file), "rows": written})
        else:
            display.line(console, f"{written:,} rows in {file}")


@commands.command("import")
def values_import(
    file: Annotated[
        Path, typer.Argument(help="An export, or new pins: profile_id, field, shown, reason, until_on.")
    ],
    author: Author = "",
    project: ProjectFolder = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json_output: AsJson = False,
) -> None:
    """Take pins from a file, all or none of them."""
    with plain_errors():
        from profile_pipeline.profiles.pin_sheets import import_csv

        where = chosen(project)
        with opened(where) as con:
            named = con, load_config(where.rules), file, who(author)
            found = import_csv(*named, dry_run=True)
            if not dry_run and (found.pinned or found.brought_back):
                confirm(f"write {found.pinned + found.brought_back:,} rows?", yes=yes)
                import_csv(*named)
        if json_output:
            as_json({**asdict(found), "dry_run": dry_run})
            return
        end = "dry run: nothing is written" if dry_run else NEXT
        words = (
            f"pinned: {found.pinned:,}, brought back: {found.brought_back:,}, known: {found.known:,}; {end}"
        )
        display.line(console, words)
