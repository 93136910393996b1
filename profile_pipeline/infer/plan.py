"""What a feed is: records or events, by which key, at which time, about whom; and what has to be asked."""

from dataclasses import replace

from duckdb import DuckDBPyConnection

from profile_pipeline.infer import vocabulary
from profile_pipeline.infer.country import guess_country, zones_of
from profile_pipeline.infer.draft import WHO, Plan, Question
from profile_pipeline.infer.fields import ask_order, decide_dates, decide_fields, preference
from profile_pipeline.infer.files import Feed
from profile_pipeline.infer.kind import decide_kind
from profile_pipeline.infer.meaning import Meaning
from profile_pipeline.warehouse import literal, rows, scalar

CLEAR_WORDS = ("<clear>", "<null>", "<empty>", "[clear]", "(cleared)", "#clear", "\\N")
DELETE_WORDS = ("deleted", "removed", "gelöscht", "geloescht", "supprimé", "eliminado")
PERSON_SPACES = ("crm_id", "account_id", "loyalty_card", "email", "phone", "card_token", "device", "cookie")


def plan_source(
    con: DuckDBPyConnection, name: str, feed: Feed, meanings: list[Meaning], where: str | None
) -> Plan:
    """Decide what the rows in `sampled` are; the table holds the rows of this source only."""
    used = [m for m in meanings if m.evidence.filled and m.name != "source"]
    plan = Plan(name, feed, meanings, where)
    decide_kind(plan, used)
    _decide_identifiers(plan, used)
    _identify_by_key(plan, used)
    decide_fields(plan, used)
    _decide_person_key(plan)
    decide_dates(plan)
    _decide_country(con, plan, used)
    _decide_time_zone(plan)
    _look_for_words(con, plan, used)
    return plan


def _decide_identifiers(plan: Plan, used: list[Meaning]) -> None:
    """One column a namespace: the surest, a mobile number before others."""
    ranked = sorted(used, key=preference)
    for space in PERSON_SPACES:
        found = next((m for m in ranked if m.namespace == space), None)
        if found:
            plan.identifiers[space] = found.evidence.leaf.expression


def _identify_by_key(plan: Plan, used: list[Meaning]) -> None:
    """What names the records of people names people to other sources, too, if these know it: by name, else it is said."""
    key = next((m for m in used if m.evidence.leaf.expression == plan.key), None)
    people = any(m.type in WHO or m.type in {"email", "phone"} for m in used)
    if plan.kind != "record" or key is None or key.namespace or not people:
        return
    space = vocabulary.namespace_in(plan.name, key.name)
    if space is None or space in plan.identifiers:
        plan.notes.append(
            f"{key.name} names the records, but is no identifier; if other sources carry it,"
            " add it under `identifiers:` of each"
        )
        return
    plan.identifiers = {space: key.evidence.leaf.expression, **plan.identifiers}
    reason = f"its name means {space}, in {plan.name}"
    position = plan.meanings.index(key)
    plan.meanings[position] = replace(key, type="id", namespace=space, reason=reason)


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
        ask_order(plan, "time.formats", plan.time, reading)
    if reading.has_time and reading.without_offset:
        choices = ("UTC", *zones_of(plan.country))
        text = (
            f'{plan.time.name}: times without an offset; replace "?" in `zone:` by the zone of that clock,'
            f" for example {' or '.join(choices)}."
        )
        plan.questions.append(Question("time.zone", text, choices))


def _look_for_words(con: DuckDBPyConnection, plan: Plan, used: list[Meaning]) -> None:
    """Words with a meaning for the whole record: cleared fields, deleted rows; and deliveries of changed fields."""
    columns = [f"c{each.meaning.evidence.index}" for each in plan.fields]
    if columns:
        values = f"select unnest([{', '.join(columns)}]) as word from sampled"
        plan.clear_value = scalar(
            con, f"select min(word) from ({values}) where word in ({_listed(CLEAR_WORDS)})"
        )
    for m in used:
        if plan.kind == "record" and m.type == "category" and m.evidence.distinct <= 20:
            c = f"c{m.evidence.index}"
            word = scalar(con, f"select min({c}) from sampled where lower({c}) in ({_listed(DELETE_WORDS)})")
            plan.delete_hint = f"{m.evidence.leaf.expression} = {literal(word)}" if word else plan.delete_hint
    if plan.kind == "record" and len(plan.feed.files) > 1 and _later_files_are_sparse(con, columns):
        plan.write = "patch"
        plan.notes.append("later deliveries are mostly empty: `write: patch` keeps what they do not mention")


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(map(literal, words))


def _later_files_are_sparse(con: DuckDBPyConnection, columns: list[str]) -> bool:
    if not columns:
        return False
    filled = " + ".join(f"({column} is not null)::int" for column in columns)
    shares = rows(con, f"select _file, avg({filled}) from sampled group by 1 order by 1")
    return len(shares) > 1 and max(share for _, share in shares[1:]) < 0.6 * shares[0][1]
