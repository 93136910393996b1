"""Commands about matching models: see one in words, compare two, train another, go back to an earlier one."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profile_pipeline import display
from profile_pipeline.cli.shell import (
    AsJson,
    DryRun,
    ProjectFolder,
    as_json,
    chosen,
    console,
    opened,
    plain_errors,
)
from profile_pipeline.config.load import load_config

if TYPE_CHECKING:
    from profile_pipeline.identity.model import Model
    from profile_pipeline.identity.model_report import Figures, ModelDifference, Scored

commands = typer.Typer(no_args_is_help=True, help="Matching models: see, compare, train, choose.")
ModelId = Annotated[str, typer.Argument(help="Model id or its beginning; default: the active model.")]
NEXT = "next: profile-pipeline run (scores every pair with it; profile ids persist)"


@commands.command("list")
def model_list(project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """Every stored model, newest first; the active one scores."""
    with plain_errors():
        from profile_pipeline.identity.model import rules_fingerprint
        from profile_pipeline.identity.model_report import stored_models

        where = chosen(project)
        with opened(where) as con:
            found = stored_models(con, rules_fingerprint(load_config(where.rules)))
        if json_output:
            as_json([asdict(row) for row in found])
            return
        display.table(
            console,
            [
                "model",
                "",
                "as of (UTC)",
                "records",
                "threshold",
                "precision",
                "recall",
            ],
            [
                (
                    row.model_id,
                    "active" if row.active else "" if row.fits else "other rules",
                    f"{row.trained_as_of:%Y-%m-%d %H:%M}" if row.trained_as_of else "",
                    _number(row.figures.records),
                    _bits(row.figures.threshold),
                    _number(row.figures.expected_precision),
                    _number(row.figures.expected_recall_of_candidates),
                )
                for row in found
            ],
        )


@commands.command("show")
def model_show(model_id: ModelId = "", project: ProjectFolder = None, json_output: AsJson = False) -> None:
    """What a model has learned: every level of agreement in words and weights, blocking, threshold."""
    with plain_errors():
        from profile_pipeline.identity import model_report as report

        with opened(chosen(project)) as con:
            found = report.find_model(con, model_id)
            frequencies = report.term_frequencies(con, found.model_id)
            scored = report.scored(con, found.model_id)
        if json_output:
            as_json(
                {
                    "model_id": found.model_id,
                    "figures": asdict(report.figures(found)),
                    "levels": [
                        asdict(row) | {"in_words": report.in_words(row)} for row in report.levels(found)
                    ],
                    "blocking": [asdict(row) for row in report.blocking(found)],
                    "threshold_curve": report.threshold_curve(found),
                    "term_frequencies": dict(frequencies),
                    "scored": scored and asdict(scored),
                }
            )
            return
        _show(found, frequencies)
        if scored:
            _show_scored(scored)


@commands.command("compare")
def model_compare(
    left: Annotated[str, typer.Argument(help="Model id or its beginning.")],
    right: ModelId = "",
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """What differs between two models, in numbers: weights, comparisons, threshold, frequencies."""
    with plain_errors():
        from profile_pipeline.identity.model_report import compare

        with opened(chosen(project)) as con:
            found = compare(con, left, right)
        if json_output:
            as_json(asdict(found))
        else:
            _show_difference(found)


@commands.command("train")
def model_train(project: ProjectFolder = None, dry_run: DryRun = False, json_output: AsJson = False) -> None:
    """Train a model on the present records, without labels; it scores from the next run on."""
    with plain_errors():
        from profile_pipeline.identity.model_choice import train

        where = chosen(project)
        with opened(where) as con:
            found = train(con, load_config(where.rules), keep=not dry_run)
        if json_output:
            as_json({**asdict(found), "kept": not dry_run})
            return
        _line(
            f"trained model {found.model_id}" + (", on trial: nothing is kept" if dry_run else ", now active")
        )
        if found.difference is None:
            _show_figures(found.figures)
        else:
            _show_difference(found.difference)
        if not dry_run:
            _line(f"\n{NEXT}")


@commands.command("use")
def model_use(
    model_id: Annotated[str, typer.Argument(help="Model id or its beginning.")],
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Make an earlier model active again; refused when it was trained for other rules."""
    with plain_errors():
        from profile_pipeline.identity.model_choice import use_model

        where = chosen(project)
        with opened(where) as con:
            found = use_model(con, load_config(where.rules), model_id)
        if json_output:
            as_json({"model_id": found.model_id, "active": True})
            return
        _line(f"active: model {found.model_id}\n{NEXT}")


# ---------------------------------------------------------------- views


def _show(found: "Model", frequencies: Sequence[tuple[str, int]]) -> None:
    from profile_pipeline.identity import model_report as report

    _line(f"model {found.model_id}\n")
    _show_figures(report.figures(found))
    for kind, title in (
        ("person", "one person against strangers"),
        ("household", "one household against strangers"),
    ):
        rows = [
            (row.comparison, row.level, f"{_bits(row.match_weight):>6}", report.in_words(row))
            for row in report.levels(found)
            if row.kind == kind
        ]
        _section(title, ["comparison", "level", "  bits", "in words"], rows)
    _section(
        "candidate pairs, each counted at the first rule that finds it",
        ["blocking rule", "pairs in training", "matches expected"],
        [(row.rule, row.pairs, row.matches) for row in report.blocking(found)],
    )
    _section("frequencies of values, frozen with the model", ["field", "values"], frequencies)


def _show_scored(found: "Scored") -> None:
    above = "" if found.threshold is None else f" at match weight {found.threshold:.2f} or more"
    _line(f"\nscored: {found.pairs:,} pairs, {found.links:,} of them links{above}")
    _section(
        f"keys shared by too many records: {found.recall_lost:.2%} of the matches are estimated to be missed",
        ["blocking rule", "records", "blocks", "pairs", "matches missed"],
        [(row.rule, row.records, row.blocks, row.pairs, row.matches_missed) for row in found.capped],
    )


def _show_figures(found: "Figures") -> None:
    display.table(
        console, ["", ""], [(_plain(name), _number(value)) for name, value in asdict(found).items()]
    )


def _show_difference(found: "ModelDifference") -> None:
    _line(f"from {found.left} to {found.right}")
    if found.same:
        _line("the models are the same")
    _section(
        "figures",
        ["", "from", "to"],
        [(_plain(f.figure), _number(f.left), _number(f.right)) for f in found.figures],
    )
    _section("parts", ["", "", ""], [(row.change, row.part, row.name) for row in found.parts])
    _section(
        "match weights that moved, in bits",
        ["comparison", "level", "from", "to", "moved"],
        [
            (
                row.comparison if row.kind == "person" else f"{row.comparison} (household)",
                row.level,
                *(f"{_bits(value):>6}" for value in (row.left, row.right, row.moved)),
            )
            for row in found.weights
        ],
    )
    _section(
        "frequencies of values; distance 0 is the same, 1 nothing in common",
        ["field", "values from", "to", "in one only", "distance"],
        [
            (f.field, f.left_values, f.right_values, f.in_one_only, f.distance)
            for f in found.frequencies
            if f.distance
        ],
    )
    _section(
        "scores in the warehouse",
        ["model", "pairs", "links"],
        [(s.model_id, s.pairs, s.links) for s in found.scored],
    )


def _section(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A titled table, left out when it is empty."""
    if rows:
        _line(f"\n{title}")
        display.table(console, headings, rows)


def _line(text: str) -> None:
    display.line(console, text)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _bits(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f}"


def _number(value: float | None) -> str:
    """Whole numbers in full, others to four digits."""
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
