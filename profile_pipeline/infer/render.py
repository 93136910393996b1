"""A plan as YAML, in the style of the demo's rule files; questions are comment lines that `check` refuses."""

import json
import re
import textwrap
from pathlib import Path

from profile_pipeline.check.questions import MARK
from profile_pipeline.infer import vocabulary
from profile_pipeline.infer.draft import OPEN, Field, Plan

WIDTH = 110
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.*/ -]*[A-Za-z0-9_.*]|[A-Za-z_]|<[a-z]+>")
SPECIAL = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
DESCRIPTIONS = {
    "given_name": "First name.", "middle_name": "Middle name.", "family_name": "Last name.",
    "full_name": "Whole name where a source has it in one field.", "gender": "f, m or x.",
    "birth_date": "Date of birth, ISO; may be a year or a year and month only.",
    "email": "E-mail address, in lower case.", "phone": "Phone number, E.164.",
    "street_address": "Street, with the house number where a source has both in one field.",
    "house_number": "House number.", "city": "Town or city.", "postcode": "Postcode.",
    "region": "State, county or region.", "country": "Country, ISO 3166-1 alpha-2.",
    "national_id": "National identity number.",
}  # fmt: skip
NAMESPACES = {
    "crm_id": "{kind: person, priority: 10, description: Customer number.}",
    "loyalty_card": "{kind: person, priority: 20, description: Loyalty card number.}",
    "account_id": "{kind: person, priority: 30, description: Account or login.}",
    "email": '{kind: person, type: email, priority: 40, link: false, description: "Shared in families: evidence."}',
    "phone": '{kind: person, type: phone, priority: 50, link: false, description: "Shared in households: evidence."}',
    "card_token": "{kind: person, priority: 60, link: false, description: Payment card; couples share one.}",
    "device": "{kind: device, description: App installation.}",
    "cookie": "{kind: cookie, description: Browser.}",
}


def scalar(text: str) -> str:
    """A text as a YAML scalar, plain when that is safe anywhere."""
    if PLAIN.fullmatch(text) and text.lower() not in SPECIAL and "  " not in text:
        return text
    if '"' in text and "'" not in text:
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False)


def flow(values: list[str]) -> str:
    """A list of texts in one line."""
    return f"[{', '.join(map(scalar, values))}]"


def file_pattern(files: list[Path]) -> str:
    """A pattern for this and later deliveries: what the names share before their first date or number."""
    names = [path.name for path in files]
    start = names[0]
    while not all(name.startswith(start) for name in names):
        start = start[:-1]
    if len(set(names)) == 1:
        start = start.split(".")[0]
    start = re.split(r"(?<=[A-Za-z])[ _.-]*\d{4}|[ _.-]\d", start)[0].rstrip(" _.-")
    separator = next(
        (name[len(start)] for name in names if name[len(start) : len(start) + 1] in {"_", "-"}), ""
    )
    suffix = re.search(r"(\.[A-Za-z]+)(\.gz|\.zst|\.zstd)?$", names[0])
    packed = any(name.endswith((".gz", ".zst", ".zstd")) for name in names)
    ending = (suffix[1] if suffix else "") + ("*" if packed else "")
    escaped = re.sub(r"([\[?*])", r"[\1]", start)
    return f"{escaped}{separator}*{ending}" if start.strip("0123456789") else f"[0-9]*{ending}"


def source_lines(plan: Plan) -> list[str]:
    """The source as lines below `sources:`, indented by two."""
    lines = [f"  {plan.name}:", f"    description: {scalar(_description(plan))}"]
    lines += [f"    # {note}" for note in plan.notes]
    lines += [
        f"    kind: {plan.kind}",
        f"    files: {scalar(file_pattern(plan.feed.files))}",
        f"    format: {_format(plan)}",
    ]
    lines += _wrapped("columns", plan.feed.columns)
    lines += _wrapped("optional_columns", plan.feed.optional) if plan.feed.optional else []
    lines += [f"    where: {scalar(plan.where)}"] if plan.where else []
    lines += [f"    key: {scalar(plan.key)}"] if plan.key else []
    lines += [f"    write: {plan.write}"] if plan.key else []
    if plan.delete_hint:
        lines.append(f"    # delete_when: {plan.delete_hint} # if such a row means that the record is gone")
    lines += (
        [f"    clear_value: {scalar(plan.clear_value)} # this text in a field clears it"]
        if plan.clear_value
        else []
    )
    return [*lines, *_time_lines(plan), *_date_lines(plan), *_event_lines(plan), *_mapping_lines(plan)]


def _description(plan: Plan) -> str:
    what = "Events" if plan.kind == "event" else "Records"
    return f"{what} in {file_pattern(plan.feed.files)}{f', where {plan.where}' if plan.where else ''}."


def _format(plan: Plan) -> str:
    rule = plan.feed.format
    parts = [f"type: {rule.type}"]
    parts += [f"delimiter: {json.dumps(rule.delimiter)}"] if rule.delimiter != "," else []
    parts += [f"quote: {json.dumps(rule.quote)}"] if rule.quote != '"' else []
    parts += [f"encoding: {rule.encoding}"] if rule.encoding != "utf-8" else []
    parts += ["header: false"] if not rule.header else []
    return "{" + ", ".join(parts) + "}"


def _wrapped(key: str, values: list[str]) -> list[str]:
    text = f"{key}: {flow(values)}"
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="    ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _asked(plan: Plan, key: str) -> list[str]:
    return [
        f"    {MARK}sources.{plan.name}.{question.key}: {question.text}"
        for question in plan.questions
        if question.key == key
    ]


def _time_lines(plan: Plan) -> list[str]:
    reading = plan.time.dates if plan.time else None
    if not plan.time or not reading:
        return []
    formats = [*reading.formats, *([OPEN] if reading.day_first else [])]
    lines = [*_asked(plan, "time.formats"), *_asked(plan, "time.zone"), "    time:"]
    lines.append(f"      value: {scalar(plan.time.evidence.leaf.expression)}")
    lines += [f"      formats: {flow(formats)}"] if formats != ["iso"] else []
    lines += [f'      zone: "{OPEN}"'] if _asked(plan, "time.zone") else []
    return lines


def _date_lines(plan: Plan) -> list[str]:
    dates = [] if plan.dates in ([], ["iso"]) else [f"    dates: {flow(plan.dates)}"]
    country = [f"    country: {plan.country}"] if plan.country else []
    return [*_asked(plan, "dates"), *dates, *_asked(plan, "country"), *country]


def _event_lines(plan: Plan) -> list[str]:
    if not plan.event_id:
        return []
    lines = [
        "    event:",
        f"      id: {scalar(plan.event_id)}",
        f"      type: {scalar(plan.event_type or '')}",
    ]
    return [*lines, *([f"      channel: {scalar(plan.channel)}"] if plan.channel else [])]


def _mapping_lines(plan: Plan) -> list[str]:
    lines = ["    attributes:"] if plan.fields else []
    for each in plan.fields:
        lines += _asked(plan, f"attributes.{each.attribute}")
        lines.append(f"      {each.attribute}: {scalar(each.expression)}")
    if plan.identifiers:
        lines.append("    identifiers:")
        lines += [f"      {space}: {scalar(text)}" for space, text in plan.identifiers.items()]
    return lines


def attribute_lines(fields: list[Field]) -> dict[str, str]:
    """Attribute name to its declaration in one line."""
    return {each.attribute: f"  {each.attribute}: {_declaration(each)}" for each in fields}


def _declaration(each: Field) -> str:
    words = " ".join(vocabulary.words(each.meaning.name.rpartition(".")[2]))
    known = DESCRIPTIONS.get(each.attribute)
    parts = [
        f"type: {each.type}",
        f"description: {json.dumps(known or f'{words.capitalize()}.', ensure_ascii=False)}",
    ]
    parts += [f"match: {str(each.matched).lower()}"] if each.matched is not None else []
    return "{" + ", ".join(parts) + "}"


def namespace_lines(plan: Plan) -> dict[str, str]:
    """Namespace name to its declaration in one line."""
    return {space: f"  {space}: {NAMESPACES[space]}" for space in plan.identifiers}
