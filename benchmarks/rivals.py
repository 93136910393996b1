"""This project, plain Splink, Splink's documented examples and GoldenMatch on the same sets, with one evaluator.

    python benchmarks/rivals.py --data FOLDER [--set NAME ...] --json benchmarks/results/rivals.json

FOLDER holds a folder a set, with `records.parquet` and `labels.parquet` (see benchmarks/README.md). Every system
runs in a process of its own, under the same time limit; what crashes or is stopped is reported as such.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import accuracy
import duckdb
from exports import Features, export_features, export_records
from judge import judge
from measured import in_own_process, print_result, this_script, threads, write_results

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements-goldenmatch.txt"
SYSTEMS = (
    "profile-pipeline", "splink, same blocking", "splink, documented", "goldenmatch, zero configuration",
    "goldenmatch, probabilistic",
)  # fmt: skip
LIMIT = 900.0


def main() -> None:
    """Measure every system on every set, or do the one piece of work that a process of its own was made for."""
    arguments = _arguments()
    if arguments.work:
        WORK[arguments.work](*arguments.paths)
        return
    python = goldenmatch_python(arguments.cache) if "goldenmatch" in " ".join(arguments.system) else Path()
    results: dict[str, Any] = {"limit_seconds": arguments.limit, "threads": threads(), "sets": {}}
    if arguments.add and arguments.json.exists():
        results["sets"] = json.loads(arguments.json.read_text(encoding="utf-8"))["sets"]
    for folder in accuracy.folders(arguments.data, arguments.set):
        found = results["sets"].setdefault(folder.name, {})
        with tempfile.TemporaryDirectory() as temporary:
            for system in arguments.system:
                found[system] = measure(system, folder, Path(temporary), python, arguments.limit)
                print(_line(folder.name, system, found[system]), flush=True)
                write_results(arguments.json, results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with one folder a set")
    parser.add_argument("--set", nargs="*", default=[], help="names of sets; default: all")
    parser.add_argument("--system", nargs="*", default=list(SYSTEMS), choices=SYSTEMS, help="default: all")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a system may take for a set")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where environments are kept")
    parser.add_argument("--json", type=Path, help="where the results are written")
    parser.add_argument("--add", action="store_true", help="keep results of other sets and systems in --json")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.work and not (arguments.data and arguments.json):
        parser.error("--data and --json are needed")
    return arguments


def measure(system: str, folder: Path, work: Path, python: Path, limit: float) -> dict[str, Any]:
    """One system on one set; `work` keeps what the systems hand over (features of this project to Splink)."""
    command, skipped = _command(system, folder, work, python)
    if skipped:
        return {"status": "left out", "reason": skipped}
    clusters = work / "clusters.parquet"
    clusters.unlink(missing_ok=True)
    done = in_own_process(command, limit, work)
    if done["status"] != "done":
        return done
    return {**done, "evaluation": judge(clusters, folder / "labels.parquet")}


def _command(system: str, folder: Path, work: Path, python: Path) -> tuple[list[str], str]:
    """The command that writes clusters.parquet, or why there is none."""
    clusters = work / "clusters.parquet"
    if system.startswith("goldenmatch"):
        given = matchable(folder / "records.parquet", work / "matchable.parquet")
        mode = "zero" if "zero" in system else "probabilistic"
        # it keeps files in the home folder
        home = ["env", f"HOME={work}"]
        return [*home, str(python), str(HERE / "goldenmatch_run.py"), mode, str(given), str(clusters)], ""
    if system == "splink, documented":
        from demo_splink import DEMOS

        skipped = "" if folder.name in DEMOS else "its documentation has no example for this set"
        return this_script(__file__, "--work", "documented", folder, clusters), skipped
    if system == "splink, same blocking":
        skipped = "" if (work / "features.parquet").exists() else "needs a run of profile-pipeline before it"
        return this_script(__file__, "--work", "same-blocking", work, clusters), skipped
    return this_script(__file__, "--work", "ours", folder, work, clusters), ""


def matchable(records: Path, target: Path) -> Path:
    """The columns that this project matches on, as delivered, with source and record_id."""
    with duckdb.connect() as con:
        columns = [
            name for name, *_ in con.execute("describe from read_parquet(?)", [str(records)]).fetchall()
        ]
        used = ", ".join(["source", "record_id", *accuracy.used_columns(columns)])
        con.execute(f"copy (select {used} from read_parquet('{records}')) to '{target}' (format parquet)")
    return target


def run_ours(folder: Path, work: Path, clusters: Path) -> None:
    """The pipeline up to profile ids with its default configuration."""
    with (
        tempfile.TemporaryDirectory(dir=work) as temporary,
        accuracy.finished(folder, Path(temporary)) as run,
    ):
        export_records(run.con, clusters)
        export_features(run.con, work / "features.parquet")
        export_records(run.con, work / "records.parquet")
        print_result({"seconds": run.seconds})


def run_same_blocking(work: Path, clusters: Path) -> None:
    """Splink's library comparisons over this project's normalised rows and blocking keys."""
    print_result(splink_over_features(work, clusters, lean=False))


def splink_over_features(work: Path, clusters: Path, *, lean: bool, capped: bool = True) -> dict[str, Any]:
    """Plain Splink on features.parquet; every record of records.parquet is in the clusters it writes.

    Blocked by the same keys, or, not `capped`, by the same rules as Splink takes them: without a cap on large blocks.
    """
    import plain_splink

    features = Features.read(work / "features.parquet")
    con = plain_splink.open_database(threads())
    con.execute("create table features as from read_parquet(?)", [str(work / "features.parquet")])
    plan = plain_splink.library_plan(set(features.fields), features.blocks, lean=lean)
    if not capped:
        plan = dataclasses.replace(plan, blocking_rules=features.rules)
    by_number = clusters.with_name("by_number.parquet")
    done = plain_splink.resolve(con, ["features"], plan, by_number)
    con.execute(
        f"""copy (
            select r.source, r.record_id, r.record_key, coalesce(b.cluster, r.record_key) as cluster
            from read_parquet('{work / "records.parquet"}') r left join features f using (record_key)
            left join read_parquet('{by_number}') b on b.unique_id = f.unique_id
        ) to '{clusters}' (format parquet)"""
    )
    return done


def run_documented(folder: Path, clusters: Path) -> None:
    """Splink's example for the set, on its rows as delivered."""
    import plain_splink
    from demo_splink import COLUMNS, DEMOS, DERIVED

    con, plan = plain_splink.open_database(threads()), DEMOS[folder.name]()
    query = (
        f"select {COLUMNS}{DERIVED.get(folder.name, '')} from read_parquet('{folder / 'records.parquet'}')"
    )
    con.execute(f"create table everything as {query}")
    tables = ["everything"]
    if plan.link_type == "link_only":
        tables = [s for (s,) in con.execute("select distinct source from everything order by 1").fetchall()]
        for name in tables:
            con.execute(f"create table {name} as select * from everything where source = '{name}'")
    by_number = clusters.with_name("by_number.parquet")
    done = plain_splink.resolve(con, tables, plan, by_number)
    con.execute(
        f"""copy (
            select e.source, e.record_id, coalesce(b.cluster, 'alone ' || e.unique_id) as cluster
            from everything e left join read_parquet('{by_number}') b using (unique_id)
        ) to '{clusters}' (format parquet)"""
    )
    print_result(done)


WORK = {"ours": run_ours, "same-blocking": run_same_blocking, "documented": run_documented}


def default_cache() -> Path:
    """Outside the repository; XDG_CACHE_HOME as usual."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "profile-pipeline-benchmarks"


def goldenmatch_python(cache: Path) -> Path:
    """The interpreter of GoldenMatch's own environment, made on first use from the pinned requirements."""
    name = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache / f"goldenmatch-{name}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print("making GoldenMatch's environment (once) ...", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "-qq", "--no-deps", "-r", str(REQUIREMENTS)]
        subprocess.run([*install, "--disable-pip-version-check"], check=True)
        (folder / "ready").touch()
    return python


def _line(name: str, system: str, found: dict[str, Any]) -> str:
    start = f"{name:20}{system:34}"
    if found["status"] != "done":
        return f"{start}{found['status']}: {found['reason']}"
    e = found["evaluation"]
    figures = [*e["pairwise"].values(), e["b_cubed"]["f1"], e["clusters"]["f1"]]
    seconds = sum(found["seconds"].values())
    return (
        start
        + "".join(f"{figure:8.4f}" for figure in figures)
        + f"{seconds:8.1f} s{found['peak_rss_mb']:7} MB"
    )


if __name__ == "__main__":
    main()
