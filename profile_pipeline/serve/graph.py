"""Draws the records of a profile and the links between them, as SVG that needs neither style nor script of its own.

The record with most links stands in the middle, the others around it in the order in which links lead to them. Of
links that say the same as stronger ones only a thin line is shown: those that are labelled alone hold the profile together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from profile_pipeline.explain.links import spanning
from profile_pipeline.report.numbers import legible

Link = dict[str, Any]
Point = tuple[float, float]
MOST_NODES = 24
"""Records that are drawn, those with most links; the table below the picture has all."""
WIDTH, HEIGHT, GAP = 172.0, 46.0, 10.0
"""Size of a box and the room around it, in pixels."""
MARGIN = 16.0
LONGEST = 22
"""Characters of a key that fit into a box."""
KINDS = {
    "decision": "decided by a person",
    "deterministic": "shared identifier",
    "probabilistic": "scored as alike",
    "attached": "identity with one holder",
}


@dataclass(frozen=True)
class Drawing:
    """A picture, how many records it leaves out, and the kinds of links in it."""

    svg: Markup
    left_out: int
    kinds: tuple[str, ...]


def draw(record_keys: Sequence[str], links: Sequence[Link]) -> Drawing | None:
    """The graph of a profile, or None when there is but one record. Links come strongest first."""
    nodes = _drawn(record_keys, links)
    if len(nodes) < 2:
        return None
    inside = [link for link in links if {link["left_key"], link["right_key"]} <= {*nodes}]
    tree = spanning(inside)
    room = max((_label_width(_label(link, weakest=False)) for link in tree), default=0.0) + 2 * GAP
    places = _places(nodes, tree, room)
    kinds = tuple(kind for kind in KINDS if any(link["type"] == kind for link in inside))
    return Drawing(_svg(places, inside, tree), len({*record_keys}) - len(nodes), kinds)


def _drawn(record_keys: Sequence[str], links: Sequence[Link]) -> list[str]:
    degree = dict.fromkeys(record_keys, 0)
    for link in links:
        for side in ("left_key", "right_key"):
            degree[link[side]] = degree.get(link[side], 0) + 1
    return sorted(degree, key=lambda key: (-degree[key], key))[:MOST_NODES]


# ---------------------------------------------------------------- where boxes stand


def _places(nodes: Sequence[str], tree: Sequence[Link], room: float) -> dict[str, Point]:
    """The middle of each box; no two overlap, and there is room for a label between those beside each other."""
    order = _walk(nodes, tree)
    hub = order[0] if len(nodes) > 3 else None
    ring = order[1:] if hub else order
    across, down = 150.0, 90.0
    while True:
        places = {key: _on_ellipse(n, len(ring), across, down) for n, key in enumerate(ring)}
        places |= {hub: (0.0, 0.0)} if hub else {}
        if _apart(list(places.values()), room):
            return places
        across, down = across * 1.08, down * 1.08


def _walk(nodes: Sequence[str], tree: Sequence[Link]) -> list[str]:
    """Nodes from the one with most links of the tree, each with all that hangs on it before the next."""
    beside: dict[str, list[str]] = {key: [] for key in nodes}
    for link in tree:
        beside[link["left_key"]].append(link["right_key"])
        beside[link["right_key"]].append(link["left_key"])
    found: dict[str, None] = {}
    for root in sorted(nodes, key=lambda key: (-len(beside[key]), key)):
        waiting = [root]
        while waiting:
            key = waiting.pop()
            if key not in found:
                found[key] = None
                waiting += sorted((k for k in beside[key] if k not in found), reverse=True)
    return list(found)


def _on_ellipse(number: int, total: int, across: float, down: float) -> Point:
    begin = math.pi if total == 2 else -math.pi / 2
    angle = begin + 2 * math.pi * number / total
    return across * math.cos(angle), down * math.sin(angle)


def _apart(places: Sequence[Point], room: float) -> bool:
    return all(
        abs(x - u) >= WIDTH + room or abs(y - v) >= HEIGHT + 3 * GAP
        for n, (x, y) in enumerate(places)
        for u, v in places[n + 1 :]
    )


# ---------------------------------------------------------------- drawing


def _svg(places: dict[str, Point], links: Sequence[Link], tree: Sequence[Link]) -> Markup:
    left = min(x for x, _ in places.values()) - WIDTH / 2 - MARGIN
    top = min(y for _, y in places.values()) - HEIGHT / 2 - MARGIN
    wide = max(x for x, _ in places.values()) + WIDTH / 2 + MARGIN - left
    high = max(y for _, y in places.values()) + HEIGHT / 2 + MARGIN - top
    moved = {key: (x - left, y - top) for key, (x, y) in places.items()}
    held = {id(link) for link in tree}
    weakest = _weakest(tree)
    loose = Markup("").join(_line(moved, link, "loose") for link in links if id(link) not in held)
    firm = Markup("").join(_line(moved, link, "weakest" if link is weakest else "firm") for link in tree)
    tags = Markup("").join(_tag(moved, link, weakest=link is weakest) for link in tree)
    boxes = Markup("").join(_box(key, place) for key, place in moved.items())
    said = f"{len(places)} records and identities, and {len(tree)} links that hold them together; all are in the table below"
    return Markup(
        '<svg class="graph" role="img" aria-label="{said}" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}">'
        "{drawn}</svg>"
    ).format(said=said, wide=round(wide), high=round(high), drawn=loose + firm + tags + boxes)


def _weakest(tree: Sequence[Link]) -> Link | None:
    """The scored link of least weight, where there is another link beside it."""
    scored = [link for link in tree if link["match_weight"] is not None]
    return min(scored, key=lambda link: link["match_weight"]) if scored and len(tree) > 1 else None


def _line(places: dict[str, Point], link: Link, how: str) -> Markup:
    (x, y), (u, v) = places[link["left_key"]], places[link["right_key"]]
    weight = link["match_weight"]
    thick = 1.0 if how == "loose" else 2.0 if weight is None else 1.5 + min(max(weight, 0.0), 40.0) / 12
    return Markup(
        '<line class="link {kind} {how}" x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}" stroke-width="{thick:.1f}">'
        "<title>{title}</title></line>"
    ).format(kind=link["type"], how=how, x=x, y=y, u=u, v=v, thick=thick, title=link_title(link))


def link_title(link: Link) -> str:
    """A link in words."""
    weight = f", match weight {link['match_weight']:.1f}" if link["match_weight"] is not None else ""
    name = f" {link['namespace']}" if link["namespace"] else ""
    ends = f"{legible(link['left_key'])} and {legible(link['right_key'])}"
    return f"{ends}: {KINDS.get(link['type'], link['type'])}{name}{weight}"


def _label(link: Link, *, weakest: bool) -> str:
    if link["match_weight"] is not None:
        return f"weakest {link['match_weight']:.1f}" if weakest else f"{link['match_weight']:.1f}"
    return "decided" if link["type"] == "decision" else link["namespace"] or KINDS[link["type"]]


def _tag(places: dict[str, Point], link: Link, *, weakest: bool) -> Markup:
    """The label of a link, in the middle of what is seen of it."""
    one, other = places[link["left_key"]], places[link["right_key"]]
    (x, y), (u, v) = _edge(one, other), _edge(other, one)
    text = _label(link, weakest=weakest)
    wide = _label_width(text)
    return Markup(
        '<g class="tag{mark}"><rect x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="20" rx="6"/>'
        '<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{text}</text></g>'
    ).format(
        mark=" weakest" if weakest else "",
        left=(x + u) / 2 - wide / 2,
        top=(y + v) / 2 - 10,
        wide=wide,
        x=(x + u) / 2,
        y=(y + v) / 2 + 4.5,
        text=_short(text),
    )


def _label_width(text: str) -> float:
    return 7.2 * min(len(text), LONGEST) + 12


def _edge(place: Point, towards: Point) -> Point:
    """Where the line from the middle of a box to another point leaves the box."""
    dx, dy = towards[0] - place[0], towards[1] - place[1]
    reach = min(WIDTH / 2 / abs(dx) if dx else math.inf, HEIGHT / 2 / abs(dy) if dy else math.inf, 1.0)
    return place[0] + dx * reach, place[1] + dy * reach


def _box(key: str, place: Point) -> Markup:
    kind, head, text = named(key)
    x, y = place
    return Markup(
        '<g class="node {kind}"><title>{whole}</title>'
        '<rect x="{left:.1f}" y="{top:.1f}" width="{wide}" height="{high}" rx="{round}"/>'
        '<text x="{x:.1f}" y="{first:.1f}" text-anchor="middle" class="head">{head}</text>'
        '<text x="{x:.1f}" y="{second:.1f}" text-anchor="middle">{text}</text></g>'
    ).format(
        kind=kind, whole=legible(key), left=x - WIDTH / 2, top=y - HEIGHT / 2, wide=WIDTH, high=HEIGHT,
        round=9 if kind == "record" else 23, x=x, first=y - 5, second=y + 13, head=_short(head), text=_short(text),
    )  # fmt: skip


def named(key: str) -> tuple[str, str, str]:
    """Of a record key: its kind, its source or namespace, and what is left."""
    if key.startswith("event:"):
        namespace, _, value = key.removeprefix("event:").partition("=")
        return "identity", namespace, value
    source, _, own = key.partition(":")
    return "record", source, own


def _short(text: str) -> str:
    text = legible(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
