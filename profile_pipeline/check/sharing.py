"""Tables that sharing names, against what a generation has."""

from profile_pipeline.check.problem import Problem
from profile_pipeline.config.load import Config
from profile_pipeline.config.wording import suggestion
from profile_pipeline.dictionary import published_tables


def sharing_table_problems(config: Config) -> list[Problem]:
    """Shipments of tables that are not published."""
    known = [table.name for table in published_tables(config)]
    return [
        Problem(
            "sharing.yaml",
            f"destinations.{name}.ship.{key}.table",
            f"`{shipment.table}` is not published; {suggestion(shipment.table, known, 'see dictionary.md')}",
        )
        for name, destination in config.sharing.destinations.items()
        for key, shipment in destination.ship.items()
        if shipment.table and shipment.table not in known
    ]
