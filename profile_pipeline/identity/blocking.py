"""Candidate pairs: records that agree on a blocking key, with a cap on how many may share a key.

A key held by too many records is refined, part by part; what is still too large after that is left out and reported
with the matches it is estimated to cost. The effective key of a record depends on the records in its own block only,
so a change re-keys the blocks it touches and nothing else. Caps are frozen with the model.

Keys are 64-bit hashes of (rule, parts, refinements): one integer join finds the pairs of all rules.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity.fields import FIELDS, match_fields
from profile_pipeline.warehouse import count, replace_table, rows, rows_where, scalar, table_kind


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
BUDGET_RECORDS = 100_000
"""Records from which the budget of a weak rule is taken from a sample of its blocks."""
Caps = dict[str, list[int]]
"""By rule: records a key may hold before it is refined for the first, second ... time; the last cap drops it."""
KEYS = "(rule utinyint not null, base ubigint not null, key ubigint, unique_id ubigint not null)"
"""Grain: one row a record and rule; `base` is the key as the rule says, `key` the one in use, null when dropped."""
KEPT = """(rule utinyint not null, base ubigint not null, finer ubigint, unique_id ubigint not null,
    key ubigint generated always as (if(finer is null, base, nullif(finer, 0))) virtual)"""
"""The same as it is kept: nearly all keys in use are the base, so only others are written (`finer`; 0 where dropped)."""
KEPT_COLUMNS = "rule, base, finer, unique_id"
TABLES = f"""
create table if not exists identity.settled_keys {KEPT};
create table if not exists identity.moved_keys {KEPT};
create table if not exists identity.moved_records (unique_id ubigint not null);
create view if not exists identity.blocking_keys as
    select rule, base, finer, unique_id, key from identity.settled_keys
    where unique_id not in (from identity.moved_records)
    union all select rule, base, finer, unique_id, key from identity.moved_keys;
"""
"""Keys of all records when they were last put together; keys of the records that changed since; and which these are.

To take few rows out of millions costs more than all else a small change does with its keys, so that waits.
"""
MOVED_SHARE = 0.1
"""Share of the records whose keys may be kept apart, before all are put together again."""


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


def own_rules(config: Config) -> list[str | dict[str, Any]]:
    """Blocking rules in plain Splink form that the project puts in place of the derived ones; usually none."""
    return config.identity.matching.settings.get("blocking_rules_to_generate_predictions", [])


def project_rules(config: Config) -> list[BlockingRule]:
    """The derived rules of a project, none where it brings its own."""
    return [] if own_rules(config) else usable_rules(set(match_fields(config)))


def as_splink(rule: BlockingRule) -> str:
    """The rule as a plain Splink blocking rule over the match fields, without caps."""
    return " and ".join(f"{_sided(part, 'l')} = {_sided(part, 'r')}" for part in rule.parts)


def _sided(part: str, side: str) -> str:
    return re.sub(r"\b[a-z_]\w*\b(?!\()", lambda word: f"{side}.{word[0]}", part)


def full_caps(rules: Sequence[BlockingRule], cap: int) -> Caps:
    """Caps where nothing is known yet: the same at every refinement."""
    return {rule.name: [cap] * (len(rule.refine) + 1) for rule in rules}


def write_all_keys(
    work: DuckDBPyConnection,
    rules: Sequence[BlockingRule],
    caps: Caps,
    features: str,
    sampled: str = "true",
) -> None:
    """Write `keys` into the scratch database (grain: record and rule): whole blocks that hold a sampled record."""
    work.execute(f"create or replace table keys {KEYS}")
    met = "" if sampled == "true" else f"where base in (select base from own where {sampled})"
    for number, rule in enumerate(rules):
        work.execute(f"insert into keys {_base_query(number, rule, features, met)}")
    _refine(work, "keys", rules, caps, features)


def write_changed_keys(
    work: DuckDBPyConnection, rules: Sequence[BlockingRule], caps: Caps, features: str, identity: str
) -> None:
    """Write `keys`: the new keys of all records in blocks that `changed` records left or joined, where they can differ.

    `identity` is the schema with the keys from before. Adds to `changed` (unique_id) the records whose own key changed
    because their block grew over a cap or shrank below it; `keys` holds all keys of every changed record. Leaves
    `others`, the rows from before of other records in the same blocks.
    """
    work.execute(f"create or replace table keys {KEYS}")
    replace_table(work, "own_features", rows_where(features, "unique_id in (from changed)"))
    own = (f"({_base_query(number, rule, 'own_features')})" for number, rule in enumerate(rules))
    work.execute(f"insert into keys {' union all '.join(own)}")
    _find_others(work, identity)
    if _regroup(work, rules, caps, features):
        of_rekeyed = f"from {identity}.blocking_keys semi join rekeyed using (unique_id)"
        work.execute(
            f"insert into keys select rule, base, key, unique_id {of_rekeyed} anti join keys using (base, unique_id)"
        )
        work.execute("insert into changed from rekeyed; drop table rekeyed")
        _find_others(work, identity)
    work.execute("drop table own_features")


def _regroup(work: DuckDBPyConnection, rules: Sequence[BlockingRule], caps: Caps, features: str) -> bool:
    """Refine the blocks that are too large or were; whether records in them have another key now: then `rekeyed`."""
    regrouped = replace_table(
        work,
        "regrouped",
        f"""select base from (
            select rule, base, key, false as old from keys union all select rule, base, key, true from others)
        group by base having count(*) > {_cap_of(rules, caps, 0)} or bool_or(old and key is distinct from base)""",
    )
    if not regrouped:
        return False
    work.execute(
        "insert into keys select rule, base, base, unique_id from others semi join regrouped using (base)"
    )
    _refine(work, "keys", rules, caps, features)
    rekeyed = """select distinct o.unique_id from others o join keys k using (base, unique_id)
        where o.key is distinct from k.key"""
    return replace_table(work, "rekeyed", rekeyed) > 0


def kept_query(keys: str) -> str:
    """Rows of a table of keys as they are kept, with the columns in the order of KEPT."""
    return f"select rule, base, if(key = base, null, coalesce(key, 0)), unique_id from {keys}"


def _find_others(work: DuckDBPyConnection, identity: str) -> None:
    """Write `others`: rows from before of records that did not change, in blocks that `changed` ones are in or left.

    A block that somebody left matters only where it was refined: in others nothing is different for those who stay.
    """
    replace_table(
        work,
        "bases",
        f"""select base from keys union
        select base from {identity}.blocking_keys where finer is not null and unique_id in (from changed)""",
    )
    # not through the view: whose keys moved is asked of the few rows that are found, not of all
    found = "base in (from bases) and unique_id not in (from changed)"
    replace_table(
        work,
        "others",
        f"""select rule, base, key, unique_id from {identity}.settled_keys
        where {found} and unique_id not in (from {identity}.moved_records)
        union all select rule, base, key, unique_id from {identity}.moved_keys where {found}""",
    )
    work.execute("drop table bases")


def create_tables(con: DuckDBPyConnection, *, afresh: bool) -> None:
    """Make what keeps the keys, where it is missing or is to be written anew."""
    if table_kind(con, "identity.blocking_keys") == "BASE TABLE":
        con.execute("drop table identity.blocking_keys")  # as versions before 0.2 had it
    con.execute(TABLES.replace("create table if not exists", "create or replace table") if afresh else TABLES)


def keep_keys(con: DuckDBPyConnection, keys: str, changed: str) -> None:
    """Keep the keys of changed records (`keys` has those of others as well), apart from all others while they are few."""
    con.execute(f"delete from identity.moved_keys where unique_id in (from {changed})")
    kept = kept_query(f"{keys} semi join {changed} using (unique_id)")
    con.execute(f"insert into identity.moved_keys ({KEPT_COLUMNS}) {kept}")
    con.execute(
        f"insert into identity.moved_records from {changed} where unique_id not in (from identity.moved_records)"
    )
    if count(con, "identity.moved_records") > MOVED_SHARE * count(con, "identity.features"):
        con.execute("delete from identity.settled_keys where unique_id in (from identity.moved_records)")
        con.execute(
            f"insert into identity.settled_keys ({KEPT_COLUMNS}) select {KEPT_COLUMNS} from identity.moved_keys"
        )
        con.execute("delete from identity.moved_keys; delete from identity.moved_records")


def _base_query(number: int, rule: BlockingRule, features: str, met: str = "") -> str:
    """Rows of `keys` of one rule, not refined yet; `met` is a clause over `own` (base, unique_id)."""
    return f"""
        with own as (select {_key(number, rule, 0)} as base, unique_id from {features} where {_present(rule)})
        select {number}, base, base, unique_id from own {met}"""


def _present(rule: BlockingRule) -> str:
    """The hash of a missing value is not missing in DuckDB, and least() skips missing ones: guard, or all meet."""
    needed = (*rule.parts, *sorted({field for part in rule.parts for field in _needs(part)}))
    return " and ".join(f"nullif({part}, '') is not null" for part in needed)


def _key(number: int, rule: BlockingRule, depth: int) -> str:
    """SQL: the key after so many refinements. One may be missing: its records stay together and are counted."""
    refined = (f"coalesce({part}, '')" for part in rule.refine[:depth])
    return f"hash({', '.join((str(number), *rule.parts, *refined))})"


def every_key_query(rules: Sequence[BlockingRule], features: str) -> str:
    """Grain: one row a record, rule and number of refinements: (rule, key, unique_id).

    The stored key of a record is the one of these that is in use where it meets others, so a record that is not
    stored finds exactly those it would be compared with.
    """
    found = [
        f"select {number} as rule, {_key(number, rule, depth)} as key, unique_id from {features} where {_present(rule)}"
        for number, rule in enumerate(rules)
        for depth in range(len(rule.refine) + 1)
    ]
    return " union all ".join(found)


def _refine(
    work: DuckDBPyConnection, table: str, rules: Sequence[BlockingRule], caps: Caps, features: str
) -> None:
    """Give the records of too large keys finer ones, in place. `table` holds whole blocks (equal `base`) or none of one."""
    replace_table(
        work,
        "large",
        f"select rule, base, key, unique_id from {table} semi join ({_too_large(table, rules, caps)}) using (base)",
    )
    for depth in range(max((len(rule.refine) for rule in rules), default=0)):
        replace_table(
            work,
            "large",
            f"""select rule, base, if(o.key is null, k.key, {_refined(rules, depth)}) as key, unique_id
            from large k join {features} using (unique_id) left join ({_over(rules, caps, depth)}) o using (key)""",
        )
    replace_table(
        work,
        "large",
        f"select rule, base, if(o.key is null, k.key, null) as key, unique_id from large k"
        f" left join ({_over(rules, caps, -1)}) o using (key)",
    )
    work.execute(f"delete from {table} where base in (select base from large)")
    work.execute(f"insert into {table} from large; drop table large")


def _too_large(table: str, rules: Sequence[BlockingRule], caps: Caps) -> str:
    """Query of the keys that more records hold than their rule allows; rule by rule, which counts twice as fast."""
    return " union all ".join(
        f"select base from {table} where rule = {n} group by base having count(*) > {caps[rule.name][0]}"
        for n, rule in enumerate(rules)
    )


def _cap_of(rules: Sequence[BlockingRule], caps: Caps, depth: int) -> str:
    """SQL: the cap of the rule of a group at a depth; none where the rule is not refined that often."""
    known = [(n, caps[rule.name]) for n, rule in enumerate(rules)]
    cases = [(n, own[depth]) for n, own in known if depth < 0 or depth < len(own) - 1 or depth == 0]
    listed = " ".join(f"when {n} then {cap}" for n, cap in cases)
    return f"case min(rule::integer) {listed} else 1000000000 end" if cases else "1000000000"


def _over(rules: Sequence[BlockingRule], caps: Caps, depth: int) -> str:
    """Query of the keys in `large` that are too large for their rule."""
    return f"select key from large where key is not null group by key having count(*) > {_cap_of(rules, caps, depth)}"


def _refined(rules: Sequence[BlockingRule], depth: int) -> str:
    cases = [
        f"when {n} then {_key(n, rule, depth + 1)}"
        for n, rule in enumerate(rules)
        if len(rule.refine) > depth
    ]
    return f"case rule {' '.join(cases)} else k.key end"


def weak_caps(work: DuckDBPyConnection, rules: Sequence[BlockingRule], cap: int, features: str) -> Caps:
    """Caps to freeze with a model: a weak rule keeps its smallest blocks, within its budget of pairs.

    The budget decides anew after each refinement, so the caps of a rule are found one depth at a time, from a
    sample of blocks where there are many.
    """
    caps = full_caps(rules, cap)
    records = scalar(work, f"select count(*) from {features}")
    parts = max(1, records // BUDGET_RECORDS)
    for rule in (rule for rule in rules if rule.weak):
        work.execute(f"create or replace table keys {KEYS}")
        work.execute(f"insert into keys {_base_query(0, rule, features, f'where base % {parts} = 0')}")
        own: list[int] = []
        for depth in range(len(rule.refine) + 1):
            own.append(_budgeted_cap(work, cap, max(FREE_PAIRS, WEAK_PAIRS * records) // parts))
            if depth < len(rule.refine):
                replace_table(
                    work,
                    "keys",
                    f"""select rule, base, if(o.key is null, k.key, {_refined([rule], depth)}) as key, unique_id
                    from keys k join {features} using (unique_id) left join (
                        select key from keys group by key having count(*) > {own[-1]}) o using (key)""",
                )
        caps[rule.name] = own
    work.execute("drop table if exists keys")
    return caps


def _budgeted_cap(work: DuckDBPyConnection, cap: int, most: int) -> int:
    [(largest,)] = rows(
        work,
        f"""select max(n) from (
            select n, sum(sum(n * (n - 1) // 2)) over (order by n) as pairs
            from (select count(*) as n from keys group by key) group by n)
        where pairs <= {most}""",
    )
    return max(2, min(cap, WEAK_BLOCK, largest or 2))


ORDERED = "a.unique_id < b.unique_id"


def pairs_query(left: str, right: str, condition: str = ORDERED) -> str:
    """Grain: one row a candidate pair with the number of the first rule that finds it (`match_key`, as Splink has it).

    The smaller hash is the left side, so that a pair reads the same whoever came first.
    """
    sides = "a.unique_id", "b.unique_id"
    if condition != ORDERED:
        sides = tuple(f"{side}({', '.join(sides)})" for side in ("least", "greatest"))
    return f"""
        select min(a.rule) as match_key, {sides[0]} as join_key_l, {sides[1]} as join_key_r
        from {left} a join {right} b on a.key = b.key and {condition} group by 2, 3"""
