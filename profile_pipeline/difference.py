"""What differs between the profiles of two generations: kinds of change, and fields whose values changed."""

from dataclasses import dataclass, field

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import columns_of, quote, rows

BOOKKEEPING = {"profile_id", "policy", "policy_version"}
"""Columns that change without any value changing."""


@dataclass(frozen=True)
class Difference:
    """Profiles of the default policy by kind of change, and the changed ones by field. A profile may change in many fields."""

    new: int
    gone: int
    changed: int
    fields: dict[str, int] = field(default_factory=dict)


def difference(con: DuckDBPyConnection, now: str, past: str) -> Difference:
    """Compare `profiles` of two attached generations, by their names in this connection.

    Hashes of rows are joined first, which is narrow; only the rows that differ are then compared field by field.
    """
    fields = _shared_fields(con, now, past)
    _hash_rows(con, fields, now, past)
    kinds = ("now_hash is not null and past_hash is null", "now_hash is null", "now_hash <> past_hash")
    [(new, gone, changed)] = rows(
        con, f"select {', '.join(f'count(*) filter ({kind})' for kind in kinds)} from temp.pairs"
    )
    counts = _changed_by_field(con, fields, now, past) if changed else {}
    con.execute("drop table temp.pairs")
    return Difference(new, gone, changed, counts)


def _hash_rows(con: DuckDBPyConnection, fields: list[str], now: str, past: str) -> None:
    """Write temp.pairs. Grain: profile of either; equal hashes, equal values."""
    content = f"hash({', '.join(map(quote, ['profile_id', *fields]))})"
    con.execute(
        f"""create or replace temp table pairs as select profile_id, n.h as now_hash, p.h as past_hash
        from (select profile_id, {content} as h from {now}.profiles) n
        full join (select profile_id, {content} as h from {past}.profiles) p using (profile_id)
        where n.h is distinct from p.h"""
    )


def _changed_by_field(con: DuckDBPyConnection, fields: list[str], now: str, past: str) -> dict[str, int]:
    differs = ", ".join(
        f"count(*) filter (n.{quote(name)} is distinct from p.{quote(name)})" for name in fields
    )
    changed = "(select profile_id from temp.pairs where now_hash <> past_hash)"
    [counts] = rows(
        con,
        f"""select {differs} from (from {now}.profiles where profile_id in {changed}) n
        join (from {past}.profiles where profile_id in {changed}) p using (profile_id)""",
    )
    return {name: n for name, n in zip(fields, counts, strict=True) if n}


def _shared_fields(con: DuckDBPyConnection, now: str, past: str) -> list[str]:
    """Fields whose values both generations show."""
    before, after = columns_of(con, f"{past}.profiles"), columns_of(con, f"{now}.profiles")
    return sorted(
        name for name, kind in after.items() if name not in BOOKKEEPING and before.get(name) == kind
    )
