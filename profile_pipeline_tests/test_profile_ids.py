"""The ledger of profile ids: who survives, is minted, retires and comes back, on clusters made by hand."""

import random
import uuid
from collections.abc import Generator, Iterable
from typing import Any

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_pipeline.config.load import Config
from profile_pipeline.decisions import decide
from profile_pipeline.errors import PipelineError
from profile_pipeline.laws import ledger_problems
from profile_pipeline.profile_ids import (
    EVENT_NODE_WEIGHT,
    MEMBERS,
    NAMESPACE,
    TABLES,
    assign_profile_ids,
    changes,
    final_redirects_query,
    history,
    one_to_one,
    pending,
    pin,
    revision,
    successors,
    unpin,
)
from profile_pipeline.warehouse import built, mark_built, rows, scalar
from profile_pipeline_tests.hand_made import config_of, set_clusters, touch, warehouse


@pytest.fixture
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        yield opened


def minted(birth: str, generation: int = 0) -> str:
    return str(uuid.uuid5(NAMESPACE, f"{birth}#{generation}"))


def rules(**identity: Any) -> Config:
    """The rules of identity.yaml, with an e-mail and a cookie namespace unless given."""
    spaces = {"email": {"kind": "person"}, "cookie": {"kind": "cookie"}}
    return config_of({}, {"default": {}}, identity={"namespaces": spaces, **identity})


class Ledger:
    """Runs the ledger over one partition after another; a group is written `a b c`."""

    def __init__(self, con: DuckDBPyConnection, **identity: Any) -> None:
        self.con = con
        self.config = rules(**identity)
        self.batch = 0
        self.model: str | None = None

    def run(
        self, *groups: str | Iterable[str], order: list[str] | None = None, **options: bool
    ) -> dict[str, str]:
        self.deliver(*groups, order=order)
        assign_profile_ids(self.con, self.config, **options)
        return self.ids()

    def deliver(self, *groups: str | Iterable[str], order: list[str] | None = None) -> None:
        """Clusters of a new batch, before the ledger has seen them."""
        self.batch += 1
        split = [group.split() if isinstance(group, str) else list(group) for group in groups]
        set_clusters(self.con, split, self.batch, order or [])
        self.con.execute("insert into identity.edges values ('probabilistic', ?)", [self.model])

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

    def caused(self) -> set[tuple[str, str, str | None, int | None, str]]:
        """The same with causes: (id, event, other id, records, cause)."""
        query = """select profile_id, event, other_profile_id, record_count, cause from identity.profile_events
            where revision = (select max(revision) from identity.revisions)"""
        return {(i, event, other, n, cause) for i, event, other, n, cause in rows(self.con, query)}

    def causes(self) -> dict[tuple[str, str], str]:
        return {(i, event): cause for i, event, _, _, cause in self.caused()}

    def waiting(self) -> dict[tuple[str, str], tuple[int | None, int | None]]:
        """What waits for approval: records afterwards and records that move, by id and change."""
        query = "select profile_id, change, record_count, moved_count from identity.pending_changes"
        return {(i, change): (n, moved) for i, change, n, moved in rows(self.con, query)}

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
    assert changes(ledger.con, since=1) == {"merged": 1, "grew": 1}


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


def test_of_two_retired_ids_the_one_that_was_given_up_last_comes_back(ledger: Ledger) -> None:
    for groups in (["b", "z"], ["z"], ["a", "z"], ["a b", "z"], ["b", "z"]):
        before = ledger.run(*groups)
    assert before["b"] == minted("a"), "its first id retired while it was away"
    ledger.run("z")
    assert ledger.run("b", "z") == before


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

    monkeypatch.setattr(revision, "_move_records", fail)
    with pytest.raises(RuntimeError):
        ledger.run("a b")
    assert (ledger.ids(), ledger.revisions()) == (before, 1)
    monkeypatch.undo()
    assert len(set(ledger.run("a b").values())) == 1


# ---------------------------------------------------------------- which records weigh more


def test_an_id_stays_with_the_anchor_source(con: DuckDBPyConnection) -> None:
    ledger = Ledger(con, ids={"anchors": {"crm": 5}})
    ledger.run("shop:1 shop:2 crm:1")
    assert ledger.run("shop:1 shop:2", "crm:1")["crm:1"] == minted("crm:1")
    assert ledger.ids()["shop:1"] == minted("shop:1"), "the two shop accounts get a new id"


def test_a_decided_record_weighs_more_than_all_others(con: DuckDBPyConnection) -> None:
    ledger = Ledger(con, ids={"anchors": {"crm": 100}})
    ledger.run("crm:1 crm:2 shop:1 shop:2")
    decide(con, [("shop:1", "shop:2")], "match", "tester")
    ids = ledger.run("crm:1 crm:2", "shop:1 shop:2")
    assert ids["shop:1"] == minted("crm:1")


def test_a_withdrawn_decision_weighs_nothing(con: DuckDBPyConnection) -> None:
    ledger = Ledger(con)
    ledger.run("a b c x")
    decide(con, [("c", "x")], "no_match", "tester")
    decide(con, [("c", "x")], "withdrawn", "tester")
    assert ledger.run("a b", "c x")["a"] == minted("a")


# ---------------------------------------------------------------- pins


def pinned(ledger: Ledger, profile_id: str, record_key: str) -> None:
    pin(ledger.con, profile_id, record_key, "a steward", "the card was printed")


def test_a_pinned_id_goes_with_its_record_and_leaves_the_majority(ledger: Ledger) -> None:
    ledger.run("a b c d")
    pinned(ledger, minted("a"), "d")
    ids = ledger.run("a b c", "d")
    assert ids["d"] == minted("a")
    assert ids["a"] == minted("a", 1)
    assert (minted("a"), "pinned", "decision") in {(e[0], e[1], e[4]) for e in ledger.caused()}


def test_a_pin_moves_an_id_although_no_cluster_changed(ledger: Ledger) -> None:
    ledger.run("a b", "c", "x y")
    pinned(ledger, minted("a"), "c")
    ids = ledger.run("a b", "c", "x y")
    assert ids == {
        "a": minted("a", 1),
        "b": minted("a", 1),
        "c": minted("a"),
        "x": minted("x"),
        "y": minted("x"),
    }
    assert ledger.redirects() == {minted("c"): minted("a")}
    assert {e[4] for e in ledger.caused()} == {"decision"}


def test_a_pin_gives_a_person_a_retired_id_back(ledger: Ledger) -> None:
    ledger.run("a", "b c")
    ledger.run("a b c")
    pinned(ledger, minted("a"), "a")
    assert set(ledger.run("a b c").values()) == {minted("a")}
    assert ledger.redirects() == {minted("b"): minted("a")}


def test_a_pinned_id_is_not_revived_elsewhere_too(ledger: Ledger) -> None:
    ledger.run("a b", "r")
    ledger.run("r")
    pinned(ledger, minted("a"), "r")
    ids = ledger.run("a b", "r")
    assert ids == {"r": minted("a"), "a": minted("a", 1), "b": minted("a", 1)}


def test_a_pin_is_noted_once_even_when_it_changes_nothing(ledger: Ledger) -> None:
    before = ledger.run("a b", "c")
    pinned(ledger, minted("a"), "b")
    assert ledger.run("a b", "c") == before
    assert ledger.events() == {(minted("a"), "pinned", None, 2)}
    ledger.run("a b", "c")
    assert ledger.revisions() == 2


def test_of_two_pins_in_one_cluster_the_heavier_claim_wins_for_good(ledger: Ledger) -> None:
    ledger.run("a b", "c")
    pinned(ledger, minted("a"), "b")
    pinned(ledger, minted("c"), "c")
    assert set(ledger.run("a b c").values()) == {minted("a")}
    assert set(ledger.run("a b c d").values()) == {minted("a")}


def test_without_its_pin_an_id_follows_the_majority_again(ledger: Ledger) -> None:
    ledger.run("a b c")
    pinned(ledger, minted("a"), "c")
    unpin(ledger.con, minted("a"))
    assert ledger.run("a b", "c")["a"] == minted("a")
    with pytest.raises(PipelineError, match="not pinned"):
        unpin(ledger.con, minted("a"))


def test_a_pin_names_an_id_and_a_record_that_are_known_and_free(ledger: Ledger) -> None:
    ledger.run("a", "b")
    with pytest.raises(PipelineError, match="never given out"):
        pinned(ledger, "nobody", "a")
    with pytest.raises(PipelineError, match="no record `z`"):
        pinned(ledger, minted("a"), "z")
    pinned(ledger, minted("a"), "a")
    with pytest.raises(PipelineError, match="is pinned to"):
        pinned(ledger, minted("b"), "a")


# ---------------------------------------------------------------- why


def test_new_and_deleted_records_cause_what_they_alone_can_cause(ledger: Ledger) -> None:
    ledger.run("a b", "c", "d")
    ledger.run("a b x", "d", "y")
    assert ledger.causes() == {
        (minted("a"), "grew"): "new_records",
        (minted("y"), "created"): "new_records",
        (minted("c"), "retired"): "deleted_records",
    }


def test_a_new_record_that_joins_two_profiles_causes_their_merge(ledger: Ledger) -> None:
    ledger.run("a b", "c", "u v")
    ledger.run("a b bridge c", "u", "v")
    causes = ledger.causes()
    assert causes[minted("c"), "merged"] == "new_records"
    assert causes[minted("u"), "split"] == "changed_records", "nothing new in that corner"


def test_a_deleted_record_that_held_two_parts_together_causes_the_split(ledger: Ledger) -> None:
    ledger.run("a b bridge c")
    ledger.run("a b", "c")
    assert ledger.causes()[minted("c"), "created"] == "deleted_records"
    assert ledger.causes()[minted("a"), "split"] == "deleted_records"


def test_a_new_model_causes_what_no_new_record_does(ledger: Ledger) -> None:
    ledger.model = "m1"
    ledger.run("a b", "c")
    ledger.model = "m2"
    ledger.run("a", "b", "c d")
    assert ledger.causes()[minted("b"), "created"] == "new_model"
    assert ledger.causes()[minted("c"), "grew"] == "new_records"


def test_other_rules_cause_moves(ledger: Ledger) -> None:
    ledger.run("a b", "c")
    ledger.config = rules(clustering={"max_cluster_size": 2})
    ledger.run("a", "b", "c")
    assert ledger.causes()[minted("b"), "created"] == "rules"


def test_a_value_that_became_generic_causes_the_splits_of_those_who_shared_it(ledger: Ledger) -> None:
    ledger.run("a b", "c d")
    ledger.con.execute(
        "create table identity.generic_values as select 'email' as namespace, 'x@y.org' as value"
    )
    ledger.con.execute(
        "create table identity.identifiers as select 'b' as record_key, 'email' as namespace, 'x@y.org' as value"
    )
    ledger.run("a", "b", "c", "d")
    assert ledger.causes()[minted("b"), "created"] == "rules"
    assert ledger.causes()[minted("d"), "created"] == "changed_records"


def test_a_newer_decision_on_a_record_causes_the_split(ledger: Ledger) -> None:
    ledger.run("a b", "c d")
    decide(ledger.con, [("a", "b")], "no_match", "tester")
    ledger.run("a", "b", "c", "d")
    assert ledger.causes()[minted("b"), "created"] == "decision"
    assert ledger.causes()[minted("d"), "created"] == "changed_records"
    ledger.run("a b", "c", "d")
    assert set(ledger.causes().values()) == {"changed_records"}, "the decision was known before"


# ---------------------------------------------------------------- the churn gate

PEOPLE = [f"crm:{n:02}" for n in range(20)]
STRICT = {
    "min_profiles": 10,
    "max_retired": 0.1,
    "max_moved": 0.1,
    "max_minted": 0.1,
    "max_changed_profiles": 1,
}


@pytest.fixture
def strict(con: DuckDBPyConnection) -> Ledger:
    """Twenty people, of whom two may retire."""
    ledger = Ledger(con, churn=STRICT)
    ledger.run(*PEOPLE)
    return ledger


LEDGER = ("revisions", "registry", "membership", "redirects", "profile_events")


def whole(con: DuckDBPyConnection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the ledger."""
    return {table: rows(con, f"select * from identity.{table} order by all") for table in LEDGER}


def test_over_a_limit_nothing_is_written_and_the_proposal_waits(strict: Ledger) -> None:
    before = whole(strict.con)
    strict.run(" ".join(PEOPLE[:4]), *PEOPLE[4:])
    assert whole(strict.con) == before
    assert pending(strict.con) == [
        "3 of 20 profile ids would retire (15.0 %, limit 10 %)",
        "3 of 20 records would move to another profile id (15.0 %, limit 10 %)",
    ]
    [survivor] = {i for i, change in strict.waiting() if change == "grew"}
    assert strict.waiting() == {(survivor, "grew"): (4, None)} | {
        (minted(key), "merged"): (None, 1) for key in PEOPLE[:4] if minted(key) != survivor
    }


def test_approval_writes_what_waits_and_says_so(strict: Ledger) -> None:
    strict.run(" ".join(PEOPLE[:4]), *PEOPLE[4:])
    ids = strict.run(" ".join(PEOPLE[:4]), *PEOPLE[4:], approve=True)
    assert len(set(ids.values())) == 17
    assert set(strict.causes().values()) == {"approval"}
    assert (pending(strict.con), strict.waiting()) == ([], {})
    assert scalar(strict.con, "select approved from identity.revisions order by revision desc limit 1")


def test_within_the_limits_approval_changes_no_cause(strict: Ledger) -> None:
    strict.run(*PEOPLE, "new:1", approve=True)
    assert strict.causes() == {(minted("new:1"), "created"): "new_records"}


def test_a_later_run_judges_afresh(strict: Ledger) -> None:
    strict.run(" ".join(PEOPLE[:4]), *PEOPLE[4:])
    strict.run(" ".join(PEOPLE[:2]), *PEOPLE[2:])
    assert pending(strict.con) == []
    assert len(set(strict.ids().values())) == 19


def test_a_change_that_was_taken_back_waits_no_more(strict: Ledger) -> None:
    mark = built(strict.con, "identity.clusters")
    strict.run(" ".join(PEOPLE[:4]), *PEOPLE[4:])
    strict.deliver(*PEOPLE)
    mark_built(strict.con, "identity.clusters", str(mark))  # the clusters of the first run, mark included
    assign_profile_ids(strict.con, strict.config)
    assert pending(strict.con) == []
    assert strict.revisions() == 1


def test_the_same_change_waits_in_every_run_until_approved(strict: Ledger) -> None:
    strict.run(" ".join(PEOPLE[:4]), *PEOPLE[4:])
    waiting = strict.waiting()
    assign_profile_ids(strict.con, strict.config)
    assert strict.waiting() == waiting


def test_new_people_are_no_churn(strict: Ledger) -> None:
    strict.run(*PEOPLE, *(f"new:{n}" for n in range(100)))
    assert pending(strict.con) == []


def test_new_records_of_everybody_are_no_churn(strict: Ledger) -> None:
    strict.run(*(f"{key} loyalty:{key[4:]}" for key in PEOPLE))
    assert pending(strict.con) == []


def test_people_who_are_gone_are_churn(strict: Ledger) -> None:
    strict.run(*PEOPLE[3:])
    assert pending(strict.con) == ["3 of 20 profile ids would retire (15.0 %, limit 10 %)"]


def test_splits_are_churn(con: DuckDBPyConnection) -> None:
    ledger = Ledger(con, churn={**STRICT, "max_moved": 1})
    ledger.run(*(f"{key} loyalty:{key[4:]}" for key in PEOPLE))
    ledger.run(
        *(f"{key} loyalty:{key[4:]}" for key in PEOPLE[3:]),
        *PEOPLE[:3],
        "loyalty:00",
        "loyalty:01",
        "loyalty:02",
    )
    assert pending(con) == ["3 new ids would be split off the 20 profiles (15.0 %, limit 10 %)"]


def test_cookies_that_come_and_go_are_no_churn(strict: Ledger) -> None:
    cookies = [f"event:cookie={n}" for n in range(50)]
    strict.run(*PEOPLE, *cookies)
    strict.run(*PEOPLE)
    assert pending(strict.con) == []


def test_people_known_from_events_only_are_people(strict: Ledger) -> None:
    strict.run(*PEOPLE, *(f"event:email={n}" for n in range(5)))
    strict.run(*PEOPLE)
    assert pending(strict.con) == ["5 of 25 profile ids would retire (20.0 %, limit 10 %)"]


def test_the_share_of_changed_profiles_has_a_limit_of_its_own(con: DuckDBPyConnection) -> None:
    ledger = Ledger(
        con, churn={"min_profiles": 10, "max_changed_profiles": 0.1, "max_retired": 1, "max_moved": 1}
    )
    ledger.run(*PEOPLE)
    ledger.run(" ".join(PEOPLE[:2]), " ".join(PEOPLE[2:4]), *PEOPLE[4:])
    assert pending(con) == ["4 of 20 profiles would retire or exchange records (20.0 %, limit 10 %)"]


def test_a_profile_may_not_become_too_large(con: DuckDBPyConnection) -> None:
    ledger = Ledger(con, churn={"min_profiles": 10, "largest_cluster": 3})
    ledger.run(*PEOPLE)
    ledger.run(f"{PEOPLE[0]} x y z", *PEOPLE[1:])
    assert pending(con) == ["a profile would hold 4 records (limit 3)"]


def test_few_profiles_and_first_runs_are_not_judged(con: DuckDBPyConnection) -> None:
    ledger = Ledger(con, churn={**STRICT, "min_profiles": 21})
    ledger.run(*PEOPLE)
    ledger.run(" ".join(PEOPLE))
    assert pending(con) == []


def test_a_waiting_change_breaks_no_law_of_its_own(strict: Ledger) -> None:
    strict.run(" ".join(PEOPLE[:4]), *PEOPLE[4:], "new:1")
    assert ledger_problems(strict.con) == {"one_profile_a_record": 0, "redirects_end": 0}
    strict.con.execute("delete from identity.pending_changes")
    assert ledger_problems(strict.con)["one_profile_a_record"] == 1


def test_numbers_of_profiles_are_carried_from_revision_to_revision(strict: Ledger) -> None:
    strict.run(*PEOPLE[1:], "new:1 new:2", "event:cookie=1")
    strict.run(f"{PEOPLE[1]} {PEOPLE[2]}", *PEOPLE[3:], "new:1 new:2")
    known = rows(strict.con, "select profile_count, record_count from identity.revisions order by revision")
    assert known == [(20, 20), (20, 21), (19, 21)]


def test_a_ledger_of_an_earlier_version_is_taken_over(con: DuckDBPyConnection) -> None:
    con.execute(
        "create table identity.revisions (revision integer primary key, batch integer, as_of timestamptz, model_id text)"
    )
    con.execute("insert into identity.revisions values (1, 1, null, null)")
    con.execute(
        """create table identity.profile_events (revision integer not null, profile_id text not null, event text not null,
        other_profile_id text, record_count integer, model_id text)"""
    )
    ledger = Ledger(con, churn=STRICT)
    ledger.run(*PEOPLE)
    assert len(ledger.causes()) == 20


# ---------------------------------------------------------------- what stewards ask


def test_a_wrong_merge_that_is_corrected_splits_and_everything_says_so(ledger: Ledger) -> None:
    ledger.run("crm:1 crm:2 shop:9")
    decide(ledger.con, [("crm:1", "shop:9"), ("crm:2", "shop:9")], "no_match", "tester")
    ids = ledger.run("crm:1 crm:2", "shop:9")
    kept, new = minted("crm:1"), minted("shop:9")
    assert ids == {"crm:1": kept, "crm:2": kept, "shop:9": new}
    assert ledger.caused() == {
        (kept, "split", new, 2, "decision"), (kept, "shrank", None, 2, "decision"),
        (new, "created", None, 1, "decision"),
    }  # fmt: skip
    assert successors(ledger.con, kept) == [(kept, 2 / 3), (new, 1 / 3)]


def test_the_history_of_an_id_tells_its_life(ledger: Ledger) -> None:
    ledger.run("a", "b c")
    pinned(ledger, minted("b"), "b")
    ledger.run("a b c")
    found = history(ledger.con, minted("a"))
    assert (found["registry"]["status"], found["registry"]["reason"]) == ("retired", "merged")
    assert [(e["event"], e["cause"]) for e in found["events"]] == [
        ("created", "new_records"), ("merged", "decision"),
    ]  # fmt: skip
    assert found["records"] == [{"record_key": "a", "from_revision": 1, "to_revision": 2, "cause": "new"}]
    assert found["successors"] == [{"profile_id": minted("b"), "share": 1.0}]
    assert history(ledger.con, minted("b"))["pin"]["record_key"] == "b"
    with pytest.raises(PipelineError, match="never given out"):
        history(ledger.con, "nobody")


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


PINS = {3: ("crm:a", "crm:b"), 4: ("crm:d", "event:cookie=g")}
"""Pins set before the third and fourth partition: the id of the first record is tied to the second."""


def play(
    con: DuckDBPyConnection,
    history: list[Partition],
    seed: int,
    *,
    pins: bool = False,
    everything: bool = False,
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """The ids after each partition, and the whole of a fresh ledger; the seed shuffles the order of rows."""
    for table in (*LEDGER, "pins", "pending_changes"):
        con.execute(f"drop table if exists identity.{table}")
    con.execute("delete from state.built")
    ledger, shuffled, found = Ledger(con), random.Random(seed), []
    for number, partition in enumerate(history, start=1):
        if pins and number in PINS:
            _pin_some(ledger, found, *PINS[number])
        keys = sorted(key for group in partition for key in group)
        shuffled.shuffle(keys)
        found.append(ledger.run(*partition, order=keys, everything=everything))
        _check_state(ledger, partition, found)
    return found, whole(con)


def _pin_some(ledger: Ledger, found: list[dict[str, str]], holder: str, record_key: str) -> None:
    if holder in found[-1] and any(record_key in ids for ids in found):
        pinned(ledger, found[-1][holder], record_key)


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


histories = st.lists(partitions(), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def shared() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        opened.execute(TABLES)
        yield opened


Found = list[dict[str, str]]


def replay_agrees(con: DuckDBPyConnection, history: list[Partition], seed: int, *, pins: bool) -> Found:
    """A replay in another order that looks at everything gives the same ledger, row by row."""
    found, ledger = play(con, history, seed, pins=pins)
    again, rebuilt = play(con, history, seed + 1, pins=pins, everything=True)
    assert again == found, "a replay in another order gives other ids"
    assert rebuilt == ledger, "looking at what is touched gives another ledger than looking at everything"
    return found


def ids_follow_people(history: list[Partition], found: Found) -> None:
    """An id goes only where some of its records are, and stays with a cluster that nobody touched."""
    last_records: dict[str, frozenset[str]] = {}
    for before, now, partition in zip([{}, *found], found, history, strict=False):
        for group in partition:
            [profile_id] = {now[key] for key in group}
            held = last_records.get(profile_id)
            assert held is None or held & group, "an id went to people it has nothing to do with"
            if group in _groups(before):
                assert profile_id == before[next(iter(group))], "an untouched cluster changed its id"
        last_records |= {i: frozenset(k for k in now if now[k] == i) for i in now.values()}


def deleted_people_return(con: DuckDBPyConnection, history: list[Partition], found: Found, gone: int) -> None:
    """Some clusters vanish after the history and are delivered again: everybody has the id from before."""
    ledger = Ledger(con)
    ledger.batch = len(history)
    ledger.run(*(group for number, group in enumerate(history[-1]) if not gone >> number & 1))
    assert ledger.run(*history[-1]) == found[-1]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=histories, seed=st.integers(0, 1000))
def test_any_replay_agrees_row_by_row_with_pins_too(
    shared: DuckDBPyConnection, history: list[Partition], seed: int
) -> None:
    replay_agrees(shared, history, seed, pins=True)


def promises_hold(con: DuckDBPyConnection, history: list[Partition], seed: int, gone: int) -> None:
    found = replay_agrees(con, history, seed, pins=False)
    ids_follow_people(history, found)
    deleted_people_return(con, history, found, gone)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=histories, seed=st.integers(0, 1000), gone=st.integers(1, 15))
def test_any_history_keeps_the_promises(
    shared: DuckDBPyConnection, history: list[Partition], seed: int, gone: int
) -> None:
    promises_hold(shared, history, seed, gone)


@pytest.mark.long
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=histories, seed=st.integers(0, 1000), gone=st.integers(1, 15), pins=st.booleans())
def test_a_thousand_histories_keep_the_promises(
    shared: DuckDBPyConnection, history: list[Partition], seed: int, gone: int, pins: bool
) -> None:
    if pins:
        replay_agrees(shared, history, seed, pins=True)
    else:
        promises_hold(shared, history, seed, gone)


@settings(max_examples=200, deadline=None)
@given(order=st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("vwxyz")), unique=True))
def test_the_walk_is_one_to_one_in_total_order_and_leaves_nothing_that_fits(
    order: list[tuple[str, str]],
) -> None:
    held = one_to_one(order)
    assert held == sorted(held, key=order.index)
    assert len({cluster for cluster, _ in held}) == len({profile_id for _, profile_id in held}) == len(held)
    for position, (cluster, profile_id) in enumerate(order):
        earlier = [claim for claim in held if order.index(claim) <= position]
        assert any(cluster == c or profile_id == i for c, i in earlier), (
            "a claim was passed over for a weaker one"
        )


def _groups(ids: dict[str, str]) -> set[frozenset[str]]:
    return {frozenset(key for key in ids if ids[key] == i) for i in ids.values()}


def test_no_change_of_marks_no_work(ledger: Ledger) -> None:
    ledger.run("a")
    ledger.con.execute("drop table identity.clusters")
    assign_profile_ids(ledger.con, ledger.config)  # does not look
    touch(ledger.con, "identity.clusters")
    with pytest.raises(Exception, match="clusters"):
        assign_profile_ids(ledger.con, ledger.config)


def test_a_ledger_without_numbers_of_nodes_gets_them(ledger: Ledger) -> None:
    before = ledger.run("a b", "c")
    ledger.con.execute("alter table identity.membership drop column node")
    assert ledger.run("a", "c") == {key: before[key] for key in "ac"}
    known = rows(ledger.con, "select record_key, node = hash(record_key) from identity.membership")
    assert sorted(known) == [(key, True) for key in "abc"]
