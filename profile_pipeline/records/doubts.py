"""Which fields of an accepted row are in doubt: an expectation about them failed that does not refuse the row.

An expectation of rules/expectations/records.<source>.yaml is about the fields it names, one of raw.<source>.yaml about
the fields whose mapping names the delivered column. Merge policies ask for it with the rule `valid`.
"""

import re
from collections.abc import Iterable, Mapping

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Source
from profile_pipeline.quality import Outcome, columns_named


def doubted_fields(config: Config, name: str) -> dict[str, list[str]]:
    """Fields of a source that each of its expectations casts doubt on, by the expectation's name."""
    source = config.sources[name]
    found: dict[str, set[str]] = {}
    for schema in ("records", "raw"):
        suite = config.suites.get(f"{schema}.{name}")
        for item in suite.expectations if suite else []:
            columns = columns_named(item)
            about = set(columns) & set(source.attributes) if schema == "records" else _fed(source, columns)
            if item.severity != "error" and about:
                found.setdefault(item.label, set()).update(about)
    return {label: sorted(fields) for label, fields in found.items()}


def _fed(source: Source, columns: Iterable[str]) -> set[str]:
    """Fields whose value is made of any of these delivered columns."""
    names = [re.compile(rf"(?<![a-z0-9_]){re.escape(column.lower())}(?![a-z0-9_])") for column in columns]
    return {
        field
        for field in source.attributes
        if any(name.search(source.mapping(field).value.lower()) for name in names)
    }


def note_doubts(con: DuckDBPyConnection, outcomes: Iterable[Outcome], about: Mapping[str, list[str]]) -> None:
    """Write temp.doubts. Grain: row of temp.staged and field, more than once when several expectations failed."""
    import pyarrow as pa

    con.execute("create or replace temp table doubts (row_id bigint, field text)")
    for outcome in outcomes:
        if outcome.positions and outcome.name in about and outcome.severity != "error":
            con.register("positions", pa.table({"row_id": pa.array(outcome.positions, pa.int64())}))
            con.execute(
                "insert into doubts select row_id, unnest(?::text[]) from positions", [about[outcome.name]]
            )
            con.unregister("positions")
