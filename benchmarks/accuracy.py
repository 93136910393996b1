"""Accuracy on labelled data sets with rules made from column names alone: nothing is tuned to a set.

    python benchmarks/accuracy.py --data FOLDER [--set NAME ...] --json OUT

Every folder with `records.parquet` and `labels.parquet` is one set and becomes a project of its own in a
temporary folder, run through the ordinary stages up to profile ids. Labels are read after that, to measure.
The demo deliveries of this repository are one more set, `demo`, under their own rules.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from calibration import calibration
from duckdb import DuckDBPyConnection
from measured import Clock, in_own_process, own_peak_mb, print_result, this_script, write_results
from stages import run_identity

from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import PACKAGE_RULES, Project, project_at
from profile_pipeline.evaluate import best, evaluate, threshold_table
from profile_pipeline.identity import clusters
from profile_pipeline.raw import intake, ledger
from profile_pipeline.records import current, events, staging
from profile_pipeline.warehouse import connect, facts, rows, run_lock

MAPPING: dict[str, dict[str, Any]] = {
    "first_name": {"type": "given_name"}, "middle_name": {"type": "middle_name"},
    "last_name": {"type": "family_name"}, "full_name": {"type": "full_name"},
    "dob": {"type": "birth_date"}, "birth_year": {"type": "birth_date"},
    "sex": {"type": "gender"}, "gender": {"type": "gender"},
    "street_number": {"type": "house_number"}, "street": {"type": "street_address"},
    "address_full": {"type": "street_address"}, "address2": {"type": "text", "match": False},
    "city": {"type": "city"}, "state": {"type": "region"}, "postcode": {"type": "postcode"},
    "id_number": {"type": "national_id"}, "email": {"type": "email"}, "phone": {"type": "phone"},
    "occupation": {"type": "category", "match": True}, "birth_place": {"type": "category", "match": True},
}  # fmt: skip
INSTEAD = {"birth_year": "dob", "address_full": "street"}
"""Columns that are left out when a better one for the same concept exists."""


DEMO = "demo"
LIMIT = 1800.0


@dataclass(frozen=True)
class Run:
    """A finished run up to profile ids."""

    con: DuckDBPyConnection
    config: Config
    seconds: dict[str, float]


def main() -> None:
    """Measure every set in a process of its own, print a line each, keep everything as JSON."""
    arguments = _arguments()
    if arguments.one:
        print_result(measure(arguments.one))
        return
    results: dict[str, Any] = {}
    print(f"{'set':22}{'records':>8}{'pair P':>8}{'R':>8}{'F1':>8}{'B3 F1':>8}{'cl F1':>8}{'thr':>7}"
          f"{'exp P':>7}{'ECE':>7}{'best':>7}{'at':>5}{'cut':>6}{'big':>5}{'sec':>6}{'MB':>6}")  # fmt: skip
    for folder in folders(arguments.data, arguments.set, demo=True):
        found = in_own_process(this_script(__file__, "--one", folder), LIMIT)
        results[folder.name] = found
        done = found["status"] == "done"
        print(_line(folder.name, found) if done else f"{folder.name:22}{found['reason']}", flush=True)
        write_results(arguments.json, results)


def folders(data: Path, names: list[str], *, demo: bool = False) -> list[Path]:
    """The sets of a data folder, all of them when none is named, and the demo where it is wanted."""
    found = sorted(path.parent for path in data.glob("*/records.parquet"))
    if demo:
        found.append(Path(DEMO))
    return [folder for folder in found if not names or folder.name in names]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with one folder a set")
    parser.add_argument("--set", nargs="*", default=[], help="names of sets; default: all")
    parser.add_argument("--json", type=Path, help="where the results are written")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.one and not (arguments.data and arguments.json):
        parser.error("--data and --json are needed")
    return arguments


def _line(name: str, r: dict[str, Any]) -> str:
    found = r["evaluation"]
    shares = [*found["pairwise"].values(), found["b_cubed"]["f1"], found["clusters"]["f1"]]
    peak: dict[str, Any] = r["best_raw"] or {"threshold": 0, "score": {"f1": 0}}
    return (
        f"{name:22}{found['records']:>8}" + "".join(f"{share:8.4f}" for share in shares)
        + f"{r['threshold']:7.2f}{r['expected_precision'] or 0:7.3f}"
        f"{r['calibration']['expected_calibration_error'] or 0:7.4f}{peak['score']['f1']:7.3f}{peak['threshold']:5.0f}"
        f"{r['cut_links']:6}{r['largest_cluster']:5}{sum(r['seconds'].values()):6.1f}{r['peak_rss_mb']:6}"
    )  # fmt: skip


def measure(folder: Path) -> dict[str, Any]:
    """Run one set in a temporary project and evaluate it."""
    with tempfile.TemporaryDirectory() as temporary, finished(folder, Path(temporary)) as run:
        labels = PACKAGE_RULES.parents[1] / "data" / "truth" if folder.name == DEMO else folder
        return _result(run.con, labels / "labels.parquet", run.seconds)


@contextmanager
def finished(folder: Path, target: Path) -> Generator[Run]:
    """A project made of a set, run from files to profile ids; open until the block ends."""
    project = _demo_project(target) if folder.name == DEMO else make_project(folder, target)
    config = load_config(project.rules)
    clock = Clock()
    with run_lock(project.state), connect(project.database) as con:
        _run(con, config, project, clock)
        yield Run(con, config, clock.seconds)


def _demo_project(target: Path) -> Project:
    deliveries = PACKAGE_RULES.parents[1] / "data" / "sources"
    shutil.copytree(deliveries, target / "data" / "sources")
    return Project(rules=PACKAGE_RULES, data=target / "data")


def make_project(folder: Path, target: Path) -> Project:
    """A project whose rules follow from the columns of records.parquet by MAPPING."""
    project = project_at(target)
    sources = project.data / "sources"
    sources.mkdir(parents=True)
    project.rules.mkdir()
    shutil.copyfile(folder / "records.parquet", sources / "records.parquet")
    with duckdb.connect() as con:
        columns = [
            c for c, *_ in rows(con, "describe from read_parquet(?)", [str(folder / "records.parquet")])
        ]
        query = "select distinct source from read_parquet(?) order by 1"
        names = [name for (name,) in rows(con, query, [str(folder / "records.parquet")])]
    for file, content in rules(columns, names).items():
        # JSON is YAML, and never writes the anchors that rule files refuse
        (project.rules / file).write_text(json.dumps(content), encoding="utf-8")
    return project


def rules(columns: list[str], names: list[str]) -> dict[str, Any]:
    """The rule files as plain data; each value of the column `source` becomes a source."""
    used = used_columns(columns)
    source = {
        "kind": "record", "files": "records.parquet", "format": {"type": "parquet"}, "columns": columns,
        "key": "record_id", "attributes": {c: c for c in used},
    }  # fmt: skip
    return {
        "sources.yaml": {
            "attributes": {column: MAPPING[column] for column in used},
            "sources": {name: {**source, "where": f"source = '{name}'"} for name in names},
        },
        "profiles.yaml": {"default": "plain", "policies": {"plain": {}}},
        "publication.yaml": {},
    }


def used_columns(columns: list[str]) -> list[str]:
    """The columns that become attributes."""
    return [c for c in columns if c in MAPPING and INSTEAD.get(c) not in columns]


def _run(con: DuckDBPyConnection, config: Config, project: Project, clock: Clock) -> None:
    with clock.stage("raw"):
        ledger.scan(con, config, project, datetime.now(UTC))
        for name in config.sources:
            intake.load_source(con, config, project, name)
    with clock.stage("records"):
        for name in config.sources:
            staging.stage_source(con, config, name)
        current.build_current(con, config)
        events.build_events(con, config)
    run_identity(con, config, clock)


def _result(con: DuckDBPyConnection, labels: Path, seconds: dict[str, float]) -> dict[str, Any]:
    table = threshold_table(con, labels)
    peak = best(table)
    noted = facts(con, "identity.edges")
    return {
        "evaluation": asdict(evaluate(con, labels)),
        "threshold": noted["threshold"],
        "expected_precision": facts(con, "identity.clusters")["expected_precision"],
        "calibration": calibration(con, labels),
        "capped_blocks": noted.get("capped_blocks"),
        "cut_links": facts(con, "identity.clusters").get("cut_links", 0),
        "largest_cluster": max(clusters.size_histogram(con), default=0),
        "scored_pairs": table[0].pairs if table else 0,
        "blocking_recall_above_floor": table[0].score.recall if table else 0.0,
        "best_raw": asdict(peak) if peak else None,
        "thresholds": [asdict(row) for row in table],
        "seconds": seconds,
        "peak_rss_mb": own_peak_mb(),
    }


if __name__ == "__main__":
    main()
