"""Expressions of sources and conditions of audiences, bound to the columns they may use."""

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.audiences.leaves import leaf_of
from profile_pipeline.check.problem import Problem
from profile_pipeline.clock import NO_BATCH
from profile_pipeline.computed.compile import EVENT_COLUMNS, READ_AS, column_types
from profile_pipeline.config.audience_check import conditions_of
from profile_pipeline.config.audiences import Condition
from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.profiles.lists import list_columns
from profile_pipeline.profiles.nested import struct_types
from profile_pipeline.raw import ledger, target
from profile_pipeline.records import normalise
from profile_pipeline.records.blame import source_expressions
from profile_pipeline.records.mapping import staged_query
from profile_pipeline.records.normalise import value_type
from profile_pipeline.sandbox import expression_problem, sandbox, shape
from profile_pipeline.warehouse import quote, rows, scrubbed

PROFILE_COLUMNS = {
    "profile_id": "text", "kind": "text", "record_count": "bigint", "sources": "text[]",
    "identity_map": "map(text, text[])", "event_count": "bigint", "last_event_at": "timestamptz",
    "first_observed_at": "timestamptz", "last_observed_at": "timestamptz", "flagged": "boolean",
    "policy": "text", "policy_version": "integer",
}  # fmt: skip


def profile_columns(config: Config) -> dict[str, str]:
    """Columns and DuckDB types of the profile table, for audiences."""
    fields = {name: value_type(attribute) for name, attribute in config.attributes.items()}
    further = {**struct_types(config), **list_columns(config, config.profiles.default)}
    return {**PROFILE_COLUMNS, **fields, **further}


def source_problems(config: Config) -> list[Problem]:
    """Expressions of sources that do not work with the columns of their contract."""
    with sandbox() as con:
        found = [
            problem for name, source in config.sources.items() for problem in _of_source(con, name, source)
        ]
        spoilt = {problem.key.split(".")[1] for problem in found}
        whole = [name for name in config.sources if name not in spoilt]
        return [*found, *_together(con, config, whole)]


def _of_source(con: DuckDBPyConnection, name: str, source: Source) -> list[Problem]:
    shape(con, dict.fromkeys(source.columns, "text"))
    checked = (
        (key, expression_problem(con, text, condition=condition))
        for key, text, condition in source_expressions(source)
    )
    return [Problem("sources.yaml", f"sources.{name}.{key}", message) for key, message in checked if message]


def _together(con: DuckDBPyConnection, config: Config, names: list[str]) -> list[Problem]:
    """Sources whose expressions are sound one by one, but not in the query that a run makes of them."""
    con.execute("create schema if not exists raw")
    ledger.create_tables(con)
    normalise.register(con)
    found = []
    for name in names:
        try:
            target.create_table(con, name, config.sources[name])
            rows(con, f"describe {staged_query(config, name, [])}")
        except PipelineError as error:
            found.append(Problem.from_line(str(error)))
        except duckdb.Error as error:
            message = f"its rules do not work together: {scrubbed(error)}; mend its expressions"
            found.append(Problem("sources.yaml", f"sources.{name}", message))
    return found


def audience_problems(config: Config) -> list[Problem]:
    """Conditions of audiences that do not work with the columns of profiles, computed attributes or events."""
    found = []
    rules = config.audiences
    with sandbox() as con:
        for name, audience in rules.audiences.items():
            for path, condition in conditions_of(f"audiences.{name}", audience):
                problem = _audience_problem(con, config, condition)
                found += [Problem("audiences.yaml", path + problem[0], problem[1])] if problem else []
            found += [
                _not_consent(config, name, field)
                for field in rules.consents(name)
                if not _is_consent(config, field)
            ]
    return found


def _is_consent(config: Config, field: str) -> bool:
    return config.attributes[field].type in {"consent", "boolean"}


def _not_consent(config: Config, name: str, field: str) -> Problem:
    kind = config.attributes[field].type
    fix = "name a field of type consent or boolean"
    return Problem("audiences.yaml", f"audiences.{name}.consent", f"`{field}` is of type {kind}; {fix}")


def _audience_problem(
    con: DuckDBPyConnection, config: Config, condition: Condition
) -> tuple[str, str] | None:
    """What is wrong with one condition: the end of its key path, and the message; None when nothing is."""
    for number, step in enumerate(condition.sequence or []):
        shape(con, event_columns(config))
        message = expression_problem(con, step.where, condition=True) if step.where else None
        if message:
            return f".sequence.{number}.where", message
    if condition.where:
        shape(con, event_columns(config) if condition.event else audience_columns(config))
        message = expression_problem(con, condition.where, condition=True, clock=not condition.event)
        return (".where", message) if message else None
    message = _field_problem(con, config, condition) if condition.field else None
    return (".field", message) if message else None


def _field_problem(con: DuckDBPyConnection, config: Config, condition: Condition) -> str | None:
    """Whether the values of a comparison can be read as what the field holds: tried on a row without data."""
    columns = audience_columns(config)
    if condition.field not in columns:
        return f"`{condition.field}` is no column of the default policy; name one that is"
    query = leaf_of(condition, columns, NO_BATCH, "").holds
    typed = f"cast(null as {columns[condition.field]}) as {quote(condition.field)}"
    try:
        con.execute(f"select {query} from (select {typed})").fetchall()
    except duckdb.Error:
        return f"its values do not fit `{condition.field}`, which is {columns[condition.field]}; write values of that type"
    return None


def audience_columns(config: Config) -> dict[str, str]:
    """What conditions over profiles may name."""
    return {**profile_columns(config), **column_types(config), "as_of": "timestamptz"}


def event_columns(config: Config) -> dict[str, str]:
    """What conditions over events may name."""
    more = {name: READ_AS[column.type] for name, column in config.computed.event_columns.items()}
    return {**EVENT_COLUMNS, **more, "as_of": "timestamptz"}
