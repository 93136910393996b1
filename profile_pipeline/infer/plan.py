"""What a feed is: records or events, by which key, at which time, about whom; and what has to be asked."""

from dataclasses import dataclass, field, replace

from duckdb import DuckDBPyConnection

from profile_pipeline.config.cross_check import PROFILE_COLUMNS, RECORD_COLUMNS, RESERVED_WORDS
from profile_pipeline.config.sources import SemanticType
from profile_pipeline.infer import vocabulary
from profile_pipeline.infer.country import guess_country, zones_of
from profile_pipeline.infer.dates import DateReading, swapped
from profile_pipeline.infer.evidence import Leaf, clean_query, sql_name
from profile_pipeline.infer.files import Feed
from profile_pipeline.infer.meaning import Meaning
from profile_pipeline.warehouse import literal, rows, scalar

UNIQUE = 0.97
REPEATS = 1.25
OPEN = "?"
WHO: set[SemanticType] = {
    "given_name",
    "family_name",
    "full_name",
    "birth_date",
    "street_address",
    "postcode",
}
ONCE = {"street_address", "full_name", "postcode", "city", "house_number", "country", "region", "gender"}
CLEAR_WORDS = ("<clear>", "<null>", "<empty>", "[clear]", "(cleared)", "#clear", "\\N")
DELETE_WORDS = ("deleted", "removed", "gelöscht", "geloescht", "supprimé", "eliminado")
PERSON_SPACES = ("crm_id", "account_id", "loyalty_card", "email", "phone", "card_token", "device", "cookie")


@dataclass(frozen=True)
class Question:
    """Something only a person can know. `key` is the key below the source that holds `?` until it is answered."""

    key: str
    text: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Field:
    """An attribute that the source fills."""

    attribute: str
    type: SemanticType
    expression: str
    meaning: Meaning
    matched: bool | None = None


@dataclass
class Plan:
    """Everything the YAML of one source says."""

    name: str
    feed: Feed
    meanings: list[Meaning]
    where: str | None = None
    kind: str = "record"
    key: str | None = None
    time: Meaning | None = None
    event_id: str | None = None
    event_type: str | None = None
    channel: str | None = None
    write: str = "replace"
    country: str = ""
    clear_value: str | None = None
    delete_hint: str | None = None
    dates: list[str] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    identifiers: dict[str, str] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_source(
    con: DuckDBPyConnection, name: str, feed: Feed, meanings: list[Meaning], where: str | None
) -> Plan:
    """Decide what the rows in `sampled` are; the table holds the rows of this source only."""
    used = [m for m in meanings if m.evidence.filled and m.name != "source"]
    plan = Plan(name, feed, meanings, where)
    _decide_kind(plan, used)
    _decide_identifiers(plan, used)
    _decide_fields(plan, used)
    _decide_person_key(plan)
    _decide_dates(plan)
    _decide_country(con, plan, used)
    _decide_time_zone(plan)
    _look_for_words(con, plan, used)
    return plan


def _unique(used: list[Meaning]) -> list[Meaning]:
    """Columns that name one row each, the best first: filled, different in every row of a file, id-like."""
    good = [
        m
        for m in used
        if m.evidence.uniqueness >= UNIQUE
        and m.evidence.fill >= UNIQUE
        and m.evidence.longest <= 100
        and m.type in {"id", "integer", "text", None}
        and m.dates is None
    ]
    return sorted(good, key=lambda m: (-_key_rank(m), used.index(m)))


def _has_id_name(m: Meaning) -> bool:
    return vocabulary.says(m.name, vocabulary.ID_WORDS)


def _key_rank(m: Meaning) -> float:
    return (
        2 * vocabulary.names_event(m.name)
        + 2 * bool(m.namespace)
        + _has_id_name(m)
        + m.evidence.share("code")
    )


def _decide_kind(plan: Plan, used: list[Meaning]) -> None:
    """An event has an id and a time, and the people in it come again; anything else is a record."""
    unique = _unique(used)
    stamps = [m for m in used if m.dates and m.evidence.fill >= UNIQUE and m.type in {"date", "timestamp"}]
    again = any(m.namespace and m.evidence.repeats >= REPEATS for m in used if m not in unique[:1])
    again = again and len({m.type for m in used} & WHO) < 3  # a state of a person names the person
    is_event = bool(unique and stamps) and (vocabulary.names_event(unique[0].name) or again)
    if unique and unique[0].namespace in {"crm_id", "loyalty_card", "account_id"}:
        is_event = False
    plan.time = _time(used, stamps, is_event=is_event)
    if is_event:
        plan.kind = "event"
        plan.event_id = unique[0].evidence.leaf.expression
        _decide_event(plan, used)
    elif unique:
        plan.key = unique[0].evidence.leaf.expression
    else:
        _without_key(plan, used, stamps)


def _without_key(plan: Plan, used: list[Meaning], stamps: list[Meaning]) -> None:
    """No column names a row: states of a known person over time, events, or at worst rows by content."""
    content = f"md5(concat_ws('|', {', '.join(_columns(plan.feed))}))"
    people = [
        m
        for m in used
        if m.namespace in {"crm_id", "account_id", "loyalty_card"} and m.evidence.fill >= UNIQUE
    ]
    if people and plan.time:
        plan.key = people[0].evidence.leaf.expression
        plan.notes.append(f"{people[0].name} repeats inside a delivery: its newest row counts")
    elif stamps and any(m.namespace for m in used) and len({m.type for m in used} & WHO) < 3:
        plan.kind, plan.event_id = "event", content
        plan.time = _time(used, stamps, is_event=True)
        plan.notes.append("no column names an event: its whole content does, so equal rows are one event")
        _decide_event(plan, used)
    else:
        plan.key = content
        plan.notes.append(
            "no column names a record: its whole content does, so a changed row is a new record"
        )


def _columns(feed: Feed) -> list[str]:
    return [sql_name(column) for column in feed.columns]


def _time(used: list[Meaning], stamps: list[Meaning], *, is_event: bool) -> Meaning | None:
    """The column that says when: for records when the state held, for events when it happened."""
    if is_event:
        named = [m for m in stamps if vocabulary.says(m.name, vocabulary.HAPPENED_WORDS)]
        timed = [m for m in stamps if m.type == "timestamp"]
        return next(iter([m for m in named if m in timed] or timed or named or stamps), None)
    dated = [m for m in used if m.dates and m.type in {"date", "timestamp"} and m.evidence.fill >= 0.9]
    compound = [m for m in dated if "".join(vocabulary.words(m.name)) in vocabulary.UPDATED_WORDS.split()]
    return next(
        iter(compound or [m for m in dated if vocabulary.says(m.name, vocabulary.UPDATED_WORDS)]), None
    )


def _decide_event(plan: Plan, used: list[Meaning]) -> None:
    few = [m for m in used if m.evidence.distinct <= 200 and m.evidence.longest <= 60]
    kinds = [m for m in few if "".join(vocabulary.words(m.name)) in vocabulary.TYPE_NAMES.split()]
    channels = [m for m in few if vocabulary.says(m.name, vocabulary.CHANNEL_NAMES)]
    plan.event_type = kinds[0].evidence.leaf.expression if kinds else literal(plan.name)
    plan.channel = channels[0].evidence.leaf.expression if channels else None


def _decide_identifiers(plan: Plan, used: list[Meaning]) -> None:
    """One column a namespace: the surest, a mobile number before others."""
    ranked = sorted(used, key=_preference)
    for space in PERSON_SPACES:
        found = next((m for m in ranked if m.namespace == space), None)
        if found:
            plan.identifiers[space] = found.evidence.leaf.expression


def _preference(m: Meaning) -> tuple[bool, float, float]:
    mobile = vocabulary.says(m.name, "mobile mobil cell handy movil celular portable gsm")
    return (not mobile, -m.confidence, -m.evidence.fill)


def _decide_fields(plan: Plan, used: list[Meaning]) -> None:
    """Attributes: for records whatever describes the person, for events only who it was."""
    taken = {plan.key, plan.event_id, plan.event_type, plan.channel}
    taken.add(plan.time.evidence.leaf.expression if plan.time else None)
    who = {m.type for m in used} & WHO
    if plan.kind == "event" and len(who) < 2:
        return
    for m in sorted(used, key=_preference):
        if m.type and m.evidence.leaf.expression not in taken and _describes(plan, m):
            plan.fields.append(_field(plan, m))
    plan.fields.sort(key=lambda f: used.index(f.meaning))


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


def _decide_person_key(plan: Plan) -> None:
    """An event that describes somebody needs a key for that somebody: the best id, else the e-mail address."""
    if plan.kind != "event" or not plan.fields:
        return
    ids = [
        plan.identifiers[space]
        for space in ("crm_id", "account_id", "loyalty_card")
        if space in plan.identifiers
    ]
    email = plan.identifiers.get("email")
    parts = [*ids[:1], *([f"lower(trim({email}))"] if email else [])]
    if not parts:
        plan.fields = []
        plan.notes.append("the events name people but nothing identifies them: their fields are left out")
        return
    plan.key = f"coalesce({', '.join(parts)})" if len(parts) > 1 else parts[0]
    plan.write = "patch"


def _decide_dates(plan: Plan) -> None:
    """The date formats of the attributes; a column that contradicts the others is converted by itself."""
    for position, each in enumerate(plan.fields):
        reading = each.meaning.dates
        if each.type not in {"birth_date", "date", "timestamp"} or not reading:
            continue
        if reading.day_first:
            _ask_order(plan, "dates", each.meaning, reading)
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


def _ask_order(plan: Plan, key: str, m: Meaning, reading: DateReading) -> None:
    first, second = (
        ", ".join(f'"{each}"' for each in formats)
        for formats in (reading.day_first, [swapped(each) for each in reading.day_first])
    )
    text = (
        f"{m.name}: no value tells day from month, 03/04/2025 could be 3 April or March 4;"
        f' replace "?" in `{key.rpartition(".")[2]}:` by {first} (day first) or {second} (month first).'
    )
    plan.questions.append(Question(key, text, (first, second)))


def _decide_country(con: DuckDBPyConnection, plan: Plan, used: list[Meaning]) -> None:
    phones = [f.meaning for f in plan.fields if f.type == "phone"] or [
        m for m in used if m.namespace == "phone"
    ]
    guess = guess_country(con, used, phones[0] if phones else None)
    plan.country = guess.country
    if guess.choices:
        listed = ", ".join(guess.choices)
        text = f"{phones[0].name}: numbers without a country code fit {listed}; write the right one as `country:`."
        plan.questions.append(Question("country", text, guess.choices))


def _decide_time_zone(plan: Plan) -> None:
    reading = plan.time.dates if plan.time else None
    if not plan.time or not reading:
        return
    if reading.day_first:
        _ask_order(plan, "time.formats", plan.time, reading)
    if reading.has_time and reading.without_offset:
        choices = ("UTC", *zones_of(plan.country))
        text = (
            f'{plan.time.name}: times without an offset; replace "?" in `zone:` by the zone of that clock,'
            f" for example {' or '.join(choices)}."
        )
        plan.questions.append(Question("time.zone", text, choices))


def _look_for_words(con: DuckDBPyConnection, plan: Plan, used: list[Meaning]) -> None:
    """Words with a meaning for the whole record: cleared fields, deleted rows; and deliveries of changed fields."""
    leaves = [f.meaning.evidence.leaf for f in plan.fields]
    for word in CLEAR_WORDS:
        same = " or ".join(f"{clean_query(leaf)} = {literal(word)}" for leaf in leaves)
        if leaves and scalar(
            con, f"select count(*) from delivered where ({plan.where or 'true'}) and ({same})"
        ):
            plan.clear_value = word
            break
    listed = ", ".join(map(literal, DELETE_WORDS))
    for m in used:
        if plan.kind == "record" and m.type == "category" and m.evidence.distinct <= 20:
            c = f"c{m.evidence.index}"
            word = scalar(con, f"select min({c}) from sampled where lower({c}) in ({listed})")
            plan.delete_hint = f"{m.evidence.leaf.expression} = {literal(word)}" if word else plan.delete_hint
    if plan.kind == "record" and _later_files_are_sparse(con, plan, leaves):
        plan.write = "patch"
        plan.notes.append("later deliveries are mostly empty: `write: patch` keeps what they do not mention")


def _later_files_are_sparse(con: DuckDBPyConnection, plan: Plan, leaves: list[Leaf]) -> bool:
    if len(plan.feed.files) < 2 or not leaves:
        return False
    filled = " + ".join(f"({clean_query(leaf)} is not null)::int" for leaf in leaves)
    where = plan.where or "true"
    shares = rows(con, f"select _file, avg({filled}) from delivered where {where} group by 1 order by 1")
    return len(shares) > 1 and max(share for _, share in shares[1:]) < 0.6 * shares[0][1]
