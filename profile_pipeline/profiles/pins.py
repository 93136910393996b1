"""Values that stewards pin: the value of a field of a profile, before every rule, until it is no longer needed.

Not the pins of ids (`profile_ids.pins`). The table is append-only history: a pin, and what ended it. It was
withdrawn or replaced by a steward, or it retired itself, because a source that had said what the pin corrects says
something else by now. A pin goes where the redirects of its profile lead and stays with the id after a split. Of
several, the newest holds.

What holds is a function of the pins, the candidates and the as-of time of the newest batch; no clock has a say.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.structs import structs_of
from profile_pipeline.config.wording import suggestion
from profile_pipeline.errors import PipelineError
from profile_pipeline.profile_ids import MEMBERS, final_redirects_query
from profile_pipeline.raw import ledger
from profile_pipeline.records import normalise
from profile_pipeline.records.readings import read_text, readers
from profile_pipeline.sheets import LONGEST
from profile_pipeline.warehouse import (
    literal,
    records_of,
    replace_table,
    rows,
    scalar,
    table_exists,
    transaction,
)

PINNED, WITHDRAWN, REPLACED, RETIRED = "pinned", "withdrawn", "replaced", "retired"
EVENTS = (PINNED, WITHDRAWN, REPLACED, RETIRED)
STEWARD = "steward"
"""The source of a pinned value; its record key is `steward:<pin>`."""
RETIRED_BY = "profile-pipeline"
RULE = "pin"
"""What lineage says of the winner and of all it beat."""
TABLE = """
create table if not exists profiles.value_pins (
    pin_id text not null, event text not null, profile_id text not null, field text not null, value text, shown text,
    cleared boolean not null, field_type text, corrected struct(record_key text, value text, raw text)[], until_on date,
    author text not null, reason text not null, noted_at timestamptz not null, batch integer)
"""
IN_EFFECT = "profiles.pinned_values"
STANDING = "temp.standing_pins"
"""Grain: one row a pin that holds now: the columns of its pinning, `profile_id` as it is today, `rank` 1 for the newest."""


@dataclass(frozen=True)
class Pin:
    """A pin as it is written or would be; `corrected` is what sources say otherwise, `replaces` the pins that it ends."""

    pin_id: str
    profile_id: str
    field: str
    value: str | None
    shown: str | None
    cleared: bool
    field_type: str
    corrected: list[dict[str, Any]]
    until_on: date | None
    author: str
    reason: str
    noted_at: datetime
    replaces: tuple[str, ...]


# ---------------------------------------------------------------- pinning


def pin(
    con: DuckDBPyConnection,
    config: Config,
    profile_id: str,
    field: str,
    text: str | None,
    author: str,
    reason: str,
    *,
    until: date | None = None,
    source: str | None = None,
    dry_run: bool = False,
) -> Pin:
    """Pin a value, read as a delivery of the sources (or of one) is; None clears the field. It holds from the next run on.

    It ends earlier pins of the field. Raises PipelineError for a profile or field that is not there, a text that is
    no value of the field, a time that is over, and a missing author or reason.
    """
    made = prepare(con, config, profile_id, field, text, author, reason, until=until, source=source)
    if not dry_run:
        with transaction(con):
            append(con, made)
    return made


def prepare(
    con: DuckDBPyConnection,
    config: Config,
    profile_id: str,
    field: str,
    text: str | None,
    author: str,
    reason: str,
    *,
    until: date | None = None,
    source: str | None = None,
) -> Pin:
    """The pin that `pin` would write. Raises as that does."""
    con.execute(TABLE)
    _check(con, config, profile_id, field, source)
    _check_words(con, author, reason, until)
    value, shown = (None, None) if text is None else _read(con, config, field, text, source)
    at = _time_of(con, field)
    return Pin(
        pin_id_of(profile_id, field, at),
        profile_id,
        field,
        value,
        shown,
        text is None,
        normalise.field_type(config.attributes[field]),
        _corrected(con, profile_id, field, shown),
        until,
        author,
        reason,
        at,
        tuple(found["pin_id"] for found in in_effect(con, profile_id, field)),
    )


def append(con: DuckDBPyConnection, made: Pin) -> None:
    """Write a pin and the end of those that it replaces."""
    _end(con, made.replaces, REPLACED, made.author, f"replaced by {made.pin_id}", made.noted_at)
    columns = {name: value for name, value in vars(made).items() if name != "replaces"}
    places = ", ".join(f"? as {name}" for name in columns)
    con.execute(
        f"insert into profiles.value_pins by name select '{PINNED}' as event, {places}",
        list(columns.values()),
    )


def _check(
    con: DuckDBPyConnection, config: Config, profile_id: str, field: str, source: str | None = None
) -> None:
    known = table_exists(con, "identity.membership") and scalar(
        con, f"select 1 from ({MEMBERS}) where profile_id = ? limit 1", [profile_id]
    )
    if not known:
        raise PipelineError(f"no active profile has the id {profile_id}; `profile-pipeline lookup` finds ids")
    if field in config.structs:
        parts = ", ".join(structs_of(config.structs)[field].values())
        raise PipelineError(f"`{field}` is a struct; pin one of its fields: {parts}")
    if field not in config.attributes:
        names = list(config.attributes)
        otherwise = f"the fields are: {', '.join(names)}"
        raise PipelineError(f"unknown field `{field}`; {suggestion(field, names, otherwise)}")
    if source is not None and source not in config.record_sources:
        raise PipelineError(
            f"no record source `{source}`; the record sources are: {', '.join(config.record_sources)}"
        )


def _check_words(con: DuckDBPyConnection, author: str, reason: str, until: date | None) -> None:
    for name, words in {"author": author, "reason": reason}.items():
        if not words.strip():
            raise PipelineError(f"a pin needs the {name}; give --{name}")
        if len(words) > LONGEST:
            raise PipelineError(f"the {name} is longer than {LONGEST:,} characters; shorten it")
    today = _today(con)
    if until and today and until < today:
        raise PipelineError(
            f"a pin until {until} would be over: the newest batch is of {today}; give a later --until"
        )


def _today(con: DuckDBPyConnection) -> date | None:
    """The day (UTC) of the newest batch: what expiry is judged by."""
    newest = ledger.as_of(con) if table_exists(con, "raw.batches") else None
    return newest.astimezone(UTC).date() if newest else None


def _read(
    con: DuckDBPyConnection, config: Config, field: str, text: str, source: str | None
) -> tuple[str, str]:
    """The text as candidates hold it: what compares, and what people read."""
    from profile_pipeline.profiles.candidates import offer_query  # candidates are built with pins among them

    normalise.register(con)
    attribute = config.attributes[field]
    value = read_text(con, config, readers(config, source), field, text)
    if value is None or (attribute.type == "birth_date" and value > f"{datetime.now(UTC):%Y-%m-%d}"):
        raise PipelineError(
            f"{field}: the text is no {attribute.type.replace('_', ' ')}; write it as a source would, or use --clear"
        )
    found = rows(
        con,
        f"""select o.value, o.shown from (select {offer_query(field, attribute.type)} as o from (
            select ?::{normalise.value_type(attribute)} as {field}, {{'{field}': ?::text}} as raw, []::text[] as cleared))""",
        [value, text],
    )
    return found[0]


def _time_of(con: DuckDBPyConnection, field: str) -> datetime:
    """Now, or just after the newest pin of the field, whatever the clock says: the newest holds."""
    newest = scalar(con, "select max(noted_at) from profiles.value_pins where field = ?", [field])
    now = datetime.now(UTC)
    return max(now, newest.astimezone(UTC) + timedelta(microseconds=1)) if newest else now


def pin_id_of(profile_id: str, field: str, at: datetime) -> str:
    """The short name of a pin, the same wherever it is imported."""
    return hashlib.sha256(f"{profile_id} {field} {at.isoformat()}".encode()).hexdigest()[:12]


def _corrected(
    con: DuckDBPyConnection, profile_id: str, field: str, shown: str | None
) -> list[dict[str, Any]]:
    """What sources say that some policy shows (or would, without an earlier pin) and the pin contradicts.

    Values that no profile showed are not what the steward looked at: they may change as they like.
    """
    if not table_exists(con, "profiles.lineage"):
        return []
    return records_of(
        con,
        f"""with offers as (
            select record_key, value, shown from profiles.candidates where profile_id = $1 and field = $2
                and source <> '{STEWARD}'
        ), best as (
            select value from offers where record_key in (
                select record_key from profiles.lineage where profile_id = $1 and field = $2
                    and (won or (rank = 2 and rule = 'pin')))
        )
        select record_key, value, to_json(r.raw) ->> $2 as raw
        from offers o left join records.current r using (record_key)
        where exists (select 1 from best b where b.value is not distinct from o.value)
            and o.shown is distinct from $3
        order by record_key""",
        [profile_id, field, shown],
    )


# ---------------------------------------------------------------- ending


def withdraw(
    con: DuckDBPyConnection,
    profile_id: str,
    field: str,
    author: str,
    reason: str = "",
    *,
    dry_run: bool = False,
) -> list[dict[str, Any]]:
    """Let the rules decide a field of a profile again; the pins that ends. Raises when none is in effect."""
    found = in_effect(con, profile_id, field)
    if not found:
        raise PipelineError(
            f"no value of `{field}` is pinned on {profile_id}; `profile-pipeline values pins` shows those that are"
        )
    if not author.strip():
        raise PipelineError("a withdrawal needs the author; give --author")
    if not dry_run:
        with transaction(con):
            keys = [row["pin_id"] for row in found]
            _end(con, keys, WITHDRAWN, author, reason or WITHDRAWN, _time_of(con, field))
    return found


def _end(
    con: DuckDBPyConnection, pin_ids: Sequence[str], event: str, author: str, reason: str, at: datetime
) -> None:
    con.execute(
        """insert into profiles.value_pins by name
        select pin_id, ?::text as event, profile_id, field, false as cleared, ?::text as author, ?::text as reason, ? as noted_at
        from profiles.value_pins where event = 'pinned' and pin_id in (select unnest(?::text[]))""",
        [event, author, reason, at, list(pin_ids)],
    )


# ---------------------------------------------------------------- what holds


def standing_query(con: DuckDBPyConnection) -> str:
    """Grain: one row a pin that neither ended nor expired, under the id its profile has today; `rank` 1 is the newest.

    A retirement counts no longer once the batch that caused it is reverted.
    """
    reverted = (
        "select batch from raw.files group by batch having count_if(state = 'reverted') > 0"
        " and count_if(state in ('found', 'loaded')) = 0"
        if table_exists(con, "raw.files")
        else "select null::integer where false"
    )
    today = _today(con)
    return f"""
        with ended as (
            select pin_id from profiles.value_pins where event in ('{WITHDRAWN}', '{REPLACED}')
            union all
            select pin_id from profiles.value_pins where event = '{RETIRED}'
                and (batch is null or batch not in ({reverted}))
        ), active as (select distinct profile_id from ({MEMBERS})), moved as ({final_redirects_query()}), held as (
            select p.* replace (if(p.profile_id in (from active), p.profile_id, m.successor) as profile_id)
            from profiles.value_pins p left join moved m using (profile_id)
            where event = '{PINNED}' and pin_id not in (from ended)
                and {f"coalesce(until_on >= date '{today}', true)" if today else "true"}
        )
        select *, row_number() over (partition by profile_id, field order by noted_at desc, pin_id) as rank
        from held semi join active using (profile_id)"""


def in_effect(
    con: DuckDBPyConnection, profile_id: str | None = None, field: str | None = None
) -> list[dict[str, Any]]:
    """Pins that hold now (of a profile, of a field), by profile and field, the newest of each first."""
    con.execute(TABLE)
    if not table_exists(con, "identity.membership"):
        return []
    return records_of(
        con,
        f"""select pin_id, profile_id, field, shown, cleared, until_on, author, reason, noted_at, rank,
            list_transform(corrected, lambda c: c.record_key) as corrects
        from ({standing_query(con)})
        where profile_id = coalesce(?, profile_id) and field = coalesce(?, field) order by profile_id, field, rank""",
        [profile_id, field],
    )


def history(con: DuckDBPyConnection, profile_id: str | None = None) -> list[dict[str, Any]]:
    """All that ever happened to pins (of a profile and of those that became it), oldest first."""
    con.execute(TABLE)
    whose = f"""where $1 = profile_id or profile_id in (
        select profile_id from ({final_redirects_query()}) where successor = $1)"""
    return records_of(
        con,
        f"""select pin_id, event, profile_id, field, shown, cleared, until_on, author, reason, noted_at, batch
        from profiles.value_pins {whose if profile_id else ""}
        order by min(noted_at) filter (event = '{PINNED}') over (partition by pin_id), pin_id, event <> '{PINNED}',
            noted_at, batch""",
        [profile_id] if profile_id else [],
    )


# ---------------------------------------------------------------- in a run


def offer_pins(con: DuckDBPyConnection, config: Config) -> int:
    """Bring the pins among profiles.candidates up to date with its source candidates; how many retired themselves.

    The candidates of sources have to be those of this run already.
    """
    con.execute(TABLE)
    retired = _retire(con)
    replace_table(con, IN_EFFECT, in_effect_query(con, config))
    con.execute("delete from profiles.candidates where pinned")
    con.execute(
        f"""insert into profiles.candidates by name
        select profile_id, field, value, shown, cleared, '{STEWARD}:' || pin_id as record_key, '{STEWARD}' as source,
            pinned_at as observed_at, pinned_at as ingested_at, '{STEWARD}' as clock, true as valid, true as pinned
        from {IN_EFFECT}"""
    )
    return retired


def in_effect_query(con: DuckDBPyConnection, config: Config) -> str:
    """Grain: one row a profile and field whose value is pinned, by the pin that holds."""
    return f"""select profile_id, field, pin_id, value, shown, cleared, author, reason as pin_reason,
            noted_at as pinned_at, until_on
        from ({standing_query(con)}) where rank = 1 and {_readable(config)}"""


def _readable(config: Config) -> str:
    """A pin waits while its field is of another type than the one it was read as."""
    kinds = [
        f"({literal(field)}, {literal(normalise.field_type(attribute))})"
        for field, attribute in config.attributes.items()
    ]
    return f"(field, field_type) in ({', '.join(kinds) or '(null, null)'})"


def _retire(con: DuckDBPyConnection) -> int:
    """Record the pins of which a source value that they correct has changed, each once.

    The same value in other writing, or read by other rules, is no change; a record that is gone or joins says
    nothing. A source that says what the pin says was corrected.
    """
    replace_table(con, STANDING, standing_query(con))
    if not scalar(con, f"select count(*) from {STANDING}"):
        return 0
    return rows(
        con,
        f"""insert into profiles.value_pins by name
        with corrected as (
            select pin_id, profile_id, field, shown as pinned_shown, unnest(corrected) as was from {STANDING}
        ), changed as (
            select pin_id, max(r.batch) as batch, string_agg(distinct c.source, ', ' order by c.source) as sources
            from corrected p join profiles.candidates c
                on c.profile_id = p.profile_id and c.field = p.field and c.record_key = p.was.record_key
            join records.current r on r.record_key = c.record_key
            where not c.pinned and to_json(r.raw) ->> c.field is distinct from p.was.raw
                and (c.value is distinct from p.was.value or c.shown is not distinct from pinned_shown)
            group by pin_id
        )
        select pin_id, '{RETIRED}' as event, o.profile_id, o.field, false as cleared, '{RETIRED_BY}' as author,
            'what it corrected has changed in ' || sources as reason, ?::timestamptz as noted_at, c.batch
        from changed c join profiles.value_pins o using (pin_id) where o.event = '{PINNED}'""",
        [ledger.as_of(con) if table_exists(con, "raw.batches") else None],
    )[0][0]


def mark(con: DuckDBPyConnection, config: Config) -> list[tuple[Any, ...]]:
    """What of the pins decides values, for the fingerprint of what is built from them."""
    con.execute(TABLE)
    if not table_exists(con, "identity.membership"):
        return []
    return rows(
        con,
        f"select pin_id, profile_id, until_on from ({in_effect_query(con, config)}) order by pin_id, profile_id",
    )


def put_first(con: DuckDBPyConnection, policy: str, version: int) -> bool:
    """Let the pins among the candidates win the fresh part of a policy's lineage, whatever its rules and groups are.

    False where there is no pin.
    """
    if not scalar(con, "select count(*) from profiles.candidates where pinned"):
        return False
    con.execute(
        f"""update profiles.lineage l set rank = l.rank + 1, won = false, rule = '{RULE}' from profiles.candidates p
        where p.pinned and p.profile_id = l.profile_id and p.field = l.field and l.policy = ? and l.rule <> '{RULE}'""",
        [policy],
    )
    con.execute(
        f"""insert into profiles.lineage by name
        select ?::text as policy, ? as policy_version, profile_id, field, 1 as rank, true as won, shown as value, cleared,
            record_key, source, observed_at, '{RULE}' as rule
        from profiles.candidates p where pinned and not exists (
            select 1 from profiles.lineage l where l.policy = ? and l.profile_id = p.profile_id and l.field = p.field
                and l.record_key = p.record_key)""",
        [policy, version, policy],
    )
    return True
