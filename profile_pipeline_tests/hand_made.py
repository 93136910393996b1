"""Warehouse tables made by hand, so that a test of one stage needs none of the stages before it."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.audiences import AudienceRules
from profile_pipeline.config.computed import ComputedRules
from profile_pipeline.config.expectations import Expectation
from profile_pipeline.config.identity import IdentityRules
from profile_pipeline.config.load import Config
from profile_pipeline.config.profiles import ASKED_BY, ProfileRules
from profile_pipeline.config.publication import PublicationRules
from profile_pipeline.config.sources import Attribute, FileFormat, Source
from profile_pipeline.config.structs import flattened
from profile_pipeline.profile_ids import TABLES as LEDGER
from profile_pipeline.quality import Outcome
from profile_pipeline.records.normalise import value_type
from profile_pipeline.warehouse import SCHEMAS, fingerprint, mark_built, scalar
from profile_pipeline_tests.worlds import COLUMNS, Row

DAY = timedelta(days=1)
BEGIN = datetime(2026, 4, 1, tzinfo=UTC)
STATE = "create table state.built (name text primary key, fingerprint text, code text, built_at timestamptz, facts json)"


def day(number: int) -> datetime:
    """The as-of time of a batch."""
    return BEGIN + number * DAY


@contextmanager
def warehouse() -> Generator[DuckDBPyConnection]:
    """An empty warehouse in memory."""
    settings: dict[str, Any] = {"threads": 1, "memory_limit": "1GB", "python_enable_replacements": False}
    with duckdb.connect(config=settings) as con:
        con.execute("set global TimeZone = 'UTC'")
        for schema in SCHEMAS:
            con.execute(f"create schema {schema}")
        con.execute(STATE)
        yield con


def touch(con: DuckDBPyConnection, *names: str) -> None:
    """Say that tables were written, with new content."""
    for name in names:
        mark_built(con, name, fingerprint(name, datetime.now(UTC).isoformat(), id(con)))


# ---------------------------------------------------------------- clusters, for the ledger of profile ids


def set_clusters(
    con: DuckDBPyConnection, groups: Iterable[Iterable[str]], batch: int = 1, order: Sequence[str] = ()
) -> None:
    """identity.clusters and identity.nodes of a partition; keys that begin with `event:` are event identities."""
    members = {key: (min(group), len(group)) for group in map(list, groups) for key in group}
    keys = [key for key in order if key in members] or list(members)
    columns = [
        keys,
        [members[key][0] for key in keys],
        [members[key][1] for key in keys],
        [_kind(key) for key in keys],
    ]
    con.execute(
        """create or replace temp table given as
        select unnest(?::text[]) as record_key, unnest(?::text[]) as cluster_key, unnest(?::bigint[]) as cluster_size,
            unnest(?::text[]) as kind""",
        columns,
    )
    con.execute(
        """create or replace table identity.clusters as
        select * exclude (kind), false as flagged, hash(record_key) as node from given"""
    )
    con.execute(
        "create or replace table identity.nodes as select record_key, split_part(record_key, ':', 1) as source, kind from given"
    )
    con.execute("create or replace table identity.edges (type text, model_id text)")
    con.execute("create or replace table raw.batches (batch integer, as_of timestamptz)")
    con.execute("insert into raw.batches values (?, ?)", [batch, BEGIN + batch * DAY])
    touch(con, "identity.clusters")


def _kind(key: str) -> str:
    if not key.startswith("event:"):
        return "record"
    return "pseudonymous" if "cookie=" in key else "person"


def set_profiles(con: DuckDBPyConnection, groups: Iterable[Iterable[str]]) -> dict[str, str]:
    """The ledger says that each group is a profile, named after its smallest key; profile id by record."""
    con.execute(LEDGER)
    con.execute("update identity.membership set to_revision = 2 where to_revision is null")
    ids = {key: f"p_{min(group)}" for group in map(list, groups) for key in group}
    con.execute(
        """insert into identity.membership
        select key, profile_id, 1, null, 'new', hash(key)
        from (select unnest(?::text[]) as key, unnest(?::text[]) as profile_id)""",
        [list(ids), list(ids.values())],
    )
    touch(con, "identity.membership")
    return ids


# ---------------------------------------------------------------- records, for merge policies


def config_of(
    attributes: Mapping[str, str | Mapping[str, Any]],
    policies: Mapping[str, Any],
    sources: Sequence[str] = ("a", "b", "c"),
    **other: Any,
) -> Config:
    """Rules with these attributes (name to type or whole), sources and policies; the first policy is the default."""
    default = next(iter(policies))
    profiles = ProfileRules.model_validate({"default": default, "policies": policies})
    declared = {
        name: Attribute.model_validate({"type": said} if isinstance(said, str) else said)
        for name, said in attributes.items()
    }
    return Config.model_construct(
        **flattened(declared, {name: source() for name in sources}, profiles),
        identity=IdentityRules.model_validate(other.get("identity", {"namespaces": {"crm_id": {}}})),
        audiences=AudienceRules.model_validate({"audiences": other.get("audiences", {})}),
        publication=PublicationRules.model_validate(other.get("publication", {})),
        computed=ComputedRules.model_validate(other.get("computed", {})),
        suites={},
    )


OPTIONS = {"trust": {"a": 0.4, "b": 0.9, "c": 0.4}, "custom": "if(value[1] = 'z', 0, 1)"}
"""What the rules trust, weighted_vote and custom ask for."""


def options_for(*rules: str) -> dict[str, Any]:
    """The options that any of these rules asks for; one that none asks for is a mistake."""
    return {name: value for name, value in OPTIONS.items() if ASKED_BY[name] & set(rules)}


def source(**changes: Any) -> Source:
    """A record source."""
    plain = {"kind": "record", "files": "*", "format": FileFormat(type="csv"), "columns": ["id"], "key": "id"}
    return Source.model_validate({**plain, **changes})


def set_records(con: DuckDBPyConnection, config: Config, records: Sequence[Mapping[str, Any]]) -> None:
    """records.current, its profiles and nodes.

    A record has `key` (`source:key`), `profile`, and may have `at` (day), `ingested` (day), `cleared`, `doubtful`, `times`
    (field to day), `raw` (field to text) and any attribute.
    """
    fields = {name: value_type(attribute) for name, attribute in config.attributes.items()}
    columns = "".join(f", {name} {kind}" for name, kind in fields.items())
    raw = ", ".join(f"{name} text" for name in fields)
    con.execute(
        f"""create or replace table records.current (record_key text, source text, source_key text, observed_at timestamptz,
        clock text, ingested_at timestamptz, batch integer, _file integer, _line bigint, content_hash text, cleared text[],
        field_times map(text, timestamptz), doubtful text[]{columns}, raw struct({raw}))"""
    )
    con.execute(
        "create or replace table identity.nodes (record_key text, source text, kind text, content ubigint)"
    )
    con.execute(
        "create or replace table identity.clusters (record_key text, cluster_key text, cluster_size bigint, flagged boolean)"
    )
    con.execute(
        "create or replace table profiles.identifiers (profile_id text, namespace text, value text, record_count bigint)"
    )
    con.execute("create or replace table profiles.events (profile_id text, occurred_at timestamptz)")
    con.execute(LEDGER)
    con.execute("delete from identity.membership")
    for record in records:
        _add_record(con, list(fields), record)
    touch(con, "records.current", "identity.membership", "profiles.identifiers", "profiles.events")


def _add_record(con: DuckDBPyConnection, fields: list[str], record: Mapping[str, Any]) -> None:
    key = record["key"]
    name, _, source_key = key.partition(":")
    times = {field: BEGIN + day * DAY for field, day in record.get("times", {}).items()}
    values = [record.get(field) for field in fields]
    written = {
        f: record.get("raw", {}).get(f, None if record.get(f) is None else str(record[f])) for f in fields
    }
    at = record.get("at", 0)
    con.execute(
        f"""insert into records.current values (?, ?, ?, ?, 'source', ?, 1, 1, 1, ?, ?,
        map(?::text[], ?::timestamptz[]), ?{", ?" * len(fields)}, ?)""",
        [
            key, name, source_key, None if at is None else BEGIN + at * DAY, BEGIN + record.get("ingested", 0) * DAY,
            repr(sorted(record.items())), record.get("cleared", []), list(times), list(times.values()),
            record.get("doubtful"), *values, written,
        ],
    )  # fmt: skip
    add_member(con, key, record["profile"], "record")
    con.execute(
        "insert into profiles.identifiers values (?, 'crm_id', ?, 1)", [record["profile"], source_key]
    )


def add_member(con: DuckDBPyConnection, key: str, profile_id: str, kind: str) -> None:
    """A node that belongs to a profile."""
    con.execute(
        "insert into identity.membership values ($key, $profile_id, 1, null, 'new', hash($key))",
        {"key": key, "profile_id": profile_id},
    )
    con.execute(
        "insert into identity.nodes by name select ? as record_key, ? as source, ? as kind",
        [key, key.split(":")[0], kind],
    )
    con.execute("insert into identity.clusters values (?, ?, 1, false)", [key, profile_id])


# ---------------------------------------------------------------- a whole small project


def all_hold(
    con: DuckDBPyConnection, table: str, suite: Sequence[Expectation], order: str = ""
) -> list[Outcome]:
    """Every expectation holds: for clean rows, without the seconds that Great Expectations takes to load."""
    evaluated = scalar(con, f"select count(*) from {table}")
    return [Outcome(item.label, item.severity, True, evaluated, 0, [], item.notes) for item in suite]


def people(*rows: Mapping[str, str]) -> list[Row]:
    """Clean rows of the source `crm` of worlds.py."""
    blank = dict.fromkeys(COLUMNS["crm"], "") | {"status": "active", "moment": "2026-03-01T00:00:00Z"}
    return [Row("crm", tuple((blank | dict(row)).items())) for row in rows]
