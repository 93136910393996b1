"""The laws that hold after every run, as properties of random projects (see docs: conservation to purity)."""

import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from profile_pipeline import metrics, publish, quality
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.profile_ids import MEMBERS, final_redirects_query
from profile_pipeline.raw import ledger
from profile_pipeline.warehouse import records_of, rows, scalar
from profile_pipeline_tests.conftest import validate_in_sql
from profile_pipeline_tests.worlds import (
    AS_OF,
    LINKED,
    MATCHING_ON,
    REPOSITORY,
    Row,
    World,
    assert_equal_states,
    deliver,
    ids_of,
    parquet_hashes,
    quick_folder,
    run_and_publish,
    run_core,
    snapshot,
    temporary_project,
    warehouse_of,
    worlds,
    write_rules,
)


@pytest.fixture(autouse=True, scope="module")
def _light_expectations() -> Iterator[None]:
    """Great Expectations takes half of the time of a small run; test_quality proves that SQL says the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", validate_in_sql)
        yield


def examples(number: int) -> Callable[[Any], Any]:
    """A fixed set of examples: the same on every machine, so that a failure is the change's fault."""
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=False,
        phases=[
            Phase.explicit,
            Phase.generate,
        ],  # an example takes a second: to shrink one would take minutes
        suppress_health_check=list(HealthCheck),
    )


def parts_of(found: Sequence[Row], cuts: Sequence[int]) -> list[list[Row]]:
    """The rows as deliveries in order, cut at the given places."""
    places = sorted({min(cut, len(found)) for cut in cuts})
    return [list(found[a:b]) for a, b in zip([0, *places], [*places, len(found)], strict=True) if found[a:b]]


def as_of(batch: int) -> datetime:
    return AS_OF + timedelta(days=batch)


@pytest.fixture(scope="module")
def finished() -> Iterator[list[tuple[World, Project]]]:
    """Random worlds that were run once, for the laws that only look at the end of a run."""
    found: list[tuple[World, Project]] = []

    @examples(8)
    @given(worlds())
    def run(world: World) -> None:
        project = write_rules(folder / str(len(found)), world)
        deliver(project, world.rows, "1")
        run_core(project)
        found.append((world, project))

    with quick_folder() as folder:
        run()
        yield found


def revert(project: Project, batch: int) -> None:
    with warehouse_of(project) as con:
        ledger.revert(con, batch)


# ---------------------------------------------------------------- conservation


@examples(5)
@given(worlds(bad=True), st.lists(st.integers(1, 39), max_size=2))
def test_conservation_every_delivered_row_has_exactly_one_fate(world: World, cuts: list[int]) -> None:
    with temporary_project(world) as project:
        written: Counter[tuple[str, int]] = Counter()
        for batch, part in enumerate(parts_of(world.rows, cuts), start=1):
            deliver(project, part, f"{batch}")
            written.update((row.source, batch) for row in part)
        for batch, _ in enumerate(parts_of(world.rows, cuts), start=1):
            _hide_later(project, batch)
            run_core(project, as_of(batch))
        with warehouse_of(project) as con:
            assert metrics.unbalanced(con) == []
            fates = records_of(con, "select * from metrics.row_fates")
            skipped = Counter(
                dict(rows(con, "select (source, batch), 0 from raw.files where state = 'duplicate'"))
            )
            delivered = {(f["source"], f["batch"]): f["delivered"] for f in fates}
            assert delivered == {key: n for key, n in written.items() if n and key not in skipped}
            totals = {name: sum(f[name] for f in fates) for name in metrics.FATES}
            assert totals["current"] == scalar(
                con, "select count(*) from records.current where source <> 'visit'"
            )
            assert totals["events"] == scalar(con, "select count(*) from records.events")
            assert totals["quarantined"] == scalar(
                con, "select count(*) from records.quarantine where len(reasons) > 0"
            )
            assert sum(totals.values()) == sum(delivered.values())


def _hide_later(project: Project, batch: int) -> None:
    """Files of later batches wait outside the delivery folders."""
    for path in sorted((project.data / "sources").iterdir()) + sorted((project.data / "later").glob("*")):
        folder = "sources" if int(path.stem.rsplit("_", 1)[1]) <= batch else "later"
        (project.data / folder).mkdir(exist_ok=True)
        path.rename(project.data / folder / path.name)


# ---------------------------------------------------------------- idempotence


@examples(4)
@given(worlds(bad=True))
def test_idempotence_a_file_delivered_again_and_a_run_without_news_change_nothing(world: World) -> None:
    with temporary_project(world) as project:
        names = deliver(project, world.rows, "1")
        first = run_and_publish(project)
        ids = ids_of(project)
        again = run_and_publish(project, as_of(1))
        assert (again.number, again.manifest) == (first.number, first.manifest)
        for name in names:
            source = project.data / "sources" / name
            source.with_name(source.name.replace("_1", "_again")).write_bytes(source.read_bytes())
        repeated = run_and_publish(project, as_of(2))
        assert repeated.number == first.number
        assert publish.verify(repeated) == []
        assert ids_of(project) == ids
        with warehouse_of(project) as con:
            assert scalar(con, "select count(*) from raw.files where state = 'duplicate'") == len(names)


# ---------------------------------------------------------------- order independence


@examples(6)
@given(worlds(), st.randoms(use_true_random=False), st.lists(st.integers(1, 39), max_size=2), st.booleans())
def test_order_independence_of_rows_files_and_batches(
    world: World, dice: random.Random, cuts: list[int], batches: bool
) -> None:
    with temporary_project(world) as left, temporary_project(world) as right:
        deliver(left, world.rows, "1")
        run_core(left)
        shuffled = list(world.rows)
        dice.shuffle(shuffled)
        for number, part in enumerate(parts_of(shuffled, cuts), start=1):
            deliver(right, part, f"{number}")
            if batches:
                run_core(right, as_of(number))
        run_core(right, as_of(9))
        assert_equal_states(snapshot(left), snapshot(right))


def test_order_independence_of_versions_with_equal_times() -> None:
    """Records that replace, records that patch, and events: content decides between equal times, not arrival."""
    same = {"moment": "2026-03-01T00:00:00Z"}
    versions = [
        *(
            crm("a", f"{word}@x.org", phone=f"020 7946 010{n}")
            for n, word in enumerate(["one", "two", "three"])
        ),
        *(
            Row("card", tuple({"number": "k1", "email": f"{word}@x.org", "city": word, **same}.items()))
            for word in ("four", "five")
        ),
        *(
            Row("visit", tuple({"id": "v1", "cookie": word, "type": word, **same}.items()))
            for word in ("six", "seven", "nine")
        ),
    ]
    with temporary_project(LINKED) as left, temporary_project(LINKED) as right:
        deliver(left, versions, "1")
        run_core(left)
        for number, row in enumerate(reversed(versions), start=1):
            deliver(right, [row], f"{number}")
        run_core(right)
        assert_equal_states(snapshot(left), snapshot(right))


def people(number: int, seed: int, name: str = "crm") -> list[Row]:
    """Enough different people, some twice with a typo, to train a model on."""
    dice = random.Random(seed)
    first = ["Anna", "John", "Zoe", "Mary", "Paul", "Ivy", "Omar", "Lena", "Tom", "Ruth"]
    last = ["Meyer", "Greene", "Smith", "Novak", "Rossi", "Okafor", "Silva", "Khan", "Dubois", "Berg"]
    found = []
    for n in range(number):
        given_name, family_name = dice.choice(first), dice.choice(last)
        born = f"{dice.randint(1950, 2000)}-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"
        for copy in range(2 if dice.random() < 0.5 else 1):
            spelt = given_name[:-1] if copy and dice.random() < 0.4 else given_name
            values = {
                "id": f"{name}{n}x{copy}", "first": spelt, "last": family_name, "born": born,
                "email": f"{given_name}.{family_name}{n}@mail.org".lower() if dice.random() < 0.7 else "",
                "phone": f"020 7946 {n:04}" if dice.random() < 0.6 else "", "street": f"{n} High St",
                "city": "Leeds", "segment": "gold", "status": "active",
                "moment": f"2026-03-{1 + n % 28:02}T0{copy}:00:00Z",
            }  # fmt: skip
            found.append(Row("crm", tuple(values.items())))
    return found


MATCHED = World(tuple(people(110, 5)), link_email=False, matching=MATCHING_ON)


def test_order_independence_with_a_model_trained_on_the_same_records() -> None:
    shuffled = list(MATCHED.rows)
    random.Random(1).shuffle(shuffled)
    with temporary_project(MATCHED) as left, temporary_project(MATCHED) as right:
        deliver(left, MATCHED.rows, "1")
        for number, part in enumerate(parts_of(shuffled, [50, 90]), start=1):
            deliver(right, part, f"{number}")
        run_core(left)
        run_core(right)
        with warehouse_of(left) as one, warehouse_of(right) as two:
            query = "select model_id from identity.models where active"
            assert scalar(one, query) == scalar(two, query)
            assert scalar(one, "select count(*) from identity.edges where accepted") > 20
        assert_equal_states(snapshot(left), snapshot(right))


# ---------------------------------------------------------------- incremental = full


@examples(6)
@given(
    worlds(bad=True),
    st.lists(st.integers(1, 39), min_size=1, max_size=3),
    st.sets(st.integers(1, 4), max_size=2),
)
def test_incremental_state_equals_a_fresh_build_of_the_final_state(
    world: World, cuts: list[int], reverted: set[int]
) -> None:
    with temporary_project(world) as grown, temporary_project(world) as fresh:
        _grow(grown, parts_of(world.rows, cuts), reverted)
        for path in _counted_files(grown):
            (fresh.data / "sources").mkdir(parents=True, exist_ok=True)
            (fresh.data / "sources" / path.name).write_bytes(path.read_bytes())
        run_core(fresh)
        assert_equal_states(snapshot(grown), snapshot(fresh))


def _grow(project: Project, parts: list[list[Row]], reverted: set[int]) -> None:
    """Deliver part by part, a run each; some batches are taken back after a later one has come."""
    for number, part in enumerate(parts, start=1):
        deliver(project, part, f"{number}")
        run_core(project, as_of(number))
        if number - 1 in reverted:
            revert(project, number - 1)
    run_core(project, as_of(99))


def _counted_files(project: Project) -> list[Path]:
    with warehouse_of(project) as con:
        names = rows(con, "select name from raw.files where state not in ('reverted', 'found') order by name")
    return [project.data / name for (name,) in names]


def test_incremental_state_equals_a_fresh_build_with_matching_under_the_same_model() -> None:
    later = [row for row in people(110, 6) if "x0" in dict(row.fields)["id"]][:40]
    changed = [
        Row("crm", tuple({**dict(r.fields), "phone": "", "moment": "2026-03-30T00:00:00Z"}.items()))
        for r in MATCHED.rows[:25]
    ]
    gone = [
        Row("crm", tuple({**dict(r.fields), "status": "deleted", "moment": "2026-03-30T00:00:00Z"}.items()))
        for r in MATCHED.rows[25:40]
    ]
    with temporary_project(MATCHED) as grown, temporary_project(MATCHED) as fresh:
        for number, part in enumerate([list(MATCHED.rows), later, changed, gone], start=1):
            deliver(grown, part, f"{number}")
            deliver(fresh, part, f"{number}")
            run_core(grown, as_of(number))
        run_core(fresh, as_of(4), like=grown.database)
        assert_equal_states(snapshot(grown), snapshot(fresh))


@examples(3)
@given(worlds(bad=True), st.lists(st.integers(1, 39), min_size=1, max_size=1))
def test_incremental_a_rebuild_gives_the_same_ids_and_published_tables(world: World, cuts: list[int]) -> None:
    with temporary_project(world) as project:
        _grow(project, parts_of(world.rows, cuts), {1})
        before, ids = run_and_publish(project, as_of(99)), ids_of(project)
        rebuilt = run_and_publish(project, as_of(100), rebuild=True)
        assert ids_of(project) == ids
        assert parquet_hashes(rebuilt) == parquet_hashes(before)


# ---------------------------------------------------------------- stable ids


@examples(6)
@given(worlds(), st.lists(st.integers(1, 39), min_size=1, max_size=2), st.sets(st.integers(1, 3), max_size=1))
def test_ids_one_a_record_redirects_end_and_undisturbed_profiles_keep_theirs(
    world: World, cuts: list[int], reverted: set[int]
) -> None:
    with temporary_project(world) as project:
        before: dict[str, str] = {}
        given_out: set[str] = set()
        for number, part in enumerate(parts_of(world.rows, cuts), start=1):
            deliver(project, part, f"{number}")
            if number - 1 in reverted:
                revert(project, number - 1)
            run_core(project, as_of(number))
            after = ids_of(project)
            _check_ledger(project, after)
            _check_continuity(before, after)
            with warehouse_of(project) as con:
                known = {i for (i,) in rows(con, "select profile_id from identity.registry")}
            assert given_out <= known, "an id was forgotten"
            given_out, before = known, after


def _check_ledger(project: Project, ids: dict[str, str]) -> None:
    with warehouse_of(project) as con:
        grouped = rows(con, "select list(record_key) from identity.clusters group by cluster_key")
        active = {i for (i,) in rows(con, "select profile_id from identity.registry where status = 'active'")}
        links = dict(rows(con, "select profile_id, successor from identity.redirects"))
        final = dict(rows(con, final_redirects_query()))
    assert {frozenset(keys) for (keys,) in grouped} == _groups(ids)
    assert set(ids.values()) == active
    assert not set(links) & active, "an active id redirects"
    for start in links:
        at, steps = start, 0
        while at in links:
            at, steps = links[at], steps + 1
            assert steps <= len(links), "redirects run in a circle"
        assert final[start] == at
        # an id whose successor was emptied leads to an id that is no longer active: it ends there
        assert at in active or not any(i == at for i in ids.values())


def _groups(ids: dict[str, str]) -> set[frozenset[str]]:
    found = defaultdict(set)
    for key, profile_id in ids.items():
        found[profile_id].add(key)
    return {frozenset(keys) for keys in found.values()}


def _check_continuity(before: dict[str, str], after: dict[str, str]) -> None:
    """Oracles from the rule's wording, apart from its code: the undisturbed keep, one part of a split keeps."""
    holders = defaultdict(set)
    for key, profile_id in before.items():
        if key in after:
            holders[profile_id].add(after[key])
    heirs = defaultdict(set)
    for key, profile_id in after.items():
        if key in before:
            heirs[profile_id].add(before[key])
    for old, now in holders.items():
        alone = [new for new in now if heirs[new] == {old}]
        if alone:  # at least one cluster holds records of no other old id: `old` must live on
            assert old in now, "an id was given up although nobody disputed it"


def crm(key: str, email: str, *, at: int = 1, status: str = "active", phone: str = "") -> Row:
    """A plain row of the record source."""
    values = {"id": key, "first": "Anna", "last": "Meyer", "born": "", "email": email, "phone": phone, "street": "",
              "city": "", "segment": "", "status": status, "moment": f"2026-03-{at:02}T00:00:00Z"}  # fmt: skip
    return Row("crm", tuple(values.items()))


def test_ids_a_merge_keeps_the_id_with_most_records_and_leaves_a_redirect() -> None:
    with temporary_project(LINKED) as project:
        deliver(project, [crm("a1", "one@x.org"), crm("b1", "two@x.org"), crm("b2", "two@x.org")], "1")
        run_core(project, as_of(1))
        before = ids_of(project)
        deliver(project, [crm("a1", "two@x.org", at=2)], "2")
        run_core(project, as_of(2))
        after = ids_of(project)
        assert {after[f"crm:{key}"] for key in ("a1", "b1", "b2")} == {before["crm:b1"]}
        with warehouse_of(project) as con:
            assert rows(con, final_redirects_query()) == [(before["crm:a1"], before["crm:b1"])]


def test_ids_a_split_keeps_the_id_with_the_larger_part() -> None:
    with temporary_project(LINKED) as project:
        deliver(project, [crm(key, "one@x.org") for key in ("a", "b", "c")], "1")
        run_core(project, as_of(1))
        before = ids_of(project)
        deliver(project, [crm("a", "two@x.org", at=2)], "2")
        run_core(project, as_of(2))
        after = ids_of(project)
        assert after["crm:b"] == after["crm:c"] == before["crm:b"]
        assert after["crm:a"] not in before.values()


def test_ids_deletion_then_delivery_again_restores_them() -> None:
    with temporary_project(LINKED) as project:
        deliver(project, [crm("a", "one@x.org"), crm("b", "one@x.org"), crm("c", "two@x.org")], "1")
        run_core(project, as_of(1))
        before = ids_of(project)
        deliver(project, [crm(key, "one@x.org", at=2, status="deleted") for key in ("a", "b")], "2")
        run_core(project, as_of(2))
        assert set(ids_of(project)) == {"crm:c"}
        deliver(project, [crm("a", "one@x.org", at=3), crm("b", "one@x.org", at=3)], "3")
        run_core(project, as_of(3))
        assert ids_of(project) == before


def test_ids_a_revert_restores_what_a_merge_had_taken() -> None:
    with temporary_project(LINKED) as project:
        deliver(project, [crm("a", "one@x.org"), crm("b", "two@x.org"), crm("c", "two@x.org")], "1")
        run_core(project, as_of(1))
        before = ids_of(project)
        deliver(project, [crm("a", "two@x.org", at=2)], "2")
        run_core(project, as_of(2))
        assert len(set(ids_of(project).values())) == 1
        revert(project, 2)
        run_core(project, as_of(3))
        assert ids_of(project) == before
        with warehouse_of(project) as con:
            assert rows(con, "select * from identity.redirects") == []


# ---------------------------------------------------------------- constraints


def test_constraints_no_profile_holds_more_identifiers_than_allowed(
    finished: list[tuple[World, Project]],
) -> None:
    for world, project in finished:
        bounds = {"email": world.unique_email, "phone": 2}
        with warehouse_of(project) as con:
            held = rows(
                con,
                "select profile_id, namespace, count(distinct value) from profiles.identifiers where not generic group by all",
            )
            alone = rows(
                con,
                "select profile_id, namespace, max(n) from ("
                " select profile_id, record_key, namespace, count(distinct value) as n"
                f" from identity.identifiers join ({MEMBERS}) using (record_key) group by all) group by all",
            )
            own = {(p, space): n for p, space, n in alone}
            for profile_id, space, number in held:
                assert number <= max(bounds.get(space, 99), own[profile_id, space]), space
            assert scalar(con, "select coalesce(max(cluster_size), 0) from identity.clusters") <= world.size
            lost = scalar(con, """select count(*) from identity.edges e join identity.clusters l on l.record_key = left_key
                join identity.clusters r on r.record_key = right_key where accepted and l.cluster_key <> r.cluster_key
                and (left_key, right_key) not in (select (left_key, right_key) from identity.cut_links)""")  # fmt: skip
            assert lost == 0, "a link was dropped without a word"


# ---------------------------------------------------------------- lineage and locked groups


FIELDS = ("given_name", "family_name", "birth_date", "email", "phone", "street", "city", "segment")


def test_lineage_recomputes_every_value_of_every_policy(finished: list[tuple[World, Project]]) -> None:
    for _, project in finished:
        with warehouse_of(project) as con:
            lineage = records_of(con, "select * from profiles.lineage")
            records = {r["record_key"]: r for r in records_of(con, "select * from records.current")}
            member = dict(rows(con, MEMBERS))
            tables = {"golden": "unified", "newest": "unified_newest", "ranked": "unified_ranked"}
            shown = {
                (policy, row["profile_id"], name): str(row[name])
                for policy, table in tables.items()
                for row in records_of(con, f"select * from profiles.{table}")
                for name in FIELDS
                if row[name] is not None
            }
        won = [row for row in lineage if row["won"] and not row["cleared"]]
        assert shown == {(r["policy"], r["profile_id"], r["field"]): r["value"] for r in won}
        for row in lineage:
            record = records[row["record_key"]]
            assert member[row["record_key"]] == row["profile_id"]
            assert row["rule"]
            assert (record[row["field"]] is None) == row["cleared"]
            if not row["cleared"]:
                delivered = {str(record[row["field"]]), " ".join(record["raw"][row["field"]].split())}
                assert row["value"] in delivered
        assert len(shown) > 5
        _check_winners(lineage)


def _check_winners(lineage: list[dict[str, Any]]) -> None:
    """The two policies whose wording fits in a line, computed apart from their SQL."""
    offers = defaultdict(list)
    for row in lineage:
        offers[row["policy"], row["profile_id"], row["field"]].append(row)
    rank = {"crm": 1, "card": 2}
    for (policy, _, _), offered in offers.items():
        [best] = [row for row in offered if row["won"]]
        if policy == "newest":
            assert best["observed_at"] == max(row["observed_at"] for row in offered)
        if policy == "ranked":
            key = min((rank[row["source"]], -row["observed_at"].timestamp()) for row in offered)
            assert (rank[best["source"]], -best["observed_at"].timestamp()) == key


def test_locked_groups_come_from_one_record(finished: list[tuple[World, Project]]) -> None:
    for _, project in finished:
        with warehouse_of(project) as con:
            offered = defaultdict(set)
            for profile_id, street, city in rows(
                con,
                f"select profile_id, raw.street, raw.city from records.current join ({MEMBERS}) using (record_key)",
            ):
                offered[profile_id].add((_clean(street), _clean(city)))
            for profile_id, street, city in rows(
                con, "select profile_id, street, city from profiles.unified"
            ):
                if (street, city) != (None, None):
                    assert (street, city) in offered[profile_id]


def _clean(text: str | None) -> str | None:
    return " ".join(text.split()) or None if text else None


# ---------------------------------------------------------------- purity

PURE_RUN = """
import os, sys
from pathlib import Path
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: int(sys.argv[2])]))
from profile_pipeline import profile_ids, warehouse
from profile_pipeline_tests.worlds import project_at, run_and_publish, parquet_hashes
if sys.argv[3] != "now":
    from datetime import datetime
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(int(sys.argv[3]), 1, 1, tzinfo=tz)
    warehouse.datetime = Clock
print(sorted(parquet_hashes(run_and_publish(project_at(Path(sys.argv[1])))).items()))
"""


@pytest.mark.slow
def test_purity_two_clocks_two_seeds_two_zones_one_or_all_cores_give_equal_bytes() -> None:
    visits = [
        Row(
            "visit",
            (
                ("id", f"v{n}"),
                ("moment", f"2026-03-01T0{n % 9}:00:00Z"),
                ("cookie", f"k{n % 7}"),
                ("type", "view"),
                ("email", f"p{n % 5}@mail.org" if n % 3 else ""),
                ("first", ""),
            ),
        )
        for n in range(60)
    ]
    with temporary_project(MATCHED) as left, temporary_project(MATCHED) as right:
        for project in (left, right):
            deliver(project, [*MATCHED.rows, *visits], "1")
        runs = [
            _pure_run(left, cpus=1, year="now", hash_seed="1", zone="UTC"),
            _pure_run(right, cpus=64, year="2031", hash_seed="77", zone="Asia/Tokyo"),
        ]
        first, second = (_output(run) for run in runs)
        assert first == second
        assert "profiles.parquet" in first


def _pure_run(project: Project, *, cpus: int, year: str, hash_seed: str, zone: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PURE_RUN, str(project.rules.parent), str(cpus), year],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": zone},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _output(run: subprocess.Popen[str]) -> str:
    with run:
        output, complaints = run.communicate(timeout=200)
    assert run.returncode == 0, complaints[-2000:]
    return output


@pytest.mark.parametrize("name", ["now()", "current_timestamp", "random()"])
def test_purity_a_rule_cannot_ask_the_clock(name: str) -> None:
    """A mapping that reads the clock is a mistake that `check` names; see check/expressions."""
    from profile_pipeline.sandbox import expression_problem, sandbox, shape

    with sandbox() as con:
        shape(con, {"a": "text"})
        assert "gives another value at another run" in (expression_problem(con, name) or "")


def test_every_law_runs_on_more_than_a_handful_of_rows() -> None:
    """The strategy itself: links, deletions, clears and refused rows do occur, or the laws would hold of nothing."""
    seen: Counter[str] = Counter()

    @examples(10)
    @given(worlds(bad=True))
    def look(world: World) -> None:
        for row in world.rows:
            values = dict(row.fields)
            seen[row.source] += 1
            seen["deleted"] += values.get("status") == "deleted"
            seen["cleared"] += row.source == "card" and None in values.values()
            seen["bad"] += bool(row.line)

    look()
    assert min(seen[key] for key in ("crm", "card", "visit", "deleted", "cleared", "bad")) >= 3, seen


def test_rules_of_the_random_worlds_are_valid() -> None:
    with temporary_project(LINKED) as project:
        assert set(load_config(project.rules).sources) == {"crm", "card", "visit"}
