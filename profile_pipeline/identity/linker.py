"""Splink, kept quiet: linkers over `features` of the scratch database, with frozen frequencies."""

import itertools
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import quote, replace_table, rows

if TYPE_CHECKING:
    from splink import Linker

_numbers = itertools.count()


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


def make_linker(work: DuckDBPyConnection, wanted: dict[str, Any], features: str = "features") -> "Linker":
    """A Splink linker over a table of features."""
    from splink import DuckDBAPI, Linker

    api = DuckDBAPI(connection=work)
    # a display name may be used once in a database
    frame = api.register(work.table(features), dataset_display_name=f"features_{next(_numbers)}")
    # its own check of settings costs more than scoring a small project; a mistake shows as an SQL error
    return Linker(frame, wanted, validate_settings=False, log_level=40)


def register_pairs(linker: "Linker", work: DuckDBPyConnection, table: str) -> None:
    """Make a linker score the pairs of a table (match_key, join_key_l, join_key_r) instead of blocking."""
    frame = linker._db_api.register(work.table(table))
    registered = linker.table_management.register_blocked_pairs_for_predict(frame)
    # Splink would copy the features of either side first: they are in a table already, with few others
    registered.metadata["registered_for_predict"] = False


def frequency_fields(settings: dict[str, Any]) -> list[str]:
    """The match fields whose values count by how rare they are."""
    levels = [level for comparison in settings["comparisons"] for level in comparison["comparison_levels"]]
    return sorted({level["tf_adjustment_column"] for level in levels if "tf_adjustment_column" in level})


def load_frequencies(
    work: DuckDBPyConnection, settings: dict[str, Any], model_id: str, database: str
) -> None:
    """Copy the term frequencies of a model into the scratch database, as frozen_<field>.

    A field without any is an empty table: Splink would count the values of the day instead.
    """
    for field in frequency_fields(settings):
        replace_table(
            work,
            f"frozen_{field}",
            f"""select value as {quote(field)}, frequency as tf_{field} from {database}.identity.term_frequencies
            where model_id = ? and field = ?""",
            [model_id, field],
        )


def register_frequencies(work: DuckDBPyConnection, linker: "Linker") -> None:
    """Give Splink the frozen frequencies, so that a score never depends on other records."""
    frozen = rows(
        work,
        "select table_name from duckdb_tables() where database_name = 'scratch' and starts_with(table_name, 'frozen_')",
    )
    for (table,) in frozen:
        frame = linker._db_api.register(work.table(table))
        linker.table_management.register_term_frequency_lookup(frame, table.removeprefix("frozen_"))
