"""The whole explanation of one profile."""

from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.explain.constraints import constraints
from profile_pipeline.explain.links import Link, tree
from profile_pipeline.explain.members import MEMBER_TABLE, Member, find_profile, members, register_members
from profile_pipeline.explain.rejected import RejectedLink, rejected
from profile_pipeline.identity.edges import threshold_in_use
from profile_pipeline.profile_ids import history


@dataclass(frozen=True)
class Explanation:
    """Why a profile is one person. `asked` is what it was found by; `threshold` the match weight of a link.

    `links` are a spanning tree, strongest first; `rejected` the links of most weight that lead elsewhere and do not
    hold, of `rejected_count`; `history` as `profile_ids.history` has it.
    """

    asked: str
    profile_id: str
    records: tuple[Member, ...]
    links: tuple[Link, ...]
    rejected: tuple[RejectedLink, ...]
    rejected_count: int
    constraints: tuple[str, ...]
    threshold: float | None
    history: dict[str, Any]


def explain(con: DuckDBPyConnection, config: Config, profile_id: str) -> Explanation:
    """Explain the profile of an id (a retired one leads to its successor), a record key or any identifier.

    Raises PipelineError for what leads to no profile or to several.
    """
    found = find_profile(con, config, profile_id)
    register_members(con, found)
    try:
        links = tree(con)
        outside, total = rejected(con, config)
        return Explanation(
            profile_id,
            found,
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
