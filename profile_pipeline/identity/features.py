"""Splink's input: one row a record with the match fields of its semantic types and its blocking keys."""

import re
from dataclasses import dataclass

import pyarrow as pa
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.warehouse import literal, rows

FIELDS = {
    "given": ("given_name",), "middle": ("middle_name",), "family": ("family_name",), "full": ("full_name",),
    "birth_date": ("birth_date",), "email": ("email",), "phone": ("phone",), "street": ("street_address",),
    "house": ("house_number",), "city": ("city",), "region": ("region",), "postcode": ("postcode",),
    "national_id": ("national_id",), "gender": ("gender",),
}  # fmt: skip


@dataclass(frozen=True)
class BlockingRule:
    """Records whose `parts` agree are compared; a key held by too many is refined by `refine`, in order.

    A weak rule finds few matches among many pairs: its blocks are smaller and its pairs are budgeted.
    """

    name: str
    parts: tuple[str, ...]
    refine: tuple[str, ...] = ()
    weak: bool = False


RULES = (
    BlockingRule("national_id", ("national_id",)),
    BlockingRule("email", ("email",), ("given", "birth_date")),
    BlockingRule("phone", ("phone",), ("given", "birth_date")),
    BlockingRule("names", ("least(given, family)", "greatest(given, family)"), ("birth_date", "postcode")),
    BlockingRule("birth_date_family", ("birth_date", "left(family, 3)"), ("left(given, 1)", "postcode")),
    BlockingRule("birth_date_given", ("birth_date", "left(given, 3)"), ("left(family, 1)", "postcode")),
    BlockingRule("birth_date_swapped", ("birth_date", "least(left(given, 2), left(family, 2))"), ("given",)),
    BlockingRule("birth_date_postcode", ("birth_date", "postcode")),
    BlockingRule("postcode_family", ("postcode", "left(family, 3)"), ("left(given, 1)",)),
    BlockingRule("postcode_given", ("postcode", "left(given, 3)"), ("left(family, 1)",)),
    BlockingRule("street_given", ("street", "left(given, 2)"), ("left(family, 1)", "city")),
    BlockingRule("street_family", ("street", "left(family, 2)"), ("left(given, 1)", "city")),
    BlockingRule(
        "prefixes_year", ("left(given, 3)", "left(family, 4)", "left(birth_date, 4)"), ("city", "postcode")
    ),
    BlockingRule("family_month_day", ("family", "substr(birth_date, 6)"), ("left(given, 1)",)),
    BlockingRule("local_part", ("email_local",), ("given", "birth_date")),
    BlockingRule(
        "given_family_city", ("left(given, 2)", "left(family, 2)", "city"), ("left(birth_date, 4)",)
    ),
    BlockingRule(
        "initial_family",
        ("left(given, 1)", "family"),
        ("left(birth_date, 4)", "left(postcode, 3)", "city"),
        weak=True,
    ),
    BlockingRule("birth_date", ("birth_date",), ("left(given, 1)", "left(family, 1)"), weak=True),
    BlockingRule(
        "family_end_year", ("right(family, 4)", "left(birth_date, 4)"), ("left(given, 1)",), weak=True
    ),
)
WEAK_BLOCK, WEAK_PAIRS, FREE_PAIRS = 50, 3, 100_000
"""Records in a block of a weak rule; pairs a record, and pairs in all that such a rule may make in any case."""
TITLES = (
    "mr", "mrs", "ms", "miss", "mx", "dr", "prof", "professor", "sir", "dame", "lord", "lady", "rev", "reverend",
    "hon", "capt", "captain", "col", "colonel", "maj",
)  # fmt: skip
SUFFIXES = (
    "jr",
    "sr",
    "junior",
    "senior",
    "ii",
    "iii",
    "iv",
    "esq",
    "bt",
    "baronet",
    "phd",
    "md",
    "obe",
    "mbe",
    "cbe",
)


def match_fields(config: Config) -> dict[str, list[str]]:
    """Match field to the profile fields that feed it, in order of declaration; only those in use."""
    mapped = {
        field for source in config.record_sources.values() if source.matching for field in source.attributes
    }
    found = {}
    for name, kinds in FIELDS.items():
        fields = [
            field
            for field, attribute in config.attributes.items()
            if attribute.type in kinds and field in mapped and attribute.match is not False
        ]
        if fields:
            found[name] = fields
    for field, attribute in config.attributes.items():
        if attribute.match and attribute.type in {"category", "text", "id"} and field in mapped:
            found[f"x_{field}"] = [field]
    return found


def usable_rules(fields: set[str]) -> list[BlockingRule]:
    """The blocking rules whose fields exist in this project; refinements are cut to what exists."""
    known = fields | ({"given", "family"} if "full" in fields else set())
    rules = [rule for rule in RULES if all(_needs(part) <= known for part in rule.parts)]
    for extra in sorted(field for field in fields if field.startswith("x_")):
        rules += [rule for rule in _extra_rules(extra) if {"given", "family"} <= known]
    return [
        BlockingRule(rule.name, rule.parts, tuple(r for r in rule.refine if _needs(r) <= known), rule.weak)
        for rule in rules
    ]


def _extra_rules(field: str) -> list[BlockingRule]:
    return [
        BlockingRule(f"{field}_family", (field, "left(family, 4)"), ("left(given, 1)",), weak=True),
        BlockingRule(f"{field}_given", (field, "left(given, 3)"), ("left(family, 1)",), weak=True),
    ]


def _needs(part: str) -> set[str]:
    words = set(re.findall(r"[a-z_]+", part.replace("email_local", "email")))
    return {name for name in words if name in FIELDS or name.startswith("x_")}


def build_features(con: DuckDBPyConnection, config: Config, database: str) -> list[tuple[str, int, int]]:
    """Write `features` into the scratch database; (rule, records over the cap, keys over the cap) for the report."""
    fields = match_fields(config)
    con.execute(f"create or replace table features as {_features_query(config, fields, database)}")
    _add_nicknames(con)
    rules = usable_rules(set(fields))
    capped = [_add_block(con, rule, config.identity.matching.max_block) for rule in rules]
    return [item for item in capped if item[1]]


def _features_query(config: Config, fields: dict[str, list[str]], database: str) -> str:
    value = {name: f"coalesce({', '.join(names)})" for name, names in fields.items()}
    full = _without(_without(value.get("full", "null::text"), TITLES), SUFFIXES)
    tokens = f"string_split({full}, ' ')"
    given = _without(value.get("given", "null::text"), TITLES)
    family = _without(value.get("family", "null::text"), SUFFIXES)
    sources = ", ".join(literal(n) for n, s in config.record_sources.items() if s.matching) or "null"
    others = "".join(
        f", {value.get(n, 'null::text')} as {n}" for n in FIELDS if n not in {"given", "family", "street"}
    )
    extra = "".join(f", {value[n]}::text as {n}" for n in fields if n.startswith("x_"))
    street = (
        f"nullif(concat_ws(' ', {value.get('house', 'null::text')}, {value.get('street', 'null::text')}), '')"
    )
    if "street" not in fields:
        street = "null::text"
    return f"""
        with fields as (select record_key as unique_id, source,
            coalesce({given}, case when len({tokens}) > 1 then {tokens}[1] end) as given,
            coalesce({family}, {tokens}[-1]) as family, lower({street}) as street
        {others}{extra} from {database}.records.current where source in ({sources}))
        select *, split_part(email, '@', 1) as email_local,
            regexp_replace(email_local, '[^0-9]', '', 'g') as email_digits from fields"""


def _without(name: str, words: tuple[str, ...]) -> str:
    """A name without forms of address, which say nothing about who it is."""
    listed = ", ".join(literal(word) for word in words)
    kept = f"list_filter(string_split({name}, ' '), lambda w: w not in ({listed}))"
    return f"nullif(array_to_string({kept}, ' '), '')"


def _add_nicknames(con: DuckDBPyConnection) -> None:
    """`formal_names`: the names a given name may stand for, itself included (nicknames are many to many)."""
    from profile_pipeline.records.normalise import formal_names

    names = formal_names()
    table = pa.table({"nickname": list(names), "formal": [sorted({n, *f}) for n, f in names.items()]})
    con.register("nickname_table", table)
    con.execute(
        "create or replace table features as select f.*, coalesce(n.formal, [given]) as formal_names"
        " from features f left join nickname_table n on n.nickname = split_part(f.given, ' ', 1)"
    )
    con.unregister("nickname_table")


def _add_block(con: DuckDBPyConnection, rule: BlockingRule, cap: int) -> tuple[str, int, int]:
    """Add a hashed key; keys over the cap are refined part by part, what is still over is reported and left."""
    column = f"block_{rule.name}"
    con.execute(f"alter table features add column {column} ubigint")
    con.execute(f"update features set {column} = {_key(rule.parts)}")
    for depth in range(1, len(rule.refine) + 1):
        finer = _key(rule.parts, rule.refine[:depth])
        over = _over(con, rule, column, cap)
        con.execute(f"update features set {column} = {finer} where {column} in (select k from ({over}))")
    over = _over(con, rule, column, cap)
    [(records, keys)] = rows(con, f"select coalesce(sum(n), 0), count(*) from ({over})")
    con.execute(f"update features set {column} = null where {column} in (select k from ({over}))")
    return rule.name, int(records), int(keys)


def _over(con: DuckDBPyConnection, rule: BlockingRule, column: str, cap: int) -> str:
    """Query of the keys held by too many records; a weak rule keeps its smallest blocks, within its budget."""
    counted = f"select {column} as k, count(*) as n from features where {column} is not null group by 1"
    if rule.weak:
        most = f"greatest({FREE_PAIRS}, {WEAK_PAIRS} * (select count(*) from features))"
        [(largest,)] = rows(
            con,
            f"""select max(n) from (
                select n, sum(sum(n * (n - 1) // 2)) over (order by n) as pairs from ({counted}) group by n)
            where pairs <= {most}""",
        )
        cap = max(2, min(cap, WEAK_BLOCK, largest or 2))
    return f"select * from ({counted}) where n > {cap}"


def _key(parts: tuple[str, ...], refine: tuple[str, ...] = ()) -> str:
    # the hash of a missing value is not missing in DuckDB, and least() skips missing ones: guard, or all
    # incomplete records would meet; a refinement may be missing, its records stay together and are counted
    needed = (*parts, *sorted({field for part in parts for field in _needs(part)}))
    present = " and ".join(f"nullif({part}, '') is not null" for part in needed)
    finer = "".join(f", coalesce({part}, '')" for part in refine)
    return f"case when {present} then hash(concat_ws('|', {', '.join(parts)}{finer})) end"
