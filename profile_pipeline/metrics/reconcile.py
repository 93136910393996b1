"""Whether the counts of the newest day agree with each other and with what they were counted from."""

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import scalar

LAST = "(from metrics.snapshots order by batch desc limit 1)"
NOW = "day = (select max(day) from metrics.dates)"
WHOLE = {
    "the profile table": "select count(*) from profiles.unified",
    "profiles by kind": f"select sum(profile_count) from metrics.profiles where {NOW}",
    "combinations of namespaces": f"select sum(profile_count) from metrics.namespace_overlaps where {NOW}",
    "combinations of sources": f"select sum(profile_count) from metrics.source_overlaps where {NOW}",
    "profiles in audiences and outside": f"""select unsegmented_count + (
        select count(distinct profile_id) from audiences.membership where exited_at is null) from {LAST}""",
    "ids given out and given up": """select coalesce(sum(created_count + revived_count - merged_count - retired_count), 0)
        from metrics.snapshots""",
}
"""What must be as many as there are profiles."""
SAME = {
    "namespaces": (
        f"select namespace, profile_count, identity_count from metrics.namespaces where {NOW}",
        "select namespace, count(distinct profile_id), count(*) from profiles.identifiers group by 1",
    ),
    "namespaces in their combinations": (
        f"select namespace, profile_count, single_identity_count from metrics.namespaces where {NOW}",
        f"""select unnest(string_split(namespaces, ',')) as namespace, sum(profile_count),
            coalesce(sum(profile_count) filter (namespace_count = 1), 0)
            from metrics.namespace_overlaps where {NOW} and namespaces <> '' group by 1""",
    ),
    "audiences": (
        f"select audience, member_count from metrics.audiences where {NOW} and member_count > 0",
        "select audience, count(*) from audiences.membership where exited_at is null group by 1",
    ),
    "audiences by combination of namespaces": (
        f"select audience, member_count from metrics.audiences where {NOW} and member_count > 0",
        f"select audience, sum(profile_count) from metrics.audience_namespace_overlaps where {NOW} group by 1",
    ),
    "audiences by namespace": (
        f"select audience, namespace, profile_count from metrics.audience_namespaces where {NOW}",
        f"""select audience, unnest(string_split(namespaces, ',')) as namespace, sum(profile_count)
            from metrics.audience_namespace_overlaps where {NOW} and namespaces <> '' group by 1, 2""",
    ),
    "merge policies": (
        f"select policy, profile_count from metrics.policies where batch = (select batch from {LAST})",
        f"""select policy, high_count + medium_count + low_count from metrics.policies join {LAST} l using (batch)
            where policies.profile_count = l.profile_count""",
    ),
}
"""Pairs of queries with the same rows."""


def disagreements(con: DuckDBPyConnection) -> list[str]:
    """What does not add up, in words without values; empty when all counts agree or nothing was counted yet."""
    profiles = scalar(con, f"select profile_count from {LAST}")
    if profiles is None:
        return []
    found = [
        f"{name}: {counted:,} instead of {profiles:,}"
        for name, query in WHOLE.items()
        if (counted := scalar(con, query) or 0) != profiles
    ]
    return found + [
        f"{name}: {different:,} differ"
        for name, (one, other) in SAME.items()
        if (different := scalar(con, _different_query(one, other)))
    ]


def _different_query(one: str, other: str) -> str:
    return f"select count(*) from (({one} except {other}) union ({other} except {one}))"
