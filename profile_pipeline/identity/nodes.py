"""What can be linked: every current record and every identity seen in events, with their identifiers."""

from datetime import timedelta

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline import decisions
from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.identity import changes, identifiers
from profile_pipeline.identity.fields import IDENTIFYING, match_fields
from profile_pipeline.identity.generic import first_fields, generic_query, suspects_query
from profile_pipeline.raw import ledger
from profile_pipeline.records import changes as record_changes
from profile_pipeline.warehouse import (
    built,
    continues,
    facts,
    fingerprint,
    fixed_query,
    last_full,
    literal,
    mark_built,
    quote,
    replace_plain,
    replace_table,
    rows_where,
    scalar,
    table_kind,
    transaction,
    upstream,
)

PERSON = "split_part(record_key[7:], '=', 1) in (select namespace from person_namespaces)"
"""Whether the key of an identity known from events is of a kind that names people."""
CHANGED = """
    select node, place, coalesce(n.record_key <> o.record_key, false) as clash from temp.nodes_now n
    full join (select node, content, record_key, rowid as place from identity.nodes where {}) o using (node)
    where n.content is distinct from o.content"""
"""Grain: one row a node that came, went or differs; `place` is its row from before, `clash` two keys with one hash."""
RESTATED = "node in (from temp.restated)"
"""Whether a record or an identity known from events was written again, expired or came back."""
EXPIRY_CHANGED = """
    select hash(record_key) from (
        (from temp.expired_now except from identity.expired) union all (from identity.expired except from temp.expired_now)
    )"""
FLIPPED = """
    (select namespace, value, reason from temp.generic_now except select namespace, value, reason from identity.generic_values)
    union all
    (select namespace, value, reason from identity.generic_values except select namespace, value, reason from temp.generic_now)"""


def build_nodes(con: DuckDBPyConnection, config: Config) -> None:
    """Write identity.identifiers, identity.nodes and identity.generic_values when their inputs changed.

    Nodes that came, went or carry other identifiers than before are noted for the edges.
    """
    base = fingerprint(
        {name: space.model_dump() for name, space in config.namespaces.items()},
        config.identity.clustering.generic_limit,
        match_fields(config),
        _looked_at(config),
        duckdb.__version__,
    )
    mark = fingerprint(upstream(con, ["records.current", "records.events"]), base, _expiry(con, config))
    if built(con, "identity.nodes") == mark:
        return
    whole = not continues(con, "identity.nodes", base)
    with transaction(con):
        few = _write_identifiers(con, config) and _restate_records(con)
        looked_at = RESTATED if few and not whole else ""
        if whole:
            con.execute("drop table if exists identity.changes")  # the queue of versions before 0.2
            replace_plain(con, "identity.nodes", _nodes_query(config), {"record_key"})
            _require_distinct(con, "select count(*) - count(distinct node) from identity.nodes")
            replace_table(con, "identity.generic_values", generic_query(config))
        else:
            _update(con, config, looked_at)
        con.execute("drop table person_namespaces; drop table temp.restated")
        full = mark if whole else last_full(con, "identity.nodes")
        record_changes.forget(con, record_changes.RECORDS)
        records = last_full(con, "records.current")
        mark_built(con, "identity.nodes", mark, {"base": base, "full": full, "records": records})
        mark_built(con, "identity.identifiers", mark)
        mark_built(con, "identity.generic_values", mark)


def _restate_records(con: DuckDBPyConnection) -> bool:
    """Add the records that may differ to temp.restated; False when nobody knows, after all of them were written afresh."""
    written = last_full(con, "records.current")
    if not written or written != facts(con, "identity.nodes").get("records"):
        return False
    con.execute(record_changes.TABLE)
    noted = record_changes.noted_query(record_changes.RECORDS)
    con.execute(f"insert into temp.restated select hash(key) from ({noted})")
    return True


def _update(con: DuckDBPyConnection, config: Config, looked_at: str) -> None:
    """Write what changed; notes nodes that differ, and those with a value that became generic or is so no more."""
    replace_table(con, "temp.nodes_now", _nodes_query(config, looked_at))
    replace_table(con, "temp.nodes_changed", CHANGED.format(looked_at or "true"))
    _require_distinct(
        con,
        """select (select count(*) - count(distinct node) from temp.nodes_now)
            + (select count(*) filter (clash) from temp.nodes_changed)""",
    )
    con.execute("delete from identity.nodes where rowid in (select place from temp.nodes_changed)")
    con.execute("insert into identity.nodes from temp.nodes_now semi join temp.nodes_changed using (node)")
    replace_table(con, "temp.suspects", suspects_query(config, "select node from temp.nodes_changed"))
    replace_table(con, "temp.generic_now", generic_query(config, "temp.suspects"))
    if replace_table(con, "temp.flipped", FLIPPED):
        con.execute(f"insert into temp.nodes_changed (node) {_carriers_query(config)}")
    replace_table(con, "identity.generic_values", "from temp.generic_now")
    for stage in ("features", "edges"):
        changes.note(con, stage, "select node from temp.nodes_changed")
    for table in ("nodes_now", "nodes_changed", "suspects", "generic_now", "flipped"):
        con.execute(f"drop table temp.{table}")


def _require_distinct(con: DuckDBPyConnection, clashes: str) -> None:
    """`node` is a 64-bit hash of the record key; among 10 million records two are equal once in 370,000 data sets."""
    if scalar(con, clashes):
        raise PipelineError("two record keys have the same hash; add a letter to the name of one source")


def _carriers_query(config: Config) -> str:
    """Grain: one row a node (`node`) and value of temp.flipped that it carries, as an identifier or in a match field."""
    fields = {
        f
        for found in match_fields(config).values()
        for f in found
        if config.attributes[f].type in IDENTIFYING
    }
    return (
        "select node from identity.identifiers where value_key in (select hash(namespace, value) from flipped)"
        + "".join(
            f" union all select node from records.current where {quote(f)} in (select value from flipped)"
            for f in sorted(fields)
        )
    )


def _write_identifiers(con: DuckDBPyConnection, config: Config) -> bool:
    """identity.identifiers is a view: those of records are kept by the records stage, those of events here.

    True where temp.restated has every identity known from events that may be another node than before.
    """
    _person_namespaces(con, config)
    con.execute("create or replace temp table restated (node ubigint)")
    base = fingerprint(last_full(con, "records.events"), sorted(config.namespaces), duckdb.__version__)
    mark = fingerprint(upstream(con, ["records.events"]), base)
    whole = not continues(con, "identity.subject_identifiers", base)
    if built(con, "identity.subject_identifiers") != mark:
        _write_subjects(con, whole=whole)
        record_changes.forget(con, "nodes")
        mark_built(con, "identity.subject_identifiers", mark, {"base": base})
    replace_table(con, "temp.expired_now", _expired_query(con, config))
    if not whole:
        con.execute(f"insert into temp.restated {EXPIRY_CHANGED}")
    con.execute(
        "create or replace table identity.expired as from temp.expired_now; drop table temp.expired_now"
    )
    if table_kind(con, "identity.identifiers") == "BASE TABLE":
        con.execute("drop table identity.identifiers")  # as versions before 0.2 had it
    con.execute(f"create or replace view identity.identifiers as {identifiers.VIEW}")
    return not whole


def _write_subjects(con: DuckDBPyConnection, *, whole: bool) -> None:
    """Identities known from events: all, or those whose events changed."""
    known = "starts_with(subject, 'event:')"
    query = fixed_query("identity/subject_identifiers")
    if whole:
        con.execute(f"create or replace temp view events_of_subjects as from records.events where {known}")
        replace_table(con, "identity.subject_identifiers", query)
        con.execute("drop view events_of_subjects")
    else:
        replace_table(con, "temp.noted_subjects", record_changes.noted_query("nodes"))
        looked_at = "subject, occurred_at, identifiers, attribution"
        noted = f"{known} and subject in (from temp.noted_subjects)"
        replace_table(con, "temp.events_of_subjects", rows_where("records.events", noted, looked_at))
        con.execute("delete from identity.subject_identifiers where record_key in (from temp.noted_subjects)")
        con.execute(f"insert into identity.subject_identifiers by name {query}")
        con.execute("insert into temp.restated select hash(key) from temp.noted_subjects")
        con.execute("drop table noted_subjects; drop table events_of_subjects")


def _person_namespaces(con: DuckDBPyConnection, config: Config) -> None:
    names = [name for name, space in config.namespaces.items() if space.kind == "person"]
    replace_table(con, "temp.person_namespaces", "select unnest(?::text[]) as namespace", [names])


def _looked_at(config: Config) -> list[str]:
    """Fields of records.current that matching, limits and the detection of generic values look at."""
    matched = {field for fields in match_fields(config).values() for field in fields}
    return sorted(matched | set(config.identity.clustering.never_differ) | set(first_fields(config).values()))


def _nodes_query(config: Config, looked_at: str = "") -> str:
    """Grain: one row a node, or one that fulfils a condition. Kind: record, person (known from events only) or pseudonymous.

    `content` is a hash of all that links, limits or is compared: two nodes with equal content act alike.
    """
    content = ", ".join(["source", "identifiers", *map(quote, _looked_at(config))])
    records = f"({rows_where('records.current', looked_at)})" if looked_at else "records.current"
    where = f"where {looked_at}" if looked_at else ""
    return f"""
        with stated as (
            select record_key, node, sum(value_key::hugeint) as held from (from identity.subject_identifiers {where})
            where record_key not in (from identity.expired) group by record_key, node
        )
        select record_key, source, 'record' as kind, hash({content}) as content, node from {records}
        union all
        select record_key, 'event', if({PERSON}, 'person', 'pseudonymous'), hash('event', held), node
        from stated"""


def _expiry(con: DuckDBPyConnection, config: Config) -> list[object]:
    """What decides which pseudonymous identities are expired, apart from records and events."""
    days = config.identity.pseudonymous_expire_days
    return [days, ledger.as_of(con), decisions.fingerprint_of(con)] if days else []


def _expired_query(con: DuckDBPyConnection, config: Config) -> str:
    """Grain: one row a pseudonymous identity without an event for too long, that no record and no decision names.

    Without those nobody else can be in its profile. It is no node, so its id retires; an event on it, or a record that
    names it, brings the node back and with it the id.
    """
    days, now = config.identity.pseudonymous_expire_days, ledger.as_of(con)
    if not (days and now):
        return "select record_key from identity.subject_identifiers limit 0"
    con.execute(decisions.TABLES)
    cutoff = literal((now - timedelta(days=days)).isoformat())
    return f"""
        select record_key from identity.subject_identifiers where not {PERSON}
            and value_key not in (select value_key from records.identifiers)
            and record_key not in (select unnest([left_key, right_key]) from identity.decisions)
        group by record_key having max(last_event_at) < {cutoff}::timestamptz"""
