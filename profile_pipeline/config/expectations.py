"""rules/expectations/<schema>.<table>.yaml: Great Expectations suites, one file a table."""

from typing import Any

from pydantic import Field

from profile_pipeline.config.model import Name, Rule, Severity


class Expectation(Rule):
    """One Great Expectations expectation, by its snake_case type, with our severity."""

    name: Name | None = Field(default=None, description="default: type and column")
    type: str = Field(
        pattern=r"^expect_[a-z0-9_]+$", description="snake_case name of a Great Expectations expectation"
    )
    kwargs: dict[str, Any] = Field(default={}, description="its arguments")
    severity: Severity = Field(
        default="warning",
        description="critical blocks publication, error quarantines the row, warning only reports",
    )
    notes: str = Field(default="", description="why it matters, shown with the result")

    @property
    def label(self) -> str:
        """The name of the check in the Dagster UI."""
        column = self.kwargs.get("column") or "_".join(self.kwargs.get("column_list", []))
        return self.name or "_".join(filter(None, [self.type.removeprefix("expect_"), column]))


class Suite(Rule):
    """The expectations of one table."""

    expectations: list[Expectation] = Field(min_length=1, description="what must hold of the table")
