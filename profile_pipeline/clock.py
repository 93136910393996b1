"""The clock of computed attributes and audiences: the as-of time of the newest batch, never the computer's clock."""

from datetime import UTC, datetime

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import literal, scalar, table_exists

NO_BATCH = datetime(1970, 1, 1, tzinfo=UTC)


def clock(con: DuckDBPyConnection) -> datetime:
    """The as-of time of the newest batch, in UTC."""
    found = scalar(con, "select max(as_of) from raw.batches") if table_exists(con, "raw.batches") else None
    return found.astimezone(UTC) if found else NO_BATCH


def moment(at: datetime) -> str:
    """A time as SQL."""
    return f"timestamptz {literal(at.isoformat())}"


def start_of(as_of: datetime, within: str) -> str:
    """The last moment before a window: what is later than it is inside."""
    return f"({moment(as_of)} - interval {literal(within)})"
