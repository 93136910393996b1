"""Commands about profile ids: their history, where people are now, pins, and changes that wait for approval."""

from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

NEXT = "next: profile-pipeline run"
SHOWN = 10
Profile = Annotated[str, typer.Argument(metavar="PROFILE", help="Profile id, active or retired.")]

commands = typer.Typer(no_args_is_help=True, help="Profile ids: history, pins, changes that wait.")


@commands.command("history")
def ids_history(profile: Profile, project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """The life of an id: what happened and why, its records, and where they are now."""
    with plain_errors():
        from profile_pipeline.profile_ids import history

        with opened(chosen(project)) as con:
            found = history(con, profile)
        if json_output:
            as_json(found)
        else:
            _show_history(found)


def _show_history(found: "Mapping[str, Any]") -> None:
    registry, pin = found["registry"], found["pin"]
    facts = [(name.replace("_", " "), value) for name, value in registry.items() if value is not None]
    if pin:
        facts.append(("pinned to", f"{pin['record_key']} by {pin['author']}: {pin['reason']}"))
    display.table(console, ["", ""], facts)
    _show_rows("what happened", [_event(row, registry["profile_id"]) for row in found["events"]])
    _show_rows("records", found["records"])
    _show_rows("where they are now", found["successors"])


def _event(row: "Mapping[str, Any]", profile_id: str) -> "dict[str, Any]":
    """An event seen from one of its two profiles, narrow enough for a terminal."""
    own = row["profile_id"] == profile_id
    return {
        "revision": row["revision"],
        "as of": row["as_of"] and f"{row['as_of']:%Y-%m-%d}",
        "event": row["event"] if own else f"{row['event']} from",
        "other profile": row["other_profile_id"] if own else row["profile_id"],
        "records": row["record_count"] if own else None,
        "cause": row["cause"],
    }


def _show_rows(title: str, rows: "list[dict[str, Any]]") -> None:
    console.print(f"\n{title}", style="bold")
    headings = [name.replace("_", " ") for name in rows[0]] if rows else []
    display.table(console, headings, [tuple(row.values()) for row in rows])


@commands.command("successors")
def ids_successors(profile: Profile, project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """Where everybody who ever was in a profile is now, with shares."""
    with plain_errors():
        from profile_pipeline.profile_ids import history

        with opened(chosen(project)) as con:
            found = history(con, profile)["successors"]
        if json_output:
            as_json(found)
        else:
            display.table(
                console, ["profile id", "share of the records"], [tuple(row.values()) for row in found]
            )


@commands.command("pin")
def ids_pin(
    profile: Profile,
    record: Annotated[str, typer.Argument(metavar="RECORD", help="Record key, `source:key`.")],
    author: Author = "",
    reason: Reason = "",
    project: ProjectFolder = None,
) -> None:
    """Tie an id to a record: from the next run on it goes where the record goes."""
    with plain_errors():
        from profile_pipeline.profile_ids import pin

        with opened(chosen(project)) as con:
            pin(con, profile, record, who(author), reason)
        display.line(console, f"pinned; {NEXT}")


@commands.command("unpin")
def ids_unpin(
    profile: Profile, project: ProjectFolder = None, dry_run: DryRun = False, yes: Yes = False
) -> None:
    """Let an id follow most of its records again."""
    with plain_errors():
        from profile_pipeline.profile_ids import history, unpin

        with opened(chosen(project)) as con:
            pin = history(con, profile)["pin"]
            if pin:
                display.line(console, f"pinned to {pin['record_key']} by {pin['author']}: {pin['reason']}")
            if dry_run:
                return
            if pin:
                confirm("take this pin away?", yes=yes)
            unpin(con, profile)
        display.line(console, f"unpinned; {NEXT}")


@commands.command("pending")
def ids_pending(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """The change of profile ids that waits for approval: totals first, then the largest merges and splits."""
    with plain_errors():
        from profile_pipeline import profile_ids

        with opened(chosen(project)) as con:
            profile_ids.create_tables(con)
            over = profile_ids.pending(con)
            totals = profile_ids.pending_totals(con)
            changes = profile_ids.largest_pending(con, None if json_output else SHOWN)
        if json_output:
            as_json({"over": over, "totals": totals, "changes": changes})
        elif over:
            _show_pending(over, totals, changes)
        else:
            display.line(console, "no change of profile ids waits for approval")


def _show_pending(over: list[str], totals: "list[dict[str, Any]]", changes: "list[dict[str, Any]]") -> None:
    for line in over:
        display.line(console, line)
    _show_rows("what would happen", totals)
    _show_rows("where most records change their id", changes)
    display.line(console, "\nto write it: profile-pipeline run --approve")
