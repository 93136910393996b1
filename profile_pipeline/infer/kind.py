"""Records or events, by which key, at which time."""

from profile_pipeline.infer import vocabulary
from profile_pipeline.infer.draft import WHO, Plan
from profile_pipeline.infer.evidence import sql_name
from profile_pipeline.infer.files import Feed
from profile_pipeline.infer.meaning import Meaning
from profile_pipeline.warehouse import literal

UNIQUE = 0.97
REPEATS = 1.25


def decide_kind(plan: Plan, used: list[Meaning]) -> None:
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
