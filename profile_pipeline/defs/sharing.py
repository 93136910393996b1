"""Assets of deliveries: each destination is one, behind the published generation, so nothing leaves before its checks passed."""

from collections.abc import Iterator

import dagster as dg

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.config.sharing import Destination
from profile_pipeline.defs import checks
from profile_pipeline.defs.published import GENERATION
from profile_pipeline.defs.resources import Warehouse
from profile_pipeline.defs.tables import key_of, readable_errors
from profile_pipeline.sharing import deliver as sharing
from profile_pipeline.sharing import ledger

GROUP = "shared"


class DeliveryOptions(dg.Config):
    """What a delivery may be asked for."""

    resend: bool = False
    accept: bool = False


def assets(config: Config, project: Project) -> list[dg.AssetsDefinition]:
    """One asset a destination that is switched on; none of a copy that shows the past."""
    if project.past.exists():
        return []
    return [
        _destination(config, project, name, destination)
        for name, destination in config.sharing.active().items()
    ]


def _destination(rules: Config, project: Project, name: str, destination: Destination) -> dg.AssetsDefinition:
    key = dg.AssetKey([GROUP, name])

    @dg.asset(
        key=key,
        deps=[key_of(GENERATION)],
        group_name=GROUP,
        description=_text(destination),
        kinds={destination.to.type},
        owners=[destination.owner] if destination.owner else [],
        check_specs=[
            checks.spec(key, "healthy", "no size is far from its history"),
            checks.spec(key, "arrived", "everything that is due arrived"),
        ],
    )
    def deliveries(
        warehouse: Warehouse, config: DeliveryOptions
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        wishes = sharing.Wishes(config.resend, config.accept)
        with readable_errors(), warehouse.get_connection() as con:
            found = sharing.deliver(con, rules, project, name, wishes)
        failed = _check(key, "arrived", found, ledger.FAILED)
        yield from (_check(key, "healthy", found, ledger.BLOCKED), failed)
        if not failed.passed:
            raise dg.Failure(description=f"{name}: {failed.description}", allow_retries=False)
        yield dg.MaterializeResult(metadata=_numbers(found))

    return deliveries


def _text(destination: Destination) -> str:
    shipped = ", ".join(shipment.what for shipment in destination.ship.values() if shipment.enabled)
    return f"{destination.description or 'A destination.'} {destination.to.type}: {destination.to.place}; {shipped}."


def _check(key: dg.AssetKey, name: str, found: list[sharing.Outcome], status: str) -> dg.AssetCheckResult:
    wrong = [each for each in found if each.status == status]
    why = "; ".join(f"{each.shipment}: {each.reason}" for each in wrong)
    return checks.fact(key, name, passed=not wrong, critical=True, why=why, shipments=len(wrong))


def _numbers(found: list[sharing.Outcome]) -> dict[str, int]:
    arrived = [each for each in found if each.status == ledger.DELIVERED]
    return {
        "dagster/row_count": sum(each.row_count for each in arrived),
        "delivered": len(arrived),
        "unchanged": sum(each.status == sharing.UNCHANGED for each in found),
        "files": sum(each.file_count for each in arrived),
        "bytes": sum(each.byte_count for each in arrived),
        "rows_left_out": sum(sum(each.excluded.values()) for each in found),
    }
