"""Writes an immutable generation of everything analysts read, and moves the `current` pointer to it at once.

A generation is complete on disk, checksummed and synced before the pointer moves; a reader that opened an
earlier one keeps it. Nothing is published when nothing changed: neither against the live generation nor against
the newest one. So a rollback holds until a run has other content to publish than the generation that was rolled
back; `rolled_back` tells which that is.
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
from profile_pipeline.dictionary import DESCRIPTIONS, Table, as_markdown, describe, published_tables
from profile_pipeline.errors import PipelineError
from profile_pipeline.raw.ledger import sha256_of
from profile_pipeline.warehouse import (
    code_version,
    columns_of,
    default_memory,
    fingerprint,
    literal,
    quote,
    rows,
    scalar,
    settings,
    vacuum,
)

STORAGE_VERSION = "v1.5.0"
"""Analysts' DuckDB clients of the 1.x line can open the file."""
DATABASE = "profiles.duckdb"
MANIFEST = "manifest.json"
GENERATIONS_BETWEEN_VACUUMS = 20
"""Small changes leave the room of deleted rows in the warehouse; giving it back costs more than such a change."""


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
    found = [
        Generation(number, folder, json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        for number, folder in _folders(project).items()
        if (folder / MANIFEST).exists()
    ]
    return sorted(found, key=lambda generation: generation.number, reverse=True)


def _folders(project: Project) -> dict[int, Path]:
    """Folders of generations by number, unfinished ones included."""
    named = {folder.name.removeprefix("gen-"): folder for folder in project.published.glob("gen-*")}
    return {int(number): folder for number, folder in named.items() if number.isdecimal()}


def current(project: Project) -> Generation | None:
    """The generation the pointer leads to, or None before the first publication."""
    pointer = project.published / "current"
    if not pointer.exists():
        return None
    target = pointer.resolve()
    return next((g for g in generations(project) if g.folder.resolve() == target), None)


def rolled_back(project: Project) -> Generation | None:
    """The newest generation, when a rollback has made an older one live."""
    live, newest = current(project), next(iter(generations(project)), None)
    return newest if live and newest and newest.number > live.number else None


def content_fingerprint(con: DuckDBPyConnection, config: Config) -> str:
    """Changes whenever anything that is published could differ, descriptions included."""
    marks = rows(
        con, "select name, fingerprint from state.built where not starts_with(name, 'raw.') order by name"
    )
    fields = {name: attribute.model_dump() for name, attribute in config.attributes.items()}
    texts = DESCRIPTIONS.read_text(encoding="utf-8")
    return fingerprint(marks, fields, texts, config.publication.parquet, code_version())


def publish(con: DuckDBPyConnection, config: Config, project: Project, checks: dict[str, int]) -> Generation:
    """Publish when something changed, else keep the live generation; old ones beyond the limit are removed."""
    project.published.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_unfinished(project)
    content = content_fingerprint(con, config)
    live = current(project)
    if live and content in {g.manifest["content"] for g in (live, rolled_back(project)) if g}:
        return live
    number = max(_folders(project), default=0) + 1
    building = project.published / f".building-{number:06d}"
    building.mkdir(mode=0o700)
    manifest = {"generation": number, "content": content} | _write(con, config, building, checks)
    (building / MANIFEST).write_text(json.dumps(manifest, indent=1, default=str), encoding="utf-8")
    _sync_folder(building)
    folder = project.published / f"gen-{number:06d}"
    building.rename(folder)
    point_to(project, folder)
    _remove_old(project, config.publication.keep_generations)
    if number % GENERATIONS_BETWEEN_VACUUMS == 0:
        vacuum(con)
    return Generation(number, folder, manifest)


def _remove_unfinished(project: Project) -> None:
    """What a killed publication left; the folder that readers are led to is never touched."""
    unfinished = [*project.published.glob(".building-*")]
    unfinished += [folder for folder in _folders(project).values() if not (folder / MANIFEST).exists()]
    target = (project.published / "current").resolve()
    for folder in unfinished:
        if folder.resolve() != target:
            shutil.rmtree(folder)
    for pointer in project.published.glob(".current-*"):
        pointer.unlink()


def _write(con: DuckDBPyConnection, config: Config, folder: Path, checks: dict[str, int]) -> dict[str, Any]:
    """Every file of a generation except its manifest, which is returned."""
    tables = published_tables(config)
    described = describe(con, config, tables)
    row_counts = _write_database(con, folder / DATABASE, tables, described)
    if config.publication.parquet:
        _write_parquet(con, folder, tables)
    (folder / "dictionary.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    (folder / "dictionary.md").write_text(as_markdown(described), encoding="utf-8")
    return _about_run(con, config) | {
        "checks": checks,
        "tables": {table.name: {"rows": row_counts[table.name], "grain": table.grain} for table in tables},
        "files": {path.name: _about_file(path, row_counts) for path in sorted(folder.iterdir())},
    }


def _write_database(
    con: DuckDBPyConnection, path: Path, tables: list[Table], described: list[dict[str, Any]]
) -> dict[str, int]:
    """The DuckDB file with comments on every table and column; rows by table."""
    con.execute(f"attach {literal(path)} as generation (storage_version '{STORAGE_VERSION}')")
    try:
        row_counts = {
            table.name: scalar(
                con, f"create table generation.main.{table.name} as {table.query} order by {table.order}"
            )
            for table in tables
        }
        for table in described:
            _comment(con, table)
    finally:
        con.execute("detach generation")
    return row_counts


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


def _about_run(con: DuckDBPyConnection, config: Config) -> dict[str, Any]:
    batch, as_of = rows(con, "select max(batch), max(as_of) from raw.batches")[0]
    return {
        "batch": batch,
        "as_of": as_of.isoformat() if as_of else None,
        "revision": scalar(con, "select max(revision) from identity.revisions"),
        "model": scalar(con, "select max(model_id) from identity.models where active"),
        "policies": {name: policy.version for name, policy in config.profiles.policies.items()},
        "default_policy": config.profiles.default,
    }


def _about_file(path: Path, row_counts: dict[str, int]) -> dict[str, Any]:
    table_rows = row_counts[path.stem] if path.suffix == ".parquet" else None
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path), "rows": table_rows}


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
            (generation.folder / MANIFEST).unlink()  # half removed, it is unfinished and goes next time
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
    """Profiles that differ between the live generation and the one before it, by kind of change and by field."""
    live = current(project)
    before = next((g for g in generations(project) if live and g.number < live.number), None)
    if live is None or before is None:
        raise PipelineError("two generations are needed; run again after a change")
    with duckdb.connect(config=settings(project.state / "tmp", default_memory(), 2)) as con:
        con.execute(f"attach {literal(live.folder / DATABASE)} as now (read_only)")
        con.execute(f"attach {literal(before.folder / DATABASE)} as past (read_only)")
        changed = ", ".join(
            f"if(n.{quote(field)} is distinct from p.{quote(field)}, {literal(field)}, null)"
            for field in _shared_fields(con)
        )
        con.execute(
            f"""create temp table pairs as
            select n.profile_id as now_id, p.profile_id as past_id,
                list_filter([{changed}]::text[], lambda field: field is not null) as changed
            from now.profiles n full join past.profiles p on n.profile_id = p.profile_id"""
        )
        return _counted(con)


def _counted(con: DuckDBPyConnection) -> dict[str, int]:
    both = "now_id is not null and past_id is not null"
    kinds = {"new": "past_id is null", "gone": "now_id is null", "changed": f"{both} and len(changed) > 0"}
    by_kind = {kind: scalar(con, f"select count(*) from pairs where {test}") for kind, test in kinds.items()}
    by_field = rows(
        con,
        f"select field, count(*) from (select unnest(changed) as field from pairs where {both}) group by 1 order by 1",
    )
    return by_kind | {f"value of {field}": n for field, n in by_field}


def _shared_fields(con: DuckDBPyConnection) -> list[str]:
    """Fields whose values both generations show; bookkeeping columns change without any value changing."""
    past, now = columns_of(con, "past.profiles"), columns_of(con, "now.profiles")
    bookkeeping = {"profile_id", "policy", "policy_version"}
    return [name for name, kind in now.items() if name not in bookkeeping and past.get(name) == kind]


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
