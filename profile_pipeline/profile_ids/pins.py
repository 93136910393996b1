"""Pins: a steward ties an id to a record, and the id goes where the record goes, before any other claim."""

from datetime import UTC, datetime

from duckdb import DuckDBPyConnection

from profile_pipeline.errors import PipelineError
from profile_pipeline.profile_ids.tables import create_tables
from profile_pipeline.warehouse import rows, scalar, transaction


def pin(con: DuckDBPyConnection, profile_id: str, record_key: str, author: str, reason: str) -> None:
    """Tie an id (active or retired) to a record from the next run on; replaces the id's earlier pin.

    Raises when the id was never given out, was erased, the record is unknown, or it holds another id's pin.
    """
    create_tables(con)
    if _retirement(con, profile_id) == "erased":
        raise PipelineError(f"{profile_id} was erased; an erased id is never given out again")
    if not scalar(con, "select 1 from identity.membership where record_key = ? limit 1", [record_key]):
        raise PipelineError(f"no record `{record_key}`; record keys are written `source:key`")
    holder = scalar(con, "select profile_id from identity.pins where record_key = ?", [record_key])
    if holder not in (None, profile_id):
        raise PipelineError(
            f"`{record_key}` is pinned to {holder}; `profile-pipeline ids unpin {holder}` first"
        )
    with transaction(con):
        con.execute("delete from identity.pins where profile_id = ?", [profile_id])
        con.execute(
            "insert into identity.pins values (?, ?, ?, ?, ?, null)",
            [profile_id, record_key, author, reason, datetime.now(UTC)],
        )


def _retirement(con: DuckDBPyConnection, profile_id: str) -> str | None:
    """Why an id is retired; None while it is active."""
    found = rows(con, "select reason from identity.registry where profile_id = ?", [profile_id])
    if not found:
        raise PipelineError(f"{profile_id} was never given out; `profile-pipeline lookup` finds ids")
    return found[0][0]


def unpin(con: DuckDBPyConnection, profile_id: str) -> None:
    """Let an id follow its records again. Raises when it is not pinned."""
    create_tables(con)
    if not scalar(con, "select 1 from identity.pins where profile_id = ?", [profile_id]):
        raise PipelineError(f"{profile_id} is not pinned")
    con.execute("delete from identity.pins where profile_id = ?", [profile_id])
