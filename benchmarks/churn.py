"""Profile ids that survive changes, and what would survive if the smallest record key named a cluster.

    python benchmarks/churn.py --people 20000 --json benchmarks/results/churn.json

One generated world goes through six runs on the same ledger: first run, inserts, updates, deletions, the deleted
records delivered again, a newly trained model. Survivors are counted among ids that still have a record. Where
profiles become one, an id has to go: `possible` is the largest share that any rule could keep for these clusters.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import held_back
import numpy as np
import worlds
from duckdb import DuckDBPyConnection
from measured import Clock, write_results
from stages import run_identity

from profile_pipeline.config.load import Config, load_config
from profile_pipeline.warehouse import connect, replace_table, rows, run_lock

SHARE = 0.05
"""Of the records, in every step that changes records."""


@dataclass(frozen=True)
class Step:
    """One run: the records it sees, and whether it trains anew."""

    name: str
    change: held_back.Change
    after: bool
    retrain: bool = False


INSERTS = held_back.Change(new=SHARE)
UPDATES = held_back.Change(changed=SHARE, start=0.2)
DELETIONS = held_back.Change(deleted=SHARE, start=0.4)
STEPS = (
    Step("inserts", UPDATES, after=False),
    Step("updates", UPDATES, after=True),
    Step("deletions", DELETIONS, after=True),
    Step("deleted records again", UPDATES, after=True),
    Step("retraining", UPDATES, after=True, retrain=True),
)


def main() -> None:
    """Run the steps, print a line each, write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="keep deliveries and loaded records here for other runs")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="churn-") as temporary:
        found = measure(arguments.folder or Path(temporary) / "world", Path(temporary), arguments.people)
    if arguments.json:
        write_results(arguments.json, found)


def measure(folder: Path, temporary: Path, people: int) -> dict[str, Any]:
    """All steps; shares of ids and of records."""
    records = worlds.prepare(folder, people)
    whole = worlds.world_at(folder)
    project = worlds.copied(whole, temporary / "churn")
    config, steps = load_config(project.rules), []
    with run_lock(project.state), connect(project.database) as con:
        worlds.forget_identity(con)
        # the first world lacks the inserts and has the updated records as they were
        held_back.write_before(con, config, whole.database, UPDATES, missing=INSERTS)
        run_identity(con, config, Clock())
        for step in STEPS:
            steps.append({"step": step.name, **_take(con, config, whole.database, step)})
            print(steps[-1], flush=True)
    return {"people": people, "records": records, "share": SHARE, "steps": steps}


def _take(con: DuckDBPyConnection, config: Config, whole: Path, step: Step) -> dict[str, Any]:
    replace_table(con, "temp.before", PROFILES)
    if step.name == "deletions":
        replace_table(con, "temp.undisturbed", "from temp.before")
    write = held_back.write_after if step.after else held_back.write_before
    write(con, config, whole, step.change)
    run_identity(con, config, Clock(), retrain=step.retrain)
    replace_table(con, "temp.after", PROFILES)
    [changed] = rows(con, "select count(*) from (from temp.before except from temp.after)")
    found = {
        "profiles": rows(con, "select count(distinct profile_id) from temp.after")[0][0],
        "memberships_changed": changed[0],
        "profile_ids": _survival(con, "profile_id"),
        "smallest_key": _survival(con, "smallest_key"),
        "possible": _possible(con),
    }
    if step.name == "deleted records again":
        found["as_before_deletion"] = _restored(con)
    return found


PROFILES = """select m.record_key, m.profile_id, min(m.record_key) over (partition by m.profile_id) as smallest_key
    from identity.membership m where m.to_revision is null"""
"""Grain: one row a node; both ways to name its profile. Same clusters, so only the naming differs."""


def _survival(con: DuckDBPyConnection, name: str) -> dict[str, float]:
    """Share of ids that still name a profile, and of records whose profile kept its name.

    Both among what is still there: an id all of whose records were deleted cannot survive.
    """
    [(ids, records)] = rows(
        con,
        f"""with staying as (
            select b.{name} as was, a.{name} as now from temp.before b join temp.after a using (record_key)
        )
        select count(distinct was) filter (was in (select {name} from temp.after)) / count(distinct was),
            count(*) filter (was = now) / count(*) from staying""",
    )
    return {"ids": round(ids, 5), "records": round(records, 5)}


def _possible(con: DuckDBPyConnection) -> float:
    """Share of ids that the best one-to-one assignment to later profiles would keep (maximum matching)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    found = con.execute(
        """select distinct dense_rank() over (order by b.profile_id) - 1 as old,
            dense_rank() over (order by a.profile_id) - 1 as new
        from temp.before b join temp.after a using (record_key)"""
    ).fetchnumpy()
    old, new = (np.ma.getdata(found[side]).astype(np.int64) for side in ("old", "new"))
    size = (int(old.max()) + 1, int(new.max()) + 1)
    graph = coo_array((np.ones(len(old), dtype=np.int8), (old, new)), shape=size).tocsr()
    kept = maximum_bipartite_matching(graph, perm_type="column")
    return round(float((kept >= 0).mean()), 5)


def _restored(con: DuckDBPyConnection) -> float:
    """Share of nodes that have the profile id they had before records were deleted and delivered again."""
    query = "select avg((a.profile_id = u.profile_id)::integer) from temp.after a join temp.undisturbed u using (record_key)"
    return round(rows(con, query)[0][0], 5)


if __name__ == "__main__":
    main()
