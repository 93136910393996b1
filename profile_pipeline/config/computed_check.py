"""Mistakes in computed.yaml that only the other rule files or the expressions themselves show."""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from profile_pipeline.config.computed import ComputedAttribute
from profile_pipeline.config.wording import suggestion

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from profile_pipeline.config.load import Config

FILE = "computed.yaml"
HOURS = {"minute": 1 / 60, "hour": 1, "day": 24, "week": 168, "month": 28 * 24, "year": 365 * 24}
"""At least as long as this is a window of one of these."""
NEEDS_ORDER = {"any_value", "arbitrary", "arg_max", "arg_min", "array_agg", "first", "group_concat", "histogram", "last", "list",
               "listagg", "max_by", "min_by", "mode", "string_agg", "approx_top_k"}  # fmt: skip
"""Aggregates that give another value when rows are seen in another order, at least where rows are tied."""
WITH_ORDER = {"list", "array_agg", "string_agg", "group_concat", "listagg", "first", "last"}


def computed_problems(config: "Config", taken: Iterable[str]) -> list[str]:
    """Lines `computed.yaml: key.path: what is wrong; how to mend it`; `taken` are columns that every profile has."""
    if not (config.computed.attributes or config.computed.event_columns):
        return []
    from profile_pipeline.config.cross_check import RESERVED_WORDS

    used = {*taken, *config.attributes, *config.structs, "as_of"}
    found = [
        *_names("attributes", config.computed.attributes, used, RESERVED_WORDS),
        *_names("event_columns", config.computed.event_columns, _timeline_columns(), RESERVED_WORDS),
        *_sources(config),
        *_made_of(config),
    ]
    return [f"{FILE}: {line}" for line in found or _expressions(config)]


def _timeline_columns() -> set[str]:
    from profile_pipeline.computed.compile import EVENT_COLUMNS

    return {*EVENT_COLUMNS, "as_of"}


def _names(group: str, names: Iterable[str], used: set[str], words: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name in used:
            yield f"{group}.{name}: is a column that is there already; write `computed_{name}`"
        elif name in words:
            yield f"{group}.{name}: is a word of SQL; write `{name}_value`"


def _sources(config: "Config") -> Iterator[str]:
    """Sources that do not exist or deliver no such rows, and windows longer than their events are kept."""
    for name, attribute in config.computed.attributes.items():
        if attribute.derived:
            continue
        known = config.event_sources if attribute.over == "events" else config.record_sources
        named = [("sources", source) for source in attribute.sources or ()] + _compared(attribute)
        for key, source in named:
            if source not in known:
                fix = suggestion(source, known, f"known: {', '.join(known) or 'none'}")
                yield f"attributes.{name}.{key}: unknown source of {attribute.over} `{source}`; {fix}"
        if attribute.within and attribute.over == "events":
            yield from _too_long(config, name, attribute)


def _compared(attribute: ComputedAttribute) -> list[tuple[str, str]]:
    from profile_pipeline.computed.names import compared_with

    texts = {"where": attribute.where, "part": attribute.part}
    return [
        (key, each) for key, text in texts.items() if text for each in sorted(compared_with(text, "source"))
    ]


def _too_long(config: "Config", name: str, attribute: ComputedAttribute) -> Iterator[str]:
    number, unit = (attribute.within or "").split()
    hours = int(number) * HOURS[unit.removesuffix("s")]
    for source in attribute.sources or config.event_sources:
        kept = config.event_sources[source].retention_days if source in config.event_sources else None
        if kept is not None and hours > kept * 24:
            yield (
                f"attributes.{name}.within: {attribute.within} is longer than the {kept} days that events of `{source}`"
                " are kept; shorten it, or name other `sources:`"
            )


def _made_of(config: "Config") -> Iterator[str]:
    from profile_pipeline.computed.names import cycle

    attributes = config.computed.attributes
    for name, attribute in attributes.items():
        for other in attribute.of or ():
            if other not in attributes:
                fix = suggestion(other, attributes, f"known: {', '.join(attributes)}")
                yield f"attributes.{name}.of: unknown attribute `{other}`; {fix}"
    circle = cycle(attributes)
    if circle:
        yield f"attributes.{circle[0]}: needs itself: {' -> '.join(circle)}; take one of these out of the circle"


# ---------------------------------------------------------------- expressions, bound and never executed


def _expressions(config: "Config") -> list[str]:
    from profile_pipeline.check.expressions import profile_columns
    from profile_pipeline.computed import compile as compiled
    from profile_pipeline.records.normalise import value_type
    from profile_pipeline.sandbox import sandbox, shape

    fields = {name: value_type(attribute) for name, attribute in config.attributes.items()}
    lines: list[str] = []
    with sandbox() as con:
        shape(con, compiled.EVENT_COLUMNS)
        for name, column in config.computed.event_columns.items():
            lines += _said(con, f"event_columns.{name}.value", column.value)
        of_events = {name: compiled.READ_AS[c.type] for name, c in config.computed.event_columns.items()}
        shape(con, compiled.EVENT_COLUMNS | of_events)
        lines += _over(config, con, "events")
        shape(con, compiled.RECORD_COLUMNS | fields)
        lines += _over(config, con, "records")
        shape(con, profile_columns(config) | compiled.column_types(config) | {"as_of": "timestamptz"})
        for name, attribute in config.computed.attributes.items():
            if attribute.expression:
                lines += _said(con, f"attributes.{name}.expression", attribute.expression)
    return lines


def _over(config: "Config", con: "DuckDBPyConnection", over: str) -> list[str]:
    lines: list[str] = []
    for name, attribute in config.computed.attributes.items():
        if attribute.derived or attribute.over != over:
            continue
        key = f"attributes.{name}"
        for part, condition in (("where", True), ("part", True), ("value", False)):
            if text := getattr(attribute, part):
                lines += _said(con, f"{key}.{part}", text, condition=condition)
        if attribute.aggregate:
            lines += _aggregate(con, f"{key}.aggregate", attribute.aggregate)
    return lines


def _said(con: "DuckDBPyConnection", key: str, text: str, *, condition: bool = False) -> list[str]:
    from profile_pipeline.sandbox import expression_problem

    found = expression_problem(con, text, condition=condition)
    return [f"{key}: {found}"] if found else []


def _aggregate(con: "DuckDBPyConnection", key: str, text: str) -> list[str]:
    from profile_pipeline.sandbox import expression_problem

    found = expression_problem(con, text, aggregate=True) or _not_of_rows(text)
    return [f"{key}: {found}"] if found else []


def _not_of_rows(text: str) -> str | None:
    """An aggregate that is none, or whose value depends on the order in which rows are seen."""
    from sqlglot import exp

    from profile_pipeline.computed.compile import calls
    from profile_pipeline.computed.names import parsed

    tree = parsed(text)
    found = list(calls(exp.Paren(this=tree))) if tree else []
    if not found:
        return "looks at no rows; write an aggregate such as sum(amount), or use `expression:`"
    for call in found:
        name = re.split(r"\W", call.sql("duckdb").lower(), maxsplit=1)[0]
        ordered = name in WITH_ORDER and call.find(exp.Order)
        if name in NEEDS_ORDER and not ordered:
            return f"`{name}` depends on the order of rows; use `compute: first`, `last`, `last_values` or `most_frequent`"
    return None
