"""Run and quality facts as tables: where every row went, and what the profiles look like."""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity.spellings import duplicates_avoided
from profile_pipeline.records.current import fates
from profile_pipeline.warehouse import (
    built,
    fingerprint,
    mark_built,
    replace_table,
    rows,
    transaction,
    upstream,
)

FATES = ("current", "superseded", "events", "expired", "quarantined", "not_selected", "reverted")


def build_row_fates(con: DuckDBPyConnection, config: Config) -> None:
    """Write metrics.row_fates: the conservation law by source and batch, one row for each."""
    mark = fingerprint(upstream(con, ["records.current", "records.events", "records.quarantine"]), 3)
    if built(con, "metrics.row_fates") == mark:
        return
    with transaction(con):
        columns = ", ".join(f"{fate} bigint" for fate in FATES)
        con.execute(
            f"create or replace table metrics.row_fates (source text, batch integer, delivered bigint, {columns})"
        )
        values = [(s, b, d, *(f[name] for name in FATES)) for s, b, d, f in fates(con, config)]
        if values:
            con.executemany(f"insert into metrics.row_fates values (?, ?, ?{', ?' * len(FATES)})", values)
        mark_built(con, "metrics.row_fates", mark)


def unbalanced(con: DuckDBPyConnection) -> list[tuple[str, int, int]]:
    """Sources and batches whose fates do not add up to the rows delivered: (source, batch, difference)."""
    return rows(
        con,
        f"select source, batch, delivered - ({' + '.join(FATES)}) as missing from metrics.row_fates"
        " where missing <> 0 order by 1, 2",
    )


def build_profile_facts(con: DuckDBPyConnection, config: Config) -> None:
    """Write metrics.profiles, metrics.fields and metrics.audiences; counts the duplicates that normalising avoided."""
    names = ["profiles.unified", "profiles.lineage", "profiles.identifiers", "audiences.membership"]
    mark = fingerprint(upstream(con, names), 1)
    if built(con, "metrics.profiles") == mark:
        return
    with transaction(con):
        replace_table(con, "metrics.profiles", _profiles_query())
        replace_table(con, "metrics.fields", _fields_query())
        replace_table(con, "metrics.audiences", _audiences_query())
        noted = {"duplicates_avoided": duplicates_avoided(con, config)}
        for table in ("metrics.profiles", "metrics.fields", "metrics.audiences"):
            mark_built(con, table, mark, noted)


def _profiles_query() -> str:
    """Grain: profile kind and number of records."""
    return """select kind, least(record_count, 10) as record_count, count(*) as profile_count,
        sum(event_count) as event_count from profiles.unified group by 1, 2 order by 1, 2"""


def _fields_query() -> str:
    """Grain: policy and field. Conflict: profiles in which different values were on offer."""
    return """
        with offered as (
            select policy, field, profile_id, min(lower(value)) <> max(lower(value)) as different,
                bool_or(won and value is not null) as filled
            from profiles.lineage group by 1, 2, 3
        )
        select policy, field, count(*) filter (filled) as filled_count,
            count(*) filter (different) as conflict_count
        from offered group by 1, 2 order by 1, 2"""


def _audiences_query() -> str:
    """Grain: audience."""
    return """select audience, count(*) filter (exited_at is null) as member_count,
        count(*) filter (exited_at is not null) as left_count from audiences.membership group by 1 order by 1"""
