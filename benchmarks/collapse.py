"""What a shared value may do at worst: a default e-mail, a household of thousands, a tablet of hundreds.

    python benchmarks/collapse.py --json benchmarks/results/collapse.json

20,000 ordinary people with two records each; 100,000 records with one default e-mail address in a namespace that
links; 10,000 people of one family name, address and phone; one tablet on which 500 people log in. Everything goes
through the whole identity stage in a process of its own.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection
from measured import Clock, in_own_process, own_peak_mb, print_result, this_script, write_results
from stages import load_heavy_libraries, run_identity

from profile_pipeline import laws
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project, project_at
from profile_pipeline.identity.relationships import build_relationships
from profile_pipeline.raw import intake, ledger
from profile_pipeline.records import current, events, staging
from profile_pipeline.warehouse import connect, count, rows, run_lock, scalar

PEOPLE, DEFAULTED, HOUSEHOLD, LOGINS = 20_000, 100_000, 10_000, 500
LIMIT = 3600.0
COLUMNS = ("id", "first", "last", "born", "email", "phone", "street", "postcode")
Row = tuple[str | None, ...]


def population() -> Iterator[Row]:
    """Rows of the CRM: (id, first, last, born, email, phone, street, postcode)."""
    draw = random.Random(5)

    def person(key: str) -> list[str | None]:
        first, last = (f"{draw.choice('bcdfglmnprst')}{draw.choice('aeiou')}{draw.choice('bdlmnrst')}{draw.choice('aeio')}"
                       f"{draw.choice('klmnrst')}" for _ in range(2))  # fmt: skip
        born = f"{draw.randint(1930, 2007)}-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}"
        home = f"{draw.randint(1, 200)} {draw.choice(['Mill', 'Oak', 'Park', 'Lake'])}{draw.randint(1, 400)} Street"
        return [key, first, last, born, f"{first}.{last}{draw.randint(1, 9999)}@mail.test",
                f"+4420{draw.randint(70000000, 79999999)}", home, f"P{draw.randint(1000, 9999)}"]  # fmt: skip

    for n in range(PEOPLE):
        own = person(f"p{n}")
        yield tuple(own)
        yield (f"q{n}", *own[1:])
    for n in range(DEFAULTED):
        own = person(f"d{n}")
        yield (*own[:4], "info@shop.test", *own[5:])
    for n in range(HOUSEHOLD):
        own = person(f"h{n}")
        yield (own[0], own[1], "Wardle", own[3], own[4], "+442079460000", "1 Abbey Road", "P1000")


def make_project(folder: Path) -> Project:
    """Deliveries and rules."""
    project = project_at(folder)
    sources = project.data / "sources"
    sources.mkdir(parents=True)
    project.rules.mkdir()
    found = list(population())
    pq.write_table(
        pa.table({name: [row[k] for row in found] for k, name in enumerate(COLUMNS)}), sources / "crm.parquet"
    )
    moments = [f"2026-03-01 {n // 60:02d}:{n % 60:02d}:00" for n in range(LOGINS)]
    logins = {
        "id": [f"e{n}" for n in range(LOGINS)],
        "moment": moments,
        "crm_id": [f"p{n}" for n in range(LOGINS)],
    }
    pq.write_table(pa.table(logins | {"device": ["tablet"] * LOGINS}), sources / "visits.parquet")
    for name, content in RULES.items():
        (project.rules / f"{name}.yaml").write_text(json.dumps(content), encoding="utf-8")
    return project


RULES: dict[str, dict[str, Any]] = {
    "sources": {
        "attributes": {
            "first": {"type": "given_name"}, "last": {"type": "family_name"}, "born": {"type": "birth_date"},
            "email": {"type": "email"}, "phone": {"type": "phone"}, "street": {"type": "street_address"},
            "postcode": {"type": "postcode"},
        },
        "sources": {
            "crm": {
                "kind": "record", "files": "crm.parquet", "format": {"type": "parquet"}, "columns": list(COLUMNS),
                "key": "id", "country": "GB", "attributes": {name: name for name in COLUMNS[1:]},
                "identifiers": {"crm_id": "id", "email": "email", "phone": "phone"},
            },
            "visits": {
                "kind": "event", "files": "visits.parquet", "format": {"type": "parquet"},
                "columns": ["id", "moment", "crm_id", "device"], "event": {"id": "id", "type": "'login'"},
                "time": {"value": "moment", "formats": ["%Y-%m-%d %H:%M:%S"]},
                "identifiers": {"crm_id": "crm_id", "device": "device"},
            },
        },
    },
    "identity": {
        "namespaces": {
            "crm_id": {"priority": 10}, "email": {"type": "email", "priority": 20, "link": True},
            "phone": {"type": "phone", "priority": 30, "link": False}, "device": {"kind": "device"},
        }
    },
    "profiles": {"default": "plain", "policies": {"plain": {}}},
    "publication": {},
}  # fmt: skip


def measure(folder: Path) -> None:
    """The whole identity stage on the made project; what became of everybody."""
    load_heavy_libraries()
    project, clock = make_project(folder), Clock()
    config = load_config(project.rules)
    with run_lock(project.state), connect(project.database, memory="2GiB") as con:
        with clock.stage("raw and records"):
            ledger.scan(con, config, project, datetime.now(UTC))
            for name in config.sources:
                intake.load_source(con, config, project, name)
                staging.stage_source(con, config, name)
            current.build_current(con, config)
            events.build_events(con, config)
        run_identity(con, config, clock)
        build_relationships(con, config)
        print_result({"seconds": clock.seconds, "own_peak_mb": own_peak_mb(), **_outcome(con, config)})


def _outcome(con: DuckDBPyConnection, config: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "records": count(con, "records.current"),
        "records_in_profiles": scalar(
            con, "select count(distinct record_key) from identity.membership join records.current using (record_key)"
        ),
        "largest_cluster": scalar(con, "select max(cluster_size) from identity.clusters"),
        "limit": config.identity.clustering.max_cluster_size,
        "limits_broken": laws.broken_limits(con, config),
        "people_found_twice": scalar(
            con,
            """select count(*) from identity.clusters a join identity.clusters b using (cluster_key)
            where starts_with(a.record_key, 'crm:p') and b.record_key = replace(a.record_key, 'crm:p', 'crm:q')""",
        ),
        "strangers_joined": scalar(
            con,
            """select count(*) from (select cluster_key from identity.clusters where starts_with(record_key, 'crm:d')
                or starts_with(record_key, 'crm:h') group by 1 having count(*) > 1)""",
        ),
        "suspended": rows(con, "select namespace, record_count, people_count from identity.generic_values order by all"),
        "relationships": rows(
            con,
            "select kind, profile_count, count(*) from identity.relationships where profile_count >= 100"
            " group by all order by all",
        ),
    }  # fmt: skip


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="results file")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        measure(arguments.work)
        return
    with tempfile.TemporaryDirectory(prefix="collapse-") as folder:
        found = in_own_process(this_script(__file__, "--work", folder), LIMIT)
    print(json.dumps(found, indent=1))
    if arguments.json:
        write_results(arguments.json, found)


if __name__ == "__main__":
    main()
