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

from profile_pipeline import report
from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.dictionary import DESCRIPTIONS, Table, as_markdown, describe, published_tables
from profile_pipeline.difference import difference as compare
from profile_pipeline.errors import PipelineError
from profile_pipeline.metrics.adobe_views import create_views
from profile_pipeline.raw.ledger import sha256_of
from profile_pipeline.warehouse import (
    code_version,
    default_memory,
    facts,
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
WITHHELD = ".withheld"
"""The number of the generation that was the newest when an older one was made live again."""
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


def newest_waiting(project: Project) -> Generation | None:
    """The newest generation where an older one is live: after a rollback, or a kill before the pointer moved."""
    live, newest = current(project), next(iter(generations(project)), None)
    return newest if live and newest and newest.number > live.number else None


def rolled_back(project: Project) -> Generation | None:
    """The newest generation, when a rollback has made an older one live."""
    newest, withheld = newest_waiting(project), project.published / WITHHELD
    known = newest and withheld.exists() and withheld.read_text(encoding="utf-8") == str(newest.number)
    return newest if known else None


def withhold_newest(project: Project) -> None:
    """Say that the newest generation is not to be made live by a run that finds the same again: before a rollback."""
    (project.published / WITHHELD).write_text(str(generations(project)[0].number), encoding="utf-8")


def content_fingerprint(con: DuckDBPyConnection, config: Config) -> str:
    """Changes whenever anything that is published could differ, descriptions included."""
    marks = rows(
        con, "select name, fingerprint from state.built where not starts_with(name, 'raw.') order by name"
    )
    fields = {name: attribute.model_dump() for name, attribute in config.attributes.items()}
    texts = DESCRIPTIONS.read_text(encoding="utf-8")
    options = (config.publication.parquet, config.publication.trust.model_dump())
    return fingerprint(marks, fields, texts, options, code_version(), report.template_version())


def publish(con: DuckDBPyConnection, config: Config, project: Project, checks: dict[str, Any]) -> Generation:
    """Publish when something changed, else keep the live generation; old ones beyond the limit are removed."""
    project.published.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_unfinished(project)
    content = content_fingerprint(con, config)
    live = current(project)
    waiting = newest_waiting(project)
    if live and content in {g.manifest["content"] for g in (live, rolled_back(project)) if g}:
        return live
    if waiting and waiting.manifest["content"] == content:
        point_to(project, waiting.folder)
        return waiting
    number = max(_folders(project), default=0) + 1
    building = project.published / f".building-{number:06d}"
    building.mkdir(mode=0o700)
    manifest: dict[str, Any] = {"generation": number, "content": content}
    manifest |= _write(con, config, building, checks)
    before = (live.folder, live.manifest) if live else None
    report.write_report(building, manifest, before, project.state / "tmp")
    manifest["files"] = _about_files(building, manifest["tables"])
    (building / MANIFEST).write_text(json.dumps(manifest, indent=1, default=str), encoding="utf-8")
    sync(building)
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


def _write(con: DuckDBPyConnection, config: Config, folder: Path, checks: dict[str, Any]) -> dict[str, Any]:
    """Every table of a generation with its dictionary; returns what the manifest says of them and of the run."""
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
        create_views(con, "generation.main")
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
        "matching": _about_matching(con),
        "deliveries": dict(rows(con, "select state, count(*) from raw.files group by 1 order by 1")),
        "policies": {name: policy.version for name, policy in config.profiles.policies.items()},
        "default_policy": config.profiles.default,
        "trust": config.publication.trust.model_dump(),
    }


def _about_matching(con: DuckDBPyConnection) -> dict[str, float | None]:
    """The threshold of the links, and what the model expects of them."""
    found = facts(con, "identity.edges") | facts(con, "identity.clusters")
    names = ("threshold", "expected_precision", "expected_recall_of_candidates")
    return {name: None if found.get(name) is None else round(found[name], 6) for name in names}


def _about_files(folder: Path, tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {path.name: _about_file(path, tables) for path in sorted(folder.iterdir())}


def _about_file(path: Path, tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    table_rows = tables[path.stem]["rows"] if path.suffix == ".parquet" else None
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path), "rows": table_rows}


def sync(folder: Path) -> None:
    """Have the disk hold a folder and the files in it; what its links lead to is not looked at."""
    for path in [*(path for path in folder.iterdir() if not path.is_symlink()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def point_to(project: Project, folder: Path) -> None:
    """Move the `current` pointer to a generation."""
    point(project.published / "current", folder)


def point(pointer: Path, folder: Path) -> None:
    """Lead a link to a folder beside it; a reader sees the old target or the new one, never neither."""
    fresh = pointer.with_name(f".{pointer.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(pointer)
    sync(pointer.parent)


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
        found = compare(con, "now", "past")
    by_field = {f"value of {name}": n for name, n in found.fields.items()}
    return {"new": found.new, "gone": found.gone, "changed": found.changed} | by_field


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
