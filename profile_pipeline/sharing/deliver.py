"""One destination after the other: what is due, is it healthy, write it, bring it there, note it.

A delivery is one shipment of one destination. It is noted before its first file leaves and counts once the destination
can see it; a killed or failed one is gone on with by the next run, which makes the same bytes again.
"""

import json
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.clock import moment
from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.config.sharing import Destination, Shipment
from profile_pipeline.config.wording import suggestion
from profile_pipeline.errors import PipelineError
from profile_pipeline.publish import Generation, current
from profile_pipeline.raw.ledger import sha256_of
from profile_pipeline.sharing import changes, files, hashing, health, ledger, manifest, query
from profile_pipeline.sharing.ledger import Channel
from profile_pipeline.sharing.sinks import Sink, sink_of
from profile_pipeline.warehouse import fingerprint, literal, rows, scalar, scratch, scrubbed

UNCHANGED, NOT_DUE, DUE = "unchanged", "not due", "due"


@dataclass(frozen=True)
class Wishes:
    """What a run is asked for beyond the rules: send again what did not change, let an odd size through."""

    resend: bool = False
    accept: bool = False


NO_WISHES = Wishes()


@dataclass(frozen=True)
class Outcome:
    """What became of a shipment: delivered, unchanged, not due, blocked or failed."""

    destination: str
    shipment: str
    status: str
    reason: str = ""
    delivery: int | None = None
    row_count: int = 0
    held_count: int = 0
    file_count: int = 0
    byte_count: int = 0
    sent_count: int = 0
    folder: str = ""
    changes: dict[str, int] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Parcel:
    """A shipment of a generation, selected and compared with what the destination has."""

    selection: query.Selection
    channel: Channel
    naming: files.Naming
    last: dict[str, Any] | None
    columns: list[query.Column]
    excluded: dict[str, int]
    changes: dict[str, int]
    held_count: int
    content: str
    rules: str

    @property
    def shipment(self) -> Shipment:
        """Its rules."""
        return self.selection.shipment

    @property
    def folder(self) -> str:
        """Where it goes inside the store."""
        return self.naming.fill(self.shipment.folder)


def deliver(
    con: DuckDBPyConnection,
    config: Config,
    project: Project,
    name: str,
    wishes: Wishes = NO_WISHES,
    only: str | None = None,
) -> list[Outcome]:
    """Deliver every shipment of a destination, or only one, from the live generation; nothing is raised for one of them."""
    destination, live = known(config, name), published(project)
    ledger.create_tables(con)
    sink = sink_of(project, name, destination)
    found = []
    with reading(con, live):
        hashing.load_key(con, destination.hash, f"sharing.yaml: destinations.{name}")
        for key, shipment in destination.ship.items():
            if shipment.enabled and only in {None, key}:
                selection = _selection(config, live, name, key)
                found.append(_try(con, selection, Channel(name, key), sink, wishes))
    return found


def preview(
    con: DuckDBPyConnection, config: Config, project: Project, name: str, wishes: Wishes = NO_WISHES
) -> list[tuple[Outcome, list[str]]]:
    """What `deliver` would do, and the columns that would leave; nothing is written or sent."""
    destination, live = known(config, name), published(project)
    ledger.create_tables(con)
    found = []
    with reading(con, live):
        hashing.load_key(con, destination.hash, f"sharing.yaml: destinations.{name}")
        for key, shipment in destination.ship.items():
            if shipment.enabled:
                parcel = pack(con, _selection(config, live, name, key), Channel(name, key), wishes)
                stop = stops(con, parcel, wishes)
                found.append((stop or outcome_of(parcel, DUE), [column.name for column in parcel.columns]))
    return found


def known(config: Config, name: str) -> Destination:
    """A destination by its name. Raises PipelineError for others, and for one that is switched off."""
    destinations = config.sharing.destinations
    if name not in destinations:
        fix = suggestion(name, destinations, f"known: {', '.join(destinations) or 'none'}")
        raise PipelineError(f"sharing.yaml: destinations: no destination `{name}`; {fix}")
    if name not in config.sharing.active():
        raise PipelineError(f"sharing.yaml: destinations.{name}: is switched off; write `enabled: true`")
    return destinations[name]


def published(project: Project) -> Generation:
    """The live generation. Raises PipelineError before the first, and in a copy that shows the past."""
    if project.past.exists():
        raise PipelineError("these are the profiles as they were; nothing is shared of them")
    live = current(project)
    if live is None:
        raise PipelineError("nothing is published yet; `profile-pipeline run` makes the first generation")
    return live


@contextmanager
def reading(con: DuckDBPyConnection, live: Generation) -> Generator[None]:
    """A generation and a throw-away database beside the warehouse."""
    with scratch(con):
        query.attach(con, live)
        try:
            yield
        finally:
            con.execute("detach generation")


def _selection(config: Config, live: Generation, name: str, key: str) -> query.Selection:
    destination = config.sharing.destinations[name]
    where = f"sharing.yaml: destinations.{name}.ship.{key}"
    return query.Selection(config, live, where, destination, destination.ship[key])


def _try(
    con: DuckDBPyConnection, selection: query.Selection, channel: Channel, sink: Sink, wishes: Wishes
) -> Outcome:
    try:
        return _ship(con, selection, channel, sink, wishes)
    except PipelineError as error:
        return Outcome(channel.destination, channel.shipment, ledger.FAILED, str(error))
    except Exception as error:  # a full disk, say: the other shipments go all the same
        return Outcome(channel.destination, channel.shipment, ledger.FAILED, str(scrubbed(error)))


def _ship(
    con: DuckDBPyConnection, selection: query.Selection, channel: Channel, sink: Sink, wishes: Wishes
) -> Outcome:
    begun = _settled(con, channel, sink)
    parcel = pack(con, selection, channel, wishes)
    spoilt = bool(begun and parcel.last and begun["folder"] == parcel.last["folder"])
    stop = stops(con, parcel, wishes, spoilt=spoilt)
    if begun and begun["folder"] != parcel.folder:
        sink.clear(begun["folder"])
    if stop:
        return _stopped(con, parcel, stop, begun, spoilt=spoilt)
    building = sink.building(channel.shipment)
    try:
        written = _write(con, parcel, building)
        mark = sha256_of(building / manifest.MANIFEST)
        ledger.begin(con, entry_of(parcel, ledger.RUNNING, written, mark), _pending_query(parcel))
        return _bring(con, parcel, sink, building, written)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _settled(con: DuckDBPyConnection, channel: Channel, sink: Sink) -> dict[str, Any] | None:
    """The delivery that was begun and did not arrive. One that did, before a kill could note it, is noted now."""
    begun = ledger.unfinished(con, channel)
    if begun and sink.arrived(begun["folder"]) == begun["manifest_sha256"]:
        ledger.finish(con, channel, begun["delivery"])
        return None
    return begun


def _stopped(
    con: DuckDBPyConnection, parcel: Parcel, stop: Outcome, begun: dict[str, Any] | None, *, spoilt: bool
) -> Outcome:
    """Nothing leaves. What was begun is forgotten, unless it has overwritten a part of the last delivery."""
    if spoilt:
        return stop
    if begun:
        ledger.abandon(con, parcel.channel, begun["delivery"])
    if stop.status == ledger.BLOCKED:
        ledger.note(con, entry_of(parcel, ledger.BLOCKED, reason=stop.reason))
    return stop


def _bring(
    con: DuckDBPyConnection, parcel: Parcel, sink: Sink, building: Path, written: list[files.File]
) -> Outcome:
    delivery = parcel.naming.delivery
    try:
        sent = sink.deliver(building, parcel.folder, written)
    except PipelineError as error:
        ledger.fail(con, parcel.channel, delivery, str(error))
        return replace(outcome_of(parcel, ledger.FAILED, written), reason=str(error))
    ledger.finish(con, parcel.channel, delivery)
    return replace(outcome_of(parcel, ledger.DELIVERED, written), sent_count=sent)


def pack(
    con: DuckDBPyConnection, selection: query.Selection, channel: Channel, wishes: Wishes = NO_WISHES
) -> Parcel:
    """Select the rows of a shipment (scratch.outgoing) and compare them with what is held (scratch.changes)."""
    live, last = selection.live, ledger.last_delivered(con, channel)
    _same_place(selection, last)
    columns, excluded = query.select_rows(con, selection)
    found = changes.find_changes(
        con,
        channel,
        of_profiles=selection.of_profiles,
        since_revision=last["revision"] if last else None,
        everything=wishes.resend,
    )
    naming = files.Naming(
        destination=channel.destination, shipment=channel.shipment, table=selection.shipment.what, as_of=time_of(live),
        generation=live.number, delivery=ledger.next_number(con, channel),
    )  # fmt: skip
    [content] = rows(con, "select count(*), bit_xor(_hash), sum(_hash) from scratch.outgoing")
    return Parcel(
        selection,
        channel,
        naming,
        last,
        columns,
        excluded,
        found,
        content[0],
        fingerprint(content),
        _rules(selection),
    )


def _same_place(selection: query.Selection, last: dict[str, Any] | None) -> None:
    place = selection.destination.to.place
    if last and last["place"] != place:
        raise PipelineError(
            f"{selection.where}: went to {last['place']} so far and now to {place}; give the new place a destination of its own"
        )


def _rules(selection: query.Selection) -> str:
    """A fingerprint of what decides about the bytes that leave."""
    shipment = selection.shipment.model_dump(exclude={"description", "enabled", "when", "every", "health"})
    hashed = selection.destination.hash
    return fingerprint(shipment, hashed and hashed.model_dump(), selection.consents)


def time_of(live: Generation) -> datetime | None:
    """The time up to which a generation knows everything."""
    text = live.manifest["as_of"]
    return datetime.fromisoformat(text) if text else None


def stops(con: DuckDBPyConnection, parcel: Parcel, wishes: Wishes, *, spoilt: bool = False) -> Outcome | None:
    """Why nothing leaves now, or None. `spoilt`: what the destination has is incomplete, so it is due."""
    if not (wishes.resend or spoilt):
        if _too_soon(con, parcel):
            return outcome_of(parcel, NOT_DUE, reason=f"at most once in {parcel.shipment.every}")
        if _unchanged(parcel):
            return outcome_of(parcel, UNCHANGED)
    found = health.judge(con, parcel.selection, parcel.channel, parcel.naming.as_of, parcel.held_count)
    if found.why and not wishes.accept:
        return outcome_of(parcel, ledger.BLOCKED, reason=f"{parcel.naming.table}: {found.why}")
    return None


def _too_soon(con: DuckDBPyConnection, parcel: Parcel) -> bool:
    every, last, now = parcel.shipment.every, parcel.last, parcel.naming.as_of
    if not (every and last and last["as_of"] and now):
        return False
    # a daily run that starts some seconds sooner than yesterday's does not skip a day
    waited = f"epoch({moment(now)}) - epoch({moment(last['as_of'])})"
    return scalar(con, f"select {waited} < 0.95 * epoch(interval {literal(every)})")


def _unchanged(parcel: Parcel) -> bool:
    last, when = parcel.last, parcel.shipment.when
    if last is None:
        return False
    if when == "published":
        return last["generation"] == parcel.naming.generation and last["rules"] == parcel.rules
    if parcel.shipment.mode == "incremental":
        return not _moved(parcel) if when == "members_changed" else not parcel.changes
    if last["rules"] != parcel.rules:
        return False
    return not _moved(parcel) if when == "members_changed" else last["content"] == parcel.content


def _moved(parcel: Parcel) -> bool:
    """Whether anybody came or went."""
    return bool(set(parcel.changes) - {"updated"})


def _write(con: DuckDBPyConnection, parcel: Parcel, building: Path) -> list[files.File]:
    full = parcel.shipment.mode == "full"
    table = "scratch.outgoing" if full else "scratch.changes"
    of_profiles = parcel.selection.of_profiles
    leaving = (
        files.all_rows_query(parcel.columns)
        if full
        else files.changed_rows_query(parcel.columns, of_profiles=of_profiles)
    )
    written = files.write_files(con, leaving, table, parcel.shipment, parcel.naming, building)
    numbers = {
        "mode": parcel.shipment.mode,
        "base_delivery": parcel.last and parcel.last["delivery"],
        "changes": parcel.changes,
        "excluded": parcel.excluded,
        "held_rows": parcel.held_count,
    }
    content = manifest.about(con, parcel.selection, parcel.naming, parcel.columns, leaving)
    manifest.write_manifest(building, content | numbers, written)
    return written


def _pending_query(parcel: Parcel) -> str:
    """What the ledger would learn. A full delivery replaces what it updates, so nothing ends there."""
    change = (
        "change" if parcel.shipment.mode == "incremental" else "if(change = 'updated', 'refreshed', change)"
    )
    return f"select _key as row_key, _who as profile_id, _hash as row_hash, {change} as change from scratch.changes"


def entry_of(
    parcel: Parcel, status: str, written: Sequence[files.File] = (), mark: str = "", reason: str = ""
) -> dict[str, Any]:
    """A row of state.deliveries."""
    naming, shipment, to = parcel.naming, parcel.shipment, parcel.selection.destination.to
    return {
        "destination": naming.destination, "shipment": naming.shipment, "delivery": naming.delivery,
        "platform": to.type, "place": to.place,
        "what": "audience" if shipment.audience else "profiles" if shipment.is_profiles else "table",
        "audience": shipment.audience, "table_name": parcel.selection.table, "mode": shipment.mode,
        "generation": naming.generation, "as_of": naming.as_of,
        "revision": parcel.selection.live.manifest.get("revision"),
        "base_delivery": parcel.last and parcel.last["delivery"], "status": status, "reason": reason,
        "started_at": datetime.now(UTC), "finished_at": None if status == ledger.RUNNING else datetime.now(UTC),
        "row_count": sum(file.rows for file in written), "held_count": parcel.held_count,
        "file_count": len(written), "byte_count": sum(file.bytes for file in written),
        "changes": json.dumps(parcel.changes), "excluded": json.dumps(parcel.excluded), "folder": parcel.folder,
        "content": parcel.content, "rules": parcel.rules, "manifest_sha256": mark,
    }  # fmt: skip


def outcome_of(parcel: Parcel, status: str, written: Sequence[files.File] = (), reason: str = "") -> Outcome:
    """What became of a parcel."""
    return Outcome(
        parcel.channel.destination, parcel.channel.shipment, status, reason,
        delivery=parcel.naming.delivery, row_count=sum(file.rows for file in written), held_count=parcel.held_count,
        file_count=len(written), byte_count=sum(file.bytes for file in written), folder=parcel.folder,
        changes=parcel.changes, excluded=parcel.excluded,
    )  # fmt: skip
