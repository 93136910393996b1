"""Mistakes in audiences that only names of other rules show: fields, sources, namespaces, purposes, circles."""

from collections.abc import Callable, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from profile_pipeline.config.audiences import NO_CONSENT, AudienceRules, Condition

if TYPE_CHECKING:
    from profile_pipeline.config.load import Config

Unknown = Callable[[str, str, str, Iterable[str]], str]
Located = tuple[str, Condition]


def conditions_of(path: str, condition: Condition) -> Iterator[Located]:
    """A condition and all inside it, each with its key path, in the order of the file."""
    yield path, condition
    for key, inside in (("all", condition.all_of), ("any", condition.any_of)):
        for number, part in enumerate(inside or []):
            yield from conditions_of(f"{path}.{key}.{number}", part)
    if condition.not_:
        yield from conditions_of(f"{path}.not", condition.not_)


def referred(condition: Condition) -> list[str]:
    """Audiences that a condition names, in order."""
    names = [part.audience for _, part in conditions_of("", condition) if part.audience]
    return list(dict.fromkeys(names))


def in_order(rules: AudienceRules) -> list[str]:
    """Every audience behind those it names. Raises CycleError."""
    graph = {name: referred(audience) for name, audience in rules.audiences.items()}
    return [name for name in TopologicalSorter(graph).static_order() if name in rules.audiences]


def audience_name_problems(config: "Config", columns: Iterable[str], unknown: Unknown) -> Iterator[str]:
    """Lines about names that nothing declares, and about audiences that name each other in a circle."""
    rules = config.audiences
    needed = {f"consent.purposes.{name}": field for name, field in rules.consent.purposes.items()}
    for key, field in {"consent.default": rules.consent.default, **needed}.items():
        if field not in {NO_CONSENT, *config.attributes}:
            yield unknown(f"audiences.yaml: {key}", "attribute", field, config.attributes)
    known = {*columns, *config.attributes, *config.structs, *config.computed.attributes}
    for name, audience in rules.audiences.items():
        where = f"audiences.yaml: audiences.{name}"
        if audience.consent and audience.consent not in config.attributes:
            yield unknown(f"{where}.consent", "attribute", audience.consent, config.attributes)
        if audience.purpose and audience.purpose not in rules.consent.purposes:
            yield unknown(f"{where}.purpose", "purpose", audience.purpose, rules.consent.purposes)
        for path, condition in conditions_of(where, audience):
            yield from _of_condition(config, path, condition, known, unknown)
    yield from _clocks(rules)
    yield from _circles(rules)


def _clocks(rules: AudienceRules) -> Iterator[str]:
    """Conditions in SQL that would say something else at another run over the same data."""
    written = [found for name, audience in rules.audiences.items() for found in _written(name, audience)]
    if not written:
        return
    from profile_pipeline.sandbox import clock_in, sandbox

    with sandbox() as con:
        for path, expression in written:
            if name := clock_in(con, expression):
                yield f"{path}: `{name}` gives another value at another run; use the columns of the row, and as_of for the time"


def _written(name: str, audience: Condition) -> Iterator[tuple[str, str]]:
    """Every condition in SQL, with its key path."""
    for path, condition in conditions_of(f"audiences.yaml: audiences.{name}", audience):
        if condition.where:
            yield f"{path}.where", condition.where
        for number, step in enumerate(condition.sequence or []):
            if step.where:
                yield f"{path}.sequence.{number}.where", step.where


def _of_condition(
    config: "Config", path: str, condition: Condition, known: set[str], unknown: Unknown
) -> Iterator[str]:
    field, other = condition.field, condition.audience
    if field and field not in known and not _of_a_list(config, field):
        yield unknown(f"{path}.field", "field", field, sorted(known))
    if other and other not in config.audiences.audiences:
        yield unknown(f"{path}.audience", "audience", other, config.audiences.audiences)
    if condition.source and condition.source not in config.event_sources:
        yield unknown(f"{path}.source", "event source", condition.source, config.event_sources)
    for number, step in enumerate(condition.sequence or []):
        if step.source and step.source not in config.event_sources:
            yield unknown(
                f"{path}.sequence.{number}.source", "event source", step.source, config.event_sources
            )
    if condition.external and condition.external.namespace not in config.namespaces:
        yield unknown(
            f"{path}.external.namespace", "namespace", condition.external.namespace, config.namespaces
        )


def _of_a_list(config: "Config", field: str) -> bool:
    """Whether it can be a further column of a field that keeps more than one value."""
    name, _, end = field.rpartition("_")
    return end in {"all", "capped"} and name in config.attributes


def _circles(rules: AudienceRules) -> Iterator[str]:
    try:
        in_order(rules)
    except CycleError as error:
        circle = error.args[1][::-1]
        yield (
            f"audiences.yaml: audiences.{circle[0]}: names itself in a circle, {' -> '.join(circle)};"
            " remove one of these conditions"
        )
