"""Which attribute an error of DuckDB is about: all are worked out by one query, so it is found by trying each alone."""

from datetime import datetime

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.computed.compile import KEY, parts_query, simple
from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.warehouse import scrubbed


def blamed(con: DuckDBPyConnection, config: Config, as_of: datetime, error: duckdb.Error) -> PipelineError:
    """The error with the attribute in which it comes up. Call it outside of the transaction that the error ended."""
    for over in KEY:
        for name, attribute in simple(config, over).items():
            query = parts_query(only(config, [name]), over, as_of)
            try:
                con.execute(f"select count({name}) from ({query})").fetchall()
            except duckdb.TransactionException:
                break
            except duckdb.Error as own:
                key = "aggregate" if attribute.aggregate else "compute"
                text = f"computed.yaml: attributes.{name}.{key}: does not work: {scrubbed(own)}"
                return PipelineError(f"{text}; use try_cast in it" if attribute.aggregate else text)
    return PipelineError(f"computed.yaml: attributes: does not work: {scrubbed(error)}")


def only(config: Config, names: list[str]) -> Config:
    """The same rules with these attributes alone, in the order of the file."""
    kept = {name: a for name, a in config.computed.attributes.items() if name in names}
    return config.model_copy(update={"computed": config.computed.model_copy(update={"attributes": kept})})
