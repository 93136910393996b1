"""rules/audiences.yaml: sets of profiles, each a tree of conditions, a SQL condition, or a delivered list."""

from datetime import date, datetime
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from profile_pipeline.config.model import Expression, Name, Rule

NO_CONSENT = "none"
Duration = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,4} (minute|hour|day|week|month|year)s?$")]
EventType = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""An event type as the source delivers it, or `any`."""
Value = bool | int | float | date | datetime | str
KINDS = {
    "all": "all_of", "any": "any_of", "not": "not_", "field": "field", "event": "event", "sequence": "sequence",
    "audience": "audience", "external": "external",
}  # fmt: skip
"""Keys of which a condition has one, and what they are called here; a `where` alone is one more."""
COUNTS = ("at_least", "at_most")
COMPARISONS = {
    "is": "is_", "is_not": "is_not", "in": "in_", "not_in": "not_in", "above": "above", "at_least": "at_least",
    "below": "below", "at_most": "at_most", "between": "between", "contains": "contains", "missing": "missing",
    "present": "present", "within_days": "within_days",
}  # fmt: skip
EVENT_KEYS = ("source", "channel", "absent", "within", "not_for")


class Step(Rule):
    """One event of a sequence, or its absence, after the step before it."""

    event: EventType = Field(description="event type, or `any`")
    source: Name | None = Field(default=None, description="only events of this source")
    channel: str | None = Field(default=None, description="only events of this channel")
    where: Expression | None = Field(default=None, description="DuckDB condition over the event")
    absent: bool = Field(default=False, description="no such event, until the next step, or until now")
    within: Duration | None = Field(
        default=None,
        description="this long after the last event before it; for an absence at the end: this long has passed",
    )
    or_late: bool = Field(
        default=False,
        description="an absence at the end: an event later than `within` does not count against it",
    )


class External(Rule):
    """A list of identifiers delivered as CSV files into data/audiences."""

    files: str = Field(
        min_length=1, description="file name or pattern below data/audiences, for example vip_*.csv"
    )
    column: str = Field(min_length=1, description="column that holds the identifier")
    namespace: Name = Field(description="what kind of identifier it is, as in identity.yaml")
    country: str = Field(default="", pattern=r"^([A-Z]{2})?$", description="region of national phone numbers")
    delimiter: str = Field(default=",", min_length=1, max_length=1, description="what separates columns")


class Condition(Rule):
    """One condition: a tree of conditions, or something about a field, events, a sequence or another audience.

    What cannot be told counts as no, so `not` of it is yes.
    """

    all_of: list["Condition"] | None = Field(
        default=None, alias="all", min_length=1, description="every one holds"
    )
    any_of: list["Condition"] | None = Field(
        default=None, alias="any", min_length=1, description="at least one holds"
    )
    not_: "Condition | None" = Field(default=None, alias="not", description="it does not hold")
    where: Expression | None = Field(
        default=None,
        description="DuckDB condition over the profile, its computed attributes and as_of; with `event`: over the event",
    )
    field: Name | None = Field(default=None, description="a profile field or computed attribute to compare")
    is_: Value | list[Value] | None = Field(default=None, alias="is", description="field: equal to")
    is_not: Value | None = Field(default=None, description="field: known, and something else")
    in_: list[Value] | None = Field(
        default=None, alias="in", min_length=1, description="field: one of; of a list: any of"
    )
    not_in: list[Value] | None = Field(default=None, min_length=1, description="field: known, and none of")
    above: Value | None = Field(default=None, description="field: more than")
    at_least: Value | None = Field(
        default=None, description="field: this or more; event: so many (default 1)"
    )
    below: Value | None = Field(default=None, description="field: less than")
    at_most: Value | None = Field(
        default=None, description="field: this or less; event: at most so many, or none"
    )
    between: list[Value] | None = Field(
        default=None,
        min_length=2,
        max_length=2,
        description="field: from the first to the second, both included",
    )
    contains: Value | None = Field(
        default=None,
        description="field: a list with this element, or a text with this part (letter case aside)",
    )
    missing: bool | None = Field(default=None, description="field: has no value")
    present: bool | None = Field(default=None, description="field: has a value")
    within_days: int | None = Field(
        default=None, ge=1, le=40000, description="field: a time not older than so many days"
    )
    event: EventType | None = Field(default=None, description="event type that happened, or `any`")
    source: Name | None = Field(default=None, description="event: only those of this source")
    channel: str | None = Field(default=None, description="event: only those of this channel")
    absent: bool = Field(default=False, description="event: none")
    within: Duration | None = Field(
        default=None,
        description="event or sequence: only events of this long before the as-of time, e.g. 30 days",
    )
    not_for: Duration | None = Field(
        default=None, description="event: happened at least once, but not for this long"
    )
    sequence: list[Step] | None = Field(
        default=None,
        min_length=2,
        description="events one after the other, and absences between or after them",
    )
    audience: Name | None = Field(default=None, description="is a member of this audience")
    external: External | None = Field(default=None, description="is on a delivered list")

    @property
    def kind(self) -> str:
        """The key that says what it is about."""
        return next((key for key, name in KINDS.items() if getattr(self, name) is not None), "where")

    @model_validator(mode="after")
    def _one_kind(self) -> "Condition":
        given = [key for key, name in KINDS.items() if getattr(self, name) is not None]
        if self.where and given != ["event"]:
            given.append("where")
        if len(given) != 1:
            found = " and ".join(f"`{key}:`" for key in given) or "none of them"
            raise ValueError(
                f"has {found}; write one of all, any, not, field, event, sequence, audience, external, where"
            )
        self._refuse_strangers()
        return self

    def _refuse_strangers(self) -> None:
        """Keys that belong to another kind."""
        own = {"field": [*COMPARISONS], "event": [*EVENT_KEYS, *COUNTS], "sequence": ["within"]}.get(
            self.kind, []
        )
        known = {**COMPARISONS, **{key: key for key in EVENT_KEYS}}
        for key, name in known.items():
            if key not in own and getattr(self, name) not in (None, False):
                raise ValueError(f"`{key}:` is not for `{self.kind}:`; remove it")

    @model_validator(mode="after")
    def _of_field(self) -> "Condition":
        given = [key for key, name in COMPARISONS.items() if getattr(self, name) is not None]
        if self.kind == "field" and not given:
            raise ValueError(f"`field:` needs a comparison; write one of {', '.join(COMPARISONS)}")
        if self.missing is False or self.present is False:
            raise ValueError("write `missing: true` or `present: true`")
        return self

    @model_validator(mode="after")
    def _of_event(self) -> "Condition":
        if self.kind != "event":
            return self
        counts = [getattr(self, key) for key in COUNTS if getattr(self, key) is not None]
        if any(type(n) is not int or n < 0 for n in counts):
            raise ValueError("`at_least:` and `at_most:` of events are whole numbers")
        if (self.absent or self.not_for) and (counts or (self.absent and self.not_for)):
            raise ValueError("write one of at_least or at_most, absent, not_for")
        if self.not_for and self.within:
            raise ValueError("`not_for:` looks at all events; remove `within:`")
        return self

    @model_validator(mode="after")
    def _of_sequence(self) -> "Condition":
        steps = self.sequence or []
        if steps and (steps[0].absent or steps[0].within):
            raise ValueError("the first step is an event, without `absent:` and `within:`")
        for number, step in enumerate(steps):
            if step.or_late and not (step.absent and step.within and all(s.absent for s in steps[number:])):
                raise ValueError("`or_late:` is for an absence at the end that has `within:`; remove it")
        return self


class Audience(Condition):
    """Profiles that satisfy a condition, with the consent that the purpose asks for."""

    description: str = Field(default="", description="who is meant")
    purpose: Name | None = Field(
        default=None, description="one of consent.purposes; default: the consent of consent.default is needed"
    )
    consent: Name | None = Field(default=None, description="one more consent field that must be true")


class Consent(Rule):
    """Which consent field must be true for a profile to be in an audience, whatever its condition says."""

    default: Name = Field(
        default=NO_CONSENT,
        description="field for audiences without a purpose, or `none`: they need no consent",
    )
    purposes: dict[Name, Name] = Field(
        default={}, description="field for each purpose, or `none`: that purpose needs no consent"
    )


class AudienceRules(Rule):
    """The whole of rules/audiences.yaml."""

    consent: Consent = Field(default=Consent(), description="consent that is always applied")
    audiences: dict[Name, Audience] = Field(default={}, description="audiences, by name")

    def consents(self, name: str) -> list[str]:
        """The consent fields that members of an audience must have given, the one of the purpose first."""
        audience = self.audiences[name]
        needed = self.consent.purposes[audience.purpose] if audience.purpose else self.consent.default
        own = [audience.consent] if audience.consent else []
        return list(dict.fromkeys([*([] if needed == NO_CONSENT else [needed]), *own]))
