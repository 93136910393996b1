"""Great Expectations in, plain outcomes out. Nothing else in the project imports it, so it stays replaceable.

Frames hold only the columns a suite names; results carry positions, never values.
"""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from duckdb import DuckDBPyConnection, DuckDBPyRelation

from profile_pipeline.config.expectations import Expectation
from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Source
from profile_pipeline.config.wording import suggestion
from profile_pipeline.errors import PipelineError
from profile_pipeline.records.normalise import readable_query
from profile_pipeline.warehouse import columns_of, quote, rows

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.data_context import EphemeralDataContext

RESULT_FORMAT = {
    "result_format": "COMPLETE",
    "return_unexpected_index_query": False,
    "exclude_unexpected_values": True,
    "partial_unexpected_count": 0,
}
GENERAL_ARGUMENTS = {
    "id", "meta", "notes", "result_format", "description", "catch_exceptions", "rendered_content", "severity",
    "windows", "batch_id", "row_condition", "condition_parser",
}  # fmt: skip
"""What every expectation takes; `severity` and `notes` stand beside `kwargs` here."""


@dataclass(frozen=True)
class Outcome:
    """What one expectation found; `positions` are row positions of failures, for row-level ones."""

    name: str
    severity: str
    success: bool
    evaluated: int
    failed: int
    positions: list[int] = field(default_factory=list, repr=False)
    notes: str = ""


def derived_expectations(config: Config, source: Source) -> list[Expectation]:
    """The expectations that follow from a source's declaration: keys, times, readable typed values."""
    found = []
    if source.kind == "record":
        found.append(_flag("key_present", "error", "every row names its record"))
    if source.event:
        found.append(_flag("event_id_present", "error", "every event has an id"))
        found.append(_flag("event_time_readable", "error", "every event has a time in a declared format"))
    elif source.time:
        found.append(_flag("time_readable", "warning", "the row's own time is in a declared format"))
    found += [
        _flag(f"{name}_readable", "warning", f"a filled {name} can be read as its type")
        for name in source.attributes
        if source.mapping(name).field or readable_query(config.attributes[name], source, "x", "y")
    ]
    return found


def _flag(name: str, severity: str, notes: str) -> Expectation:
    return Expectation(
        name=name,
        type="expect_column_values_to_be_in_set",
        kwargs={"column": f"ok__{name}", "value_set": [True]},
        severity=severity,  # ty: ignore[invalid-argument-type]
        notes=notes,
    )


def validate(
    con: DuckDBPyConnection, table: str, suite: Sequence[Expectation], order: str = ""
) -> list[Outcome]:
    """Run expectations on a table; raises PipelineError for a column or type that does not exist."""
    if not suite:
        return []
    frame = _frame(con.sql(_frame_query(con, table, suite, order)))
    batch = _context_batch(frame)
    return [_outcome(batch, len(frame), item) for item in suite]


def _frame(found: DuckDBPyRelation) -> "pd.DataFrame":
    """The rows as pandas sees them; text goes by Arrow, in a tenth of the time and to the same type."""
    if all(kind == "VARCHAR" for kind in found.types):
        return found.to_arrow_table().to_pandas()
    return found.df()


def _frame_query(con: DuckDBPyConnection, table: str, suite: Sequence[Expectation], order: str) -> str:
    columns = columns_of(con, table)
    named = dict.fromkeys(name for item in suite for name in columns_named(item))
    unknown = [name for name in named if name not in columns]
    if unknown:
        raise PipelineError(
            f"expectations for {table}: unknown column {', '.join(unknown)}; it has {', '.join(columns)}"
        )
    listed = ", ".join(quote(name) for name in named) or "1 as one"
    return f"select {listed} from {table}" + (f" order by {order}" if order else "")


def columns_named(item: Expectation) -> list[str]:
    """Columns that an expectation looks at; empty for one about the whole table."""
    single = [v for k, v in item.kwargs.items() if k in {"column", "column_A", "column_B"}]
    return [*single, *item.kwargs.get("column_list", [])]


def definition_problems(item: Expectation) -> list[tuple[str, str]]:
    """Why Great Expectations would not take an expectation: (key, what is wrong and how to mend it)."""
    _context()
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )
    from pydantic.v1 import ValidationError

    known = [name for name in list_registered_expectation_implementations() if name.startswith("expect_")]
    if item.type not in known:
        fix = suggestion(item.type, known, "see the gallery of Great Expectations")
        return [("type", f"Great Expectations has no `{item.type}`; {fix}")]
    kind = get_expectation_impl(item.type)
    try:
        kind(**item.kwargs)
    except ValidationError as error:
        own = [name for name in kind.__fields__ if name not in GENERAL_ARGUMENTS]
        worded = [_argument_problem(problem, own) for problem in error.errors()]
        return list({key: (key, message) for key, message in reversed(worded)}.values())[::-1]
    except Exception as error:  # some arguments are validated with exceptions of the library's own
        return [("kwargs", f"refused by Great Expectations ({type(error).__name__}); mend them")]
    return []


def _argument_problem(problem: Any, known: list[str]) -> tuple[str, str]:  # noqa: ANN401
    name = str(problem["loc"][0])
    if problem["type"] == "value_error.extra":
        fix = suggestion(name, known, f"known: {', '.join(known)}")
        return f"kwargs.{name}", f"unknown argument; {fix}"
    if problem["type"] == "value_error.missing":
        return f"kwargs.{name}", f"is missing; add `{name}:`"
    if name == "__root__":
        return "kwargs", f"{problem['msg']}; mend them"
    return f"kwargs.{name}", f"{problem['msg']}; mend it"


def load() -> None:
    """Load Great Expectations, which takes seconds, before a run needs it."""
    _context()


@functools.cache
def _context() -> "EphemeralDataContext":
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.execution_engine import pandas_execution_engine

    # it would hash every frame twice, into a mark that nothing reads: longer than all expectations take
    pandas_execution_engine.HASH_THRESHOLD = 0.0
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    return context


def _context_batch(frame: Any) -> Any:  # noqa: ANN401  Great Expectations has no public name for it
    return _context().data_sources.pandas_default.read_dataframe(frame)


def _outcome(batch: Any, row_count: int, item: Expectation) -> Outcome:  # noqa: ANN401
    from great_expectations.expectations.registry import get_expectation_impl

    try:
        expectation = get_expectation_impl(item.type)(**item.kwargs)
        result = batch.validate(expectation, result_format=RESULT_FORMAT)
    except Exception as error:  # any failure inside the library must not quote data
        raise PipelineError(
            f"expectation {item.label} cannot run: {type(error).__name__}; check its kwargs"
        ) from None
    found = result.result or {}
    if _raised(result.exception_info or {}):
        raise PipelineError(f"expectation {item.label} cannot run on this column; check its type and kwargs")
    positions = [int(p) for p in found.get("unexpected_index_list") or []]
    failed = int(found.get("unexpected_count") or (0 if result.success else row_count or 1))
    return Outcome(item.label, item.severity, bool(result.success), row_count, failed, positions, item.notes)


def _raised(info: dict[str, Any]) -> bool:
    """Whether the library met an error; it keeps one note, or one for each metric that it could not compute."""
    notes = [info, *(note for note in info.values() if isinstance(note, dict))]
    return any(note.get("raised_exception") for note in notes)


def filled_shares(con: DuckDBPyConnection, table: str, columns: list[str], where: str) -> dict[str, float]:
    """Share of rows in which each column has a value, 0 to 1."""
    if not columns:
        return {}
    listed = ", ".join(f"count({quote(c)}) / greatest(count(*), 1)" for c in columns)
    [values] = rows(con, f"select {listed} from {table} where {where}")
    return dict(zip(columns, values, strict=True))
