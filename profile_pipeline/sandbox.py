"""Expressions of rule files, bound to columns in an in-memory DuckDB that can read nothing.

An expression is a value of one row: no queries, aggregates, windows or parameters, nothing that differs from run
to run. It is bound, never executed, so no data and no long computation is involved.
"""

import functools
import json
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.wording import suggestion
from profile_pipeline.warehouse import quote, rows, scalar

SETTINGS: dict[str, Any] = {
    "enable_external_access": False,
    "lock_configuration": True,
    "python_enable_replacements": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_persistent_secrets": False,
    "threads": 1,
    "memory_limit": "512MiB",
}
WHOLE_TABLE = {
    "SUBQUERY": "a query inside an expression is not allowed; use the columns of the row only",
    "WINDOW": "a window function looks at other rows; use the columns of the row only",
    "STAR": "`*` stands for many columns; name one",
    "PARAMETER": "`?` and `$1` stand for nothing here; write the value out",
}
ONE_VALUE = "must be one expression; remove what follows it, or put it in parentheses"
CLOCKS = {"now", "today", "current_date", "current_timestamp", "current_time", "transaction_timestamp",
          "get_current_timestamp", "get_current_time", "localtimestamp", "localtime"}  # fmt: skip


@contextmanager
def sandbox() -> Generator[DuckDBPyConnection]:
    """A connection without files, network, extensions or changeable settings."""
    con = duckdb.connect(config=SETTINGS)
    try:
        yield con
    finally:
        con.close()


def shape(con: DuckDBPyConnection, columns: Mapping[str, str]) -> None:
    """Make `row`, the empty table that expressions are bound to, with these columns and DuckDB types."""
    listed = ", ".join(f"{quote(name)} {kind}" for name, kind in columns.items())
    con.execute(f"create or replace table row_shape ({listed or 'nothing text'})")


def expression_problem(
    con: DuckDBPyConnection,
    expression: str,
    *,
    condition: bool = False,
    clock: bool = False,
    aggregate: bool = False,
) -> str | None:
    """What is wrong with an expression and how to mend it, in one line; None when nothing is.

    `condition`: it has to be true or false. `clock`: it may ask what time it is. `aggregate`: it looks
    at the rows of a group.
    """
    tree = json.loads(scalar(con, "select json_serialize_sql(?)", [f"select ({expression}) from row_shape"]))
    if tree["error"]:
        return _grammar(expression, tree["error_message"])
    statements = tree["statements"]
    if len(statements) != 1 or not _is_one_value(statements[0]["node"]):
        return ONE_VALUE
    return _forbidden(con, statements[0]["node"]["select_list"], clock, aggregate) or _binding(
        con, expression, condition
    )


def clock_in(con: DuckDBPyConnection, expression: str) -> str | None:
    """The first function of an expression that gives another value at another run; None when it has none or cannot be read."""
    tree = json.loads(
        scalar(con, "select json_serialize_sql(?)", [f"select (\n{expression}\n) from row_shape"])
    )
    for node in _nodes(tree):
        name = {
            "FUNCTION": node.get("function_name"),
            "COLUMN_REF": node.get("column_names", [None])[-1],
        }.get(node["class"])
        if name and (
            name.lower() in CLOCKS or (node["class"] == "FUNCTION" and _is_unsteady(con, name.lower()))
        ):
            return name
    return None


def _is_unsteady(con: DuckDBPyConnection, lowered: str) -> bool:
    kinds = _functions(con).get(lowered, set())
    return bool({stability for _, stability in kinds} & {"VOLATILE", "CONSISTENT_WITHIN_QUERY"})


def _grammar(expression: str, message: str) -> str:
    if 'near "from"' in message and not re.search(r"\bfrom\b", expression, re.IGNORECASE):
        return "ends too early for a DuckDB expression; close the bracket, quote or `case` that is open"
    return f"is not a DuckDB expression: {_printed(message)}; mend it"


def _is_one_value(node: dict[str, Any]) -> bool:
    parts = ("where_clause", "group_expressions", "having", "qualify", "sample", "modifiers")
    return (
        node["type"] == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"].get("table_name") == "row_shape"
        and not any(node.get(part) for part in parts)
    )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _forbidden(con: DuckDBPyConnection, tree: Any, clock: bool, aggregate: bool) -> str | None:  # noqa: ANN401
    names = {}
    for node in _nodes(tree):
        if node["class"] in WHOLE_TABLE:
            return WHOLE_TABLE[node["class"]]
        if node["class"] == "FUNCTION":
            names[node["function_name"].lower()] = node["function_name"]
        elif node["class"] == "COLUMN_REF" and node["column_names"][-1].lower() in CLOCKS:
            names[node["column_names"][-1].lower()] = node["column_names"][-1]
    for lowered, name in names.items():
        found = _function_problem(con, lowered, name, clock, aggregate)
        if found:
            return found
    return None


def _function_problem(
    con: DuckDBPyConnection, lowered: str, name: str, clock: bool, aggregate: bool
) -> str | None:
    kinds = _functions(con).get(lowered, set())
    types = {kind for kind, _ in kinds}
    many = {"window"} if aggregate else {"aggregate", "window"}
    if lowered == "unnest" or (types & many and not types & ({"scalar", "aggregate"} - many)):
        return f"`{name}` looks at or makes many rows; use the columns of the row only"
    if clock and lowered in CLOCKS:
        return None
    if lowered in CLOCKS or _is_unsteady(con, lowered):
        return f"`{name}` gives another value at another run; use the columns of the row only"
    return None


@functools.cache
def aggregates() -> frozenset[str]:
    """Names of DuckDB's aggregate functions that are nothing else."""
    with sandbox() as con:
        return frozenset(
            name for name, kinds in _functions(con).items() if {k for k, _ in kinds} == {"aggregate"}
        )


_known: dict[str, set[tuple[str, str]]] = {}


def _functions(con: DuckDBPyConnection) -> dict[str, set[tuple[str, str]]]:
    """Kind and stability of DuckDB's functions by name; the same in every sandbox, so asked once."""
    if not _known:
        for name, kind, stability in rows(
            con, "select distinct function_name, function_type, stability from duckdb_functions()"
        ):
            _known.setdefault(name, set()).add((kind, stability))
    return _known


def _binding(con: DuckDBPyConnection, expression: str, condition: bool) -> str | None:
    try:
        described = rows(con, f"describe select ({expression}) from row_shape")
    except duckdb.Error as error:
        return _plain(con, str(error))
    kind = described[0][1]
    if condition and kind not in {"BOOLEAN", '"NULL"'}:
        return f"must be true or false, not {kind.lower()}; compare it with something"
    return None


def _plain(con: DuckDBPyConnection, message: str) -> str:
    """DuckDB's refusal in our words; rule files hold no personal values, so names may be quoted."""
    columns = [name for name, *_ in rows(con, "describe row_shape")]
    if found := re.search(r'Referenced (?:column|table) "(.+?)" not found', message):
        fix = suggestion(found[1], columns, f"columns: {', '.join(columns)}")
        return f"unknown column `{found[1]}`; {fix}"
    if found := re.search(r"Function with name (\S+) does not exist", message):
        fix = suggestion(found[1], _functions(con), "see the DuckDB documentation")
        return f"unknown function `{found[1]}`; {fix}"
    if found := re.search(r"No function matches the given name and argument types '(.+)'\.", message):
        return f"no function takes `{found[1]}`; columns are text, add casts such as `try_cast(x as double)`"
    if "explicit cast is required" in message:
        return f"{_printed(message)}; columns are text: write '5' in quotes or `try_cast(x as double)`"
    return f"does not work: {_printed(message)}; mend it"


def _printed(message: str) -> str:
    line = message.splitlines()[0]
    text = re.sub(r"^[A-Z][A-Za-z ]+ Error: ", "", line).replace('"', "`").rstrip(".;!")
    return text[:1].lower() + text[1:200]
