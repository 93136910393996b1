"""Which columns become fields, under which names, and how their dates and numbers are read."""

from dataclasses import replace

from profile_pipeline.config.cross_check import PROFILE_COLUMNS, RECORD_COLUMNS, RESERVED_WORDS
from profile_pipeline.infer import vocabulary
from profile_pipeline.infer.dates import DateReading, swapped
from profile_pipeline.infer.draft import OPEN, WHO, Field, Plan, Question
from profile_pipeline.infer.meaning import Meaning
from profile_pipeline.warehouse import literal

ONCE = {"street_address", "full_name", "postcode", "city", "house_number", "country", "region", "gender"}


def decide_fields(plan: Plan, used: list[Meaning]) -> None:
    """Attributes: for records whatever describes the person, for events only who it was."""
    taken = {plan.key, plan.event_id, plan.event_type, plan.channel}
    taken.add(plan.time.evidence.leaf.expression if plan.time else None)
    who = {m.type for m in used} & WHO
    if plan.kind == "event" and len(who) < 2:
        return
    for m in sorted(used, key=preference):
        if m.type and m.evidence.leaf.expression not in taken and _describes(plan, m):
            plan.fields.append(_field(plan, m))
    plan.fields.sort(key=lambda f: used.index(f.meaning))


def preference(m: Meaning) -> tuple[bool, float, float]:
    """Order of columns that mean the same: mobile numbers first, then the surest, then the best filled."""
    mobile = vocabulary.says(m.name, "mobile mobil cell handy movil celular portable gsm")
    return (not mobile, -m.confidence, -m.evidence.fill)


def _describes(plan: Plan, m: Meaning) -> bool:
    """Whether a column is worth a field: not an identifier alone, not technical, not the same in every row."""
    if m.namespace and m.type == "id":
        return False
    if m.type in vocabulary.FIELD_NAMES:
        return plan.kind == "record" or m.type != "consent"
    if plan.kind == "event" or vocabulary.says(
        m.name, "status deleted active state" if m.type == "category" else ""
    ):
        return False
    return m.matched or m.evidence.distinct > 1


def _field(plan: Plan, m: Meaning) -> Field:
    kind = m.type or "text"
    primary = (
        kind in vocabulary.FIELD_NAMES and kind != "consent" and all(f.attribute != kind for f in plan.fields)
    )
    attribute = kind if primary else _attribute_name(plan, m)
    if kind == "birth_date" and not primary and m.evidence.longest == 4:
        kind = "integer"  # the year of a date that is there as a whole
    matched: bool | None = True if m.matched else None
    if not primary and kind in ONCE:
        matched = False
    expression = m.evidence.leaf.expression
    if kind == "number":
        expression = _number(plan, m, attribute)
    return Field(attribute, kind, expression, m, matched)


def _attribute_name(plan: Plan, m: Meaning) -> str:
    name = vocabulary.slug(m.name.rpartition(".")[2])
    others = {f.attribute for f in plan.fields} | PROFILE_COLUMNS | RECORD_COLUMNS | RESERVED_WORDS
    if name in others or (name in vocabulary.FIELD_NAMES and name != "consent"):
        name = f"{plan.name}_{name}"[:60]
    return name


def _number(plan: Plan, m: Meaning, attribute: str) -> str:
    """Numbers as the normaliser reads them: no separators of thousands, either decimal sign."""
    found, text = m.evidence, m.evidence.leaf.expression
    if found.share("thousands_point") or (found.share("decimal_comma") and not found.share("decimal_point")):
        return f"replace({text}, '.', '')" if found.share("thousands_point") else text
    if found.share("thousands_comma") or (found.share("either_comma") and found.share("decimal_point")):
        return f"replace({text}, ',', '')"
    if found.share("either_comma"):
        plan.questions.append(
            Question(
                f"attributes.{attribute}",
                f"{m.name}: its commas stand before three digits, so they part thousands or are decimal signs;"
                f" keep `{text}` for decimals, or write `replace({text}, ',', '')` for thousands.",
                (text, f"replace({text}, ',', '')"),
            )
        )
    return text


def decide_dates(plan: Plan) -> None:
    """The date formats of the attributes; a column that contradicts the others is converted by itself."""
    for position, each in enumerate(plan.fields):
        reading = each.meaning.dates
        if each.type not in {"birth_date", "date", "timestamp"} or not reading:
            continue
        if reading.day_first:
            ask_order(plan, "dates", each.meaning, reading)
            plan.dates.append(OPEN)
        clash = [f for f in reading.formats if _contradicts(f, plan.dates)]
        if clash:
            own = ", ".join(literal("%Y-%m-%d" if f == "iso" else f) for f in reading.formats)
            text = f"strftime(try_strptime({each.expression}, [{own}]), '%Y-%m-%d')"
            plan.fields[position] = replace(each, expression=text)
        plan.dates += ["iso"] if clash else reading.formats
        if reading.short_years:
            plan.notes.append(
                f"{each.meaning.name}: years of two digits; 69 to 99 are read as 19.., others as 20.."
            )
    plan.dates = list(dict.fromkeys(plan.dates))


def _contradicts(pattern: str, others: list[str]) -> bool:
    return swapped(pattern) != pattern and swapped(pattern) in others


def ask_order(plan: Plan, key: str, m: Meaning, reading: DateReading) -> None:
    """Add the question whether day or month comes first in a column."""
    first, second = (
        ", ".join(f'"{each}"' for each in formats)
        for formats in (reading.day_first, [swapped(each) for each in reading.day_first])
    )
    text = (
        f"{m.name}: no value tells day from month, 03/04/2025 could be 3 April or March 4;"
        f' replace "?" in `{key.rpartition(".")[2]}:` by {first} (day first) or {second} (month first).'
    )
    plan.questions.append(Question(key, text, (first, second)))
