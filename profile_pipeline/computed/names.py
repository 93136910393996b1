"""Which names an expression uses, and in which order attributes that are made of others have to be computed.

sqlglot reads the expressions; that they work at all is for the sandbox to say, which asks DuckDB itself.
"""

from collections.abc import Iterable, Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from profile_pipeline.config.computed import ComputedAttribute, ComputedRules
from profile_pipeline.warehouse import fingerprint

Attributes = Mapping[str, ComputedAttribute]


def parsed(expression: str) -> exp.Expr | None:
    """The tree of a DuckDB expression, or None where sqlglot does not understand it."""
    try:
        return sqlglot.parse_one(expression, read="duckdb")
    except SqlglotError:
        return None


def names_in(expression: str) -> set[str]:
    """Columns that an expression names, in lower case; of `a.b` the first part, which may be a column with parts."""
    tree = parsed(expression)
    found = tree.find_all(exp.Column) if tree else ()
    return {column.parts[0].name.lower() for column in found}


def compared_with(expression: str, column: str) -> set[str]:
    """Texts that an expression compares a column with, by `=`, `<>` or `in`."""
    tree = parsed(expression)
    if tree is None:
        return set()
    sides = [(node.this, [node.expression]) for node in tree.find_all(exp.EQ, exp.NEQ)]
    sides += [(node.this, node.expressions) for node in tree.find_all(exp.In)]
    return {
        value.name
        for left, right in sides
        if isinstance(left, exp.Column) and left.name.lower() == column
        for value in right
        if isinstance(value, exp.Literal)
    }


def needs(attribute: ComputedAttribute, among: Iterable[str]) -> set[str]:
    """The other attributes that a derived attribute is made of."""
    named = set(attribute.of or ()) | (names_in(attribute.expression) if attribute.expression else set())
    return named & set(among)


def levels(attributes: Attributes) -> list[list[str]]:
    """Attributes in the order they can be computed: each needs only those of levels before its own.

    The first level holds those made of rows. Attributes of a circle, and those behind it, are in none: see `cycle`.
    """
    done = [name for name, attribute in attributes.items() if not attribute.derived]
    found, waiting = [list(done)], {name: a for name, a in attributes.items() if a.derived}
    while ready := [name for name, a in waiting.items() if needs(a, attributes) <= set(done)]:
        found.append(ready)
        done += ready
        waiting = {name: a for name, a in waiting.items() if name not in ready}
    return found


def cycle(attributes: Attributes) -> list[str]:
    """A circle of attributes of which each needs the next, the first one again at the end; empty when there is none."""
    waiting = set(attributes) - {name for level in levels(attributes) for name in level}
    if not waiting:
        return []
    path = [min(waiting)]
    while path[-1] not in path[:-1]:
        # whoever waits needs somebody who waits
        path.append(min(needs(attributes[path[-1]], attributes) & waiting))
    return path[path.index(path[-1]) :]


def closure(attributes: Attributes, name: str) -> list[str]:
    """An attribute and all that it is made of, directly or not."""
    found = [name]
    for each in found:
        found += sorted(needs(attributes[each], attributes) - set(found))
    return found


def marks(rules: ComputedRules) -> dict[str, str]:
    """A hash of the rules of each attribute, and of all that it is made of."""
    columns = {
        name: column.model_dump(exclude={"description"}) for name, column in rules.event_columns.items()
    }
    own = {name: a.model_dump(exclude={"description", "personal"}) for name, a in rules.attributes.items()}
    return {
        name: fingerprint(columns, [own[each] for each in closure(rules.attributes, name)])
        for name in rules.attributes
    }


def of_the_time(attributes: Attributes) -> list[str]:
    """Attributes whose own expression names the as-of time."""
    return [name for name, a in attributes.items() if a.expression and "as_of" in names_in(a.expression)]
