"""Mistakes in sharing that only names of other rules show: audiences, purposes, policies, columns."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from profile_pipeline.config.audiences import NO_CONSENT
from profile_pipeline.config.sharing import Destination, Shipment
from profile_pipeline.config.structs import structs_of

if TYPE_CHECKING:
    from profile_pipeline.config.load import Config

Unknown = Callable[[str, str, str, Iterable[str]], str]
MEMBER_COLUMNS = ("audience", "entered_at", "entry_reason")
"""Columns of a membership that a file about an audience can have besides those of the profile."""
IN_THE_CLEAR = frozenset(("identity_map",))
"""Columns that hold identifiers in the clear, whatever `hash:` says about their own columns."""


def sharing_problems(config: "Config", columns: Iterable[str], unknown: Unknown) -> Iterator[str]:
    """Lines about names that nothing declares; `columns` are those that every profile has."""
    fields = [*columns, *config.attributes, *config.structs, *config.computed.attributes, *config.namespaces]
    for name, destination in config.sharing.destinations.items():
        where = f"sharing.yaml: destinations.{name}"
        purposes = {where: destination.purpose}
        purposes |= {f"{where}.ship.{key}": shipment.purpose for key, shipment in destination.ship.items()}
        for path, purpose in purposes.items():
            if purpose and purpose not in config.audiences.consent.purposes:
                yield unknown(f"{path}.purpose", "purpose", purpose, config.audiences.consent.purposes)
        if destination.consent and destination.consent not in config.attributes:
            yield unknown(f"{where}.consent", "attribute", destination.consent, config.attributes)
        for key, shipment in destination.ship.items():
            yield from _of_shipment(config, f"{where}.ship.{key}", destination, shipment, fields, unknown)
    yield from _overlaps(config)


def _overlaps(config: "Config") -> Iterator[str]:
    """Shipments of which one would write into the folder of another: a delivery owns its folder."""
    found: dict[str, str] = {}
    for name, destination in config.sharing.destinations.items():
        for key, shipment in destination.ship.items():
            where = f"destinations.{name}.ship.{key}"
            folder = shipment.folder.replace("{shipment}", key).replace("{destination}", name)
            path = f"{destination.to.type}:{destination.to.place}/{folder.replace('{table}', shipment.what)}/"
            other = next((k for k, p in found.items() if path.startswith(p) or p.startswith(path)), None)
            if other:
                yield f"sharing.yaml: {where}.folder: is the folder of {other}, or one inside; put {{shipment}} into it"
            found[where] = path


def _of_shipment(
    config: "Config",
    where: str,
    destination: Destination,
    shipment: Shipment,
    fields: list[str],
    unknown: Unknown,
) -> Iterator[str]:
    if shipment.audience and shipment.audience not in config.audiences.audiences:
        yield unknown(f"{where}.audience", "audience", shipment.audience, config.audiences.audiences)
    others = (name for name in config.profiles.policies if name != config.profiles.default)
    tables = ["profiles", *(f"profiles_{name}" for name in others)]
    if shipment.is_profiles and shipment.table not in tables:
        yield unknown(f"{where}.table", "table", str(shipment.table), tables)
    if shipment.audience or shipment.is_profiles:
        yield from _of_columns(config, where, destination, shipment, fields, unknown)


def _of_columns(
    config: "Config",
    where: str,
    destination: Destination,
    shipment: Shipment,
    fields: list[str],
    unknown: Unknown,
) -> Iterator[str]:
    known = [*fields, *(MEMBER_COLUMNS if shipment.audience else ())]
    named = {key: getattr(shipment, key) for key in ("columns", "require", "one_per")}
    for key, column in ((key, column) for key, columns in named.items() for column in columns):
        if column not in known and not _of_a_list(config, column):
            yield unknown(f"{where}.{key}", "column", column, sorted(set(known)))
    for column in sorted(in_the_clear(config, destination) & set(shipment.columns)):
        yield f"{where}.columns: `{column}` holds identifiers in the clear, and this destination hashes them; remove it"


def in_the_clear(config: "Config", destination: Destination) -> set[str]:
    """Columns of profiles that hold in the clear what others show as hashes; none where nothing is hashed."""
    if not destination.hash:
        return set()
    hashed = set(destination.hash.columns)
    structs = structs_of(config.structs).items()
    return {*IN_THE_CLEAR, *(name for name, parts in structs if hashed & set(parts.values()))}


def _of_a_list(config: "Config", column: str) -> bool:
    field, _, end = column.rpartition("_")
    return end in {"all", "capped"} and field in config.attributes


def consents(config: "Config", destination: Destination, shipment: Shipment) -> list[str]:
    """The consent fields that everybody in a shipment must have given, those of its audience included."""
    rules = config.audiences
    purpose = shipment.purpose or destination.purpose
    needed = rules.consent.purposes[purpose] if purpose else rules.consent.default
    audience = rules.consents(shipment.audience) if shipment.audience else []
    own = [destination.consent] if destination.consent else []
    return list(dict.fromkeys([*([] if needed == NO_CONSENT else [needed]), *audience, *own]))
