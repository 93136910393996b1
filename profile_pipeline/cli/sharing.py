"""Commands about deliveries: who gets what, try it, send it, see what left."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from profile_pipeline import display
from profile_pipeline.cli.shell import (
    PENDING,
    PROBLEM,
    AsJson,
    ProjectFolder,
    Yes,
    as_json,
    chosen,
    confirm,
    console,
    opened,
    plain_errors,
    show,
)
from profile_pipeline.config.load import load_config

commands = typer.Typer(no_args_is_help=True, help="Deliveries: who gets what, try, send, see what left.")
DestinationName = Annotated[str, typer.Argument(metavar="DESTINATION", help="A destination of sharing.yaml.")]
Shipment = Annotated[str | None, typer.Option("--shipment", help="Only this one of its shipments.")]
Accept = Annotated[bool, typer.Option("--accept", help="Let sizes through that are far from their history.")]


@commands.command("list")
def share_list(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """Every destination with what it gets, how, and under which consent."""
    with plain_errors():
        from profile_pipeline.config.sharing_check import consents

        config = load_config(chosen(project).rules)
        found = [
            {
                "destination": name,
                "shipment": key,
                "on": destination.enabled and shipment.enabled,
                "to": f"{destination.to.type}: {destination.to.place}",
                "what": shipment.what,
                "mode": shipment.mode,
                "consent": ", ".join(consents(config, destination, shipment)) or "none",
            }
            for name, destination in config.sharing.destinations.items()
            for key, shipment in destination.ship.items()
        ]
        columns = ("destination", "shipment", "what", "mode", "consent")
        show(found, {name: name for name in columns}, json_output=json_output)
        if not json_output:
            _show_places(found)


def _show_places(found: list[dict[str, Any]]) -> None:
    """Where each destination is, and what is off: in a table of its own columns a line would not fit a terminal."""
    for name, to in {each["destination"]: each["to"] for each in found}.items():
        display.line(console, f"{name} goes to {to}")
    for each in found:
        if not each["on"]:
            display.line(console, f"{each['destination']} {each['shipment']} is switched off")


@commands.command("preview")
def share_preview(name: DestinationName, project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """What would leave now: rows, changes, who stays and why, columns. Sends nothing."""
    with plain_errors():
        from profile_pipeline.sharing.deliver import preview

        where = chosen(project)
        with opened(where) as con:
            trials = preview(con, load_config(where.rules), where, name)
        found = [{**asdict(outcome), "columns": columns} for outcome, columns in trials]
        if json_output:
            as_json(found)
            return
        _show(found)
        for each in found:
            display.line(console, f"{each['shipment']} columns: {', '.join(each['columns'])}")


@commands.command("run")
def share_run(
    name: Annotated[
        str | None, typer.Argument(metavar="DESTINATION", help="Only this one; default: all.")
    ] = None,
    shipment: Shipment = None,
    accept: Accept = False,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Deliver what is due from the live generation, and go on with what was interrupted."""
    with plain_errors():
        raise typer.Exit(
            _deliver(project, name, shipment, accept=accept, resend=False, json_output=json_output)
        )


@commands.command("resend")
def share_resend(
    name: DestinationName,
    shipment: Shipment = None,
    accept: Accept = False,
    yes: Yes = False,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Send every row again in a new delivery, whether or not it changed."""
    with plain_errors():
        confirm(f"send everything to {name} again?", yes=yes)
        raise typer.Exit(
            _deliver(project, name, shipment, accept=accept, resend=True, json_output=json_output)
        )


@commands.command("status")
def share_status(
    name: Annotated[
        str | None, typer.Argument(metavar="DESTINATION", help="Only this one; default: all.")
    ] = None,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Deliveries and attempts, the newest first."""
    with plain_errors():
        from profile_pipeline.sharing import ledger

        with opened(chosen(project)) as con:
            found = ledger.deliveries(con, name)
        columns = {name: name for name in ("destination", "shipment", "delivery", "status", "generation")}
        columns |= {"row_count": "rows", "file_count": "files", "byte_count": "bytes", "reason": "why"}
        show(found, columns, json_output=json_output)


@commands.command("recipients")
def share_recipients(
    profile: Annotated[str, typer.Argument(help="Profile id, retired id, or any identifier of the person.")],
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Who got rows about a person: from which delivery on, and which one took them away."""
    with plain_errors():
        from profile_pipeline.explain.members import find_profile
        from profile_pipeline.sharing import ledger

        where = chosen(project)
        with opened(where) as con:
            found = ledger.recipients(
                con, ledger.all_ids(con, find_profile(con, load_config(where.rules), profile))
            )
        columns = {
            "destination": "destination", "shipment": "shipment", "from_delivery": "from delivery",
            "to_delivery": "taken away by", "row_count": "rows", "folder": "first folder",
        }  # fmt: skip
        show(found, columns, json_output=json_output)


def _deliver(
    project: Any,  # noqa: ANN401  typer's own type
    name: str | None,
    shipment: str | None,
    *,
    accept: bool,
    resend: bool,
    json_output: bool,
) -> int:
    """Deliver, show what became of it; the exit code."""
    from profile_pipeline.sharing import ledger
    from profile_pipeline.sharing.deliver import Wishes, deliver

    where = chosen(project)
    config = load_config(where.rules)
    wishes = Wishes(resend=resend, accept=accept)
    with opened(where) as con:
        found = [
            asdict(outcome)
            for each in ([name] if name else config.sharing.active())
            for outcome in deliver(con, config, where, each, wishes, shipment)
        ]
    as_json(found) if json_output else _show(found)
    states = {each["status"] for each in found}
    return PROBLEM if ledger.FAILED in states else PENDING if ledger.BLOCKED in states else 0


def _show(found: list[dict[str, Any]]) -> None:
    headings = ["destination", "shipment", "", "rows", "files", "bytes", "changes", "left out"]
    lines = [
        (
            *(each["destination"], each["shipment"], each["status"]),
            *(each["row_count"] or each["held_count"], each["file_count"], each["byte_count"]),
            *(_counts(each["changes"]), _counts(each["excluded"])),
        )
        for each in found
    ]
    display.table(console, headings, lines)
    for each in found:
        if each["reason"]:
            display.line(console, f"{each['destination']} {each['shipment']}: {each['reason']}")


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in numbers.items() if number)
