"""Guards: limits on whole deliveries of a source. A batch beyond one keeps everything from being published.

What a guard that fails has to say names batches, files and reasons, and the ways out; no values.
"""

from collections import Counter

from duckdb import DuckDBPyConnection

from profile_pipeline.config.sources import Source
from profile_pipeline.quality import Outcome
from profile_pipeline.warehouse import literal, rows, scalar

GUARDS = ("error_share", "volume", "min_rows")
NAMED = 5
"""Batches, reasons and files that one message names."""
REFUSED = """
    select _file as file_id, reason from failures join staged using (row_id)
    union all select file_id, reason from raw.rejects"""
"""Grain: one row a reason of a refused row, of the files that are judged."""


def judge(con: DuckDBPyConnection, name: str, source: Source, files: list[int]) -> list[Outcome]:
    """What the guards say of the batches of files, batch by batch, so that a rebuild judges as the runs before it did.

    Reads the rows to judge from `staged`, and the reasons why some are refused from `failures`.
    """
    con.execute(f"create or replace temp table delivered_batches as {_batches_query(name, files)}")
    outcomes = [_error_share(con, name, source)]
    if source.delivery == "full":
        outcomes.append(_volume(con, name, source))
    if source.guards.min_rows:
        outcomes.append(_min_rows(con, name, source))
    con.execute("drop table delivered_batches")
    return outcomes


def _batches_query(name: str, files: list[int]) -> str:
    """Grain: batch with at least one of the files; rows delivered, of these unusable, and those of the batch before."""
    listed = ", ".join(map(str, files)) or "null"
    return f"""
        with delivered as (
            select batch, sum(row_count) as delivered, sum(rejected_count) as malformed,
                lag(sum(row_count)) over (order by batch) as before, bool_or(file_id in ({listed})) as pending
            from raw.files where source = {literal(name)} and state = 'loaded' group by batch
        ), refused as (
            select batch, count(distinct row_id) as refused from failures join staged using (row_id) group by batch
        )
        select batch, delivered, malformed + coalesce(refused, 0) as bad, before, volume_accepted
        from delivered join raw.batches using (batch) left join refused using (batch) where pending"""


def _error_share(con: DuckDBPyConnection, name: str, source: Source) -> Outcome:
    limit = source.guards.max_error_share
    [(delivered, bad)] = rows(
        con, "select coalesce(sum(delivered), 0), coalesce(sum(bad), 0) from delivered_batches"
    )
    beyond = rows(
        con,
        "select batch, bad::bigint, delivered::bigint from delivered_batches where bad > ? * delivered order by batch",
        [limit],
    )
    notes = (
        _too_many_refused(con, name, limit, beyond)
        if beyond
        else f"at most {limit:.1%} of a delivery may be refused"
    )
    return Outcome("error_share", "critical", not beyond, int(delivered), int(bad), notes=notes)


def _too_many_refused(
    con: DuckDBPyConnection, name: str, limit: float, beyond: list[tuple[int, int, int]]
) -> str:
    told = [
        f"batch {batch}: {bad:,} of {delivered:,} rows are refused ({_reasons(con, name, batch)})"
        for batch, bad, delivered in beyond
    ]
    return (
        f"{_few(told, '; ')}; at most {limit:.1%} of a delivery may be; {_revert([batch for batch, *_ in beyond])} so that"
        f" it can come mended in a new file, a higher guards.max_error_share of sources.{name} lets it in and its refused"
        " rows into quarantine"
    )


def _reasons(con: DuckDBPyConnection, name: str, batch: int) -> str:
    """Why rows of a batch are refused, the most frequent reason first, and the files they are in."""
    found = rows(
        con,
        f"select f.name, r.reason, count(*) from ({REFUSED}) r join raw.files f using (file_id)"
        " where f.source = ? and f.batch = ? and f.state = 'loaded' group by all order by all",
        [name, batch],
    )
    counts = Counter[str]()
    for _, reason, number in found:
        counts[reason] += number
    reasons = _few([f"{reason}: {number:,}" for reason, number in counts.most_common()])
    return f"{reasons}; in {_few(sorted({file for file, *_ in found}))}"


def _few(names: list[str], joint: str = ", ") -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return joint.join(names[:NAMED]) + more


def _revert(batches: list[int]) -> str:
    """The commands that take batches back, as the beginning of a sentence."""
    commands = [f"`profile-pipeline batch revert {batch}`" for batch in batches]
    return f"{' and '.join(commands)} {'takes it' if len(commands) == 1 else 'take them'} back"


def _volume(con: DuckDBPyConnection, name: str, source: Source) -> Outcome:
    """A full delivery that is far smaller than the one before would delete the people it lacks."""
    share = source.guards.min_volume_share
    delivered = scalar(con, "select coalesce(sum(delivered), 0) from delivered_batches")
    small = rows(
        con,
        "select batch, delivered::bigint, before::bigint from delivered_batches"
        " where delivered < ? * before and not volume_accepted order by batch",
        [share],
    )
    notes = f"a full delivery has at least {share:.0%} of the rows of the one before"
    if small:
        told = [
            f"batch {batch}: {now:,} rows after {before:,} in the delivery before (in {_files(con, name, batch)})"
            for batch, now, before in small
        ]
        notes = (
            f"{_few(told, '; ')}; {notes}; {_revert([batch for batch, *_ in small])}, `profile-pipeline run"
            " --accept-volume-change` lets it in and deletes what it lacks"
        )
    lacking = sum(before - now for _, now, before in small)
    return Outcome("volume", "critical", not small, int(delivered), lacking, notes=notes)


def _files(con: DuckDBPyConnection, name: str, batch: int) -> str:
    found = rows(
        con,
        "select name from raw.files where source = ? and batch = ? and state = 'loaded' order by name",
        [name, batch],
    )
    return _few([file for (file,) in found])


def _min_rows(con: DuckDBPyConnection, name: str, source: Source) -> Outcome:
    """Judged on everything delivered so far: a project that lacks a whole source publishes nothing."""
    least = source.guards.min_rows
    present = scalar(con, f"select count(*) from records.{name} where reasons is null")
    notes = f"a project needs at least {least:,} usable rows of this source"
    if present < least:
        notes = f"{notes}, there are {present:,}; deliver more, or lower guards.min_rows of sources.{name}"
    return Outcome("min_rows", "critical", present >= least, present, max(least - present, 0), notes=notes)
