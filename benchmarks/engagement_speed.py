"""Seconds and memory of the engagement stage on events written straight into the warehouse: full, and a micro-batch.

    python benchmarks/engagement_speed.py --profiles 100000 --json benchmarks/results/engagement.json

The rules are the demo's, at least 20 computed attributes and 20 audiences; the results say how many. Half of the profiles
are customers, half are cookies that nobody signed in on; 20 events a profile: 85 % on the web (sessions of four, every second
one signed in), 10 % in stores, 5 % orders, over a year. Mapping, validation and matching are not timed. Full: from mapped
rows to timeline, unified profiles, computed attributes and audiences. Micro-batch: 10,000 events of the next hour, of which
one in twenty was delivered before and one in twenty is of a new cookie.
`--check` compares the micro-batch with a rebuild and fails when they differ.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection
from measured import Clock, in_own_process, print_result, this_script, threads, write_results

from profile_pipeline import audiences, profile_ids
from profile_pipeline.computed.build import build_computed
from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import PACKAGE_RULES, Project
from profile_pipeline.profiles import candidates, lineage, timeline, unified
from profile_pipeline.records import current, events, staging
from profile_pipeline.warehouse import connect, count, mark_built, replace_table, rows, run_lock, transaction

LIMIT = 3600.0
EVENTS_A_PROFILE = 20
MICRO_BATCH = 10_000
TABLES = ("records.events", "profiles.events", "profiles.unified", "profiles.computed")
PERSON = "'A' || lpad(n::text, 9, '0')"
CARD = "'L' || n"
COOKIE = "md5(n::text)[1:12]"
MAPPED = """_file integer, _line bigint, batch integer, ingested_at timestamptz, source_key text, record_key text,
    observed_at timestamptz, clock text, deleted boolean, event_key text, event_id text, event_type text, channel text, zone text,
    payload json, raw struct(none text), cleared text[], identifiers struct(namespace text, value text, raw text)[],
    content_hash text, reasons text[], doubtful text[]"""


def main() -> None:
    """Prepare the world, measure, print, and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--profiles", type=int, default=100_000, help="profiles; events are twenty times as many"
    )
    parser.add_argument(
        "--folder", type=Path, help="work here and leave the warehouse; default: a temporary folder"
    )
    parser.add_argument("--check", action="store_true", help="compare with a rebuild")
    parser.add_argument("--json", type=Path, help="results file to write")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        WORK[arguments.work](*arguments.paths)
        return
    with tempfile.TemporaryDirectory(prefix="engagement-speed-") as temporary:
        found = _measured(arguments.folder or Path(temporary), arguments.profiles, check=arguments.check)
    if arguments.json:
        write_results(arguments.json, found)


def _measured(folder: Path, profiles: int, *, check: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"threads": threads(), "profiles": profiles}
    steps = ["prepare", "full", "micro", *(["rebuild"] if check else [])]
    for work in steps:
        done = in_own_process(this_script(__file__, "--work", work, folder, profiles), LIMIT)
        print(work, done, flush=True)
        if done["status"] != "done":
            raise SystemExit(f"{work}: {done['status']}: {done['reason']}")
        found[work] = done
    contents = [found[step].pop("content") for step in steps[2:]]
    if check and contents[0] != contents[1]:
        raise SystemExit("the micro-batch ends in another state than a rebuild")
    return found


# ---------------------------------------------------------------- the world


def prepare(folder: str, profiles: str) -> None:
    """Mapped rows of the first batch, one record a customer, and who is who; nothing of this is timed."""
    config = load_config(PACKAGE_RULES)
    with _opened(folder) as con:
        people = int(profiles) // 2
        con.execute(
            "create table raw.batches (batch integer primary key, as_of timestamptz, volume_accepted boolean)"
        )
        con.execute("insert into raw.batches values (1, timestamptz '2026-04-01', false)")
        con.execute(
            "create table raw.files (file_id integer, source text, name text, batch integer, state text)"
        )
        staging.create_tables(con)
        for name in config.event_sources:
            con.execute(f"create table records.{name} ({MAPPED})")
        total = int(profiles) * EVENTS_A_PROFILE
        _deliver(
            con, config, 1, {"web": total * 85 // 100, "store": total // 10, "shop": total // 20}, people
        )
        _write_records(con, config, people)
        _write_identity(con, people)
        con.execute("checkpoint")
        print_result(
            {
                "events": total,
                "customers": people,
                "computed_attributes": len(config.computed.attributes),
                "audiences": len(config.audiences.audiences),
            }
        )


def _deliver(
    con: DuckDBPyConnection, config: Config, batch: int, counts: dict[str, int], people: int, first: int = 0
) -> None:
    """Rows number `first` and on of each source, as the files of a batch."""
    for number, (name, rows_wanted) in enumerate(counts.items()):
        file_id = batch * 10 + number
        con.execute(
            f"insert into records.{name} by name {_rows_query(name, batch, file_id, first, rows_wanted, people)}"
        )
        con.execute(
            "insert into raw.files values (?, ?, ?, ?, 'loaded')", [file_id, name, f"{name}_{batch}", batch]
        )
        rules = staging.rules_fingerprint(config, name)
        con.execute("insert into records.loads values (?, ?, ?)", [name, file_id, rules])
        mark_built(con, f"records.{name}", str(batch))


def _rows_query(name: str, batch: int, file_id: int, first: int, wanted: int, people: int) -> str:
    """Sessions of four: `s` is the session, `n` the customer. Later batches are of the hour after the first ended."""
    begin = f"timestamptz '2025-04-01' + interval '{365 if batch > 1 else 0} days'"
    spread = 3_000 if batch > 1 else 365 * 86_400
    identifiers, key, kind, channel, payload = SHAPES[name]
    return f"""
        with numbered as (select i, i // 4 as s from range({first}, {first + wanted}) t(i)),
        drawn as (select *, hash(s)::ubigint % {people} as n, hash(s + 7)::ubigint % {spread} as second from numbered)
        select {file_id} as _file, i - {first} as _line, {batch} as batch, timestamptz '2026-04-01' as ingested_at,
            {key} as record_key, {begin} + to_seconds(second + i % 4 * 60) as observed_at, 'source' as clock,
            false as deleted, '{name}:' || printf('%012x', i) as event_key, printf('%012x', i) as event_id, {kind} as event_type,
            {channel} as channel, 'UTC' as zone, {payload} as payload, md5(i::text) as content_hash, []::text[] as cleared,
            {identifiers} as identifiers
        from drawn"""


def _identifier(space: str, value: str) -> str:
    return f"{{'namespace': '{space}', 'value': {value}, 'raw': {value}}}"


SHAPES = {
    "web": (
        f"if(s % 2 = 0 and i % 4 = 0, [{_identifier('account_id', PERSON)}, {_identifier('cookie', COOKIE)}],"
        f" [{_identifier('cookie', COOKIE)}])",
        "null::text",
        "['login', 'product_view', 'product_view', 'add_to_cart'][i % 4 + 1]",
        "if(s % 3 = 0, 'app', 'web')",
        "json_object('type', ['login', 'product_view', 'product_view', 'add_to_cart'][i % 4 + 1],"
        " 'page', '/p/LL-' || (hash(i) % 2000), 'channel', if(s % 3 = 0, 'app', 'web'))",
    ),
    "store": (
        f"[{_identifier('loyalty_card', CARD)}]",
        "null::text",
        "'store_purchase'",
        "'store'",
        "json_object('store', 'Leeds', 'items', 1 + i % 5, 'amount', hash(i) % 20000 / 100.0)",
    ),
    "shop": (
        f"[{_identifier('account_id', PERSON)}, {_identifier('cookie', COOKIE)}]",
        f"'shop:' || {PERSON}",
        "'order'",
        "if(s % 3 = 0, 'app', 'web')",
        "json_object('order_id', printf('%012x', i), 'total', hash(i) % 30000 / 100.0, 'currency', 'GBP',"
        " 'items', [{'sku': 'LL-' || (hash(i) % 2000), 'quantity': 1 + i % 3, 'unit_price': hash(i) % 10000 / 100.0}])",
    ),
}
"""Of each source: identifiers, key of the record, type, channel and payload."""


def _write_records(con: DuckDBPyConnection, config: Config, people: int) -> None:
    con.execute(current.empty_current(config))
    con.execute(
        f"""insert into records.current by name
        select 'shop:' || {PERSON} as record_key, 'shop' as source, {PERSON} as source_key,
            timestamptz '2026-01-01' as observed_at, 'source' as clock, timestamptz '2026-04-01' as ingested_at, 1 as batch,
            12 as _file, n as _line, md5(n::text) as content_hash, []::text[] as cleared, 'name' || n % 5000 as given_name,
            'family' || n % 9000 as family_name, 'mail' || n || '@example.org' as email, n % 3 > 0 as marketing_consent,
            ['regular', 'vip'][n % 2 + 1] as segment, ['bronze', 'silver', 'gold'][n % 3 + 1] as loyalty_tier,
            ['Leeds', 'York'][n % 2 + 1] as city, 'GB' as country
        from range({people}) t(n)"""
    )
    con.execute("create table records.identifiers (record_key text, namespace text, value text)")
    mark_built(con, "records.current", "1")


def _write_identity(con: DuckDBPyConnection, people: int) -> None:
    """A customer is a record with an account and a card; a cookie is a pseudonymous profile of its own."""
    profile_ids.create_tables(con)
    con.execute("create table identity.generic_values (namespace text, value text, reason text)")
    replace_table(
        con,
        "identity.identifiers",
        f"""select 'shop:' || {PERSON} as record_key, 'shop' as source, unnest(['account_id', 'loyalty_card']) as namespace,
            unnest([{PERSON}, 'L' || n]) as value, value as raw_value, timestamptz '2026-01-01' as observed_at
        from range({people}) t(n)""",
    )
    con.execute("create table identity.nodes (record_key text, source text, kind text, content ubigint)")
    con.execute(
        "create table identity.clusters (record_key text, cluster_key text, cluster_size bigint, flagged boolean)"
    )
    nodes = f"""
        select 'shop:' || {PERSON} as record_key, 'shop' as source, 'record' as kind, 'p' || md5('p' || n) as profile_id
            from range({people}) t(n)
        union all select 'event:account_id=' || {PERSON}, 'event', 'person', 'p' || md5('p' || n) from range({people}) t(n)
        union all select 'event:loyalty_card=L' || n, 'event', 'person', 'p' || md5('p' || n) from range({people}) t(n)
        union all select 'event:cookie=' || {COOKIE}, 'event', 'pseudonymous', 'c' || md5('c' || n) from range({people}) t(n)"""
    _write_nodes(con, nodes, 1)


def _write_nodes(con: DuckDBPyConnection, query: str, revision: int) -> None:
    """New nodes with their profiles, as a revision of the ledger."""
    con.execute(f"insert into identity.revisions (revision, batch) values ({revision}, {revision})")
    con.execute(f"create temp table fresh as {query}")
    con.execute(
        "insert into identity.nodes by name select * exclude (profile_id), hash(record_key) as content from fresh"
    )
    con.execute("insert into identity.clusters select record_key, profile_id, 1, false from fresh")
    con.execute(
        f"insert into identity.membership select record_key, profile_id, {revision}, null, 'new', hash(record_key) from fresh"
    )
    con.execute("drop table fresh")
    for table in ("identity.nodes", "identity.clusters", "identity.membership"):
        mark_built(con, table, str(revision))


# ---------------------------------------------------------------- what is measured


def measure_full(folder: str, _profiles: str) -> None:
    """Everything, from mapped rows."""
    _measure(folder)


def measure_micro(folder: str, profiles: str) -> None:
    """A micro-batch on top."""
    config, people = load_config(PACKAGE_RULES), int(profiles) // 2
    with _opened(folder) as con, transaction(con):
        con.execute("insert into raw.batches values (2, timestamptz '2026-04-01 01:00:00', false)")
        known, fresh = MICRO_BATCH // 20, MICRO_BATCH // 20
        total = int(profiles) * EVENTS_A_PROFILE
        _deliver(
            con, config, 2, {"web": MICRO_BATCH * 8 // 10, "store": 500, "shop": 500}, people, first=total
        )
        con.execute(f"insert into records.web select * replace (20 as _file, 100000 + _line as _line, 2 as batch)"
                    f" from records.web where _file = 10 and _line < {known}")  # fmt: skip
        _add_cookies(con, fresh)
    _measure(folder, content=True)


def _add_cookies(con: DuckDBPyConnection, fresh: int) -> None:
    con.execute(
        f"""insert into records.web by name
        select * replace (200000 + _line as _line, event_key || 'f' as event_key, event_id || 'f' as event_id,
            [struct_pack(namespace := 'cookie', value := 'new' || _line, raw := 'new' || _line)] as identifiers)
        from records.web where _file = 20 and _line < {fresh}"""
    )
    _write_nodes(
        con,
        f"""select 'event:cookie=new' || n as record_key, 'event' as source, 'pseudonymous' as kind, 'n' || md5(n::text)
            as profile_id from range({fresh}) t(n)""",
        2,
    )


def measure_rebuild(folder: str, _profiles: str) -> None:
    """The same rows, everything afresh."""
    with _opened(folder) as con:
        con.execute("delete from state.built where split_part(name, '.', 1) in ('profiles', 'audiences')"
                    " or name in ('records.events', 'records.event_subjects', 'records.expired_events')")  # fmt: skip
    _measure(folder, content=True)


def _opened(folder: str):  # noqa: ANN202
    return connect(Project(rules=PACKAGE_RULES, data=Path(folder)).database)


def _measure(folder: str, *, content: bool = False) -> None:
    clock, config = Clock(), load_config(PACKAGE_RULES)
    project = Project(rules=PACKAGE_RULES, data=Path(folder))
    with run_lock(project.state), connect(project.database) as con:
        with clock.stage("events"):
            events.build_events(con, config)
        with clock.stage("timeline"):
            timeline.build_timeline(con, config)
        with clock.stage("candidates"):
            candidates.build_candidates(con, config)
        with clock.stage("lineage"):
            lineage.build_lineage(con, config)
        with clock.stage("unified"):
            unified.build_unified(con, config)
        with clock.stage("computed"):
            build_computed(con, config)
        with clock.stage("audiences"):
            audiences.build_audiences(con, config)
        with clock.stage("checkpoint"):
            con.execute("checkpoint")
        found: dict[str, Any] = {
            "events": count(con, "profiles.events"),
            "profiles": count(con, "profiles.unified"),
            "members": count(con, "audiences.membership"),
        }
        if content:
            found["content"] = [_content(con, table) for table in TABLES]
    print_result({"seconds": clock.seconds, "total": round(sum(clock.seconds.values()), 2), **found})


def _content(con: DuckDBPyConnection, table: str) -> str:
    """The same for the same rows in any order."""
    return str(rows(con, f"select count(*), sum(hash(t)::hugeint) from {table} t")[0])


WORK = {"prepare": prepare, "full": measure_full, "micro": measure_micro, "rebuild": measure_rebuild}

if __name__ == "__main__":
    main()
