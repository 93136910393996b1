"""The whole explanation of one profile."""

from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.wording import suggestion
from profile_pipeline.errors import PipelineError
from profile_pipeline.explain.constraints import constraints
from profile_pipeline.explain.links import Link, tree
from profile_pipeline.explain.members import MEMBER_TABLE, Member, find_profile, members, register_members
from profile_pipeline.explain.rejected import RejectedLink, rejected
from profile_pipeline.identity.edges import threshold_in_use
from profile_pipeline.profile_ids import history
from profile_pipeline.profiles.reasons import Reason, reasons


@dataclass(frozen=True)
class Explanation:
    """Why a profile is one person, and why it shows what it shows under a merge policy.

    `asked` is what it was found by; `threshold` the match weight of a link; `values` the fields by name; `links` are a
    spanning tree, strongest first; `rejected` the links of most weight that lead elsewhere and do not hold, of
    `rejected_count`; `history` as `profile_ids.history` has it.
    """

    asked: str
    profile_id: str
    policy: str
    values: tuple[Reason, ...]
    records: tuple[Member, ...]
    links: tuple[Link, ...]
    rejected: tuple[RejectedLink, ...]
    rejected_count: int
    constraints: tuple[str, ...]
    threshold: float | None
    history: dict[str, Any]


def explain(
    con: DuckDBPyConnection, config: Config, profile_id: str, policy: str | None = None
) -> Explanation:
    """Explain the profile of an id (a retired one leads to its successor), a record key or any identifier.

    Values are those of a merge policy (None: the default one). Raises PipelineError for what leads to no profile or
    to several, and for an unknown policy.
    """
    policy = policy or config.profiles.default
    if policy not in config.profiles.policies:
        known = list(config.profiles.policies)
        otherwise = f"the policies are: {', '.join(known)}"
        raise PipelineError(f"unknown policy `{policy}`; {suggestion(policy, known, otherwise)}")
    found = find_profile(con, config, profile_id)
    register_members(con, found)
    try:
        links = tree(con)
        outside, total = rejected(con, config)
        return Explanation(
            profile_id,
            found,
            policy,
            reasons(con, found, policy),
            members(con, config),
            links,
            outside,
            total,
            constraints(con, config),
            threshold_in_use(con),
            history(con, found),
        )
    finally:
        con.execute(f"drop table {MEMBER_TABLE}")
