"""Fills records.<source>: pending rows are mapped, validated with Great Expectations, and kept or quarantined.

Grain of records.<source>: one row a delivered row. `reasons` is NULL for accepted rows, `doubtful` names fields
that failed an expectation which refuses nothing. New files are
appended; a change of the source's rules, of the normaliser or of earlier files rebuilds the table.
"""

from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from profile_pipeline import quality
from profile_pipeline.config.expectations import Expectation
from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Source
from profile_pipeline.quality import Outcome
from profile_pipeline.records import guards, mapping, normalise
from profile_pipeline.records.blame import explained
from profile_pipeline.records.doubts import doubted_fields, note_doubts
from profile_pipeline.records.mapping import staged_query
from profile_pipeline.warehouse import (
    built,
    columns_of,
    facts,
    fingerprint,
    mark_built,
    quote,
    rows,
    scalar,
    table_exists,
    transaction,
)

TABLES = """
create table if not exists records.loads (source text not null, file_id integer not null, rules text not null);
create table if not exists records.validations (
    source text not null, load integer not null, name text not null, severity text not null,
    success boolean not null, evaluated bigint not null, failed bigint not null, notes text);
create table if not exists records.fill (source text, load integer, field text, share double);
"""


@dataclass(frozen=True)
class Check:
    """The standing result of one expectation: it fails while any load that failed it is still counted."""

    name: str
    severity: str
    success: bool
    evaluated: int
    failed: int
    notes: str


def create_tables(con: DuckDBPyConnection) -> None:
    """The bookkeeping tables of this stage, if they are not there yet."""
    con.execute(TABLES)


def stage_source(con: DuckDBPyConnection, config: Config, name: str) -> None:
    """Bring records.<source> up to date with its loaded files; atomic.

    While its `full` mark stays the same, rows were only added.
    """
    create_tables(con)
    normalise.register(con)
    rules = rules_fingerprint(config, name)
    table = f"records.{name}"
    mark = fingerprint(rules, built(con, f"raw.{name}"))
    with transaction(con):
        files = _pending_files(con, name, rules)
        afresh = not table_exists(con, table)
        if files or afresh:
            _stage_files(con, config, name, files, rules)
        times = facts(con, table).get("times_afresh", 0) + afresh
        mark_built(con, table, mark, {"times_afresh": times, "full": fingerprint(name, rules, times)})


def rules_fingerprint(config: Config, name: str) -> str:
    """Changes whenever rows of the source would be mapped, normalised or validated differently."""
    source = config.sources[name]
    suites = [config.suites.get(f"{schema}.{name}") for schema in ("raw", "records")]
    return fingerprint(
        normalise.VERSION,
        mapping.VERSION,
        source.model_dump(exclude={"description", "owner", "files", "retention"}),
        {field: config.attributes[field].model_dump() for field in source.attributes},
        {space: config.namespaces[space].model_dump() for space in source.identifiers},
        [suite and suite.model_dump() for suite in suites],
        config.profiles.future_tolerance_minutes,
        doubted_fields(config, name),
    )


def _pending_files(con: DuckDBPyConnection, name: str, rules: str) -> list[int]:
    """Files to map now; empties the table when earlier files changed or left, or the rules did."""
    loaded = {
        f for (f,) in rows(con, "select file_id from raw.files where source = ? and state = 'loaded'", [name])
    }
    mapped = dict(rows(con, "select file_id, rules from records.loads where source = ?", [name]))
    if set(mapped) - loaded or any(kept != rules for kept in mapped.values()):
        con.execute(f"drop table if exists records.{name}")
        for table in ("loads", "validations", "fill"):
            con.execute(f"delete from records.{table} where source = ?", [name])
        mapped = {}
    return sorted(loaded - set(mapped))


def _stage_files(con: DuckDBPyConnection, config: Config, name: str, files: list[int], rules: str) -> None:
    source = config.sources[name]
    try:
        con.execute(f"create or replace temp table staged as {staged_query(config, name, files)}")
    except Exception as error:
        raise explained(con, name, source, files, error) from None
    outcomes = _validate(con, config, name, source)
    _quarantine(con, outcomes)
    note_doubts(con, outcomes, doubted_fields(config, name))
    _append(con, name)
    load = scalar(con, "select max(batch) from raw.files where source = ?", [name]) or 0
    outcomes += guards.judge(con, name, source, files)
    _note_outcomes(con, name, load, outcomes)
    _note_fill(con, name, load, list(source.attributes))
    con.executemany(
        "insert into records.loads values (?, ?, ?)", [(name, file_id, rules) for file_id in files]
    ) if files else None
    con.execute("drop table staged")
    con.execute("drop table if exists failures")
    con.execute("drop table if exists doubts")


def _validate(con: DuckDBPyConnection, config: Config, name: str, source: Source) -> list[Outcome]:
    if not scalar(con, "select count(*) from staged"):
        return []
    derived = quality.derived_expectations(config, source)
    own = config.suites.get(f"records.{name}")
    outcomes = quality.validate(con, "staged", [*derived, *(own.expectations if own else [])], "row_id")
    delivered = config.suites.get(f"raw.{name}")
    if delivered:
        con.execute(
            f"create or replace temp table delivered as select d.*, row_id from raw.{name} d"
            " join staged s on d._file = s._file and d._line = s._line"
        )
        outcomes += quality.validate(con, "delivered", delivered.expectations, "row_id")
        con.execute("drop table delivered")
    return outcomes


def _quarantine(con: DuckDBPyConnection, outcomes: list[Outcome]) -> None:
    """Note why rows are refused; an `error` expectation refuses exactly the rows that fail it."""
    import pyarrow as pa

    con.execute("create or replace temp table failures (row_id bigint, reason text)")
    for outcome in outcomes:
        if outcome.severity == "error" and outcome.positions:
            con.register("positions", pa.table({"row_id": pa.array(outcome.positions, pa.int64())}))
            con.execute("insert into failures select row_id, ? from positions", [outcome.name])
            con.unregister("positions")


def _append(con: DuckDBPyConnection, name: str) -> None:
    kept = [
        column for column in columns_of(con, "staged") if not column.startswith("ok__") and column != "row_id"
    ]
    listed = ", ".join(quote(column) for column in kept)
    query = (
        f"select {listed}, md5(concat_ws('|', raw, cleared, deleted, identifiers, source_key)) as content_hash,"
        " reasons, doubtful from staged left join (select row_id, list(reason order by reason) as reasons from failures"
        " group by row_id) using (row_id) left join (select row_id, list(distinct field order by field) as doubtful"
        " from doubts group by row_id) using (row_id)"
    )
    if table_exists(con, f"records.{name}"):
        con.execute(f"insert into records.{name} by name {query}")
    else:
        con.execute(f"create table records.{name} as {query}")


def _note_outcomes(con: DuckDBPyConnection, name: str, load: int, outcomes: list[Outcome]) -> None:
    # what is judged on all rows so far replaces what was said before
    con.execute("delete from records.validations where source = ? and name = 'min_rows'", [name])
    values = [(name, load, o.name, o.severity, o.success, o.evaluated, o.failed, o.notes) for o in outcomes]
    if values:
        con.executemany("insert into records.validations values (?, ?, ?, ?, ?, ?, ?, ?)", values)


def _note_fill(con: DuckDBPyConnection, name: str, load: int, fields: list[str]) -> None:
    shares = quality.filled_shares(con, "staged", fields, "true")
    if shares and scalar(con, "select count(*) from staged") >= 100:
        con.executemany(
            "insert into records.fill values (?, ?, ?, ?)", [(name, load, f, s) for f, s in shares.items()]
        )


def checks(con: DuckDBPyConnection, name: str) -> dict[str, Check]:
    """The standing result of every expectation of a source, by name."""
    found = rows(
        con,
        """select name, any_value(severity), bool_and(success or severity <> 'critical') and
               arg_max(success, load) as success,
               arg_max(evaluated, load), sum(failed),
               coalesce(string_agg(distinct notes, '; ' order by notes) filter (not success), arg_max(notes, load))
           from records.validations where source = ? group by name order by name""",
        [name],
    )
    return {row[0]: Check(row[0], row[1], row[2], row[3], int(row[4]), row[5] or "") for row in found}


def expected_checks(config: Config, name: str) -> list[Expectation]:
    """Every expectation a source has, derived and declared: what the Dagster UI lists."""
    source = config.sources[name]
    own = [s.expectations for schema in ("raw", "records") if (s := config.suites.get(f"{schema}.{name}"))]
    return [*quality.derived_expectations(config, source), *(item for suite in own for item in suite)]


def clock_shares(con: DuckDBPyConnection, name: str) -> dict[str, float]:
    """Shares of the accepted rows without a readable time of their own, and with one too far in the future.

    Both count from the time they came in.
    """
    [(absent, future)] = rows(
        con,
        "select count(*) filter (clock = 'ingestion') / greatest(count(*), 1),"
        f" count(*) filter (clock = 'clipped') / greatest(count(*), 1) from records.{name} where reasons is null",
    )
    return {"share_without_own_time": float(absent), "share_clipped_to_ingestion": float(future)}


def drift(con: DuckDBPyConnection, name: str, limit: float) -> list[tuple[str, float, float]]:
    """Fields whose filled share in the newest load moved by more than `limit`: (field, before, now)."""
    return rows(
        con,
        """with ranked as (select field, share, row_number() over (partition by field order by load desc) as n
            from records.fill where source = ?)
        select field, avg(share) filter (where n > 1) as before, any_value(share) filter (where n = 1) as now
        from ranked group by field having abs(before - now) > ? order by field""",
        [name, limit],
    )
