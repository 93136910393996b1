"""rules/identity.yaml: identifiers and their namespaces, and how records are matched."""

from typing import Annotated, Any, Literal

from pydantic import Field

from profile_pipeline.config.model import Name, Rule


class Namespace(Rule):
    """A kind of identifier. `link: true` makes two records that share a value the same person."""

    kind: Literal["person", "device", "cookie"] = Field(
        default="person", description="what the identifier names"
    )
    type: Literal["email", "phone", "id", "id_any_case"] = Field(
        default="id_any_case", description="how values are normalised before they become keys"
    )
    link: bool = Field(default=True, description="a shared value links records by itself")
    priority: int = Field(default=100, ge=0, description="lower decides whom an event belongs to")
    unique: int | None = Field(default=None, ge=1, description="at most so many values a profile")
    description: str = Field(default="", description="what the identifier is")
    blocked: list[str] = Field(default=[], description="values that identify nobody")
    sensitive: bool | None = Field(
        default=None,
        description="true: profile pages hide values until somebody asks for them; default: as the field of that name",
    )


class Matching(Rule):
    """Probabilistic matching: everything has a default derived from the semantic types."""

    enabled: bool = Field(default=True, description="false: records are linked by identifiers only")
    target_precision: float = Field(
        default=0.95, gt=0.5, lt=1, description="of the accepted links; the threshold follows from it"
    )
    threshold: float | None = Field(
        default=None, description="match weight (log2 Bayes factor) above which a pair is a link"
    )
    floor: float = Field(default=-5, description="pairs below this match weight are not kept")
    max_block: int = Field(default=200, ge=2, description="records a blocking key may hold")
    max_training_pairs: int = Field(default=1_000_000, ge=10_000, description="pairs the model is trained on")
    hysteresis: float = Field(
        default=0,
        ge=0,
        description="bits below the threshold to which a link may fall, under one model, before it is given up",
    )
    comparisons: dict[str, dict[str, Any] | None] = Field(
        default={},
        description="Splink comparisons that replace the derived ones of the same name or come in addition; null leaves one out",
    )
    settings: dict[str, Any] = Field(
        default={}, description="plain Splink settings that replace the derived ones, key by key"
    )


class Clustering(Rule):
    """Limits on what may be published as one person."""

    max_cluster_size: int = Field(default=100, ge=2, description="records that may become one profile")
    generic_limit: int = Field(
        default=20, ge=2, description="disagreeing people behind one value before it is set aside"
    )
    never_differ: list[Name] = Field(
        default=[], description="fields of which one profile never holds two values, such as national_id"
    )


class Relationships(Rule):
    """Values that several profiles share and that merge nobody."""

    max_profiles: int = Field(
        default=50, ge=2, description="a value shared by more profiles is one row, without naming them"
    )


class Review(Rule):
    """The queue of questions for a data steward."""

    max_items: int = Field(default=10_000, ge=1, description="questions kept, those of most value first")


class Ids(Rule):
    """How profile ids persist: which records an id follows when they part."""

    anchors: dict[Name, Annotated[float, Field(gt=0, lt=1000)]] = Field(
        default={},
        description="weight of a source's records when they decide where an id goes; others weigh 1",
    )


class Churn(Rule):
    """How much of the profile ids a run may change without approval; new people are not counted."""

    max_retired: float = Field(
        default=0.05, ge=0, le=1, description="share of the profile ids that may retire"
    )
    max_moved: float = Field(
        default=0.05, ge=0, le=1, description="share of the records that may move to another profile id"
    )
    max_minted: float = Field(
        default=0.05, ge=0, le=1, description="new ids split off known profiles, as a share of the profiles"
    )
    max_changed_profiles: float = Field(
        default=0.1, ge=0, le=1, description="share of the profiles that may retire or exchange records"
    )
    largest_cluster: int | None = Field(
        default=None, ge=2, description="records that one changed profile may hold; default: no limit here"
    )
    min_profiles: int = Field(
        default=1000, ge=0, description="with fewer profiles before the run nothing is judged"
    )


class IdentityRules(Rule):
    """The whole of rules/identity.yaml."""

    graph: Literal["private", "none"] = Field(
        default="private",
        description="none: no identifier and no score joins records, each is its own profile",
    )
    adobe_compat: bool = Field(
        default=False,
        description="as Adobe identifies: values as they are written, all link, no matching, the latest delivery counts",
    )
    namespaces: dict[Name, Namespace] = Field(default={}, description="kinds of identifiers, by name")
    matching: Matching = Field(default=Matching(), description="probabilistic matching")
    clustering: Clustering = Field(
        default=Clustering(), description="limits on what is published as one person"
    )
    relationships: Relationships = Field(
        default=Relationships(), description="values that several profiles share and that merge nobody"
    )
    review: Review = Field(default=Review(), description="the queue of questions for a data steward")
    ids: Ids = Field(default=Ids(), description="how profile ids persist")
    churn: Churn = Field(default=Churn(), description="what a run may change without approval")
    session_gap_minutes: int = Field(
        default=30, ge=0, description="reach of a login over the anonymous events around it"
    )
    pseudonymous_expire_days: int | None = Field(
        default=None,
        ge=1,
        description="days without an event after which a pseudonymous profile retires, until its cookie or"
        " device comes back; default: never",
    )
