"""What the command line shows: progress, summaries and tables. Numbers and names of things, no logic."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from profile_pipeline.config.project import PACKAGE_RULES, Project
from profile_pipeline.report import REPORT

if TYPE_CHECKING:
    from profile_pipeline.check import Problem
    from profile_pipeline.defs.run import FailedCheck
    from profile_pipeline.evaluate import Evaluation, ThresholdRow
    from profile_pipeline.infer import Proposal
    from profile_pipeline.lookup import Found
    from profile_pipeline.memberships import Memberships
    from profile_pipeline.profiles.reasons import Offer, Reason
    from profile_pipeline.publish import Generation
    from profile_pipeline.runs import Summary

BEATEN = 5
"""Offers of a field that are shown; `--json` has all."""
STAGES = ("raw", "records", "identity", "profiles", "audiences", "metrics", "published", "shared")


def plain(text: str) -> str:
    """Text that Rich shows as it is."""
    return escape(text)


def line(console: Console, text: str) -> None:
    """One line as it is, in whatever width: paths can be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(console: Console, *, enabled: bool) -> Generator[Callable[[str, int, int], None] | None]:
    """A bar for each stage; yields a function that moves them."""
    if not enabled:
        yield None
        return
    columns = [TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps")]
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        tasks = {
            # without destinations nothing is shared
            stage: bars.add_task(stage, total=None, start=False, visible=stage != STAGES[-1])
            for stage in STAGES
        }

        def move(stage: str, done: int, total: int) -> None:
            task = tasks[stage]
            begun = stage == STAGES[0] or done or bars.tasks[task - 1].finished
            if begun and not bars.tasks[task].started:
                bars.start_task(task)
            bars.update(task, completed=done, total=total, visible=True)

        yield move


def table(console: Console, headings: Sequence[str], found: Sequence[Sequence[Any]]) -> None:
    """Rows under headings; numbers to the right."""
    if not found:
        console.print("none")
        return
    shown = Table(box=None, pad_edge=False, header_style="bold", show_header=any(headings))
    for position, heading in enumerate(headings):
        number = all(isinstance(row[position], int | float) for row in found)
        shown.add_column(heading, justify="right" if number else "left")
    for row in found:
        shown.add_row(*(plain(cell(value)) for value in row))
    console.print(shown)


def cell(value: object) -> str:
    """A value as people read it: thousands apart, shares to three digits, times to the second."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def summary(
    console: Console, found: "Summary", live: "Generation", warnings: list["FailedCheck"], *, new: bool
) -> None:
    """The end of a run: rows in, profiles out, links by kind, where to look; `new`: whether it published."""
    table(
        console,
        ["", ""],
        [
            ("rows in", found.rows_in),
            ("quarantined, with reasons", found.quarantined),
            ("current source records", found.records),
            ("events", found.events),
            ("profiles of people", found.persons),
            ("pseudonymous profiles", found.pseudonymous),
            ("duplicates avoided by normalisation", found.duplicates_avoided),
            *((f"links, {kind}", number) for kind, number in found.links.items() if number),
            *((f"profile ids {event.replace('_', ' ')}", n) for event, n in sorted(found.happened.items())),
            *((name.replace("_", " "), number) for name, number in found.pins.items() if number),
        ],
    )
    if warnings:
        console.print(f"\n{len(warnings)} checks have something to say (nothing blocks):", style="yellow")
        for check in warnings:
            console.print(
                f"  {check.asset} {check.name}: {plain(check.why)}", highlight=False, soft_wrap=True
            )
    published = f"published: generation {live.number} in {live.folder}"
    said = published if new else f"nothing changed; generation {live.number} stays live"
    console.print(f"\n{said}", highlight=False, soft_wrap=True)


def shared(console: Console, found: Sequence[dict[str, Any]]) -> None:
    """What has just left, to whom."""
    for entry in found:
        rows, files = (
            f"{entry['row_count']:,} rows",
            f"{entry['file_count']} file{'s' * (entry['file_count'] > 1)}",
        )
        line(
            console,
            f"shared: {entry['destination']} {entry['shipment']}, {rows} in {files}, {entry['place']}/{entry['folder']}",
        )


def next_steps(console: Console, project: Project) -> None:
    """Where the report is, and what to try after the demo."""
    rules = "profile_pipeline/rules" if project.rules == PACKAGE_RULES.resolve() else str(project.rules)
    console.print(
        f"\nreport: {project.published / 'current' / REPORT}, whether these profiles can be trusted\n"
        "\nTry next\n"
        "  .venv/bin/profile-pipeline report --open                  the report in the browser\n"
        "  make ui                                                   the graph, its checks and runs in the Dagster UI\n"
        "  .venv/bin/profile-pipeline lookup JOHN.GREENE@luma.com    one person, and where each value comes from\n"
        f"  edit {rules}/profiles.yaml, then: .venv/bin/profile-pipeline run && .venv/bin/profile-pipeline publish diff",
        highlight=False,
        soft_wrap=True,
    )


def status(
    console: Console,
    live: "Generation | None",
    members: "Memberships | None",
    batches: Sequence[Sequence[Any]],
    refused: list[str],
) -> None:
    """What is live and what waits for attention."""
    if live:
        as_of = live.manifest["as_of"]
        console.print(
            f"live: generation {live.number}, as of {as_of}, {live.profile_count:,} profiles", highlight=False
        )
    else:
        console.print("nothing is published yet")
    if members and live and members.manifest["as_of"] != live.manifest["as_of"]:
        console.print(f"memberships of audiences: as of {members.manifest['as_of']}", highlight=False)
    table(console, ["batch", "as of (UTC)", "files", "rows", "reverted files"], batches)
    for line in refused:
        console.print(f"refused: {plain(line)}", style="yellow", highlight=False, soft_wrap=True)


def proposal(console: Console, found: "Proposal") -> None:
    """A proposed source: columns, then the YAML, then open questions."""
    table(
        console,
        ["column", "field", "type", "confidence", "reason"],
        [(row.column, row.field, row.type, row.confidence, row.reason) for row in found.rows],
    )
    console.print()
    console.print(found.yaml, markup=False, highlight=False, soft_wrap=True)
    for question in found.questions:
        text = plain(f"{question.key}: {question.text}")
        console.print(f"question: {text}", style="yellow", highlight=False, soft_wrap=True)


def problems(console: Console, found: Sequence["Problem"]) -> None:
    """Every mistake in one line."""
    for problem in found:
        style = "red" if problem.severity == "error" else "yellow"
        console.print(
            f"[{style}]{problem.severity}:[/] {plain(problem.line)}", highlight=False, soft_wrap=True
        )
    wrong = sum(problem.severity == "error" for problem in found)
    console.print(f"{wrong} errors, {len(found) - wrong} warnings" if found else "rules and deliveries agree")


def evaluation(console: Console, found: "Evaluation", thresholds: Sequence["ThresholdRow"]) -> None:
    """Figures of the published clusters, then of raw scores over thresholds."""
    counts = ("records", "missing", "unlabelled", "entities", "profiles", "true_pairs", "found_pairs")
    table(
        console, ["labels against profiles", ""], [(c.replace("_", " "), getattr(found, c)) for c in counts]
    )
    console.print()
    measures = {"pairwise": found.pairwise, "B-cubed": found.b_cubed, "whole clusters": found.clusters}
    table(
        console,
        ["published clusters", "precision", "recall", "F1"],
        [(name, score.precision, score.recall, score.f1) for name, score in measures.items()],
    )
    console.print()
    table(
        console,
        ["raw scores from match weight", "pairs", "precision", "recall", "F1"],
        [(r.threshold, r.pairs, r.score.precision, r.score.recall, r.score.f1) for r in thresholds],
    )


def reasons(console: Console, found: Sequence["Reason"]) -> None:
    """Every value of a profile, where it is from and why it won, then what it beat and why that lost."""
    lines = [(r.field, _value(r.value) if r.record_key else "(nothing)", _why(r)) for r in found]
    table(console, ["field", "value", "from, and why"], lines)
    in_conflict = sum(reason.conflicts > 0 for reason in found)
    if in_conflict:
        console.print(f"{in_conflict} of {len(found)} fields have other values on offer", highlight=False)


def _value(value: str | None) -> str:
    return "(cleared)" if value is None else value


def _why(reason: "Reason") -> str:
    """The winner on a line, what a list keeps besides, others that say the same on one, then each value that lost."""
    kept = [f"{_value(offer.value)} of {offer.record_key}" for offer in reason.beaten if offer.kept]
    same = [offer.record_key for offer in reason.beaten if offer.same and not offer.kept]
    other = [offer for offer in reason.beaten if not (offer.same or offer.kept)]
    lines = [f"{_origin(reason)}: {reason.words}" if reason.record_key and not reason.pin else reason.words]
    lines += [f"kept too: {', '.join(kept[:BEATEN])}{_more(len(kept))}"] if kept else []
    lines += [f"also {', '.join(same[:BEATEN])}{_more(len(same))}"] if same else []
    lines += [f"beat {_value(offer.value)} of {_origin(offer)}: {offer.words}" for offer in other[:BEATEN]]
    return "\n".join([*lines, *([f"and{_more(len(other))}"] if len(other) > BEATEN else [])])


def _origin(offer: "Reason | Offer") -> str:
    return f"{offer.record_key}, {offer.observed_at.date() if offer.observed_at else 'no time'}"


def _more(number: int) -> str:
    return f" {number - BEATEN} more" if number > BEATEN else ""


def profiles(console: Console, found: Sequence["Found"]) -> None:
    """Profiles with the source and rule behind every value."""
    if not found:
        console.print("no profile carries this identifier")
    for item in found:
        console.print(f"profile {item.profile_id} (found by {item.found_by})", style="bold", highlight=False)
        facts = [
            (k, item.values[k]) for k in ("kind", "record_count", "event_count", "sources", "last_event_at")
        ]
        table(console, ["", ""], facts)
        console.print()
        reasons(console, item.reasons)
        console.print()
        table(
            console,
            ["namespace", "identifier", "as delivered"],
            [(r["namespace"], r["value"], r["raw_values"]) for r in item.identifiers],
        )
