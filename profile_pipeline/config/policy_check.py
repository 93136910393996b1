"""Mistakes in merge policies that only the other rule files show: names, types, columns, expressions.

What a policy says about itself is checked by its model. Rules look at the candidates of one field or group and never at
another field's result, so there is no order of fields, and no cycle, to check.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from profile_pipeline.config.profiles import FieldRule, Policy, Ranking
from profile_pipeline.config.sources import Attribute

if TYPE_CHECKING:
    from profile_pipeline.config.load import Config

FITS = {
    "minimum": {"number", "integer", "date", "timestamp", "birth_date"},
    "maximum": {"number", "integer", "date", "timestamp", "birth_date"},
    "most_precise": {"birth_date"},
    "most_restrictive": {"consent", "boolean"},
}
"""Rules that compare values of some types only; of any other type all candidates would be tied."""
NOT_OF_GROUPS = {*FITS, "first_non_null"}
CANDIDATE_COLUMNS = {
    "value": "text", "shown": "text", "cleared": "boolean", "valid": "boolean", "source": "text", "record_key": "text",
    "observed_at": "timestamptz", "ingested_at": "timestamptz", "clock": "text", "filled": "bigint",
}  # fmt: skip
"""What an expression of a policy may look at."""


def policy_problems(config: "Config", taken: Iterable[str]) -> list[str]:
    """Lines `profiles.yaml: key.path: what is wrong; how to mend it`; `taken` are columns that every profile has."""
    found = []
    for name, policy in config.profiles.policies.items():
        where = f"profiles.yaml: policies.{name}"
        own = {field: rule for field, rule in policy.fields.items() if field in config.attributes}
        found += [f"{where}.fields.{line}" for line in _misfits(config, policy, own)]
        found += [f"{where}.fields.{line}" for line in _lists(config, own, set(taken))]
        found += [f"{where}.groups.{line}" for line in _group_misfits(policy)]
        found += [f"{where}{line}" for line in _expressions(policy)]
    return found


def _misfits(config: "Config", policy: Policy, own: Mapping[str, FieldRule]) -> Iterator[str]:
    for field, rule in own.items():
        kind = config.attributes[field].type
        said = rule.choose or rule.primary or rule.when
        for name in sorted(policy.ranking(field).rules & set(FITS)) if said else ():
            if kind not in FITS[name]:
                yield f"{field}: rule {name} does not compare {kind}, only {', '.join(sorted(FITS[name]))}; remove it"


def _group_misfits(policy: Policy) -> Iterator[str]:
    for name in policy.groups:
        for rule in sorted(policy.group_ranking(name).rules & NOT_OF_GROUPS):
            yield f"{name}: rule {rule} compares single values, not records side by side; remove it"


def _lists(config: "Config", own: Mapping[str, FieldRule], taken: set[str]) -> Iterator[str]:
    for field, rule in own.items():
        yield from (f"{field}.{line}" for line in _kept_otherwise(config.attributes[field], rule))
        further = {f"{field}_all", f"{field}_capped"} if rule.keep != "one" else set()
        for column in sorted(further & (taken | set(config.attributes))):
            yield f"{field}.keep: adds a column `{column}`, which is there already; rename that attribute"


def _kept_otherwise(attribute: Attribute, rule: FieldRule) -> Iterator[str]:
    """What of a rule asks for more than fields of this type have."""
    kind = attribute.type
    if rule.keep in {"union", "append"} and kind not in {"list", "map"}:
        yield f"keep: {rule.keep} is for fields of type list; write `keep: list`"
    if rule.keep == "append" and kind == "map":
        yield "keep: a map has every key once; write `keep: union`"
    if rule.keep == "list" and kind == "list":
        yield "keep: is a list in every record already; write `keep: union` or `keep: append`"
    if rule.keep == "list" and kind == "map":
        yield "keep: is a map; write `keep: union` to unite its keys"
    if rule.key and rule.key not in attribute.fields:
        known = ", ".join(attribute.fields) or "none: its elements are no objects"
        yield f"key: `{rule.key}` is no field of the list's objects; they have {known}"


def _expressions(policy: Policy) -> Iterator[str]:
    """Bound to the columns of a candidate, and never executed."""
    asked = [(where, ranking) for where, ranking in policy.rankings() if ranking.custom or ranking.when]
    if not asked:
        return
    from profile_pipeline.sandbox import expression_problem, sandbox, shape

    with sandbox() as con:
        shape(con, CANDIDATE_COLUMNS)
        for where, ranking in asked:
            key = f".{where.removesuffix(': ')}" if where else ""
            for name, text, condition in _texts(ranking):
                message = expression_problem(con, text, condition=condition)
                if message:
                    yield f"{key}.{name}: {message}"


def _texts(ranking: Ranking) -> Iterator[tuple[str, str, bool]]:
    if ranking.custom and "custom" in ranking.rules:
        yield "custom", ranking.custom, False
    yield from ((f"when.{number}.if", text, True) for number, (text, _) in enumerate(ranking.when))
