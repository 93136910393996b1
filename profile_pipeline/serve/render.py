"""Turns what is known into HTML: templates in which every value is escaped, isolated and made legible."""

import json
import re
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from profile_pipeline.html import environment
from profile_pipeline.profiles.nested import NESTED
from profile_pipeline.report.numbers import amount, day, legible, moment, plural, share
from profile_pipeline.serve.graph import named
from profile_pipeline.serve.masking import HIDDEN

if TYPE_CHECKING:
    from jinja2 import Environment

NOTHING = Markup('<span class="none" aria-label="no value">\N{EN DASH}</span>')
LONGEST = 2000
"""Characters of a value that are shown."""


def page(name: str, **found: Any) -> str:  # noqa: ANN401
    """A page from its template."""
    return _environment().get_template(name).render(found)


def templates() -> None:
    """Read every template."""
    for name in _environment().list_templates(extensions=["html"]):
        _environment().get_template(name)


@cache
def _environment() -> "Environment":
    made = environment("profile_pipeline.serve")
    own = (amount, day, moment, plural, share, said, shown, words, named, weight)
    made.filters |= {function.__name__: function for function in own}
    return made


def words(name: str) -> str:
    """A name of a field, table or code as words."""
    return name.replace("_", " ")


def weight(value: float) -> str:
    """A match weight, its sign always said."""
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def said(text: str | None, kind: str) -> Markup:
    """A value that lineage keeps as text, shown as one of its semantic type."""
    if kind in {"boolean", "consent"} and text in {"true", "false"}:
        return shown(text == "true")
    if kind in {"integer", "number"} and text is not None and re.fullmatch(r"-?\d{1,15}(\.\d+)?", text):
        return shown(float(text))
    return shown(_parts(text) if kind in NESTED else text)


def _parts(text: str | None) -> Any:  # noqa: ANN401
    """What the JSON text of a list or map holds; the text itself where it is none, such as a hidden value."""
    try:
        return json.loads(text or "null")
    except ValueError:
        return text


def shown(value: Any) -> Markup:  # noqa: ANN401
    """A value of a customer, of whatever type: isolated, so that its direction of writing ends where it ends."""
    if value is None or value == []:
        return NOTHING
    if value == HIDDEN:
        return Markup(
            '<span class="hidden"><span aria-hidden="true">{}</span><span class="unseen">hidden</span></span>'
        ).format(HIDDEN)
    if isinstance(value, list | tuple):
        return Markup(", ").join(shown(item) for item in value)
    if isinstance(value, dict):
        return Markup(", ").join(Markup("{}: {}").format(legible(str(k)), shown(v)) for k, v in value.items())
    return Markup('<bdi class="value">{}</bdi>').format(_text(value))


def _text(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return amount(value)
    text = value.isoformat() if isinstance(value, date) else legible(str(value))
    return text if len(text) <= LONGEST else text[:LONGEST] + "\N{HORIZONTAL ELLIPSIS}"
