"""The published generation that readers see now: opened once, left behind as soon as `current` leads elsewhere."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError
from profile_pipeline.publish import DATABASE, MANIFEST
from profile_pipeline.records import normalise
from profile_pipeline.warehouse import literal, quote, rows, settings

CATALOG = "generation"
MEMORY = "1GB"
"""Of a whole-table scan; a lookup takes next to nothing."""
AS_WAREHOUSE = {
    "profiles.unified": "profiles",
    "profiles.computed": "computed_attributes",
    "profiles.events": "profile_events",
    "audiences.membership": "audience_membership",
    "audiences.external_members": "audience_list_members",
}
"""Published tables under the names that conditions of audiences know."""


class NothingPublishedError(PipelineError):
    """There is no generation yet; what to do is in the message."""


@dataclass(frozen=True, eq=False)
class Published:
    """An open generation, and the rules as they were when it was opened."""

    number: int
    manifest: dict[str, Any]
    config: Config
    tables: frozenset[str]
    _con: DuckDBPyConnection = field(repr=False)

    @contextmanager
    def read(self) -> Generator[DuckDBPyConnection]:
        """A connection of its own for one request, on the published tables."""
        with self._cursor(CATALOG) as con:
            yield con

    @contextmanager
    def as_warehouse(self) -> Generator[DuckDBPyConnection]:
        """A connection that sees the published tables where the stages look for them; for what only reads."""
        with self._cursor("memory") as con:
            yield con

    @contextmanager
    def unplanned(self) -> Generator[DuckDBPyConnection]:
        """A connection for expressions over a single value, which are run sooner than their plan is improved."""
        with self._cursor("memory") as con:
            con.execute("pragma disable_optimizer")
            yield con

    @contextmanager
    def _cursor(self, catalog: str) -> Generator[DuckDBPyConnection]:
        con = self._con.cursor()
        try:
            con.execute(f"use {catalog}")
            yield con
        finally:
            con.close()


class Shelf:
    """Gives the generation that is live at the moment of asking; threads may ask at once."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._open: tuple[Path, Published] | None = None
        self._lock = threading.Lock()

    def live(self) -> Published:
        """The generation that `current` leads to. Raises NothingPublishedError before the first one."""
        pointer = self.project.published / "current"
        try:
            folder = pointer.resolve(strict=True)
        except OSError:
            raise NothingPublishedError(
                "nothing is published yet; `profile-pipeline run` makes the first generation"
            ) from None
        known = self._open
        if known and known[0] == folder:
            return known[1]
        with self._lock:
            if not (self._open and self._open[0] == folder):
                # requests that are under way keep cursors of the old one, which closes with the last of them
                self._open = folder, _opened(folder, self._rules())
            return self._open[1]

    def _rules(self) -> Config:
        """The rules as they are, or as they were last read while somebody is editing them."""
        try:
            return load_config(self.project.rules)
        except PipelineError:
            if self._open is None:
                raise
            return self._open[1].config


def _opened(folder: Path, config: Config) -> Published:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    con = duckdb.connect(config=settings(folder.parent.parent / "state" / "tmp", MEMORY, 2))
    con.execute("set global TimeZone = 'UTC'")
    con.execute(f"attach {literal(folder / DATABASE)} as {CATALOG} (read_only)")
    con.execute("set global enable_external_access = false")
    normalise.register(con)
    tables = frozenset(
        name
        for (name,) in rows(
            con, "select table_name from information_schema.tables where table_catalog = ?", [CATALOG]
        )
    )
    _name_as_warehouse(con, tables, manifest)
    return Published(manifest["generation"], manifest, config, tables, con)


def _name_as_warehouse(con: DuckDBPyConnection, tables: frozenset[str], manifest: dict[str, Any]) -> None:
    for schema in ("raw", "profiles", "audiences"):
        con.execute(f"create schema {schema}")
    for name, published in AS_WAREHOUSE.items():
        if published in tables:
            con.execute(f"create view {name} as from {CATALOG}.main.{quote(published)}")
    batch, as_of = manifest["batch"], manifest["as_of"]
    con.execute("create table raw.batches (batch integer, as_of timestamptz)")
    con.execute("insert into raw.batches values (?, ?)", [batch, as_of])
