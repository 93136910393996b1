"""Audiences as published: sizes, overlap, and who is in one, a page at a time."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.audiences import explain
from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.serve.search import name_query
from profile_pipeline.serve.shelf import Published
from profile_pipeline.warehouse import records_of

Row = dict[str, Any]
PAGE = 50
"""Members on a page."""


class UnknownAudienceError(PipelineError):
    """No audience of this generation has that name."""


@dataclass(frozen=True)
class AudiencePage:
    """One audience: what it asks, how large it is, whom it shares members with, and a page of members."""

    about: Row
    overlap: list[Row]
    members: list[Row]
    after: str


_SIZES = """
    select a.*, coalesce(m.member_count, 0) as member_count, coalesce(m.left_count, 0) as left_count
    from audiences a left join (
        select audience, count(*) filter (exited_at is null) as member_count,
            count(*) filter (exited_at is not null) as left_count
        from audience_membership group by audience) m using (audience)"""


def audiences(published: Published) -> list[Row]:
    """Every audience with its size, the largest first."""
    with published.read() as con:
        return records_of(con, f"{_SIZES} order by member_count desc, audience")


@lru_cache(maxsize=2)
def overlaps(published: Published) -> list[Row]:
    """Members that two audiences share, the largest share first; counted once a generation."""
    with published.as_warehouse() as con:
        return explain.overlap(con)


def audience(published: Published, name: str, after: str) -> AudiencePage:
    """An audience and its members after a profile id, in the order of the ids."""
    with published.read() as con:
        found = records_of(con, f"{_SIZES} where audience = ?", [name])
        if not found:
            raise UnknownAudienceError("no audience of this generation has that name")
        members = _members(con, published.config, name, after)
    shared = [row for row in overlaps(published) if name in {row["audience"], row["other"]}]
    more = members[PAGE - 1]["profile_id"] if members[PAGE:] else ""
    return AudiencePage(found[0], [_seen_from(name, row) for row in shared], members[:PAGE], more)


def _members(con: DuckDBPyConnection, config: Config, name: str, after: str) -> list[Row]:
    return records_of(
        con,
        f"""with page as (
            select profile_id, entered_at, entry_reason from audience_membership
            where audience = ? and exited_at is null and profile_id > ? order by profile_id limit {PAGE + 1})
        select page.*, {name_query(config)} as name from page left join profiles using (profile_id)
        order by profile_id""",
        [name, after],
    )


def _seen_from(name: str, row: Row) -> Row:
    """An overlap with the other audience named, and which share of this one it is."""
    own_first = row["audience"] == name
    members = row["members"] if own_first else row["other_members"]
    other = row["other"] if own_first else row["audience"]
    return {"other": other, "shared": row["shared"], "members": members, "jaccard": row["jaccard"]}
