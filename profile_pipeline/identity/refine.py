"""Splits one component where its links contradict other evidence: constrained average linkage.

Strong identifiers unite first, unless a limit would break. Then the two groups whose pairs agree best on
average unite, as long as the average is for one person rather than against it: a chain of likely links does
not hold when most pairs along it are unlikely. The result depends on the component only, not on its order.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

CLIP = (-4.0, 15.0)
"""Match weights count within these bounds, so that no single pair outweighs many others."""
Pair = tuple[int, int]
Score = tuple[int, int, float, bool]
"""A scored pair: nodes, match weight, and whether the pair is a link."""


LIMIT_BROKEN = "a limit of identity.yaml"
DECIDED_APART = "a decision keeps them apart"
CONTRADICTED = "other records of both contradict it"
"""Why a link does not hold."""


class Tie:
    """All scored pairs between two groups: sum of weights, number of pairs, whether any of them is a link."""

    __slots__ = ("linked", "pairs", "weight")

    def __init__(self, weight: float, pairs: int, linked: bool) -> None:
        self.weight, self.pairs, self.linked = weight, pairs, linked


class Group:
    """Nodes united so far, how many of them can be scored, and the limited values they hold.

    `ties` is by the other group, `apart` are the groups that a decision keeps apart from this one.
    """

    __slots__ = ("apart", "held", "nodes", "scorable", "ties")

    def __init__(self, node: int, scorable: bool) -> None:
        self.nodes = [node]
        self.scorable = int(scorable)
        self.held: dict[str, set[str]] = {}
        self.ties: dict[int, Tie] = {}
        self.apart: set[int] = set()


@dataclass(frozen=True)
class Component:
    """What there is to know about the nodes of one component."""

    nodes: list[int]
    scorable: set[int]
    strong: list[Pair]
    """Links by decisions and strong identifiers, strongest first."""
    apart: list[Pair]
    """Pairs that were decided not to be one person."""
    scores: list[Score]
    values: dict[int, list[tuple[str, str]]]
    """Limited values by node: (namespace or source, value)."""


@dataclass(frozen=True)
class Bounds:
    """Most values of each kind in a group, most nodes, and what a pair counts that was never scored."""

    values: dict[str, int]
    size: int
    unscored: float

    def allow(self, a: Group, b: Group) -> bool:
        """Whether no limit keeps two groups from being one profile."""
        if len(a.nodes) + len(b.nodes) > self.size:
            return False
        return all(
            len(held | b.held[kind]) <= self.values[kind] for kind, held in a.held.items() if kind in b.held
        )


def refine(component: Component, bounds: Bounds) -> tuple[list[list[int]], list[tuple[int, int, str]]]:
    """Groups of nodes, each sorted, and the links between groups with the reason why they do not hold."""
    groups = _singles(component)
    member = {node: node for node in component.nodes}
    for left, right in component.apart:
        groups[left].apart.add(right)
        groups[right].apart.add(left)
    for left, right in component.strong:
        a, b = member[left], member[right]
        if a != b and _may_unite(groups, a, b, bounds):
            _unite(groups, member, a, b)
    _tie(groups, member, component.scores)
    _agglomerate(groups, member, bounds)
    links = [*component.strong, *((left, right) for left, right, _, is_link in component.scores if is_link)]
    return [sorted(group.nodes) for group in groups.values()], _cut(groups, member, links, bounds)


def _may_unite(groups: dict[int, Group], a: int, b: int, bounds: Bounds) -> bool:
    return b not in groups[a].apart and bounds.allow(groups[a], groups[b])


def _singles(component: Component) -> dict[int, Group]:
    groups = {node: Group(node, node in component.scorable) for node in component.nodes}
    for node, values in component.values.items():
        for kind, value in values:
            groups[node].held.setdefault(kind, set()).add(value)
    return groups


def _tie(groups: dict[int, Group], member: dict[int, int], scores: Iterable[Score]) -> None:
    lowest, highest = CLIP
    for left, right, weight, is_link in scores:
        a, b = member[left], member[right]
        if a == b:
            continue
        counted = weight if lowest < weight < highest else max(lowest, min(weight, highest))
        ties = groups[a].ties
        tie = ties.get(b)
        if tie is None:
            ties[b] = groups[b].ties[a] = Tie(counted, 1, is_link)
        else:
            tie.weight += counted
            tie.pairs += 1
            tie.linked = tie.linked or is_link


Offer = tuple[float, int, int, int]
"""Two groups with a link that may unite: minus the average of their pairs, their names, and the size of both at the time."""


def _agglomerate(groups: dict[int, Group], member: dict[int, int], bounds: Bounds) -> None:
    """Best average first; groups are named by their smallest node, which also decides among equals."""
    heap = [
        offer
        for a, group in groups.items()
        for b, tie in group.ties.items()
        if a < b and tie.linked and (offer := _offer(groups, a, b, tie, bounds))
    ]
    heapq.heapify(heap)
    while heap:
        _, a, b, size = heapq.heappop(heap)
        # groups only grow, so that their size in all tells whether either did
        current = a in groups and b in groups and size == len(groups[a].nodes) + len(groups[b].nodes)
        if current and _may_unite(groups, a, b, bounds):
            _unite(groups, member, a, b)
            for other, tie in groups[a].ties.items():
                if tie.linked and (offer := _offer(groups, a, other, tie, bounds)):
                    heapq.heappush(heap, offer)


def _offer(groups: dict[int, Group], a: int, b: int, tie: Tie, bounds: Bounds) -> Offer | None:
    """None when most speaks against it."""
    one, other = groups[a], groups[b]
    possible = one.scorable * other.scorable
    average = (tie.weight + (possible - tie.pairs) * bounds.unscored) / possible
    if average < 0:
        return None
    size = len(one.nodes) + len(other.nodes)
    return (-average, a, b, size) if a < b else (-average, b, a, size)


def _unite(groups: dict[int, Group], member: dict[int, int], a: int, b: int) -> None:
    """The group with the smaller name takes in the other."""
    a, b = min(a, b), max(a, b)
    kept, gone = groups[a], groups.pop(b)
    kept.nodes += gone.nodes
    kept.scorable += gone.scorable
    for kind, held in gone.held.items():
        kept.held[kind] = kept.held.get(kind, set()) | held
    for node in gone.nodes:
        member[node] = a
    for other in gone.apart:
        groups[other].apart.remove(b)
        groups[other].apart.add(a)
    kept.apart |= gone.apart
    kept.ties.pop(b, None)
    for other, tie in gone.ties.items():
        if other == a:
            continue
        ties = groups[other].ties
        del ties[b]
        both = kept.ties.get(other)
        if both is None:
            kept.ties[other] = ties[a] = tie
        else:
            both.weight += tie.weight
            both.pairs += tie.pairs
            both.linked = both.linked or tie.linked


def _cut(
    groups: dict[int, Group], member: dict[int, int], links: list[Pair], bounds: Bounds
) -> list[tuple[int, int, str]]:
    found = []
    for left, right in links:
        a, b = member[left], member[right]
        if a != b:
            found.append((left, right, _reason(groups[a], groups[b], b, bounds)))
    return found


def _reason(one: Group, other: Group, name: int, bounds: Bounds) -> str:
    if name in one.apart:
        return DECIDED_APART
    return CONTRADICTED if bounds.allow(one, other) else LIMIT_BROKEN
