"""What pages and JSON ask in the same way, with the row in the audit file that each look needs."""

from collections.abc import Sequence

from profile_pipeline.serve.desk import Desk
from profile_pipeline.serve.masking import Masks
from profile_pipeline.serve.portrait import Portrait, portrait, successor
from profile_pipeline.serve.questions import Question
from profile_pipeline.serve.search import Hit, find
from profile_pipeline.serve.shelf import Published

LONGEST_ID = 100


def searched(desk: Desk, published: Published, text: str) -> list[Hit]:
    """Profiles behind a text; each of them is noted as listed."""
    found = find(published, text)
    desk.audit.note("listed", [hit.profile_id for hit in found], "search")
    return found


def seen(
    desk: Desk,
    published: Published,
    profile_id: str,
    policy: str | None = None,
    why: str = "",
    *,
    revealed: bool = False,
) -> Portrait:
    """A profile, after a row in the audit file that somebody looked at it."""
    found = portrait(published, profile_id, policy, Masks(published.config, revealed))
    desk.audit.note("revealed" if revealed else "viewed", [profile_id], why)
    return found


def moved_to(published: Published, profile_id: str) -> str | None:
    """The living id behind a retired one."""
    if len(profile_id) > LONGEST_ID:
        return None
    with published.read() as con:
        return successor(con, profile_id)


def compared(desk: Desk, found: Sequence[Question]) -> None:
    """Note the profiles whose records were shown side by side."""
    for question in found:
        sides = {question.facts["left_profile_id"], question.facts["right_profile_id"]}
        desk.audit.note("compared", sorted(sides - {None}), f"review {question.item_id}")
