"""How good the published clusters are, and what other thresholds would give, measured against labels.

Labels only measure: nothing here is read by training or by the choice of the threshold. Only records that
are both current and labelled count. The measures are those of Menestrina, Whang and Garcia-Molina 2010
(pairwise, cluster F1) and Bagga and Baldwin 1998 (B-cubed).
"""

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.errors import PipelineError
from profile_pipeline.records.normalise import filled_query
from profile_pipeline.warehouse import quote, replace_table, rows, scalar, table_exists

COLUMNS = ("source", "record_id", "entity_id")
READERS = {".parquet": "read_parquet($1)", ".csv": "read_csv($1, header = true, all_varchar = true)"}


@dataclass(frozen=True)
class Score:
    """Shares from 0 to 1. Where nothing was claimed (or nothing is true) precision (or recall) is 1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """Published clusters against labels; counts are of records that are current and labelled."""

    records: int
    missing: int
    """Labels whose record is not current: never delivered, refused or deleted."""
    unlabelled: int
    """Current records without a label: left out of every measure."""
    entities: int
    profiles: int
    true_pairs: int
    found_pairs: int
    pairwise: Score
    b_cubed: Score
    clusters: Score
    """Share of profiles that hold exactly the records of one entity, and of entities found so."""


@dataclass(frozen=True)
class ThresholdRow:
    """Scored pairs at or above a match weight, before clustering; recall is of all true pairs."""

    threshold: float
    pairs: int
    score: Score


def evaluate(con: DuckDBPyConnection, labels: Path) -> Evaluation:
    """Measure the current profile ids against a labels file; raises PipelineError for an unfit file."""
    with _labelled(con, labels) as missing:
        if not table_exists(con, "identity.membership"):
            raise PipelineError("no profiles to evaluate; run the pipeline first")
        replace_table(
            con,
            "temp.judged",
            """select record_key, entity_id, profile_id,
                count(*) over (partition by entity_id) as entity_size,
                count(*) over (partition by profile_id) as profile_size,
                count(*) over (partition by entity_id, profile_id) as common
            from temp.labelled join identity.membership using (record_key) where to_revision is null""",
        )
        return _evaluation(con, missing)


def threshold_table(con: DuckDBPyConnection, labels: Path) -> list[ThresholdRow]:
    """Raw scores as a classifier of pairs, at every whole match weight; accepted or not makes no difference."""
    with _labelled(con, labels):
        true = _pairs(con, "select count(*) as n from temp.labelled group by entity_id")
        found = rows(
            con,
            """with weighed as (
                select floor(match_weight) as w, count(*) as pairs, count(*) filter (l.entity_id = r.entity_id) as hits
                from identity.edges e join temp.labelled l on l.record_key = e.left_key
                join temp.labelled r on r.record_key = e.right_key
                where e.type = 'probabilistic' group by 1)
            select w, sum(pairs) over (order by w desc), sum(hits) over (order by w desc) from weighed order by w""",
        )
        return [ThresholdRow(w, int(n), score(int(hits), int(n), true)) for w, n, hits in found]


def score(common: float, claimed: float, true: float) -> Score:
    """Precision, recall and F1 from the sizes of what was claimed, what is true, and their intersection."""
    return Score(
        precision=common / claimed if claimed else 1.0,
        recall=common / true if true else 1.0,
        f1=2 * common / (claimed + true) if claimed + true else 1.0,
    )


def _evaluation(con: DuckDBPyConnection, missing: int) -> Evaluation:
    [(records, entities, profiles, exact, precision, recall)] = rows(
        con,
        """select count(*), count(distinct entity_id), count(distinct profile_id),
            count(distinct profile_id) filter (common = entity_size and common = profile_size),
            avg(common / profile_size), avg(common / entity_size) from temp.judged""",
    )
    true = _pairs(con, "select count(*) as n from temp.judged group by entity_id")
    found = _pairs(con, "select count(*) as n from temp.judged group by profile_id")
    common = _pairs(con, "select count(*) as n from temp.judged group by entity_id, profile_id")
    unlabelled = scalar(
        con, "select count(*) from records.current anti join temp.labelled using (record_key)"
    )
    return Evaluation(
        records=records, missing=missing, unlabelled=unlabelled, entities=entities, profiles=profiles,
        true_pairs=true, found_pairs=found, pairwise=score(common, found, true),
        b_cubed=_harmonic(precision, recall), clusters=score(exact, profiles, entities),
    )  # fmt: skip


def _harmonic(precision: float | None, recall: float | None) -> Score:
    if precision is None or recall is None:
        return Score(1.0, 1.0, 1.0)
    return Score(precision, recall, 2 * precision * recall / (precision + recall))


def _pairs(con: DuckDBPyConnection, sizes: str) -> int:
    return int(scalar(con, f"select coalesce(sum(n * (n - 1) // 2), 0) from ({sizes})"))


@contextmanager
def _labelled(con: DuckDBPyConnection, labels: Path) -> Generator[int]:
    """Temp table `labelled`: one row a current record with a label; yields how many labels found no record."""
    _read(con, labels)
    try:
        _check(con, labels)
        replace_table(
            con,
            "temp.labelled",
            "select record_key, entity_id from temp.label_file join records.current using (source, source_key)",
        )
        yield scalar(
            con, "select count(*) from temp.label_file anti join records.current using (source, source_key)"
        )
    finally:
        for table in ("label_file", "labelled", "judged"):
            con.execute(f"drop table if exists temp.{table}")


def _read(con: DuckDBPyConnection, labels: Path) -> None:
    reader = READERS.get(labels.suffix.lower())
    if reader is None:
        raise PipelineError(f"{labels.name}: labels are read from .parquet or .csv; convert the file")
    if not labels.is_file():
        raise PipelineError(f"{labels.name}: no such file; give the path of a labels file")
    try:
        columns = [name for name, *_ in rows(con, f"describe select * from {reader}", [str(labels)])]
    except duckdb.Error:
        raise PipelineError(f"{labels.name}: not readable as {labels.suffix[1:]}; write it again") from None
    for column in COLUMNS:
        if column not in columns:
            raise PipelineError(
                f"{labels.name}: no column `{column}`; a labels file has the columns {', '.join(COLUMNS)}"
            )
    # cleaned like the keys of records, so that a label meets its record
    key = filled_query("record_id::text")
    query = f"select distinct source::text as source, {key} as source_key, entity_id::text as entity_id from {reader}"
    try:
        replace_table(con, "temp.label_file", query, [str(labels)])
    except duckdb.Error:
        raise PipelineError(f"{labels.name}: not readable to its end; write it again") from None


def _check(con: DuckDBPyConnection, labels: Path) -> None:
    if not table_exists(con, "records.current"):
        raise PipelineError("no records to evaluate; run the pipeline first")
    for column, name in (("source", "source"), ("source_key", "record_id"), ("entity_id", "entity_id")):
        empty = scalar(con, f"select count(*) from temp.label_file where {quote(column)} is null")
        if empty:
            raise PipelineError(
                f"{labels.name}: column `{name}` is empty in {empty} rows; fill it or drop them"
            )
    known = [name for (name,) in rows(con, "select distinct source from records.current order by 1")]
    for (source,) in rows(con, "select distinct source from temp.label_file order by 1"):
        if source not in known:
            raise PipelineError(
                f"{labels.name}: column `source`: `{source}` is not a source with records here;"
                f" use one of {', '.join(known) or '(none)'}"
            )
    twice = scalar(con, "select count(*) - count(distinct (source, source_key)) from temp.label_file")
    if twice:
        raise PipelineError(
            f"{labels.name}: column `entity_id`: {twice} records have several entities; keep one each"
        )


def best(table: list[ThresholdRow]) -> ThresholdRow | None:
    """The row with the highest F1, the lowest threshold among equals: only ever for a report."""
    return max(table, key=lambda row: (row.score.f1, -row.threshold), default=None)


def rounded(value: float, digits: int = 4) -> float:
    """A share cut, not rounded, so that 0.99996 is not shown as 1."""
    return math.floor(value * 10**digits) / 10**digits
