"""Milliseconds of profile pages over a million profiles: lookups by identifier at a steady rate, and first pages.

    python benchmarks/serve_speed.py --profiles 1000000 --json benchmarks/results/serve.json

The generation is the demo's, published once and copied under other ids until it has so many profiles; every table keeps
its order. Lookups are whole requests over HTTP at `--rate` a second, sent on time whether or not the one before was
answered, their time counted from the moment they were due: e-mails in capitals, card and customer numbers, phones and
profile ids. The first page is what the very first visitor waits for after the server has started.
"""

import argparse
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import duckdb
from measured import threads, write_results

from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import PACKAGE_RULES, project_at
from profile_pipeline.dictionary import published_tables
from profile_pipeline.publish import DATABASE, MANIFEST, STORAGE_VERSION

RENAMED = {
    "profile_id": "renamed({0}, n)", "successor": "renamed({0}, n)", "other_profile_id": "renamed({0}, n)",
    "left_profile_id": "renamed({0}, n)", "right_profile_id": "renamed({0}, n)", "record_key": "{0} || 'x' || n",
    "left_key": "{0} || 'x' || n", "right_key": "{0} || 'x' || n", "source_key": "{0} || 'x' || n",
    "event_key": "{0} || 'x' || n", "event_id": "{0} || 'x' || n", "relationship_id": "md5({0} || n)",
    "item_id": "md5({0} || n)[:12]", "email": "copied('email', {0}, n)", "phone": "copied('phone', {0}, n)",
    "identity_map": "map_from_entries(list_transform(map_entries({0}), lambda e: {{'key': e.key,"
    " 'value': list_transform(e.value, lambda v: copied(e.key, v, n))}}))",
}  # fmt: skip
"""Columns that differ from copy to copy, and how."""
ONCE = ("audiences", "quarantine_summary")
MACROS = """
create macro renamed(id, n) as if(n = 0, id, (md5(id || n)[:8] || '-' || md5(id || n)[9:12] || '-' || md5(id || n)[13:16]
    || '-' || md5(id || n)[17:20] || '-' || md5(id || n)[21:32]));
create macro copied(namespace, v, n) as case when n = 0 or v is null then v when namespace = 'email' then 'c' || n || '.' || v
    when namespace = 'phone' then left(v, length(v) - 5) || lpad((hash(v || n) % 100000)::text, 5, '0') else v || 'X' || n end;
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profiles", type=int, default=1_000_000, help="profiles, at least")
    parser.add_argument("--rate", type=float, default=20, help="lookups a second")
    parser.add_argument("--seconds", type=float, default=60, help="how long")
    parser.add_argument("--folder", type=Path, help="keep the world here, or take the one that is here")
    parser.add_argument("--json", type=Path, help="results file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serve-speed-") as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "data" / "published" / "current").exists():
            make_world(folder, arguments.profiles)
        found = measured(folder, arguments.rate, arguments.seconds)
    print(json.dumps(found, indent=1))
    if arguments.json:
        write_results(arguments.json, found)


# ---------------------------------------------------------------- the world


def make_world(folder: Path, profiles: int) -> None:
    """A project folder whose only generation has the demo's tables many times over."""
    (folder / "data").mkdir(parents=True)
    (folder / "rules").symlink_to(PACKAGE_RULES)
    with tempfile.TemporaryDirectory(prefix="serve-demo-") as demo:
        environment = {**os.environ, "PROFILE_DATA": demo, "PROFILE_RULES": str(PACKAGE_RULES)}
        subprocess.run(
            [sys.executable, "-m", "profile_pipeline.cli", "demo", "--quiet"], env=environment, check=True
        )
        copy_out(Path(demo) / "published" / "current", folder / "data" / "published", profiles)


def copy_out(demo: Path, published: Path, profiles: int) -> None:
    """Write the generation."""
    manifest = json.loads((demo / MANIFEST).read_text())
    copies = -(-profiles // manifest["tables"]["profiles"]["rows"])
    target = published / "gen-000001"
    target.mkdir(parents=True)
    with duckdb.connect() as con:
        con.execute("set preserve_insertion_order = false; set memory_limit = '6GB'")
        con.execute(f"set temp_directory = '{target}/spill'; set timezone = 'UTC'")
        con.execute(MACROS)
        con.execute(f"attach '{demo / DATABASE}' as demo (read_only)")
        con.execute(f"attach '{target / DATABASE}' as big (storage_version '{STORAGE_VERSION}')")
        for table in published_tables(load_config(PACKAGE_RULES)):
            begin = time.perf_counter()
            columns = [name for name, *_ in con.execute(f"describe demo.{table.name}").fetchall()]
            times = 1 if table.name in ONCE or table.name.startswith("metrics_") else copies
            con.execute(
                f"""create table big.{table.name} as select {", ".join(_column(table.name, c) for c in columns)}
                from demo.{table.name}, range({times}) r(n) order by {table.order}"""
            )
            rows = con.execute(f"select count(*) from big.{table.name}").fetchall()[0][0]
            manifest["tables"][table.name]["rows"] = rows
            print(f"{table.name}: {rows:,} rows, {time.perf_counter() - begin:.0f} s", flush=True)
    (target / MANIFEST).write_text(json.dumps(manifest))
    (published / "current").symlink_to(target.name)


def _column(table: str, column: str) -> str:
    if table == "profile_identifiers" and column == "value":
        return "copied(namespace, value, n) as value"
    return f"{RENAMED[column].format(column)} as {column}" if column in RENAMED else column


# ---------------------------------------------------------------- what is measured


def measured(folder: Path, rate: float, seconds: float) -> dict[str, Any]:
    with duckdb.connect(str(folder / "data" / "published" / "current" / DATABASE), read_only=True) as con:
        [[profiles]] = con.execute("select count(*) from profiles").fetchall()
        [[events]] = con.execute("select count(*) from profile_events").fetchall()
        questions = _questions(con, int(rate * seconds) + 200)
        busy = [i for (i,) in con.execute(_BUSY).fetchall()]
    begin = time.perf_counter()
    server, address, token = _serve(folder)
    try:
        started = time.perf_counter() - begin
        ask = Asker(address, token)
        found: dict[str, Any] = {"threads": threads(), "profiles": profiles, "events": events}
        found["start_s"] = round(started, 2)
        found["first_page_ms"] = _timed(ask, f"/profiles/{busy[0]}")
        found["pages_ms"] = _spread([_timed(ask, f"/profiles/{i}") for i in busy[1:]])
        found["search_by_name_ms"] = _spread(
            [_timed(ask, f"/api/lookup?q={n}") for n in ("grace%20newman", "o%27brien", "zoe")]
        )
        for path in ("/audiences", "/audiences/loyal_gold", "/review", "/policies"):
            found[f"{path[1:]}_ms"] = _timed(ask, path)
        before = _cpu_seconds(server.pid)
        lookups = _at_rate(address, token, questions, rate, seconds)
        cpu = 1000 * (_cpu_seconds(server.pid) - before) / len(lookups)
        found["lookups"] = {"rate": rate, "seconds": seconds, **_spread(lookups), "cpu": round(cpu, 1)}
        found["peak_rss_mb"] = _peak(server.pid)
    finally:
        server.terminate()
        server.wait()
    return found


_BUSY = "select profile_id from profiles where record_count >= 4 and event_count > 5 order by hash(profile_id) limit 21"


def _questions(con: duckdb.DuckDBPyConnection, number: int) -> list[str]:
    """Identifiers as people type them, and profile ids; every kind as often."""
    kinds = ("email", "loyalty_card", "crm_id", "phone")
    query = "select upper(value) from profile_identifiers where namespace = ? order by hash(value || profile_id) limit ?"
    found = [text for kind in kinds for (text,) in con.execute(query, [kind, number // 5]).fetchall()]
    query = "select profile_id from profiles order by hash(profile_id) limit ?"
    found += [text for (text,) in con.execute(query, [number // 5]).fetchall()]
    random.Random(7).shuffle(found)
    return found


def _serve(folder: Path) -> tuple["subprocess.Popen[str]", str, str]:
    command = [
        sys.executable,
        "-m",
        "profile_pipeline.cli",
        "serve",
        "--port",
        "0",
        "--project",
        str(project_at(folder).rules.parent),
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    shown = re.search(r"(http\S+?)\?token=(\S+)", server.stdout.readline())
    assert shown, "the server did not say where it is"
    address, token = shown[1], shown[2]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            Asker(address, token)("/static/icon.svg")
            break
        except OSError:
            time.sleep(0.02)
    return server, address, token


class Asker:
    """One connection to the server."""

    def __init__(self, address: str, token: str) -> None:
        parts = urlsplit(address)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        self._headers = {"Authorization": f"Bearer {token}"}

    def __call__(self, path: str) -> bytes:
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (path, answer.status, body[:200])
        return body


def _timed(ask: Asker, path: str) -> float:
    begin = time.perf_counter()
    ask(path)
    return round((time.perf_counter() - begin) * 1000, 1)


def _at_rate(address: str, token: str, questions: list[str], rate: float, seconds: float) -> list[float]:
    """Milliseconds of each lookup from the moment it was due; eight connections take turns."""
    due = [n / rate for n in range(int(rate * seconds))]
    found = [0.0] * len(due)
    turn = iter(range(len(due)))
    lock = threading.Lock()
    begin = time.perf_counter() + 0.5

    def work() -> None:
        ask = Asker(address, token)
        while True:
            with lock:
                number = next(turn, None)
            if number is None:
                return
            time.sleep(max(0.0, begin + due[number] - time.perf_counter()))
            body = ask(f"/api/lookup?q={quote(questions[number % len(questions)])}")
            found[number] = (time.perf_counter() - begin - due[number]) * 1000
            assert json.loads(body)["profiles"], "nobody found"

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


def _spread(found: list[float]) -> dict[str, float]:
    ordered = sorted(found)
    worst = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"p50": round(statistics.median(ordered), 1), "p99": round(worst, 1), "max": round(ordered[-1], 1)}


def _cpu_seconds(pid: int) -> float:
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024  # ty: ignore[not-subscriptable]


if __name__ == "__main__":
    main()
