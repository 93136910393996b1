"""HTML from templates, for the report and the profile pages alike: every value is escaped and legible.

What a page says, and how numbers read (`report.numbers`), belongs to those who write pages.
"""

from typing import TYPE_CHECKING

from profile_pipeline.report.numbers import legible

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(package: str) -> "Environment":
    """The templates of a package. A name that is not there is an error, not an empty place."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_legible,
    )


def _legible(value: object) -> object:
    """Text of people's own making loses control and direction characters; markup of ours stays as it is."""
    return legible(value) if type(value) is str else value
