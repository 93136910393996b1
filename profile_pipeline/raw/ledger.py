"""The file ledger: every delivered file once, with its hash, and the batch that brought it.

States of a file: found (seen, not yet read), loaded, duplicate (same bytes under another name), refused
(could not be read, with the reason), removed (refused, and taken away since), reverted (its rows no longer count).
"""

import fnmatch
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.warehouse import (
    fingerprint,
    literal,
    mark_built,
    rows,
    scalar,
    table_exists,
    transaction,
)

IGNORED_SUFFIXES = (".part", ".tmp", ".crdownload", ".sha256")
TABLES = """
create sequence if not exists raw.file_ids;
create table if not exists raw.batches (batch integer primary key, as_of timestamptz not null,
    volume_accepted boolean not null default false);
create table if not exists raw.files (
    file_id integer primary key, source text not null, name text not null, sha256 text not null,
    size_bytes bigint not null, modified_ns bigint not null, batch integer not null, state text not null,
    reason text, row_count bigint not null default 0, rejected_count bigint not null default 0,
    notes text[] not null default [], read_as text);
create table if not exists raw.rejects (
    file_id integer not null, line bigint not null, reason text not null, content text);
create table if not exists raw.replays (
    file_id integer not null, line bigint not null, replayed_by_name text not null, replayed_at timestamptz not null);
create table if not exists raw.reverted_batches (batch integer primary key, as_of timestamptz not null,
    volume_accepted boolean not null);
create table if not exists raw.reverted_files (file_id integer not null, state text not null, reason text);
"""
COUNTED = "('found', 'loaded', 'duplicate')"
"""States of the files that a revert takes out."""
VANISHED = "is no longer there; deliver it again"
"""Why a file is refused that was taken away between being seen and being read."""


@dataclass(frozen=True)
class Delivery:
    """A file in a delivery folder that matches the pattern of a source."""

    source: str
    name: str
    path: Path
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Scan:
    """What a look at the delivery folders found; problems, strangers and reverted files are for the user's eyes."""

    new: int
    conflicts: list[str]
    unclaimed: list[str]
    reverted: list[str]


def create_tables(con: DuckDBPyConnection) -> None:
    """The ledger's own tables, if they are not there yet."""
    con.execute(TABLES)


def delivered_files(project: Project) -> Iterator[tuple[str, Path]]:
    """Files in the delivery folders as (name relative to the data folder, path), sorted by name."""
    for folder in project.deliveries:
        for path in sorted(folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if path.is_file() and not hidden and not path.name.endswith(IGNORED_SUFFIXES):
                yield path.relative_to(project.data).as_posix(), path


def deliveries(config: Config, project: Project) -> tuple[list[Delivery], list[str]]:
    """Deliveries of all sources, and the names of files that no source claims."""
    found, unclaimed = [], []
    for name, path in delivered_files(project):
        claims = [source for source, rule in config.sources.items() if fnmatch.fnmatch(path.name, rule.files)]
        try:
            status = path.stat()
        except FileNotFoundError:  # taken away or renamed since the folder was listed
            continue
        found += [Delivery(source, name, path, status.st_size, status.st_mtime_ns) for source in claims]
        if not claims:
            unclaimed.append(name)
    return found, unclaimed


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settled(project: Project, item: Delivery, seconds: float) -> bool:
    """Whether nobody has written for so long to a file of the inbox, where files may still be arriving."""
    return not item.path.is_relative_to(project.inbox) or item.modified_ns <= time.time_ns() - int(
        seconds * 1e9
    )


def scan(
    con: DuckDBPyConnection, config: Config, project: Project, as_of: datetime, settled_seconds: float = 0.0
) -> Scan:
    """Enter new deliveries into the ledger as one batch; atomic, and harmless to repeat.

    Files of the inbox that have not settled wait for another scan.
    """
    create_tables(con)
    found, unclaimed = deliveries(config, project)
    if settled_seconds:
        found = [item for item in found if settled(project, item, settled_seconds)]
    conflicts: list[str] = []
    reverted: list[str] = []
    with transaction(con):
        _note_removed(con, project)
        new = [item for item in found if _is_new(con, config, item, conflicts, reverted)]
        hashes = _hashes(new, conflicts)
        if hashes:
            _enter(con, hashes, as_of)
        mark_built(
            con,
            "raw.files",
            fingerprint(
                rows(
                    con,
                    "select file_id, source, name, sha256, batch, state = 'reverted' from raw.files order by 1",
                )
            ),
        )
    return Scan(len(hashes), conflicts, unclaimed, reverted)


def _note_removed(con: DuckDBPyConnection, project: Project) -> None:
    """Nobody waits for a refused file that was taken away. A folder that is missing itself says nothing of its files."""
    for file_id, name in rows(con, "select file_id, name from raw.files where state = 'refused'"):
        folder = project.data / Path(name).parts[0]
        if folder.is_dir() and not (project.data / name).exists():
            con.execute("update raw.files set state = 'removed' where file_id = ?", [file_id])


def _is_new(
    con: DuckDBPyConnection, config: Config, item: Delivery, conflicts: list[str], reverted: list[str]
) -> bool:
    """Whether to enter a file; a known name with other content is a conflict, unless it was refused before.

    A reverted file stays reverted; it is told when it was put there again.
    """
    known = rows(
        con,
        "select file_id, sha256, size_bytes, modified_ns, state, read_as, batch from raw.files"
        " where source = ? and name = ?",
        [item.source, item.name],
    )
    if not known:
        return True
    file_id, sha256, size, modified, state, read_as, batch = known[0]
    touched = (size, modified) != (item.size_bytes, item.modified_ns)
    if state in {"refused", "removed"}:
        retry = touched or state == "removed" or read_as != reading_rules(config, item.source)
        if retry:
            _forget(con, file_id)
        return retry
    if touched and sha256_of(item.path) == sha256:
        con.execute("update raw.files set modified_ns = ? where file_id = ?", [item.modified_ns, file_id])
        if state == "reverted":
            reverted.append(
                f"{item.name}: delivered again, but taken back with batch {batch}; `profile-pipeline batch restore {batch}`"
                " lets it count, or deliver it under a new name"
            )
    elif touched:
        conflicts.append(
            f"{item.name}: same name as an earlier delivery but other content; deliver it under a new name"
        )
    return False


def _forget(con: DuckDBPyConnection, file_id: int) -> None:
    """A refused file that was mended, or whose reading rules changed, is tried afresh."""
    con.execute("delete from raw.rejects where file_id = ?", [file_id])
    con.execute("delete from raw.files where file_id = ?", [file_id])


def _hashes(new: list[Delivery], conflicts: list[str]) -> dict[Delivery, str]:
    """SHA-256 of each file; one that cannot be opened is looked at again by the next scan."""
    found = {}
    for item in new:
        try:
            found[item] = sha256_of(item.path)
        except OSError as error:
            conflicts.append(
                f"{item.name}: cannot be opened ({error.strerror}); mend its permissions or remove it"
            )
    return found


def _enter(con: DuckDBPyConnection, hashes: dict[Delivery, str], as_of: datetime) -> None:
    """Enter files as one batch. Its time is never before that of an earlier one, whatever the clock says."""
    last_as_of = scalar(con, "select max(as_of) from raw.batches")
    taken = "select batch from raw.batches union all select batch from raw.reverted_batches"
    batch = (scalar(con, f"select max(batch) from ({taken})") or 0) + 1
    con.execute(
        "insert into raw.batches (batch, as_of) values (?, ?)", [batch, max(as_of, last_as_of or as_of)]
    )
    for item, sha256 in hashes.items():
        _enter_file(con, item, sha256, batch)


def _enter_file(con: DuckDBPyConnection, item: Delivery, sha256: str, batch: int) -> None:
    twin = scalar(
        con,
        "select name from raw.files where source = ? and sha256 = ? and state in ('found', 'loaded') order by file_id",
        [item.source, sha256],
    )
    con.execute(
        "insert into raw.files (file_id, source, name, sha256, size_bytes, modified_ns, batch, state, reason)"
        " values (nextval('raw.file_ids'), ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            item.source, item.name, sha256, item.size_bytes, item.modified_ns, batch,
            "duplicate" if twin else "found",
            f"same content as {twin}" if twin else None,
        ],
    )  # fmt: skip


def reading_rules(config: Config, source: str) -> str:
    """A fingerprint of what decides how a file is read; a refused file is retried when it changes."""
    rule = config.sources[source]
    return fingerprint(rule.format.model_dump(), rule.columns, rule.optional_columns)


def pending(con: DuckDBPyConnection, source: str) -> list[tuple[int, str, str]]:
    """Files of a source that are entered but not yet read: (file_id, name, sha256), oldest first."""
    return rows(
        con,
        "select file_id, name, sha256 from raw.files where source = ? and state = 'found' order by file_id",
        [source],
    )


def as_of(con: DuckDBPyConnection) -> datetime | None:
    """The time the newest batch was taken in: the clock of every derived table, None before the first."""
    return scalar(con, "select max(as_of) from raw.batches")


def batch_states(con: DuckDBPyConnection) -> list[tuple[int, datetime, int, int, int]]:
    """(batch, as-of time, files, rows, reverted files), newest first."""
    create_tables(con)
    return rows(
        con,
        "select batch, any_value(as_of), count(*), sum(row_count), count_if(state = 'reverted')"
        " from (select batch, as_of from raw.batches union all select batch, as_of from raw.reverted_batches)"
        " join raw.files using (batch) group by batch order by batch desc",
    )


def files_of(con: DuckDBPyConnection, batch: int) -> list[tuple[str, int]]:
    """Files of a batch whose rows count: (name, rows)."""
    return rows(
        con,
        "select name, row_count from raw.files where batch = ? and state in ('found', 'loaded') order by name",
        [batch],
    )


def revert(con: DuckDBPyConnection, batch: int) -> int:
    """Take a batch's files out of everything derived, as if it had never come; the raw rows stay.

    A file of another batch that was set aside as their duplicate takes their place. Returns the number of files.
    What history keeps of the batch (profile ids, audiences) is the business of `replay`.
    """
    create_tables(con)
    with transaction(con):
        return take_out(con, batch)


def take_out(con: DuckDBPyConnection, batch: int) -> int:
    """`revert` as a part of a larger transaction."""
    own = f"batch = {batch:d} and state in {COUNTED}"
    con.execute(f"insert into raw.reverted_files select file_id, state, reason from raw.files where {own}")
    changed = rows(con, f"update raw.files set state = 'reverted' where {own}")
    con.execute(f"insert into raw.reverted_batches select * from raw.batches where batch = {batch:d}")
    con.execute(f"delete from raw.batches where batch = {batch:d}")
    _settle_twins(con)
    return changed[0][0]


def put_back(con: DuckDBPyConnection, batch: int) -> int:
    """Let a reverted batch count again, as if it had never been reverted; the number of its files.

    A part of a larger transaction.
    """
    con.execute(f"insert into raw.batches select * from raw.reverted_batches where batch = {batch:d}")
    con.execute(f"delete from raw.reverted_batches where batch = {batch:d}")
    changed = rows(
        con,
        "update raw.files f set state = r.state, reason = r.reason from raw.reverted_files r"
        f" where r.file_id = f.file_id and f.batch = {batch:d} and f.state = 'reverted'",
    )
    con.execute(
        f"delete from raw.reverted_files where file_id in (select file_id from raw.files where batch = {batch:d})"
    )
    _settle_twins(con)
    return changed[0][0]


def _settle_twins(con: DuckDBPyConnection) -> None:
    """Of the files with the same bytes the oldest that counts is loaded, the others are its duplicates."""
    first = f"""select * from raw.files where state in {COUNTED}
        qualify row_number() over (partition by source, sha256 order by file_id) = 1"""
    for file_id, source in rows(con, f"select file_id, source from ({first}) where state = 'duplicate'"):
        _take_place(con, file_id, source)
    con.execute(
        f"""update raw.files f set state = 'duplicate', reason = 'same content as ' || t.name, row_count = 0,
            rejected_count = 0, notes = []
        from ({first}) t where t.source = f.source and t.sha256 = f.sha256 and t.file_id <> f.file_id
            and f.state in ('found', 'loaded')"""
    )


def _take_place(con: DuckDBPyConnection, file_id: int, source: str) -> None:
    """A duplicate becomes the file that counts: with the rows of its twin, which may be gone from the folder.

    While no twin was ever read it is read itself.
    """
    twin = scalar(
        con,
        """select f.file_id from raw.files f left join raw.reverted_files r using (file_id)
        where f.file_id <> ? and (f.source, f.sha256) in (select (source, sha256) from raw.files where file_id = ?)
            and (f.state = 'loaded' or r.state = 'loaded') order by f.file_id""",
        [file_id, file_id],
    )
    if twin is None:
        con.execute("update raw.files set state = 'found', reason = null where file_id = ?", [file_id])
        return
    for table in (f"raw.{source}", "raw.rejects"):
        _copy_rows(con, table, twin, file_id)
    con.execute(
        """update raw.files f set state = 'loaded', reason = null, notes = t.notes, row_count = t.row_count,
            rejected_count = t.rejected_count from raw.files t where t.file_id = ? and f.file_id = ?""",
        [twin, file_id],
    )


def _copy_rows(con: DuckDBPyConnection, table: str, twin: int, file_id: int) -> None:
    """Give a file the rows of its twin, unless it has them from an earlier time in its place."""
    column = "file_id" if table == "raw.rejects" else "_file"
    if not scalar(con, f"select count(*) from {table} where {column} = ?", [file_id]):
        con.execute(
            f"insert into {table} by name select * replace ({file_id:d} as {column}) from {table} where {column} = ?",
            [twin],
        )


def accept_volume(con: DuckDBPyConnection) -> None:
    """Let deliveries so far through although they are much smaller than those before them."""
    with transaction(con):
        con.execute("update raw.batches set volume_accepted = true where not volume_accepted")
        if table_exists(con, "records.validations"):
            con.execute(
                "update records.validations set success = true, failed = 0,"
                " notes = 'a smaller full delivery was accepted' where name = 'volume' and not success"
            )


def source_fingerprint(con: DuckDBPyConnection, source: str) -> str:
    """Changes whenever the set of loaded files of a source does."""
    return fingerprint(
        rows(
            con,
            f"select file_id, sha256, row_count from raw.files where source = {literal(source)}"
            " and state = 'loaded' order by 1",
        )
    )
