"""What the report knows of a generation: plain numbers and names of rules, no customer values."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from profile_pipeline.config.publication import TrustRules


@dataclass(frozen=True)
class About:
    """The manifest of a generation, as far as people read it."""

    generation: int
    as_of: datetime
    batch: int
    revision: int | None
    model: str | None
    policies: dict[str, int]
    default_policy: str
    files: dict[str, int] = field(default_factory=dict)
    """Delivered files by state: loaded, refused, removed, duplicate, reverted."""
    threshold: float | None = None
    expected_precision: float | None = None
    expected_recall: float | None = None
    limits: TrustRules = field(default_factory=TrustRules)


@dataclass(frozen=True)
class Check:
    """An expectation of a source or table."""

    table: str
    name: str
    severity: str
    success: bool
    evaluated: int
    failed: int
    notes: str


@dataclass(frozen=True)
class Fates:
    """Rows delivered by a source (or by all), by what became of them."""

    source: str
    delivered: int
    current: int
    superseded: int
    events: int
    expired: int
    quarantined: int
    not_selected: int
    reverted: int

    @property
    def missing(self) -> int:
        """Rows delivered that have no fate; anything but zero breaks the conservation law."""
        return self.delivered - sum(count for _, count in self.parts)

    @property
    def parts(self) -> list[tuple[str, int]]:
        """Fates in words, in the order in which rows flow."""
        return [
            ("current records", self.current),
            ("superseded by a newer version", self.superseded),
            ("events", self.events),
            ("events past their retention", self.expired),
            ("quarantined with a reason", self.quarantined),
            ("not selected by the source's filter", self.not_selected),
            ("reverted with their batch", self.reverted),
        ]


@dataclass(frozen=True)
class Point:
    """The counts of one batch: the history of the profile count, and what happened to profile ids."""

    batch: int
    as_of: datetime
    profiles: int
    persons: int
    pseudonymous: int
    single_identity: int
    unsegmented: int
    created: int
    revived: int
    merged: int
    retired: int
    split: int
    duplicates_avoided: int


@dataclass(frozen=True)
class Policy:
    """A merge policy and what it makes of the same records. Bands: profiles by the share of fields that are filled."""

    name: str
    version: int
    is_default: bool
    profiles: int
    completeness: float
    high: int
    medium: int
    low: int
    conflicts: int


@dataclass(frozen=True)
class Namespace:
    """Profiles that have an identifier of a namespace; of these, those with no other namespace, and in no audience."""

    name: str
    profiles: int
    single: int
    unsegmented: int


@dataclass(frozen=True)
class Combination:
    """Profiles that hold exactly these namespaces, or are known by exactly these sources."""

    names: tuple[str, ...]
    profiles: int


@dataclass(frozen=True)
class Audience:
    """An audience and its members now; `before`: in the generation before, when it was there."""

    name: str
    description: str
    consent: str
    members: int
    before: int | None = None


@dataclass(frozen=True)
class Overlap:
    """Members that two audiences share; `percent` of the members of either (Jaccard)."""

    left: str
    right: str
    shared: int
    percent: float


@dataclass(frozen=True)
class Field:
    """A profile field under the default policy; `before`: profiles that had it in the generation before."""

    name: str
    filled: int
    distinct: int
    conflicts: int
    before: int | None = None


@dataclass(frozen=True)
class Won:
    """Values of a field that a source has given under the default policy."""

    field: str
    source: str
    values: int


@dataclass(frozen=True)
class Source:
    """A source: how fresh, how much of it is in use, and how many profiles know of nothing else."""

    name: str
    delivered_at: datetime | None
    newest_at: datetime | None
    records: int
    events: int
    profiles: int
    only_here: int
    without_time: int
    late: int


@dataclass(frozen=True)
class Refusal:
    """Rows in quarantine for a reason; a row with several reasons counts under each."""

    source: str
    stage: str
    reason: str
    rows: int


@dataclass(frozen=True)
class Weight:
    """Scored pairs whose match weight is from `low` to below `low + 1`, and the links among them."""

    low: int
    pairs: int
    links: int


@dataclass(frozen=True)
class Size:
    """Clusters of a size, and those of them that needed more than a limit allows."""

    size: int
    clusters: int
    flagged: int


@dataclass(frozen=True)
class Link:
    """Accepted links of a kind, and those cut again to keep a limit."""

    kind: str
    namespace: str
    links: int
    cut: int


@dataclass(frozen=True)
class Block:
    """A blocking rule: records that agree on it are compared; of too large a block, records are left out."""

    rule: str
    blocks: int
    largest: int
    pairs: int
    left_out: int


@dataclass(frozen=True)
class Idle:
    """Pseudonymous profiles without a new event for so many days, and the events they hold."""

    days: int
    profiles: int
    events: int


@dataclass(frozen=True)
class Changes:
    """What is different from the generation before."""

    generation: int
    as_of: datetime
    profiles_before: int
    new: int
    gone: int
    changed: int
    fields: list[tuple[str, int]]
    """Changed profiles by field, the most first."""
    rows: int
    """Rows delivered since."""


@dataclass(frozen=True)
class Destination:
    """Where audiences and tables are delivered to. The report is written before a generation is delivered."""

    name: str
    platform: str
    audiences: int
    delivered_at: datetime | None


@dataclass(frozen=True)
class Facts:
    """Everything the report shows, in the order in which it is shown."""

    about: About
    history: list[Point] = field(default_factory=list)
    fates: list[Fates] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    changes: Changes | None = None
    policies: list[Policy] = field(default_factory=list)
    namespaces: list[Namespace] = field(default_factory=list)
    combinations: list[Combination] = field(default_factory=list)
    source_combinations: list[Combination] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)
    audiences: list[Audience] = field(default_factory=list)
    overlaps: list[Overlap] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    won: list[Won] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    destinations: list[Destination] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    published: int = 0
    """Rows of the table `profiles`, which every count must agree with."""
    flagged: int = 0
    """Profiles that hold more of something than a limit allows."""

    @property
    def now(self) -> Point:
        """The counts of this generation."""
        return self.history[-1] if self.history else Point(0, self.about.as_of, *[0] * 11)

    @property
    def all_fates(self) -> Fates:
        """The fates of all rows of all sources."""
        sums: dict[str, Any] = {name: sum(getattr(fates, name) for fates in self.fates) for name in FATES}
        return Fates("all", **sums)

    @property
    def newest_at(self) -> datetime | None:
        """The time of the newest record or event in use."""
        return max((source.newest_at for source in self.sources if source.newest_at), default=None)

    def old(self, at: datetime | None) -> timedelta | None:
        """How long before the generation's own time something was."""
        return self.about.as_of - at if at else None


FATES = ("delivered", "current", "superseded", "events", "expired", "quarantined", "not_selected", "reverted")
"""Columns of metrics_row_fates that count rows."""
