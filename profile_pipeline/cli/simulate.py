"""The command that shows what the linking rules make of a few typed events; it changes nothing."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profile_pipeline import display
from profile_pipeline.cli.shell import AsJson, ProjectFolder, as_json, chosen, console, plain_errors
from profile_pipeline.config.load import load_config
from profile_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from profile_pipeline.identity.simulate import Simulation, Tie

MOST_SHOWN = 50
"""Links of a kind on the terminal; `--json` has all of them."""


def simulate(
    file: Annotated[Path, typer.Argument(help="Lines `NS: value, NS: value`, optionally after a time.")],
    resolver: Annotated[str, typer.Option(help="ours or newest_link; default: both.")] = "",
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Show the identity graphs that typed events lead to, with every link kept or cut and why. Changes nothing."""
    with plain_errors():
        from profile_pipeline.identity.simulate import RESOLVERS, resolve
        from profile_pipeline.identity.simulation_file import read_lines

        if resolver and resolver not in RESOLVERS:
            raise PipelineError(f"--resolver: unknown `{resolver}`; choose {' or '.join(RESOLVERS)}")
        config = load_config(chosen(project).rules)
        lines = read_lines(file, config.namespaces)
        country = next((source.country for source in config.sources.values() if source.country), "")
        found = [
            resolve(lines, config.identity, each, country) for each in ([resolver] if resolver else RESOLVERS)
        ]
        if json_output:
            as_json([asdict(each) for each in found])
            return
        for each in found:
            _show(each)


def _show(found: "Simulation") -> None:
    display.line(
        console, f"{found.resolver}: {len(found.graphs)} graph{'s' if len(found.graphs) != 1 else ''}"
    )
    for number, graph in enumerate(found.graphs, 1):
        own = ", ".join(graph.identities) or "nobody known"
        shared = f"; shares {', '.join(graph.shared)}" if graph.shared else ""
        lines = f" (lines {', '.join(map(str, graph.lines))})" if graph.lines else ""
        display.line(console, f"  {number}. {own}{shared}{lines}")
    _show_links("kept", [link for link in found.links if not link.why])
    _show_links("cut", [link for link in found.links if link.why])
    for title, texts in {"shared, merges nobody": found.relationships, "not taken in": found.notes}.items():
        if texts:
            display.line(console, f"  {title}:")
        for text in texts[:MOST_SHOWN]:
            display.line(console, f"    {text}")
    display.line(console, "")


def _show_links(title: str, links: "list[Tie]") -> None:
    if links:
        display.line(console, f"  {title}:")
    for link in links[:MOST_SHOWN]:
        by = f" by {link.by}" if link.by else ""
        why = f" ({link.why})" if link.why else ""
        arrow = "- -" if link.why else "---"
        display.line(console, f"    [{link.number}] {link.left} {arrow} {link.right}{by}{why}")
    if len(links) > MOST_SHOWN:
        display.line(console, f"    and {len(links) - MOST_SHOWN:,} more; --json shows all")
