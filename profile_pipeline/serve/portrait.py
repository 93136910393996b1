"""Everything a profile page shows, from the published tables: values and why, records, links, life, audiences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.audiences.explain import Why, why_each
from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.profiles.reasons import Reason, reasons
from profile_pipeline.serve.likeness import likeness
from profile_pipeline.serve.masking import HIDDEN, Masks
from profile_pipeline.serve.search import name_query
from profile_pipeline.serve.shelf import Published
from profile_pipeline.warehouse import literal, records_of, rows, scalar

Row = dict[str, Any]
BOOKKEEPING = frozenset({
    "profile_id", "kind", "record_count", "sources", "identity_map", "event_count", "last_event_at",
    "first_observed_at", "last_observed_at", "flagged", "policy", "policy_version",
})  # fmt: skip
"""Columns of a profile that are not fields."""
MOST_SHARED = 10
"""Profiles named for a value that several share."""
MOST_RECORDS = 200
"""Records that are shown of a profile; the others are counted."""


class UnknownProfileError(PipelineError):
    """No profile has this id, nor had one that lives on."""


@dataclass(frozen=True)
class Portrait:
    """A profile under one merge policy with all that explains it; sensitive values are hidden already.

    `values` are the fields, `facts` what is counted about them, `reasons` why each shows what it shows, `others` its
    values by other policy. `records` have their own values by field in `said`. `shared` are values that other profiles
    have too. `audiences` is None where its rules and this generation do not fit together.
    """

    profile_id: str
    name: str
    policy: str
    facts: Row
    values: Row
    reasons: tuple[Reason, ...]
    others: dict[str, Row]
    identifiers: list[Row]
    computed: Row
    records: list[Row]
    links: list[Row]
    history: list[Row]
    redirected: list[str]
    shared: list[Row]
    audiences: list[Why] | None
    stays: list[Row]
    hidden: list[str]


def profile_table(config: Config, policy: str) -> str:
    """The published table of a policy."""
    if policy not in config.profiles.policies:
        known = ", ".join(config.profiles.policies)
        raise PipelineError(f"no merge policy of this name; there are: {known}")
    return "profiles" if policy == config.profiles.default else f"profiles_{policy}"


def successor(con: DuckDBPyConnection, profile_id: str) -> str | None:
    """The living id that a retired one leads to."""
    return scalar(con, "select successor from profile_redirects where profile_id = ?", [profile_id])


def portrait(published: Published, profile_id: str, policy: str | None, masks: Masks) -> Portrait:
    """Gather a profile. Raises UnknownProfileError for an id that no living profile has."""
    config = published.config
    policy = policy or config.profiles.default
    with published.read() as con:
        table = profile_table(config, policy)
        found = records_of(
            con, f"select *, {name_query(config)} as called from {table} where profile_id = ?", [profile_id]
        )
        if not found:
            raise UnknownProfileError("no profile has this id")
        [profile] = found
        links = _links(con, profile_id, masks)
        records = _records(con, profile_id, links, masks)
        _say_likeness(config, links, records)
        return Portrait(
            profile_id,
            profile.pop("called") or "",
            policy,
            {name: profile[name] for name in BOOKKEEPING & profile.keys()},
            _fields(profile, masks),
            _reasons(con, profile_id, policy, masks),
            _others(con, config, profile_id, policy, masks),
            _identifiers(con, profile, masks),
            _computed(con, profile_id),
            records,
            links,
            _history(con, profile_id),
            _redirected(con, profile_id),
            _shared(con, config, profile_id, masks),
            _audiences(published, profile_id, masks),
            _stays(con, profile_id),
            sorted(name for name in masks.fields | masks.namespaces if masks.hides(name)),
        )


# ---------------------------------------------------------------- values


def _fields(profile: Row, masks: Masks) -> Row:
    """The parts of a struct are fields; the struct itself would say them again."""
    left_out = BOOKKEEPING | masks.config.structs.keys()
    return {name: masks.value(name, value) for name, value in profile.items() if name not in left_out}


def _reasons(con: DuckDBPyConnection, profile_id: str, policy: str, masks: Masks) -> tuple[Reason, ...]:
    found = reasons(con, profile_id, policy, "main.profile_lineage", "main.profile_pins")
    place = {name: number for number, name in enumerate(masks.config.attributes)}
    ordered = sorted(found, key=lambda reason: (place.get(reason.field, len(place)), reason.field))
    return tuple(_masked(reason, masks) for reason in ordered)


def _masked(reason: Reason, masks: Masks) -> Reason:
    def hidden(offer: Any) -> Row:  # noqa: ANN401  a reason or one of its offers
        return {"value": masks.value(reason.field, offer.value), "record_key": masks.key(offer.record_key)}

    return replace(reason, **hidden(reason), beaten=tuple(replace(o, **hidden(o)) for o in reason.beaten))


def _others(
    con: DuckDBPyConnection, config: Config, profile_id: str, policy: str, masks: Masks
) -> dict[str, Row]:
    """Values by policy, the one that is shown first."""
    found = {}
    for name in [policy, *(other for other in config.profiles.policies if other != policy)]:
        for row in records_of(
            con, f"select * from {profile_table(config, name)} where profile_id = ?", [profile_id]
        ):
            found[name] = _fields(row, masks)
    return found


def _identifiers(con: DuckDBPyConnection, profile: Row, masks: Masks) -> list[Row]:
    """Identifiers with their spellings; looked up by value, the order of their table."""
    held = sorted({value for values in (profile["identity_map"] or {}).values() for value in values})
    # as a plain list, for which whole blocks of the table are left out
    listed = ", ".join("?" for _ in held) or "null"
    found = records_of(
        con,
        f"""select namespace, value, kind, raw_values, sources, record_count, first_observed_at, last_observed_at, generic
        from profile_identifiers where value in ({listed}) and profile_id = ? order by namespace, value""",
        [*held, profile["profile_id"]],
    )
    return [_hidden_spellings(row, masks) for row in found]


def _hidden_spellings(row: Row, masks: Masks) -> Row:
    spellings = [masks.value(row["namespace"], spelling) for spelling in row["raw_values"] or []]
    return {
        **row,
        "value": masks.value(row["namespace"], row["value"]),
        "raw_values": list(dict.fromkeys(spellings)),
    }


def _computed(con: DuckDBPyConnection, profile_id: str) -> Row:
    found = records_of(con, "select * from computed_attributes where profile_id = ?", [profile_id])
    return {name: value for row in found for name, value in row.items() if name != "profile_id"}


# ---------------------------------------------------------------- records and links


def _links(con: DuckDBPyConnection, profile_id: str, masks: Masks) -> list[Row]:
    """Links that hold it together: decisions and shared identifiers first, then scores."""
    found = records_of(
        con,
        """select left_key, right_key, type, namespace, match_weight, match_probability, evidence
        from links where profile_id = ?
        order by list_position(['decision', 'deterministic', 'probabilistic', 'attached'], type),
            match_weight desc nulls last, left_key, right_key, namespace""",
        [profile_id],
    )
    return [
        {**row, "left_key": masks.key(row["left_key"]), "right_key": masks.key(row["right_key"])}
        for row in found
    ]


def _records(con: DuckDBPyConnection, profile_id: str, links: list[Row], masks: Masks) -> list[Row]:
    """Source records with what each says, then identities known from events, which only links name."""
    own = records_of(
        con,
        """select record_key, source, source_key, observed_at, clock, ingested_at, batch, file, line
        from source_records where profile_id = ? order by observed_at desc nulls last, record_key limit ?""",
        [profile_id, MOST_RECORDS],
    )
    said = said_of(con, profile_id, masks)
    for row in own:
        shown = masks.key(row["record_key"])
        row["said"] = said.get(shown, {})
        if shown != row["record_key"]:
            row |= {"record_key": shown, "source_key": HIDDEN}
    known = {row["record_key"] for row in own}
    ends = {link[side] for link in links for side in ("left_key", "right_key")}
    events = sorted(key for key in ends - known if key.startswith("event:"))
    return own + [{"record_key": key, "source": "event", "said": _event_said(key)} for key in events]


def _say_likeness(config: Config, links: list[Row], records: list[Row]) -> None:
    """Add to each link in which fields its ends agree; nothing is told of hidden fields."""
    said = {row["record_key"]: row["said"] for row in records}
    order = list(config.attributes)
    for link in links:
        ends = (said.get(link[side], {}) for side in ("left_key", "right_key"))
        left, right = ({k: v for k, v in end.items() if v != HIDDEN} for end in ends)
        link["said"] = likeness(left, right, order)


def _event_said(key: str) -> Row:
    namespace, _, value = key.removeprefix("event:").partition("=")
    return {namespace: value}


def said_of(con: DuckDBPyConnection, profile_id: str, masks: Masks) -> dict[str, Row]:
    """What each record of a profile offered, by field; under whichever policy took note of it."""
    found: dict[str, Row] = {}
    for key, field, value in rows(
        con,
        """select record_key, field, any_value(value order by policy) from profile_lineage
        where profile_id = ? and not starts_with(record_key, 'steward:') group by all order by all""",
        [profile_id],
    ):
        found.setdefault(masks.key(key), {})[field] = masks.value(field, value)
    return found


# ---------------------------------------------------------------- life, company


def _history(con: DuckDBPyConnection, profile_id: str) -> list[Row]:
    """What happened to the id, newest first."""
    return records_of(
        con,
        """select as_of, revision, profile_id, event, other_profile_id, record_count, cause from profile_history
        where profile_id = ? or other_profile_id = ? order by revision desc, profile_id, event, other_profile_id""",
        [profile_id, profile_id],
    )


def _redirected(con: DuckDBPyConnection, profile_id: str) -> list[str]:
    """Retired ids that lead here."""
    query = "select profile_id from profile_redirects where successor = ? order by profile_id"
    return [retired for (retired,) in rows(con, query, [profile_id])]


def _shared(con: DuckDBPyConnection, config: Config, profile_id: str, masks: Masks) -> list[Row]:
    """Values that other profiles have too, with the first of those by name."""
    own = records_of(
        con,
        """select relationship_id, kind, namespace, value, profile_count, since
        from profile_relationships where profile_id = ? order by kind, namespace, value""",
        [profile_id],
    )
    with_whom = _with_whom(con, config, profile_id, [row["relationship_id"] for row in own])
    for row in own:
        row["others"] = with_whom.get(row["relationship_id"], [])
        row["value"] = masks.value(row["namespace"], row["value"])
    return own


def _with_whom(
    con: DuckDBPyConnection, config: Config, profile_id: str, ids: Sequence[str]
) -> dict[str, list[tuple[str, str]]]:
    if not ids:
        return {}
    found: dict[str, list[tuple[str, str]]] = {}
    for relationship, other, name in rows(
        con,
        f"""select r.relationship_id, r.profile_id, {name_query(config)} as name
        from profile_relationships r join profiles p using (profile_id)
        where relationship_id in ({", ".join(map(literal, ids))}) and r.profile_id <> ?
        qualify row_number() over (partition by relationship_id order by r.profile_id) <= {MOST_SHARED}
        order by all""",
        [profile_id],
    ):
        found.setdefault(relationship, []).append((other, name or ""))
    return found


# ---------------------------------------------------------------- audiences


def _audiences(published: Published, profile_id: str, masks: Masks) -> list[Why] | None:
    """Each audience with its conditions, by the rules of now over what is published; None where they do not fit."""
    names = list(published.config.audiences.audiences)
    if not names:
        return []
    try:
        with published.as_warehouse() as con:
            found = why_each(con, published.config, names, profile_id)
    except (PipelineError, duckdb.Error):
        return None
    return [
        replace(
            why,
            parts=tuple(replace(part, seen=masks.condition(part.condition, part.seen)) for part in why.parts),
        )
        for why in found
    ]


def _stays(con: DuckDBPyConnection, profile_id: str) -> list[Row]:
    return records_of(
        con,
        """select audience, entered_at, exited_at, entry_reason, exit_reason, exit_detail from audience_membership
        where profile_id = ? order by exited_at is not null, entered_at desc, audience""",
        [profile_id],
    )


# ---------------------------------------------------------------- timeline

PAGE = 25
"""Events on a page of the timeline."""
_BEFORE = "and (occurred_at < ?::timestamptz or (occurred_at = ?::timestamptz and event_key < ?))"


def timeline(published: Published, profile_id: str, before: str, masks: Masks) -> tuple[list[Row], str]:
    """A page of events, newest first, and where the next page begins (empty: this is the last).

    `before` is `<time>,<event key>` of the last event of the page before.
    """
    at, _, key = before.partition(",")
    where, values = ("", []) if not at else (_BEFORE, [at, at, key])
    with published.read() as con:
        try:
            found = records_of(
                con,
                f"""select event_key, event_type, source, channel, occurred_at, zone, attribution, deliveries, identifiers,
                payload from profile_events where profile_id = ? {where}
                order by occurred_at desc, event_key desc limit {PAGE + 1}""",
                [profile_id, *values],
            )
        except duckdb.ConversionException:
            raise PipelineError("no page of the timeline begins there") from None
    more = (
        f"{found[PAGE - 1]['occurred_at'].isoformat()},{found[PAGE - 1]['event_key']}" if found[PAGE:] else ""
    )
    return [_event(row, masks) for row in found[:PAGE]], more


def _event(row: Row, masks: Masks) -> Row:
    named = [
        {"namespace": i["namespace"], "value": masks.value(i["namespace"], i["value"])}
        for i in row["identifiers"] or []
    ]
    return {**row, "identifiers": named, "payload": masks.payload(row["source"], row["payload"])}


def fields_said(records: list[Row], order: Sequence[str]) -> list[str]:
    """Fields that any record says something of, in the order of the profile."""
    said = {field for row in records for field in row["said"]}
    return [*(f for f in order if f in said), *sorted(said - {*order})]
