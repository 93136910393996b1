"""Whose record is this? Scores one incoming record against everything, without changing anything.

The record is normalised, keyed and scored as a run would do it: its blocking keys at every number of refinements
find exactly the records it would be compared with, within the caps of the model, and only those are scored.
Identifiers that it shares are looked up beside, generic values set aside.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.identity.blocking import every_key_query
from profile_pipeline.identity.edges import threshold_in_use
from profile_pipeline.identity.features import (
    features_query,
    inputs_query,
    match_fields,
    suspended_query,
)
from profile_pipeline.identity.model import Model, active_model
from profile_pipeline.identity.training import own_pairs_query
from profile_pipeline.identity.weights import Score, load_own_frequencies, score_in_parts
from profile_pipeline.profile_ids import MEMBERS
from profile_pipeline.records import normalise
from profile_pipeline.records.readings import read_text, readers
from profile_pipeline.warehouse import (
    columns_of,
    database_name,
    literal,
    quote,
    replace_table,
    rows,
    scratch,
    table_exists,
)

KEY = ":incoming"
"""Record key of the incoming record; no source has an empty name."""
MOST_SCORED = 200
"""Scored records that are looked at, the best ones."""
RECORD = "temp.incoming"


@dataclass(frozen=True)
class NearRecord:
    """A record that is alike; `is_link` when its match weight reaches the threshold."""

    record_key: str
    score: Score
    is_link: bool


@dataclass(frozen=True)
class SharedIdentifier:
    """An identifier that records of a profile carry too; `links` when that alone makes them one person."""

    namespace: str
    value: str
    record_count: int
    links: bool


@dataclass(frozen=True)
class Candidate:
    """A profile that the record may belong to.

    Its probability is that of its most similar record, 1 by a linking identifier, None where only identifiers that
    do not link are shared.
    """

    profile_id: str
    match_probability: float | None
    is_link: bool
    records: tuple[NearRecord, ...]
    shared: tuple[SharedIdentifier, ...]


@dataclass(frozen=True)
class Incoming:
    """The record as matching sees it, and the profiles it may belong to, most likely first.

    `unread` are fields whose text is no value of their type, `set_aside` identifiers that identify nobody,
    `compared` the number of records that blocking found.
    """

    values: dict[str, Any]
    identifiers: dict[str, list[str]]
    unread: tuple[str, ...]
    set_aside: tuple[str, ...]
    threshold: float | None
    compared: int
    candidates: tuple[Candidate, ...]


def find_person(
    con: DuckDBPyConnection,
    config: Config,
    record: Mapping[str, str],
    *,
    source: str | None = None,
    limit: int = 10,
) -> Incoming:
    """Score a record (profile field or person namespace to text) and rank the profiles it may belong to.

    `source` reads and compares it as one of that source. Raises PipelineError for unknown fields and for text
    that the sources would read differently.
    """
    _check(con, config, record, source)
    normalise.register(con)
    ways = readers(config, source)
    values = {
        field: read_text(con, config, ways, field, record[field])
        for field in record
        if field in config.attributes
    }
    identifiers = _identifiers(con, config, ways, record)
    found, compared = _score(con, config, values, source)
    suspended = _suspended(con, identifiers)
    shared = _shared(con, config, identifiers, suspended)
    threshold = threshold_in_use(con)
    return Incoming(
        {field: value for field, value in values.items() if value is not None},
        identifiers,
        tuple(field for field, value in values.items() if value is None and record[field].strip()),
        tuple(f"{namespace} {value}" for namespace, value in suspended),
        threshold,
        compared,
        _ranked(con, found, shared, threshold)[:limit],
    )


def _check(con: DuckDBPyConnection, config: Config, record: Mapping[str, str], source: str | None) -> None:
    if not table_exists(con, "identity.membership"):
        raise PipelineError("no profile yet; `profile-pipeline run` makes the first ones")
    known = list(dict.fromkeys([*config.attributes, *_person_namespaces(config)]))
    for field in record:
        if field not in known:
            keys = f"the keys are profile fields and namespaces, not columns of files{_meant(config, field, source)}"
            raise PipelineError(f"no field {field!r}; {keys}: {', '.join(known)}")
    if source is not None and source not in config.record_sources:
        raise PipelineError(f"no record source {source!r}; there are: {', '.join(config.record_sources)}")
    if not any(text.strip() for text in record.values()):
        raise PipelineError("the record is empty; give at least one field")


def _meant(config: Config, column: str, source: str | None) -> str:
    """The field or namespace that a column of the source is taken into as it is, for a message; else nothing."""
    if source not in config.record_sources:
        return ""
    feed = config.record_sources[source]
    taken = {field: feed.mapping(field).value for field in feed.attributes} | feed.identifiers
    found = (name for name, text in taken.items() if text.strip('"').lower() == column.lower())
    name = next(found, None)
    return f" (`{column}` of {source} is {name})" if name else ""


def _person_namespaces(config: Config) -> list[str]:
    return [name for name, space in config.namespaces.items() if space.kind == "person"]


# ---------------------------------------------------------------- normalising


def _identifiers(
    con: DuckDBPyConnection, config: Config, ways: Sequence[Source], record: Mapping[str, str]
) -> dict[str, list[str]]:
    """Keys by person namespace: of fields of its name, else of fields of its type (e-mail, phone)."""
    found: dict[str, list[str]] = {}
    for name in _person_namespaces(config):
        space = config.namespaces[name]
        typed = [f for f in record if f in config.attributes and config.attributes[f].type == space.type]
        texts = (
            [record[name]]
            if name in record
            else [record[f] for f in typed if space.type in {"email", "phone"}]
        )
        filled = normalise.filled_query("v", tuple(space.blocked))
        keys = [
            key
            for text in texts
            for way in ways
            for (key,) in rows(
                con,
                f"select {normalise.identifier_query(space, way, 'v')} from (select {filled} as v from (select ?::text as v))",
                [text],
            )
            if key is not None
        ]
        if keys:
            found[name] = list(dict.fromkeys(keys))
    return found


# ---------------------------------------------------------------- scoring


def _score(
    con: DuckDBPyConnection, config: Config, values: Mapping[str, Any], source: str | None
) -> tuple[list[tuple[str, Score]], int]:
    """Records alike with their scores, best first, and the number of records compared."""
    model = active_model(con) if table_exists(con, "identity.models") else None
    if not (config.identity.matching.enabled and model and model.settings["comparisons"]):
        return [], 0
    own = _own_features(con, config, values, source) if table_exists(con, "identity.nicknames") else None
    if own is None or set(own.column_names) != set(columns_of(con, "identity.features")):
        raise PipelineError("the rules have changed since the last run; next: profile-pipeline run")
    with scratch(con) as work:
        work.register("incoming_table", own)
        replace_table(work, "incoming", "select * from incoming_table")
        work.unregister("incoming_table")
        database = database_name(con)
        _write_pairs(work, config, model, database)
        load_own_frequencies(work, model, database)
        found = score_in_parts(work, model, "pairs", floor=config.identity.matching.floor, most=MOST_SCORED)
        names = dict(rows(work, "select unique_id, record_key from features"))
        compared = len(names) - 1
    keys = [(names[f.left_id], names[f.right_id], f.score) for f in found]
    return [(left if right == KEY else right, score) for left, right, score in keys], compared


def _own_features(
    con: DuckDBPyConnection, config: Config, values: Mapping[str, Any], source: str | None
) -> pa.Table:
    """The row of `identity.features` that the record would have. A record of no source says nothing about sources."""
    fields = {field for found in match_fields(config).values() for field in found}
    fields |= set(config.identity.clustering.never_differ)
    typed = [
        f"?::{normalise.value_type(config.attributes[name])} as {quote(name)}" for name in sorted(fields)
    ]
    columns = ", ".join([f"{literal(KEY)} as record_key", "?::text as source", *typed])
    replace_table(con, RECORD, f"select {columns}", [source, *(values.get(name) for name in sorted(fields))])
    replace_table(con, "temp.suspended", suspended_query(config))
    replace_table(con, "temp.inputs", inputs_query(config, RECORD))
    found = con.sql(features_query(config)).to_arrow_table()
    con.execute(f"drop table {RECORD}; drop table temp.suspended; drop table temp.inputs")
    return found


def _write_pairs(work: DuckDBPyConnection, config: Config, model: Model, database: str) -> None:
    """Write `pairs`, the record with each one that blocking finds, and `features` of these."""
    stored, rules = f"{database}.identity.features", model.rules(config)
    if rules:
        replace_table(work, "own_keys", every_key_query(rules, "incoming"))
        replace_table(
            work,
            "found",
            f"""select min(k.rule) as match_key, b.unique_id
            from {database}.identity.blocking_keys b join own_keys k on b.key = k.key group by b.unique_id""",
        )
    else:
        _find_by_own_rules(work, model, stored)
    replace_table(
        work,
        "features",
        f"select * from {stored} where unique_id in (select unique_id from found) union all by name from incoming",
    )
    replace_table(
        work,
        "pairs",
        """select match_key, least(f.unique_id, i.unique_id) as join_key_l, greatest(f.unique_id, i.unique_id) as join_key_r
        from found f cross join incoming i""",
    )


def _find_by_own_rules(work: DuckDBPyConnection, model: Model, stored: str) -> None:
    """Write `found` by the blocking rules that the project brings in plain Splink form."""
    work.execute(f"create view features as select * from {stored} union all by name from incoming")
    replace_table(work, "changed", "select unique_id from incoming")
    replace_table(
        work,
        "found",
        f"""select match_key, if(join_key_l in (from changed), join_key_r, join_key_l) as unique_id
        from ({own_pairs_query(model.settings, "changed")})""",
    )
    work.execute("drop view features")


# ---------------------------------------------------------------- identifiers and ranking


def _suspended(con: DuckDBPyConnection, identifiers: Mapping[str, list[str]]) -> list[tuple[str, str]]:
    return rows(
        con,
        """select namespace, value from identity.generic_values
        where (namespace, value) in (select unnest(?::text[]), unnest(?::text[])) order by all""",
        _columns(identifiers),
    )


def _columns(identifiers: Mapping[str, list[str]]) -> list[list[str]]:
    pairs = [(namespace, value) for namespace, values in identifiers.items() for value in values]
    return [[namespace for namespace, _ in pairs], [value for _, value in pairs]]


def _shared(
    con: DuckDBPyConnection,
    config: Config,
    identifiers: Mapping[str, list[str]],
    suspended: Sequence[tuple[str, str]],
) -> dict[str, list[SharedIdentifier]]:
    """Identifiers of the record that profiles carry, by profile id."""
    kept = {
        namespace: [value for value in values if (namespace, value) not in suspended]
        for namespace, values in identifiers.items()
    }
    found: dict[str, list[SharedIdentifier]] = defaultdict(list)
    for profile_id, namespace, value, count in rows(
        con,
        f"""with holders as (
            select record_key, namespace, value from identity.identifiers
            where (namespace, value) in (select unnest(?::text[]), unnest(?::text[]))
        )
        select profile_id, namespace, value, count(*) from holders join ({MEMBERS}) using (record_key)
        group by all order by all""",
        _columns(kept),
    ):
        found[profile_id].append(SharedIdentifier(namespace, value, count, config.namespaces[namespace].link))
    return found


def _ranked(
    con: DuckDBPyConnection,
    found: Sequence[tuple[str, Score]],
    shared: Mapping[str, list[SharedIdentifier]],
    threshold: float | None,
) -> tuple[Candidate, ...]:
    """Profiles by probability; those with a linking identifier come first."""
    keys = [key for key, _ in found]
    profile_of = dict(rows(con, f"from ({MEMBERS}) where record_key in (select unnest(?::text[]))", [keys]))
    near: dict[str, list[NearRecord]] = defaultdict(list)
    for key, score in found:
        if key in profile_of:
            is_link = threshold is not None and score.weight >= threshold
            near[profile_of[key]].append(NearRecord(key, score, is_link))
    every = [_candidate(name, near.get(name, []), shared.get(name, [])) for name in {**near, **shared}]
    return tuple(sorted(every, key=_order))


def _candidate(
    profile_id: str, records: Sequence[NearRecord], shared: Sequence[SharedIdentifier]
) -> Candidate:
    by_identifier = any(item.links for item in shared)
    probability = 1.0 if by_identifier else max((r.score.probability for r in records), default=None)
    is_link = by_identifier or any(record.is_link for record in records)
    return Candidate(profile_id, probability, is_link, tuple(records), tuple(shared))


def _order(candidate: Candidate) -> tuple[Any, ...]:
    weight = max((record.score.weight for record in candidate.records), default=float("-inf"))
    sure = any(item.links for item in candidate.shared)
    return (not sure, -weight, -len(candidate.shared), candidate.profile_id)
