"""Hides what is sensitive until somebody asks for it: by the rules, else by semantic type."""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Source
from profile_pipeline.config.structs import structs_of
from profile_pipeline.raw.json_lines import MAX_DEPTH, depth

SENSITIVE_TYPES = frozenset({"birth_date", "national_id"})
"""Types that are sensitive where sources.yaml does not say otherwise: enough to pass for somebody else."""
HIDDEN = "••••••"
"""What stands for a hidden value, whatever its length."""


@dataclass(frozen=True)
class Masks:
    """What is hidden on a page; `revealed` pages hide nothing."""

    config: Config
    revealed: bool = False
    _numbers: dict[str, int] = field(default_factory=dict)

    @cached_property
    def fields(self) -> frozenset[str]:
        """Sensitive profile fields, and structs with a sensitive part."""
        fields = {
            name
            for name, attribute in self.config.attributes.items()
            if (attribute.type in SENSITIVE_TYPES if attribute.sensitive is None else attribute.sensitive)
        }
        structs = structs_of(self.config.structs).items()
        return frozenset(fields | {name for name, parts in structs if fields & set(parts.values())})

    @cached_property
    def namespaces(self) -> frozenset[str]:
        """Sensitive namespaces: by their own word, else as the field of their name."""
        return frozenset(
            name
            for name, namespace in self.config.namespaces.items()
            if (name in self.fields if namespace.sensitive is None else namespace.sensitive)
        )

    def hides(self, name: str) -> bool:
        """Whether values of a field or namespace are hidden."""
        return not self.revealed and (name in self.fields or name in self.namespaces)

    def value(self, name: str, value: Any) -> Any:  # noqa: ANN401
        """A value of a field or namespace, or HIDDEN."""
        return HIDDEN if value is not None and self.hides(name.removesuffix("_all")) else value

    def key(self, record_key: str) -> str:
        """A record key or event identity without a sensitive value; different keys stay different on a page."""
        source, _, own = record_key.partition(":")
        namespace, mark, _ = own.partition("=")
        known = self.config.sources.get(source)
        if source == "event" and mark and self.hides(namespace):
            return self._numbered(f"event:{namespace}=", record_key)
        if known and known.key and set(re.findall(r"\w+", known.key)) & self._columns(known):
            return self._numbered(f"{source}:", record_key)
        return record_key

    def _numbered(self, prefix: str, record_key: str) -> str:
        number = self._numbers.setdefault(record_key, len(self._numbers) + 1)
        return f"{prefix}{HIDDEN} {number}"

    def condition(self, text: str, seen: str | None) -> str | None:
        """What a condition saw, unless it looks at a sensitive field."""
        looked_at = set(re.findall(r"[a-z_][a-z0-9_]*", text))
        return HIDDEN if seen is not None and any(map(self.hides, looked_at)) else seen

    def payload(self, source: str, payload: str | None) -> dict[str, Any]:
        """An event as delivered, column by column; columns that feed something sensitive are hidden.

        What cannot be taken apart is hidden as a whole: nobody can tell what is in it.
        """
        columns = _columns_of(payload or "{}")
        if columns is None:
            return {"event": payload if self.revealed else HIDDEN}
        hidden = self._columns(self.config.sources.get(source))
        return {
            name: HIDDEN if value is not None and (name in hidden or self.hides(name)) else value
            for name, value in columns.items()
        }

    def _columns(self, source: Source | None) -> set[str]:
        """Delivered columns that an expression for something sensitive names."""
        if source is None or self.revealed:
            return set()
        expressions = [source.mapping(name).value for name in source.attributes if self.hides(name)]
        expressions += [text for name, text in source.identifiers.items() if self.hides(name)]
        named = {word for text in expressions for word in re.findall(r"\w+", text)}
        return named & {*source.columns, *source.optional_columns}


def _columns_of(payload: str) -> dict[str, Any] | None:
    """The columns of an event; None where Python cannot read what DuckDB wrote, such as a text of many levels."""
    if depth(payload) > MAX_DEPTH + 1:
        return None
    try:
        found = json.loads(payload, parse_constant=str)  # NaN is no JSON for a browser
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
