"""Seconds from a dropped file to published membership, and to the generation, for micro-batches on a large world.

    python benchmarks/micro_batch.py --profiles 1000000 --batches 4 --generation --json benchmarks/results/micro_batch.json

The rules are the demo's. Half of the profiles are customers with a loyalty card, half are cookies that nobody signed in
on; 20 events a profile: 85 % on the web (sessions of four, every second one signed in), 10 % in stores, 5 % orders, over
a year. Everything is delivered as files. First a run of everything; then `--batches` files of 10,000 web events, a minute
apart by the clock of the project, of which one in twenty was delivered before and one in twenty is of a new cookie. They
are taken in by a process that has everything loaded, as `profile-pipeline watch` is, but at times of the world's own: from
the file that is there to the moved pointer of the memberships. With `--generation` one more file is taken in by
`profile-pipeline run`, from the start of the command to the end of its generation.
"""

import argparse
import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from measured import in_own_process, threads, write_results

from profile_pipeline.warehouse import literal

EVENTS_A_PROFILE = 20
MICRO_BATCH = 10_000
LIMIT = 7200.0
BEGIN = datetime(2026, 4, 1, tzinfo=UTC)
ACCOUNT = "'A' || lpad(n::text, 9, '0')"
COOKIE = "md5(n::text)[1:12]"
CHANNEL = "if(s % 3 = 0, 'app', 'web')"


def main() -> None:
    """Deliver the world, run, deliver micro-batches, run after each, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--profiles", type=int, default=200_000, help="profiles; events are twenty times as many"
    )
    parser.add_argument("--batches", type=int, default=3, help="micro-batches, one after another")
    parser.add_argument("--generation", action="store_true", help="at last time a run of the whole graph")
    parser.add_argument(
        "--folder", type=Path, help="work here and leave everything; default: a temporary folder"
    )
    parser.add_argument("--json", type=Path, help="results file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="micro-batch-") as temporary:
        found = measure(arguments.folder or Path(temporary), arguments)
    if arguments.json:
        write_results(arguments.json, found)


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of the first run, of each micro-batch, and of a whole run after one more."""
    profiles = arguments.profiles
    found: dict[str, Any] = {
        "threads": threads(),
        "profiles": profiles,
        "events": profiles * EVENTS_A_PROFILE,
    }
    if not (folder / "published").exists():
        deliver_all(folder / "sources", profiles)
        found["first"] = run(folder, BEGIN)
        print("first", found["first"], flush=True)
    call = f"import json, micro_batch as m; print(json.dumps(m.micro_batches({str(folder)!r}, {profiles}, {arguments.batches})))"
    found["micro"] = done(in_own_process([sys.executable, "-c", call], LIMIT, Path(__file__).parent))
    print("micro", found["micro"], flush=True)
    if arguments.generation:
        found["generation"] = run(folder, deliver_next(folder, profiles))
        print("generation", found["generation"], flush=True)
    return found


def done(found: dict[str, Any]) -> dict[str, Any]:
    """What a process found, or the end of the benchmark."""
    if found["status"] != "done":
        raise SystemExit(f"{found['status']}: {found['reason']}")
    return {name: value for name, value in found.items() if name != "status"}


def micro_batches(folder: str, profiles: int, batches: int) -> dict[str, Any]:
    """Take in files one after another in this process; seconds of each to the memberships, and of the steps of the last."""
    from profile_pipeline import memberships, quality
    from profile_pipeline.config.load import load_config
    from profile_pipeline.config.project import PACKAGE_RULES, Project
    from profile_pipeline.defs.automation import MEMBERSHIP_JOB
    from profile_pipeline.defs.run import Options, instance_of, run_graph

    project = Project(rules=PACKAGE_RULES, data=Path(folder))
    quality.load()
    seconds, steps = [], {}
    for _ in range(batches):
        at = deliver_next(project.data, profiles)
        start = time.perf_counter()
        result = run_graph(
            load_config(project.rules), project, Options(as_of=at.isoformat()), name=MEMBERSHIP_JOB
        )
        live = memberships.live(project)
        if not (result.success and live and live.manifest["as_of"] == at.isoformat()):
            raise SystemExit(result.failure or "no memberships of this batch were published")
        seconds.append(round(time.perf_counter() - start, 2))
        with instance_of(project) as instance:
            stats = instance.get_run_step_stats(result.run_id)
        steps = {s.step_key: round((s.end_time or 0) - (s.start_time or 0), 2) for s in stats}
    return {"seconds": seconds, "steps": steps}


def deliver_next(folder: Path, profiles: int) -> datetime:
    """Drop the next file; the time at which it is taken in."""
    number = len(list((folder / "inbox").glob("web_events_micro_*")))
    at = BEGIN + timedelta(days=1, minutes=number)
    deliver_micro(folder / "inbox", profiles, number, at)
    return at


def run(folder: Path, as_of: datetime) -> dict[str, Any]:
    """Time `profile-pipeline run` in a process of its own."""
    arguments = ["run", "--quiet", "--as-of", as_of.isoformat()]
    code = f"import json, sys; from profile_pipeline.cli import app; failed = app({arguments}, standalone_mode=False)"
    command = [sys.executable, "-c", f"{code}; print(json.dumps({{}})); sys.exit(failed)"]
    os.environ["PROFILE_DATA"] = str(folder)
    start = time.perf_counter()
    found = done(in_own_process(command, LIMIT))
    return {"seconds": round(time.perf_counter() - start, 2), **found}


# ---------------------------------------------------------------- the world


def deliver_all(folder: Path, profiles: int) -> None:
    """Files of every source for a year."""
    folder.mkdir(parents=True, exist_ok=True)
    people, total = profiles // 2, profiles * EVENTS_A_PROFILE
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        _write(con, loyalty_query(people), folder / "loyalty_1.parquet", "format parquet")
        span = "timestamp '2025-04-01' + to_seconds(hash(s + 7)::ubigint % 31536000) + to_seconds(i % 4 * 60)"
        for name, query, share in (
            ("web_events_1.jsonl", web_query, 85),
            ("shop_orders_1.jsonl", shop_query, 5),
        ):
            _write(con, query(0, total * share // 100, people, span), folder / name, "format json")
        _write(con, store_query(0, total // 10, people, span), folder / "store_sales_1.csv",
               "format csv, delimiter ';', header true")  # fmt: skip


def deliver_micro(folder: Path, profiles: int, number: int, as_of: datetime) -> None:
    """A file of web events of the last minutes, with repeated and anonymous ones."""
    folder.mkdir(parents=True, exist_ok=True)
    known = fresh = MICRO_BATCH // 20
    first = profiles * EVENTS_A_PROFILE + number * MICRO_BATCH
    span = f"timestamp {literal(as_of.replace(tzinfo=None).isoformat())} - to_seconds(600 + hash(s + 7)::ubigint % 3000)" \
        " + to_seconds(i % 4 * 60)"  # fmt: skip
    year = "timestamp '2025-04-01' + to_seconds(hash(s + 7)::ubigint % 31536000) + to_seconds(i % 4 * 60)"
    own = web_query(first, MICRO_BATCH - known - fresh, profiles // 2, span)
    again = web_query(number * known, known, profiles // 2, year)
    new = web_query(first + MICRO_BATCH, fresh, profiles // 2, span)
    anonymous = f"select * replace ('n' || event_id as cookie_id, 'n' || event_id as event_id, null as account_id) from ({new})"
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        unfinished = folder / ".unfinished"
        _write(
            con, f"{own} union all by name {again} union all by name {anonymous}", unfinished, "format json"
        )
        unfinished.rename(folder / f"web_events_micro_{number:04d}.jsonl")


def _write(con: duckdb.DuckDBPyConnection, query: str, path: Path, options: str) -> None:
    con.execute(f"copy ({query}) to {literal(path)} ({options})")


def _drawn(first: int, wanted: int, people: int) -> str:
    """Sessions of four: `s` is the session, `n` the customer."""
    return f"(select *, hash(s)::ubigint % {people} as n from (select i, i // 4 as s from range({first}, {first + wanted}) t(i)))"


def _time(span: str) -> str:
    return f"strftime({span}, '%Y-%m-%dT%H:%M:%SZ')"


def loyalty_query(people: int) -> str:
    """Grain: one row a card."""
    return f"""select 'L' || n as card_number, null::text as crm_id, 'name' || n % 5000 || ' family' || n % 9000 as full_name,
        'mail' || n || '@example.org' as email, null::text as mobile, null::text as birth_date,
        'LS' || n % 30 || ' 1AA' as postcode,
        ['bronze', 'silver', 'gold'][n % 3 + 1] as tier, n % 1000 as points, '2025-01-01' as enrolled_on,
        '2026-01-01T00:00:00Z' as updated_at from range({people}) t(n)"""


def web_query(first: int, wanted: int, people: int, span: str) -> str:
    """Grain: one row an event."""
    kind = "['login', 'product_view', 'product_view', 'add_to_cart'][i % 4 + 1]"
    return f"""select printf('w%011x', i) as event_id, {_time(span)} as occurred_at, {kind} as type, {COOKIE} as cookie_id,
        null::text as device_id, if(s % 2 = 0 and i % 4 = 0, {ACCOUNT}, null) as account_id, null::text as email,
        '/p/LL-' || (hash(i) % 2000) as page, {CHANNEL} as channel from {_drawn(first, wanted, people)}"""


def shop_query(first: int, wanted: int, people: int, span: str) -> str:
    """Grain: one row an order, by a customer with a card."""
    return f"""select printf('o%011x', i) as order_id, {_time(span)} as ordered_at, {ACCOUNT} as account_id, {COOKIE} as cookie_id,
        {{'first_name': 'name' || n % 5000, 'last_name': 'family' || n % 9000, 'email': 'mail' || n || '@example.org',
            'address': {{'line1': n % 90 || ' High Street', 'city': 'Leeds', 'postcode': 'LS' || n % 30 || ' 1AA',
                'country': 'GB'}}}} as customer,
        [{{'sku': 'LL-' || (hash(i) % 2000), 'quantity': 1 + i % 3, 'unit_price': hash(i) % 10000 / 100.0}}] as items,
        hash(i) % 30000 / 100.0 as total, 'GBP' as currency, {CHANNEL} as channel from {_drawn(first, wanted, people)}"""


def store_query(first: int, wanted: int, people: int, span: str) -> str:
    """Grain: one row a sale."""
    return f"""select printf('t%011x', i) as transaction_id, strftime({span}, '%d.%m.%Y %H:%M') as sold_at, 'Leeds' as store,
        null::text as card_token, 'L' || n as loyalty_card, 1 + i % 5 as items, hash(i) % 20000 // 100 || ',50' as amount
        from {_drawn(first, wanted, people)}"""


if __name__ == "__main__":
    main()
