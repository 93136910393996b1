"""The warehouse as a Dagster resource: the configuration schema of dagster-duckdb, our connections and lock."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource
from duckdb import DuckDBPyConnection
from pydantic import Field

from profile_pipeline import replay, warehouse
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project


class Warehouse(DuckDBResource):
    """The project's DuckDB warehouse. One run holds the project's lock from its first step to its last."""

    memory_limit: str | None = Field(
        default=None, description="DuckDB memory, for example 4GB; default a quarter"
    )

    rules: str | None = Field(
        default=None, description="rule folder; with it, history is put right after a batch was reverted"
    )

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["Warehouse"]:  # noqa: ARG002
        """Hold the lock as long as the run has the resource; a second run fails at once and says why.

        After a batch was reverted or restored history is gone through again first, while no step has the file open.
        """
        database = Path(self.database)
        with warehouse.run_lock(database.parent):
            if self.rules:
                project = Project(rules=Path(self.rules), data=database.parent.parent)
                replay.settle(load_config(project.rules), project)
            yield self

    @contextmanager
    def get_connection(self) -> Generator[DuckDBPyConnection]:
        """A connection that is always closed, unlike the parent's after an exception."""
        with warehouse.connect(Path(self.database), memory=self.memory_limit) as con:
            yield con
