"""History again from kept rows: after a batch was reverted or restored, and as it was at an earlier time.

Profile ids and stays in audiences follow history, so what a batch left in them cannot be computed from what is
there now. The ledger is wound back to the newest batch before it, which its events allow exactly, and the later
batches are let in again one by one, each with the decisions and pins that its runs knew. All of it happens in a copy
of the warehouse that takes the old one's place at the end: a killed run changes nothing. Which batches count is
decided in `batches`.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from duckdb import DuckDBPyConnection

from profile_pipeline import profile_ids
from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError
from profile_pipeline.identity import model
from profile_pipeline.metrics import history
from profile_pipeline.raw import ledger
from profile_pipeline.warehouse import connect, literal, rows, run_lock, scalar, table_exists, transaction

TABLES = """
create table if not exists state.rewinds (batch integer not null);
create table if not exists identity.withdrawn_events as
    select *, null::timestamptz as withdrawn_at from identity.profile_events where false;
"""
"""Batches from which on history is wrong; what happened to ids in history that was taken back."""
LIFE = ("created", "revived", "merged", "retired")
HELD_BACK = {
    "raw.batches": "batch > {batch}",
    "raw.files": "batch > {batch}",
    "identity.decisions": "decision_id > {decision}",
    "identity.pins": "coalesce(revision, 2147483647) > {revision}",
    "audiences.external_rows": "coalesce(batch, 0) > {batch}",
}
"""Tables of which a replay hides the later part, in state.later_<table>, with what is later."""


@dataclass(frozen=True)
class Point:
    """A moment of history: the batches up to one, the decisions up to one, the pins up to a revision."""

    batch: int
    decision: int
    revision: int
    retrain: bool = False


# ---------------------------------------------------------------- a batch reverted or restored


def note(con: DuckDBPyConnection, batch: int) -> None:
    """Let the next run go through history again from this batch on."""
    profile_ids.create_tables(con)
    con.execute(TABLES)
    con.execute("insert into state.rewinds values (?)", [batch])


def needed(con: DuckDBPyConnection) -> bool:
    """Whether a batch was reverted or restored since the last run."""
    return table_exists(con, "state.rewinds") and bool(scalar(con, "select count(*) from state.rewinds"))


def settle(config: Config, project: Project) -> bool:
    """Go through history again where a batch was reverted or restored since the last run; whether that was so."""
    if not project.database.exists():
        return False
    with run_lock(project.state):
        with connect(project.database) as con:
            if not needed(con):
                return False
        folder = project.state / "replay"
        shutil.rmtree(folder, ignore_errors=True)
        copy = _copied(project, folder)
        with connect(copy) as con:
            replay(con, config, project)
        _put_in_place(copy, project.database)
        shutil.rmtree(folder)
    return True


def _copied(project: Project, folder: Path) -> Path:
    """The warehouse once more; nobody has it open, so it is all in one file."""
    folder.mkdir(parents=True, mode=0o700)
    copy = folder / project.database.name
    shutil.copyfile(project.database, copy)
    copy.chmod(0o600)
    return copy


def _put_in_place(copy: Path, database: Path) -> None:
    handle = os.open(copy, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    copy.replace(database)


def replay(con: DuckDBPyConnection, config: Config, project: Project) -> None:
    """Wind history back to before the first batch that changed, and run the later ones that count again."""
    base = _base(con, scalar(con, "select min(batch) from state.rewinds"))
    start = _point_after(con, base)
    points = list(_points(con, start))
    with transaction(con):
        rewind(con, start)
    if history.incomplete(con):
        _run(con, config, project, retrain=False)
    for point in points:
        with transaction(con):
            _let_in(con, point)
        _run(con, config, project, retrain=point.retrain)
    with transaction(con):
        _let_in(con, Point(2**31 - 1, 2**31 - 1, 2**31 - 1))
        con.execute("delete from state.rewinds")


def _base(con: DuckDBPyConnection, batch: int) -> int:
    """The newest batch whose history stays: before the one that changed, and of an earlier time than what is replayed.

    Stays in audiences are told apart by time only.
    """
    known = f"({_all_batches()})"
    return (
        scalar(
            con,
            f"select max(batch) from {known} where as_of < (select min(as_of) from {known} where batch >= ?)",
            [batch],
        )
        or 0
    )


def _all_batches() -> str:
    return "select batch, as_of from raw.batches union all select batch, as_of from raw.reverted_batches"


def _point_after(con: DuckDBPyConnection, batch: int, until: datetime | None = None) -> Point:
    """Where history stood after the runs of a batch, and before `until`."""
    decided = "true"
    if until and table_exists(con, "identity.decisions"):
        later = f"select decision_id from identity.decisions where decided_at > {literal(until)}::timestamptz"
        decided = f"coalesce(decision_id, 0) < (select coalesce(min(decision_id), 2147483647) from ({later}))"
    found = rows(
        con,
        f"""select revision, coalesce(decision_id, 0) from identity.revisions
        where coalesce(batch, 0) <= ? and {decided} order by revision desc limit 1""",
        [batch],
    )
    revision, decision = found[0] if found else (0, 0)
    return Point(batch, decision, revision)


def _points(con: DuckDBPyConnection, start: Point) -> Iterator[Point]:
    """The runs to repeat: every later batch that counts, and later runs that knew more decisions.

    What the runs of a batch that counts no more knew is known by the next one.
    """
    trained = _trained_after(con, start.batch)
    counted = dict(rows(con, f"select batch, as_of from raw.batches where batch > {start.batch}"))
    revisions = rows(
        con,
        "select batch, coalesce(decision_id, 0), revision from identity.revisions where revision > ? order by revision",
        [start.revision],
    )
    last = start
    for batch in sorted({*counted, *(b for b, _, _ in revisions if b is not None)}):
        own = [Point(last.batch, d, r) for b, d, r in revisions if b == batch]
        if batch in counted:
            own = own or [last]
            own = [Point(batch, p.decision, p.revision) for p in own]
            yield Point(batch, own[0].decision, own[0].revision, retrain=counted[batch] in trained)
        for before, point in pairwise(own):
            if point.decision > before.decision:
                yield point
        last = own[-1] if own else last


def _trained_after(con: DuckDBPyConnection, batch: int) -> set[datetime]:
    """When models were trained after a batch."""
    if not table_exists(con, "identity.models"):
        return set()
    return {at for (at,) in rows(con, f"select trained_as_of from identity.models where {_too_new(batch)}")}


def _too_new(batch: int) -> str:
    """Models trained on more than the batches up to one."""
    newest = f"(select max(as_of) from ({_all_batches()}) where batch <= {batch:d})"
    return f"trained_as_of > coalesce({newest}, timestamptz '-infinity')"


# ---------------------------------------------------------------- winding back


def rewind(con: DuckDBPyConnection, point: Point) -> None:
    """Make history what it was at a point; what came later is held back, and every derived table is due anew."""
    con.execute(TABLES)
    _rewind_models(con, point)
    _rewind_audiences(con, point.batch)
    _rewind_pins_of_values(con, point.batch)
    history.forget_after(con, point.batch)
    _hold_back(con, point)
    _rewind_ledger(con, point.revision)
    if table_exists(con, "identity.queue"):
        con.execute("delete from identity.queue")
    con.execute("delete from state.built")
    if table_exists(con, "records.loads"):
        con.execute("update records.loads set rules = ''")


def _rewind_ledger(con: DuckDBPyConnection, revision: int) -> None:
    """Membership by its revisions; registry and redirects from the last event of each id's life."""
    con.execute(
        "insert into identity.withdrawn_events by name select *, ?::timestamptz as withdrawn_at"
        " from identity.profile_events where revision > ?",
        [datetime.now(UTC), revision],
    )
    for table in ("revisions", "profile_events"):
        con.execute(f"delete from identity.{table} where revision > {revision}")
    con.execute(f"delete from identity.membership where from_revision > {revision}")
    con.execute(f"update identity.membership set to_revision = null where to_revision > {revision}")
    con.execute(f"delete from identity.registry where created_revision > {revision}")
    con.execute(f"create or replace temp table lives as {_lives_query()}")
    con.execute(
        """update identity.registry r set status = if(retired, 'retired', 'active'),
            retired_revision = if(retired, l.revision, null),
            reason = case when retired then if(successor is null, 'emptied', 'merged') end
        from lives l where l.profile_id = r.profile_id and r.status <> 'erased'"""
    )
    con.execute("delete from identity.redirects")
    con.execute(
        "insert into identity.redirects select profile_id, successor, revision from lives"
        " where retired and successor is not null"
    )
    con.execute("drop table lives")
    con.execute("delete from identity.pending_changes")


def _lives_query() -> str:
    """Grain: one row an id: the last event of its life, and where its people went."""
    listed = ", ".join(map(literal, LIFE))
    return f"""
        select profile_id, event in ('merged', 'retired') as retired, other_profile_id as successor, revision
        from identity.profile_events where event in ({listed})
        qualify row_number() over (partition by profile_id order by revision desc) = 1"""


def _rewind_models(con: DuckDBPyConnection, point: Point) -> None:
    """Models that saw later rows go; the one that scored at the time is active again."""
    if not table_exists(con, "identity.models"):
        return
    con.execute(f"delete from identity.models where {_too_new(point.batch)}")
    con.execute(
        "delete from identity.term_frequencies where model_id not in (select model_id from identity.models)"
    )
    used = scalar(con, "select model_id from identity.revisions where revision = ?", [point.revision])
    if used:
        con.execute("update identity.models set active = (model_id = ?)", [used])
    elif not scalar(con, "select count(*) from identity.models where active"):
        newest = "select arg_max(model_id, (trained_as_of, model_id)) from identity.models"
        con.execute(f"update identity.models set active = (model_id = ({newest}))")


def _rewind_audiences(con: DuckDBPyConnection, batch: int) -> None:
    from profile_pipeline import audiences
    from profile_pipeline.audiences import external

    external.create_tables(con)  # what is replayed may make them, and nothing would be held back for them
    if not table_exists(con, "audiences.membership"):
        return
    con.execute(audiences.TABLE)  # its columns, where an older version wrote it
    newest = f"(select max(as_of) from ({_all_batches()}) where batch <= {batch})"
    time = f"coalesce({newest}, timestamptz '-infinity')"
    con.execute(f"delete from audiences.membership where entered_at > {time}")
    again = ", ".join(f"{column} = null" for column in audiences.EXIT)
    con.execute(f"update audiences.membership set {again} where exited_at > {time}")


def _rewind_pins_of_values(con: DuckDBPyConnection, batch: int) -> None:
    """Retirements that later batches brought about are found again by these."""
    if table_exists(con, "profiles.value_pins"):
        con.execute(f"delete from profiles.value_pins where event = 'retired' and batch > {batch}")


# ---------------------------------------------------------------- holding back and letting in


def _hold_back(con: DuckDBPyConnection, point: Point) -> None:
    for table, later, kept in _held_tables(con):
        where = later.format(batch=point.batch, decision=point.decision, revision=point.revision)
        con.execute(f"create or replace table {kept} as select * from {table} where {where}")
        con.execute(f"delete from {table} where {where}")


def _held_tables(con: DuckDBPyConnection) -> list[tuple[str, str, str]]:
    """(table, condition of what is later, table that keeps it)."""
    return [
        (table, later, f"state.later_{table.split('.')[1]}")
        for table, later in HELD_BACK.items()
        if table_exists(con, table)
    ]


def _let_in(con: DuckDBPyConnection, point: Point) -> None:
    """Give back what a point of history knew; a pin counts once its id is there again."""
    for table, later, kept in _held_tables(con):
        where = later.format(batch=point.batch, decision=point.decision, revision=point.revision)
        due, columns = f"from {kept} where not ({where})", "*"
        if table == "identity.pins":
            due += " and profile_id in (select profile_id from identity.registry)"
            columns = "* replace (null::integer as revision)"
        con.execute(f"insert into {table} by name select {columns} {due}")
        con.execute(f"delete {due}")


def _run(con: DuckDBPyConnection, config: Config, project: Project, *, retrain: bool) -> None:
    """What leaves traces in history, in the order of the graph. Changes of ids were accepted when they first came."""
    from profile_pipeline import audiences, metrics
    from profile_pipeline.computed.build import build_computed
    from profile_pipeline.identity import clusters, edges, features, nodes
    from profile_pipeline.profiles import candidates, lineage, timeline, unified
    from profile_pipeline.raw import intake
    from profile_pipeline.records import current, events, staging

    for name in config.sources:
        intake.load_source(con, config, project, name)
        staging.stage_source(con, config, name)
    current.build_current(con, config)
    events.build_events(con, config)
    current.build_quarantine(con, config)
    nodes.build_nodes(con, config)
    features.build_features(con, config)
    model.ensure_model(con, config, retrain=retrain)
    edges.build_edges(con, config)
    clusters.build_clusters(con, config)
    profile_ids.assign_profile_ids(con, config, approve=True)
    timeline.build_timeline(con, config)
    candidates.build_candidates(con, config)
    lineage.build_lineage(con, config)
    unified.build_unified(con, config)
    build_computed(con, config)
    audiences.build_audiences(con, config)
    metrics.build_profile_facts(con, config)


# ---------------------------------------------------------------- as it was


def as_it_was(config: Config, project: Project, moment: datetime, output: Path) -> Project:
    """A project of its own in `output` whose warehouse ends with the last batch that had come by `moment`.

    Running it publishes the profiles as they were. The live project is only read. Raises PipelineError when nothing had
    come by then, or when the folder has something in it.
    """
    if output.exists() and any(output.iterdir()):
        raise PipelineError(f"--output: {output} is not empty; name a new folder")
    past = Project(rules=project.rules, data=output)
    with run_lock(project.state):
        with connect(project.database):  # what a killed run left in the log goes into the file
            pass
        copy = _copied(project, past.state)
    past.past.touch()
    try:
        with connect(copy) as con:
            _go_back(con, config, past, moment)
    except BaseException:
        shutil.rmtree(past.state)
        raise
    return past


def _go_back(con: DuckDBPyConnection, config: Config, past: Project, moment: datetime) -> None:
    ledger.create_tables(con)
    profile_ids.create_tables(con)
    if needed(con):
        replay(con, config, past)
    batch = scalar(con, "select max(batch) from raw.batches where as_of <= ?", [moment])
    if batch is None:
        first = scalar(con, "select min(as_of) from raw.batches")
        raise PipelineError(
            f"--as-of: nothing had come by then; the first batch came at {first:%Y-%m-%dT%H:%M:%SZ}"
        )
    point = _point_after(con, batch, until=moment)
    with transaction(con):
        rewind(con, point)
    with transaction(con):
        _forget_later(con, config, moment)


def _forget_later(con: DuckDBPyConnection, config: Config, moment: datetime) -> None:
    """Decisions count by their own time; no value of a later delivery stays in the copy."""
    for table, _, kept in _held_tables(con):
        if table == "identity.decisions":
            con.execute(f"insert into {table} by name from {kept} where decided_at <= ?", [moment])
        con.execute(f"drop table {kept}")
    if table_exists(con, "profiles.value_pins"):
        con.execute("delete from profiles.value_pins where noted_at > ?", [moment])
    for name in config.sources:
        if table_exists(con, f"raw.{name}"):
            con.execute(f"delete from raw.{name} where _file not in (select file_id from raw.files)")
    con.execute("delete from raw.rejects where file_id not in (select file_id from raw.files)")
