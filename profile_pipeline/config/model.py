"""The base of every rule model, and the few types that rule files share."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
"""A name we turn into a table or column: lower case letters, digits and underscores."""

Expression = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
"""A DuckDB expression over the columns of a source."""

Severity = Literal["critical", "error", "warning"]
"""critical blocks publication, error quarantines the row, warning only reports."""


class Rule(BaseModel):
    """A part of a rule file: frozen, and unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty_keys(cls, data: Any) -> Any:  # noqa: ANN401
        """A key with nothing behind it has its default, as if it were not there."""
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data
