"""rules/profiles.yaml: merge policies, which value of which record a profile shows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from profile_pipeline.config.model import Expression, Name, Rule

Choice = Literal[
    "source_priority", "trust", "weighted_vote", "most_recent", "least_recent", "most_frequent", "most_complete",
    "first_non_null", "valid", "unanimous_or_null", "longest", "shortest", "minimum", "maximum", "most_precise",
    "most_restrictive", "custom",
]  # fmt: skip
DEFAULT_CHOICE: list[Choice] = ["most_recent", "source_priority"]
Keep = Literal["one", "list", "union", "append"]
OPPOSITES = ({"most_recent", "least_recent"}, {"longest", "shortest"}, {"minimum", "maximum"})
"""Where one of two is tied the other is as well."""
CLOCKS = {
    ("observed_at", "ingested_at"): "business",
    ("ingested_at",): "ingestion",
    ("observed_at",): "observed",
}
"""What a list of times means; the names on the right are the short forms."""
ADOBE = {"clock": "ingestion", "unlisted": "exclude", "clears": "ignore"}
METHODS_OF_ADOBE = ("time_ordered", "dataset_precedence")
ASKED_BY = {"trust": {"trust", "weighted_vote"}, "decay": {"trust"}, "custom": {"custom"}}
"""Options, and the rules that ask for them."""
Score = Annotated[float, Field(ge=0, le=1)]


def _clock(value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, list):
        return value
    found = CLOCKS.get(tuple(map(str, value)))
    if not found:
        raise ValueError("no such order of times; write [observed_at, ingested_at], or one of the two")
    return found


Clock = Annotated[
    Literal["business", "ingestion", "observed"],
    BeforeValidator(_clock),
    WithJsonSchema({
        "anyOf": [
            {"enum": ["business", "ingestion", "observed"], "type": "string"},
            {"enum": [list(times) for times in CLOCKS], "type": "array"},
        ]
    }),
]  # fmt: skip


@dataclass(frozen=True)
class Ranking:
    """What orders the candidates of a field or of a group, complete: nothing is inherited any more.

    `when` are branches of (condition, rules), the first that holds counts; `choose` ranks those for which none does.
    """

    choose: tuple[str, ...]
    sources: tuple[tuple[str, int], ...] = ()
    trust: tuple[tuple[str, float], ...] = ()
    half_life_days: float | None = None
    zero_after_days: float | None = None
    custom: str | None = None
    when: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def rules(self) -> set[str]:
        """Every rule named anywhere."""
        return {*self.choose, *(rule for _, choose in self.when for rule in choose)}


class Decay(Rule):
    """How trust in a source fades with the age of its value; the age is taken at the time of the newest batch."""

    half_life_days: float | None = Field(default=None, gt=0, description="days in which trust halves")
    zero_after_days: float | None = Field(
        default=None, gt=0, description="days in which trust falls to nothing, in a straight line"
    )

    @model_validator(mode="after")
    def _one_curve(self) -> "Decay":
        if (self.half_life_days is None) == (self.zero_after_days is None):
            raise ValueError("needs one curve; write `half_life_days:` or `zero_after_days:`")
        return self


class Branch(Rule):
    """Rules for the candidates for which a condition holds, or with `else` for all others."""

    condition: Expression | None = Field(
        default=None, alias="if", description="condition over a candidate, such as source = 'crm'"
    )
    choose: list[Choice] | None = Field(default=None, min_length=1, description="rules in order")
    otherwise: list[Choice] | None = Field(
        default=None, alias="else", min_length=1, description="rules in order for all other candidates"
    )

    @model_validator(mode="after")
    def _one_form(self) -> "Branch":
        filled = (self.condition is not None, self.choose is not None, self.otherwise is not None)
        if filled not in {(True, True, False), (False, False, True)}:
            raise ValueError("write `if:` with `choose:`, or `else:` by itself")
        return self


class _Options(Rule):
    """What rules need to know, and may be said for a policy, a group or a field."""

    trust: dict[Name, Score] | None = Field(
        default=None, description="score of each source, 0 to 1, for the rules trust and weighted_vote"
    )
    decay: Decay | None = Field(default=None, description="how trust fades with the age of a value")
    custom: Expression | None = Field(
        default=None, description="ranking expression of the rule custom, over a candidate; lower wins"
    )


class FieldRule(_Options):
    """Survivorship of one field: rules in order, the next decides what the one before left tied."""

    choose: list[Choice] | None = Field(
        default=None,
        min_length=1,
        description="rules in order; the next decides what the one before left tied",
    )
    sources: dict[Name, int] | None = Field(default=None, description="source ranks for this field")
    when: list[Branch] | None = Field(
        default=None, min_length=1, description="rules by condition; candidates of an earlier one come first"
    )
    keep: Keep = Field(
        default="one",
        description="one value; or a list of distinct values; or, of lists and maps, the union of all; or, of lists,"
        " one after the other",
    )
    max: int | None = Field(default=None, ge=1, description="how many values a list keeps; default: all")
    key: Name | None = Field(
        default=None,
        description="of a union of lists of objects: the field that names an element; the best record's one is kept",
    )
    primary: list[Choice] | None = Field(
        default=None, min_length=1, description="rules that order a list; its first is the field's value"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "FieldRule":
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        named = {*(self.choose or ()), *(self.primary or ())}
        if not self.model_fields_set:
            yield "says nothing; add `choose:`"
        if self.keep == "one" and (self.max or self.primary):
            yield "`max` and `primary` belong to a list; add `keep: list`"
        if self.key and self.keep != "union":
            yield "`key` tells the elements of united lists apart; add `keep: union`"
        if self.choose and self.primary:
            yield "`choose` and `primary` both order the list; keep one of them"
        if self.keep != "one" and "unanimous_or_null" in named:
            yield "unanimous_or_null shows one value or none; remove it or `keep:`"
        yield from self._branch_problems(named)

    def _branch_problems(self, named: set[Choice]) -> Iterator[str]:
        branches = self.when or []
        if any(branch.otherwise for branch in branches[:-1]):
            yield "`else` is not the last of `when`; move it to the end"
        if branches and branches[0].otherwise:
            yield "`when` has no `if:`; add one, or write `choose:` instead"
        if named and branches and branches[-1].otherwise:
            yield "`choose` is never used beside `else`; keep one of them"
        within = {rule for branch in branches for rule in [*(branch.choose or ()), *(branch.otherwise or ())]}
        if branches and "unanimous_or_null" in named | within:
            yield "unanimous_or_null judges all candidates, `when` parts them; keep one of them"


class Group(_Options):
    """Fields that come from one record together, such as an address."""

    fields: list[Name] = Field(min_length=2, description="fields that come from one record together")
    choose: list[Choice] = Field(
        default=["most_complete", "most_recent", "source_priority"],
        min_length=1,
        description="rules that choose the record",
    )
    fill: bool = Field(
        default=False, description="true: what the chosen record leaves empty is taken from the next best"
    )


class Policy(_Options):
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
    clock: Clock = Field(
        default="business",
        description="business ([observed_at, ingested_at]): the row's own time, else that of delivery;"
        " ingestion ([ingested_at]); observed ([observed_at]): a row without a time of its own comes last",
    )
    sources: dict[Name, int] = Field(default={}, description="lower wins")
    unlisted: Literal["last", "exclude"] = Field(
        default="last", description="what a source without a rank contributes"
    )
    clears: Literal["compete", "ignore"] = Field(
        default="compete", description="whether an explicit clear competes like a value, or never wins"
    )
    adobe_compat: bool = Field(
        default=False,
        description="as Adobe merges: clock ingestion, unlisted exclude, clears ignore, one method for all fields",
    )
    choose: list[Choice] = Field(
        default=DEFAULT_CHOICE, min_length=1, description="rules for fields without one of their own"
    )
    groups: dict[Name, Group] = Field(
        default={}, description="fields that come from one record together, by name"
    )
    fields: dict[Name, FieldRule] = Field(default={}, description="rules of single fields")

    @model_validator(mode="before")
    @classmethod
    def _as_adobe(cls, data: Any) -> Any:  # noqa: ANN401
        """What adobe_compat stands for; a key that says otherwise is a mistake."""
        if not (isinstance(data, dict) and data.get("adobe_compat") is True):
            return data
        for key, value in ADOBE.items():
            if data.get(key) not in (None, value):
                raise ValueError(f"adobe_compat has `{key}: {value}`; remove `{key}` or adobe_compat")
        if data.get("method") not in METHODS_OF_ADOBE:
            raise ValueError(f"adobe_compat needs `method:`, {' or '.join(METHODS_OF_ADOBE)}")
        return {**data, **ADOBE}

    @model_validator(mode="after")
    def _one_method(self) -> "Policy":
        if self.method != "per_field" and (self.fields or self.groups):
            raise ValueError(f"method {self.method} takes no fields or groups; use method: per_field")
        if self.method == "dataset_precedence" and not self.sources:
            raise ValueError("dataset_precedence needs `sources:` with a rank for each")
        for where, ranking in self.rankings():
            for problem in _ranking_problems(ranking):
                raise ValueError(f"{where}{problem}")
        for problem in self._unused_options():
            raise ValueError(problem)
        return self

    def _unused_options(self) -> Iterator[str]:
        """Options of a field, a group or the policy that none of its rules asks for."""
        rankings = dict(self.rankings())
        whole = set().union(*(ranking.rules for ranking in rankings.values()))
        named: list[tuple[str, _Options, set[str]]] = [
            *(
                (f"fields.{name}: ", rule, rankings[f"fields.{name}: "].rules)
                for name, rule in self.fields.items()
            ),
            *(
                (f"groups.{name}: ", group, rankings[f"groups.{name}: "].rules)
                for name, group in self.groups.items()
            ),
            ("", self, whole),
        ]
        for where, own, used in named:
            given = {"trust": own.trust, "decay": own.decay, "custom": own.custom}
            for option, asking in ASKED_BY.items():
                if given[option] and not used & asking:
                    yield f"{where}`{option}:` is never used; add rule {min(asking)} or remove it"

    def rankings(self) -> Iterator[tuple[str, Ranking]]:
        """Everything that ranks, with a prefix that says where it stands: the default first."""
        yield "", self.ranking("")
        yield from ((f"groups.{name}: ", self.group_ranking(name)) for name in self.groups)
        yield from ((f"fields.{name}: ", self.ranking(name)) for name in self.fields)

    def ranking(self, field: str) -> Ranking:
        """What decides a field that is in no group; a field without rules of its own has those of the policy."""
        own = self.fields.get(field)
        branches = (own.when if own else None) or []
        when = tuple(
            (branch.condition, tuple(branch.choose or ())) for branch in branches if branch.condition
        )
        return self._complete(own, self._choices(own), own.sources if own else None, when)

    def group_ranking(self, name: str) -> Ranking:
        """What decides a group."""
        group = self.groups[name]
        return self._complete(group, group.choose, None, ())

    def _choices(self, own: FieldRule | None) -> list[Choice]:
        if self.method == "time_ordered":
            return ["most_recent"]
        if self.method == "dataset_precedence":
            return ["source_priority", "most_recent"]
        if own is None:
            return self.choose
        last = own.when[-1].otherwise if own.when else None
        return last or own.primary or own.choose or self.choose

    def _complete(
        self,
        own: _Options | None,
        choose: list[Choice],
        sources: dict[Name, int] | None,
        when: tuple[tuple[str, tuple[str, ...]], ...],
    ) -> Ranking:
        nearest = own or self
        trust = nearest.trust if nearest.trust is not None else self.trust
        decay = nearest.decay or self.decay
        return Ranking(
            choose=tuple(choose),
            sources=tuple(sorted((sources if sources is not None else self.sources).items())),
            trust=tuple(sorted((trust or {}).items())),
            half_life_days=decay.half_life_days if decay else None,
            zero_after_days=decay.zero_after_days if decay else None,
            custom=nearest.custom or self.custom,
            when=when,
        )

    def group_of(self, field: str) -> str | None:
        """The locked group a field belongs to, or None."""
        return next((name for name, group in self.groups.items() if field in group.fields), None)


def _ranking_problems(ranking: Ranking) -> Iterator[str]:
    for rule in sorted(ranking.rules & {"trust", "weighted_vote"}):
        if not ranking.trust:
            yield f"rule {rule} needs `trust:`, a score from 0 to 1 for each source"
    if "custom" in ranking.rules and not ranking.custom:
        yield "rule custom needs `custom:`, the expression that ranks a candidate"
    for choose in (ranking.choose, *(choose for _, choose in ranking.when)):
        yield from _useless_rules(choose)


def _useless_rules(choose: tuple[str, ...]) -> Iterator[str]:
    for position, rule in enumerate(choose):
        before = choose[:position]
        if rule in before:
            yield f"rule {rule} stands twice; keep the first"
        for pair in OPPOSITES:
            if rule in pair and pair & {*before} - {rule}:
                [other] = pair - {rule}
                yield f"rule {rule} never decides after {other}; remove one of them"


class ProfileRules(Rule):
    """The whole of rules/profiles.yaml."""

    default: Name = Field(description="the policy that audiences and lookups use")
    policies: dict[Name, Policy] = Field(min_length=1, description="merge policies, by name")
    future_tolerance_minutes: int = Field(
        default=1440, ge=0, description="how far a row's time may be ahead of its delivery"
    )
