"""Adobe's linking rule as a pure function: the newest link wins, an older one that breaks a limit goes.

After the Experience Platform documentation, "Identity graph linking rules": identity optimization algorithm and
namespace priority; the size limit after "Guardrails for Identity Service". What the documentation leaves open is
fixed here: among links of one time the one with the better priorities goes first, then the alphabet decides.

Here to be compared with. Our own rule is `clusters` and `refine`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import combinations

from profile_pipeline.config.identity import Namespace

Identity = tuple[str, str]
"""Namespace and value; both must be equal for the same identity."""
Spaces = Mapping[str, Namespace]

MOST_IDENTITIES = 50
"""Identities a graph may hold; beyond, cookies leave first, then devices, then people, the oldest first."""
LEAVES_FIRST = ("cookie", "device", "person")


@dataclass(frozen=True)
class Observation:
    """Identities stated together."""

    at: datetime
    identities: tuple[Identity, ...]


@dataclass(frozen=True)
class Link:
    """Two identities stated together, at the newest time they were. `why` it was cut; empty while it holds."""

    left: Identity
    right: Identity
    at: datetime
    why: str = ""


@dataclass(frozen=True)
class Resolution:
    """Graphs (an identity without links is one by itself), links by time, and what was not taken in."""

    graphs: list[list[Identity]]
    links: list[Link]
    refused: list[Observation]


def newest_link(
    observations: Iterable[Observation], namespaces: Spaces, size: int = MOST_IDENTITIES
) -> Resolution:
    """The graphs after all observations; their order does not matter, only their times.

    An observation that by itself holds more of a namespace than is allowed is refused as a whole.
    """
    taken, refused = _validated(observations, namespaces)
    seen = _last_seen(taken)
    links = _rebuilt(_newest_first(taken, namespaces), namespaces)
    links = _within_size(links, seen, namespaces, size)
    return Resolution(
        _graphs(links, seen), sorted(links, key=lambda link: (link.at, link.left, link.right)), refused
    )


def _validated(
    observations: Iterable[Observation], namespaces: Spaces
) -> tuple[list[Observation], list[Observation]]:
    taken, refused = [], []
    for each in sorted(observations, key=lambda each: (each.at, sorted(each.identities))):
        held = _held(each.identities, namespaces)
        (refused if _excess(held, namespaces) else taken).append(each)
    return taken, refused


def _last_seen(observations: list[Observation]) -> dict[Identity, datetime]:
    """Every identity and when it was last seen; observations are sorted by time."""
    return {identity: each.at for each in observations for identity in each.identities}


def _newest_first(observations: list[Observation], namespaces: Spaces) -> list[Link]:
    newest: dict[tuple[Identity, Identity], datetime] = {}
    for each in observations:
        for left, right in combinations(sorted(set(each.identities)), 2):
            newest[left, right] = each.at
    links = [Link(left, right, at) for (left, right), at in newest.items()]
    links.sort(key=lambda link: (_priority(link, namespaces), link.left, link.right))
    return sorted(links, key=lambda link: link.at, reverse=True)


def _priority(link: Link, namespaces: Spaces) -> int:
    return namespaces[link.left[0]].priority + namespaces[link.right[0]].priority


Held = dict[str, set[str]]
"""Values of the unique namespaces, by namespace."""


def _held(identities: Iterable[Identity], namespaces: Spaces) -> Held:
    held: Held = defaultdict(set)
    for namespace, value in identities:
        if namespaces[namespace].unique:
            held[namespace].add(value)
    return held


def _excess(held: Held, namespaces: Spaces) -> str:
    """The first namespace of which there is too much, or nothing."""
    for name in sorted(held, key=lambda name: (namespaces[name].priority, name)):
        limit = namespaces[name].unique
        if limit and len(held[name]) > limit:
            return name
    return ""


@dataclass
class _Part:
    """Identities united so far and what they hold of the unique namespaces."""

    members: list[Identity]
    held: Held = field(default_factory=dict)


def _rebuilt(links: list[Link], namespaces: Spaces) -> list[Link]:
    """Build the graph from nothing in the given order; links that would break a limit are marked with it."""
    part: dict[Identity, _Part] = {}
    for identity in {end for link in links for end in (link.left, link.right)}:
        part[identity] = _Part([identity], _held([identity], namespaces))
    found = []
    for link in links:
        a, b = part[link.left], part[link.right]
        excess = "" if a is b else _excess(_together(a.held, b.held), namespaces)
        if not excess and a is not b:
            _unite(part, a, b)
        limit = namespaces[excess].unique if excess else 0
        why = f"newer links give the graph {limit} of {excess} already" if excess else ""
        found.append(replace(link, why=why))
    return found


def _together(a: Held, b: Held) -> Held:
    return {name: a.get(name, set()) | b.get(name, set()) for name in a.keys() | b.keys()}


def _unite(part: dict[Identity, _Part], a: _Part, b: _Part) -> None:
    large, small = (a, b) if len(a.members) >= len(b.members) else (b, a)
    large.members += small.members
    large.held = _together(a.held, b.held)
    for identity in small.members:
        part[identity] = large


def _within_size(
    links: list[Link], seen: dict[Identity, datetime], namespaces: Spaces, size: int
) -> list[Link]:
    """Links without those of the identities that leave graphs which have grown too large."""
    gone: set[Identity] = set()
    for graph in _graphs(links, seen):
        order = sorted(
            graph, key=lambda each: (LEAVES_FIRST.index(namespaces[each[0]].kind), seen[each], each)
        )
        gone.update(order[: max(len(graph) - size, 0)])
    why = f"left a graph of more than {size} identities"
    return [
        replace(link, why=why) if not link.why and {link.left, link.right} & gone else link for link in links
    ]


def _graphs(links: list[Link], seen: Iterable[Identity]) -> list[list[Identity]]:
    """Connected identities, each sorted, in the order of their first."""
    part = {identity: _Part([identity]) for identity in seen}
    for link in links:
        if not link.why and part[link.left] is not part[link.right]:
            _unite(part, part[link.left], part[link.right])
    return sorted(sorted(each.members) for each in {id(each): each for each in part.values()}.values())
