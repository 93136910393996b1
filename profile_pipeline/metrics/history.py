"""Which counts are kept: those of the last batch of each day; of every batch only its own row and one a policy.

Days and batches are those of the warehouse's history, never of the computer's clock, so a history that is gone
through again after a revert ends with the counts it would have had.
"""

from dataclasses import dataclass
from datetime import datetime

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import columns_of, rows, scalar, table_exists

BATCH = "batch integer, day date"
DAY = "day date"
COLUMNS = {
    "snapshots": f"{BATCH}, as_of timestamptz, revision integer, model_id text, threshold double, profile_count bigint,"
    " person_count bigint, pseudonymous_count bigint, single_identity_count bigint, unsegmented_count bigint,"
    " identity_count bigint, record_count bigint, event_count bigint, created_count bigint, revived_count bigint,"
    " merged_count bigint, retired_count bigint, split_count bigint, duplicates_avoided bigint, quarantined_count bigint",
    "policies": f"{BATCH}, policy text, policy_version integer, is_default boolean, profile_count bigint,"
    " completeness double, high_count bigint, medium_count bigint, low_count bigint, conflict_count bigint",
    "profiles": f"{DAY}, kind text, record_count bigint, profile_count bigint, event_count bigint",
    "namespaces": f"{DAY}, namespace text, kind text, profile_count bigint, single_identity_count bigint,"
    " unsegmented_count bigint, identity_count bigint",
    "namespace_overlaps": f"{DAY}, namespaces text, namespace_count bigint, profile_count bigint,"
    " expected_count double, lift double",
    "audiences": f"{DAY}, audience text, member_count bigint, entered_count bigint, left_count bigint",
    "audience_namespaces": f"{DAY}, audience text, namespace text, profile_count bigint, single_identity_count bigint",
    "audience_namespace_overlaps": f"{DAY}, audience text, namespaces text, namespace_count bigint, profile_count bigint",
    "audience_overlaps": f"{DAY}, audience text, other_audience text, overlap_count bigint, overlap_percent double",
    "fields": f"{DAY}, policy text, field text, filled_count bigint, completeness double, distinct_count bigint,"
    " conflict_count bigint",
    "survivorship": f"{DAY}, policy text, field text, source text, value_count bigint",
    "sources": f"{DAY}, source text, kind text, delivered_at timestamptz, newest_at timestamptz, record_count bigint,"
    " event_count bigint, profile_count bigint, only_source_count bigint, without_time_count bigint, late_count bigint,"
    " quarantined_count bigint",
    "source_overlaps": f"{DAY}, sources text, source_count bigint, profile_count bigint, expected_count double,"
    " lift double",
    "unknown_profiles": f"{DAY}, namespace text, idle_days integer, profile_count bigint, event_count bigint",
    "match_weights": f"{DAY}, match_weight integer, pair_count bigint, link_count bigint",
    "cluster_sizes": f"{DAY}, cluster_size bigint, cluster_count bigint, flagged_count bigint",
    "links": f"{DAY}, type text, namespace text, link_count bigint, cut_count bigint",
    "blocks": f"{DAY}, rule text, block_count bigint, largest_block bigint, pair_count bigint, left_out_count bigint",
}
OF_BATCHES = ("snapshots", "policies")
"""Kept for every batch; the others for every day."""
DATES = """
    with known as (select day, max(batch) as batch, max(as_of) as as_of from metrics.snapshots group by day),
    days as (select unnest(generate_series(min(day), max(day), interval 1 day))::date as day from known)
    select d.day, k.day as counted_on, k.batch, k.as_of from days d asof join known k on d.day >= k.day"""
"""Grain: one row a day from the first to the newest snapshot, with the day whose counts hold on it."""


@dataclass(frozen=True)
class Moment:
    """What the counts are of: the newest batch that brought something."""

    batch: int
    as_of: datetime


def create_tables(con: DuckDBPyConnection) -> None:
    """Make the tables that are missing; one of before there was a history is replaced."""
    for name, columns in COLUMNS.items():
        table = f"metrics.{name}"
        if table_exists(con, table) and "day" not in columns_of(con, table):
            con.execute(f"drop table {table}")
        con.execute(f"create table if not exists {table} ({columns})")


def newest(con: DuckDBPyConnection) -> Moment | None:
    """The newest batch with a file that was read, or None; repeated files alone leave everything as it is."""
    found = rows(
        con,
        "select batch, as_of from raw.batches where batch in (select batch from raw.files where state = 'loaded')"
        " order by batch desc limit 1",
    )
    return Moment(*found[0]) if found else None


def begin(con: DuckDBPyConnection, at: Moment) -> None:
    """Write temp.moment, the moment that is counted, and take away what was counted of it before."""
    con.execute(
        """create or replace temp table moment as select ?::integer as batch, ?::timestamptz as as_of,
        coalesce((select max(revision) from metrics.snapshots where batch < ?), 0) as known_revision""",
        [at.batch, at.as_of, at.batch],
    )
    for name in COLUMNS:
        same = "batch >= ?" if name in OF_BATCHES else "day >= ?::timestamptz::date"
        con.execute(
            f"delete from metrics.{name} where {same}", [at.batch if name in OF_BATCHES else at.as_of]
        )


def keep(con: DuckDBPyConnection, name: str, query: str) -> None:
    """Add the counts of temp.moment to metrics.<name>."""
    of_batch = "batch, " if name in OF_BATCHES else ""
    con.execute(
        f"insert into metrics.{name} by name select * from (select {of_batch}as_of::date as day from temp.moment) m, ({query}) q"
    )


def forget_after(con: DuckDBPyConnection, batch: int) -> None:
    """Take away what later batches counted; a day that they had replaced is gone until it is counted again."""
    if not table_exists(con, "metrics.snapshots") or "day" not in columns_of(con, "metrics.snapshots"):
        return
    con.execute(
        "create or replace temp table later_days as select distinct day from metrics.snapshots where batch > ?",
        [batch],
    )
    for name in COLUMNS:
        later = f"batch > {batch:d}" if name in OF_BATCHES else "day in (from temp.later_days)"
        con.execute(f"delete from metrics.{name} where {later}")
    con.execute("drop table temp.later_days")


def incomplete(con: DuckDBPyConnection) -> bool:
    """Whether the newest day that has a snapshot lost its other counts to a later batch that is gone."""
    if not table_exists(con, "metrics.profiles") or not table_exists(con, "metrics.snapshots"):
        return False
    last = scalar(con, "select max(day) from metrics.snapshots")
    return last is not None and last != scalar(con, "select max(day) from metrics.profiles")
