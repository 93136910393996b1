"""Values with parts: lists, lists of objects and maps as the lineage holds them (JSON text), and structs.

A list or a map is offered, ranked and explained as a whole; what is shown of those that won is put together here.
An entry of a map that a record took away (`"key": null`) hides the key, unless a better record fills it.
"""

from profile_pipeline.config.load import Config
from profile_pipeline.config.profiles import FieldRule
from profile_pipeline.config.sources import Attribute
from profile_pipeline.config.structs import structs_of
from profile_pipeline.records.normalise import value_type
from profile_pipeline.warehouse import quote

NESTED = {"list", "map"}
"""Types whose values are JSON text in candidates and lineage."""


def read_query(attribute: Attribute, text: str) -> str:
    """The typed value of JSON text."""
    return f"cast(cast({text} as json) as {value_type(attribute)})"


def shown_query(attribute: Attribute, value: str) -> str:
    """What a profile shows of a single winner."""
    if attribute.type != "map":
        return value
    return f"map_from_entries(list_filter(map_entries({value}), lambda e: e.value is not null))"


def elements_query(attribute: Attribute, texts: str) -> str:
    """The elements of a list of JSON texts, one text after the other; of maps, their entries."""
    elements = read_query(attribute, "x")
    if attribute.type == "map":
        elements = f"map_entries({elements})"
    return f"flatten(list_transform({texts}, lambda x: {elements}))"


def kept_query(attribute: Attribute, rule: FieldRule, elements: str) -> str:
    """Of elements in order, best first, those that a rule keeps: with `union` the first of each name."""
    if rule.keep == "append":
        return elements
    name = "e"
    if attribute.type == "map":
        name = "e.key"
    elif rule.key:
        # an element without the key is named by all it holds
        name = f"coalesce(e.{quote(rule.key)}::text, e::text)"
    names = f"list_transform({elements}, lambda e: {name})"
    firsts = f"list_filter({elements}, lambda e, i: list_position({names}, {name}) = i)"
    return f"list_filter({firsts}, lambda e: e.value is not null)" if attribute.type == "map" else firsts


def value_query(attribute: Attribute, elements: str) -> str:
    """Elements as the value of a field."""
    return f"map_from_entries(list_sort({elements}))" if attribute.type == "map" else elements


def struct_types(config: Config) -> dict[str, str]:
    """The columns that structs are in a profile table, and their DuckDB types."""
    return {name: value_type(attribute) for name, attribute in config.structs.items()}


def struct_columns(config: Config) -> str:
    """Select list of the structs of a profile, from the columns of their parts; nothing of none is nothing."""
    found = ""
    for name, parts in structs_of(config.structs).items():
        packed = ", ".join(f"{quote(field)} := {part}" for field, part in parts.items())
        anything = " or ".join(f"{part} is not null" for part in parts.values())
        found += f", if({anything}, struct_pack({packed}), null) as {name}"
    return found
