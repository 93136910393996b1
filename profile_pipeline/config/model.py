"""The base of every rule model, and the few types that rule files share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
"""A name we turn into a table or column: lower case letters, digits and underscores."""

Expression = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
"""A DuckDB expression over the columns of a source."""

Severity = Literal["critical", "error", "warning"]
"""critical blocks publication, error quarantines the row, warning only reports."""


class Rule(BaseModel):
    """A part of a rule file: frozen, and unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)
