"""Seconds and memory of deliveries of a generation that is written straight to disk: a folder, a bucket, an increment.

    python benchmarks/sharing_speed.py --profiles 1000000 --json benchmarks/results/sharing.json

Twenty columns, of which e-mail and phone leave as keyed hashes, under one consent field; one Parquet file of 250,000 rows
each. `local`: the first, full delivery into a folder. `s3`: the same into a bucket of a server on loopback that speaks S3
(moto, in a process of its own). `change`: an increment after one profile in a hundred changed. Nothing of the stages
before is timed; opening the warehouse, selecting, hashing, comparing, writing, checksums and the ledger are.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
from measured import Clock, add_results, in_own_process, print_result, this_script, threads

from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project, project_at
from profile_pipeline.publish import point_to
from profile_pipeline.sharing.deliver import Outcome, deliver
from profile_pipeline.warehouse import connect, run_lock

LIMIT = 900.0
FIELDS = {
    "given_name": "given_name", "family_name": "family_name", "email": "email", "phone": "phone", "street": "street_address",
    "city": "city", "postcode": "postcode", "country": "country", "segment": "category", "tier": "category",
    "points": "integer", "birth_date": "birth_date", "gender": "gender", "marketing_consent": "consent",
}  # fmt: skip
COLUMNS = [
    "profile_id",
    *FIELDS,
    "record_count",
    "event_count",
    "last_event_at",
    "first_observed_at",
    "last_observed_at",
]
PORT = 5599
QUERY = """
    select md5('p' || n)::uuid::text as profile_id, 'person' as kind, 1 + n % 4 as record_count, ['crm', 'shop'] as sources,
        'Given' || n % 5000 as given_name, 'Family' || n % 90000 as family_name,
        'person' || n || '@mail' || n % 97 || '.example' as email,
        '+4420' || (70000000 + n) as phone, n % 400 || ' High Street' as street, 'Town' || n % 3000 as city,
        'AB' || n % 99 || ' ' || n % 9 || 'CD' as postcode, 'GB' as country, ['a', 'b', 'c'][1 + n % 3] as segment,
        ['gold', 'silver', 'bronze'][1 + n % 3] as tier, n * 7 % 10000 + {extra} as points,
        '19' || 40 + n % 60 || '-05-17' as birth_date,
        ['f', 'm'][1 + n % 2] as gender, n % 10 > 0 as marketing_consent, map {{'email': ['person' || n]}} as identity_map,
        n % 30 as event_count, timestamptz '2026-01-01' + to_minutes(n % 100000) as last_event_at,
        timestamptz '2024-01-01' + to_minutes(n % 500000) as first_observed_at,
        timestamptz '2025-06-01' + to_minutes(n % 300000) as last_observed_at, false as flagged,
        'golden' as policy, 1 as policy_version
    from (select range as n from range({profiles}))"""


def main() -> None:
    """Prepare, measure, print, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profiles", type=int, default=100_000, help="size of the generation")
    parser.add_argument("--json", type=Path, help="results file to add to")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        WORK[arguments.work](*arguments.paths)
        return
    os.environ |= {
        "BENCHMARK_ID": "id",
        "BENCHMARK_SECRET": "secret",
        "BENCHMARK_KEY": "a-key-for-hashing-only",
    }
    with tempfile.TemporaryDirectory(prefix="sharing-speed-") as folder:
        found: dict[str, Any] = {"threads": threads(), "columns": len(COLUMNS)}
        _step("prepare", folder, arguments.profiles)
        found["local"] = _step("folder", folder)
        with _Server(Path(folder)):
            found["s3"] = _step("bucket", folder)
        _step("prepare", folder, arguments.profiles, 2)
        found["change"] = _step("folder", folder)
    print(json.dumps(found, indent=1))
    if arguments.json:
        add_results(arguments.json, str(arguments.profiles), found)


def _step(work: str, *paths: object) -> dict[str, Any]:
    done = in_own_process(this_script(__file__, "--work", work, *paths), LIMIT)
    if done["status"] != "done":
        raise SystemExit(f"{work}: {done['status']}: {done['reason']}")
    return done


class _Server:
    """A server that speaks S3, with a bucket, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "server.log").open("w")

    def __enter__(self) -> None:
        program = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(PORT)]
        self._child = subprocess.Popen(program, stdout=self._log, stderr=self._log)
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}/exchange", method="PUT")
        for _ in range(200):
            with suppress(OSError):
                urllib.request.urlopen(request).close()
                break
            time.sleep(0.1)
        else:
            raise SystemExit("the server does not start")

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        self._child.wait()
        self._log.close()


def prepare(folder: str, profiles: str, number: str = "1") -> None:
    """Write a generation; in the second one profile in a hundred has other points."""
    project = _project(Path(folder))
    extra = "if(n % 100 = 7, 1, 0)" if number == "2" else "0"
    target = project.published / f"gen-{int(number):06d}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    with duckdb.connect(str(target / "profiles.duckdb")) as con:
        con.execute(
            f"create table profiles as {QUERY.format(extra=extra, profiles=profiles)} order by profile_id"
        )
        con.execute("create table computed_attributes (profile_id text)")
        con.execute("create table profile_redirects (profile_id text, successor text)")
        con.execute(
            "create table profile_history (revision int, profile_id text, event text, other_profile_id text)"
        )
    described = [{"name": "profiles", "grain": "profile_id", "columns": []}]
    (target / "dictionary.json").write_text(json.dumps(described), encoding="utf-8")
    manifest = {
        "generation": int(number),
        "as_of": f"2026-04-0{number}T00:00:00+00:00",
        "revision": int(number),
        "files": {},
    }
    (target / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    point_to(project, target)
    print_result({})


def _project(folder: Path) -> Project:
    project = project_at(folder / "project")
    project.rules.mkdir(parents=True, exist_ok=True)
    ship = {
        "people": {"table": "profiles", "columns": COLUMNS, "mode": "incremental", "rows_per_file": 250_000}
    }
    hashed = {"columns": ["email", "phone"], "key_env": "BENCHMARK_KEY"}
    bucket = {"type": "s3", "bucket": "exchange", "endpoint": f"http://127.0.0.1:{PORT}",
              "access_key_env": "BENCHMARK_ID", "secret_key_env": "BENCHMARK_SECRET"}  # fmt: skip
    places = {"folder": {"type": "local", "folder": "shared"}, "bucket": bucket}
    attributes = {name: {"type": kind} for name, kind in FIELDS.items()}
    rules = {
        "sources": {"attributes": attributes, "sources": {}},
        "identity": {"namespaces": {}},
        "profiles": {"default": "golden", "policies": {"golden": {}}},
        "audiences": {"consent": {"default": "marketing_consent"}},
        "sharing": {
            "destinations": {name: {"to": to, "hash": hashed, "ship": ship} for name, to in places.items()}
        },
    }
    for name, content in rules.items():
        (project.rules / f"{name}.yaml").write_text(json.dumps(content), encoding="utf-8")
    return project


def to_folder(folder: str) -> None:
    """What is due for the folder."""
    _deliver(folder, "folder")


def to_bucket(folder: str) -> None:
    """What is due for the bucket."""
    _deliver(folder, "bucket")


def _deliver(folder: str, destination: str) -> None:
    project, clock = _project(Path(folder)), Clock()
    config = load_config(project.rules)
    with clock.stage("delivery"), run_lock(project.state), connect(project.database) as con:
        [outcome] = deliver(con, config, project, destination)
    _require(outcome)
    print_result({"seconds": clock.seconds["delivery"], "rows": outcome.row_count, "files": outcome.file_count,
                  "megabytes": round(outcome.byte_count / 1e6, 1)})  # fmt: skip


def _require(outcome: Outcome) -> None:
    if outcome.status != "delivered":
        raise SystemExit(f"{outcome.status}: {outcome.reason}")


WORK = {"prepare": prepare, "folder": to_folder, "bucket": to_bucket}


if __name__ == "__main__":
    main()
