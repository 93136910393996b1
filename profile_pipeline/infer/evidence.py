"""What the values of a column look like, as shares; no value leaves this module.

Grain: one `Leaf` a column, or a value inside a JSON column. Shares are of the filled rows of the sample.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from duckdb import DuckDBPyConnection

from profile_pipeline.config.cross_check import RESERVED_WORDS
from profile_pipeline.config.sources import Attribute, SemanticType, Source
from profile_pipeline.infer.files import Feed
from profile_pipeline.records.normalise import FALSE_WORDS, TRUE_WORDS, filled_query, value_query
from profile_pipeline.warehouse import literal, quote, records_of, rows

MOST_VALUES = 20_000
MOST_KEYS = 200
POSTCODES = {
    "GB": r"[A-Z]{1,2}\d[A-Z\d]? ?\d[A-Z]{2}", "IE": r"[A-Z]\d[\dW] ?[A-Z\d]{4}", "NL": r"\d{4} ?[A-Z]{2}",
    "CA": r"[A-Z]\d[A-Z][ -]?\d[A-Z]\d", "PL": r"\d{2}-\d{3}", "PT": r"\d{4}-\d{3}", "BR": r"\d{5}-\d{3}",
    "US": r"\d{5}(-\d{4})?", "SE": r"\d{3} \d{2}", "digits": r"(?:[A-Z]{1,2}-)?\d{4,6}",
}  # fmt: skip
SHAPES = {
    "integer": r"[-+]?(0|[1-9]\d{0,17})",
    "number": r"[-+]?\d+([.,]\d+)*",
    "decimal_comma": r"[-+]?\d{1,3}(\.\d{3})+,\d+|[-+]?\d+,\d{1,2}|[-+]?\d+,\d{4,}",
    "decimal_point": r"[-+]?\d{1,3}(,\d{3})+\.\d+|[-+]?\d+\.\d{1,2}|[-+]?\d+\.\d{4,}",
    "either_comma": r"[-+]?\d{1,3}(,\d{3})+",
    "thousands_comma": r"[-+]?\d{1,3}(,\d{3})+\.\d+",
    "thousands_point": r"[-+]?\d{1,3}(\.\d{3})+,\d+",
    "date_like": r"\d{1,4}([-/. ])(\d{1,2}|[A-Za-z]{3,9}),?([-/. ])\d{1,4}.*|\d{8}|\d{10}|\d{13}|[A-Z][a-z]{2,8} \d.*",
    "phone_like": r"\(?\+?[\d(][\d ()./-]{5,22}((ext|x|#)\.? ?\d+)?",
    "words": r"[\p{L}][\p{L}\p{M}' .,\x{2019}-]*",
    "street_like": r"(.*\p{L}{2,}.*\d.*|.*\d.*\p{L}{2,}.*)",
    "house_like": r"\d{1,5} ?[A-Za-z]?([-/]\d{1,5} ?[A-Za-z]?)?",
    "code": r"[A-Za-z]{0,6}[-_:]?[A-Za-z0-9_:.-]*\d[A-Za-z0-9_:.-]*",
    "list_like": r"[^;|]+([;|][^;|]+)+",
    "spaced": r"\S+ .*",
}


@dataclass(frozen=True)
class Leaf:
    """A value a mapping can name: a column, or a path inside a JSON column."""

    name: str
    column: str
    expression: str
    kind: Literal["text", "texts"] = "text"


@dataclass
class Evidence:
    """Counts and shares (0 to 1) of one leaf."""

    leaf: Leaf
    index: int
    rows: int
    filled: int
    distinct: int
    uniqueness: float
    longest: int
    mean_length: float
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def fill(self) -> float:
        """Share of rows with a value."""
        return self.filled / self.rows if self.rows else 0.0

    @property
    def repeats(self) -> float:
        """Rows a value, on average."""
        return self.filled / self.distinct if self.distinct else 0.0

    def share(self, shape: str) -> float:
        """Share of filled rows with a shape."""
        return self.shares.get(shape, 0.0)


def sql_name(column: str) -> str:
    """A column as an expression names it: in quotes only when it has to be."""
    plain = column.isascii() and column.isidentifier() and column.lower() not in RESERVED_WORDS
    return column if plain else quote(column)


def spread_json(con: DuckDBPyConnection, feed: Feed) -> list[Leaf]:
    """Turn the sampled JSON texts into columns, a key each; the leaves inside them."""
    [(structure,)] = rows(con, "select json_group_structure(cast(text as json)) from delivered")
    keys = json.loads(structure)
    if not isinstance(keys, dict):
        return []
    keys = dict(list(keys.items())[:MOST_KEYS])
    feed.columns = list(keys)
    query = columns_query(feed, "select * from delivered")
    con.execute(f"create or replace table delivered as {query}")
    return [leaf for key, inner in keys.items() for leaf in _leaves(key, key, [], inner)]


def columns_query(feed: Feed, query: str) -> str:
    """Rows of a feed as the columns of its contract."""
    if feed.format.type != "jsonl":
        return query
    paths = ", ".join(literal('$."' + column.replace('"', '\\"') + '"') for column in feed.columns)
    listed = ", ".join(f"found[{i}] as {quote(c)}" for i, c in enumerate(feed.columns, start=1))
    return f"select _file, {listed} from (select _file, json_extract_string(text, [{paths}]) as found from ({query}))"


def _leaves(column: str, name: str, path: list[str], inner: Any) -> Iterable[Leaf]:  # noqa: ANN401
    at = (
        sql_name(column) if not path else f"{sql_name(column)} ->> {literal('$' + ''.join(map(_step, path)))}"
    )
    if isinstance(inner, dict):
        if len(inner) <= MOST_KEYS:
            for key, value in inner.items():
                yield from _leaves(column, f"{name}.{key}", [*path, key], value)
    elif not isinstance(inner, list):
        yield Leaf(name, column, at)
    elif inner and not isinstance(inner[0], dict | list):
        yield Leaf(name, column, f"array_to_string(cast({at} as text[]), ';')", "texts")


def _step(key: str) -> str:
    plain = key.isascii() and key.isidentifier()
    return f".{key}" if plain else '."' + key.replace('"', '\\"') + '"'


def column_leaves(con: DuckDBPyConnection, feed: Feed) -> list[Leaf]:
    """A leaf for every column of a table-like feed, and for every value inside a nested one."""
    return [leaf for column in feed.columns for leaf in _column_leaves(con, feed, column)]


def _column_leaves(con: DuckDBPyConnection, feed: Feed, column: str) -> Iterable[Leaf]:
    if column not in feed.nested:
        return [Leaf(column, column, sql_name(column))]
    [(structure,)] = rows(
        con, f"select json_group_structure(try_cast({quote(column)} as json)) from delivered"
    )
    return _leaves(column, column, [], json.loads(structure))


def sample_table(con: DuckDBPyConnection, leaves: list[Leaf], where: str = "true") -> None:
    """Write `sampled`: `_file` and the clean text of each leaf as c0, c1 ...; missing words are NULL."""
    listed = "".join(f", {clean_query(leaf)} as c{i}" for i, leaf in enumerate(leaves))
    con.execute(f"create or replace table sampled as select _file{listed} from delivered where {where}")


def clean_query(leaf: Leaf) -> str:
    """The filled text of a leaf."""
    return filled_query(f"cast(({leaf.expression}) as text)")


def gather(con: DuckDBPyConnection, leaves: list[Leaf]) -> list[Evidence]:
    """The evidence of every leaf of `sampled`."""
    return [_gather_one(con, leaf, index) for index, leaf in enumerate(leaves)]


def _gather_one(con: DuckDBPyConnection, leaf: Leaf, index: int) -> Evidence:
    c = f"c{index}"
    [(total, filled, distinct, longest, mean)] = rows(
        con,
        f"select count(*), count({c}), count(distinct {c}), coalesce(max(length({c})), 0),"
        f" coalesce(avg(length({c})), 0) from sampled",
    )
    [(uniqueness,)] = rows(
        con,
        f"select coalesce(min(share), 0) from (select count(distinct {c}) / count({c}) as share from sampled"
        f" group by _file having count({c}) > 0)",
    )
    found = Evidence(leaf, index, total, filled, distinct, uniqueness, longest, mean)
    if filled:
        _add_shapes(con, found)
    return found


def _add_shapes(con: DuckDBPyConnection, found: Evidence) -> None:
    con.execute(
        f"create or replace temp table seen as select c{found.index} as v, count(*) as n from sampled"
        f" where v is not null group by 1 order by hash(v) limit {MOST_VALUES}"
    )
    tests = {name: f"regexp_full_match(v, {literal(shape)})" for name, shape in SHAPES.items()}
    tests |= {
        f"postcode_{code}": f"regexp_full_match(upper(v), {literal(p)})" for code, p in POSTCODES.items()
    }
    tests |= {kind: f"({_typed(kind)}) is not null" for kind in ("email", "gender", "boolean")}
    tests["flag"] = (
        f"lower(v) in ({', '.join(literal(w) for w in (*TRUE_WORDS, *FALSE_WORDS) if w not in {'1', '0'})})"
    )
    listed = ", ".join(f"sum(n) filter ({test}) / sum(n) as {quote(name)}" for name, test in tests.items())
    shares = records_of(con, f"select {listed} from seen")[0]
    found.shares = {name: float(share or 0) for name, share in shares.items()}
    if found.distinct <= 400:
        known = f"select n, {_typed('country')} is not null as known from seen"
        [(share,)] = rows(con, f"select sum(n) filter (known) / sum(n) from ({known})")
        found.shares["country"] = float(share or 0)


def _typed(kind: SemanticType) -> str:
    return value_query(Attribute(type=kind), Source.model_construct(), "v")


def phone_regions(
    con: DuckDBPyConnection, index: int, likely: Iterable[str]
) -> tuple[float, dict[str, float]]:
    """Share of numbers that name their country, and share of the others that are valid in each region."""
    phone = r"(case when regexp_matches(v, '^\+|^00') then e164(regexp_replace(v, '\(0\)|[^0-9+]', '', 'g'), 'ZZ') end)"
    con.execute(
        f"create or replace temp table numbers as select v, {phone} as world from (select distinct c{index} as v"
        f" from sampled where c{index} is not null order by hash(c{index}) limit 400)"
    )
    [(world, total)] = rows(con, "select count(world), count(*) from numbers")
    found = {}
    for region in likely:
        local = f"e164(regexp_replace(v, '[^0-9]', '', 'g'), {literal(region)})"
        [(share,)] = rows(con, f"select avg(({local} is not null)::int) from numbers where world is null")
        found[region] = share or 0.0
    return world / total if total else 0.0, found


def phone_prefixes(con: DuckDBPyConnection) -> dict[str, int]:
    """Countries of the numbers of `numbers` that name one."""
    import phonenumbers

    found: dict[str, int] = {}
    for (number,) in rows(con, "select world from numbers where world is not null"):
        region = phonenumbers.region_code_for_number(phonenumbers.parse(number))
        if region:
            found[region] = found.get(region, 0) + 1
    return found


def most_common(con: DuckDBPyConnection, index: int, kind: SemanticType) -> tuple[str | None, float]:
    """The commonest normalised value of a coded field and its share of the rows that have one."""
    found = rows(
        con,
        f"select {_typed(kind)} as code, count(*) as n from (select c{index} as v from sampled) group by 1"
        " having code is not null order by n desc, code",
    )
    return (found[0][0], found[0][1] / sum(n for _, n in found)) if found else (None, 0.0)
