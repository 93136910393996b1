"""Links that alone hold a cluster together: bridges of the graph, in linear time.

Every link outside a spanning forest gets a random label, every link of the forest the xor of the labels of the cycles
it lies on. Without a cycle the label is zero: a bridge. (Cycle space sampling, Pritchard and Thurimella 2011; a wrong
answer has a chance of 2 to the power of -64 a link, and the labels are the same in every run.)
"""

import numpy as np
import numpy.typing as npt

from profile_pipeline.identity.components import Ints, connected

SEED = 20260101


def bridges(left: Ints, right: Ints, weight: Ints) -> Ints:
    """Of each link, the weight on the lighter side if it were gone; 0 when it is no bridge.

    Nodes are numbered from 0 and weigh `weight`; a pair is linked at most once.
    """
    size = len(weight)
    labels = connected(left, right, size)
    parent, order = _forest(left, right, labels)
    in_forest = (parent[left] == right) | (parent[right] == left)
    mark = np.zeros(size, dtype=np.uint64)
    _mark_cycles(mark, left[~in_forest], right[~in_forest])
    below, mark = _sums_below(parent, order, weight, mark)
    child = np.where(parent[left] == right, left, right)
    total = np.bincount(labels, weights=weight, minlength=1).astype(np.int64)[labels]
    lighter = np.minimum(below, total - below)[child]
    return np.where(in_forest & (mark[child] == 0), lighter, 0)


def _forest(left: Ints, right: Ints, labels: Ints) -> tuple[Ints, Ints]:
    """Parent of each node in a breadth-first forest (roots: -1), and the nodes with parents before children."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order

    size = len(labels)
    roots = np.unique(labels, return_index=True)[1]
    # one more node above all roots makes the forest a tree
    begins, ends = np.concatenate([left, roots]), np.concatenate([right, np.full(len(roots), size)])
    graph = coo_array(
        (np.ones(len(begins), dtype=np.int8), (begins, ends)), shape=(size + 1, size + 1)
    ).tocsr()
    order, parent = breadth_first_order(graph, size, directed=False)
    parent = parent[:size].astype(np.int64)
    parent[roots] = -1
    return parent, order[1:].astype(np.int64)


def _mark_cycles(mark: npt.NDArray[np.uint64], left: Ints, right: Ints) -> None:
    drawn = np.random.default_rng(SEED).integers(1, 2**64, size=len(left), dtype=np.uint64)
    np.bitwise_xor.at(mark, left, drawn)
    np.bitwise_xor.at(mark, right, drawn)


def _sums_below(
    parent: Ints, order: Ints, weight: Ints, mark: npt.NDArray[np.uint64]
) -> tuple[Ints, npt.NDArray[np.uint64]]:
    """Weight of each subtree, and the xor of its marks: children before parents."""
    weights, marks, above = weight.tolist(), mark.tolist(), parent.tolist()
    for node in reversed(order.tolist()):
        if above[node] >= 0:
            weights[above[node]] += weights[node]
            marks[above[node]] ^= marks[node]
    return np.array(weights, dtype=np.int64), np.array(marks, dtype=np.uint64)
