"""Connected components, and pieces of them small enough to look at every pair inside."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MOST_IN_PIECE = 200
"""Nodes of a piece; 200 nodes have 20,000 pairs."""
STRONGEST = 40.0
"""Match weight beyond which a bigger piece is not cut any further."""


def connected(left: Ints, right: Ints, size: int) -> Ints:
    """Component number of each of `size` nodes."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not size:
        return np.array([], dtype=np.int64)
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(size, size))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def pieces(left: Ints, right: Ints, weight: Floats, size: int, most: int = MOST_IN_PIECE) -> Ints:
    """Component number of each node, where components with more than `most` nodes fall apart.

    They do so by leaving out their weakest links, one bit of match weight at a time.
    """
    labels = connected(left, right, size)
    level = float(np.floor(weight.min(initial=0.0)))
    while level < STRONGEST:
        large = np.bincount(labels, minlength=1)[labels] > most
        inside = large[left] & (labels[left] == labels[right])
        if not inside.any():
            break
        level += 1
        left, right, weight = (part[inside & (weight >= level)] for part in (left, right, weight))
        nodes = np.flatnonzero(large)
        finer = connected(np.searchsorted(nodes, left), np.searchsorted(nodes, right), len(nodes))
        labels[nodes] = labels.max() + 1 + finer
        labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return labels
