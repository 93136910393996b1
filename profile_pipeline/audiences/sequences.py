"""Sequences of events as SQL: who has done one thing after another in time, and not done a third.

Only the time of the last event matters for what may follow it, so each step keeps the times at which it can be
reached: a window function over the times of both kinds of events, never pairs of events. `Later` is later by the clock;
events of one moment have no order.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from profile_pipeline.audiences.leaves import event_condition, sequence_columns
from profile_pipeline.clock import moment, start_of
from profile_pipeline.config.audiences import Condition, Step
from profile_pipeline.warehouse import literal


def sequence_query(condition: Condition, events: str, as_of: datetime) -> str:
    """Grain: one row a profile that did the first step; whether the sequence holds, how far it got and when last.

    `events`: a relation of the timeline up to the as-of time.
    """
    steps = condition.sequence or []
    start = f" and occurred_at > {start_of(as_of, condition.within)}" if condition.within else ""
    happened = [
        f"e{n} as (select distinct profile_id, occurred_at as t from {events} where {event_condition(step)}{start})"
        for n, step in enumerate(steps)
    ]
    reached, parts = [(0, "e0")], []
    for number, absences in _gaps(steps):
        before = reached[-1][1]
        parts.append(f"b{number} as ({_until_query(before, absences)})")
        parts.append(f"r{number} as ({_followed_query(f'b{number}', steps[number], number)})")
        reached.append((number, f"r{number}"))
    absences = list(_absences_behind(steps, reached[-1][0]))
    last = reached[-1][1]
    if absences:
        parts.append(f"r{len(steps) - 1} as ({_still_absent_query(last, absences, as_of)})")
        last = f"r{len(steps) - 1}"
        reached.append((len(steps) - 1, last))
    holds, step, at = sequence_columns(condition)
    far = " union all ".join(f"select profile_id, {n + 1} as step, t from {name}" for n, name in reached)
    return f"""
        with {", ".join([*happened, *parts])}
        select profile_id, max(step) = {len(steps)} as {holds}, max(step) as {step}, arg_max(t, (step, t)) as {at}
        from ({far}) group by profile_id"""


Absences = list[tuple[int, Step]]


def _gaps(steps: Sequence[Step]) -> Iterator[tuple[int, Absences]]:
    """Every event step behind the first, with the absences between it and the event before."""
    waiting: Absences = []
    for number, step in enumerate(steps[1:], 1):
        if step.absent:
            waiting.append((number, step))
        else:
            yield number, waiting
            waiting = []


def _absences_behind(steps: Sequence[Step], number: int) -> Iterator[tuple[int, Step]]:
    return ((n, step) for n, step in enumerate(steps) if n > number)


def _with_next_query(reached: str, number: int) -> str:
    """Adds to each time when the event of a step happens next, strictly later."""
    return f"""select * exclude (x), min(x) over (
                partition by profile_id order by t desc, x nulls first rows unbounded preceding) as n{number}
            from (from {reached} union all by name select profile_id, t, t as x from e{number})
            qualify x is null"""


def _until_query(before: str, absences: Absences) -> str:
    """Times of a step, and the last moment (`until`) at which the next event still finds nothing in between."""
    query, ends = f"from {before}", []
    for number, step in absences:
        query = _with_next_query(f"({query})", number)
        limit = f" and n{number} <= t + interval {literal(step.within)}" if step.within else ""
        ends.append(f"if(n{number} is not null{limit}, n{number}, timestamptz 'infinity')")
    until = f"least({', '.join(ends)})" if ends else "timestamptz 'infinity'"
    return f"select profile_id, t, {until} as until from ({query})"


def _followed_query(before: str, step: Step, number: int) -> str:
    """Times of the events of a step that follow one of the times before, in time."""
    limit = f"least(until, t + interval {literal(step.within)})" if step.within else "until"
    return f"""select profile_id, t from (
            select profile_id, t, follows, max(until) over (
                partition by profile_id order by t, follows desc rows unbounded preceding) as latest
            from (select profile_id, t, {limit} as until, false as follows from {before}
                union all select profile_id, t, null, true from e{number}))
        where follows and t <= latest"""


def _still_absent_query(last: str, absences: Absences, as_of: datetime) -> str:
    """Times behind which the events have not come: the limit is over, and there is none until now."""
    query, wanted = f"from {last}", []
    for number, step in absences:
        query = _with_next_query(f"({query})", number)
        none = f"n{number} is null"
        if step.within:
            limit = f"t + interval {literal(step.within)}"
            late = f" or n{number} > {limit}" if step.or_late else ""
            none = f"({limit} <= {moment(as_of)} and ({none}{late}))"
        wanted.append(none)
    return f"select profile_id, t from ({query}) where {' and '.join(wanted)}"
