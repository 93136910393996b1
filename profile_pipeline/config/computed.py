"""rules/computed.yaml: attributes that are worked out from the events and records of a profile, and from one another."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from profile_pipeline.config.model import Expression, Name, Rule

ValueType = Literal["text", "integer", "number", "boolean", "date", "timestamp", "list"]
"""number: decimal of six places while it is added up, so that the order of events never shows; list: of texts."""
Compute = Literal[
    "count", "sum", "average", "min", "max", "percentile", "first", "last", "last_values", "most_frequent", "distinct",
    "distinct_values", "ratio", "recency", "rfm",
]  # fmt: skip
WITHOUT_VALUE = {"count", "recency"}
NUMBERS = {"sum", "average", "percentile", "rfm"}
"""Shortcuts whose value is a number unless it says `type: integer`."""
BELONGS_TO = {"n": "last_values", "at": "percentile", "part": "ratio", "of": "ratio"}
"""Keys that one shortcut only understands."""
Window = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,4} (minute|hour|day|week|month|year)s?$")]


class EventColumn(Rule):
    """A value of an event that conditions and values may name, so that it is written once."""

    value: Expression = Field(
        description="DuckDB expression over the columns of the timeline, such as payload ->> '$.total'"
    )
    type: ValueType = Field(description="what it is read as; what cannot be read counts as missing")
    description: str = Field(default="", description="what it means")


class ComputedAttribute(Rule):
    """One value a profile: a shortcut (`compute`), a DuckDB aggregate, or an expression over other attributes."""

    description: str = Field(default="", description="what it means, for the data dictionary")
    personal: bool = Field(default=True, description="whether values describe a person")
    compute: Compute | None = Field(default=None, description="a shortcut: what is made of the rows")
    aggregate: Expression | None = Field(
        default=None, description="instead of a shortcut: a DuckDB aggregate, such as stddev(amount)"
    )
    expression: Expression | None = Field(
        default=None,
        description="instead of rows: DuckDB expression over profile fields, computed attributes and as_of",
    )
    type: ValueType | None = Field(
        default=None, description="what `value` is read as, or what an aggregate or expression gives"
    )
    over: Literal["events", "records"] = Field(
        default="events", description="rows it looks at: those of the timeline, or current source records"
    )
    sources: list[Name] | None = Field(
        default=None, min_length=1, description="only rows of these sources; default: all"
    )
    where: Expression | None = Field(default=None, description="only rows for which this condition holds")
    within: Window | None = Field(
        default=None,
        description="only rows of this long before the as-of time of the newest batch, for example 90 days",
    )
    value: Expression | None = Field(default=None, description="DuckDB expression over a row")
    n: int | None = Field(default=None, ge=1, le=1000, description="last_values: how many")
    at: float | None = Field(default=None, ge=0, le=1, description="percentile: 0.5 is the median")
    part: Expression | None = Field(
        default=None, description="ratio: condition of the rows counted as part of those that `where` finds"
    )
    of: list[Name] | None = Field(
        default=None, min_length=2, max_length=2, description="ratio: two attributes, the first by the second"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "ComputedAttribute":
        given = [key for key in ("compute", "aggregate", "expression") if getattr(self, key)]
        if len(given) != 1:
            raise ValueError("write one of `compute:`, `aggregate:` and `expression:`")
        if given != ["compute"] and not self.type:
            raise ValueError(f"`{given[0]}:` needs `type:`, what it gives")
        if self.derived:
            _refuse(self, ("sources", "where", "within"), "looks at attributes, not at rows")
        if self.aggregate or self.expression:
            _refuse(self, ("value",), f"is part of `{given[0]}:`")
        return self

    @model_validator(mode="after")
    def _keys_of_shortcut(self) -> "ComputedAttribute":
        for key, owner in BELONGS_TO.items():
            if self.compute != owner:
                _refuse(self, (key,), f"is for `compute: {owner}`")
        if self.compute == "last_values" and not self.n:
            raise ValueError("`last_values` needs `n:`, how many")
        if self.compute == "percentile" and self.at is None:
            raise ValueError("`percentile` needs `at:`, 0.5 for the median")
        return self._of_ratio() if self.compute == "ratio" else self._of_value()

    def _of_value(self) -> "ComputedAttribute":
        if self.compute in WITHOUT_VALUE:
            _refuse(self, ("value", "type"), f"is not for `compute: {self.compute}`")
        elif self.compute and not self.value:
            raise ValueError(f"`{self.compute}` needs `value:`, an expression over a row")
        if self.compute in NUMBERS and self.type not in {None, "integer", "number"}:
            raise ValueError(f"`{self.compute}` is for numbers; write `type: number`")
        if self.compute and self.type == "list":
            raise ValueError("a list is what an aggregate or expression gives; write the type of one value")
        return self

    def _of_ratio(self) -> "ComputedAttribute":
        if bool(self.part) == bool(self.of):
            raise ValueError(
                "`ratio` needs `part:`, a condition, or `of: [attribute, attribute]`; write one of them"
            )
        _refuse(self, ("value", "type"), "is not for `compute: ratio`")
        return self

    @property
    def derived(self) -> bool:
        """Whether it is made of other attributes, not of rows."""
        return bool(self.expression or self.of)

    @property
    def value_type(self) -> ValueType:
        """What its value is read as, or what it gives."""
        return self.type or ("number" if self.compute in NUMBERS else "text")


def _refuse(attribute: ComputedAttribute, keys: tuple[str, ...], why: str) -> None:
    for key in keys:
        if getattr(attribute, key) is not None:
            raise ValueError(f"`{key}:` {why}; remove it")


class ComputedRules(Rule):
    """The whole of rules/computed.yaml."""

    event_columns: dict[Name, EventColumn] = Field(
        default={}, description="values of events that several attributes look at, by name"
    )
    attributes: dict[Name, ComputedAttribute] = Field(default={}, description="computed attributes, by name")
