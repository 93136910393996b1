"""Writes an immutable generation of everything analysts read, and moves the `current` pointer to it at once.

A generation is complete on disk, checksummed and synced before the pointer moves; a reader that opened an
earlier one keeps it. Nothing is published when nothing changed.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.dictionary import Table, as_markdown, describe, published_tables
from profile_pipeline.errors import PipelineError
from profile_pipeline.raw.ledger import sha256_of
from profile_pipeline.warehouse import code_version, database_name, fingerprint, literal, quote, rows, scalar

STORAGE_VERSION = "v1.5.0"
"""Analysts' DuckDB clients of the 1.x line can open the file."""
DATABASE = "profiles.duckdb"


@dataclass(frozen=True)
class Generation:
    """A published state: its number, folder and manifest."""

    number: int
    folder: Path
    manifest: dict[str, Any]

    @property
    def profile_count(self) -> int:
        """Profiles under the default policy."""
        return self.manifest["tables"]["profiles"]["rows"]


def generations(project: Project) -> list[Generation]:
    """Complete generations on disk, newest first."""
    found = []
    for folder in sorted(project.published.glob("gen-*"), reverse=True):
        manifest = folder / "manifest.json"
        if manifest.exists():
            number = int(folder.name.removeprefix("gen-"))
            found.append(Generation(number, folder, json.loads(manifest.read_text(encoding="utf-8"))))
    return found


def current(project: Project) -> Generation | None:
    """The generation the pointer leads to, or None before the first publication."""
    pointer = project.published / "current"
    if not pointer.exists():
        return None
    target = pointer.resolve()
    return next((g for g in generations(project) if g.folder.resolve() == target), None)


def content_fingerprint(con: DuckDBPyConnection, config: Config) -> str:
    """Changes whenever anything that is published could differ."""
    marks = rows(con, "select name, fingerprint from state.built order by name")
    return fingerprint([m for m in marks if not m[0].startswith("raw.")], config.publication.parquet, code_version())


def publish(con: DuckDBPyConnection, config: Config, project: Project, checks: dict[str, int]) -> Generation:
    """Publish when something changed, else keep the live generation; old ones beyond the limit are removed."""
    project.published.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_unfinished(project)
    content = content_fingerprint(con, config)
    live = current(project)
    if live and live.manifest["content"] == content:
        return live
    number = max((g.number for g in generations(project)), default=0) + 1
    building = project.published / f".building-{number:06d}"
    building.mkdir(mode=0o700)
    tables = published_tables(con, config)
    _write_database(con, config, building / DATABASE, tables)
    if config.publication.parquet:
        _write_parquet(con, building, tables)
    described = describe(con, config, tables)
    (building / "dictionary.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    (building / "dictionary.md").write_text(as_markdown(described), encoding="utf-8")
    manifest = _manifest(con, config, building, number, content, tables, checks)
    (building / "manifest.json").write_text(json.dumps(manifest, indent=1, default=str), encoding="utf-8")
    folder = project.published / f"gen-{number:06d}"
    _sync_folder(building)
    building.rename(folder)
    point_to(project, folder)
    _remove_old(project, config.publication.keep_generations)
    return Generation(number, folder, manifest)


def _remove_unfinished(project: Project) -> None:
    for folder in project.published.glob(".building-*"):
        shutil.rmtree(folder)
    for folder in project.published.glob("gen-*"):
        if not (folder / "manifest.json").exists():
            shutil.rmtree(folder)


def _write_database(con: DuckDBPyConnection, config: Config, path: Path, tables: list[Table]) -> None:
    con.execute(f"attach {literal(path)} as generation (storage_version '{STORAGE_VERSION}')")
    try:
        for table in tables:
            con.execute(f"create table generation.main.{table.name} as {table.query} order by {table.order}")
        for table in describe(con, config, tables):
            _comment(con, table)
    finally:
        con.execute("detach generation")


def _comment(con: DuckDBPyConnection, table: dict[str, Any]) -> None:
    target = f"generation.main.{table['name']}"
    con.execute(f"comment on table {target} is {literal(table['description'])}")
    for column in table["columns"]:
        con.execute(f"comment on column {target}.{quote(column['name'])} is {literal(column['description'])}")


def _write_parquet(con: DuckDBPyConnection, folder: Path, tables: list[Table]) -> None:
    con.execute(f"attach {literal(folder / DATABASE)} as generation (read_only)")
    try:
        con.execute("set preserve_insertion_order = true")
        for table in tables:
            path = literal(folder / f"{table.name}.parquet")
            con.execute(f"copy generation.main.{table.name} to {path} (format parquet, compression zstd)")
    finally:
        con.execute("set preserve_insertion_order = false")
        con.execute("detach generation")


def _manifest(
    con: DuckDBPyConnection,
    config: Config,
    folder: Path,
    number: int,
    content: str,
    tables: list[Table],
    checks: dict[str, int],
) -> dict[str, Any]:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
    }
    batch, as_of = rows(con, "select max(batch), max(as_of) from raw.batches")[0]
    return {
        "generation": number,
        "content": content,
        "batch": batch,
        "as_of": as_of.isoformat() if as_of else None,
        "revision": scalar(con, "select max(revision) from identity.revisions"),
        "model": scalar(con, "select max(model_id) from identity.models where active"),
        "policies": {name: policy.version for name, policy in config.profiles.policies.items()},
        "default_policy": config.profiles.default,
        "checks": checks,
        "tables": {t.name: {"rows": _rows_in(con, folder, t), "grain": t.grain} for t in tables},
        "files": files,
    }


def _rows_in(con: DuckDBPyConnection, folder: Path, table: Table) -> int:
    if (folder / f"{table.name}.parquet").exists():
        return scalar(con, f"select count(*) from read_parquet({literal(folder / f'{table.name}.parquet')})")
    return scalar(con, f"select count(*) from ({table.query})")


def _sync_folder(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def point_to(project: Project, folder: Path) -> None:
    """Move the `current` pointer; a reader sees the old target or the new one, never neither."""
    fresh = project.published / f".current-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(project.published / "current")
    _sync_folder(project.published)


def _remove_old(project: Project, keep: int) -> None:
    live = current(project)
    for generation in generations(project)[keep:]:
        if not live or generation.folder != live.folder:
            shutil.rmtree(generation.folder)


def rollback_target(project: Project, number: int | None = None) -> Generation:
    """The generation to make live (default: the one before), its files checked against its manifest."""
    live = current(project)
    on_disk = generations(project)
    if number is None:
        chosen = next((g for g in on_disk if live and g.number < live.number), None)
    else:
        chosen = next((g for g in on_disk if g.number == number), None)
    if chosen is None:
        have = ", ".join(str(g.number) for g in on_disk) or "none"
        raise PipelineError(f"no such generation to roll back to; on disk: {have}")
    damaged = verify(chosen)
    if damaged:
        raise PipelineError(f"generation {chosen.number} is damaged ({', '.join(damaged)}); choose another")
    return chosen


def difference(project: Project) -> dict[str, int]:
    """Profiles that differ between the live generation and the one before it, by kind of change."""
    live = current(project)
    before = next((g for g in generations(project) if live and g.number < live.number), None)
    if live is None or before is None:
        raise PipelineError("two generations are needed; run again after a change")
    with duckdb.connect() as con:
        con.execute(f"attach {literal(live.folder / DATABASE)} as now (read_only)")
        con.execute(f"attach {literal(before.folder / DATABASE)} as past (read_only)")
        fields = _shared_fields(con)
        changed = " or ".join(f"n.{quote(f)} is distinct from p.{quote(f)}" for f in fields) or "false"
        by_field = ", ".join(f"count(*) filter (both_there and n_{i})" for i in range(len(fields))) or "0"
        columns = ", ".join(f"n.{quote(f)} is distinct from p.{quote(f)} as n_{i}" for i, f in enumerate(fields))
        found = rows(
            con,
            f"""select count(*) filter (p_id is null), count(*) filter (n_id is null),
                count(*) filter (both_there and changed), {by_field} from (
                select n.profile_id as n_id, p.profile_id as p_id, n_id is not null and p_id is not null as both_there,
                    {changed} as changed{', ' + columns if columns else ''}
                from now.profiles n full join past.profiles p on n.profile_id = p.profile_id)""",
        )[0]
    named = {f"value of {field}": n for field, n in zip(fields, found[3:], strict=False) if n}
    return {"new": found[0], "gone": found[1], "changed": found[2], **named}


def _shared_fields(con: DuckDBPyConnection) -> list[str]:
    """Fields whose values both generations show; bookkeeping columns change without any value changing."""
    names = [
        {name: kind for name, kind, *_ in rows(con, f"describe {catalog}.profiles")} for catalog in ("now", "past")
    ]
    skipped = {"profile_id", "policy", "policy_version"}
    return [n for n, kind in names[0].items() if n not in skipped and names[1].get(n) == kind]


def verify(generation: Generation) -> list[str]:
    """Files of a generation whose bytes are not those of its manifest."""
    return [
        name
        for name, entry in generation.manifest["files"].items()
        if not (generation.folder / name).exists() or sha256_of(generation.folder / name) != entry["sha256"]
    ]


def checksum_of(generation: Generation) -> str:
    """One hash over the Parquet files of a generation: equal content, equal hash."""
    digest = hashlib.sha256()
    for name, entry in sorted(generation.manifest["files"].items()):
        if name.endswith(".parquet"):
            digest.update(f"{name} {entry['sha256']}\n".encode())
    return digest.hexdigest()
