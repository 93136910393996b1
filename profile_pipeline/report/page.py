"""Pages out of facts: templates with every value escaped, one style sheet inside the page, nothing else.

The page forbids itself whatever it does not need: its policy lets the browser apply this very style sheet and load nothing.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

from profile_pipeline.html import environment
from profile_pipeline.report import charts, numbers, pictures
from profile_pipeline.report.facts import Facts
from profile_pipeline.report.verdict import judge

if TYPE_CHECKING:
    from jinja2 import Environment

    from profile_pipeline.report.start import Step


def report_page(facts: Facts) -> str:
    """The report of a generation as one HTML file; the same facts always give the same bytes."""
    template = _environment().get_template("report.html")
    return template.render(
        facts=facts, about=facts.about, now=facts.now, verdict=judge(facts), charts=charts, **_common()
    )


def start_page(steps: "Sequence[Step]", problems: Sequence[str], documentation: str) -> str:
    """The page before the first generation; `documentation` is where its links lead, if anywhere."""
    following = next((step.title for step in steps if not (step.done or step.optional)), steps[-1].title)
    template = _environment().get_template("start.html")
    return template.render(
        steps=steps, problems=problems, documentation=documentation, next=following, **_common()
    )


@cache
def _environment() -> "Environment":
    found = environment("profile_pipeline.report")
    found.filters |= {name: getattr(numbers, name) for name in numbers.FILTERS}
    found.filters["breakable"] = _breakable
    return found


def _breakable(name: str) -> Markup:
    """A name that may be broken after an underscore, where a line is too short for it."""
    return Markup("_<wbr>").join(numbers.legible(name).split("_"))


@cache
def _common() -> dict[str, object]:
    """What every page uses besides its facts."""
    style = (files("profile_pipeline.report") / "templates" / "report.css").read_text(encoding="utf-8")
    return {"bar": pictures.bar, "style": Markup(style), "style_hash": _hash(style)}  # noqa: S704  our own file


def _hash(style: str) -> str:
    """The source expression by which a content security policy knows one inline style sheet."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
