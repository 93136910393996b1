"""The warehouse as a Dagster resource: the configuration schema of dagster-duckdb, our connections and lock."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource
from duckdb import DuckDBPyConnection
from pydantic import Field, PrivateAttr

from profile_pipeline import replay, warehouse
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError


class Warehouse(DuckDBResource):
    """The project's DuckDB warehouse. One run holds the project's lock from its first step to its last."""

    memory_limit: str | None = Field(
        default=None, description="DuckDB memory, for example 4GB; default a quarter"
    )

    rules: str | None = Field(
        default=None, description="rule folder; with it, history is put right after a batch was reverted"
    )

    _opened: ExitStack = PrivateAttr(default_factory=ExitStack)
    _connection: DuckDBPyConnection | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator["Warehouse"]:  # noqa: ARG002
        """Hold the lock as long as the run has the resource; a run beside another one fails and says why.

        After a batch was reverted or restored history is gone through again first, while no step has the file open.
        """
        database = Path(self.database)
        with warehouse.run_lock(database.parent, patience=warehouse.RUN_PATIENCE):
            if self.rules:
                project = Project(rules=Path(self.rules), data=database.parent.parent)
                try:
                    replay.settle(load_config(project.rules), project)
                except PipelineError:
                    raise
                except Exception as error:  # no step is there yet to take the values out of a message
                    raise warehouse.scrubbed(error) from None
            try:
                yield self
            finally:
                self._opened.close()

    @contextmanager
    def get_connection(self) -> Generator[DuckDBPyConnection]:
        """The run's connection: opened by its first step, so that the next ones find in memory what it has read.

        Closed, whatever happens, when the run ends; after an exception at once, unlike the parent's.
        """
        if self._connection is None:
            opened = warehouse.connect(Path(self.database), memory=self.memory_limit)
            self._connection = self._opened.enter_context(opened)
            self._opened.callback(setattr, self, "_connection", None)
        try:
            yield self._connection
        except BaseException:
            self._opened.close()
            raise
