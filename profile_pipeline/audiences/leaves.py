"""The conditions of audiences one by one: what each asks in words, and as SQL over a row of `compile.rows_query`.

A leaf is a condition without conditions inside. It is true or false: what cannot be told is false.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from profile_pipeline.clock import NO_BATCH, moment, start_of
from profile_pipeline.config.audiences import COMPARISONS, Audience, Condition, External, Step
from profile_pipeline.config.load import Config
from profile_pipeline.warehouse import fingerprint, literal, quote

WORDS = {
    "is": "is", "is_not": "is not", "in": "is one of", "not_in": "is none of", "above": "above", "at_least": "at least",
    "below": "below", "at_most": "at most", "between": "between", "contains": "contains",
}  # fmt: skip
SIGNS = {"above": ">", "at_least": ">=", "below": "<", "at_most": "<="}
Types = dict[str, str]
"""DuckDB types of the columns that conditions may name."""


@dataclass(frozen=True)
class Leaf:
    """`holds`: SQL, true or false. `seen`: SQL text of what it looks at."""

    path: str
    text: str
    holds: str
    seen: str

    @property
    def negated(self) -> bool:
        """Whether it counts when it does not hold."""
        return self.path.split(".").count("not") % 2 == 1

    @property
    def said(self) -> str:
        """What is asked, in words."""
        return f"not: {self.text}" if self.negated else self.text


def leaves_of(config: Config, types: Types, name: str, as_of: datetime) -> list[Leaf]:
    """The leaves of an audience in the order of the file, consent at the end."""
    audience = config.audiences.audiences[name]
    return [*_inside("", audience, types, as_of, name), *consent_leaves(config, name)]


def consent_leaves(config: Config, name: str) -> list[Leaf]:
    """A leaf for each consent that members must have given."""
    return [
        Leaf("consent", f"consent: {field}", f"coalesce({field}::boolean, false)", f"{field}::text")
        for field in config.audiences.consents(name)
    ]


def _inside(path: str, condition: Condition, types: Types, as_of: datetime, name: str) -> Iterator[Leaf]:
    for key, parts in (("all", condition.all_of), ("any", condition.any_of)):
        for number, part in enumerate(parts or []):
            yield from _inside(_below(path, f"{key}.{number}"), part, types, as_of, name)
    if condition.not_:
        yield from _inside(_below(path, "not"), condition.not_, types, as_of, name)
    if not (condition.all_of or condition.any_of or condition.not_):
        yield leaf_of(condition, types, as_of, name, path)


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def leaf_of(condition: Condition, types: Types, as_of: datetime, name: str, path: str = "") -> Leaf:
    """A condition that has none inside; `name`: the audience it belongs to, for a delivered list."""
    make = {
        "field": _of_field, "event": _of_event, "sequence": _of_sequence, "audience": _of_audience,
        "external": _of_list, "where": _of_sql,
    }[condition.kind]  # fmt: skip
    text, holds, seen = make(condition, types, as_of, name)
    return Leaf(_below(path, condition.kind), text, f"coalesce({holds}, false)", seen)


Made = tuple[str, str, str]
"""Words, SQL that may be null, and SQL of what it looks at."""


# ---------------------------------------------------------------- fields


def _of_field(condition: Condition, types: Types, as_of: datetime, _: str) -> Made:
    field = condition.field or ""
    column, kind = quote(field), types.get(field, "text")
    given = {key: getattr(condition, name) for key, name in COMPARISONS.items()}
    given = {key: value for key, value in given.items() if value is not None}
    text = f"{field} " + " and ".join(_in_words(key, value) for key, value in given.items())
    holds = " and ".join(_compared(column, kind, key, value, as_of) for key, value in given.items())
    return text, f"({holds})", f"{column}::text"


def _in_words(key: str, value: Any) -> str:  # noqa: ANN401
    if key in {"missing", "present"}:
        return "is missing" if key == "missing" else "is known"
    if key == "within_days":
        return f"within {value} days"
    return f"{WORDS[key]} {_said(value)}"


def _said(value: Any) -> str:  # noqa: ANN401
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _compared(column: str, kind: str, key: str, value: Any, as_of: datetime) -> str:  # noqa: ANN401
    if key in SIGNS:
        return f"{column} {SIGNS[key]} {_value(value, kind)}"
    if key in {"missing", "present"}:
        return f"{column} is null" if key == "missing" else f"{column} is not null"
    if key == "between":
        return f"{column} between {_value(value[0], kind)} and {_value(value[1], kind)}"
    if key == "within_days":
        time = f"try_cast({column} as timestamptz)"
        return f"{time} > {start_of(as_of, f'{value} days')} and {time} <= {moment(as_of)}"
    return _of_list_type(column, key, value) if kind.endswith("[]") else _equal(column, kind, key, value)


def _equal(column: str, kind: str, key: str, value: Any) -> str:  # noqa: ANN401
    if key == "contains":
        return f"contains(lower({column}::text), lower({literal(value)}))"
    several = value if isinstance(value, list) else [value]
    listed = ", ".join(_value(item, kind) for item in several)
    return f"{column} {'not in' if key in {'is_not', 'not_in'} else 'in'} ({listed})"


def _of_list_type(column: str, key: str, value: Any) -> str:  # noqa: ANN401
    """Lists: `is` these elements in any order, `in` any of them."""
    several = value if isinstance(value, list) else [value]
    listed = f"[{', '.join(literal(item) for item in several)}]"
    if key in {"in", "contains"}:
        return f"list_has_any({column}, {listed})"
    if key == "not_in":
        return f"not list_has_any({column}, {listed})"
    return f"list_sort({column}) {'<>' if key == 'is_not' else '='} list_sort({listed})"


def _value(value: Any, kind: str) -> str:  # noqa: ANN401
    """A value of a rule as SQL; DuckDB reads a quoted one as the type of what it is compared with."""
    if isinstance(value, bool) or kind == "text":
        return literal(str(value).lower() if isinstance(value, bool) else value)
    if isinstance(value, datetime):
        return f"timestamptz {literal(value.isoformat())}"
    if isinstance(value, date):
        return f"date {literal(value.isoformat())}"
    return str(value) if isinstance(value, int | float) else literal(value)


# ---------------------------------------------------------------- events


def event_text(condition: Condition | Step) -> str:
    """Which events are meant, in words."""
    parts = [
        condition.event or "",
        f"of {condition.source}" if condition.source else "",
        f"by {condition.channel}" if condition.channel else "",
        f"where {condition.where}" if condition.where else "",
    ]
    return " ".join(part for part in parts if part)


def event_condition(condition: Condition | Step) -> str:
    """Which events are meant, as SQL over a row of the timeline."""
    parts = [f"event_type = {literal(condition.event)}"] if condition.event != "any" else []
    parts += [f"source = {literal(condition.source)}"] if condition.source else []
    parts += [f"channel = {literal(condition.channel)}"] if condition.channel else []
    # a line of its own: a comment at the end of the condition ends there
    parts += [f"coalesce((\n{condition.where}\n), false)"] if condition.where else []
    return " and ".join(parts) or "true"


def event_columns(condition: Condition) -> tuple[str, str]:
    """Columns with how many there are in the window, and the time of the last one ever."""
    # a hash: names that differ in the case of their letters only would be one to DuckDB
    key = event_condition(condition)
    return f"count_{fingerprint(key, condition.within)}", f"last_{fingerprint(key)}"


def _of_event(condition: Condition, _: Types, as_of: datetime, __: str) -> Made:
    counted, last = event_columns(condition)
    number = f"coalesce({counted}, 0)"
    seen = f"concat({number}, coalesce(', the last at ' || {last}::text, ''))"
    what = event_text(condition) + (f" within {condition.within}" if condition.within else "")
    if condition.not_for:
        return (
            f"{what}, but not for {condition.not_for}",
            f"{last} <= {start_of(as_of, condition.not_for)}",
            seen,
        )
    if condition.absent:
        return f"no {what}", f"{number} = 0", seen
    low, high = condition.at_least, condition.at_most
    low = 1 if low is None and high is None else low
    words = [f"at least {low}" if low is not None else "", f"at most {high}" if high is not None else ""]
    bounds = [
        f"{number} >= {low}" if low is not None else "",
        f"{number} <= {high}" if high is not None else "",
    ]
    return (
        f"{what}, {' and '.join(filter(None, words))}",
        " and ".join(filter(None, bounds)),
        seen,
    )


# ---------------------------------------------------------------- sequences, audiences, lists, SQL


def sequence_key(condition: Condition) -> str:
    """What tells sequences apart."""
    steps = [step.model_dump(mode="json", exclude_defaults=True) for step in condition.sequence or []]
    return json.dumps([steps, condition.within])


def sequence_columns(condition: Condition) -> tuple[str, str, str]:
    """Columns with whether it holds, the deepest step reached, and when that was last."""
    key = fingerprint(sequence_key(condition))
    return f"holds_{key}", f"step_{key}", f"at_{key}"


def _of_sequence(condition: Condition, *_: object) -> Made:
    steps = condition.sequence or []
    holds, step, at = sequence_columns(condition)
    whole = f", all within {condition.within}" if condition.within else ""
    text = ", then ".join(_step_text(step) for step in steps) + whole
    names = "[" + ", ".join(literal(_step_text(step)) for step in steps) + "]"
    seen = f"if({step} is null, 'never began', concat('got to ', {names}[{step}], ' at ', {at}::text))"
    return text, holds, seen


def _step_text(step: Step) -> str:
    limit = f" within {step.within}" if step.within else ""
    if not step.absent:
        return event_text(step) + limit
    until = ", or only later" if step.or_late else " and none since" if step.within else ""
    return f"no {event_text(step)}{limit}{until}"


def audience_column(name: str) -> str:
    """The column that says whether a profile is a member."""
    return quote(f"audience:{name}")


def _of_audience(condition: Condition, *_: object) -> Made:
    name = condition.audience or ""
    column = audience_column(name)
    return f"in audience {name}", column, f"if({column}, 'in', 'out')"


def list_name(name: str, listed: External) -> str:
    """What tells delivered lists apart; `name`: the audience."""
    return f"{name}: {listed.files} {listed.column} {listed.namespace}"


def _of_list(condition: Condition, _: Types, __: datetime, name: str) -> Made:
    listed = condition.external
    assert listed  # noqa: S101  that is what its kind says
    members = (
        f"select profile_id from audiences.external_members where list = {literal(list_name(name, listed))}"
    )
    holds = f"profile_id in ({members})"
    return f"on the list {listed.files}", holds, f"if({holds}, 'on it', 'not on it')"


def _of_sql(condition: Condition, *_: object) -> Made:
    where = f"(\n{condition.where}\n)"
    return " ".join((condition.where or "").split()), where, f"{where}::text"


# ---------------------------------------------------------------- whole conditions


def holds_query(config: Config, types: Types, name: str, as_of: datetime) -> str:
    """SQL, true or false: whether a profile is in an audience."""
    audience: Audience = config.audiences.audiences[name]
    parts = [_tree(audience, types, as_of, name), *(leaf.holds for leaf in consent_leaves(config, name))]
    return " and ".join(parts)


def _tree(condition: Condition, types: Types, as_of: datetime, name: str) -> str:
    if condition.all_of:
        return _joined(" and ", condition.all_of, types, as_of, name)
    if condition.any_of:
        return _joined(" or ", condition.any_of, types, as_of, name)
    if condition.not_:
        return f"(not {_tree(condition.not_, types, as_of, name)})"
    return leaf_of(condition, types, as_of, name).holds


def _joined(word: str, parts: Sequence[Condition], types: Types, as_of: datetime, name: str) -> str:
    return "(" + word.join(_tree(part, types, as_of, name) for part in parts) + ")"


def condition_text(config: Config, name: str) -> str:
    """What an audience asks, in words: for people, and for the published table of audiences."""
    return _words(config.audiences.audiences[name])


def _words(condition: Condition) -> str:
    if condition.not_:
        return f"not ({_words(condition.not_)})"
    parts = condition.all_of or condition.any_of
    if parts:
        word = " and " if condition.all_of else " or "
        return word.join(
            f"({_words(part)})" if part.all_of or part.any_of else _words(part) for part in parts
        )
    return leaf_of(condition, {}, NO_BATCH, "").text
