"""Which expression of a source does not work, and on which row first, once a run has failed on them all together."""

from collections.abc import Iterator

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.sources import Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.warehouse import rows, scrubbed

Located = tuple[str, str, bool]
"""Key path below the source, the expression, and whether it is a condition."""
MISFITS = (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException)
"""What is wrong whatever the rows say: `check` finds it, with a suggestion."""


def source_expressions(source: Source) -> Iterator[Located]:
    """Every expression of a source, in the order of the file."""
    single = (
        ("where", source.where, True),
        ("key", source.key, False),
        ("delete_when", source.delete_when, True),
    )
    yield from ((key, text, condition) for key, text, condition in single if text)
    if source.time:
        yield "time.value", source.time.value, False
    if source.event:
        parts = {"id": source.event.id, "type": source.event.type, "channel": source.event.channel}
        yield from ((f"event.{key}", text, False) for key, text in parts.items() if text)
    for field in source.attributes:
        mapping = source.mapping(field)
        yield f"attributes.{field}", mapping.value, False
        if mapping.cleared:
            yield f"attributes.{field}.cleared", mapping.cleared, True
    yield from ((f"identifiers.{space}", text, False) for space, text in source.identifiers.items())


def explained(
    con: DuckDBPyConnection, name: str, source: Source, files: list[int], error: Exception
) -> PipelineError:
    """The failure of a source's query over these files, told of the expression that is to blame."""
    with con.cursor() as own:  # what failed has spoilt the transaction of the run
        problem = _first_problem(own, name, source, files)
    key, words = problem or ("", f"its rows cannot be mapped: {scrubbed(error)}; mend its expressions")
    return PipelineError(f"sources.yaml: sources.{name}{key}: {words}")


def _first_problem(
    con: DuckDBPyConnection, name: str, source: Source, files: list[int]
) -> tuple[str, str] | None:
    """`.<key path>` and what is wrong there; None when every expression works by itself."""
    pending = f"select * from raw.{name} where _file in ({', '.join(map(str, files)) or 'null'})"
    for key, text, _ in source_expressions(source):
        problem = _problem(con, text, pending)
        if problem:
            return f".{key}", problem
        if key == "where":  # the others never see the rows that it leaves out
            pending += f" and coalesce(({text}), false)"
    return None


def _problem(con: DuckDBPyConnection, text: str, pending: str) -> str | None:
    try:
        con.execute(f"select count(cast(({text}) as text)) from ({pending})")
    except MISFITS as error:
        return f"does not fit the columns of the source: {scrubbed(error)}; `profile-pipeline check` says how to mend it"
    except duckdb.Error as error:
        return (
            f"does not work{_first_row(con, text, pending)}: {scrubbed(error)};"
            " mend it, or put `try(...)` around it, which gives nothing for such a row"
        )
    return None


def _first_row(con: DuckDBPyConnection, text: str, pending: str) -> str:
    """` on <file>, line <number>`; empty where DuckDB cannot try the expression row by row."""
    # concat turns NULL into text, so that only a failure is NULL
    failed = f"try(concat('', cast(({text}) as text))) is null"
    try:
        [(file, line)] = rows(
            con,
            f"select f.name, d._line from ({pending}) d join raw.files f on f.file_id = d._file"
            f" where {failed} order by d._file, d._line limit 1",
        )
    except (duckdb.Error, ValueError):
        return ""
    return f" on {file}, line {line}"
