"""Try attributes by the rules as they are now: who has a value, how values are spread, what the next run would change.

Everything happens in a transaction that is rolled back.
"""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.clock import clock
from profile_pipeline.computed.build import TABLE
from profile_pipeline.computed.compile import KEY, column_types, parts_query, parts_table, shown_query, simple
from profile_pipeline.computed.faults import blamed, only
from profile_pipeline.computed.names import closure, marks
from profile_pipeline.config.computed import ComputedAttribute
from profile_pipeline.config.cross_check import unknown
from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.warehouse import (
    columns_of,
    facts,
    records_of,
    replace_table,
    rolled_back,
    rows,
    scalar,
    table_exists,
)

TRIED = "temp.tried"
COMMON = 10
"""Values that are listed with their profiles, the most common first."""
SPREAD = ("smallest", "a quarter below", "half below", "three quarters below", "largest")
ORDERED = ("bigint", "double", "date", "timestamptz")


@dataclass(frozen=True)
class Trial:
    """An attribute over all active profiles; `changed`: profiles whose value the last run did not give them.

    `spread`: of numbers and times, the values at five places of their order. `common`: of other values the most common with
    their profiles, each element of a list on its own.
    """

    attribute: str
    type: str
    as_of: datetime
    profiles: int
    with_value: int
    changed: int
    spread: dict[str, Any]
    common: dict[str, int]
    examples: tuple[dict[str, Any], ...]
    """Some profiles: `profile_id`, `value` by the rules now, `last_run`."""
    warning: str
    """That no row at all gives a value, and which keys to look at; else empty."""


def required(config: Config, name: str) -> None:
    """Raises PipelineError when there is no such attribute."""
    if name not in config.computed.attributes:
        raise PipelineError(unknown("computed.yaml", "computed attribute", name, config.computed.attributes))


def preview(con: DuckDBPyConnection, config: Config, name: str, limit: int) -> Trial:
    """An attribute by the rules as they are now, with `limit` profiles as examples. Writes nothing.

    Raises PipelineError for an attribute that is unknown or does not work, and before the first run.
    """
    required(config, name)
    if not table_exists(con, "profiles.unified"):
        raise PipelineError("no profiles yet; `profile-pipeline run` makes the first ones")
    needed = only(config, closure(config.computed.attributes, name))
    try:
        with rolled_back(con):
            _try(con, needed, name)
            return _looked_at(con, config, name, limit)
    except duckdb.Error as error:
        raise blamed(con, needed, clock(con), error) from None


def _try(con: DuckDBPyConnection, needed: Config, name: str) -> None:
    """Write temp.tried (grain: one row an active profile): its value, and the one it has from the last run.

    `needed`: the rules with this attribute and those it is made of.
    """
    had = table_exists(con, TABLE) and name in columns_of(con, TABLE)
    before = (
        f"select profile_id, {name} as before from {TABLE}"
        if had
        else "select '' as profile_id, null as before"
    )
    replace_table(con, "temp.before", before)
    now = _worked_out(con, needed)
    replace_table(
        con,
        TRIED,
        f"select profile_id, {name} as value, before from ({now}) left join temp.before using (profile_id)",
    )


def _worked_out(con: DuckDBPyConnection, needed: Config, whose: str = "") -> str:
    """Replace the parts by those of these attributes, and the query of the values they give."""
    as_of = clock(con)
    # scores are places among all profiles
    all_count = any(a.compute == "rfm" for a in needed.computed.attributes.values())
    for over in KEY:
        if simple(needed, over):
            parts = parts_query(needed, over, as_of, "" if all_count else whose)
            replace_table(con, parts_table(over), parts)
    return shown_query(needed, as_of, whose)


def behind(con: DuckDBPyConnection, config: Config, names: Iterable[str]) -> list[str]:
    """Attributes among these names that the last run did not know, or knew with other rules."""
    now, then = marks(config.computed), facts(con, TABLE).get("rules", {})
    among = set(names)
    return [name for name, mark in now.items() if name in among and then.get(name) != mark]


@contextmanager
def by_rules_of_now(
    con: DuckDBPyConnection, config: Config, names: Iterable[str], whose: str = ""
) -> Generator[None]:
    """Inside, profiles.computed has the attributes among these names as the rules are now; afterwards, what it had.

    `whose`: a relation of the profiles that count. Raises PipelineError for an attribute that does not work.
    """
    late, failed = behind(con, config, names), None
    if not late:
        yield
        return
    needed = only(config, [each for name in late for each in closure(config.computed.attributes, name)])
    with rolled_back(con):
        try:
            _bring_up(con, needed, late, whose)
        except duckdb.Error as error:
            failed = error
        else:
            yield
    if failed:  # which attribute it is can only be asked outside of the transaction that the error ended
        raise blamed(con, needed, clock(con), failed)


def _bring_up(con: DuckDBPyConnection, needed: Config, late: list[str], whose: str) -> None:
    kept = sorted(columns_of(con, TABLE).keys() - {"profile_id", *late})
    columns = "".join(f", o.{name}" for name in kept) + "".join(f", n.{name}" for name in late)
    query = f"select n.profile_id{columns} from ({_worked_out(con, needed, whose)}) n"
    replace_table(con, TABLE, f"{query} left join {TABLE} o on o.profile_id = n.profile_id")


def _looked_at(con: DuckDBPyConnection, config: Config, name: str, limit: int) -> Trial:
    kind = column_types(config)[name]
    differs = "value::text is distinct from before::text"
    numbers = rows(con, f"select count(*), count(value), count(*) filter ({differs}) from {TRIED}")[0]
    shown = records_of(
        con,
        f"""select profile_id, value, before as last_run from {TRIED} where value is not null or before is not null
        order by not {differs}, hash(profile_id), profile_id limit {limit}""",
    )
    ordered = kind in ORDERED
    spread, common = (_spread(con), {}) if ordered else ({}, _common(con, kind))
    warning = _warning(con, config.computed.attributes[name], name)
    return Trial(name, kind, clock(con), *numbers, spread, common, tuple(shown), warning)


KEYS = ("value", "aggregate", "part", "expression", "of", "where", "within", "sources")
"""Keys of an attribute that can leave it without a value."""


def _warning(con: DuckDBPyConnection, attribute: ComputedAttribute, name: str) -> str:
    """A line where an attribute is empty for everybody: a path or a condition that fits no row is no error."""
    table, found = (TRIED, "value") if attribute.derived else (parts_table(attribute.over), name)
    if attribute.compute == "rfm":
        found += ".frequency"
    if attribute.compute in {"count", "distinct", "rfm"}:
        found = f"nullif({found}, 0)"
    if scalar(con, f"select count({found}) from {table}"):
        return ""
    keys = [f"`{key}:`" for key in KEYS if getattr(attribute, key)]
    path = "; a path is written payload ->> '$.a.b'" if attribute.value or attribute.aggregate else ""
    what = "no profile has a value" if attribute.derived else "no row gives a value"
    return f"{what}: look at {' and '.join(keys) or 'the rows that came'}{path}"


def _spread(con: DuckDBPyConnection) -> dict[str, Any]:
    found = scalar(con, f"select quantile_disc(value, [0, 0.25, 0.5, 0.75, 1]) from {TRIED}")
    return dict(zip(SPREAD, found, strict=True)) if found else {}


def _common(con: DuckDBPyConnection, kind: str) -> dict[str, int]:
    value = "unnest(value)" if kind.endswith("[]") else "value"
    return dict(
        rows(
            con,
            f"""select v::text, count(*) from (select {value} as v from {TRIED}) where v is not null
            group by 1 order by 2 desc, 1 limit {COMMON}""",
        )
    )


def with_value(con: DuckDBPyConnection, config: Config) -> dict[str, int]:
    """Profiles that had a value after the last run, of the attributes that it knew."""
    if not table_exists(con, TABLE):
        return {}
    names = [name for name in config.computed.attributes if name in columns_of(con, TABLE)]
    counted = ", ".join(f"count({name})" for name in names) or "0"
    return dict(zip(names, rows(con, f"select {counted} from {TABLE}")[0], strict=False))
