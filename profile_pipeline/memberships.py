"""Publishes who is in which audience, before the generation that says it with everything else.

A generation is written whole; who is in an audience is wanted sooner. So the members of all audiences are published by
themselves as soon as the checks of what they come from have passed: a folder `published/memberships/000012` with one
Parquet file and a manifest, and a pointer `published/memberships/current`. What is published is the same as in the
generation of the same batch. A rollback writes the members of the generation that it makes live.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.audiences.build import NAME
from profile_pipeline.config.project import Project
from profile_pipeline.publish import DATABASE, MANIFEST, Generation, point, rolled_back, sync
from profile_pipeline.raw.ledger import sha256_of
from profile_pipeline.warehouse import built, default_memory, literal, rows, settings

FOLDER, CURRENT, FILE = "memberships", "current", "members.parquet"
KEPT = 3
"""A reader that resolved the pointer keeps its files while two later states come."""


@dataclass(frozen=True)
class Memberships:
    """A published state of all audiences: its folder and manifest."""

    folder: Path
    manifest: dict[str, Any]


def live(project: Project) -> Memberships | None:
    """The members that the pointer leads to, or None before the first publication."""
    pointer = project.published / FOLDER / CURRENT
    if not pointer.exists():
        return None
    folder = pointer.resolve()
    return Memberships(folder, json.loads((folder / MANIFEST).read_text(encoding="utf-8")))


def publish(con: DuckDBPyConnection, project: Project) -> Memberships:
    """Publish the members when they changed, else keep what is live; during a rollback, what was rolled back to."""
    content, now = built(con, NAME), live(project)
    if now and content in (now.manifest["content"], rolled_back(project) and now.manifest["instead_of"]):
        return now
    batch, as_of = rows(con, "select max(batch), max(as_of) from raw.batches")[0]
    about = {"batch": batch, "as_of": as_of and as_of.isoformat(), "content": content, "instead_of": None}
    return _write(con, project, NAME, about)


def follow(project: Project, generation: Generation) -> Memberships:
    """Publish the members of a generation, until a run finds others than those that were live before."""
    now = live(project)
    before = now and (now.manifest["instead_of"] or now.manifest["content"])
    about = {name: generation.manifest[name] for name in ("batch", "as_of")}
    with duckdb.connect(config=settings(project.state / "tmp", default_memory(), 2)) as con:
        con.execute(f"attach {literal(generation.folder / DATABASE)} as generation (read_only)")
        table = "generation.main.audience_membership"
        return _write(con, project, table, about | {"content": None, "instead_of": before})


def _write(con: DuckDBPyConnection, project: Project, table: str, about: dict[str, Any]) -> Memberships:
    """Write a folder of its own and move the pointer to it; earlier ones beyond the limit are removed."""
    home = project.published / FOLDER
    for folder in (project.published, home):  # one by one: parents would not be private
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for unfinished in home.glob(".building-*"):
        shutil.rmtree(unfinished)
    for pointer in home.glob(f".{CURRENT}-*"):
        pointer.unlink()
    number = max((int(folder.name) for folder in _folders(home)), default=0) + 1
    building = home / f".building-{number:06d}"
    building.mkdir(mode=0o700)
    path = building / FILE
    con.execute(
        f"""copy (select audience, profile_id, entered_at from {table} where exited_at is null
        order by audience, profile_id) to {literal(path)} (format parquet, compression zstd)"""
    )
    counted = f"select audience, count(*) from read_parquet({literal(path)}) group by 1 order by 1"
    file = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = {"number": number, **about, "audiences": dict(rows(con, counted)), "files": {FILE: file}}
    (building / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync(building)
    folder = home / f"{number:06d}"
    building.rename(folder)
    point(home / CURRENT, folder)
    for old in _folders(home)[:-KEPT]:
        shutil.rmtree(old)
    return Memberships(folder, manifest)


def _folders(home: Path) -> list[Path]:
    """Published states, oldest first."""
    return sorted(folder for folder in home.iterdir() if folder.name.isdecimal())
