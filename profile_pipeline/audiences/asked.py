"""What the conditions of all audiences ask for, whoever they are about."""

from profile_pipeline.computed.names import names_in
from profile_pipeline.config.audience_check import conditions_of
from profile_pipeline.config.audiences import Condition
from profile_pipeline.config.computed import EventColumn
from profile_pipeline.config.load import Config
from profile_pipeline.warehouse import literal


def conditions(config: Config) -> list[Condition]:
    """Every condition of every audience, in the order of the file."""
    audiences = config.audiences.audiences
    return [part for name, audience in audiences.items() for _, part in conditions_of(name, audience)]


def fields_named(config: Config) -> set[str]:
    """Columns that conditions over profiles name; those in SQL in lower case."""
    asked = conditions(config)
    written = [part.where for part in asked if part.kind == "where" and part.where]
    fields = {part.field for part in asked if part.field}
    return fields | {name for text in written for name in names_in(text)}


def event_conditions(config: Config) -> list[Condition]:
    """Those about events or sequences."""
    return [part for part in conditions(config) if part.kind in {"event", "sequence"}]


def event_types(config: Config) -> list[str] | None:
    """The types of events that conditions look at; None for all."""
    named = [
        event
        for condition in event_conditions(config)
        for event in ([step.event for step in condition.sequence or []] or [condition.event or ""])
    ]
    return None if "any" in named else sorted(set(named)) or ["any"]


def columns_named(config: Config, among: list[Condition]) -> dict[str, EventColumn]:
    """The event columns of computed.yaml that conditions over events name, in the order of the file."""
    written = [part.where for each in among for part in [each, *(each.sequence or [])] if part.where]
    named = {name for text in written for name in names_in(text)}
    return {name: column for name, column in config.computed.event_columns.items() if name in named}


def of_types(config: Config) -> str:
    """A condition on events, with `and` before it: of the types that conditions look at; empty for all."""
    types = event_types(config)
    return "" if types is None else f" and event_type in ({', '.join(map(literal, types))})"
