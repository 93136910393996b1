"""`explain`: why a profile shows its values and is one person, in words and numbers. It shows personal data."""

from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from profile_pipeline import display
from profile_pipeline.cli.shell import AsJson, ProjectFolder, as_json, chosen, console, opened, plain_errors
from profile_pipeline.config.load import load_config

if TYPE_CHECKING:
    from profile_pipeline.explain import Explanation, Link, Member, RejectedLink

MIDDLE_DOT = " \u00b7 "
Profile = Annotated[
    str,
    typer.Argument(metavar="PROFILE", help="Profile id, active or retired, record key or any identifier."),
]


def explain(
    profile: Profile,
    policy: Annotated[
        str | None, typer.Option(help="Merge policy of the values; default: the default one.")
    ] = None,
    project: ProjectFolder = None,
    json_output: AsJson = False,
) -> None:
    """Why a profile shows its values, and is one person: records, links, links that do not hold, limits, history."""
    with plain_errors():
        from profile_pipeline.explain import explain as explain_profile

        where = chosen(project)
        with opened(where) as con:
            found = explain_profile(con, load_config(where.rules), profile, policy)
        if json_output:
            as_json(asdict(found))
        else:
            _show(found)


def _show(found: "Explanation") -> None:
    via = "" if found.asked.lower() == found.profile_id else f" (found by {found.asked})"
    console.print(Text(f"profile {found.profile_id}{via}", style="bold"), soft_wrap=True)
    _heading(f"values under policy {found.policy}, and why")
    display.reasons(console, found.values)
    _show_records(found.records)
    _show_tree(found)
    _show_rejected(found)
    _heading("limits and set-aside values that acted")
    for words in found.constraints or ("none",):
        console.print(Text(words))
    _show_history(found)


def _heading(text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"))


def _show_records(records: "tuple[Member, ...]") -> None:
    _heading("records, as matching sees them")
    shown = Table(box=None, pad_edge=False, show_header=False)
    for member in records:
        shown.add_row(Text(member.record_key, overflow="fold"), Text(_values(member)))
    console.print(shown)


def _values(member: "Member") -> str:
    said = [str(value) for value in member.values.values()]
    ids = [
        f"{space} {value}"
        for space, values in member.identifiers.items()
        for value in values
        if value not in said
    ]
    return MIDDLE_DOT.join([*said, *ids])


# ---------------------------------------------------------------- the tree


def _show_tree(found: "Explanation") -> None:
    """The spanning tree from the record with most links; while changes wait, there may be more than one."""
    if not found.links:
        _heading("one record by itself: no link")
        return
    _heading("what makes them one person")
    beside: dict[str, list[Link]] = defaultdict(list)
    for link in found.links:
        beside[link.left_key].append(link)
        beside[link.right_key].append(link)
    left = {member.record_key for member in found.records}
    while left:
        root = min(left, key=lambda key: (-len(beside[key]), key))
        console.print(_grown(root, beside, left))


def _grown(root: str, beside: "dict[str, list[Link]]", left: set[str]) -> Tree:
    """The tree around a record; takes what it reaches out of `left`."""
    tree = Tree(Text(root, style="bold"))
    left.discard(root)
    reached = [(root, tree)]
    for key, branch in reached:
        for link in beside[key]:
            other = link.right_key if link.left_key == key else link.left_key
            if other in left:
                left.discard(other)
                reached.append((other, branch.add(_link_text(other, link))))
    return tree


def _link_text(other: str, link: "Link") -> Text:
    weight = f"  match weight {link.score.weight:.1f}" if link.score else ""
    return Text.assemble((other, "bold"), weight, "\n", (link.evidence, "dim"))


# ---------------------------------------------------------------- what does not hold, and what happened


def _show_rejected(found: "Explanation") -> None:
    """The strongest link to each other profile; `--json` has the others too."""
    shown_of = f"the {len(found.rejected)} of most weight of {found.rejected_count}"
    more = f" ({shown_of})" if found.rejected_count > len(found.rejected) else ""
    _heading(f"links that do not hold{more}")
    if not found.rejected:
        console.print("none")
    others: dict[str, list[RejectedLink]] = defaultdict(list)
    for link in found.rejected:
        others[link.other_profile_id or link.other_key].append(link)
    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column(justify="right")
    for strongest, *weaker in others.values():
        weight = "" if strongest.match_weight is None else f"{strongest.match_weight:.1f}"
        shown.add_row(weight, _rejected_text(strongest, len(weaker)))
    console.print(shown)


def _rejected_text(link: "RejectedLink", weaker: int) -> Text:
    whose = f"{link.own_key} and {link.other_key} of {link.other_profile_id or 'no profile'}"
    reason = link.reason + (f" (and {weaker} weaker with it)" if weaker else "")
    evidence = [("\n" + link.evidence, "dim")] if link.evidence else []
    return Text.assemble(whose, "\n", (reason, "yellow"), *evidence)


def _show_history(found: "Explanation") -> None:
    _heading("what happened to the id")
    rows = [_event(row, found.profile_id) for row in found.history["events"]]
    display.table(console, ["as of", "event", "other profile", "records", "cause"], rows)
    if pin := found.history["pin"]:
        console.print(Text(f"pinned to {pin['record_key']} by {pin['author']}: {pin['reason']}"))


def _event(row: dict[str, Any], profile_id: str) -> tuple[Any, ...]:
    own = row["profile_id"] == profile_id
    return (
        row["as_of"] and row["as_of"].date(),
        row["event"] if own else f"{row['event']} from",
        row["other_profile_id"] if own else row["profile_id"],
        row["record_count"] if own else None,
        (row["cause"] or "").replace("_", " "),
    )
