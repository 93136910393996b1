"""Random numbers that depend on a seed, a block and a name only, so that a person is the same in every world.

Built on the raw words of Philox, which numpy keeps fixed; the methods of its Generator may change with a release.
"""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

QUIET = 0.99
"""What person 0 draws everywhere: above every rate and below its mirror image, so without any noise."""


@dataclass(frozen=True)
class Draws:
    """The random streams of one block."""

    seed: int
    block: int

    def uniform(self, name: str, count: int) -> Floats:
        """Return `count` numbers in [0, 1) of the stream called `name`; a longer draw begins with the shorter."""
        key = np.array([self.seed, self.block << 32 | crc32(name.encode())], dtype=np.uint64)
        raw = np.random.Philox(key=key).random_raw(count)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def counts_with_mean(uniform: Floats, mean: float, at_most: int) -> Integers:
    """Turn uniform numbers into counts of at least one: the geometric distribution by inversion."""
    counts = 1 + np.floor(np.log1p(-uniform) / np.log1p(-1 / mean)).astype(np.int64)
    return np.minimum(counts, at_most)


def with_draws(frame: pa.Table, draws: Draws, stream: str, names: list[str]) -> pa.Table:
    """Add a column of uniform numbers for each name; person 0 draws `QUIET` everywhere."""
    quiet = np.flatnonzero(frame["person"].to_numpy() == 0) if "person" in frame.column_names else []
    for name in names:
        uniform = draws.uniform(f"{stream}.{name}", frame.num_rows)
        uniform[quiet] = QUIET
        frame = frame.append_column(name, pa.array(uniform))
    return frame
