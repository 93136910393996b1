"""The churn gate: what a revision would do to the profiles of people, judged before it is written.

Pseudonymous profiles do not count: they come and go with the events of their cookies. Neither do ids for people
who are new: growth is no churn. Ids that retire, records that change their id, and splits are.
"""

from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from profile_pipeline.config.identity import Churn
from profile_pipeline.config.load import Config
from profile_pipeline.profile_ids.proposal import pseudonymous
from profile_pipeline.profile_ids.tables import MEMBERS, PENDING
from profile_pipeline.warehouse import count, facts, mark_built, records_of, rows


@dataclass(frozen=True)
class Effect:
    """What a revision does, in ids and records of people; `profiles` and `records` are those before it."""

    profiles: int
    records: int
    survived: int
    minted: int
    retired: int
    revived: int
    split_off: int
    moved: int
    changed: int
    largest: int
    profiles_after: int
    records_after: int


def effect_of(con: DuckDBPyConnection, config: Config) -> Effect:
    """The effect of the revision proposed in temp.shift, on top of what stands."""
    profiles, records = _standing(con, config)
    found = records_of(con, _effect_query())[0]
    return Effect(
        profiles=profiles,
        records=records,
        survived=profiles - found["retired"],
        profiles_after=profiles + found.pop("ids_now") - found.pop("ids_before"),
        records_after=records + found.pop("records_now") - found.pop("records_before"),
        **found,
    )


def _standing(con: DuckDBPyConnection, config: Config) -> tuple[int, int]:
    """Profiles of people and their records after the newest revision: noted with it, or counted where it is not."""
    newest = "select profile_count, record_count from identity.revisions order by revision desc limit 1"
    counted = f"select count(distinct profile_id), count(*) from ({MEMBERS}) where not {pseudonymous(config)}"
    noted = rows(con, newest)
    profiles, found = noted[0] if noted and None not in noted[0] else rows(con, counted)[0]
    return int(profiles), int(found)


def _effect_query() -> str:
    """One row. `changed`: profiles that retire or exchange records; `largest`: the largest that somebody joins."""
    return """
        with known as (select * from shift where not pseudonymous), sides as (
            select old_id as id, 'kept' as how, 1 as before, 0 as after, old_id <> new_id as exchanged, false as joined
            from known where old_id is not null
            union all
            select new_id, how, 0, 1, old_id <> new_id, old_id is distinct from new_id
            from known where new_id is not null
        ), ids as (
            select id, max(how) = 'minted' as minted, sum(before)::bigint as before, sum(after)::bigint as after,
                count(*) filter (exchanged) as exchanged, bool_or(joined) as joined
            from sides group by id
        )
        select count(*) filter (before > 0) as ids_before, coalesce(sum(before), 0)::bigint as records_before,
            count(*) filter (after > 0) as ids_now, coalesce(sum(after), 0)::bigint as records_now,
            count(*) filter (minted) as minted, count(*) filter (before > 0 and after = 0) as retired,
            count(*) filter (id in (select profile_id from reviving)) as revived,
            count(*) filter (minted and exchanged > 0) as split_off,
            (select count(*) from known where old_id <> new_id) as moved,
            count(*) filter (before > 0 and (after = 0 or exchanged > 0)) as changed,
            coalesce(max(after) filter (joined), 0) as largest
        from ids"""


def over_limits(effect: Effect, limits: Churn) -> list[str]:
    """A line for each limit that the effect exceeds; none while there are few profiles to judge by."""
    if effect.profiles < limits.min_profiles:
        return []
    ids, records = f"{effect.profiles:,}", f"{effect.records:,}"
    judged = [
        (effect.retired, effect.profiles, limits.max_retired, f"of {ids} profile ids would retire"),
        (effect.moved, effect.records, limits.max_moved, f"of {records} records would move to another profile id"),
        (effect.split_off, effect.profiles, limits.max_minted, f"new ids would be split off the {ids} profiles"),
        (effect.changed, effect.profiles, limits.max_changed_profiles,
         f"of {ids} profiles would retire or exchange records"),
    ]  # fmt: skip
    lines = [
        f"{number:,} {what} ({100 * number / total:.1f} %, limit {100 * limit:g} %)"
        for number, total, limit, what in judged
        if number > limit * total
    ]
    if limits.largest_cluster and effect.largest > limits.largest_cluster:
        lines.append(f"a profile would hold {effect.largest:,} records (limit {limits.largest_cluster:,})")
    return lines


def park(con: DuckDBPyConnection, events: str, lines: list[str]) -> None:
    """Keep what would happen in identity.pending_changes, with the limits it exceeds; the ledger stays as it is."""
    clear(con)
    con.execute(f"insert into {PENDING} select profile_id, event, other_profile_id, record_count, moved_count, cause"
                f" from ({events}) order by profile_id, event, other_profile_id")  # fmt: skip
    mark_built(con, PENDING, "", {"over": lines})


def clear(con: DuckDBPyConnection) -> None:
    """Nothing waits any more."""
    con.execute(f"delete from {PENDING}")


def pending(con: DuckDBPyConnection) -> list[str]:
    """The limits that the waiting change exceeds, a line each; none when nothing waits."""
    return facts(con, PENDING)["over"] if count(con, PENDING) else []
