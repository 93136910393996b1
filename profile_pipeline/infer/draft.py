"""The draft of a source: what has been decided about it so far, and what is asked."""

from dataclasses import dataclass, field

from profile_pipeline.config.sources import SemanticType
from profile_pipeline.infer.files import Feed
from profile_pipeline.infer.meaning import Meaning

OPEN = "?"
"""The value of a key whose question is not answered yet."""
WHO: set[SemanticType] = {
    "given_name",
    "family_name",
    "full_name",
    "birth_date",
    "street_address",
    "postcode",
}
"""Fields that say who somebody is."""


@dataclass(frozen=True)
class Question:
    """Something only a person can know. `key` is the key below the source that holds `?` until it is answered."""

    key: str
    text: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Field:
    """An attribute that the source fills."""

    attribute: str
    type: SemanticType
    expression: str
    meaning: Meaning
    matched: bool | None = None


@dataclass
class Plan:
    """Everything the YAML of one source says."""

    name: str
    feed: Feed
    meanings: list[Meaning]
    where: str | None = None
    kind: str = "record"
    key: str | None = None
    time: Meaning | None = None
    event_id: str | None = None
    event_type: str | None = None
    channel: str | None = None
    write: str = "replace"
    country: str = ""
    clear_value: str | None = None
    delete_hint: str | None = None
    dates: list[str] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    identifiers: dict[str, str] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
