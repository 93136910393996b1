"""rules/sources.yaml: what is delivered, and how its columns become profile fields and identifiers."""

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import Field, StringConstraints, model_validator

from profile_pipeline.config.model import Expression, Name, Rule

SemanticType = Literal[
    "given_name", "middle_name", "family_name", "full_name", "birth_date", "gender",
    "email", "phone", "street_address", "house_number", "city", "postcode", "region", "country",
    "national_id", "id", "category", "text", "number", "integer", "boolean", "date", "timestamp",
    "consent", "list", "map", "struct",
]  # fmt: skip
PlainType = Literal["text", "number", "integer", "boolean", "date", "timestamp"]
"""Types of the values of a map and of the fields of a list's objects: read on their own, row by row."""

Character = Annotated[str, StringConstraints(min_length=1, max_length=1, strip_whitespace=False)]
"""One character as it is: a tab is a delimiter."""


class Attribute(Rule):
    """A profile field."""

    type: SemanticType = Field(description="semantic type: how values are cleaned, compared and shown")
    description: str = Field(default="", description="what the field means, for the data dictionary")
    personal: bool = Field(default=True, description="whether values name or describe a person")
    placeholders: list[str] = Field(
        default=[], description="further values that mean 'missing' in this field"
    )
    earliest: int = Field(default=1000, description="first believable year of a birth date or date")
    sensitive: bool | None = Field(
        default=None,
        description="true: profile pages hide values until somebody asks for them; default: by its type",
    )
    match: bool | None = Field(
        default=None, description="false: never used to match records; default: by its type"
    )
    fields: "dict[Name, SemanticType | Attribute]" = Field(
        default={}, description="of a struct, its fields; of a list whose elements are objects, theirs"
    )
    atomic: bool = Field(
        default=False, description="of a struct, true: all fields come from one record; default: one by one"
    )
    values: PlainType = Field(default="text", description="of a map, the type of its values")

    @model_validator(mode="after")
    def _nested(self) -> "Attribute":
        for problem in self._nested_problems():
            raise ValueError(problem)
        return self

    def _nested_problems(self) -> Iterator[str]:
        if self.type == "struct" and not self.fields:
            yield "a struct needs `fields:`, a name and a type for each"
        if self.fields and self.type not in {"struct", "list"}:
            yield f"`fields:` belong to a struct, or to a list of objects; remove them from the {self.type}"
        if self.atomic and self.type != "struct":
            yield "`atomic:` belongs to a struct; remove it"
        if self.values != "text" and self.type != "map":
            yield "`values:` belong to a map; remove them"
        inner = {name: self.field(name).type for name in self.fields}
        for name, kind in inner.items():
            if self.type == "struct" and kind == "struct":
                yield f"`fields.{name}` is a struct inside a struct; declare its fields here, or make it a map"
            if self.type == "list" and kind not in get_args(PlainType):
                yield f"`fields.{name}` cannot be {kind} in a list; use {', '.join(get_args(PlainType))}"

    def field(self, name: str) -> "Attribute":
        """A field of a struct or of a list's objects, in its long form."""
        found = self.fields[name]
        return found if isinstance(found, Attribute) else Attribute(type=found)


class FileFormat(Rule):
    """How the bytes of a source's files are read; nothing is sniffed at run time."""

    type: Literal["csv", "jsonl", "parquet"] = Field(
        description="csv, jsonl (one object a line) or parquet; .gz and .zst are unpacked"
    )
    delimiter: Character = Field(default=",", description="character between fields")
    quote: Character = Field(default='"', description="character around fields that hold a delimiter")
    encoding: str = Field(default="utf-8", description="text encoding, for example windows-1252")
    header: bool = Field(default=True, description="whether the first line names the columns")
    max_line_bytes: int = Field(default=1_000_000, gt=0, description="a longer line is malformed")
    max_decompressed_bytes: int = Field(
        default=50_000_000_000, gt=0, description="a file that unpacks to more is refused"
    )
    max_ratio: int = Field(default=200, gt=0, description="decompressed bytes per compressed byte")


Retention = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,4} days?$")]
"""A number of days."""


class Clock(Rule):
    """Where a row's business time comes from."""

    value: Expression = Field(description="expression that gives the time as text")
    formats: list[str] = Field(
        default=["iso"],
        min_length=1,
        description="strptime patterns, iso, epoch_s or epoch_ms; nothing else is read",
    )
    zone: str = Field(default="UTC", description="IANA zone of times without an offset")


class Mapping(Rule):
    """One field of one source: its value, and when it is explicitly cleared."""

    value: Expression = Field(description="expression that gives the value as text")
    cleared: Expression | None = Field(
        default=None, description="condition under which the field is explicitly cleared"
    )
    field: Name | None = Field(
        default=None, description="take this field of the JSON object that `value` gives; default: all of it"
    )


class Event(Rule):
    """What makes a row of an event source an event."""

    id: Expression = Field(description="expression that names the event")
    type: Expression = Field(
        default="'event'", description="expression that says what happened, for example 'order' in quotes"
    )
    channel: Expression | None = Field(default=None, description="expression that says where it happened")


class Guards(Rule):
    """Limits that stop a bad delivery before it reaches the profiles."""

    max_error_share: float = Field(
        default=0.05, ge=0, le=1, description="share of refused rows that blocks publication"
    )
    min_volume_share: float = Field(
        default=0.1, ge=0, description="a delivery smaller than this share of the last one is held"
    )
    min_rows: int = Field(default=0, ge=0, description="rows a project needs of this source")
    max_drift: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="change in the filled share of a field that is reported",
    )


class Source(Rule):
    """A feed. `record`: state of a person, by key. `event`: something that happened, with a time."""

    description: str = Field(default="", description="what the feed is")
    owner: str = Field(default="", description="who answers for it, for example team:crm")
    kind: Literal["record", "event"] = Field(
        description="record: the state of a person; event: something that happened"
    )
    files: str = Field(min_length=1, description="name pattern of the deliveries, for example crm_*.csv*")
    format: FileFormat = Field(description="how the files are read")
    columns: list[str] = Field(min_length=1, description="the contract: every column that is delivered")
    optional_columns: list[str] = Field(default=[], description="columns that may be absent")
    where: Expression | None = Field(default=None, description="only these rows belong to the source")
    key: Expression | None = Field(default=None, description="names the record that a row is about")
    write: Literal["replace", "patch"] = Field(
        default="replace",
        description="replace: a row replaces the record; patch: an empty field leaves the earlier value",
    )
    delivery: Literal["changes", "full"] = Field(
        default="changes", description="full: a record absent from the newest delivery is deleted"
    )
    delete_when: Expression | None = Field(
        default=None, description="condition under which a row deletes its record"
    )
    time: Clock | None = Field(
        default=None, description="when the row was true or happened; default: the time of delivery"
    )
    dates: list[str] = Field(default=["iso"], description="the date formats that occur, nothing else")
    country: str = Field(default="", pattern=r"^([A-Z]{2})?$", description="region of national numbers")
    clear_value: str | None = Field(
        default=None,
        description="a text that clears a field; `null` in JSON lines and Parquet: an explicit null",
    )
    event: Event | None = Field(default=None, description="what makes a row an event")
    retention: Retention | None = Field(
        default=None,
        description="how long its events stay in the timeline, for example 400 days; default: for good",
    )
    attributes: dict[Name, Mapping | Expression] = Field(
        default={}, description="profile field to expression"
    )
    identifiers: dict[Name, Expression] = Field(default={}, description="namespace to expression")
    one_per_person: bool = Field(default=False, description="holds at most one record a person")
    matching: bool = Field(default=True, description="its records take part in probabilistic matching")
    survivorship: bool = Field(default=True, description="its values may win a field")
    guards: Guards = Field(default=Guards(), description="limits that stop a bad delivery")

    @model_validator(mode="after")
    def _complete(self) -> "Source":
        if self.kind == "record" and not self.key:
            raise ValueError("a record source needs `key:`, the expression that names a record")
        if self.kind == "event" and not (self.event and self.time):
            raise ValueError("an event source needs `event: {id: ...}` and `time:`")
        if self.kind == "event" and self.attributes and not self.key:
            raise ValueError("an event source with attributes needs `key:`, the customer they describe")
        if self.kind == "record" and self.retention:
            raise ValueError("`retention:` is for event sources; a record stays until it is deleted")
        if not (self.key or self.identifiers):
            raise ValueError("without `identifiers:` nobody can be found behind these events")
        return self

    @property
    def retention_days(self) -> int | None:
        """Days that events stay in the timeline; None: for good."""
        return int(self.retention.split()[0]) if self.retention else None

    def mapping(self, field: str) -> Mapping:
        """The mapping of a field in its long form."""
        found = self.attributes[field]
        return found if isinstance(found, Mapping) else Mapping(value=found)


class SourceRules(Rule):
    """The whole of rules/sources.yaml."""

    attributes: dict[Name, Attribute] = Field(default={}, description="every field a profile can have")
    sources: dict[Name, Source] = Field(default={}, description="the feeds, by name")
