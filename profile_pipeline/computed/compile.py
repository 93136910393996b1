"""Rules turned into queries: one GROUP BY over the events, one over the records, and one over profiles behind them.

Conditions and values that attributes share are worked out once a row. What attributes need of the rows is kept as
`parts`; from them and the profile table follows what is shown. Empty means: 0 for count, distinct and sum, null for
everything else.
"""

from collections.abc import Iterator
from datetime import datetime

import sqlglot
from sqlglot import exp

from profile_pipeline.clock import moment, start_of
from profile_pipeline.computed.names import levels, names_in, parsed
from profile_pipeline.config.computed import ComputedAttribute
from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.profile_ids import MEMBERS
from profile_pipeline.sandbox import aggregates
from profile_pipeline.warehouse import literal

TYPES = {
    "text": "text", "integer": "bigint", "number": "double", "boolean": "boolean", "date": "date",
    "timestamp": "timestamptz", "list": "text[]",
}  # fmt: skip
READ_AS = {**TYPES, "number": "decimal(24, 6)"}
"""Sums of doubles depend on the order of rows, and two runs see rows in different orders."""
EVENT_COLUMNS = {
    "profile_id": "text", "event_key": "text", "source": "text", "event_type": "text", "channel": "text",
    "occurred_at": "timestamptz", "payload": "json",
}  # fmt: skip
"""What conditions and values over events may name, beside the event columns of the rules."""
RECORD_COLUMNS = {
    "profile_id": "text", "record_key": "text", "source": "text", "source_key": "text", "observed_at": "timestamptz",
    "ingested_at": "timestamptz",
}  # fmt: skip
"""What conditions and values over records may name, beside the profile fields."""
TIME = {"events": "occurred_at", "records": "observed_at"}
KEY = {"events": "event_key", "records": "record_key"}
EMPTY_IS_ZERO = {"count", "distinct", "sum"}
RFM = ("recency", "frequency", "monetary")
DAY_IN_MICROSECONDS = 86_400_000_000


def parts_table(over: str) -> str:
    """Where the parts of attributes over these rows are kept."""
    return f"profiles.computed_{over}"


def simple(config: Config, over: str) -> dict[str, ComputedAttribute]:
    """Attributes that are made of these rows."""
    attributes = config.computed.attributes
    return {name: a for name, a in attributes.items() if not a.derived and a.over == over}


def windows(config: Config, over: str) -> list[str]:
    """The different windows over these rows, in order."""
    return sorted({a.within for a in simple(config, over).values() if a.within})


# ---------------------------------------------------------------- rows to parts


class _Columns:
    """Expressions that are worked out once a row, whoever needs them (text to column name), and columns kept as they are."""

    def __init__(self) -> None:
        self.by_text: dict[str, str] = {}
        self.kept: set[str] = set()

    def name(self, text: str) -> str:
        return self.by_text.setdefault(text, f"_{len(self.by_text)}")

    def listed(self) -> str:
        kept = "".join(f", {name}" for name in sorted(self.kept - {"profile_id"}))
        return kept + "".join(f", {text} as {name}" for text, name in self.by_text.items())


def parts_query(config: Config, over: str, as_of: datetime, only: str = "") -> str:
    """Grain: one row a profile with any such row; a column an attribute. `only`: a table of the profiles wanted.

    Rows later than the as-of time do not count yet.
    """
    columns = _Columns()
    made = [f"{part(a, columns, as_of)} as {name}" for name, a in simple(config, over).items()]
    wanted = f" and profile_id in (select profile_id from {only})" if only else ""
    return f"""
        with rows_read as ({rows_query(config, over, f"{TIME[over]} <= {moment(as_of)}{wanted}")}),
        worked_out as (select profile_id, {TIME[over]} as _at, {KEY[over]} as _key{columns.listed()} from rows_read)
        select profile_id{"".join(f", {text}" for text in made)} from worked_out group by profile_id"""


def rows_query(config: Config, over: str, where: str = "true") -> str:
    """Grain: one row an event, or a current record, of a profile, with the columns that expressions may name."""
    if over == "records":
        names = [*RECORD_COLUMNS, *config.attributes]
        own = f"select m.profile_id, r.* from records.current r join ({MEMBERS}) m using (record_key)"
        return f"select {', '.join(names)} from ({own}) where {where}"
    more = "".join(
        f", {read(c.value, c.type)} as {name}" for name, c in config.computed.event_columns.items()
    )
    names = ", ".join(EVENT_COLUMNS)
    return f"select {names}{more} from profiles.events where profile_id is not null and {where}"


def read(expression: str, kind: str) -> str:
    """A value as its type; null where it cannot be read, whatever the expression does with odd rows."""
    # a line of its own: a comment at the end of the expression ends there
    return f"try(try_cast((\n{expression}\n) as {READ_AS[kind]}))"


def holds(condition: str) -> str:
    """A condition whose unknown counts as no."""
    return f"coalesce(try((\n{condition}\n)), false)"


def part(attribute: ComputedAttribute, columns: _Columns, as_of: datetime) -> str:
    """The aggregate over the rows of a profile that gives an attribute, or what it is made of."""
    wanted = " and ".join(_conditions(attribute, columns, as_of)) or "true"
    if attribute.aggregate:
        return _aggregate(attribute, columns, wanted)
    value = columns.name(read(attribute.value, attribute.value_type)) if attribute.value else ""
    if attribute.compute == "ratio":
        part_of = columns.name(holds(attribute.part or "false"))
        return f"count(*) filter ({wanted} and {part_of}) / nullif(count(*) filter ({wanted}), 0)"
    return _shortcut(attribute, value, f"filter ({wanted})")


def _conditions(attribute: ComputedAttribute, columns: _Columns, as_of: datetime) -> Iterator[str]:
    if attribute.sources:
        yield columns.name(f"source in ({', '.join(map(literal, attribute.sources))})")
    if attribute.where:
        yield columns.name(holds(attribute.where))
    if attribute.within:
        yield columns.name(f"{TIME[attribute.over]} > {start_of(as_of, attribute.within)}")


def _shortcut(attribute: ComputedAttribute, v: str, wanted: str) -> str:
    """Ties are broken by the key of the row, or by the value itself: never by the order in which rows are seen."""
    kind = TYPES[attribute.value_type]
    when = "(_at, _key)"
    texts = {
        "count": f"count(*) {wanted}",
        "distinct": f"count(distinct {v}) {wanted}",
        "sum": f"try_cast(sum({v}) {wanted} as {kind})",
        "average": f"(sum({v}) {wanted})::double / nullif(count({v}) {wanted}, 0)",
        "percentile": f"quantile_cont({v}::double, {attribute.at}) {wanted}",
        "min": f"(min({v}) {wanted})::{kind}",
        "max": f"(max({v}) {wanted})::{kind}",
        "first": f"(arg_min({v}, {when}) {wanted})::{kind}",
        "last": f"(arg_max({v}, {when}) {wanted})::{kind}",
        "last_values": f"(arg_max({v}, {when}, {attribute.n}) {wanted})::{kind}[]",
        "distinct_values": f"list_sort(list(distinct {v}) {wanted[:-1]} and {v} is not null))::{kind}[]",
        "most_frequent": f"{_smallest_of_most(f'histogram({v}) {wanted}')}::{kind}",
        "recency": f"max(_at) {wanted}",
        "rfm": f"{{'recency': max(_at) {wanted}, 'frequency': count(*) {wanted}, 'monetary': sum({v}) {wanted}}}",
    }
    return texts[attribute.compute or ""]


def _smallest_of_most(counted: str) -> str:
    """The value with the highest count; of several the smallest."""
    ranked = "lambda e: {'n': -e.value::bigint, 'v': e.key}"
    return f"list_min(list_transform(map_entries({counted}), {ranked})).v"


def _aggregate(attribute: ComputedAttribute, columns: _Columns, wanted: str) -> str:
    """A user's aggregate, the rows narrowed in each of its calls."""
    tree = parsed(attribute.aggregate or "")
    if tree is None:
        raise PipelineError("an aggregate could not be read; `profile-pipeline check` says which")
    columns.kept |= names_in(attribute.aggregate or "")
    tree = exp.Paren(this=tree)
    for call in list(calls(tree)):
        _narrow(call, wanted)
    text = f"try_cast({tree.sql('duckdb')} as {TYPES[attribute.value_type]})"
    # the last digits of a double depend on the order of rows
    return f"round({text}, 6)" if attribute.value_type == "number" else text


def calls(tree: exp.Expr) -> Iterator[exp.Expr]:
    """The calls of aggregate functions in an expression."""
    known = aggregates()
    for node in tree.find_all(exp.Func):
        named = node.name.lower() if isinstance(node, exp.Anonymous) else ""
        if isinstance(node, exp.AggFunc) or named in known:
            yield node


def _narrow(call: exp.Expr, wanted: str) -> None:
    """Put a condition on the rows that a call of an aggregate sees, beside one it has already."""
    while isinstance(call.parent, exp.WithinGroup | exp.IgnoreNulls):
        call = call.parent
    condition = sqlglot.condition(wanted, dialect="duckdb")
    if isinstance(call.parent, exp.Filter):
        where = call.parent.expression
        where.set("this", exp.and_(where.this, condition))
    else:
        call.replace(exp.Filter(this=call.copy(), expression=exp.Where(this=condition)))


# ---------------------------------------------------------------- parts to what is shown


def shown_query(config: Config, as_of: datetime, only: str = "") -> str:
    """Grain: one row an active profile; `profile_id` and a column an attribute, each level over those before it."""
    attributes = config.computed.attributes
    wanted = f"where profile_id in (select profile_id from {only})" if only else ""
    first, *others = levels(attributes)
    ctes = [
        f"fifths as ({fifths_query(config)})",
        f"level0 as ({_first_level(config, first, as_of, wanted)})",
    ]
    for number, names in enumerate(others):
        made = "".join(f", {_derived(attributes[name])} as {name}" for name in names)
        ctes.append(f"level{number + 1} as (select *{made} from level{number})")
    columns = "".join(f", {name}" for name in attributes)
    return f"with {', '.join(ctes)} select profile_id{columns} from level{len(others)}"


def _first_level(config: Config, names: list[str], as_of: datetime, wanted: str) -> str:
    attributes = config.computed.attributes
    joins = "".join(
        f" left join {parts_table(over)} {over}_parts using (profile_id)"
        for over in KEY
        if simple(config, over)
    )
    shown = "".join(f", {_shown(name, attributes[name])} as {name}" for name in names)
    return f"select p.*, {moment(as_of)} as as_of{shown} from (from profiles.unified {wanted}) p{joins} cross join fifths"


def _shown(name: str, attribute: ComputedAttribute) -> str:
    column = f"{attribute.over}_parts.{name}"
    if attribute.compute in EMPTY_IS_ZERO:
        return f"coalesce({column}, 0)"
    if attribute.compute == "recency":
        return days_query("as_of", column)
    return scores_query(column, f"fifths.{name}") if attribute.compute == "rfm" else column


def days_query(as_of: str, at: str) -> str:
    """Whole days of 24 hours between two times."""
    # not as_of - at: that walks the calendar, and takes ten times as long
    return f"(epoch_us({as_of}) - epoch_us({at})) // {DAY_IN_MICROSECONDS}"


def fifths_query(config: Config) -> str:
    """Grain: one row; of each rfm attribute the four values that part the profiles with such rows into fifths, by measure.

    Scores among all profiles follow from these and a profile's own measures, so that nobody else has to be read.
    """
    found = [
        f"(select {{{', '.join(_bounds(name, measure) for measure in RFM)}}} from {parts_table(attribute.over)}) as {name}"
        for name, attribute in config.computed.attributes.items()
        if attribute.compute == "rfm"
    ]
    return f"select {', '.join(found) or 'null as nobody'}"


def _bounds(column: str, measure: str) -> str:
    value, counts = _measures(column)[measure], f"{column}.frequency > 0"
    return f"'{measure}': quantile_disc({value}, [0.2, 0.4, 0.6, 0.8]) filter ({counts})"


def _measures(column: str) -> dict[str, str]:
    return {
        "recency": f"{column}.recency",
        "frequency": f"{column}.frequency",
        "monetary": f"coalesce({column}.monetary, 0)",
    }


def scores_query(column: str, fifths: str) -> str:
    """Recency, frequency and money as three digits, 1 to 5: how many fifths of the profiles with such rows are below.

    Equal profiles have equal scores, so the fifths need not be of one size.
    """
    digits = [
        " + ".join(["1", *(f"({value} > {fifths}.{measure}[{bound}])::integer" for bound in (1, 2, 3, 4))])
        for measure, value in _measures(column).items()
    ]
    return f"if(coalesce({column}.frequency, 0) > 0, concat({', '.join(digits)}), null)"


def _derived(attribute: ComputedAttribute) -> str:
    if attribute.of:
        part_of, whole = attribute.of
        return f"try_cast({part_of} as double) / nullif(try_cast({whole} as double), 0)"
    return f"try(try_cast((\n{attribute.expression}\n) as {TYPES[attribute.value_type]}))"


def column_types(config: Config) -> dict[str, str]:
    """DuckDB types of the columns of profiles.computed, without the profile id."""
    return {name: _type(attribute) for name, attribute in config.computed.attributes.items()}


def _type(attribute: ComputedAttribute) -> str:
    special = {"rfm": "text", "count": "bigint", "distinct": "bigint", "recency": "bigint"}
    special |= dict.fromkeys(("average", "percentile", "ratio"), "double")
    kind = special.get(attribute.compute or "", TYPES[attribute.value_type])
    return f"{kind}[]" if attribute.compute in {"distinct_values", "last_values"} else kind
