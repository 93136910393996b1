"""Whether a size is so far from its history that somebody should look before it leaves.

Sizes of an audience at the end of each day follow exactly from its stays; those of other shipments are the rows that
earlier deliveries left with the destination. Too many standard deviations from the mean block a delivery.
"""

import statistics
from dataclasses import dataclass
from datetime import datetime

from duckdb import DuckDBPyConnection

from profile_pipeline.clock import moment
from profile_pipeline.config.sharing import Health
from profile_pipeline.sharing.ledger import Channel
from profile_pipeline.sharing.query import Selection
from profile_pipeline.warehouse import literal, rows


@dataclass(frozen=True)
class Judgement:
    """A size beside its history; `why` is empty when it is healthy."""

    size: int
    days: int
    mean: float | None
    deviation: float | None
    why: str = ""


def judge(
    con: DuckDBPyConnection, selection: Selection, channel: Channel, as_of: datetime | None, size: int
) -> Judgement:
    """Compare the size of a shipment with its history. `size`: rows that would leave; of an audience members count."""
    rules, audience = selection.shipment.health, selection.shipment.audience
    if as_of is None:
        return Judgement(size, 0, None, None)
    if audience:
        history = sizes_of_audience(con, audience, as_of, rules.days)
        size = _members(con, audience)
    else:
        history = sizes_of_deliveries(con, channel, as_of, rules.days)
    return compared(size, history, rules)


def compared(size: int, history: list[int], rules: Health) -> Judgement:
    """The judgement of a size over its earlier ones. A history without any variation allows the minimum change only."""
    if not rules.enabled or len(history) < rules.minimum_days:
        return Judgement(size, len(history), None, None)
    mean, deviation = statistics.fmean(history), statistics.pstdev(history)
    away = abs(size - mean)
    healthy = away <= rules.deviations * deviation or away <= rules.minimum_change * mean
    why = (
        ""
        if healthy
        else f"{size:,} is too far from the mean of {mean:,.0f} over {len(history)} days"
        f" (standard deviation {deviation:,.1f}); look at it, then `share run --accept`"
    )
    return Judgement(size, len(history), round(mean, 2), round(deviation, 2), why)


def _members(con: DuckDBPyConnection, audience: str) -> int:
    stays = f"generation.audience_membership where audience = {literal(audience)}"
    return rows(con, f"select count(*) from {stays} and exited_at is null")[0][0]


def sizes_of_audience(con: DuckDBPyConnection, audience: str, as_of: datetime, days: int) -> list[int]:
    """Members at the end of each day before `as_of`, from the first stay on, oldest first."""
    found = rows(
        con,
        f"""
        with stays as (select * from generation.audience_membership where audience = {literal(audience)}),
        days as (
            select date_trunc('day', {moment(as_of)}) - to_days(ago) as day_end
            from (select unnest(range({days})) as ago)
        )
        select count(entered_at) from days
        left join stays on entered_at < day_end and (exited_at is null or exited_at >= day_end)
        where day_end > (select min(entered_at) from stays) group by day_end order by day_end""",
    )
    return [size for (size,) in found]


def sizes_of_deliveries(con: DuckDBPyConnection, channel: Channel, as_of: datetime, days: int) -> list[int]:
    """Rows that the destination had after the last delivery of each earlier day, oldest first."""
    found = rows(
        con,
        f"""select arg_max(held_count, delivery) from state.deliveries
        where {channel.where} and status = 'delivered' and as_of < {moment(as_of)}
            and as_of >= {moment(as_of)} - interval {days:d} days
        group by as_of::date order by as_of::date""",
    )
    return [size for (size,) in found]
