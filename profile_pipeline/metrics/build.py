"""Counts what the stages before have made, when any of it changed."""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity.spellings import duplicates_avoided
from profile_pipeline.metrics import counts, destinations, history
from profile_pipeline.warehouse import (
    built,
    fingerprint,
    mark_built,
    replace_table,
    transaction,
    upstream,
)

READS = (
    "records.current", "records.events", "records.quarantine", "identity.edges", "identity.clusters", "identity.membership",
    "profiles.events", "profiles.identifiers", "profiles.lineage", "profiles.unified", "audiences.membership",
)  # fmt: skip
COUNTED = (*history.COLUMNS, "dates", *destinations.TABLES)
"""Tables of the schema that are counts, or dimensions of counts."""


def build_profile_facts(con: DuckDBPyConnection, config: Config) -> None:
    """Bring every table of counts up to date with the newest batch; `duplicates_avoided` is noted on metrics.profiles."""
    audiences, policies = list(config.audiences.audiences), config.profiles.default
    mark = fingerprint(upstream(con, READS), audiences, policies, destinations.rules_mark(config), 2)
    if built(con, "metrics.profiles") == mark:
        return
    avoided = duplicates_avoided(con, config)
    with transaction(con):
        history.create_tables(con)
        at = history.newest(con)
        if at:
            history.begin(con, at)
            counts.prepare(con, config)
            for name, query in counts.queries(con, config, avoided).items():
                history.keep(con, name, query)
            counts.drop_prepared(con)
        replace_table(con, "metrics.dates", history.DATES)
        destinations.write(con, config)
        for name in COUNTED:
            mark_built(con, f"metrics.{name}", mark, {"duplicates_avoided": avoided})
