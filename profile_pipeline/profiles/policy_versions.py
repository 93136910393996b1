"""What every version of every merge policy said: profiles name policy and version, this table says what that was.

A policy whose rules changed under the same version is noticed: what profiles name would no longer say how they
were made. Descriptions are no rules.
"""

import json
from contextlib import suppress
from dataclasses import dataclass

from duckdb import DuckDBPyConnection
from pydantic import ValidationError

from profile_pipeline.config.load import Config
from profile_pipeline.config.profiles import Policy
from profile_pipeline.raw import ledger
from profile_pipeline.warehouse import fingerprint, literal, rows, table_exists, transaction

TABLE = """create table if not exists profiles.policy_versions (
    policy text not null, version integer not null, fingerprint text not null, content text not null,
    seen_at timestamptz, in_use boolean not null)"""
"""Grain: one row a policy, version and content. The first content of a version is what it stands for; `in_use` are
those that the profiles of the last run were made by."""


@dataclass(frozen=True)
class Unraised:
    """A policy whose rules are others than those its version stands for."""

    policy: str
    version: int

    @property
    def words(self) -> str:
        """What to do, in one line."""
        return f"policy `{self.policy}` changed but is still version {self.version}: raise `version`"


def note_versions(con: DuckDBPyConnection, config: Config) -> None:
    """Note the policies that lineage was just built by; a content not seen before gets the time of the newest batch."""
    con.execute(TABLE)
    seen_at = ledger.as_of(con) if table_exists(con, "raw.batches") else None
    using = [
        (name, policy.version, mark_of(policy), content_of(policy), seen_at)
        for name, policy in config.profiles.policies.items()
    ]
    known = set(rows(con, "select policy, version, fingerprint from profiles.policy_versions"))
    with transaction(con):
        for row in using:
            if row[:3] not in known:
                con.execute("insert into profiles.policy_versions values (?, ?, ?, ?, ?, true)", row)
        listed = ", ".join(f"({literal(n)}, {v}, {literal(mark)})" for n, v, mark, *_ in using)
        con.execute(
            f"update profiles.policy_versions set in_use = (policy, version, fingerprint) in ({listed})"
        )


def in_use(con: DuckDBPyConnection) -> dict[str, Policy]:
    """The policies that the profiles of the last run were made by, by name; those no longer readable are left out."""
    if not table_exists(con, "profiles.policy_versions"):
        return {}
    found = {}
    for name, version, content in rows(
        con, "select policy, version, content from profiles.policy_versions where in_use order by policy"
    ):
        with suppress(ValidationError):  # written by a release that knew other rules
            found[name] = Policy.model_validate({**json.loads(content), "version": version})
    return found


def unraised(con: DuckDBPyConnection, config: Config) -> list[Unraised]:
    """Policies of the rules whose version stands for other rules, by name."""
    first = _first_marks(con)
    return [
        Unraised(name, policy.version)
        for name, policy in sorted(config.profiles.policies.items())
        if first.get((name, policy.version), mark_of(policy)) != mark_of(policy)
    ]


def _first_marks(con: DuckDBPyConnection) -> dict[tuple[str, int], str]:
    if not table_exists(con, "profiles.policy_versions"):
        return {}
    found = rows(
        con, "select policy, version, fingerprint from profiles.policy_versions order by seen_at, rowid"
    )
    return {(name, version): mark for name, version, mark in reversed(found)}


def content_of(policy: Policy) -> str:
    """What a policy says beyond the defaults, as JSON; neither its version nor its description is a rule."""
    said = policy.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"version", "description"}
    )
    return json.dumps(said, sort_keys=True, ensure_ascii=False)


def mark_of(policy: Policy) -> str:
    """Equal for policies with equal rules."""
    return fingerprint(content_of(policy))
