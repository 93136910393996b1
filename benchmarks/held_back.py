"""What a later delivery brings, made from one loaded world: records that come, change and go.

The world before has not yet the new records, has earlier values in the changed ones, and still has the deleted
ones. Which records these are follows from a hash of the record key.
"""

from dataclasses import dataclass
from pathlib import Path

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.records import changes, events
from profile_pipeline.warehouse import facts, literal, mark_built, quote, replace_table, transaction

MOVING = {"street_address", "house_number", "city", "postcode", "region"}
"""Semantic types that differ in a changed record before: the address of somebody else of its source."""


@dataclass(frozen=True)
class Change:
    """Shares of all records that are new, changed and deleted, from 0 to 1; `start` chooses other records."""

    new: float = 0.0
    changed: float = 0.0
    deleted: float = 0.0
    start: float = 0.0

    def where(self, kind: str) -> str:
        """Condition on record_key for one of new, changed, deleted."""
        before = {"new": 0.0, "changed": self.new, "deleted": self.new + self.changed}[kind]
        low = self.start + before
        draw = "(hash('benchmark ' || record_key) / 18446744073709551616.0)"
        return f"({draw} >= {low} and {draw} < {low + getattr(self, kind)})"


def of_share(share: float) -> Change:
    """A usual delivery: half new records, four tenths changed, one tenth deleted."""
    return Change(new=0.5 * share, changed=0.4 * share, deleted=0.1 * share)


NOTHING = Change()


def write_before(
    con: DuckDBPyConnection, config: Config, whole: Path, change: Change, missing: Change = NOTHING
) -> None:
    """Make the records those of before a change; `whole` is the loaded world.

    The new records of `missing`, another change, are not there yet either.
    """
    absent = " or ".join(c.where("new").replace("record_key", "p.record_key") for c in (change, missing))
    moving = [quote(n) for n, a in config.attributes.items() if a.type in MOVING]
    moved = ", ".join(f"if(e.record_key is null, p.{n}, e.{n}) as {n}" for n in moving)
    earlier = ", ".join(f"b.{n}" for n in moving)
    _write(
        con,
        config,
        whole,
        f"""with changed as (
            select record_key, source, {", ".join(moving)},
                row_number() over (partition by source order by record_key) as n,
                count(*) over (partition by source) as size
            from whole.records.current where {change.where("changed")}
        ), earlier as (
            select a.record_key, {earlier} from changed a
            join changed b on b.source = a.source and b.n = a.n % a.size + 1
        )
        select p.* replace ({moved},
            if(e.record_key is null, p.content_hash, p.content_hash || ' before') as content_hash)
        from whole.records.current p left join earlier e using (record_key)
        where not ({absent})""",
        f"before {change} {missing}",
    )


def write_after(con: DuckDBPyConnection, config: Config, whole: Path, change: Change) -> None:
    """Make the records those of after a change."""
    kept = f"select * from whole.records.current where not {change.where('deleted')}"
    _write(con, config, whole, kept, f"after {change}")


def _write(con: DuckDBPyConnection, config: Config, whole: Path, query: str, mark: str) -> None:
    """As the records stage does after a delivery: only records that differ are written, and noted for what follows."""
    con.execute(f"attach {literal(whole)} as whole (read_only)")
    differing = "record_key in (from temp.differing)"
    try:
        with transaction(con):
            replace_table(con, "temp.wanted", query)
            replace_table(
                con,
                "temp.differing",
                """select record_key from records.current c full join temp.wanted w using (record_key)
                where c.content_hash is distinct from w.content_hash""",
            )
            con.execute(f"delete from records.current where {differing}")
            con.execute(f"insert into records.current by name from temp.wanted where {differing}")
            con.execute(f"delete from records.identifiers where {differing}")
            con.execute(
                f"""insert into records.identifiers by name
                select i.* from whole.records.identifiers i semi join temp.wanted using (record_key) where {differing}"""
            )
            changes.note(con, changes.RECORDS, "select record_key as key from temp.differing")
            mark_built(con, "records.current", mark, facts(con, "records.current"))
            mark_built(con, "records.identifiers", mark)
            con.execute("drop table temp.wanted; drop table temp.differing")
    finally:
        con.execute("detach whole")
    events.build_events(con, config)
