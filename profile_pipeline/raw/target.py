"""Where the rows of one delivered file go: raw.<source>, its rejects, and the columns it must have."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from duckdb import DuckDBPyConnection

from profile_pipeline.config.sources import Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.raw.streams import FileRefused
from profile_pipeline.warehouse import quote

OWN_COLUMNS = ("_file", "_line", "_nulls", "_batch", "_ingested_at", "_reasons", "_content")
"""Names this project adds to delivered rows, here and in exports of the quarantine."""
MAX_NAMED = 10
"""Names of columns that one message lists."""


@dataclass(frozen=True)
class Target:
    """One file on its way into the raw table of its source."""

    con: DuckDBPyConnection
    name: str
    source: Source
    file_id: int

    def insert(self, lines: Sequence[int], rows: Iterable[Sequence[str]], header: list[str]) -> None:
        """Append rows of text, each with a value for every column of the header."""
        import pyarrow as pa

        # one flat array, sliced by DuckDB: turning rows into columns here costs more than all of the reading
        texts = pa.array(list(chain.from_iterable(rows)), pa.string())
        row = pa.FixedSizeListArray.from_arrays(texts, len(header))
        kept = [column for column in self.source.columns if column in header]
        names = "".join(f", {quote(column)}" for column in kept)
        values = "".join(f", row[{header.index(column) + 1}]" for column in kept)
        self.con.register("chunk", pa.table({"line": pa.array(lines, pa.int64()), "row": row}))
        self.con.execute(
            f"insert into raw.{self.name} (_file, _line{names}) select {self.file_id}, line{values} from chunk"
        )
        self.con.unregister("chunk")

    def reject(self, rejects: list[tuple[int, str, str]]) -> None:
        """Keep lines that cannot be read, as (line, reason, content)."""
        import pyarrow as pa

        if not rejects:
            return
        lines, reasons, contents = zip(*rejects, strict=True)
        # an undecodable byte is a lone surrogate, which no database takes
        printable = [content.encode("utf-8", "backslashreplace").decode() for content in contents]
        self.con.register(
            "chunk", pa.table({"line": pa.array(lines, pa.int64()), "reason": reasons, "content": printable})
        )
        self.con.execute(f"insert into raw.rejects select {self.file_id}, line, reason, content from chunk")
        self.con.unregister("chunk")


def create_table(con: DuckDBPyConnection, name: str, source: Source) -> None:
    """raw.<source>: text as delivered. A column that joins the contract later is added."""
    taken = [column for column in source.columns if column.lower() in OWN_COLUMNS]
    if taken:
        raise PipelineError(
            f"sources.yaml: sources.{name}.columns: `{taken[0]}` is a name this project adds itself;"
            " have it delivered under another name"
        )
    con.execute(
        f"create table if not exists raw.{name} (_file integer not null, _line bigint not null, _nulls text[])"
    )
    for column in source.columns:
        con.execute(f"alter table raw.{name} add column if not exists {quote(column)} text")


def agree_columns(delivered: list[str], source: Source) -> list[str]:
    """Notes on added columns; raises FileRefused when a contract column is absent or named twice.

    Absent columns come first: a file without its header line has data there, which no message may quote.
    """
    absent = [c for c in source.columns if c not in delivered and c not in source.optional_columns]
    if absent:
        raise FileRefused(
            f"lacks the columns {_named(absent)}; deliver them or list them under optional_columns"
        )
    lowered = [column.lower() for column in delivered]
    twice = sorted({column for column in delivered if lowered.count(column.lower()) > 1})
    if twice:
        raise FileRefused(
            f"has columns named twice: {_named(twice)}; letter case does not tell them apart, rename one"
        )
    added = [column for column in delivered if column not in source.columns]
    more = [f"and {len(added) - MAX_NAMED} more"] if len(added) > MAX_NAMED else []
    return [
        f"new column {_named([column])}, not in the contract: ignored" for column in added[:MAX_NAMED]
    ] + more


def _named(columns: list[str]) -> str:
    """Names that came from outside, fit for one line of a message."""
    shown = ["".join(c if c.isprintable() else "?" for c in column)[:63] for column in columns[:MAX_NAMED]]
    return ", ".join(shown) + (" ..." if len(columns) > MAX_NAMED else "")
