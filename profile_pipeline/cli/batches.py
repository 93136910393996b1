"""Commands about batches: what each run took in, taking one back, and the profiles as they were."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profile_pipeline import display
from profile_pipeline.cli.shell import (
    AsJson,
    Author,
    DryRun,
    ProjectFolder,
    Quiet,
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
    from profile_pipeline.batches import Effect

commands = typer.Typer(no_args_is_help=True, help="What each run took in.")
Number = Annotated[int, typer.Argument(metavar="BATCH", help="Number of a batch.")]
FATES = ("current", "superseded", "events", "expired", "quarantined", "not_selected", "reverted")
SHOWN = ("batch", "as_of", "files", "rows", *FATES, "reverted_by", "reverted_because")


@commands.command("list")
def batch_list(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """What each run took in and what became of it, newest first; who took a batch back, and why."""
    with plain_errors():
        from profile_pipeline.batches import listed

        with opened(chosen(project)) as con:
            found = listed(con)
        if json_output:
            as_json(found)
        else:
            headings = ["batch", "as of (UTC)", "files", "rows", "what became of them"]
            display.table(console, headings, [_line(entry) for entry in found])


def _line(entry: dict[str, Any]) -> tuple[Any, ...]:
    """Only fates that some row had, so that a line fits a terminal."""
    fates = ", ".join(f"{entry[fate]:,} {fate.replace('_', ' ')}" for fate in FATES if entry[fate])
    decided = (
        f"; taken back by {entry['reverted_by']}: {entry['reverted_because']}" if entry["taken_back"] else ""
    )
    return entry["batch"], f"{entry['as_of']:%Y-%m-%d %H:%M}", entry["files"], entry["rows"], fates + decided


@commands.command("show")
def batch_show(number: Number, project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """One batch: its files, the decisions about it, and what its runs did to profile ids."""
    with plain_errors():
        from profile_pipeline.batches import show

        with opened(chosen(project)) as con:
            found = show(con, number)
        if json_output:
            as_json(found)
            return
        facts = {name: found[name] for name in SHOWN if found[name] not in (None, "")}
        display.table(console, ["", ""], list((facts | found["events"]).items()))
        for part in ("files", "decisions"):
            if found[part]:
                headings = [name.replace("_", " ") for name in found[part][0]]
                display.table(console, headings, [tuple(row.values()) for row in found[part]])


@commands.command("revert")
def batch_revert(
    number: Number,
    reason: Reason = "",
    author: Author = "",
    project: ProjectFolder = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Take a batch out of everything derived; after the next run it is as if it had never come, ids included."""
    with plain_errors():
        from profile_pipeline.batches import effect, revert
        from profile_pipeline.raw.ledger import files_of

        with opened(chosen(project)) as con:
            found, files = effect(con, number), files_of(con, number)
            if not files:
                raise PipelineError(
                    f"batch {number} has no loaded files; `profile-pipeline batch list` shows batches"
                )
            _ask_why(reason, dry_run=dry_run)
            display.table(console, ["file", "rows"], files)
            _say(found)
            if dry_run:
                display.line(console, "dry run: nothing is written")
                return
            confirm(f"take these {len(files)} files of batch {number} back?", yes=yes)
            revert(con, number, who(author), reason)
        display.line(console, "reverted; next: profile-pipeline run")


@commands.command("restore")
def batch_restore(
    number: Number,
    reason: Reason = "",
    author: Author = "",
    project: ProjectFolder = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Let a reverted batch count again; after the next run it is as if it had never been reverted."""
    with plain_errors():
        from profile_pipeline.batches import effect, restore

        with opened(chosen(project)) as con:
            found = effect(con, number)
            _ask_why(reason, dry_run=dry_run)
            _say(found)
            if dry_run:
                display.line(console, "dry run: nothing is written")
                return
            confirm(f"let batch {number} count again?", yes=yes)
            restore(con, number, who(author), reason)
        display.line(console, "restored; next: profile-pipeline run")


def _ask_why(reason: str, *, dry_run: bool) -> None:
    """Before anything is shown or asked: it is part of the decision."""
    if not dry_run and not reason.strip():
        raise PipelineError("say why: --reason '...'; it is kept with the batch")


def _say(effect: "Effect") -> None:
    """What the next run would compute anew, in numbers."""
    display.line(
        console,
        f"batch {effect.batch}: {effect.rows:,} rows; now {effect.current_records:,} current records in"
        f" {effect.profiles:,} profiles; its runs gave out {effect.new_profile_ids:,} profile ids;"
        f" later batches to go through again in the next run: {effect.replayed_batches}",
    )


def rebuild(
    as_of: Annotated[str, typer.Option(help="ISO time: what had come by then counts, nothing later.")],
    output: Annotated[Path, typer.Option(help="New or empty folder to build and publish in.")],
    project: ProjectFolder = None,
    quiet: Quiet = False,
    json_output: AsJson = False,
) -> None:
    """Publish the profiles as they were at a time, ids included, in a folder of their own."""
    with plain_errors():
        from profile_pipeline import publish, runs
        from profile_pipeline.replay import as_it_was

        where = chosen(project)
        config = load_config(where.rules)
        past = as_it_was(config, where, runs.moment(as_of), output.resolve())
        from profile_pipeline.defs.run import Options, run_graph

        with display.progress(console, enabled=not (quiet or json_output)) as progress:
            result = run_graph(config, past, Options(), progress)
        live = publish.current(past)
        if not result.success or live is None:
            blocked = "; ".join(f"{c.asset} {c.name}: {c.why}" for c in result.failed_checks if c.blocking)
            raise PipelineError(result.failure or blocked or "the run published nothing")
        if json_output:
            as_json(
                {"batch": live.manifest["batch"], "as_of": live.manifest["as_of"], "folder": str(live.folder)}
            )
        elif not quiet:
            display.line(
                console,
                f"as of {live.manifest['as_of']}, batch {live.manifest['batch']}:"
                f" {live.profile_count:,} profiles in {live.folder}",
            )
