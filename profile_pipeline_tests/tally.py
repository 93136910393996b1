"""The counts of metrics once more in plain Python, and a small retailer in three months to count.

`counted_world` runs the demo's rules over 250 made-up people, a batch a month, and tallies the warehouse after every
run. Rows of a tally are those of metrics.<table> without its day or batch.
"""

import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import PACKAGE_RULES, Project
from profile_pipeline.generate import generate
from profile_pipeline.publish import DATABASE
from profile_pipeline.warehouse import records_of, rows
from profile_pipeline_tests.worlds import run_and_publish, warehouse_of

Tally = dict[str, list[tuple[Any, ...]]]
MONTHS = (1, 2, 3)
IDLE = (7, 30, 60, 90, 120)


@dataclass(frozen=True)
class Counted:
    """A project after its runs, with the tally of every day."""

    project: Project
    config: Config
    tallies: dict[date, Tally]

    @property
    def database(self) -> Path:
        """The published database."""
        return self.project.published / "current" / DATABASE

    @property
    def newest(self) -> date:
        """The day of the last batch."""
        return max(self.tallies)


def counted_world(folder: Path) -> Counted:
    """Three monthly batches; before the last one an audience was delivered."""
    generate(folder / "made", 250, 7)
    project = Project(rules=PACKAGE_RULES, data=folder / "data")
    config = load_config(PACKAGE_RULES)
    inbox = project.data / "sources"
    inbox.mkdir(parents=True)
    tallies = {}
    for month in MONTHS:
        for path in (folder / "made" / "sources").glob(f"*_2026-{month:02}-*"):
            shutil.copy(path, inbox)
        as_of = datetime(2026, month + 1, 1, 6, tzinfo=UTC)
        run_and_publish(project, as_of)
        with warehouse_of(project) as con:
            tallies[as_of.date()] = tally(con, config, as_of)
            if month == MONTHS[1]:
                enter_delivery(con, "handover", "win_back", 12, as_of + timedelta(hours=1))
    return Counted(project, config, tallies)


def enter_delivery(con: DuckDBPyConnection, destination: str, audience: str, sent: int, at: datetime) -> None:
    """A delivery that arrived, in the ledger of sharing."""
    con.execute(
        """insert into state.deliveries by name select ? as destination, ? as shipment, 1 as delivery, 'local' as platform,
        '' as place, ? as what, ? as audience, '' as table_name, 'full' as mode, 2 as generation, 'delivered' as status,
        '' as reason, ?::timestamptz as started_at, ?::timestamptz as finished_at, ? as row_count, ? as held_count,
        1 as file_count, 100 as byte_count, '' as folder, '' as content, '' as rules, '' as manifest_sha256""",
        [destination, audience, audience, audience, at, at, sent, sent],
    )


# ---------------------------------------------------------------- in plain Python


def tally(con: DuckDBPyConnection, config: Config, as_of: datetime) -> Tally:
    """Every table of counts, row by row in Python."""
    profiles = records_of(con, "select * from profiles.unified")
    members = defaultdict(set)
    for audience, profile_id in rows(
        con, "select audience, profile_id from audiences.membership where exited_at is null"
    ):
        members[profile_id].add(audience)
    known = defaultdict(set)
    for profile in profiles:
        known[profile["profile_id"]] |= set(profile["sources"])
    for profile_id, source in rows(con, "select profile_id, source from profiles.events"):
        if profile_id:
            known[profile_id].add(source)
    spaces = {p["profile_id"]: tuple(sorted(p["identity_map"] or {})) for p in profiles}
    people = [(p["profile_id"], spaces[p["profile_id"]], members[p["profile_id"]]) for p in profiles]
    return {
        "profiles": _profiles(profiles),
        "namespaces": _namespaces(con, people),
        "namespace_overlaps": _overlaps(list(spaces.values())),
        "source_overlaps": _overlaps([tuple(sorted(known[p["profile_id"]])) for p in profiles]),
        "audiences": _audiences(con, config, people),
        "audience_namespaces": _by_namespace(people),
        "audience_namespace_overlaps": [
            (a, ",".join(s), len(s), n)
            for (a, s), n in Counter((a, s) for _, s, audiences in people for a in audiences).items()
        ],
        "audience_overlaps": _pairs(config, people),
        "fields": _fields(con, config),
        "survivorship": _survivorship(con),
        "sources": _sources(con, config, known),
        "unknown_profiles": _unknown(profiles, as_of),
        "match_weights": _weights(con),
        "cluster_sizes": _clusters(con),
        "links": _links(con),
        "policies": _policies(con, config),
        "snapshots": [(len(profiles), sum(p["kind"] == "person" for p in profiles),
                       sum(p["kind"] == "pseudonymous" for p in profiles), sum(len(s) == 1 for _, s, _ in people),
                       sum(not audiences for _, _, audiences in people),
                       sum(len(values) for p in profiles for values in (p["identity_map"] or {}).values()))],
    }  # fmt: skip


def _profiles(profiles: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    found: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for profile in profiles:
        cell = found[profile["kind"], min(profile["record_count"], 10)]
        cell[0] += 1
        cell[1] += profile["event_count"]
    return [(*key, *cell) for key, cell in found.items()]


def _namespaces(con: DuckDBPyConnection, people: list[Any]) -> list[tuple[Any, ...]]:
    values = Counter(rows(con, "select namespace, kind from profiles.identifiers"))
    return [
        (name, kind, sum(name in s for _, s, _ in people), sum(s == (name,) for _, s, _ in people),
         sum(name in s and not audiences for _, s, audiences in people), n)
        for (name, kind), n in values.items()
    ]  # fmt: skip


def _overlaps(sets: list[tuple[str, ...]]) -> list[tuple[Any, ...]]:
    names = sorted({name for found in sets for name in found})
    share = {name: sum(name in found for found in sets) / len(sets) for name in names}
    result = []
    for found, n in Counter(sets).items():
        expected = len(sets) * math.prod(share[name] if name in found else 1 - share[name] for name in names)
        result.append((",".join(found), len(found), n, expected, n / expected if expected else None))
    return result


def _audiences(con: DuckDBPyConnection, config: Config, people: list[Any]) -> list[tuple[Any, ...]]:
    stays = Counter(rows(con, "select audience, exited_at is not null from audiences.membership"))
    return [
        (name, sum(name in audiences for _, _, audiences in people), stays[name, True] + stays[name, False],
         stays[name, True])
        for name in config.audiences.audiences
    ]  # fmt: skip


def _by_namespace(people: list[Any]) -> list[tuple[Any, ...]]:
    everybody = Counter((a, name) for _, s, audiences in people for a in audiences for name in s)
    alone = Counter((a, s[0]) for _, s, audiences in people for a in audiences if len(s) == 1)
    return [(*key, n, alone[key]) for key, n in everybody.items()]


def _pairs(config: Config, people: list[Any]) -> list[tuple[Any, ...]]:
    inside = {a: {i for i, _, found in people if a in found} for a in config.audiences.audiences}
    return [
        (one, other, len(inside[one] & inside[other]),
         100 * len(inside[one] & inside[other]) / len(inside[one] | inside[other]) if inside[one] | inside[other] else 100)
        for one in inside for other in inside if one < other
    ]  # fmt: skip


def _tables(config: Config) -> dict[str, str]:
    default = config.profiles.default
    return {
        p: "profiles.unified" if p == default else f"profiles.unified_{p}" for p in config.profiles.policies
    }


def _fields(con: DuckDBPyConnection, config: Config) -> list[tuple[Any, ...]]:
    disagreeing = _disagreeing(con)
    found = []
    for policy, table in _tables(config).items():
        shown = records_of(con, f"select * from {table}")
        for field in config.attributes:
            values = [repr(p[field]) for p in shown if p[field] is not None]
            share = len(values) / len(shown)
            found.append((policy, field, len(values), share, len(set(values)), disagreeing[policy, field]))
    return found


def _disagreeing(con: DuckDBPyConnection) -> Counter[tuple[str, str]]:
    offers: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    settled = set()
    query = "select policy, field, profile_id, value, rank, rule from profiles.lineage"
    for policy, field, profile_id, value, rank, rule in rows(con, query):
        if value is not None:
            offers[policy, field, profile_id].add(value.lower())
        if rank == 1 and rule in {"only_record", "all_agree"}:
            settled.add((policy, field, profile_id))
    return Counter(key[:2] for key, values in offers.items() if len(values) > 1 and key not in settled)


def _survivorship(con: DuckDBPyConnection) -> list[tuple[Any, ...]]:
    query = "select policy, field, source, won and value is not null from profiles.lineage"
    found = Counter((policy, field, source) for policy, field, source, shown in rows(con, query) if shown)
    return [(*key, n) for key, n in found.items()]


def _sources(con: DuckDBPyConnection, config: Config, known: dict[str, set[str]]) -> list[tuple[Any, ...]]:
    records = records_of(con, "select source, observed_at, clock from records.current")
    events = records_of(con, "select source, occurred_at, clock, late from records.events")
    refused = Counter(rows(con, "select source from records.quarantine"))
    files = rows(
        con, "select source, as_of from raw.files join raw.batches using (batch) where state = 'loaded'"
    )
    return [
        (
            name, source.kind, max((at for s, at in files if s == name), default=None),
            _newest(name, [*records, *events]),
            sum(r["source"] == name for r in records), sum(e["source"] == name for e in events),
            sum(name in found for found in known.values()), sum(found == {name} for found in known.values()),
            sum(r["source"] == name and r["clock"] != "source" for r in records),
            sum(e["source"] == name and e["late"] for e in events), refused[(name,)],
        )
        for name, source in config.sources.items()
    ]  # fmt: skip


def _newest(source: str, seen: list[dict[str, Any]]) -> datetime | None:
    """The newest time of a row's own; of a source without any, the newest."""
    of_source = [row for row in seen if row["source"] == source]
    own = [row for row in of_source if row["clock"] == "source"]
    return max((row.get("observed_at") or row["occurred_at"] for row in own or of_source), default=None)


def _unknown(profiles: list[dict[str, Any]], as_of: datetime) -> list[tuple[Any, ...]]:
    found: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for profile in profiles:
        identities = profile["identity_map"] or {}
        if profile["kind"] == "person" or [len(values) for values in identities.values()] != [1]:
            continue
        for days in IDLE:
            if profile["last_event_at"] is None or profile["last_event_at"] <= as_of - timedelta(days=days):
                cell = found[next(iter(identities)), days]
                cell[0] += 1
                cell[1] += profile["event_count"]
    return [(*key, *cell) for key, cell in found.items()]


def _weights(con: DuckDBPyConnection) -> list[tuple[Any, ...]]:
    pairs = rows(con, "select match_weight, accepted from identity.edges where type = 'probabilistic'")
    every = Counter(math.floor(weight) for weight, _ in pairs)
    linked = Counter(math.floor(weight) for weight, accepted in pairs if accepted)
    return [(weight, n, linked[weight]) for weight, n in every.items()]


def _clusters(con: DuckDBPyConnection) -> list[tuple[Any, ...]]:
    sizes: Counter[str] = Counter()
    flagged = set()
    for cluster, limited in rows(con, "select cluster_key, flagged from identity.clusters"):
        sizes[cluster] += 1
        if limited:
            flagged.add(cluster)
    return [
        (size, n, sum(sizes[cluster] == size for cluster in flagged))
        for size, n in Counter(sizes.values()).items()
    ]


def _links(con: DuckDBPyConnection) -> list[tuple[Any, ...]]:
    cut = set(rows(con, "select left_key, right_key from identity.cut_links"))
    found: dict[tuple[str, str | None], list[int]] = defaultdict(lambda: [0, 0])
    for kind, namespace, left, right, accepted in rows(
        con, "select type, namespace, left_key, right_key, accepted from identity.edges"
    ):
        if accepted:
            found[kind, namespace][(left, right) in cut] += 1
    for (namespace,) in rows(con, "select namespace from identity.attachments"):
        found["attached", namespace][0] += 1
    return [(*key, *counts) for key, counts in found.items()]


def _policies(con: DuckDBPyConnection, config: Config) -> list[tuple[Any, ...]]:
    disagreeing = _disagreeing(con)
    found = []
    for policy, table in _tables(config).items():
        shown = records_of(con, f"select * from {table}")
        fields = [f for f in config.attributes if any(p[f] is not None for p in shown)]
        shares = [sum(p[f] is not None for f in fields) / len(fields) for p in shown]
        found.append(
            (policy, config.profiles.policies[policy].version, policy == config.profiles.default, len(shown),
             sum(shares) / len(shares), *_bands(shares),
             sum(n for (name, _), n in disagreeing.items() if name == policy))
        )  # fmt: skip
    return found


def _bands(shares: Iterable[float]) -> tuple[int, int, int]:
    rounded = [round(share, 9) for share in shares]
    high, low = sum(share > 0.7 for share in rounded), sum(share < 0.3 for share in rounded)
    return high, len(rounded) - high - low, low
