"""The ledger of profile ids: who survives, is minted, retires and comes back, on clusters made by hand."""

import random
import uuid
from collections.abc import Generator, Iterable

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_pipeline import profile_ids
from profile_pipeline.profile_ids import (
    EVENT_NODE_WEIGHT,
    MEMBERS,
    NAMESPACE,
    TABLES,
    assign_profile_ids,
    changes,
    final_redirects_query,
    one_to_one,
    successors,
)
from profile_pipeline.warehouse import rows, scalar
from profile_pipeline_tests.hand_made import set_clusters, touch, warehouse


@pytest.fixture
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        yield opened


def minted(birth: str, generation: int = 0) -> str:
    return str(uuid.uuid5(NAMESPACE, f"{birth}#{generation}"))


class Ledger:
    """Runs the ledger over one partition after another; a group is written `a b c`."""

    def __init__(self, con: DuckDBPyConnection) -> None:
        self.con = con
        self.batch = 0

    def run(self, *groups: str | Iterable[str], order: list[str] | None = None) -> dict[str, str]:
        self.batch += 1
        split = [group.split() if isinstance(group, str) else list(group) for group in groups]
        set_clusters(self.con, split, self.batch, order or [])
        assign_profile_ids(self.con)
        return self.ids()

    def ids(self) -> dict[str, str]:
        found = rows(self.con, MEMBERS)
        assert len(dict(found)) == len(found), "a record has two ids"
        return dict(found)

    def redirects(self) -> dict[str, str]:
        return dict(rows(self.con, final_redirects_query()))

    def registry(self) -> dict[str, tuple[str, str | None]]:
        return {
            i: (status, why)
            for i, status, why in rows(self.con, "select profile_id, status, reason from identity.registry")
        }

    def events(self) -> set[tuple[str, str, str | None, int | None]]:
        """What the newest revision notes: (id, event, other id, records)."""
        query = """select profile_id, event, other_profile_id, record_count from identity.profile_events
            where revision = (select max(revision) from identity.revisions)"""
        return {(i, event, other, n) for i, event, other, n in rows(self.con, query)}

    def revisions(self) -> int:
        return scalar(self.con, "select count(*) from identity.revisions")


@pytest.fixture
def ledger(con: DuckDBPyConnection) -> Ledger:
    return Ledger(con)


def test_a_new_cluster_mints_the_uuid_of_its_birth_record(ledger: Ledger) -> None:
    ids = ledger.run("b a c", "d")
    assert ids == {"a": minted("a"), "b": minted("a"), "c": minted("a"), "d": minted("d")}
    assert uuid.UUID(minted("a")).version == 5
    assert ledger.events() == {(minted("a"), "created", None, 3), (minted("d"), "created", None, 1)}


def test_odd_keys_mint_what_uuid5_says(ledger: Ledger) -> None:
    keys = ["crm:O'Brien", "crm:Zoë ø", "shop:a#1", "x:" + "9" * 300]
    assert ledger.run(*([key] for key in keys)) == {key: minted(key) for key in keys}


def test_an_id_survives_growth_and_shrinkage(ledger: Ledger) -> None:
    ledger.run("a b")
    assert ledger.run("b c d") == dict.fromkeys(["b", "c", "d"], minted("a"))
    assert ledger.events() == {(minted("a"), "grew", None, 3)}
    ledger.run("d")
    assert ledger.events() == {(minted("a"), "shrank", None, 1)}
    assert ledger.registry() == {minted("a"): ("active", None)}


def test_a_run_without_change_makes_no_revision(ledger: Ledger) -> None:
    before = ledger.run("a b", "c")
    assert ledger.run("b a", "c") == before
    assert ledger.revisions() == 1
    assert scalar(ledger.con, "select count(*) from identity.profile_events") == 2


def test_a_merge_goes_to_the_id_with_most_records(ledger: Ledger) -> None:
    ledger.run("a", "b c")
    assert set(ledger.run("a b c").values()) == {minted("b")}
    assert ledger.registry()[minted("a")] == ("retired", "merged")
    assert ledger.redirects() == {minted("a"): minted("b")}
    assert ledger.events() == {(minted("a"), "merged", minted("b"), None), (minted("b"), "grew", None, 3)}
    assert changes(ledger.con) == {"merged": 1, "grew": 1}


def test_a_tie_goes_to_the_id_that_brings_more_of_itself(ledger: Ledger) -> None:
    ledger.run("a b", "c")
    assert ledger.run("a c", "b")["c"] == minted("c")


def test_a_tie_of_whole_ids_goes_to_the_older(ledger: Ledger) -> None:
    ledger.run("b")
    ledger.run("b", "a")
    assert ledger.run("a b")["a"] == minted("b")


def test_a_tie_of_equals_goes_to_the_smaller_id(ledger: Ledger) -> None:
    ledger.run("a", "b")
    assert ledger.run("a b")["a"] == min(minted("a"), minted("b"))


def test_a_split_keeps_the_id_with_the_larger_part(ledger: Ledger) -> None:
    ledger.run("a b c d e f")
    assert ledger.run("a", "b c d", "e f") == {
        "a": minted("a", 1),  # the birth record of the old id founds a second one
        **dict.fromkeys("bcd", minted("a")),
        **dict.fromkeys("ef", minted("e")),
    }
    assert successors(ledger.con, minted("a")) == [
        (minted("a"), 3 / 6),
        (minted("e"), 2 / 6),
        (minted("a", 1), 1 / 6),
    ]
    assert {event[1:3] for event in ledger.events() if event[0] == minted("a")} == {
        ("shrank", None), ("split", minted("e")), ("split", minted("a", 1)),
    }  # fmt: skip
    assert ledger.redirects() == {}, "an id that lives on leads nowhere"


def test_an_even_split_keeps_the_part_with_the_smallest_key(ledger: Ledger) -> None:
    ledger.run("a b")
    assert ledger.run("a", "b") == {"a": minted("a"), "b": minted("b")}


def test_a_record_moves_between_ids_that_live_on(ledger: Ledger) -> None:
    ledger.run("a b c", "x y")
    assert ledger.run("a b", "c x y")["c"] == minted("x")
    assert (minted("a"), "record_moved", minted("x"), 2) in ledger.events()
    assert rows(ledger.con, "select record_key, cause from identity.membership where from_revision = 2") == [
        ("c", "moved")
    ]


def test_the_membership_says_when_and_why(ledger: Ledger) -> None:
    ledger.run("a", "b c")
    ledger.run("a b c")
    ledger.run("a", "b", "c d")
    found = rows(
        ledger.con,
        "select record_key, from_revision, to_revision, cause from identity.membership order by 1, 2",
    )
    assert found == [
        ("a", 1, 2, "new"), ("a", 2, 3, "merged"), ("a", 3, None, "split"),
        ("b", 1, None, "new"),
        ("c", 1, 3, "new"), ("c", 3, None, "split"), ("d", 3, None, "new"),
    ]  # fmt: skip


def test_an_id_without_records_is_emptied_and_leads_nowhere(ledger: Ledger) -> None:
    ledger.run("a", "b")
    ledger.run("b")
    assert ledger.registry()[minted("a")] == ("retired", "emptied")
    assert ledger.redirects() == {}
    assert ledger.events() == {(minted("a"), "retired", None, None)}
    assert successors(ledger.con, minted("a")) == []


def test_a_retired_id_redirects_to_where_most_of_its_records_went(ledger: Ledger) -> None:
    ledger.run("a b c", "u v w x", "y z q r")
    ledger.run("a b u v w x", "c y z q r")
    assert ledger.redirects() == {minted("a"): minted("u")}
    assert successors(ledger.con, minted("a")) == [(minted("u"), 2 / 3), (minted("q"), 1 / 3)]


def test_a_merge_that_is_undone_revives_the_id(ledger: Ledger) -> None:
    before = ledger.run("a", "b c")
    ledger.run("a b c")
    assert ledger.run("a", "b c") == before
    assert ledger.redirects() == {}, "an active id never redirects"
    assert rows(ledger.con, "select count(*) from identity.redirects") == [(0,)]
    assert ledger.registry() == {minted("a"): ("active", None), minted("b"): ("active", None)}
    assert {event[1] for event in ledger.events()} == {"revived", "shrank", "split"}


def test_undoing_a_merge_of_equals_gives_both_their_own_id_back(ledger: Ledger) -> None:
    before = ledger.run("a b", "c d", "e f", "g h")
    ledger.run("a b c d", "e f g h")
    assert ledger.run("a b", "c d", "e f", "g h") == before


def test_a_deleted_person_who_comes_back_has_the_same_id(ledger: Ledger) -> None:
    before = ledger.run("a b", "c")
    ledger.run("c")
    assert ledger.run("a b", "c") == before


def test_an_id_is_not_revived_by_a_minority_of_its_records(ledger: Ledger) -> None:
    ledger.run("a b", "u v w x")
    ledger.run("u v w x")
    assert ledger.run("a", "u v w x")["a"] == minted("a", 1), "one of two is no majority"


def test_redirects_run_through_chains_to_an_active_id(ledger: Ledger) -> None:
    ledger.run("a", "b c", "d e f g")
    ledger.run("a b c", "d e f g")
    ledger.run("a b c d e f g")
    assert ledger.redirects() == {minted("a"): minted("d"), minted("b"): minted("d")}


def test_a_chain_that_ends_at_an_emptied_id_leads_nowhere_until_it_comes_back(ledger: Ledger) -> None:
    ledger.run("a", "b c", "z")
    ledger.run("a b c", "z")
    ledger.run("z")
    assert ledger.redirects() == {}
    ledger.run("a b c", "z")
    assert ledger.redirects() == {minted("a"): minted("b")}


def test_identities_seen_in_events_weigh_less_than_records(ledger: Ledger) -> None:
    assert EVENT_NODE_WEIGHT < 1
    ledger.run("event:cookie=1 r")
    ids = ledger.run("event:cookie=1", "r")
    assert ids["r"] == minted("event:cookie=1"), (
        "the id follows the record, although the event has the smaller key"
    )


def test_one_id_to_one_cluster_strongest_first() -> None:
    ordered = [("c1", "p1"), ("c1", "p2"), ("c2", "p1"), ("c2", "p2"), ("c3", "p2")]
    assert one_to_one(ordered) == [("c1", "p1"), ("c2", "p2")]


def test_a_failed_run_leaves_the_ledger_as_it_was(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ledger.run("a", "b")

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(profile_ids, "_note_events", fail)
    with pytest.raises(RuntimeError):
        ledger.run("a b")
    assert (ledger.ids(), ledger.revisions()) == (before, 1)
    monkeypatch.undo()
    assert len(set(ledger.run("a b").values())) == 1


# ---------------------------------------------------------------- any sequence of partitions

RECORDS = "abcdefghijkl"
Partition = tuple[frozenset[str], ...]


@st.composite
def partitions(draw: st.DrawFn) -> Partition:
    """Some of up to twelve records, in groups; event identities are among them."""
    labels = draw(st.lists(st.integers(0, 4), min_size=1, max_size=len(RECORDS)))
    groups: dict[int, set[str]] = {}
    for letter, label in zip(RECORDS, labels, strict=False):
        if label:  # 0: the record is not there
            groups.setdefault(label, set()).add(
                f"event:cookie={letter}" if letter in "cgk" else f"crm:{letter}"
            )
    return tuple(map(frozenset, groups.values()))


def play(con: DuckDBPyConnection, history: list[Partition], seed: int) -> list[dict[str, str]]:
    """The ids after each partition, on a fresh ledger; rows come in an order that the seed shuffles."""
    for table in ("revisions", "registry", "membership", "redirects", "profile_events"):
        con.execute(f"drop table if exists identity.{table}")
    con.execute("delete from state.built")
    ledger, shuffled, found = Ledger(con), random.Random(seed), []
    for partition in history:
        keys = sorted(key for group in partition for key in group)
        shuffled.shuffle(keys)
        found.append(ledger.run(*partition, order=keys))
        _check_state(ledger, partition, found)
    return found


def _check_state(ledger: Ledger, partition: Partition, found: list[dict[str, str]]) -> None:
    now = found[-1]
    assert {frozenset(k for k in now if now[k] == i) for i in now.values()} == set(partition), (
        "one id a cluster"
    )
    active = {i for i, (status, _) in ledger.registry().items() if status == "active"}
    assert set(now.values()) == active
    direct = dict(rows(ledger.con, "select profile_id, successor from identity.redirects"))
    assert not active & set(direct), "an active id redirects"
    emptied = {i for i, (_, why) in ledger.registry().items() if why == "emptied"}
    for start in direct:
        path = [start]
        while path[-1] in direct:
            path.append(direct[path[-1]])
            assert len(path) <= len(direct) + 1, "redirects run in a circle"
        assert path[-1] in active | emptied
        assert ledger.redirects().get(start) == (path[-1] if path[-1] in active else None)


@pytest.fixture(scope="module")
def shared() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        opened.execute(TABLES)
        yield opened


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(partitions(), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_any_history_keeps_the_promises(
    shared: DuckDBPyConnection, history: list[Partition], seed: int
) -> None:
    found = play(shared, history, seed)
    assert play(shared, history, seed + 1) == found, "a replay in another order gives other ids"
    last_records: dict[str, frozenset[str]] = {}
    for before, now, partition in zip([{}, *found], found, history, strict=False):
        for group in partition:
            [profile_id] = {now[key] for key in group}
            held = last_records.get(profile_id)
            assert held is None or held & group, "an id went to people it has nothing to do with"
            if group in _groups(before):
                assert profile_id == before[next(iter(group))], "an untouched cluster changed its id"
        last_records |= {i: frozenset(k for k in now if now[k] == i) for i in now.values()}


def _groups(ids: dict[str, str]) -> set[frozenset[str]]:
    return {frozenset(key for key in ids if ids[key] == i) for i in ids.values()}


def test_no_change_of_marks_no_work(ledger: Ledger) -> None:
    ledger.run("a")
    ledger.con.execute("drop table identity.clusters")
    assign_profile_ids(ledger.con)  # does not look
    touch(ledger.con, "identity.clusters")
    with pytest.raises(Exception, match="clusters"):
        assign_profile_ids(ledger.con)
