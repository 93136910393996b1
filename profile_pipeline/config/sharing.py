"""rules/sharing.yaml: who gets which rows in which form."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from profile_pipeline.config.audiences import Duration
from profile_pipeline.config.model import Name, Rule
from profile_pipeline.config.stores import EnvironmentName, Store, WithoutSecrets

TOKENS = ("destination", "shipment", "table", "date", "time", "generation", "delivery", "part")
FORMULA_STARTS = "=+-@\t\r\n"
Template = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_{][A-Za-z0-9._=/{} -]{0,254}$")]
"""A file or folder name with tokens in braces."""
Column = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Hashing(WithoutSecrets):
    """Columns that leave as a hash of their normalised value, in lower-case hexadecimal."""

    columns: list[Name] = Field(min_length=1, description="columns, fields or namespaces, by their name here")
    method: Literal["hmac_sha256", "sha256"] = Field(
        default="hmac_sha256",
        description="hmac_sha256: only who has the key can compare; sha256: what partners match on, and anybody can guess",
    )
    key_env: EnvironmentName | None = Field(
        default=None, description="hmac_sha256: variable that holds the key, 16 characters or more"
    )

    @model_validator(mode="after")
    def _keyed(self) -> "Hashing":
        if self.method == "hmac_sha256" and not self.key_env:
            raise ValueError(
                "needs `key_env:`, or `method: sha256` where a partner asks for plain hashes; add one of them"
            )
        if self.method == "sha256" and self.key_env:
            raise ValueError("`method: sha256` has no key; remove `key_env:`")
        return self


class FileForm(Rule):
    """How rows are written."""

    type: Literal["parquet", "csv", "jsonl"] = Field(
        default="parquet", description="parquet, csv or jsonl (one JSON object a line)"
    )
    compression: Literal["none", "gzip", "zstd", "snappy"] | None = Field(
        default=None, description="default: zstd for parquet, none for the others; snappy is for parquet"
    )
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1, strip_whitespace=False)] = Field(
        default=",", description="csv: character between fields"
    )
    header: bool = Field(default=True, description="csv: the first line names the columns")
    missing: str = Field(default="", max_length=20, description="csv: text of a missing value")
    spreadsheet_safe: bool = Field(
        default=True,
        description="csv: an apostrophe in front of text that a spreadsheet would calculate; numbers stay as they are",
    )

    @model_validator(mode="after")
    def _possible(self) -> "FileForm":
        if (self.compression == "snappy") != (self.type == "parquet") and self.compression == "snappy":
            raise ValueError(
                f"`compression: snappy` is not for `type: {self.type}`; write gzip, zstd or none"
            )
        return self

    @property
    def packing(self) -> str:
        """The compression in use."""
        return self.compression or ("zstd" if self.type == "parquet" else "none")

    @property
    def ending(self) -> str:
        """What file names end in."""
        packed = {"gzip": ".gz", "zstd": ".zst"}.get(self.packing, "") if self.type != "parquet" else ""
        return f".{self.type}{packed}"


def _check_template(key: str, template: str, tokens: Sequence[str]) -> None:
    named = re.findall(r"\{(\w+)\}", template)
    unknown = next((name for name in named if name not in tokens), None)
    if unknown:
        raise ValueError(f"`{key}:` has no token `{{{unknown}}}`; known: {', '.join(tokens)}")
    if set("{}") & set(re.sub(r"\{\w+\}", "", template)):
        raise ValueError(f"`{key}:` has a brace without its other half; write tokens as {{date}}")
    if any(part.startswith(".") or not part for part in template.split("/")):
        raise ValueError(f"`{key}:` has an empty or hidden part; write names between the slashes")


class Health(Rule):
    """When a size is so far from its history that nobody should act on it unseen."""

    enabled: bool = Field(default=True, description="false: never blocks")
    days: int = Field(default=30, ge=2, le=400, description="days of history that are looked at")
    minimum_days: int = Field(default=7, ge=2, description="with fewer days of history everything passes")
    deviations: float = Field(
        default=3.0, gt=0, description="standard deviations from the mean that are still healthy"
    )
    minimum_change: float = Field(
        default=0.2,
        ge=0,
        description="a smaller share of change from the mean never blocks, however steady it was",
    )


class Shipment(Rule):
    """One table or audience for one destination."""

    enabled: bool = Field(default=True, description="false: left out")
    description: str = Field(default="", description="what it is for")
    audience: Name | None = Field(default=None, description="members of this audience")
    table: Name | None = Field(
        default=None, description="a published table, for example profiles or profile_events"
    )
    columns: list[Name] = Field(
        default=[],
        description="columns in this order; also computed attributes and namespaces (first identifier) where rows are profiles",
    )
    rename: dict[Name, Column] = Field(default={}, description="column here: name in the files")
    require: list[Name] = Field(default=[], description="rows without one of these are left out")
    one_per: list[Name] = Field(
        default=[], description="one row for equal values of these: of the profile seen last"
    )
    purpose: Name | None = Field(
        default=None,
        description="one of consent.purposes of audiences.yaml; default: that of the destination",
    )
    pseudonymous: bool = Field(default=False, description="true: profiles without a person too")
    mode: Literal["full", "incremental"] = Field(
        default="full", description="full: every row; incremental: what differs from what was last received"
    )
    when: Literal["changed", "members_changed", "published"] = Field(
        default="changed",
        description="changed: only when rows differ from the last delivery; members_changed: only when somebody"
        " came or went; published: with every new generation",
    )
    every: Duration | None = Field(
        default=None,
        description="not more often than this, by the as-of times of what is delivered; a twentieth sooner will do",
    )
    format: FileForm = Field(default=FileForm(), description="how rows are written")
    folder: Template = Field(
        default="{shipment}/{date}_{delivery}",
        description=f"folder of a delivery; tokens {', '.join(TOKENS[:-1])}",
    )
    file: Template = Field(
        default="{destination}_{table}_{date}_{part}",
        description=f"file name without its ending; tokens {', '.join(TOKENS)}",
    )
    rows_per_file: int | None = Field(
        default=None, ge=1, description="rows after which the next file begins; default: one file"
    )
    health: Health = Field(default=Health(), description="when a size blocks the delivery")

    @model_validator(mode="after")
    def _one_thing(self) -> "Shipment":
        if (self.audience is None) == (self.table is None):
            raise ValueError("needs one of `audience:` and `table:`; write which rows to send")
        if self.when == "members_changed" and not self.is_of_profiles:
            raise ValueError("`when: members_changed` is for audiences and profiles; remove it")
        return self

    @model_validator(mode="after")
    def _names(self) -> "Shipment":
        _check_template("folder", self.folder, [name for name in TOKENS if name != "part"])
        _check_template("file", self.file, TOKENS)
        if "/" in self.file:
            raise ValueError("`file:` is a name without folders; put them into `folder:`")
        if self.rows_per_file and "{part}" not in self.file:
            raise ValueError("`rows_per_file:` makes several files; put {part} into `file:`")
        if self.mode == "incremental" and "{delivery}" not in self.folder:
            raise ValueError(
                "an incremental delivery must not overwrite the one before; put {delivery} into `folder:`"
            )
        return self

    @model_validator(mode="after")
    def _columns(self) -> "Shipment":
        strangers = [name for name in self.rename if self.columns and name not in self.columns]
        if strangers:
            raise ValueError(f"`rename:` names `{strangers[0]}`, which is not in `columns:`; add it there")
        called = [self.rename.get(name, name).lower() for name in self.columns]
        twice = next((name for name in called if called.count(name) > 1), None)
        if twice:
            raise ValueError(f"two columns would be called `{twice}`; rename one")
        if (
            self.mode == "incremental"
            and self.columns
            and self.is_of_profiles
            and "profile_id" not in self.columns
        ):
            raise ValueError("an incremental delivery names rows by `profile_id`; add it to `columns:`")
        if any(name[0] in FORMULA_STARTS for name in self.rename.values()):
            raise ValueError("`rename:` has a name that a spreadsheet would calculate; begin with a letter")
        return self

    @property
    def is_profiles(self) -> bool:
        """Whether rows are profiles of some policy."""
        return bool(self.table) and (self.table == "profiles" or str(self.table).startswith("profiles_"))

    @property
    def is_of_profiles(self) -> bool:
        """Whether rows are profiles, all of them or the members of an audience."""
        return bool(self.audience) or self.is_profiles

    @property
    def what(self) -> str:
        """The table or audience, by name."""
        return self.audience or self.table or ""


class Destination(Rule):
    """Somebody who gets files."""

    enabled: bool = Field(default=True, description="false: nothing is delivered")
    description: str = Field(default="", description="who gets it and why")
    owner: str = Field(default="", description="owner shown in the Dagster UI, for example team:crm")
    to: Store = Field(description="where the files go")
    purpose: Name | None = Field(
        default=None,
        description="one of consent.purposes of audiences.yaml; default: the consent of consent.default is needed",
    )
    consent: Name | None = Field(default=None, description="one more consent field that must be true")
    hash: Hashing | None = Field(default=None, description="columns that leave as a hash")
    attempts: int = Field(
        default=3, ge=1, le=20, description="how often a file is tried before the delivery fails"
    )
    ship: dict[Name, Shipment] = Field(min_length=1, description="what is delivered, by name")


class SharingRules(Rule):
    """The whole of rules/sharing.yaml."""

    destinations: dict[Name, Destination] = Field(default={}, description="who gets files, by name")

    def active(self) -> dict[str, Destination]:
        """Destinations that get something."""
        return {
            name: destination
            for name, destination in self.destinations.items()
            if destination.enabled and any(shipment.enabled for shipment in destination.ship.values())
        }

    def shipments(self) -> list[tuple[str, str, Shipment]]:
        """(destination, shipment, its rules) of everything that is delivered."""
        return [
            (name, shipped, shipment)
            for name, destination in self.active().items()
            for shipped, shipment in destination.ship.items()
            if shipment.enabled
        ]
