"""Splink, asked for the query by which it scores pairs, with frozen frequencies.

What Splink writes depends on the settings and the columns only, so it is asked once, over empty tables, and the query
is run as often as there are pairs. docs/adr/0014-scoring-query.md
"""

import functools
import importlib.metadata
import json
import logging
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import quote, replace_table

PAIRS = "(match_key smallint, join_key_l ubigint, join_key_r ubigint)"
"""Grain: one row a pair to score; the keys are the `unique_id` of its records."""
NOTHING_FETCHED: dict[str, Any] = {
    "autoinstall_known_extensions": False, "autoload_known_extensions": False, "python_enable_replacements": False,
}  # fmt: skip
"""Settings of the database of empty tables: as in the warehouse, no query loads an extension or reads a Python variable."""
SHOWN_FEATURES, SHOWN_PAIRS = "shown_features", "shown_pairs"
"""The relations that a scoring query reads, beside the frozen frequencies: its caller makes them views."""


@contextmanager
def _quiet_splink() -> Generator[None]:
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


def splink_version() -> str:
    """Of the Splink that writes the scoring queries, without loading it."""
    return importlib.metadata.version("splink")


def scoring_query(settings: dict[str, Any], columns: dict[str, str]) -> str:
    """Splink's query of the match weights of the pairs in `shown_pairs`, over records in `shown_features`.

    `columns` are names and DuckDB types of the features. Frequencies come from the tables frozen_<field>. Grain: one row
    a pair, with the columns that Splink's predictions have under these settings.
    """
    return _scoring_query(json.dumps(settings), tuple(columns.items()))


@functools.lru_cache(maxsize=32)
def _scoring_query(settings_json: str, columns: tuple[tuple[str, str], ...]) -> str:
    from splink import DuckDBAPI, Linker

    settings, types = json.loads(settings_json), dict(columns)
    with duckdb.connect(config=NOTHING_FETCHED) as con, _quiet_splink():
        api, names = DuckDBAPI(connection=con), {}

        def registered(table: str, definition: str) -> Any:  # noqa: ANN401
            con.execute(f"create table {table} {definition}")
            frame = api.register(con.table(table))
            names[frame.physical_name] = table
            return frame

        listed = ", ".join(f"{quote(name)} {kind}" for name, kind in columns)
        # its own check of settings costs more than scoring a small project; a mistake shows as an SQL error
        linker = Linker(
            registered(SHOWN_FEATURES, f"({listed})"), settings, validate_settings=False, log_level=40
        )
        for field in frequency_fields(settings):
            definition = f"({quote(field)} {types[field]}, tf_{field} double)"
            linker.table_management.register_term_frequency_lookup(
                registered(f"frozen_{field}", definition), field
            )
        pairs = linker.table_management.register_blocked_pairs_for_predict(registered(SHOWN_PAIRS, PAIRS))
        # Splink would copy the features of either side first: they are in a table already, with few others
        pairs.metadata["registered_for_predict"] = False
        query = linker.inference.predict(warning_mode="never").sql_used_to_create
    for theirs, ours in names.items():
        query = re.sub(rf"\b{re.escape(theirs)}\b", ours, query)
    return query


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
