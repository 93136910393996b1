"""rules/profiles.yaml: merge policies, which value of which record a profile shows."""

from typing import Literal

from pydantic import Field, model_validator

from profile_pipeline.config.model import Name, Rule

Choice = Literal[
    "source_priority", "most_recent", "least_recent", "most_frequent", "most_complete",
    "longest", "shortest", "minimum", "maximum", "most_precise", "most_restrictive",
]  # fmt: skip
DEFAULT_CHOICE: list[Choice] = ["most_recent", "source_priority"]


class FieldRule(Rule):
    """Survivorship of one field: rules in order, the next decides what the one before left tied."""

    choose: list[Choice] = Field(
        min_length=1, description="rules in order; the next decides what the one before left tied"
    )
    sources: dict[Name, int] | None = Field(default=None, description="source ranks for this field")


class Group(Rule):
    """Fields that come from one record together, such as an address."""

    fields: list[Name] = Field(min_length=2, description="fields that come from one record together")
    choose: list[Choice] = Field(
        default=["most_complete", "most_recent", "source_priority"],
        description="rules that choose the record",
    )


class Policy(Rule):
    """A named merge policy. `method` is a short form: time_ordered or dataset_precedence."""

    version: int = Field(
        default=1,
        ge=1,
        description="raise it with every change: profiles say by which version they were made",
    )
    description: str = Field(default="", description="what the policy is for")
    method: Literal["per_field", "time_ordered", "dataset_precedence"] = Field(
        default="per_field", description="per_field, or a short form: time_ordered, dataset_precedence"
    )
    clock: Literal["business", "ingestion"] = Field(
        default="business", description="business: the row's own time; ingestion: the time of delivery"
    )
    sources: dict[Name, int] = Field(default={}, description="lower wins")
    unlisted: Literal["last", "exclude"] = Field(
        default="last", description="what a source without a rank contributes"
    )
    choose: list[Choice] = Field(
        default=DEFAULT_CHOICE, description="rules for fields without one of their own"
    )
    groups: dict[Name, Group] = Field(
        default={}, description="fields that come from one record together, by name"
    )
    fields: dict[Name, FieldRule] = Field(default={}, description="rules of single fields")

    @model_validator(mode="after")
    def _one_method(self) -> "Policy":
        if self.method != "per_field" and (self.fields or self.groups):
            raise ValueError(f"method {self.method} takes no fields or groups; use method: per_field")
        if self.method == "dataset_precedence" and not self.sources:
            raise ValueError("dataset_precedence needs `sources:` with a rank for each")
        return self

    def choices(self, field: str) -> list[Choice]:
        """The rules that decide a field, in order."""
        if self.method == "time_ordered":
            return ["most_recent"]
        if self.method == "dataset_precedence":
            return ["source_priority", "most_recent"]
        if field in self.fields:
            return self.fields[field].choose
        return self.choose

    def ranks(self, field: str) -> dict[str, int]:
        """Source ranks that hold for a field; lower wins."""
        own = self.fields[field].sources if field in self.fields else None
        return dict(own if own is not None else self.sources)

    def group_of(self, field: str) -> str | None:
        """The locked group a field belongs to, or None."""
        return next((name for name, group in self.groups.items() if field in group.fields), None)


class ProfileRules(Rule):
    """The whole of rules/profiles.yaml."""

    default: Name = Field(description="the policy that audiences and lookups use")
    policies: dict[Name, Policy] = Field(min_length=1, description="merge policies, by name")
    future_tolerance_minutes: int = Field(
        default=1440, ge=0, description="how far a row's time may be ahead of its delivery"
    )
