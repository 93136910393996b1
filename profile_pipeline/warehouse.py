"""Connections, locks and transactions: the only module that knows how DuckDB is opened and written.

Stages read and write through a connection from here. What a table holds does not belong here.
"""

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.errors import BusyError, PipelineError

SCHEMAS = ("raw", "records", "identity", "profiles", "audiences", "metrics", "published", "state")
PACKAGE = Path(__file__).parent
SQL_FOLDER = PACKAGE / "sql"
PLAIN_MESSAGES = ("Malformed JSON", "Could not parse string")
"""What of DuckDB's messages about invalid input may be shown; the rest of them can be a value."""
PLAIN = "using compression 'uncompressed'"
"""After the type of a column whose texts hardly repeat, such as keys: compressing them saves half the room and costs
more time than all else about writing them, and reading them back costs time in every run. docs/adr/0013-plain-keys.md"""
RUN_PATIENCE = 5.0
"""Seconds a run waits for the project: a page that reads a score or a sensor that looks holds it for a moment."""
_held: dict[Path, tuple[TextIO, int]] = {}
_trials: set[int] = set()


def settings(temp: Path, memory: str, threads: int) -> dict[str, Any]:
    """Settings every connection gets: bounded memory and spill, nothing fetched, no Python variables.

    A killed process leaves its spill files, which hold personal data, in `temp`: always one known folder.
    """
    return {
        "memory_limit": memory,
        "threads": threads,
        "temp_directory": str(temp),
        "max_temp_directory_size": "40GB",
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "preserve_insertion_order": False,
        "allow_persistent_secrets": False,
        "max_vacuum_tasks": 0,  # see `vacuum`
        "checkpoint_threshold": "64MiB",  # with the default, 16 MiB, a small change would pay for several checkpoints
    }


def default_memory() -> str:
    """A quarter of the machine's memory: Splink, pandas and Arrow live beside it, and spilling costs little."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{max(total // 4, 2**30) // 2**20}MiB"


@contextmanager
def connect(
    database: Path, *, memory: str | None = None, threads: int | None = None
) -> Generator[DuckDBPyConnection]:
    """Open the warehouse for writing, with its schemas; always closed, whatever happens."""
    temp = database.parent / "tmp"
    _private_folder(database.parent)
    _private_folder(temp)
    threads = threads or len(os.sched_getaffinity(0))
    try:
        con = duckdb.connect(str(database), config=settings(temp, memory or default_memory(), threads))
    except duckdb.IOException as error:
        if "lock" in str(error):
            raise BusyError(f"{database.name} is open in another process; try again later") from None
        raise
    try:
        _prepare(con)
        yield con
    finally:
        con.close()


def _private_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _prepare(con: DuckDBPyConnection) -> None:
    con.execute("set global TimeZone = 'UTC'")
    for schema in SCHEMAS:
        con.execute(f"create schema if not exists {schema}")
    con.execute(
        "create table if not exists state.built (name text primary key, fingerprint text, code text, "
        "built_at timestamp with time zone, facts json)"
    )


def vacuum(con: DuckDBPyConnection) -> None:
    """Give the room of deleted rows back, which checkpoints leave as it is.

    DuckDB would do so at every checkpoint, and write whole tables again for the few rows that a small change deletes.
    """
    tasks = scalar(con, "select current_setting('max_vacuum_tasks')")
    con.execute("reset max_vacuum_tasks")
    try:
        # a checkpoint without a change does nothing
        con.execute("create or replace table state.vacuumed as select current_timestamp as vacuumed_at")
        con.execute("checkpoint")
    finally:
        con.execute(f"set max_vacuum_tasks = {tasks}")


@contextmanager
def transaction(con: DuckDBPyConnection) -> Generator[None]:
    """All of the statements inside, or none: what makes a killed run harmless."""
    if id(con) in _trials:
        yield
        return
    con.execute("begin transaction")
    try:
        yield
    except BaseException:
        con.execute("rollback")
        raise
    con.execute("commit")


@contextmanager
def rolled_back(con: DuckDBPyConnection) -> Generator[None]:
    """A trial: its statements see each other's effects, transactions and trials inside join it, and nothing of it stays."""
    if id(con) in _trials:
        yield
        return
    con.execute("begin transaction")
    _trials.add(id(con))
    try:
        yield
    finally:
        _trials.remove(id(con))
        con.execute("rollback")


@contextmanager
def scratch(con: DuckDBPyConnection) -> Generator[DuckDBPyConnection]:
    """A cursor whose default database is a throw-away one: large intermediates never touch the warehouse.

    It lives in memory, which saves compressing what is read once; what exceeds the limit spills like any result.
    Tables of the warehouse are visible as `warehouse.<schema>.<table>`.
    """
    cursor = con.cursor()
    cursor.execute("attach ':memory:' as scratch")
    try:
        cursor.execute("use scratch")
        yield cursor
    finally:
        cursor.execute(f"use {quote(database_name(con))}")
        cursor.execute("detach scratch")
        cursor.close()


def database_name(con: DuckDBPyConnection) -> str:
    """The catalog name of a connection's own database; DuckDB derives it from the file name."""
    return scalar(con, "select current_database()")


def quote(name: str) -> str:
    """A column or table name that came from outside, safe inside SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(value: object) -> str:
    """The inside of a SQL string literal, for the few statements that take no bound values."""
    return str(value).replace("'", "''")


def literal(value: object) -> str:
    """A SQL string literal, for the few places that take no bound values (paths, options)."""
    return f"'{quote_text(value)}'"


def rows(
    con: DuckDBPyConnection, query: str, values: Sequence[Any] | dict[str, Any] = ()
) -> list[tuple[Any, ...]]:
    """Every row of a small result. Results stream in DuckDB 2: one left open blocks the connection."""
    return con.execute(query, values if isinstance(values, dict) else list(values)).fetchall()


def scalar(con: DuckDBPyConnection, query: str, values: Sequence[Any] | dict[str, Any] = ()) -> Any:  # noqa: ANN401
    """The first column of the first row, or None when there is no row."""
    found = rows(con, query, values)
    return found[0][0] if found else None


def records_of(con: DuckDBPyConnection, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """Every row of a small result as a dictionary by column."""
    cursor = con.execute(query, list(values))
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def replace_table(con: DuckDBPyConnection, table: str, query: str, values: Sequence[Any] = ()) -> int:
    """Create or replace a table from a query; the number of rows written. `temp.` names live with the connection."""
    kind = "temp table" if table.startswith("temp.") else "table"
    return rows(con, f"create or replace {kind} {table} as {query}", values)[0][0]


def replace_plain(con: DuckDBPyConnection, table: str, query: str, plain: Collection[str]) -> None:
    """Create or replace a table from a query; the columns named in `plain` are not compressed (see PLAIN)."""
    columns = ", ".join(
        f"{quote(name)} {kind} {PLAIN if name in plain else ''}"
        for name, kind in columns_of(con, query).items()
    )
    con.execute(f"create or replace table {table} ({columns})")
    con.execute(f"insert into {table} {query}")


def rows_where(table: str, condition: str, columns: str = "*") -> str:
    """Few rows of a large table, as a query that reads the others only for the condition.

    For a semi join DuckDB may read every column of every row; for row ids it passes over what it does not need. Where few
    columns are asked for, a plain condition takes less time.
    """
    return f"select {columns} from {table} where rowid in (select rowid from {table} where {condition})"


def write_differing(
    con: DuckDBPyConnection,
    table: str,
    now: str,
    compared: Sequence[str],
    looked_at: str,
    differing: str = "temp.differing",
) -> None:
    """Bring the rows of some nodes to those of the table `now`; rows that say the same stay, which costs less to log.

    Both have a row a `node` at most, and no nulls in the columns compared. `looked_at` is a query of nodes: those of
    `now`, and those whose rows are to go. Leaves a table of the nodes that differ (node, and the columns compared as they were).
    """
    columns = ", ".join(compared)
    differs = " or ".join(f"n.{column} is distinct from b.{column}" for column in compared)
    replace_table(
        con,
        differing,
        f"""select coalesce(n.node, b.node) as node, b.* exclude (node) from {now} n
        full join (select rowid as place, node, {columns} from {table} where node in ({looked_at})) b using (node)
        where {differs}""",
    )
    con.execute(f"delete from {table} where rowid in (select place from {differing})")
    con.execute(f"insert into {table} by name from {now} semi join {differing} using (node)")


def table_exists(con: DuckDBPyConnection, table: str) -> bool:
    """Whether `schema.table` exists, as a table or a view."""
    return table_kind(con, table) is not None


def table_kind(con: DuckDBPyConnection, table: str) -> str | None:
    """BASE TABLE or VIEW, None when there is no `schema.table`."""
    schema, name = table.split(".")
    # information_schema.tables says the same, and takes ten times as long to do so
    listings = {"BASE TABLE": ("duckdb_tables()", "table_name"), "VIEW": ("duckdb_views()", "view_name")}
    for kind, (listing, column) in listings.items():
        named = f"schema_name = ? and {column} = ? and database_name = current_database()"
        if scalar(con, f"select true from {listing} where {named}", [schema, name]):
            return kind
    return None


def columns_of(con: DuckDBPyConnection, table: str) -> dict[str, str]:
    """Column names and DuckDB types of a table or query, in order."""
    return {name: kind for name, kind, *_ in rows(con, f"describe {table}")}


def count(con: DuckDBPyConnection, table: str, where: str = "true") -> int:
    """Rows of a table that satisfy a condition."""
    return scalar(con, f"select count(*) from {table} where {where}")


def fixed_query(name: str) -> str:
    """The text of `sql/<stage>/<table>.sql`: queries whose shape does not depend on the rules."""
    return (SQL_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def fingerprint(*parts: object) -> str:
    """A short hash of everything a table depends on; equal inputs give equal text."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.cache
def code_version() -> str:
    """A hash of this package's own sources: tables written by other code are computed afresh."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in {".py", ".sql"}:
            digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def built(con: DuckDBPyConnection, name: str) -> str | None:
    """The fingerprint under which this version of the code last wrote a table, or None."""
    return scalar(
        con, "select fingerprint from state.built where name = ? and code = ?", [name, code_version()]
    )


def facts(con: DuckDBPyConnection, name: str) -> dict[str, Any]:
    """The numbers a stage noted when it last wrote a table."""
    return json.loads(scalar(con, "select facts from state.built where name = ?", [name]) or "{}")


def mark_built(con: DuckDBPyConnection, name: str, mark: str, noted: dict[str, Any] | None = None) -> None:
    """Remember under which fingerprint a table was written, in the same transaction as the table."""
    values = [mark, code_version(), datetime.now(UTC), json.dumps(noted or {}, default=str), name]
    # `insert or replace` would do both, and takes as long as four of these
    update = "update state.built set fingerprint = ?, code = ?, built_at = ?, facts = ? where name = ?"
    if not scalar(con, update, values):
        con.execute(
            "insert into state.built (fingerprint, code, built_at, facts, name) values (?, ?, ?, ?, ?)",
            values,
        )


def continues(con: DuckDBPyConnection, table: str, base: str) -> bool:
    """Whether a table was last written by this code under the same rules, so that only changes have to be looked at."""
    by_this_code = "select facts from state.built where name = ? and code = ?"
    noted = scalar(con, by_this_code, [table, code_version()])
    return bool(base and noted) and json.loads(noted).get("base") == base


def last_full(con: DuckDBPyConnection, table: str) -> str:
    """The fingerprint of the last time a table was computed as a whole: part of the base of what follows it."""
    return facts(con, table).get("full", "")


def upstream(con: DuckDBPyConnection, names: Iterable[str]) -> list[str | None]:
    """Fingerprints of the tables a stage reads, in order."""
    found = dict(rows(con, "select name, fingerprint from state.built where code = ?", [code_version()]))
    return [found.get(name) for name in names]


@contextmanager
def run_lock(state: Path, *, patience: float = 0.0) -> Generator[None]:
    """Hold the project for one run; re-entrant inside a process, freed by the kernel when it dies.

    Raises BusyError when another process still holds it after `patience` seconds: it names the process and since when.
    """
    path = state.resolve() / ".lock"
    file, depth = _held.get(path, (None, 0))
    if file is None:
        file = _take(path, patience)
    _held[path] = (file, depth + 1)
    try:
        yield
    finally:
        file, depth = _held[path]
        _held[path] = (file, depth - 1)
        if depth == 1:
            del _held[path]
            file.close()


def _take(path: Path, patience: float) -> TextIO:
    _private_folder(path.parent)
    file = path.open("a+", encoding="utf-8")
    give_up = time.monotonic() + patience
    while not _locked(file):
        if time.monotonic() < give_up:
            time.sleep(0.05)
            continue
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise BusyError(f"another run holds this project ({holder}); wait for it to end") from None
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    file.flush()
    return file


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def scrubbed(error: Exception) -> PipelineError:
    """An error without the values that DuckDB quotes in its messages, safe for logs and run storage.

    A value can hold quotes and line ends itself, so everything between the first quote and the last goes. A
    function's complaint about its input can be the value through and through: only known beginnings stay.
    """
    message = str(error).split("\n\nLINE ")[0]
    if isinstance(error, duckdb.InvalidInputException):
        known = next((start for start in PLAIN_MESSAGES if start in message), "a function refused a value")
        return PipelineError(f"{type(error).__name__}: {known}")
    text = re.sub(r"['\"`].*['\"`]", "<value>", message, flags=re.DOTALL)
    text = re.sub(r"['\"`].*", "<value>", text.splitlines()[0] if text else "")
    text = re.sub(r"\S*@\S*|(?<![A-Za-z])\d[\d/.:+() -]{2,}\d", "<value>", text)
    return PipelineError(f"{type(error).__name__}: {text[:300]}")


def free_space(folder: Path) -> int:
    """Bytes free on the file system of a folder."""
    return shutil.disk_usage(folder).free
