"""The in-memory database that spells the world out: frames of numbers in, rows of text out.

A query reads the table `frame`, and the true `people` of the block. Each name in it that begins with `u_`
(`h_` for homes) becomes a column of uniform random numbers; each `$name` is a rate of rates.py.
"""

import re
from dataclasses import asdict
from functools import cache
from importlib.resources import files

import duckdb
import numpy as np
import pyarrow as pa

from profile_pipeline.generate.draws import with_draws
from profile_pipeline.generate.frames import Members
from profile_pipeline.generate.rates import RATES
from profile_pipeline.generate.world import Block


def open_scratch(seed: int) -> duckdb.DuckDBPyConnection:
    """Open the database with the macros of a world, and the table of record keys that have a label (`labelled`)."""
    connection = duckdb.connect(config={"python_enable_replacements": "false"})
    connection.execute("create table labelled (key ubigint)")
    connection.execute("set variable seed = $seed", {"seed": str(seed)})
    for name in ("noise", "places"):
        connection.execute(read_query(name))
    return connection


@cache
def read_query(name: str) -> str:
    """Return the text of a query."""
    return (files("profile_pipeline.generate") / "sql" / f"{name}.sql").read_text("utf-8")


@cache
def drawn_names(query_name: str, letter: str) -> list[str]:
    """Return the names in a query that stand for random numbers of a frame."""
    return sorted(set(re.findall(rf"\b{letter}_\w+", read_query(query_name))))


def load_people(connection: duckdb.DuckDBPyConnection, block: Block) -> None:
    """Write the true people of a block into the table `people`."""
    homes = with_draws(block.households, block.draws, "home", drawn_names("people", "h"))
    connection.register("homes", homes)
    query, rates = bind_frame(connection, "people", block.people, block)
    connection.execute(query, rates)


def read_members(connection: duckdb.DuckDBPyConnection) -> Members:
    """Return who of the block is in which source, as arrays in order of the person."""
    query = "select person, columns('^in_') from people order by person"
    columns = connection.execute(query).fetchnumpy()
    return {name: np.asarray(column) for name, column in columns.items()}


def run_query(connection: duckdb.DuckDBPyConnection, name: str, frame: pa.Table, block: Block) -> pa.Table:
    """Run a query over a frame that gets the random columns the query asks for."""
    query, rates = bind_frame(connection, name, frame, block)
    return connection.sql(query, params=rates).to_arrow_table()


def bind_frame(
    connection: duckdb.DuckDBPyConnection, name: str, frame: pa.Table, block: Block
) -> tuple[str, dict[str, float]]:
    """Register the frame of a query with its random columns; return the query and the rates it names."""
    query = read_query(name)
    connection.register("frame", with_draws(frame, block.draws, name, drawn_names(name, "u")))
    rates = {
        name: value for name, value in asdict(RATES).items() if f"${name}" in re.findall(r"\$\w+", query)
    }
    return query, rates
