"""Splink, kept quiet: linkers over the `features` table of the scratch database, with frozen frequencies."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import quote, rows, scalar

if TYPE_CHECKING:
    from splink import Linker


@contextmanager
def quiet_splink() -> Generator[None]:
    """Splink's progress notes are for notebooks; its warnings could quote column contents."""
    import warnings

    loggers = [logging.getLogger(name) for name in ("splink", "splink.internals")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def make_linker(work: DuckDBPyConnection, wanted: dict[str, Any], name: str) -> "Linker":
    """A Splink linker over `features`; the name may be used once in a scratch database."""
    from splink import DuckDBAPI, Linker

    api = DuckDBAPI(connection=work)
    features = api.register(work.table("features"), dataset_display_name=name)
    # its own check of settings costs more than scoring a small project; a mistake shows as an SQL error
    return Linker(features, wanted, validate_settings=False, log_level=40)


def register_pairs(linker: "Linker", work: DuckDBPyConnection, table: str) -> None:
    """Make a linker score the pairs of a table (match_key, join_key_l, join_key_r) instead of blocking."""
    frame = linker._db_api.register(work.table(table))
    linker.table_management.register_blocked_pairs_for_predict(frame)


def register_frequencies(work: DuckDBPyConnection, linker: "Linker", model_id: str, database: str) -> None:
    """Give Splink the term frequencies of the model, so that a score never depends on other records."""
    frequencies = f"{database}.identity.term_frequencies"
    if not _exists(work, database, "term_frequencies"):
        return
    for (field,) in rows(
        work, f"select distinct field from {frequencies} where model_id = ? order by 1", [model_id]
    ):
        if not _exists(work, "scratch", f"frozen_{field}"):
            work.execute(
                f"create table frozen_{field} as select value as {quote(field)}, frequency as tf_{field}"
                f" from {frequencies} where model_id = ? and field = ?",
                [model_id, field],
            )
        frame = linker._db_api.register(work.table(f"frozen_{field}"))
        linker.table_management.register_term_frequency_lookup(frame, field)


def _exists(con: DuckDBPyConnection, database: str, table: str) -> bool:
    return bool(
        scalar(
            con,
            "select count(*) from duckdb_tables() where database_name = ? and table_name = ?",
            [database, table],
        )
    )
