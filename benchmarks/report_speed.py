"""Seconds and memory of the report of a million profiles, with what changed since the generation before.

    python benchmarks/report_speed.py --data FOLDER --profiles 1000000 --json benchmarks/results/report.json

FOLDER is the data folder of a run that has published, such as the demo's. Its profiles are repeated until there are as many
as asked for, and again with one city in a hundred changed and one profile in a hundred gone: two generations. The tables of
metrics are as small for a million profiles as for a thousand, so they stay; the report then says that its figures disagree.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import duckdb
from measured import Clock, in_own_process, print_result, this_script, threads, write_results

from profile_pipeline.publish import DATABASE, MANIFEST
from profile_pipeline.report import write_report
from profile_pipeline.warehouse import literal, rows, settings

LIMIT = 600.0


def main() -> None:
    """Make two generations, write the report of the second, print and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="data folder of a run that has published")
    parser.add_argument("--profiles", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="results file to write")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        measure(Path(arguments.work))
        return
    with tempfile.TemporaryDirectory(prefix="report-speed-") as temporary:
        for name in ("before", "now"):
            repeat(arguments.data / "published" / "current", Path(temporary) / name, arguments.profiles)
        found = in_own_process(this_script(__file__, "--work", temporary), LIMIT)
    found = {"threads": threads(), "profiles": arguments.profiles, **found}
    print(found)
    if arguments.json:
        write_results(arguments.json, found)


def repeat(source: Path, folder: Path, wanted: int) -> None:
    """A generation with the profiles of another, again and again under other ids."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.parquet", "report.html"))
    with duckdb.connect(config=settings(folder.parent / "tmp", "3GiB", threads())) as con:
        con.execute(f"attach {literal(folder / DATABASE)} as generation")
        con.execute("use generation")
        [(have,)] = rows(con, "select count(*) from profiles")
        changed = "replace (if(n % 100 = 1, 'Elsewhere', city) as city)" if folder.name == "now" else ""
        gone = "n % 100 <> 2" if folder.name == "now" else "true"
        con.execute("create table once as from profiles")
        con.execute(
            f"""create or replace table profiles as
            select * exclude (n) replace (n::text || profile_id as profile_id)
            from (select * {changed} from once, range({wanted // have + 1}) t(n)) where {gone}
            order by profile_id limit {wanted}"""
        )
        con.execute("drop table once")


def measure(folder: Path) -> None:
    """Write the report of the second generation."""
    clock = Clock()
    manifests = {
        name: json.loads((folder / name / MANIFEST).read_text("utf-8")) for name in ("before", "now")
    }
    before = (folder / "before", manifests["before"])
    with clock.stage("report"):
        path = write_report(folder / "now", manifests["now"], before, folder / "tmp")
    print_result({"seconds": clock.seconds, "bytes": path.stat().st_size})


if __name__ == "__main__":
    main()
