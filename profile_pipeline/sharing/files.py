"""Files of a delivery: names from templates, rows cut into parts, Parquet, CSV that spreadsheets may open, JSON lines."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.sharing import FileForm, Shipment
from profile_pipeline.raw.ledger import sha256_of
from profile_pipeline.sharing.hashing import hashed_query
from profile_pipeline.sharing.query import Column
from profile_pipeline.warehouse import columns_of, count, literal, quote

FULL_WIDTH = (
    "\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
)
FORMULA = f"^''*[=+\\-@\\t\\r\\n{FULL_WIDTH}]"
"""As in `sheets`: what starts a formula, behind any apostrophes. Inside a SQL literal, so its apostrophe is doubled."""
NUMBER = "[+-]?[0-9]+([.,][0-9]+)?"
CHANGE, OTHER, ROW = "change", "other_profile_id", "row_key"
"""Columns that an incremental delivery has in front of its own."""


@dataclass(frozen=True)
class File:
    """A file of a delivery."""

    name: str
    rows: int
    bytes: int
    sha256: str

    def as_entry(self) -> dict[str, Any]:
        """Its entry in a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Naming:
    """What tokens in names stand for."""

    destination: str
    shipment: str
    table: str
    as_of: datetime | None
    generation: int
    delivery: int

    def fill(self, template: str, part: int = 1) -> str:
        """A name from its template; times are those of the data, in UTC, so that a repetition has the same name."""
        moment = self.as_of.astimezone(UTC) if self.as_of else None
        return template.format(
            destination=self.destination,
            shipment=self.shipment,
            table=self.table,
            date=f"{moment:%Y-%m-%d}" if moment else "no-date",
            time=f"{moment:%H%M%S}" if moment else "no-time",
            generation=f"{self.generation:06d}",
            delivery=f"{self.delivery:06d}",
            part=f"{part:04d}",
        )


def all_rows_query(columns: Sequence[Column]) -> str:
    """Everything of scratch.outgoing under the names that the destination knows."""
    return f"select {_named(columns)}, rowid as _row from scratch.outgoing"


def changed_rows_query(columns: Sequence[Column], *, of_profiles: bool) -> str:
    """Rows of scratch.changes; of those that are gone only the id is known."""
    hashed = next((column.hashed for column in columns if column.source == "profile_id"), "")
    key = f"{_id('c.other', hashed)} as {OTHER}" if of_profiles else f"c._key::text as {ROW}"
    values = [
        _id("c._key", hashed) if of_profiles and column.source == "profile_id" else f"o.c{n}"
        for n, column in enumerate(columns)
    ]
    named = ", ".join(f"{v} as {quote(c.name)}" for v, c in zip(values, columns, strict=True))
    return (
        f"select c.change as {CHANGE}, {key}, {named}, c.rowid as _row"
        " from scratch.changes c left join scratch.outgoing o using (_key)"
    )


def _id(expression: str, hashed: str) -> str:
    """A profile id as the destination knows it."""
    return hashed_query(f"{expression}::text", hashed) if hashed else f"{expression}::text"


def _named(columns: Sequence[Column]) -> str:
    return ", ".join(f"c{n} as {quote(column.name)}" for n, column in enumerate(columns))


def write_files(
    con: DuckDBPyConnection, query: str, table: str, shipment: Shipment, naming: Naming, folder: Path
) -> list[File]:
    """Write the rows of `query` over `table`, whose row numbers it has as `_row`, in parts."""
    form, total = shipment.format, count(con, table)
    size = shipment.rows_per_file or max(total, 1)
    types = columns_of(con, f"({query})")
    shown = ", ".join(_cell(name, kind, form) for name, kind in types.items() if name != "_row")
    found = []
    con.execute("set preserve_insertion_order = true")
    for part, (first, behind) in enumerate(_parts(total, size), start=1):
        path = folder / f"{naming.fill(shipment.file, part)}{form.ending}"
        rows = f"select {shown} from ({query}) where _row >= {first} and _row < {behind} order by _row"
        con.execute(f"copy ({rows}) to {literal(path)} ({_options(form)})")
        path.chmod(0o600)
        found.append(File(path.name, min(behind, total) - first, path.stat().st_size, sha256_of(path)))
    con.execute("set preserve_insertion_order = false")
    return found


def _parts(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Row numbers of each part, first and behind the last; one part where there are no rows."""
    for first in range(0, max(total, 1), size):
        yield first, first + size


def _cell(name: str, kind: str, form: FileForm) -> str:
    """A column as it is written: CSV has nothing but text and numbers."""
    if form.type != "csv":
        return quote(name)
    value = quote(name)
    if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "JSON")):
        value, kind = f"to_json({value})::text", "VARCHAR"
    if not form.spreadsheet_safe or kind != "VARCHAR":
        return f"{value} as {quote(name)}"
    risky = f"regexp_matches({value}, '{FORMULA}') and not regexp_full_match({value}, '{NUMBER}')"
    return f"if({risky}, '''' || {value}, {value}) as {quote(name)}"


def _options(form: FileForm) -> str:
    if form.type == "parquet":
        packing = {"none": "uncompressed"}.get(form.packing, form.packing)
        return f"format parquet, compression {packing}"
    if form.type == "jsonl":
        return f"format json, compression {form.packing}"
    return (
        f"format csv, header {str(form.header).lower()}, delimiter {literal(form.delimiter)}, quote '\"', escape '\"',"
        f" nullstr {literal(form.missing)}, compression {form.packing}"
    )
