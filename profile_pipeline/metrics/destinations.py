"""Who gets files and who got them: the rules of sharing and the ledger of deliveries as tables.

They say what was known when the profiles were counted: a delivery follows the generation that it delivers.
"""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.sharing import ledger
from profile_pipeline.warehouse import fingerprint, replace_table, table_exists

TABLES = {
    "destinations": """
        select destination, platform, description, enabled, created_at, delivered_at
        from temp.declared_destinations left join (
            select destination, min(started_at) as created_at, max(finished_at) filter (status = 'delivered') as delivered_at
            from state.deliveries group by destination) using (destination)""",
    "destination_audiences": """
        select destination, audience, activated_at, delivered_at, row_count
        from temp.declared_mappings left join (
            select destination, audience, min(finished_at) as activated_at, max(finished_at) as delivered_at,
                arg_max(row_count, finished_at) as row_count
            from state.deliveries where status = 'delivered' and audience is not null
            group by destination, audience) using (destination, audience)""",
    "deliveries": """
        select destination, shipment, delivery, platform, what, audience, mode, generation, status, started_at, finished_at,
            row_count, held_count, file_count, byte_count from state.deliveries""",
}


def rules_mark(config: Config) -> str:
    """Changes when the destinations or what they get change."""
    return fingerprint(_destinations(config), _mappings(config))


def write(con: DuckDBPyConnection, config: Config) -> None:
    """Write metrics.destinations, metrics.destination_audiences and metrics.deliveries."""
    if not table_exists(con, "state.deliveries"):
        ledger.create_tables(con)
    _declare(con, "declared_destinations (destination text, platform text, description text, enabled boolean)",
             _destinations(config))  # fmt: skip
    _declare(con, "declared_mappings (destination text, audience text)", _mappings(config))
    for name, query in TABLES.items():
        replace_table(con, f"metrics.{name}", query)
    con.execute("drop table temp.declared_destinations; drop table temp.declared_mappings")


def _destinations(config: Config) -> list[tuple[str, str, str, bool]]:
    active = config.sharing.active()
    return [
        (name, rule.to.type, rule.description, name in active)
        for name, rule in config.sharing.destinations.items()
    ]


def _mappings(config: Config) -> list[tuple[str, str]]:
    """(destination, audience), each once."""
    found = {(name, shipment.audience) for name, _, shipment in config.sharing.shipments()}
    return sorted((name, audience) for name, audience in found if audience)


def _declare(con: DuckDBPyConnection, table: str, values: list[tuple]) -> None:
    con.execute(f"create or replace temp table {table}")
    if values:
        marks = ", ".join("?" * len(values[0]))
        con.executemany(f"insert into temp.{table.split()[0]} values ({marks})", values)
