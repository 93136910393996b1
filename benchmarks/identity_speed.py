"""Seconds and memory of the identity stage on generated records, beside plain Splink in the same run.

    python benchmarks/identity_speed.py --records 100000 --json benchmarks/results/speed.json
    python benchmarks/identity_speed.py --records 100000 --incremental --json benchmarks/results/speed.json

Each measurement runs in a process of its own: this project from current records to published profile ids; Splink with
its library comparisons as it ships them; and lean Splink (no retained columns, threshold at prediction), both with
training, on the same rows, blocking keys and threads. `--incremental` delivers 0.1 %, 1 % and 10 % of the records as
a change after a full run, and asserts that the result equals a full rebuild; both are run three times in turn, and
the middle ones count. Results are kept by number of records.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import held_back
import worlds
from exports import export_features, export_links, export_records
from judge import judge
from measured import Clock, add_results, in_own_process, print_result, this_script, threads
from stages import force_rebuild, load_heavy_libraries, run_identity

from profile_pipeline.config.load import load_config
from profile_pipeline.warehouse import connect, literal, rows, run_lock

SHARES = (0.001, 0.01, 0.1)
LIMIT = 7200.0
RUNS = 3
"""How often a full run and a change are measured: on a shared machine single runs differ by a quarter."""
SYSTEMS = {
    "profile-pipeline": "ours",
    "splink, same rules, defaults": "uncapped",
    "splink, same capped keys, defaults": "splink",
    "splink, same capped keys, lean": "lean",
}


def main() -> None:
    """Prepare the world, measure, print, and add to the results."""
    arguments = _arguments()
    if arguments.work:
        WORK[arguments.work](*arguments.paths)
        return
    with tempfile.TemporaryDirectory(prefix="identity-speed-") as temporary:
        folder = arguments.folder or Path(temporary) / "world"
        people = arguments.people or round(arguments.records / worlds.RECORDS_A_PERSON)
        made = _step("prepare", folder, people)
        found: dict[str, Any] = {"records": made["records"], "people": people, "threads": threads()}
        if arguments.incremental:
            found |= compare_incremental(folder, Path(temporary), arguments.share)
        else:
            found |= compare_systems(folder, Path(temporary), arguments.system)
    if arguments.json:
        add_results(arguments.json, str(arguments.records), found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000, help="size of the world, about")
    parser.add_argument("--people", type=int, help="exact number of people instead")
    parser.add_argument("--folder", type=Path, help="keep deliveries and loaded records here for other runs")
    parser.add_argument("--incremental", action="store_true", help="changes after a full run, against full")
    parser.add_argument(
        "--share", type=float, nargs="*", default=SHARES, help="shares of the records that change"
    )
    parser.add_argument("--system", nargs="*", default=list(SYSTEMS), choices=SYSTEMS, help="only these")
    parser.add_argument("--json", type=Path, help="results file to add to")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


def _step(work: str, *paths: object) -> dict[str, Any]:
    """A piece of work in a process of its own that has to succeed."""
    done = in_own_process(this_script(__file__, "--work", work, *paths), LIMIT)
    if done["status"] != "done":
        raise SystemExit(f"{work}: {done['status']}: {done['reason']}")
    return done


def compare_systems(folder: Path, temporary: Path, chosen: Sequence[str]) -> dict[str, Any]:
    """Every system on the same rows: seconds, peak memory, and accuracy on the world's truth."""
    truth, work, systems = folder / "truth" / "labels.parquet", temporary / "work", {}
    work.mkdir()
    for system, name in ((system, SYSTEMS[system]) for system in chosen):
        done = in_own_process(this_script(__file__, "--work", name, folder, work), LIMIT)
        if done["status"] == "done":
            done["total_seconds"] = round(sum(done["seconds"].values()), 2)
            done["evaluation"] = judge(work / f"{name}.parquet", truth)
            if name != "ours":
                with_links(work, name)
                done["evaluation_with_strong_identifiers"] = judge(work / f"{name}-linked.parquet", truth)
        systems[system] = done
        print(_line(system, done), flush=True)
    return {"systems": systems, "ratio": _ratios(systems)}


def _line(system: str, done: dict[str, Any]) -> str:
    if done["status"] != "done":
        return f"{system:36}{done['status']}: {done['reason']}"
    f1 = done["evaluation"]["pairwise"]["f1"]
    parts = ", ".join(f"{stage} {seconds}" for stage, seconds in done["seconds"].items())
    return f"{system:36}{done['total_seconds']:8.1f} s{done['peak_rss_mb']:7} MB  F1 {f1:.4f}  ({parts})"


def _ratios(systems: dict[str, Any]) -> dict[str, float]:
    """How many times as long as this project each other system takes."""
    own = systems.get("profile-pipeline", {}).get("total_seconds")
    others = {name: s["total_seconds"] for name, s in systems.items() if s["status"] == "done"}
    return {name: round(seconds / own, 2) for name, seconds in others.items() if own and seconds != own}


def measure_ours(folder: str, work: str) -> None:
    """From current records to profile ids, training included."""
    target, clock = Path(work), Clock()
    project = worlds.copied(worlds.world_at(Path(folder)), target / "ours")
    config = load_config(project.rules)
    load_heavy_libraries()
    with run_lock(project.state), connect(project.database) as con:
        worlds.forget_identity(con)
        con.execute("checkpoint")
        run_identity(con, config, clock)
        scored = rows(con, "select count(*) from identity.edges where type = 'probabilistic'")
        export_records(con, target / "ours.parquet")
        export_records(con, target / "records.parquet")
        export_links(con, target / "strong.parquet")
        export_features(con, target / "features.parquet")
    print_result({"seconds": clock.seconds, "scored_pairs": scored[0][0]})


def measure_splink(_folder: str, work: str) -> None:
    """Splink's library comparisons, everything else as it ships."""
    _splink(Path(work), "splink", lean=False)


def measure_uncapped(_folder: str, work: str) -> None:
    """Splink's library comparisons and defaults on the same blocking rules, which Splink does not cap."""
    _splink(Path(work), "uncapped", lean=False, capped=False)


def measure_lean(_folder: str, work: str) -> None:
    """The same without retained columns, and with the threshold at prediction."""
    _splink(Path(work), "lean", lean=True)


def _splink(work: Path, name: str, *, lean: bool, capped: bool = True) -> None:
    from rivals import splink_over_features

    load_heavy_libraries()
    print_result(splink_over_features(work, work / f"{name}.parquet", lean=lean, capped=capped))


def with_links(work: Path, name: str) -> None:
    """Splink's clusters joined by the strong identifiers that this project links by as well: the fair comparison."""
    from plain_splink import write_components

    with duckdb.connect() as con:
        given, target = literal(work / f"{name}.parquet"), work / f"{name}-linked.parquet"
        con.execute(f"create table records as select *, record_key as unique_id from read_parquet({given})")
        con.execute(
            f"""create table links as select record_key as l, min(record_key) over (partition by cluster) as r
                from records union all select l, r from read_parquet({literal(work / "strong.parquet")})"""
        )
        numbered = work / "components.parquet"
        write_components(con, ["records"], "links", numbered)
        con.execute(
            f"""copy (select source, record_id, c.cluster from records
                join read_parquet({literal(numbered)}) c using (unique_id)) to {literal(target)} (format parquet)"""
        )


def compare_incremental(folder: Path, temporary: Path, shares: Sequence[float]) -> dict[str, Any]:
    """A full run with training, then a change of each share, as a change and as a rebuild under the same model."""
    found = []
    for share in shares:
        work = temporary / f"share-{share}"
        befores, runs = [], []
        for _ in range(RUNS):
            befores.append(_step("before", folder, work, share))
            runs.append(_step("change", folder, work, share))
        before, change = (sorted(measured, key=_total)[RUNS // 2] for measured in (befores, runs))
        whole = _step("rebuild", folder, work, share)
        full, took = _total(before), _total(change)
        found.append(
            {
                "share": share, **change["changed"], "equal": _equal(work), "full_seconds": full,
                "full_runs": [_total(run) for run in befores], "rebuild_seconds": _total(whole),
                "incremental_seconds": took, "incremental_runs": [_total(run) for run in runs],
                "ratio": round(took / full, 4),
                "seconds": {"incremental": change["seconds"], "full": before["seconds"], "rebuild": whole["seconds"]},
                "peak_rss_mb": {"incremental": change["peak_rss_mb"], "full": before["peak_rss_mb"]},
            }
        )  # fmt: skip
        print(json.dumps(found[-1]), flush=True)
        if not found[-1]["equal"]:
            raise SystemExit(f"share {share}: the incremental state differs from the full rebuild")
    return {"incremental": found}


def _total(done: dict[str, Any]) -> float:
    return round(sum(done["seconds"].values()), 2)


def measure_before(folder: str, work: str, share: str) -> None:
    """The first full run, on the world before the change; its state stays in `work`."""
    source, clock = worlds.world_at(Path(folder)), Clock()
    project = worlds.copied(source, Path(work) / "before")
    config = load_config(project.rules)
    load_heavy_libraries()
    with run_lock(project.state), connect(project.database) as con:
        worlds.forget_identity(con)
        held_back.write_before(con, config, source.database, held_back.of_share(float(share)))
        con.execute("checkpoint")
        run_identity(con, config, clock)
    print_result({"seconds": clock.seconds})


def measure_change(folder: str, work: str, share: str) -> None:
    """The change, taken in by the run after."""
    _after(Path(folder), Path(work), "change", float(share), rebuild=False)


def measure_rebuild(folder: str, work: str, share: str) -> None:
    """The same records and ledger, everything computed afresh."""
    _after(Path(folder), Path(work), "rebuild", float(share), rebuild=True)


def _after(folder: Path, work: Path, name: str, share: float, *, rebuild: bool) -> None:
    source, clock = worlds.world_at(folder), Clock()
    project = worlds.copied(worlds.world_at(work / "before"), work / name)
    config, change = load_config(project.rules), held_back.of_share(share)
    load_heavy_libraries()
    with run_lock(project.state), connect(project.database) as con:
        held_back.write_after(con, config, source.database, change)
        con.execute("checkpoint")  # where the records stage of a run would end
        os.sync()
        if rebuild:
            force_rebuild(con)
        run_identity(con, config, clock)
        con.execute(f"copy ({STATE}) to {literal(work / f'{name}.parquet')} (format parquet)")
    print_result({"seconds": clock.seconds, "changed": _counts(source.database, change)})


STATE = """select c.record_key, c.cluster_key, m.profile_id from identity.clusters c
    left join identity.membership m on m.record_key = c.record_key and m.to_revision is null"""


def _counts(whole: Path, change: held_back.Change) -> dict[str, int]:
    """Records that are new, changed, deleted."""
    kinds = ("new", "changed", "deleted")
    counted = ", ".join(f"count(*) filter ({change.where(kind)})" for kind in kinds)
    with duckdb.connect(str(whole), read_only=True) as con:
        [found] = con.execute(f"select {counted} from records.current").fetchall()
    return dict(zip(kinds, found, strict=True))


def _equal(work: Path) -> bool:
    """Whether both ways end in the same clusters and the same profile ids."""
    one, other = (
        f"select * from read_parquet({literal(work / f'{n}.parquet')})" for n in ("change", "rebuild")
    )
    with duckdb.connect() as con:
        differing = con.execute(
            f"select count(*) from (({one} except all {other}) union all ({other} except all {one}))"
        ).fetchall()
    return differing == [(0,)]


def prepare(folder: str, people: str) -> None:
    """Deliver and load the world; not part of any measurement."""
    print_result({"records": worlds.prepare(Path(folder), int(people), with_events=False)})


WORK = {
    "prepare": prepare, "ours": measure_ours, "uncapped": measure_uncapped, "splink": measure_splink,
    "lean": measure_lean,
    "before": measure_before, "change": measure_change, "rebuild": measure_rebuild,
}  # fmt: skip


if __name__ == "__main__":
    main()
