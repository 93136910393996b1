"""Reads the facts of the report from a published generation; nothing here sees the warehouse.

The generation that this one replaces may be by an older version of the program: what it does not say is not compared.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.clock import NO_BATCH
from profile_pipeline.config.publication import TrustRules
from profile_pipeline.difference import difference
from profile_pipeline.report.facts import (
    FATES,
    About,
    Audience,
    Block,
    Changes,
    Check,
    Combination,
    Destination,
    Facts,
    Fates,
    Field,
    Idle,
    Link,
    Namespace,
    Overlap,
    Point,
    Policy,
    Refusal,
    Size,
    Source,
    Weight,
    Won,
)
from profile_pipeline.warehouse import literal, rows, scalar, settings

DATABASE = "profiles.duckdb"
MEMORY, THREADS = "2GiB", 2
NOW = "day = (select max(day) from metrics_dates)"
"""Tables of metrics keep history; the report shows the newest day."""


@contextmanager
def reading(folder: Path, before: Path | None, temporary: Path) -> Generator[DuckDBPyConnection]:
    """A connection whose tables are those of a generation, for reading only; `before.main` is the one it replaces."""
    with duckdb.connect(config=settings(temporary, MEMORY, THREADS)) as con:
        con.execute("set TimeZone = 'UTC'")
        con.execute(f"attach {literal(folder / DATABASE)} as generation (read_only)")
        if before:
            con.execute(f"attach {literal(before / DATABASE)} as before (read_only)")
        con.execute("use generation")
        yield con


def read_facts(
    con: DuckDBPyConnection, manifest: Mapping[str, Any], before: Mapping[str, Any] | None = None
) -> Facts:
    """Every fact the report shows; `before` is the manifest of the generation that this one replaces."""
    about = _about(manifest)
    policy = [about.default_policy]
    return Facts(
        about,
        history=[Point(*found) for found in rows(con, HISTORY)],
        fates=[
            Fates(*found)
            for found in rows(
                con, f"select source, {_sums(FATES)} from metrics_row_fates group by 1 order by 1"
            )
        ],
        checks=_checks(manifest),
        changes=_changes(con, before),
        policies=[Policy(*found) for found in rows(con, POLICIES)],
        namespaces=[Namespace(*found) for found in rows(con, NAMESPACES)],
        combinations=[Combination(_names(held), count) for held, count in rows(con, COMBINATIONS)],
        source_combinations=[
            Combination(_names(held), count) for held, count in rows(con, SOURCE_COMBINATIONS)
        ],
        idle=[Idle(*found) for found in rows(con, IDLE)],
        audiences=_audiences(con),
        overlaps=[Overlap(*found) for found in rows(con, OVERLAPS)],
        fields=_fields(con, about.default_policy),
        won=[Won(*found) for found in rows(con, WON, policy)],
        sources=[Source(*found) for found in rows(con, SOURCES)],
        refusals=[Refusal(*found) for found in rows(con, REFUSALS)],
        destinations=[Destination(*found) for found in rows(con, DESTINATIONS)],
        weights=[Weight(*found) for found in rows(con, WEIGHTS)],
        sizes=[Size(*found) for found in rows(con, SIZES)],
        links=[Link(*found) for found in rows(con, LINKS)],
        blocks=[Block(*found) for found in rows(con, BLOCKS)],
        published=scalar(con, "select count(*) from profiles"),
        flagged=scalar(con, "select count(*) from profiles where flagged"),
    )


def _sums(columns: tuple[str, ...]) -> str:
    return ", ".join(f"sum({column})::bigint" for column in columns)


def _names(joined: str) -> tuple[str, ...]:
    """Names of an exact combination; the empty text is no name at all."""
    return tuple(joined.split(",")) if joined else ()


def _about(manifest: Mapping[str, Any]) -> About:
    matching = manifest.get("matching", {})
    return About(
        generation=manifest["generation"],
        as_of=_time(manifest),
        batch=manifest["batch"],
        revision=manifest["revision"],
        model=manifest["model"],
        policies=dict(manifest["policies"]),
        default_policy=manifest["default_policy"],
        files=dict(manifest.get("deliveries", {})),
        threshold=matching.get("threshold"),
        expected_precision=matching.get("expected_precision"),
        expected_recall=matching.get("expected_recall_of_candidates"),
        limits=TrustRules.model_validate(manifest.get("trust", {})),
    )


def _time(manifest: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(manifest["as_of"]) if manifest["as_of"] else NO_BATCH


def _checks(manifest: Mapping[str, Any]) -> list[Check]:
    """Every expectation, those that do not hold first."""
    found = [Check(**outcome) for outcome in manifest["checks"].get("outcomes", [])]
    return sorted(found, key=lambda check: (check.success, -check.failed, check.table, check.name))


HISTORY = """select batch, as_of, profile_count, person_count, pseudonymous_count, single_identity_count, unsegmented_count,
    created_count, revived_count, merged_count, retired_count, split_count, duplicates_avoided
    from metrics_snapshots order by batch"""
POLICIES = """select policy, policy_version, is_default, profile_count, completeness, high_count, medium_count, low_count,
    conflict_count from metrics_policies where batch = (select max(batch) from metrics_policies)
    order by is_default desc, policy"""
NAMESPACES = f"""select namespace, profile_count, single_identity_count, unsegmented_count from metrics_namespaces where {NOW}
    order by profile_count desc, namespace"""
COMBINATIONS = f"""select namespaces, profile_count from metrics_namespace_overlaps where {NOW}
    order by profile_count desc, namespaces"""
SOURCE_COMBINATIONS = f"""select sources, profile_count from metrics_source_overlaps where {NOW}
    order by profile_count desc, sources"""
IDLE = f"""select idle_days, sum(profile_count)::bigint, sum(event_count)::bigint from metrics_unknown_profiles where {NOW}
    group by 1 order by 1"""
OVERLAPS = f"""select audience, other_audience, overlap_count, overlap_percent from metrics_audience_overlaps
    where {NOW} and audience < other_audience and overlap_count > 0 order by overlap_percent desc, audience, other_audience"""
WON = f"""select field, source, sum(value_count)::bigint from metrics_survivorship where {NOW} and policy = ?
    group by 1, 2 order by 1, 2"""
SOURCES = f"""select source, delivered_at, newest_at, record_count, event_count, profile_count, only_source_count,
    without_time_count, late_count from metrics_sources where {NOW} order by source"""
REFUSALS = """select source, stage, reason, sum(row_count)::bigint from quarantine_summary group by 1, 2, 3
    order by 4 desc, 1, 2, 3"""
DESTINATIONS = """select destination, platform, count(a.audience), any_value(d.delivered_at) from metrics_destinations d
    left join metrics_destination_audiences a using (destination) group by 1, 2 order by 1"""
WEIGHTS = f"""select match_weight, pair_count, link_count from metrics_match_weights where {NOW}
    order by match_weight"""
SIZES = f"select cluster_size, cluster_count, flagged_count from metrics_cluster_sizes where {NOW} order by cluster_size"
LINKS = f"""select type, coalesce(namespace, ''), link_count, cut_count from metrics_links where {NOW}
    order by link_count desc, type, namespace"""
BLOCKS = f"""select rule, block_count, largest_block, pair_count, left_out_count from metrics_blocks where {NOW}
    order by largest_block desc, rule"""


def _audiences(con: DuckDBPyConnection) -> list[Audience]:
    earlier = _earlier(con, "metrics_audiences", "audience", "member_count")
    found = rows(
        con,
        f"""select audience, description, consent, coalesce(member_count, 0) from audiences
        left join (from metrics_audiences where {NOW}) using (audience) order by 4 desc, 1""",
    )
    return [Audience(*values, before=earlier.get(values[0])) for values in found]


def _fields(con: DuckDBPyConnection, policy: str) -> list[Field]:
    earlier = _earlier(con, "metrics_fields", "field", "filled_count", f"policy = {literal(policy)}")
    found = rows(
        con,
        f"""select field, filled_count, distinct_count, conflict_count from metrics_fields where {NOW} and policy = ?
        order by filled_count desc, field""",
        [policy],
    )
    return [Field(*values, before=earlier.get(values[0])) for values in found]


def _earlier(con: DuckDBPyConnection, table: str, key: str, value: str, test: str = "true") -> dict[str, int]:
    """What the generation before says, by key; nothing where it has no such table or column."""
    known = rows(
        con,
        "select count(*) from duckdb_columns() where database_name = 'before' and table_name = ? and column_name in (?, ?, 'day')",
        [table, key, value],
    )
    if known[0][0] != 3:
        return {}
    newest = f"day = (select max(day) from before.main.{table})"
    return dict(rows(con, f"select {key}, {value} from before.main.{table} where {newest} and {test}"))


def _changes(con: DuckDBPyConnection, before: Mapping[str, Any] | None) -> Changes | None:
    if before is None:
        return None
    found = difference(con, "generation.main", "before.main")
    since = "select coalesce(sum(delivered), 0)::bigint from metrics_row_fates where batch > ?"
    return Changes(
        generation=before["generation"],
        as_of=_time(before),
        profiles_before=before["tables"]["profiles"]["rows"],
        new=found.new,
        gone=found.gone,
        changed=found.changed,
        fields=sorted(found.fields.items(), key=lambda each: (-each[1], each[0])),
        rows=scalar(con, since, [before["batch"]]),
    )
