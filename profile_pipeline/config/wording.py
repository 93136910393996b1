"""What pydantic found wrong with a rule file, in plain words: key, mistake, fix; one line each."""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from profile_pipeline.config.model import Rule

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
SHOWN = 40
Schema = dict[str, Any]


@dataclass(frozen=True)
class Mistake:
    """What pydantic reports, with the JSON schema of the value and that of the group of keys it is in."""

    loc: tuple[str | int, ...]
    value: object
    message: str
    context: dict[str, Any]
    schema: Schema
    parent: Schema


def suggestion(wrong: str, known: Iterable[str], otherwise: str) -> str:
    """`did you mean ...?` for the closest known name, letter case aside, or another fix."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(wrong.lower(), by_lower, n=1)
    return f"did you mean `{by_lower[close[0]]}`?" if close else otherwise


def explain(error: ValidationError, model: type[Rule]) -> list[str]:
    """A line `key.path: what is wrong; how to mend it` for each mistake, in the order of the file."""
    schema = model.model_json_schema()
    lines = [_line(problem, schema) for problem in error.errors() if not _other_arm(problem)]
    return list(dict.fromkeys(lines))


def _line(problem: ErrorDetails, root: Schema) -> str:
    path, schema, parent = _locate(problem["loc"], root)
    where = ".".join(str(part) for part in path) or "(file)"
    kind = "bad_key" if "[key]" in problem["loc"] else problem["type"]
    say = MESSAGES.get(kind, _own_words)
    context = problem.get("ctx", {})
    mistake = Mistake(problem["loc"], problem["input"], problem["msg"], context, schema, parent)
    return f"{where}: {say(mistake)}"


def _other_arm(problem: ErrorDetails) -> bool:
    """Whether the line is about the form of a mapping that the user did not write."""
    if not any(_is_arm(part) for part in problem["loc"]):
        return False
    wrote_keys = isinstance(problem["input"], dict)
    return problem["type"] == "model_type" or (problem["type"] == "string_type" and wrote_keys)


def _is_arm(part: object) -> bool:
    """A union reports every form it could have; parts of a location that name a form are no keys."""
    return isinstance(part, str) and (part == "Mapping" or part.startswith("constrained-str"))


def _locate(loc: Sequence[str | int], root: Schema) -> tuple[list[str | int], Schema, Schema]:
    """Key path of a location, the schema of its value, and that of the group the key is in."""
    path: list[str | int] = []
    schema, parent = root, root
    for part in loc:
        if part == "[key]":
            continue
        if _is_arm(part):
            wanted = "properties" if part == "Mapping" else "type"
            schema = next((arm for arm in _arms(schema, root) if wanted in arm), schema)
            continue
        path.append(part)
        parent = _arms(schema, root)[0]
        schema = _child(parent, part)
    return path, _arms(schema, root)[0], parent


def _child(schema: Schema, part: str | int) -> Schema:
    if isinstance(part, int):
        return schema.get("items", {})
    inner = schema.get("properties", {}).get(part)
    more = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
    return inner or next((each for each in more if isinstance(each, dict)), {})


def _arms(schema: Schema, root: Schema) -> list[Schema]:
    """The forms a value may have, references resolved; `null` is none of them."""
    arms = schema.get("anyOf", [schema])
    found = [_resolved(arm, root) for arm in arms if arm.get("type") != "null"]
    return found or [schema]


def _resolved(schema: Schema, root: Schema) -> Schema:
    reference = schema.get("$ref", "").rpartition("/")[2]
    return {**root["$defs"][reference], "$defs": root["$defs"]} if reference else schema


def shown(value: object) -> str:
    """A value of a rule file, short enough for a message."""
    text = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    text = " ".join(text.split())
    return f"`{text[:SHOWN]}...`" if len(text) > SHOWN else f"`{text}`"


def _kind(value: object) -> str:
    if _is_scalar(value):
        return shown(value)
    if value is None:
        return "nothing"
    return "a list" if isinstance(value, list) else "a group of keys"


def _is_scalar(value: object) -> TypeGuard[str | float | bool]:
    return not (value is None or isinstance(value, list | dict))


def _missing(mistake: Mistake) -> str:
    key = mistake.loc[-1]
    hint = " or ".join(mistake.schema.get("enum", [])) if len(mistake.schema.get("enum", [])) < 4 else ""
    hint = hint or mistake.schema.get("description", "").strip()
    return f"is missing; add `{key}:`" + (f" ({hint})" if hint else "")


def _unknown_key(mistake: Mistake) -> str:
    key, known = str(mistake.loc[-1]), list(mistake.parent.get("properties", {}))
    inner = next((group for group in known if key in _inner_keys(mistake.parent, group)), None)
    fix = f"it belongs under `{inner}:`" if inner else f"remove it; known: {', '.join(known)}"
    return f"unknown key; {fix if inner else suggestion(key, known, fix)}"


def _inner_keys(parent: Schema, group: str) -> list[str]:
    inner = _arms(parent["properties"][group], parent)[0] if "$defs" in parent else {}
    return list(inner.get("properties", {}))


def _choice(mistake: Mistake) -> str:
    value, known = mistake.value, mistake.schema.get("enum", [])
    if not isinstance(value, str):
        return f"must be one of {', '.join(known)}, not {_kind(value)}"
    if mistake.schema.get("const"):
        return f"must be `{mistake.schema['const']}`, not {shown(value)}"
    close = suggestion(value, known, "choose one of them")
    return f"{shown(value)} is not one of {', '.join(known)}; {close}"


def _text(mistake: Mistake) -> str:
    value = mistake.value
    if value is None:
        return "is empty; write a value or remove the key"
    if isinstance(value, list | dict):
        more = ", or the keys `value:` and `cleared:`" if any(map(_is_arm, mistake.loc)) else ""
        return f"must be text, not {_kind(value)}; write one value{more}"
    return f'must be text, not {_kind(value)}; put it in quotes: "{shown(value).strip("`")}"'


def _truth(mistake: Mistake) -> str:
    return f"must be true or false, not {_kind(mistake.value)}"


def _whole(mistake: Mistake) -> str:
    return f"must be a whole number, not {_kind(mistake.value)}"


def _number(mistake: Mistake) -> str:
    return f"must be a number, not {_kind(mistake.value)}"


def _list(mistake: Mistake) -> str:
    value = mistake.value
    fix = f"write [{shown(value).strip('`')}]" if _is_scalar(value) else "write [a, b]"
    return f"must be a list, not {_kind(value)}; {fix}"


def _group(mistake: Mistake) -> str:
    known = list(mistake.schema.get("properties", {}))
    example = f"for example `{known[0]}: ...`" if known else "`name: ...`"
    return f"must be a group of keys, not {_kind(mistake.value)}; indent keys below it, {example}"


def _limit(words: str) -> Callable[[Mistake], str]:
    def say(mistake: Mistake) -> str:
        [limit] = [v for k, v in mistake.context.items() if k in {"gt", "ge", "lt", "le"}]
        number = f"{limit:g}" if abs(limit) < 1e6 else f"{limit:,}"
        return f"must be {words} {number}, not {_kind(mistake.value)}"

    return say


def _short(_: Mistake) -> str:
    return "is empty; write a value or remove the key"


def _long(mistake: Mistake) -> str:
    limit = mistake.context["max_length"]
    return f"{shown(mistake.value)} is longer than {limit} character{'s' if limit > 1 else ''}; shorten it"


def _few(mistake: Mistake) -> str:
    least = mistake.context["min_length"]
    return f"needs at least {least} {'entry' if least == 1 else 'entries'}; add one"


def _form(mistake: Mistake) -> str:
    value, pattern = mistake.value, mistake.context["pattern"]
    if pattern == NAME_PATTERN:
        return _bad_name(str(value))
    if "[A-Z]{2}" in pattern:
        return f"{shown(value)} is not a two-letter country code in capitals; write one such as GB"
    return f"{shown(value)} is not of the form {pattern}; mend it"


def _bad_key(mistake: Mistake) -> str:
    key = mistake.loc[-2]
    return _bad_name(str(key))


def _bad_name(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip("_")
    fix = f"; write `{slug[:63]}`" if re.fullmatch(NAME_PATTERN, slug[:63]) else ""
    return f"{shown(name)} is not a name of lower-case letters, digits and _ that starts with a letter{fix}"


def _own_words(mistake: Mistake) -> str:
    return mistake.message.removeprefix("Value error, ")


MESSAGES: dict[str, Callable[[Mistake], str]] = {
    "missing": _missing, "extra_forbidden": _unknown_key, "literal_error": _choice, "bad_key": _bad_key,
    "string_type": _text, "string_too_short": _short, "string_too_long": _long,
    "string_pattern_mismatch": _form, "too_short": _few,
    "bool_type": _truth, "bool_parsing": _truth,
    "int_type": _whole, "int_parsing": _whole, "int_from_float": _whole, "int_parsing_size": _whole,
    "float_type": _number, "float_parsing": _number, "finite_number": _number,
    "list_type": _list, "dict_type": _group, "model_type": _group, "model_attributes_type": _group,
    "greater_than": _limit("more than"), "greater_than_equal": _limit("at least"),
    "less_than": _limit("less than"), "less_than_equal": _limit("at most"),
    "value_error": _own_words,
}  # fmt: skip
