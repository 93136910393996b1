"""What other systems are given of a finished run: the same feature rows and blocking keys, and who was clustered.

The only module of the benchmarks that knows how the identity stage keeps its features.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from duckdb import DuckDBPyConnection

from profile_pipeline.identity.model import active_model
from profile_pipeline.warehouse import columns_of, literal, rows

LIBRARY_FIELDS = (
    "given", "middle", "family", "birth_date", "email", "phone", "national_id", "postcode", "city", "gender",
)  # fmt: skip
"""Match fields that Splink's library has a comparison for; the rest (x_...) are compared exactly."""
BLOCKED_ON = ("street", "email_local")
"""Further columns that blocking rules read."""


@dataclass(frozen=True)
class Features:
    """Which columns of a features file hold values, and which hold the blocking keys that scoring uses.

    `rules` are the blocking rules as plain Splink ones over the values, without caps.
    """

    fields: list[str]
    blocks: list[str]
    rules: list[str]

    @classmethod
    def read(cls, path: Path) -> "Features":
        """Features described beside a file by `export_features`."""
        return cls(**json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))


def export_features(con: DuckDBPyConnection, path: Path) -> Features:
    """Write unique_id, record_key, match fields and blocking keys as Parquet, and their names beside it."""
    columns = list(columns_of(con, "identity.features"))
    known = [name for name in columns if name in LIBRARY_FIELDS or name.startswith("x_")]
    keys, blocks = _blocking_keys(con, columns)
    blocked_on = [name for name in BLOCKED_ON if name in columns]
    listed = ", ".join(["unique_id", "record_key", *known, *blocked_on, *blocks])
    con.execute(f"copy (select {listed} from identity.features {keys}) to {literal(path)} (format parquet)")
    [filled] = rows(con, f"select {', '.join(f'count({name})' for name in known)} from identity.features")
    found = Features(
        [n for n, number in zip(known, filled, strict=True) if number], blocks, _plain_rules(con)
    )
    path.with_suffix(".json").write_text(json.dumps(vars(found)), encoding="utf-8")
    return found


def _plain_rules(con: DuckDBPyConnection) -> list[str]:
    model = active_model(con)
    rules = model.settings.get("blocking_rules_to_generate_predictions", []) if model else []
    return [rule if isinstance(rule, str) else rule["blocking_rule"] for rule in rules]


def _blocking_keys(con: DuckDBPyConnection, columns: list[str]) -> tuple[str, list[str]]:
    """A join that brings the blocking keys, and their column names: a table of keys, or columns of the features."""
    table = _key_table(con)
    if table is None:
        kept = [name for name in _scoring_blocks(con) if name in columns]
        return "", kept or [name for name in columns if name.startswith("block_")]
    numbers = [n for (n,) in rows(con, f"select distinct rule from {table} where key is not null order by 1")]
    wide = ", ".join(f"max(key) filter (rule = {n}) as block_{n}" for n in numbers)
    query = f"select unique_id, {wide} from {table} where key is not null group by unique_id"
    return f"left join ({query}) using (unique_id)", [f"block_{n}" for n in numbers]


def _key_table(con: DuckDBPyConnection) -> str | None:
    """The table of the identity stage with one row a record and blocking rule, if there is one."""
    found = rows(
        con,
        """select table_name from information_schema.columns where table_schema = 'identity'
        and column_name in ('rule', 'key', 'unique_id') group by 1 having count(*) = 3 order by 1""",
    )
    return f"identity.{found[0][0]}" if found else None


def _scoring_blocks(con: DuckDBPyConnection) -> list[str]:
    """Columns of the blocking rules that the active model kept, in order."""
    model = active_model(con)
    text = json.dumps(model.settings.get("blocking_rules_to_generate_predictions", [])) if model else ""
    return list(dict.fromkeys(re.findall(r"l\.(block_\w+)", text)))


def export_records(con: DuckDBPyConnection, path: Path) -> None:
    """Write every current record: record_key, source, record_id, and its profile as `cluster`."""
    con.execute(
        f"""copy (
            select c.record_key, c.source, c.source_key as record_id, m.profile_id as cluster
            from records.current c join identity.membership m on m.record_key = c.record_key and m.to_revision is null
        ) to {literal(path)} (format parquet)"""
    )


def export_links(con: DuckDBPyConnection, path: Path) -> None:
    """Write the accepted links by shared strong identifiers between records, as (l, r) record keys."""
    con.execute(
        f"""copy (
            select left_key as l, right_key as r from identity.edges where type = 'deterministic' and accepted
        ) to {literal(path)} (format parquet)"""
    )
