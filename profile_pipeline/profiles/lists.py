"""Fields that show more than one value: distinct values of all records, or the elements of list fields united.

Which candidates a list keeps is an extra place in the ranking; how kept values become columns of the profile
table is below it. A clear that ranks first empties the list, as it empties a single value; any other changes nothing.
"""

from profile_pipeline.config.load import Config
from profile_pipeline.config.profiles import FieldRule
from profile_pipeline.config.sources import Attribute
from profile_pipeline.profiles.nested import elements_query, kept_query, value_query
from profile_pipeline.profiles.rules import Unit
from profile_pipeline.records.normalise import value_type

FULL = "list_full"
"""The rule by which a value lost that had no more room."""


def rule_of(config: Config, policy: str, field: str) -> FieldRule | None:
    """The rule of a field that shows more than one value under a policy, else None."""
    rule = config.profiles.policies[policy].fields.get(field)
    return rule if rule and rule.keep != "one" else None


def list_columns(config: Config, policy: str) -> dict[str, str]:
    """Further columns of a policy's profile table, and their DuckDB types."""
    found = {}
    for field in config.attributes:
        rule = rule_of(config, policy, field)
        if rule and rule.keep == "list":
            found[f"{field}_all"] = "text[]"
        if rule:
            found[f"{field}_capped"] = "boolean"
    return found


def seat_query(unit: Unit) -> str:
    """`seat`, the rank in the lineage, of a candidate that is at `place` by the rules."""
    whole = "partition by profile, field_no"
    if unit.keep == "list":
        # the best candidate of each value first, in order; then those that say the same, and clears
        repeated = "if(place = 1 or (copy = 1 and value is not null), 0, 1)"
        return f"row_number() over ({whole} order by {repeated}, place)"
    if unit.precise:
        return f"row_number() over ({whole} order by if(refines, -length(value), 0), place)"
    return "place"


def won_query(unit: Unit) -> str:
    """Whether a candidate is shown; columns place, seat, copy, value and winner are at hand."""
    if unit.keep == "one":
        return "seat = 1"
    room = f" and seat <= {unit.max}" if unit.keep == "list" and unit.max else ""
    once = "copy = 1 and " if unit.keep == "list" else ""
    return f"if(winner is null, place = 1, {once}value is not null{room})"


def rule_cases(unit: Unit) -> str:
    """What to call the candidates that a list keeps behind the first, or has no room for."""
    if unit.keep == "one":
        return ""
    full = f" when winner is not null and copy = 1 and value is not null and seat > {unit.max} then '{FULL}'"
    return f"when won and place > 1 then '{unit.keep}'" + (full if unit.keep == "list" and unit.max else "")


def winner_columns(field: str, rule: FieldRule, attribute: Attribute) -> tuple[str, str]:
    """Two select lists for a profile table: what to gather from the lineage of a profile, and what to show of it."""
    kind = value_type(attribute)
    if rule.keep == "list":
        gathered = (
            f", any_value(value) filter (field = '{field}' and won and rank = 1) as {field}"
            f", list(value order by rank) filter (field = '{field}' and won and value is not null) as {field}_all"
            f", bool_or(rule = '{FULL}') filter (field = '{field}') as {field}_capped"
        )
        value = field if kind == "text" else f"try_cast({field} as {kind})"
        return gathered, (
            f", {value} as {field}, coalesce({field}_all, []) as {field}_all"
            f", coalesce({field}_capped, false) as {field}_capped"
        )
    # read after it is gathered: a filter of an aggregate does not keep the values of other fields from a cast
    won = f"list(value order by rank) filter (field = '{field}' and won and value is not null)"
    elements = kept_query(attribute, rule, field)
    capped = f"coalesce(len({elements}) > {rule.max}, false)" if rule.max else "false"
    shown = value_query(attribute, f"({elements})[1:{rule.max}]" if rule.max else elements)
    return (
        f", {elements_query(attribute, won)} as {field}",
        f", if({field} is null, null, {shown}) as {field}, {capped} as {field}_capped",
    )
