"""Seconds and memory of the profiles stage on generated records: full merges, and changes against them.

    python benchmarks/profiles_speed.py --records 100000 --json benchmarks/results/profiles.json

Twenty fields (the demo's eighteen and two copies) under three policies. Timed are candidates, lineage and unified
profiles; matching is not. `winners_only` is the same without the candidates that lost, so that the difference is what
lineage costs. The change is that of `identity_speed.py`, taken in three times from the same state: the run in the middle
counts, for seconds as few as these differ by a quarter. The benchmark fails when the result differs from a rebuild.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import held_back
import worlds
from duckdb import DuckDBPyConnection
from identity_speed import LIMIT
from measured import Clock, add_results, in_own_process, print_result, this_script, threads
from stages import load_heavy_libraries, run_identity

from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import Project
from profile_pipeline.profiles import candidates, lineage, timeline, unified
from profile_pipeline.warehouse import connect, count, replace_table, rows, run_lock, transaction

SHARE, CHANGES = 0.01, 3
COPIES = {"town": "city", "family_name_again": "family_name"}
"""Fields added to the demo's, and what they repeat."""
TABLES = ("profiles.candidates", "profiles.lineage", "profiles.unified")


def main() -> None:
    """Prepare the world, measure, print, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000, help="size of the world, about")
    parser.add_argument("--folder", type=Path, help="keep deliveries and loaded records here for other runs")
    parser.add_argument("--json", type=Path, help="results file to add to")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        WORK[arguments.work](*arguments.paths)
        return
    with tempfile.TemporaryDirectory(prefix="profiles-speed-") as temporary:
        folder = arguments.folder or Path(temporary) / "world"
        people = round(arguments.records / worlds.RECORDS_A_PERSON)
        found = {"threads": threads(), **_step("prepare", folder, temporary, people)}
        for work in ("full", "winners_only", "match", "rebuild"):
            found[work] = _step(work, folder, temporary)
            print(work, found[work], flush=True)
        del found["match"]
        changes = sorted(
            (_step("change", folder, temporary) for _ in range(CHANGES)), key=lambda c: c["total"]
        )
        found["change"] = changes[CHANGES // 2] | {"totals": [change["total"] for change in changes]}
        print("change", found["change"], flush=True)
    found["equal"] = found["change"].pop("content") == found["rebuild"].pop("content")
    if not found["equal"]:
        raise SystemExit("the changed state differs from the rebuild")
    if arguments.json:
        add_results(arguments.json, str(arguments.records), found)


def _step(work: str, *paths: object) -> dict[str, Any]:
    done = in_own_process(this_script(__file__, "--work", work, *paths), LIMIT)
    if done["status"] != "done":
        raise SystemExit(f"{work}: {done['status']}: {done['reason']}")
    return done


def prepare(folder: str, temporary: str, people: str) -> None:
    """Load the world and match it as it was before the change; nothing of this is timed."""
    worlds.prepare(Path(folder), int(people), with_events=False)
    whole = worlds.copied(worlds.world_at(Path(folder)), Path(temporary) / "whole")
    _widen(whole)
    project = worlds.copied(whole, Path(temporary) / "before")
    config = load_config(project.rules)
    with run_lock(project.state), connect(project.database) as con:
        worlds.forget_identity(con)
        held_back.write_before(con, config, whole.database, held_back.of_share(SHARE))
        _match(con, config)
        records = count(con, "records.current")
        profiles = count(con, "identity.registry", "status = 'active'")
    print_result({"records": records, "profiles": profiles, "fields": len(widened(config).attributes),
                  "policies": len(config.profiles.policies)})  # fmt: skip


def _widen(project: Project) -> None:
    added = "".join(f", {field} as {name}" for name, field in COPIES.items())
    raw = ", ".join(f"{name} := raw.{field}" for name, field in COPIES.items())
    with run_lock(project.state), connect(project.database) as con:
        replace_table(
            con,
            "records.current",
            f"select * replace (struct_insert(raw, {raw}) as raw){added} from records.current",
        )


def _match(con: DuckDBPyConnection, config: Config) -> None:
    run_identity(con, config, Clock())
    timeline.build_timeline(con, config)


def widened(config: Config) -> Config:
    """The rules with two more fields."""
    attributes = {**config.attributes, **{name: config.attributes[field] for name, field in COPIES.items()}}
    return config.model_copy(update={"attributes": attributes})


def measure_full(_folder: str, temporary: str) -> None:
    """Everything from records and memberships; the state stays for the change."""
    project = worlds.copied(worlds.world_at(Path(temporary) / "before"), Path(temporary) / "change")
    _measure(project)


def measure_winners(_folder: str, temporary: str) -> None:
    """Without losers: what the policies cost when nobody asks why."""
    project = worlds.copied(worlds.world_at(Path(temporary) / "before"), Path(temporary) / "winners")
    whole = lineage.lineage_query
    lineage.lineage_query = lambda *given: f"select * from ({whole(*given)}) where won"
    _measure(project)


def match_change(_folder: str, temporary: str) -> None:
    """The change, matched; not timed."""
    whole, project = (worlds.world_at(Path(temporary) / name) for name in ("whole", "change"))
    config = load_config(project.rules)
    with run_lock(project.state), connect(project.database) as con:
        held_back.write_after(con, config, whole.database, held_back.of_share(SHARE))
        _match(con, config)
    worlds.copied(project, Path(temporary) / "rebuild")
    print_result({})


def measure_change(_folder: str, temporary: str) -> None:
    """The change, taken in by the run after."""
    target = Path(temporary) / "changed"
    _measure(worlds.copied(worlds.world_at(Path(temporary) / "change"), target), content=True)
    shutil.rmtree(target)


def measure_rebuild(_folder: str, temporary: str) -> None:
    """The same records and memberships, everything computed afresh."""
    project = worlds.world_at(Path(temporary) / "rebuild")
    with run_lock(project.state), connect(project.database) as con, transaction(con):
        con.execute("delete from state.built where starts_with(name, 'profiles.') and name not in"
                    " ('profiles.identifiers', 'profiles.events')")  # fmt: skip
    _measure(project, content=True)


def _measure(project: Project, *, content: bool = False) -> None:
    clock, config = Clock(), widened(load_config(project.rules))
    load_heavy_libraries()
    with run_lock(project.state), connect(project.database) as con:
        con.execute("checkpoint")
        with clock.stage("candidates"):
            candidates.build_candidates(con, config)
        with clock.stage("lineage"):
            lineage.build_lineage(con, config)
        with clock.stage("unified"):
            unified.build_unified(con, config)
        found: dict[str, Any] = {"rows": count(con, "profiles.lineage")}
        if content:
            found["content"] = [_content(con, table) for table in TABLES]
    print_result({"seconds": clock.seconds, "total": round(sum(clock.seconds.values()), 2), **found})


def _content(con: DuckDBPyConnection, table: str) -> str:
    """The same for the same rows in any order."""
    return str(rows(con, f"select count(*), sum(hash(t)::hugeint) from {table} t")[0])


WORK = {
    "prepare": prepare, "full": measure_full, "winners_only": measure_winners, "match": match_change,
    "change": measure_change, "rebuild": measure_rebuild,
}  # fmt: skip

if __name__ == "__main__":
    main()
