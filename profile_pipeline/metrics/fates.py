"""Where every delivered row went: the conservation law as a table."""

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.records.current import fates
from profile_pipeline.warehouse import built, fingerprint, mark_built, rows, transaction, upstream

FATES = ("current", "superseded", "events", "expired", "quarantined", "not_selected", "reverted")


def build_row_fates(con: DuckDBPyConnection, config: Config) -> None:
    """Write metrics.row_fates: the conservation law by source and batch, one row for each."""
    mark = fingerprint(upstream(con, ["records.current", "records.events", "records.quarantine"]), 3)
    if built(con, "metrics.row_fates") == mark:
        return
    with transaction(con):
        columns = ", ".join(f"{fate} bigint" for fate in FATES)
        con.execute(
            f"create or replace table metrics.row_fates (source text, batch integer, delivered bigint, {columns})"
        )
        values = [(s, b, d, *(f[name] for name in FATES)) for s, b, d, f in fates(con, config)]
        if values:
            con.executemany(f"insert into metrics.row_fates values (?, ?, ?{', ?' * len(FATES)})", values)
        mark_built(con, "metrics.row_fates", mark)


def unbalanced(con: DuckDBPyConnection) -> list[tuple[str, int, int]]:
    """Sources and batches whose fates do not add up to the rows delivered: (source, batch, difference)."""
    return rows(
        con,
        f"select source, batch, delivered - ({' + '.join(FATES)}) as missing from metrics.row_fates"
        " where missing <> 0 order by 1, 2",
    )
