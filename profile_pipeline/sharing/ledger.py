"""What every destination has received, kept in the warehouse: deliveries, and which rows of whom they held.

`state.delivered` says for each row from which delivery on a destination has it and which one took it away, so it
grows with changes and not with deliveries. It keeps profile ids and hashes, never values. What a running delivery
would change waits in `state.delivering` and counts once the destination can see the delivery.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.profile_ids import final_redirects_query
from profile_pipeline.warehouse import literal, records_of, rows, scalar, table_exists, transaction

RUNNING, DELIVERED, FAILED, BLOCKED = "running", "delivered", "failed", "blocked"
"""failed: the next run goes on with it; blocked: its size was not healthy."""
UNFINISHED = f"status in ({literal(RUNNING)}, {literal(FAILED)})"
TABLES = """
create table if not exists state.deliveries (
    destination text not null, shipment text not null, delivery integer not null, platform text not null, place text not null,
    what text not null, audience text, table_name text not null, mode text not null, generation integer not null,
    as_of timestamptz, revision integer, base_delivery integer, status text not null, reason text not null,
    started_at timestamptz not null, finished_at timestamptz, row_count bigint not null, held_count bigint not null,
    file_count integer not null, byte_count bigint not null, changes json, excluded json, folder text not null,
    content text not null, rules text not null, manifest_sha256 text not null,
    primary key (destination, shipment, delivery));
create table if not exists state.delivered (
    destination text not null, shipment text not null, row_key uuid not null, profile_id uuid, row_hash ubigint not null,
    from_delivery integer not null, to_delivery integer);
create table if not exists state.delivering (
    destination text not null, shipment text not null, row_key uuid not null, profile_id uuid, row_hash ubigint,
    change text not null);
"""
"""Grain: destination, shipment, delivery; destination, shipment, row_key, from_delivery; destination, shipment, row_key."""
GONE = "('deleted', 'merged')"


@dataclass(frozen=True)
class Channel:
    """What is delivered to whom: the key of everything that the ledger knows."""

    destination: str
    shipment: str

    @property
    def where(self) -> str:
        """A condition for the rows of this channel."""
        return f"destination = {literal(self.destination)} and shipment = {literal(self.shipment)}"


def create_tables(con: DuckDBPyConnection) -> None:
    """Make the tables of the ledger where there are none."""
    con.execute(TABLES)


def deliveries(con: DuckDBPyConnection, destination: str | None = None) -> list[dict[str, Any]]:
    """Every delivery and attempt, the newest first."""
    if not table_exists(con, "state.deliveries"):
        return []
    return records_of(
        con,
        "select * from state.deliveries where destination = coalesce(?, destination)"
        " order by started_at desc, destination, shipment, delivery desc",
        [destination],
    )


def delivered_since(con: DuckDBPyConnection, time: datetime) -> list[dict[str, Any]]:
    """Deliveries that arrived after a time, in the order of their names."""
    found = [each for each in deliveries(con) if each["status"] == DELIVERED and each["finished_at"] >= time]
    return sorted(found, key=lambda each: (each["destination"], each["shipment"], each["delivery"]))


def last_delivered(con: DuckDBPyConnection, channel: Channel) -> dict[str, Any] | None:
    """The newest delivery that arrived."""
    return _newest(con, channel, f"status = {literal(DELIVERED)}")


def unfinished(con: DuckDBPyConnection, channel: Channel) -> dict[str, Any] | None:
    """The delivery that was begun and did not arrive, if there is one."""
    return _newest(con, channel, UNFINISHED)


def _newest(con: DuckDBPyConnection, channel: Channel, where: str) -> dict[str, Any] | None:
    found = records_of(
        con,
        f"select * from state.deliveries where {channel.where} and {where} order by delivery desc limit 1",
    )
    return found[0] if found else None


def next_number(con: DuckDBPyConnection, channel: Channel) -> int:
    """The number of a new delivery; those that were blocked or given up keep none."""
    last = scalar(
        con,
        f"select max(delivery) from state.deliveries where {channel.where} and status = {literal(DELIVERED)}",
    )
    return (last or 0) + 1


def held_query(channel: Channel) -> str:
    """Grain: row_key: what the destination has now."""
    return f"select row_key, profile_id, row_hash from state.delivered where {channel.where} and to_delivery is null"


def begin(con: DuckDBPyConnection, entry: dict[str, Any], changes: str) -> None:
    """Note a delivery before its first file leaves; `changes` is a query (row_key, profile_id, row_hash, change)."""
    channel = Channel(entry["destination"], entry["shipment"])
    with transaction(con):
        _write_entry(con, entry)
        con.execute(f"delete from state.delivering where {channel.where}")
        con.execute(
            f"insert into state.delivering by name select {literal(channel.destination)} as destination,"
            f" {literal(channel.shipment)} as shipment, row_key, profile_id, row_hash, change from ({changes})"
        )


def note(con: DuckDBPyConnection, entry: dict[str, Any]) -> None:
    """Note an attempt of which nothing left, such as a blocked one."""
    with transaction(con):
        _write_entry(con, entry)


def _write_entry(con: DuckDBPyConnection, entry: dict[str, Any]) -> None:
    columns = ", ".join(entry)
    marks = ", ".join("?" for _ in entry)
    con.execute(f"insert or replace into state.deliveries ({columns}) values ({marks})", list(entry.values()))


def finish(con: DuckDBPyConnection, channel: Channel, delivery: int) -> None:
    """The destination can see the delivery: its changes count from now on."""
    waiting = f"(select * from state.delivering where {channel.where})"
    with transaction(con):
        con.execute(
            f"""update state.delivered d set to_delivery = {delivery} from {waiting} w
            where {_same("d", channel)} and d.row_key = w.row_key and d.to_delivery is null and w.change <> 'refreshed'"""
        )
        con.execute(
            f"""update state.delivered d set row_hash = w.row_hash from {waiting} w
            where {_same("d", channel)} and d.row_key = w.row_key and d.to_delivery is null and w.change = 'refreshed'"""
        )
        con.execute(
            f"""insert into state.delivered by name
            select destination, shipment, row_key, profile_id, row_hash, {delivery} as from_delivery
            from {waiting} where change not in {GONE} and change <> 'refreshed'"""
        )
        con.execute(f"delete from state.delivering where {channel.where}")
        _end(con, channel, delivery, DELIVERED, "")


def fail(con: DuckDBPyConnection, channel: Channel, delivery: int, reason: str) -> None:
    """The delivery did not arrive; the next run goes on with it."""
    with transaction(con):
        _end(con, channel, delivery, FAILED, reason)


def abandon(con: DuckDBPyConnection, channel: Channel, delivery: int) -> None:
    """The delivery will not arrive, and nothing of it is left at the destination."""
    with transaction(con):
        con.execute(f"delete from state.delivering where {channel.where}")
        con.execute(f"delete from state.deliveries where {channel.where} and delivery = {delivery}")


def _end(con: DuckDBPyConnection, channel: Channel, delivery: int, status: str, reason: str) -> None:
    con.execute(
        f"update state.deliveries set status = ?, reason = ?, finished_at = ? where {channel.where} and delivery = ?",
        [status, reason, datetime.now(UTC), delivery],
    )


def _same(alias: str, channel: Channel) -> str:
    return f"{alias}.destination = {literal(channel.destination)} and {alias}.shipment = {literal(channel.shipment)}"


def recipients(con: DuckDBPyConnection, profile_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Who got rows about any of these profiles, retired ids included: a row a destination, shipment and interval.

    `from_delivery` brought the rows, `to_delivery` took them away (empty: the destination still has them); a full
    delivery in between holds them again. `begun` ones may have arrived in part.
    """
    if not table_exists(con, "state.delivered"):
        return []
    return records_of(
        con,
        f"""
        with wanted as (select unnest(?::uuid[]) as profile_id), held as (
            select destination, shipment, from_delivery, to_delivery, false as begun, count(*) as row_count
            from state.delivered semi join wanted using (profile_id) group by all
            union all
            select w.destination, w.shipment, d.delivery, null, true, count(*)
            from state.delivering w semi join wanted using (profile_id)
            join state.deliveries d on d.destination = w.destination and d.shipment = w.shipment and {UNFINISHED}
            where w.change not in {GONE} group by all
        )
        select h.*, d.platform, d.folder, d.as_of from held h left join state.deliveries d
            on d.destination = h.destination and d.shipment = h.shipment and d.delivery = h.from_delivery
        order by h.destination, h.shipment, h.from_delivery""",
        [list(profile_ids)],
    )


def all_ids(con: DuckDBPyConnection, profile_id: str) -> list[str]:
    """The profile and every retired id that leads to it: a destination may have got rows under any of them."""
    retired = rows(
        con,
        f"select profile_id from ({final_redirects_query()}) where successor = ? order by 1",
        [profile_id],
    )
    return [profile_id, *(each for (each,) in retired)]


def forget(con: DuckDBPyConnection, profile_ids: Sequence[str]) -> int:
    """Remove profiles from the ledger once their erasure is settled with every destination; the rows removed."""
    found = 0
    with transaction(con):
        for table in ("state.delivered", "state.delivering"):
            if table_exists(con, table):
                [(removed,)] = rows(
                    con,
                    f"delete from {table} where profile_id in (select unnest(?::uuid[]))",
                    [list(profile_ids)],
                )
                found += removed
    return found
