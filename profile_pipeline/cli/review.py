"""Commands of a data steward: doubtful pairs, decisions about them, and files to decide in.

What is shown and exported holds personal data: that is what a steward decides by.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from profile_pipeline import display
from profile_pipeline.cli.shell import (
    PROBLEM,
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
    from duckdb import DuckDBPyConnection

    from profile_pipeline.decisions import Pair

NEXT = "next: profile-pipeline run"
PAIR = "records"
"""Column with both records of a pair, one below the other."""
Items = Annotated[list[str] | None, typer.Argument(metavar="[ITEM]...", help="Items of `review list`.")]
From = Annotated[Path | None, typer.Option("--from", help="File with an item a line.")]
Records = Annotated[
    list[str] | None,
    typer.Option("--records", metavar="KEY...", help="Instead of items: records, every pair of them."),
]

commands = typer.Typer(no_args_is_help=True, help="Doubtful pairs, and decisions that last.")


@commands.command("list")
def review_list(
    order: Annotated[str, typer.Option(help="value, or learning: what teaches most first.")] = "value",
    reason: Annotated[str | None, typer.Option(help="Only items with this reason code.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 20,
    decided: Annotated[
        bool, typer.Option("--decided", help="What is decided and in effect instead.")
    ] = False,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Questions worth an answer, those of most value first."""
    with plain_errors():
        from profile_pipeline import decisions
        from profile_pipeline import review as questions

        with opened(chosen(project)) as con:
            found = (
                decisions.in_effect(con)[:limit] if decided else questions.queue(con, order, reason, limit)
            )
        if json_output:
            as_json(found)
        elif decided:
            _table(found, ["item_id", "decision", PAIR, "author", "decided_at", "reason"])
        else:
            shown = ["item_id", "reason", PAIR, "match_weight", "records_affected", "value"]
            _table(found, shown)


def _table(found: list[dict[str, Any]], columns: list[str]) -> None:
    """Rows on any terminal: what is typed again is never cut short, codes are not broken."""
    if not found:
        console.print("none")
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(
            column.removesuffix("_id").removeprefix("match_").removeprefix("records_").replace("_", " "),
            justify="right" if _numeric(found, column) else "left",
            no_wrap=column == "item_id" or (column == "reason" and "value" in columns),
            overflow="fold",
        )
    for row in found:
        shown.add_row(*(_cell(row, column) for column in columns))
    console.print(shown)


def _numeric(found: list[dict[str, Any]], column: str) -> bool:
    return column != PAIR and all(isinstance(row[column], int | float) for row in found)


def _cell(row: dict[str, Any], column: str) -> str:
    if column == PAIR:
        return "\n".join(display.plain(row[key]) for key in ("left_key", "right_key"))
    value = row[column]
    return display.plain(f"{value:.1f}" if isinstance(value, float) else display.cell(value))


@commands.command("show")
def review_show(
    item: Annotated[str, typer.Argument(help="An item of `review list`.")],
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Both records of an item side by side, as matching sees them."""
    with plain_errors():
        from profile_pipeline import review as questions

        where = chosen(project)
        with opened(where) as con:
            found = questions.item(con, load_config(where.rules), item)
        if json_output:
            as_json(asdict(found))
            return
        display.table(
            console, ["", ""], [(name.replace("_", " "), value) for name, value in found.facts.items()]
        )
        console.print()
        display.table(
            console,
            ["field", "", "left", "right"],
            [(name, _sign(left, right), left, right) for name, left, right in found.records],
        )
        if found.history:
            console.print()
            _table(found.history, ["decision", "author", "decided_at", "reason"])


def _sign(left: object, right: object) -> str:
    """Whether two values agree; nothing where one is missing."""
    if left is None or right is None:
        return ""
    return "=" if left == right else "≠"


@commands.command("decide")
def review_decide(
    items: Items = None,
    match: Annotated[
        bool | None, typer.Option("--match/--no-match", help="One person, or two.", show_default=False)
    ] = None,
    source: From = None,
    records: Records = None,
    author: Author = "",
    reason: Reason = "",
    project: ProjectFolder = None,
    dry_run: DryRun = False,
    json_output: AsJson = False,
) -> None:
    """Decide items, or any records, to be one person or not. It lasts until you decide otherwise."""
    with plain_errors():
        from profile_pipeline import decisions

        if match is None:
            raise PipelineError("say which: --match or --no-match")
        decision = decisions.MATCH if match else decisions.NO_MATCH
        with opened(chosen(project)) as con:
            pairs = _pairs(con, items or [], source, records or [])
            written = decisions.decide(con, pairs, decision, who(author), reason, dry_run=dry_run)
        _done({"decision": decision, "pairs": written}, dry_run=dry_run, json_output=json_output)


@commands.command("withdraw")
def review_withdraw(
    items: Items = None,
    source: From = None,
    records: Records = None,
    author: Author = "",
    reason: Reason = "",
    project: ProjectFolder = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json_output: AsJson = False,
) -> None:
    """Take decisions back (`review list --decided` shows them); matching decides again."""
    with plain_errors():
        from profile_pipeline import decisions

        with opened(chosen(project)) as con:
            pairs = _pairs(con, items or [], source, records or [])
            written = decisions.withdraw(con, pairs, who(author), reason, dry_run=True)
            if not dry_run:
                confirm(f"take {written:,} decisions back?", yes=yes)
                decisions.withdraw(con, pairs, who(author), reason)
        _done({"decision": decisions.WITHDRAWN, "pairs": written}, dry_run=dry_run, json_output=json_output)


def _pairs(
    con: "DuckDBPyConnection", items: list[str], source: Path | None, records: list[str]
) -> "list[Pair]":
    """The pairs of items, or of all records named; `--records A B` leaves B among the items."""
    from itertools import combinations

    from profile_pipeline.review import pairs_of

    if records:
        keys = list(dict.fromkeys([*records, *items]))
        if len(keys) < 2 or source:
            raise PipelineError("--records takes two or more record keys, and neither items nor --from")
        return list(combinations(keys, 2))
    listed = [*items, *(_lines(source) if source else [])]
    if not listed:
        raise PipelineError("name items of `review list`, a file of them with --from, or --records KEY KEY")
    return pairs_of(con, listed)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise PipelineError(
            f"{path.name}: cannot be read; --from takes a text file with an item a line"
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _done(found: dict[str, Any], *, dry_run: bool, json_output: bool) -> None:
    if json_output:
        as_json({**found, "dry_run": dry_run})
        return
    text = ", ".join(f"{name.replace('_', ' ')}: {display.cell(value)}" for name, value in found.items())
    display.line(console, f"{text} (dry run: nothing is written)" if dry_run else f"{text}; {NEXT}")


@commands.command("unmerge")
def review_unmerge(
    profile: Annotated[str, typer.Argument(help="Profile id.")],
    records: Annotated[
        list[str],
        typer.Option("--records", metavar="KEY...", help="Records that are somebody else."),
    ],
    more: Annotated[list[str] | None, typer.Argument(metavar="", hidden=True)] = None,
    author: Author = "",
    reason: Reason = "",
    project: ProjectFolder = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json_output: AsJson = False,
) -> None:
    """Separate records from the rest of their profile, for good: no pair between them is one person."""
    with plain_errors():
        from profile_pipeline import decisions

        keys = [*records, *(more or [])]
        with opened(chosen(project)) as con:
            found = decisions.unmerge(con, profile, keys, who(author), reason, dry_run=True)
            if not dry_run:
                confirm(
                    f"separate {found.separated} from {found.rest} records ({found.no_match} pairs)?", yes=yes
                )
                decisions.unmerge(con, profile, keys, who(author), reason)
        _done(asdict(found), dry_run=dry_run, json_output=json_output)


@commands.command("export")
def review_export(
    file: Annotated[Path, typer.Argument(help="CSV file to write.")],
    decided: Annotated[
        bool, typer.Option("--decisions", help="All decisions ever made, instead of the queue.")
    ] = False,
    order: Annotated[str, typer.Option(help="value, or learning: what teaches most first.")] = "value",
    reason: Annotated[str | None, typer.Option(help="Only items with this reason code.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many.", min=1)] = None,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Write the queue with both records and an empty `decision` column to fill in. It holds personal data."""
    with plain_errors():
        from profile_pipeline import decisions
        from profile_pipeline import review as questions

        where = chosen(project)
        with opened(where) as con:
            written = (
                decisions.export_csv(con, file)
                if decided
                else questions.export_queue(con, load_config(where.rules), file, order, reason, limit)
            )
        if json_output:
            as_json({"file": str(file), "rows": written})
        else:
            todo = (
                ""
                if decided
                else "; fill in `decision` (match or no_match), then: profile-pipeline review import FILE"
            )
            display.line(console, f"{written:,} rows in {file}{todo}")


@commands.command("import")
def review_import(
    file: Annotated[Path, typer.Argument(help="A filled-in queue, or exported decisions.")],
    author: Author = "",
    project: ProjectFolder = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json_output: AsJson = False,
) -> None:
    """Take decisions from a file, all or none of them."""
    with plain_errors():
        from profile_pipeline import decisions

        with opened(chosen(project)) as con:
            found = decisions.import_csv(con, file, who(author), dry_run=True)
            if not dry_run and found.written:
                confirm(f"write {found.written:,} decisions?", yes=yes)
                decisions.import_csv(con, file, who(author))
        _done(asdict(found), dry_run=dry_run, json_output=json_output)


@commands.command("check")
def review_check(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """Decisions that cannot all be true, and decisions that the profiles do not follow."""
    with plain_errors():
        from profile_pipeline import decisions

        with opened(chosen(project)) as con:
            clashing = [asdict(found) for found in decisions.contradictions(con)]
            broken = decisions.broken(con)
        if json_output:
            as_json({"contradictions": clashing, "broken": broken})
        else:
            display.line(console, "decided different, yet the same by a chain of match decisions:")
            _table(clashing, ["item_id", PAIR, "chain"])
            display.line(console, "\ndecided, yet the profiles do not follow:")
            _table(broken, ["item_id", "decision", PAIR, "decided_at"])
        raise typer.Exit(PROBLEM if clashing or broken else 0)
