"""Parquet: DuckDB reads the file, every value as text; the ledger's hash tells whether a bit has flipped."""

from pathlib import Path

from profile_pipeline.raw.target import Target, agree_columns
from profile_pipeline.warehouse import literal, quote


def load(target: Target, path: Path) -> list[str]:
    """Append the rows of a file to its raw table; notes for the ledger. `_line` is the row number from 1."""
    import pyarrow.parquet as pq

    # DuckDB renames columns that differ by letter case only: the names come from the file itself
    delivered = pq.read_schema(path.as_posix()).names
    notes = agree_columns(delivered, target.source)
    file = f"read_parquet({literal(path)}, file_row_number = true)"
    kept = [column for column in target.source.columns if column in delivered]
    names = "".join(", " + quote(column) for column in kept)
    values = "".join(f", cast({quote(column)} as text)" for column in kept)
    target.con.execute(
        f"insert into raw.{target.name} (_file, _line, _nulls{names})"
        f" select {target.file_id}, file_row_number + 1, {_nulls(target, kept)}{values} from {file}"
    )
    return notes


def _nulls(target: Target, kept: list[str]) -> str:
    """The columns of the file that are NULL, where that clears a field; a column that is not there says nothing."""
    if target.source.clear_value != "null":
        return "null"
    flags = ", ".join(f"case when {quote(column)} is null then {literal(column)} end" for column in kept)
    return f"nullif(list_filter(cast([{flags}] as text[]), lambda name: name is not null), [])"
