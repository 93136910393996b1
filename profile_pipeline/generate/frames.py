"""How often each person appears in each source: frames of numbers that the source queries turn into rows."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from profile_pipeline.generate.draws import Draws, Integers, counts_with_mean
from profile_pipeline.generate.rates import RATES

Members = dict[str, Integers]
"""The number of every person of the block under `person`, and who is in which source under `in_...`."""

SESSION_DRAWS = ["s_device", "s_login", "s_day", "s_time", "s_pace", "s_newsletter"]


def crm_frame(members: Members, draws: Draws) -> pa.Table:
    """One row a person and entry; a few are entered twice or three times."""
    uniform = draws.uniform("crm copies", len(members["person"]))
    thrice, twice = uniform < RATES.crm_thrice, uniform < RATES.crm_thrice + RATES.crm_twice
    copies = only_once(members, (1 + twice.astype(np.int64) + thrice) * members["in_crm"])
    return repeated_frame(members, copies, "copy")


def loyalty_frame(members: Members, _draws: Draws) -> pa.Table:
    """One row a card holder."""
    return pa.table({"person": members["person"][members["in_loyalty"]]})


def enrichment_frame(members: Members, _draws: Draws) -> pa.Table:
    """One row a person the third party knows."""
    return pa.table({"person": members["person"][members["in_enrichment"]]})


def orders_frame(members: Members, draws: Draws) -> pa.Table:
    """One row a shop order."""
    counts = counts_with_mean(draws.uniform("orders", len(members["person"])), RATES.orders_mean, 60)
    return repeated_frame(members, only_once(members, counts) * members["in_shop"], "number")


def store_frame(members: Members, draws: Draws) -> pa.Table:
    """One row a sale in a store."""
    counts = counts_with_mean(draws.uniform("sales", len(members["person"])), RATES.sales_mean, 60)
    return repeated_frame(members, counts * members["in_store"], "number")


def web_frame(members: Members, draws: Draws) -> pa.Table:
    """One row an event: the sessions of people on the web, then those of visitors who never log in."""
    count = len(members["person"])
    sessions = counts_with_mean(draws.uniform("sessions", count), RATES.sessions_mean, 60) * members["in_web"]
    visits = (draws.uniform("visitor", count) < RATES.visitor).astype(np.int64)
    known = repeated_frame(members, sessions, "session")
    visiting = repeated_frame(members, only_once(members, visits, 0), "session")
    frame = pa.concat_tables([with_flag(known, visitor=False), with_flag(visiting, visitor=True)])
    for name in SESSION_DRAWS:
        frame = frame.append_column(name, pa.array(draws.uniform(f"session.{name}", frame.num_rows)))
    steps = counts_with_mean(draws.uniform("events", frame.num_rows), RATES.events_mean, 40)
    return repeat_rows(frame, steps, "step")


def with_flag(frame: pa.Table, *, visitor: bool) -> pa.Table:
    """Say whether the sessions are a visitor's."""
    return frame.append_column("visitor", pa.array(np.full(frame.num_rows, visitor)))


def only_once(members: Members, counts: Integers, once: int = 1) -> Integers:
    """Let person 0, whose story is fixed, appear `once`."""
    return np.where(members["person"] == 0, once, counts)


def repeated_frame(members: Members, counts: Integers, number: str) -> pa.Table:
    """Repeat each person `counts` times and number the repetitions from 0."""
    return repeat_rows(pa.table({"person": members["person"]}), counts, number)


def repeat_rows(frame: pa.Table, counts: Integers, number: str) -> pa.Table:
    """Repeat each row `counts` times and number the repetitions from 0 in a new column."""
    rows = np.repeat(np.arange(frame.num_rows), counts)
    starts = np.cumsum(counts) - counts
    return frame.take(pa.array(rows)).append_column(number, pa.array(np.arange(len(rows)) - starts[rows]))


FRAMES: dict[str, Callable[[Members, Draws], pa.Table]] = {
    "crm": crm_frame,
    "loyalty": loyalty_frame,
    "orders": orders_frame,
    "web": web_frame,
    "store": store_frame,
    "enrichment": enrichment_frame,
}
