"""Why a profile changed, as exactly as the state of the last revision and of this run allows.

A profile that only gained or lost records says so itself. Where records went from one id to another, the reason
may lie with any record of the profiles that exchanged them: the first that is found, in the order of `CAUSES`.
"""

from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.warehouse import (
    facts,
    fingerprint,
    literal,
    records_of,
    replace_table,
    rows,
    scalar,
    table_exists,
)

CAUSES = ("decision", "new_model", "rules", "new_records", "deleted_records", "expired", "changed_records")
"""Causes of an exchange that state can show, strongest first; what a person had to approve has the cause `approval`.

`expired`: what is gone are identities known from events alone, and these events are older than their source keeps them, or
nobody has seen the cookie or device for too long. No record was deleted.
"""
GENERIC = "hash(namespace, value)"


@dataclass(frozen=True)
class Circumstances:
    """What may move records between ids, as it stands at a revision."""

    model_id: str | None
    rules: str
    threshold: float | None
    generic_values: list[int]
    decision_id: int | None
    batch: int | None


def circumstances(con: DuckDBPyConnection, config: Config) -> Circumstances:
    """As they stand now. Generic values are kept as hashes: they can be personal."""
    generic = []
    if table_exists(con, "identity.generic_values"):
        generic = [h for (h,) in rows(con, f"select {GENERIC} from identity.generic_values order by 1")]
    decided = None
    if table_exists(con, "identity.decisions"):
        decided = scalar(con, "select max(decision_id) from identity.decisions")
    return Circumstances(
        model_id=scalar(con, "select model_id from identity.edges where type = 'probabilistic' limit 1"),
        rules=_rules(config),
        threshold=facts(con, "identity.edges").get("threshold"),
        generic_values=generic,
        decision_id=decided,
        batch=scalar(con, "select max(batch) from raw.batches"),
    )


def _rules(config: Config) -> str:
    """A fingerprint of the rules that decide which records belong together."""
    rules = config.identity
    return fingerprint(
        {name: space.model_dump() for name, space in rules.namespaces.items()},
        rules.matching.model_dump(),
        rules.clustering.model_dump(),
        {name: (source.matching, source.one_per_person) for name, source in config.record_sources.items()},
    )


def last_circumstances(con: DuckDBPyConnection) -> Circumstances | None:
    """As they stood at the newest revision; None before the first, and after one of a version that did not note them."""
    names = ", ".join(Circumstances.__dataclass_fields__)
    found = records_of(con, f"select {names} from identity.revisions order by revision desc limit 1")
    return Circumstances(**found[0]) if found and found[0]["rules"] else None


def find_causes(con: DuckDBPyConnection, now: Circumstances, before: Circumstances | None) -> None:
    """Write temp.causes (profile_id, cause) for the profiles that exchange records with others.

    Also temp.expired_nodes (record_key): what is gone because its events, or the identity itself, expired.
    """
    replace_table(con, "temp.expired_nodes", _expired_query(con))
    replace_table(con, "temp.exchange", _exchange_query())
    replace_table(con, "temp.evidence", _evidence_query(con, now, before or now))
    replace_table(con, "temp.causes", _causes_query(now, before or now))
    con.execute("drop table exchange; drop table evidence")


def _expired_query(con: DuckDBPyConnection) -> str:
    tests = []
    if table_exists(con, "identity.expired"):
        tests.append("record_key in (select record_key from identity.expired)")
    if table_exists(con, "records.expired_events"):
        named = "select unnest([person, device]) from records.expired_events"
        tests.append(f"starts_with(record_key, 'event:') and hash(record_key) in ({named})")
    gone = "select distinct record_key from shift where new_id is null"
    return f"{gone} and ({' or '.join(tests) or 'false'})"


def caused(events: str, *, approved: bool) -> str:
    """Profile events with their cause; where no record changed its id, the event itself tells."""
    if approved:
        return f"select *, 'approval' as cause from ({events})"
    return f"""
        select e.*, case when event = 'pinned' then 'decision' when event = 'retired' and l.lost = 'expired' then l.lost
            else coalesce(c.cause, if(event in ('shrank', 'retired'), l.lost, 'new_records')) end as cause
        from ({events}) e left join causes c using (profile_id) left join ({LOST}) l using (profile_id)"""


LOST = """
    select old_id as profile_id,
        if(bool_and(record_key in (select record_key from expired_nodes)), 'expired', 'deleted_records') as lost
    from shift where old_id is not null and new_id is null group by old_id"""
"""Grain: one row a profile with records that are gone: whether any of them was more than something that expired."""


def _exchange_query() -> str:
    """Grain: two profiles that exchange records, in both directions, and each with itself."""
    return """
        with pairs as (select distinct old_id as a, new_id as b from shift where old_id <> new_id)
        select a, b from pairs union select b, a from pairs union select a, a from pairs union select b, b from pairs"""


def _evidence_query(con: DuckDBPyConnection, now: Circumstances, before: Circumstances) -> str:
    """What speaks for a cause in each profile that exchanges records. Grain: profile_id, cause."""
    parts = [
        "select profile_id, 'new_records' as cause from involved where old_id is null",
        "select profile_id, if(record_key in (select record_key from expired_nodes), 'expired', 'deleted_records')"
        " from involved where new_id is null",
        "select profile_id, 'decision' from identity.pins where revision is null",
    ]
    if now.decision_id is not None:
        newer = f"identity.decisions where decision_id > {before.decision_id or 0}"
        decided = f"select left_key from {newer} union select right_key from {newer}"
        parts.append(f"select profile_id, 'decision' from involved where record_key in ({decided})")
    if shifted := set(now.generic_values) ^ set(before.generic_values):
        listed = ", ".join(map(str, sorted(shifted)))
        parts.append(
            "select profile_id, 'rules' from involved join identity.identifiers using (record_key)"
            f" where {GENERIC} in ({listed})"
        )
    if now.threshold != before.threshold and table_exists(con, "records.current"):
        parts.append(
            "select profile_id, 'changed_records' from involved join records.current using (record_key)"
            f" where batch > {before.batch or 0}"
        )
    return f"""
        with involved as (
            select old_id as profile_id, record_key, old_id, new_id from shift where old_id in (select a from exchange)
            union all
            select new_id, record_key, old_id, new_id from shift where new_id in (select a from exchange)
        ) {" union ".join(parts)}"""


def _causes_query(now: Circumstances, before: Circumstances) -> str:
    """The strongest cause among the evidence of a profile and of those it exchanges records with."""
    everywhere = [
        *(["new_model"] if now.model_id != before.model_id else []),
        *(["rules"] if now.rules != before.rules else []),
    ]
    listed = ", ".join(literal(cause) for cause in everywhere)
    order = ", ".join(literal(cause) for cause in CAUSES)
    # a threshold that moved by itself explains what no change of a record does
    otherwise = "changed_records" if now.threshold == before.threshold else "rules"
    return f"""
        with found as (
            select a as profile_id, cause from exchange join evidence on profile_id = b
            union select a, unnest([{listed}]::text[]) from exchange
        ), strongest as (
            select profile_id, arg_min(cause, list_position([{order}], cause)) as cause from found group by 1
        )
        select distinct a as profile_id, coalesce(cause, {literal(otherwise)}) as cause
        from exchange left join strongest on profile_id = a"""
