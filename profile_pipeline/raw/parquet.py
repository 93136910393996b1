"""Parquet: DuckDB reads the file, every value as text; the ledger's hash tells whether a bit has flipped."""

from pathlib import Path

from duckdb import DuckDBPyConnection

from profile_pipeline.raw.target import Target, agree_columns
from profile_pipeline.warehouse import literal, quote, rows

NESTED = ("STRUCT(", "MAP(", "VARIANT")
"""How DuckDB's names of types with parts begin; those of lists and arrays end with a bracket."""


def load(target: Target, path: Path) -> list[str]:
    """Append the rows of a file to its raw table; notes for the ledger. `_line` is the row number from 1."""
    import pyarrow.parquet as pq

    # DuckDB renames columns that differ by letter case only: the names come from the file itself
    delivered = pq.read_schema(path.as_posix()).names
    notes = agree_columns(delivered, target.source)
    file = numbered(path)
    texts = text_queries(target.con, path)
    kept = [column for column in target.source.columns if column in delivered]
    names = "".join(", " + quote(column) for column in kept)
    values = "".join(f", {texts[column]}" for column in kept)
    target.con.execute(
        f"insert into raw.{target.name} (_file, _line, _nulls{names})"
        f" select {target.file_id}, file_row_number + 1, {_nulls(target, kept)}{values} from {file}"
    )
    return notes


def numbered(path: Path) -> str:
    """The rows of a file with their `file_row_number`, from 0."""
    return f"read_parquet({literal(path)}, file_row_number = true)"


def text_queries(con: DuckDBPyConnection, path: Path) -> dict[str, str]:
    """Column to its value as text: JSON where the value has parts, as in a source of JSON lines."""
    described = rows(con, f"describe select * exclude (file_row_number) from {numbered(path)}")
    return {column: _text(column, kind) for column, kind, *_ in described}


def _text(column: str, kind: str) -> str:
    nested = kind.startswith(NESTED) or kind.endswith("]")
    return f"cast({f'to_json({quote(column)})' if nested else quote(column)} as text)"


def _nulls(target: Target, kept: list[str]) -> str:
    """The columns of the file that are NULL, where that clears a field; a column that is not there says nothing."""
    if target.source.clear_value != "null":
        return "null"
    flags = ", ".join(f"case when {quote(column)} is null then {literal(column)} end" for column in kept)
    return f"nullif(list_filter(cast([{flags}] as text[]), lambda name: name is not null), [])"
