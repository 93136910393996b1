"""Published generations made by hand, and deliveries read back, for tests of sharing without the stages before it."""

import functools
import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project, project_at
from profile_pipeline.publish import Generation, generations, point_to
from profile_pipeline.raw.ledger import sha256_of
from profile_pipeline.sharing.deliver import NO_WISHES, Outcome, Wishes, deliver
from profile_pipeline.warehouse import connect, records_of, rows
from profile_pipeline_tests.conftest import read_config

BEGIN = datetime(2026, 4, 1, 6, tzinfo=UTC)
RULES: dict[str, Any] = {
    "sources": {
        "attributes": {
            "given_name": {"type": "given_name"},
            "email": {"type": "email"},
            "phone": {"type": "phone"},
            "tier": {"type": "category"},
            "note": {"type": "text"},
            "points": {"type": "integer"},
            "tags": {"type": "list"},
            "marketing_consent": {"type": "consent"},
            "post_consent": {"type": "consent"},
        },
        "sources": {},
    },
    "identity": {"namespaces": {"email": {"type": "email"}, "crm_id": {}}},
    "profiles": {"default": "golden", "policies": {"golden": {}, "other": {}}},
    "computed": {
        "attributes": {"orders": {"compute": "count"}},
    },
    "audiences": {
        "consent": {"default": "marketing_consent", "purposes": {"service": "none", "post": "post_consent"}},
        "audiences": {
            "gold": {"where": "tier = 'gold'"},
            "all_of_them": {"purpose": "service", "where": "true"},
        },
    },
}
COLUMNS = """profile_id text, kind text, record_count bigint, sources text[], given_name text, email text, phone text,
    tier text, note text, points bigint, tags text[], marketing_consent boolean, post_consent boolean,
    identity_map map(text, text[]), event_count bigint, last_event_at timestamptz, first_observed_at timestamptz,
    last_observed_at timestamptz, flagged boolean, policy text, policy_version integer"""
TABLES = {
    "profiles": (COLUMNS, "profile_id"),
    "profiles_other": (COLUMNS, "profile_id"),
    "computed_attributes": ("profile_id text, orders bigint", "profile_id"),
    "audience_membership": (
        """audience text, profile_id text, entered_at timestamptz, exited_at timestamptz, entry_reason text,
        exit_reason text, exit_detail text""",
        "audience, profile_id, entered_at",
    ),
    "profile_redirects": ("profile_id text, successor text", "profile_id"),
    "profile_history": (
        "revision integer, profile_id text, event text, other_profile_id text, record_count integer",
        "revision, profile_id, event, other_profile_id",
    ),
    "profile_events": ("event_key text, profile_id text, event_type text, payload json", "event_key"),
    "links": ("left_key text, right_key text", "left_key, right_key"),
    "metrics_profiles": ("kind text, profile_count bigint", "kind"),
}
PERSONAL = {"given_name", "email", "phone", "note", "identity_map", "payload", "left_key", "right_key"}


def id_of(number: int) -> str:
    """A profile id."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))


def person(number: int, **fields: Any) -> dict[str, Any]:
    """A profile of somebody who consents, with a name and an address."""
    plain = {
        "profile_id": id_of(number), "kind": "person", "record_count": 1, "sources": ["crm"], "given_name": f"N{number}",
        "email": f"p{number}@example.org", "tier": "gold", "points": number, "marketing_consent": True,
        "identity_map": {"crm_id": [f"C{number}"], "email": [f"p{number}@example.org"]}, "event_count": 0,
        "last_observed_at": BEGIN + timedelta(minutes=number), "flagged": False, "policy": "golden", "policy_version": 1,
    }  # fmt: skip
    return plain | fields


@dataclass
class World:
    """What a generation holds; `stays` default to everybody in `all_of_them`, and the gold ones who consent in `gold`."""

    people: list[dict[str, Any]]
    redirects: dict[str, str] = field(default_factory=dict)
    splits: list[tuple[int, str, str]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    stays: list[dict[str, Any]] | None = None

    def membership(self) -> list[dict[str, Any]]:
        """Rows of audience_membership."""
        if self.stays is not None:
            return self.stays
        members = [("all_of_them", each["profile_id"]) for each in self.people]
        members += [
            ("gold", each["profile_id"])
            for each in self.people
            if each.get("tier") == "gold" and each.get("marketing_consent")
        ]
        return [
            {"audience": a, "profile_id": p, "entered_at": BEGIN, "entry_reason": "condition"}
            for a, p in members
        ]


def make_project(folder: Path, destinations: Mapping[str, Any], **rules: Any) -> Project:
    """A project folder with rules that share to `destinations`."""
    project = project_at(folder)
    project.rules.mkdir(parents=True, exist_ok=True)
    write_sharing(project, destinations)
    for name, document in {**RULES, **rules}.items():
        (project.rules / f"{name}.yaml").write_text(json.dumps(document), encoding="utf-8")
    return project


def write_sharing(project: Project, destinations: Mapping[str, Any]) -> None:
    """Write or replace sharing.yaml; JSON is YAML."""
    text = json.dumps({"destinations": destinations})
    (project.rules / "sharing.yaml").write_text(text, encoding="utf-8")


def publish(project: Project, world: World, as_of: datetime | None = None) -> Generation:
    """Make a world the live generation."""
    number = max((g.number for g in generations(project)), default=0) + 1
    as_of = as_of or BEGIN + timedelta(days=number)
    folder = project.published / f"gen-{number:06d}"
    folder.mkdir(parents=True)
    with duckdb.connect(str(folder / "profiles.duckdb"), config={"threads": 1}) as con:
        con.execute("set TimeZone = 'UTC'")
        for table, found in _content(world).items():
            _fill(con, table, found)
    described = [_described(name, *table) for name, table in TABLES.items()]
    (folder / "dictionary.json").write_text(json.dumps(described), encoding="utf-8")
    manifest = {
        "generation": number, "content": str(number), "as_of": as_of.isoformat(), "batch": number, "revision": number,
        "model": "m1", "policies": {"golden": 1, "other": 2}, "default_policy": "golden", "checks": {"expectations": 3},
        "tables": {"profiles": {"rows": len(world.people)}}, "files": {},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    point_to(project, folder)
    return Generation(number, folder, manifest)


def _content(world: World) -> dict[str, list[dict[str, Any]]]:
    return {
        "profiles": world.people,
        "profiles_other": [each | {"policy": "other", "tier": "other"} for each in world.people],
        "computed_attributes": [
            {"profile_id": each["profile_id"], "orders": index} for index, each in enumerate(world.people)
        ],
        "audience_membership": world.membership(),
        "profile_redirects": [{"profile_id": old, "successor": new} for old, new in world.redirects.items()],
        "profile_history": [
            {"revision": revision, "profile_id": parent, "event": "split", "other_profile_id": child}
            for revision, parent, child in world.splits
        ],
        "profile_events": world.events,
        "links": [{"left_key": "crm:1", "right_key": "crm:2"}],
        "metrics_profiles": [{"kind": "person", "profile_count": len(world.people)}],
    }


def _fill(con: DuckDBPyConnection, table: str, found: Sequence[Mapping[str, Any]]) -> None:
    columns, grain = TABLES[table]
    con.execute(f"create table filling ({columns})")
    for row in found:
        con.execute(
            f"insert into filling ({', '.join(row)}) values ({', '.join('?' for _ in row)})",
            list(row.values()),
        )
    con.execute(f"create table {table} as from filling order by {grain}")
    con.execute("drop table filling")


@functools.cache
def _described(name: str, columns: str, grain: str) -> dict[str, Any]:
    with duckdb.connect() as con:
        con.execute(f"create table shape ({columns})")
        found = rows(con, "describe shape")
    listed = [{"name": c, "type": kind, "personal": c in PERSONAL} for c, kind, *_ in found]
    return {"name": name, "grain": grain, "columns": listed}


def share(
    project: Project, name: str = "partner", wishes: Wishes = NO_WISHES, only: str | None = None
) -> dict[str, Outcome]:
    """Deliver a destination; outcomes by shipment."""
    with connect(project.database, memory="1GB", threads=1) as con:
        found = deliver(con, read_config(project.rules), project, name, wishes, only)
    return {outcome.shipment: outcome for outcome in found}


def ask(project: Project, query: str) -> list[dict[str, Any]]:
    """Rows of the ledger."""
    with connect(project.database, memory="1GB", threads=1) as con:
        return records_of(con, query)


def config_of(project: Project) -> Config:
    """The project's rules."""
    return read_config(project.rules)


@dataclass(frozen=True)
class Arrived:
    """A delivery as its receiver sees it."""

    manifest: dict[str, Any]
    rows: list[dict[str, Any]]


def received(folder: Path) -> Arrived:
    """Read a delivery and hold it to its manifest: files, bytes, hashes, rows, columns; `_SUCCESS` is there."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    names = {path.name for path in folder.iterdir()}
    assert names == {"manifest.json", "_SUCCESS", *(file["name"] for file in manifest["files"])}
    found: list[dict[str, Any]] = []
    for file in manifest["files"]:
        path = folder / file["name"]
        assert (path.stat().st_size, sha256_of(path)) == (file["bytes"], file["sha256"])
        part = read_rows(path, manifest["format"])
        assert len(part) == file["rows"]
        found += part
    assert len(found) == manifest["rows"]
    assert sum(file["bytes"] for file in manifest["files"]) == manifest["bytes"]
    if found:
        assert list(found[0]) == [column["name"] for column in manifest["schema"]]
    return Arrived(manifest, found)


def read_rows(path: Path, form: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of a file in any format."""
    reader = {
        "parquet": "read_parquet(?, hive_partitioning = false)",
        "csv": "read_csv(?, header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"',"
        " hive_partitioning = false)",
        "jsonl": "read_json(?, format = 'newline_delimited', hive_partitioning = false)",
    }[form["type"]]
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        found = records_of(con, f"select * from {reader}", [str(path)])
    # JSON has no types, and ids look like what DuckDB takes for its own
    return [{k: str(v) if isinstance(v, uuid.UUID) else v for k, v in row.items()} for row in found]


def replayed(deliveries: Iterable[Arrived], key: str = "profile_id") -> dict[Any, dict[str, Any]]:
    """What a receiver has who applies deliveries one after the other: rows by key."""
    held: dict[Any, dict[str, Any]] = {}
    for delivery in deliveries:
        if delivery.manifest["mode"] == "full":
            held = {}
        for row in delivery.rows:
            plain = {k: v for k, v in row.items() if k not in {"change", "other_profile_id"}}
            if row.get("change") in {"merged", "deleted"}:
                del held[row[key]]  # a receiver must have it
            elif row.get("change") == "updated":
                assert row[key] in held
                held[row[key]] = plain
            else:
                assert row[key] not in held
                held[row[key]] = plain
    return held


def delivered_folders(root: Path, shipment: str) -> list[Path]:
    """Folders of the deliveries of a shipment with the default template, in order."""
    return sorted(
        (path for path in (root / shipment).iterdir() if (path / "_SUCCESS").exists()),
        key=lambda path: path.name.rpartition("_")[2],
    )


def plain_hash(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
