"""The made-up customers of the retailer Luma & Lark: six sources and the truth about who is who, at any size.

Belongs here: what the world is and how its sources write it down. Does not belong here: anything the pipeline
does with the files; no module of the pipeline imports this package.
"""

from dataclasses import dataclass
from pathlib import Path

from profile_pipeline.errors import PipelineError
from profile_pipeline.generate.rates import DEMO_AS_OF, DEMO_PEOPLE, DEMO_SEED

__all__ = ["DEMO_AS_OF", "DEMO_PEOPLE", "DEMO_SEED", "GenerationSummary", "generate"]


@dataclass(frozen=True)
class GenerationSummary:
    """What was written: delivered rows by source, distinct readable record keys and events, files, bytes."""

    people: int
    seed: int
    rows: dict[str, int]
    records: int
    events: int
    files: list[Path]
    bytes: int


def generate(folder: Path, people: int, seed: int) -> GenerationSummary:
    """Write `sources/` and `truth/` of a world into a folder; the same arguments give the same bytes.

    Person i of a seed is the same in a world of any size. Raises PipelineError for a world without
    people, a negative seed, or a folder where deliveries of another world would stay among the new ones.
    """
    from profile_pipeline.generate.deliveries import planned_names, write_world

    if people < 1 or seed < 0:
        raise PipelineError(f"a world needs at least 1 person and a seed from 0, not {people} and {seed}")
    refuse_strangers(folder, planned_names(people))
    tally, files = write_world(folder, people, seed)
    size = sum(path.stat().st_size for path in files)
    return GenerationSummary(people, seed, tally.rows, tally.records, tally.events, files, size)


def refuse_strangers(folder: Path, names: set[str]) -> None:
    """Raise PipelineError when `sources/` holds a file that is not among `names` and so would not be replaced."""
    present = {f"sources/{path.name}" for path in folder.glob("sources/[!.]*")}
    if strangers := sorted(present - names):
        raise PipelineError(f"{folder} holds {strangers[0]}, not part of this world; choose an empty folder")
