"""The true people of one block of the world. Nothing here is misspelt or missing.

What the sources make of these people belongs into the queries under sql/.
"""

from dataclasses import dataclass

import pyarrow as pa

from profile_pipeline.generate.draws import Draws
from profile_pipeline.generate.homes import build_households, household_sizes
from profile_pipeline.generate.people import build_people


@dataclass(frozen=True)
class Block:
    """One block of people: the first `BLOCK_PEOPLE` of a stretch of whole households."""

    number: int
    draws: Draws
    households: pa.Table
    people: pa.Table


def build_block(seed: int, number: int) -> Block:
    """Make the true households and people of a block."""
    draws = Draws(seed, number)
    sizes = household_sizes(draws)
    households = build_households(draws, sizes)
    return Block(number, draws, households, build_people(draws, households, sizes))
