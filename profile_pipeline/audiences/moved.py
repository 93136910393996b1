"""Which profiles have to be asked again: those that changed, and those for which time passed an edge.

An edge is where an answer can turn without new data: an event or a date enters or leaves a window, or the time is up
in which an event had to come. Of a condition in SQL that names the time, or looks at more than its own row, nobody
can say that; with one, every profile is asked in every run.
"""

from collections.abc import Iterator
from datetime import datetime

from duckdb import DuckDBPyConnection
from sqlglot import exp

from profile_pipeline.audiences.asked import conditions, event_conditions, of_types
from profile_pipeline.clock import moment, start_of
from profile_pipeline.computed.names import parsed
from profile_pipeline.config.audiences import Condition, Step
from profile_pipeline.config.load import Config
from profile_pipeline.profiles import touched
from profile_pipeline.warehouse import columns_of, literal, quote, table_exists

STEP = "audiences"
BEYOND_A_ROW = (exp.Window, exp.Query, exp.AggFunc)


DAYS_OF_MONTHS = 4
"""Most by which a time some months or years later, and the same time before, miss each other."""


def asks_all(config: Config) -> bool:
    """Whether an answer may turn for anybody, whatever happened."""
    return any(_beyond(text) for part in conditions(config) for text in _sql_in(part))


def _sql_in(part: Condition) -> Iterator[str]:
    steps: list[Condition | Step] = [part, *(part.sequence or [])]
    yield from (step.where for step in steps if step.where)


def _beyond(text: str) -> bool:
    tree = parsed(text)
    if tree is None or any(tree.find_all(*BEYOND_A_ROW)):
        return True
    return any(column.name.lower() == "as_of" for column in tree.find_all(exp.Column))


def moved_query(con: DuckDBPyConnection, config: Config, before: datetime, as_of: datetime) -> str:
    """Grain: one row a profile to ask again at `as_of`, when all were right at `before`."""
    parts = [touched.noted_query(STEP)]
    if event_conditions(config):
        edges = " or ".join(f"({edge})" for edge in dict.fromkeys(_event_edges(config, before, as_of)))
        parts.append(
            f"""select profile_id from profiles.events
            where profile_id is not null and ({edges}){of_types(config)}"""
        )
    parts += _field_queries(con, config, before, as_of)
    return " union ".join(parts)


def _event_edges(config: Config, before: datetime, as_of: datetime) -> Iterator[str]:
    """Conditions on an event that something happened to between the two times."""
    yield _passed("occurred_at", moment(before), moment(as_of))
    for part in event_conditions(config):
        kind = f"event_type = {literal(part.event)} and " if part.event not in {None, "any"} else ""
        for within in filter(None, (part.within, part.not_for)):
            yield kind + _passed("occurred_at", start_of(before, within), start_of(as_of, within))
        for step in part.sequence or []:
            if step.absent and step.within:
                yield time_is_up(step.within, before, as_of)


def time_is_up(within: str, before: datetime, as_of: datetime) -> str:
    """Whether an event's time to be followed by another ran out between two times.

    A month later is not what a month before undoes, so it is worked out; for speed only where it can be.
    """
    near = f"interval '{DAYS_OF_MONTHS} days'"
    old, new = start_of(before, within), start_of(as_of, within)
    exact = _passed(f"occurred_at + interval {literal(within)}", moment(before), moment(as_of))
    return f"{_passed('occurred_at', f'{old} - {near}', f'{new} + {near}')} and {exact}"


def _passed(at: str, old: str, new: str) -> str:
    return f"{at} > {old} and {at} <= {new}"


def _field_queries(
    con: DuckDBPyConnection, config: Config, before: datetime, as_of: datetime
) -> Iterator[str]:
    """Profiles with a date that came to count, or left its window."""
    fields = columns_of(con, "profiles.unified")
    for part in conditions(config):
        if part.kind != "field" or part.within_days is None or part.field is None:
            continue
        table = "profiles.unified" if part.field in fields else "profiles.computed"
        if table_exists(con, table):
            at, window = f"try_cast({quote(part.field)} as timestamptz)", f"{part.within_days} days"
            left = _passed(at, start_of(before, window), start_of(as_of, window))
            came = _passed(at, moment(before), moment(as_of))
            yield f"select profile_id from {table} where ({left}) or ({came})"
