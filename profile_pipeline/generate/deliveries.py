"""One block of people becomes rows of every source and of the truth, in files named by delivery and part."""

from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from profile_pipeline.generate.feeds import FEEDS, LOYALTY_COLUMNS, Feed
from profile_pipeline.generate.files import Staging
from profile_pipeline.generate.frames import FRAMES
from profile_pipeline.generate.rates import BLOCK_PEOPLE, PART_BLOCKS
from profile_pipeline.generate.scratch import load_people, open_scratch, read_members, run_query
from profile_pipeline.generate.world import Block, build_block

DELIVERIES = {
    "crm": ("2026-01-05", "2026-02-02", "2026-03-02"),
    "loyalty": ("2026-01-06", "2026-03-03"),
    "shop": ("2026-01-31", "2026-02-28"),
    "web": ("2026-01-31", "2026-02-28"),
    "store": ("2026-01-31", "2026-02-28"),
    "enrichment": ("2026-02-10",),
}
BROKEN_FILES = (
    "sources/crm_2026-03-09.csv",
    "sources/loyalty_2026-03-10.parquet",
    "sources/enrichment_2026-02-10_again.csv",
)
BROKEN_BYTES = 2_000
"""How much of the truncated Parquet file arrives."""


@dataclass
class Tally:
    """What has been written so far."""

    rows: dict[str, int] = field(default_factory=lambda: {feed.source: 0 for feed in FEEDS})
    records: int = 0
    events: int = 0


def block_count(people: int) -> int:
    """Return how many blocks hold these people."""
    return -(-people // BLOCK_PEOPLE)


def file_name(feed: Feed, delivery: str, people: int, block: int) -> str:
    """Name the file a block belongs to; only a world of several parts numbers them."""
    part = f"_part{block // PART_BLOCKS:03d}" if block_count(people) > PART_BLOCKS else ""
    return f"sources/{feed.prefix}_{delivery}{part}{feed.suffix}"


def planned_names(people: int) -> set[str]:
    """Return the names of all files a world of this size has."""
    blocks = range(0, block_count(people), PART_BLOCKS)
    deliveries = {
        file_name(feed, delivery, people, block)
        for feed in FEEDS
        for delivery in DELIVERIES[feed.source]
        for block in blocks
    }
    return deliveries | set(BROKEN_FILES)


def write_world(folder: Path, people: int, seed: int) -> tuple[Tally, list[Path]]:
    """Write one block after the other, then all files into place; memory holds a single block."""
    tally = Tally()
    with Staging(folder) as staging, open_scratch(seed) as scratch:
        for number in range(block_count(people)):
            block = build_block(seed, number)
            load_people(scratch, block)
            write_block(scratch, staging, tally, block, people)
            if (number + 1) % PART_BLOCKS == 0:
                staging.close_files("sources/")
        staging.close_files()
        add_broken_files(staging, people)
        return tally, staging.publish()


def write_block(
    scratch: duckdb.DuckDBPyConnection,
    staging: Staging,
    tally: Tally,
    block: Block,
    people: int,
) -> None:
    """Write the rows of one block, of the people below `people` only."""
    members = read_members(scratch)
    for feed in FEEDS:
        frame = FRAMES[feed.query](members, block.draws)
        rows = run_query(scratch, feed.query, frame, block)
        rows = rows.filter(pc.field("person") < people)
        tally.rows[feed.source] += rows.num_rows
        for delivery in DELIVERIES[feed.source]:
            delivered = rows.filter(pc.field("delivery") == delivery)
            write_rows(staging, feed, file_name(feed, delivery, people, block.number), delivered)
        write_truth(scratch, staging, tally, feed, rows.filter(pc.field("flaw").is_null()))


def write_rows(staging: Staging, feed: Feed, name: str, rows: pa.Table) -> None:
    """Append the rows of one delivery to its file."""
    if feed.suffix == ".parquet":
        staging.write_rows(name, rows.select(LOYALTY_COLUMNS))
    else:
        staging.write_lines(name, rows["line"], feed.header, feed.encoding)


def write_truth(
    scratch: duckdb.DuckDBPyConnection, staging: Staging, tally: Tally, feed: Feed, rows: pa.Table
) -> None:
    """Append who the readable rows belong to, once a record key and event; a visitor is nobody known."""
    if feed.records:
        labels = without_known(scratch, truth_rows(feed, rows, "record_id", "person"))
        staging.write_rows("truth/labels.parquet", labels)
        tally.records += labels.num_rows
    if feed.events:
        entity = "entity" if "entity" in rows.column_names else "person"
        events = truth_rows(feed, rows, "event_id", entity)
        staging.write_rows("truth/events.parquet", events)
        tally.events += events.num_rows


def truth_rows(feed: Feed, rows: pa.Table, key: str, entity: str) -> pa.Table:
    """Return source, key and entity of the rows, once a key, in order of the key."""
    keys = rows.group_by(key).aggregate([(entity, "min")]).sort_by(key)
    columns = {
        "source": pa.repeat(feed.source, keys.num_rows),
        key: keys[key],
        "entity_id": keys[f"{entity}_min"].cast(pa.string()),
    }
    return pa.table(columns)


def without_known(scratch: duckdb.DuckDBPyConnection, labels: pa.Table) -> pa.Table:
    """Return the labels of record keys that no earlier block has: in a large world two people draw the same e-mail.

    As inside a block, the first of them has the record. Keys are remembered as 64-bit hashes.
    """
    scratch.register("labels", labels)
    query = "select hash(source, record_id) not in (from labelled) as first from labels"
    labels = labels.filter(scratch.sql(query).to_arrow_table()["first"])
    scratch.register("labels", labels)
    scratch.execute("insert into labelled select hash(source, record_id) from labels")
    scratch.unregister("labels")
    return labels


def add_broken_files(staging: Staging, people: int) -> None:
    """Add an empty file, one cut short and one that repeats another, as they happen in real deliveries."""
    loyalty, enrichment = (
        next(feed for feed in FEEDS if feed.source == name) for name in ("loyalty", "enrichment")
    )
    cut = staging.read_bytes(file_name(loyalty, DELIVERIES["loyalty"][-1], people, 0))[:BROKEN_BYTES]
    again = staging.read_bytes(file_name(enrichment, DELIVERIES["enrichment"][0], people, 0))
    for name, content in zip(BROKEN_FILES, (b"", cut, again), strict=True):
        staging.write_bytes(name, content)
