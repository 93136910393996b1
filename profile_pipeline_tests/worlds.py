"""Small random projects for tests: rules, people with typos, deliveries; and the core run without Dagster.

A world is a list of rows; `deliver` decides in which order, files and batches they arrive, which by the laws must
not matter. `snapshot` is what has to be equal: the partition of nodes and everything said about each part.
"""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection
from hypothesis import strategies as st

from profile_pipeline import audiences, metrics, profile_ids, publish, review, runs
from profile_pipeline.computed.build import build_computed
from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import Project, project_at
from profile_pipeline.identity import clusters, edges, features, model, nodes, relationships
from profile_pipeline.profiles import candidates, lineage, policy_versions, timeline, unified
from profile_pipeline.raw import intake, ledger
from profile_pipeline.records import current, events, staging
from profile_pipeline.warehouse import connect, records_of, rows, run_lock

REPOSITORY = Path(__file__).parents[1]
DEMO_RULES = REPOSITORY / "profile_pipeline" / "rules"
DEMO_SOURCES = REPOSITORY / "data" / "sources"
AS_OF = datetime(2026, 4, 1, tzinfo=UTC)

SOURCES = """
attributes:
  given_name: {type: given_name}
  family_name: {type: family_name}
  birth_date: {type: birth_date}
  email: {type: email}
  phone: {type: phone}
  street: {type: street_address}
  city: {type: city}
  segment: {type: category}
sources:
  crm:
    kind: record
    files: crm_*.csv
    format: {type: csv}
    columns: [id, first, last, born, email, phone, street, city, segment, status, moment]
    key: id
    write: replace
    delete_when: status = 'deleted'
    time: {value: moment}
    country: GB
    attributes: {given_name: first, family_name: last, birth_date: born, email: email, phone: phone,
      street: street, city: city, segment: segment}
    identifiers: {crm_id: id, email: email, phone: phone}
  card:
    kind: record
    files: card_*.jsonl
    format: {type: jsonl}
    columns: [number, crm_id, first, last, email, mobile, city, street, tier, moment]
    optional_columns: [crm_id, first, last, email, mobile, city, street, tier]
    key: number
    write: patch
    clear_value: "null"
    time: {value: moment}
    country: GB
    attributes: {given_name: first, family_name: last, email: email, phone: mobile, city: city, street: street,
      segment: tier}
    identifiers: {card: number, crm_id: crm_id, email: email, phone: mobile}
  visit:
    kind: event
    files: visit_*.csv
    format: {type: csv, delimiter: ";"}
    columns: [id, moment, cookie, email, first, type]
    key: lower(trim(email))
    write: patch
    time: {value: moment}
    event: {id: id, type: type}
    attributes: {email: email, given_name: first}
    identifiers: {email: email, cookie: cookie}
"""
PROFILES = """
default: golden
policies:
  golden:
    sources: {crm: 1, card: 2}
    choose: [most_recent, source_priority]
    groups:
      address: {fields: [street, city], choose: [most_complete, most_recent, source_priority]}
    fields:
      given_name: {choose: [most_frequent, source_priority, most_recent]}
      birth_date: {choose: [most_precise, most_frequent]}
      segment: {choose: [least_recent], sources: {card: 1}}
  newest: {method: time_ordered}
  ranked: {method: dataset_precedence, sources: {crm: 1, card: 2}, unlisted: exclude}
"""
IDENTITY = """
namespaces:
  crm_id: {priority: 10}
  card: {priority: 20}
  email: {type: email, priority: 30, link: {link}, unique: {unique}}
  phone: {type: phone, priority: 40, link: false, unique: 2}
  cookie: {kind: cookie}
matching: {matching}
clustering: {max_cluster_size: {size}}
"""
AUDIENCES = """
audiences:
  reachable: {where: email is not null}
  gold: {where: segment = 'gold'}
"""
COLUMNS = {
    "crm": ["id", "first", "last", "born", "email", "phone", "street", "city", "segment", "status", "moment"],
    "visit": ["id", "moment", "cookie", "email", "first", "type"],
}
NAMES = [("Anna", "Meyer"), ("John", "Greene"), ("Zoë", "O'Brien"), ("Jon", "Green"), ("Mary", "Smith")]
MATCHING_OFF = "{enabled: false}"
MATCHING_ON = "{enabled: true}"


@dataclass(frozen=True)
class Row:
    """One row of a source; `line` instead of fields when it is malformed."""

    source: str
    fields: tuple[tuple[str, str | None], ...] = ()
    line: str = ""


@dataclass(frozen=True)
class World:
    """Rows in the order they were drawn, and the rules they are read under."""

    rows: tuple[Row, ...]
    link_email: bool = True
    unique_email: int = 2
    size: int = 100
    matching: str = MATCHING_OFF


LINKED = World((), link_email=True, unique_email=3)
"""Rules without rows: people who share an e-mail address are one."""


@dataclass
class State:
    """What must not depend on the way of delivery: everything by the set of nodes that is one person."""

    partition: set[frozenset[str]] = field(default_factory=set)
    values: dict[Any, Any] = field(default_factory=dict)
    identifiers: dict[Any, Any] = field(default_factory=dict)
    events: dict[Any, Any] = field(default_factory=dict)
    audiences: set[Any] = field(default_factory=set)


def write_rules(folder: Path, world: World) -> Project:
    """The rules of a world in a project folder."""
    project = project_at(folder)
    project.rules.mkdir(parents=True, exist_ok=True)
    (project.rules / "sources.yaml").write_text(SOURCES, encoding="utf-8")
    (project.rules / "profiles.yaml").write_text(PROFILES, encoding="utf-8")
    (project.rules / "audiences.yaml").write_text(AUDIENCES, encoding="utf-8")
    identity = IDENTITY.replace("{link}", str(world.link_email).lower()).replace(
        "{unique}", str(world.unique_email)
    )
    identity = identity.replace("{matching}", world.matching).replace("{size}", str(world.size))
    (project.rules / "identity.yaml").write_text(identity, encoding="utf-8")
    return project


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A temporary folder, in memory where there is room: a run's history commits a thousand times."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * 2**30
    with tempfile.TemporaryDirectory(prefix="profiles-", dir=memory if roomy else None) as folder:
        yield Path(folder)


@contextmanager
def temporary_project(world: World) -> Iterator[Project]:
    """A fresh project folder with the rules of a world."""
    with quick_folder() as folder:
        yield write_rules(folder, world)


def deliver(project: Project, delivered: Sequence[Row], name: str) -> list[str]:
    """Write rows as one file a source, in the given order; the names of the files."""
    folder = project.data / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    by_source: dict[str, list[Row]] = defaultdict(list)
    for row in delivered:
        by_source[row.source].append(row)
    written = []
    for source, own in sorted(by_source.items()):
        path = folder / f"{source}_{name}.{'jsonl' if source == 'card' else 'csv'}"
        path.write_text("".join(_header(source)) + "".join(map(_line, own)), encoding="utf-8", newline="")
        written.append(path.name)
    return written


def _header(source: str) -> str:
    return "" if source == "card" else _csv(source, COLUMNS[source])


def _line(row: Row) -> str:
    if row.line:
        return row.line + "\n"
    values = dict(row.fields)
    if row.source == "card":
        return json.dumps(values) + "\n"
    return _csv(row.source, [values.get(column) or "" for column in COLUMNS[row.source]])


def _csv(source: str, values: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=";" if source == "visit" else ",", lineterminator="\n").writerow(values)
    return text.getvalue()


# ---------------------------------------------------------------- random rows


def moments() -> st.SearchStrategy[str]:
    """Business times of half a day, nearer than a session's gap; ties are likely."""
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    return st.integers(0, 20).map(
        lambda n: (begin + timedelta(minutes=17 * n)).strftime("%Y-%m-%dT%H:%M:%SZ")
    )


def _misspelt(text: str, how: int) -> str:
    return [text, text.upper(), text.lower(), text[:2] + text[3:], f" {text} "][how]


def _person(number: int) -> dict[str, str]:
    first, last = NAMES[number % len(NAMES)]
    return {
        "first": first, "last": last, "born": f"19{70 + number}-0{number + 1}-15", "email": f"p{number}@mail{number}.org",
        "phone": f"020 7946 0{100 + number}", "mobile": f"+44 20 7946 0{100 + number}",
        "street": f"{number + 1} High St", "city": ["Leeds", "York", "Hull"][number % 3],
    }  # fmt: skip


@st.composite
def crm_rows(draw: st.DrawFn) -> Row:
    person = _person(draw(st.integers(0, 4)))
    typo, gaps = (
        draw(st.integers(0, 4)),
        draw(st.sets(st.sampled_from(["born", "email", "phone", "street", "city"]), max_size=2)),
    )
    values = {
        key: _misspelt(value, typo) if key in {"first", "last", "email"} else value
        for key, value in person.items()
    }
    values |= dict.fromkeys(gaps, "")
    values |= {
        "id": f"c{draw(st.integers(0, 6))}",
        "segment": draw(st.sampled_from(["gold", "silver", ""])),
        "status": draw(st.sampled_from(["active"] * 6 + ["deleted"])),
        "moment": draw(moments()),
    }
    return Row("crm", tuple((key, values[key]) for key in COLUMNS["crm"]))


@st.composite
def card_rows(draw: st.DrawFn) -> Row:
    person = _person(draw(st.integers(0, 4)))
    offered = {"first": person["first"], "last": person["last"], "email": person["email"], "mobile": person["mobile"],
               "city": person["city"], "street": person["street"], "crm_id": f"c{draw(st.integers(0, 6))}",
               "tier": draw(st.sampled_from(["gold", "bronze"]))}  # fmt: skip
    said = draw(st.sets(st.sampled_from(sorted(offered)), min_size=1))
    nulls = draw(st.sets(st.sampled_from(["mobile", "email", "tier", "city"]), max_size=1))
    values: dict[str, str | None] = {"number": f"k{draw(st.integers(0, 4))}", "moment": draw(moments())}
    values |= {key: offered[key] for key in sorted(said)}
    values |= dict.fromkeys(sorted(nulls))
    return Row("card", tuple(values.items()))


@st.composite
def visit_rows(draw: st.DrawFn) -> Row:
    person = _person(draw(st.integers(0, 4)))
    known = draw(st.booleans())
    values = {
        "id": f"v{draw(st.integers(0, 20))}",
        "moment": draw(moments()),
        "cookie": draw(st.sampled_from(["", "k1", "k2", "k3"])),
        "email": person["email"] if known else "",
        "first": person["first"] if known and draw(st.booleans()) else "",
        "type": draw(st.sampled_from(["view", "order"])),
    }
    return Row("visit", tuple(values.items()))


def bad_rows() -> st.SearchStrategy[Row]:
    """Malformed lines, and rows that an expectation refuses."""
    return st.sampled_from(
        [
            Row("crm", line="only,three,fields"),
            Row("crm", line=",No,Key,,,,,,,active,2026-03-01T00:00:00Z"),
            Row("card", line='{"number": "k1", '),
            Row("card", line='["not", "an", "object"]'),
            Row("visit", line="v99;not a time;k1;;;view"),
            Row("visit", line=";2026-03-01T00:00:00Z;k1;;;view"),
        ]
    )


@st.composite
def worlds(draw: st.DrawFn, *, bad: bool = False, matching: str = MATCHING_OFF, rules: bool = True) -> World:
    """A world of ten to forty rows."""
    good = st.one_of(crm_rows(), crm_rows(), card_rows(), visit_rows())
    kinds = st.one_of(good, good, good, bad_rows()) if bad else good
    found = draw(st.lists(kinds, min_size=10, max_size=40))
    if not rules:
        return World(tuple(found), matching=matching)
    return World(
        tuple(found),
        link_email=draw(st.booleans()),
        unique_email=draw(st.integers(1, 3)),
        size=draw(st.sampled_from([3, 100])),
        matching=matching,
    )


# ---------------------------------------------------------------- the core, without Dagster


@contextmanager
def warehouse_of(project: Project) -> Iterator[DuckDBPyConnection]:
    """The warehouse of a project, under its lock."""
    with run_lock(project.state), connect(project.database, memory="1GiB") as con:
        yield con


def run_core(
    project: Project, as_of: datetime = AS_OF, *, rebuild: bool = False, like: Path | None = None
) -> None:
    """Every stage up to metrics, in order; `like` is a warehouse whose matching model is used instead of training one."""
    config = load_config(project.rules)
    with warehouse_of(project) as con:
        if rebuild:
            runs.forget_derived(con)
        take_in(con, config, project, as_of)
        if like:
            borrow_model(con, like)
        resolve(con, config)
        unify(con, config)


def run_and_publish(
    project: Project, as_of: datetime = AS_OF, *, rebuild: bool = False
) -> publish.Generation:
    """The core run, then the generation it leads to."""
    run_core(project, as_of, rebuild=rebuild)
    config = load_config(project.rules)
    with warehouse_of(project) as con:
        return publish.publish(con, config, project, runs.check_counts(con, config))


def take_in(con: DuckDBPyConnection, config: Config, project: Project, as_of: datetime) -> None:
    """Raw and records."""
    ledger.scan(con, config, project, as_of)
    for name in config.sources:
        intake.load_source(con, config, project, name)
        staging.stage_source(con, config, name)
    current.build_current(con, config)
    events.build_events(con, config)
    current.build_quarantine(con, config)


def resolve(con: DuckDBPyConnection, config: Config) -> None:
    """Identity."""
    nodes.build_nodes(con, config)
    features.build_features(con, config)
    model.ensure_model(con, config)
    edges.build_edges(con, config)
    clusters.build_clusters(con, config)
    profile_ids.assign_profile_ids(con, config)
    relationships.build_relationships(con, config)
    review.build_review_queue(con, config)


def unify(con: DuckDBPyConnection, config: Config) -> None:
    """Profiles, audiences and metrics."""
    timeline.build_timeline(con, config)
    candidates.build_candidates(con, config)
    lineage.build_lineage(con, config)
    policy_versions.note_versions(con, config)
    unified.build_unified(con, config)
    build_computed(con, config)
    audiences.build_audiences(con, config)
    metrics.build_row_fates(con, config)
    metrics.build_profile_facts(con, config)


def borrow_model(con: DuckDBPyConnection, database: Path) -> None:
    """Copy the models of another warehouse: equal results are promised under the same model only."""
    con.execute(model.TABLES)
    con.execute(f"attach '{database}' as lender (read_only)")
    for table in ("identity.models", "identity.term_frequencies"):
        con.execute(f"insert into {table} by name select * from lender.{table}")
    con.execute(
        "insert into state.built by name select * from lender.state.built where name = 'identity.model'"
    )
    con.execute("detach lender")


def snapshot(project: Project) -> State:
    """The state of a project's warehouse without ids, files and batches."""
    config = load_config(project.rules)
    state = State()
    with warehouse_of(project) as con:
        members = rows(con, f"select profile_id, list(record_key) from ({profile_ids.MEMBERS}) group by 1")
        person = {profile_id: frozenset(keys) for profile_id, keys in members}
        grouped = rows(con, "select list(record_key) from identity.clusters group by cluster_key")
        state.partition = {frozenset(keys) for (keys,) in grouped}
        assert state.partition == set(person.values())
        for policy in config.profiles.policies:
            for row in records_of(con, f"select * from {unified.table_of(config, policy)}"):
                whose = person[row.pop("profile_id")]
                state.values[whose, policy] = {k: str(v) for k, v in row.items()}
        for row in records_of(con, "select * from profiles.identifiers"):
            whose = person[row.pop("profile_id")]
            state.identifiers[whose, row["namespace"], row["value"]] = str(row)
        for key, profile_id, attribution, at in rows(
            con, "select event_key, profile_id, attribution, occurred_at from profiles.events"
        ):
            state.events[key] = (person.get(profile_id), attribution, at)
        inside = rows(con, "select audience, profile_id from audiences.membership where exited_at is null")
        state.audiences = {(name, person[profile_id]) for name, profile_id in inside}
    return state


def ids_of(project: Project) -> dict[str, str]:
    """The profile id of every node."""
    with warehouse_of(project) as con:
        found = rows(con, profile_ids.MEMBERS)
    assert len({key for key, _ in found}) == len(found), "a record has two profile ids"
    return dict(found)


def assert_equal_states(left: State, right: State) -> None:
    """Equal, part by part, so that a failure says where it is."""
    assert left.partition == right.partition
    for part in ("values", "identifiers", "events", "audiences"):
        assert getattr(left, part) == getattr(right, part), part


def parquet_hashes(generation: publish.Generation) -> dict[str, str]:
    """SHA-256 of the Parquet files by name."""
    files = generation.manifest["files"].items()
    return {name: entry["sha256"] for name, entry in files if name.endswith(".parquet")}


# ---------------------------------------------------------------- the real program


def command(project: Project, *arguments: str) -> list[str]:
    """The command line of a project, run from this checkout."""
    return [sys.executable, "-m", "profile_pipeline.cli", *arguments, "--project", str(project.rules.parent)]


def run_command(
    project: Project, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of the command line to its end."""
    return subprocess.run(
        command(project, *arguments),
        cwd=REPOSITORY,
        env={**os.environ, "DAGSTER_DISABLE_TELEMETRY": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def copy_tree(source: Path, target: Path) -> Path:
    """A copy that keeps symbolic links and times, as file ledger and generation pointer need."""
    shutil.copytree(source, target, symlinks=True)
    return target


def files_below(folder: Path) -> Iterable[Path]:
    """Every regular file of a folder, hidden ones included."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
