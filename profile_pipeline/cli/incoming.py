"""`lookup --record`: whose record would this be? It shows personal data and changes nothing."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from profile_pipeline import display
from profile_pipeline.cli.shell import as_json, console, opened
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from profile_pipeline.identity.incoming import Candidate, Incoming


def record_of(given: Sequence[str], text: str) -> dict[str, str]:
    """The record of `--record FIELD=VALUE ...` and `--record-json`, field to text."""
    record = _from_json(text) if text else {}
    for item in given:
        field, equals, value = item.partition("=")
        if not equals:
            raise PipelineError("--record takes FIELD=VALUE, such as --record given_name=Jon")
        record[field.strip()] = value
    return record


def _from_json(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or any(isinstance(value, dict | list) for value in found.values()):
        raise PipelineError('--record-json takes one object of plain values, such as {"given_name": "Jon"}')
    return {field: str(value) for field, value in found.items() if value is not None}


def lookup_record(project: Project, record: dict[str, str], source: str | None, *, json_output: bool) -> bool:
    """Show the profiles that a record may belong to; whether there are any."""
    from profile_pipeline.identity.incoming import find_person

    with opened(project) as con:
        found = find_person(con, load_config(project.rules), record, source=source)
    if json_output:
        as_json(asdict(found))
    else:
        _show(found)
    return bool(found.candidates)


def _show(found: "Incoming") -> None:
    values = [(field, str(value)) for field, value in found.values.items()]
    values += [
        (space, key)
        for space, keys in found.identifiers.items()
        for key in keys
        if key not in found.values.values()
    ]
    display.table(console, ["the record, as matching sees it", ""], values)
    for field in found.unread:
        console.print(Text(f"{field}: not a value of its type, left out", style="yellow"))
    for identifier in found.set_aside:
        console.print(Text(f"{identifier} is set aside: it identifies nobody", style="yellow"))
    compared = f"compared with {found.compared:,} records"
    limit = "" if found.threshold is None else f"; a link from match weight {found.threshold:.1f}"
    console.print(Text(f"\n{compared}{limit}"))
    if not found.candidates:
        console.print("nobody like this is known")
    for candidate in found.candidates:
        _show_candidate(candidate)


def _show_candidate(candidate: "Candidate") -> None:
    sure = _sure(candidate.match_probability)
    link = "would be a link" if candidate.is_link else "no link"
    console.print()
    console.print(Text.assemble((f"profile {candidate.profile_id}", "bold"), f"{sure}  {link}"))
    for item in candidate.shared:
        alone = "" if item.links else ", which does not link by itself"
        console.print(Text(f"  carries {item.namespace} {item.value}{alone}"))
    shown = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
    shown.add_column(justify="right", min_width=6)
    for record in candidate.records:
        words = Text.assemble((record.record_key, "bold"), "\n", (record.score.words, "dim"))
        shown.add_row(f"{record.score.weight:.1f}", words)
    if candidate.records:
        console.print(shown)


def _sure(probability: float | None) -> str:
    """A probability as people read it: never certain by rounding."""
    if probability is None or probability == 1:
        return ""
    return "  p > 0.9999" if probability > 0.9999 else f"  p {probability:.4f}"
