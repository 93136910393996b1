"""Splink's input: one row a record with the match fields of its semantic types and its blocking keys."""

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
    """Records whose `parts` agree are compared; a key held by too many is refined by `refine`, in order."""

    name: str
    parts: tuple[str, ...]
    refine: tuple[str, ...] = ()


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
    BlockingRule("given_month_day", ("given", "substr(birth_date, 6)", "left(family, 1)"), ("city",)),
    BlockingRule("local_part", ("split_part(email, '@', 1)",), ("given", "birth_date")),
    BlockingRule(
        "given_family_city", ("left(given, 2)", "left(family, 2)", "city"), ("left(birth_date, 4)",)
    ),
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
    return [
        BlockingRule(rule.name, rule.parts, tuple(r for r in rule.refine if _needs(r) <= known))
        for rule in rules
    ]


def _needs(part: str) -> set[str]:
    return {
        name
        for name in FIELDS
        if name in part.replace("given_", "").replace("(", " ").replace(",", " ").replace(")", " ").split()
    }


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
    full = value.get("full", "null::text")
    tokens = f"string_split({full}, ' ')"
    given = f"coalesce({value.get('given', 'null::text')}, case when len({tokens}) > 1 then {tokens}[1] end)"
    family = f"coalesce({value.get('family', 'null::text')}, {tokens}[-1])"
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
    return f"""select record_key as unique_id, source, {given} as given, {family} as family, lower({street}) as street
        {others}{extra} from {database}.records.current where source in ({sources})"""


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
        finer = _key((*rule.parts, *rule.refine[:depth]))
        con.execute(
            f"update features set {column} = {finer} where {column} in"
            f" (select {column} from features where {column} is not null group by 1 having count(*) > {cap})"
        )
    over = f"select {column} as k, count(*) as n from features where {column} is not null group by 1 having n > {cap}"
    [(records, keys)] = rows(con, f"select coalesce(sum(n), 0), count(*) from ({over})")
    con.execute(f"update features set {column} = null where {column} in (select k from ({over}))")
    return rule.name, int(records), int(keys)


def _key(parts: tuple[str, ...]) -> str:
    # the hash of a missing value is not missing in DuckDB: guard, or all incomplete records would meet
    present = " and ".join(f"nullif({part}, '') is not null" for part in parts)
    return f"case when {present} then hash(concat_ws('|', {', '.join(parts)})) end"
