"""Incremental equals full: the same edges, components, clusters and ids, whatever changed in which order.

Two warehouses get the same random changes. One is brought up to date, the other is computed afresh after every
change. Scores come from a stand-in that is a pure function of the two records, as Splink's are under one model;
a smaller test does the same with Splink itself.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from profile_pipeline import decisions, laws
from profile_pipeline.config.identity import IdentityRules
from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Attribute, Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.explain.members import MEMBER_TABLE
from profile_pipeline.explain.rejected import rejected
from profile_pipeline.identity import blocking, clusters, comparisons, edges, features, model, nodes, scoring
from profile_pipeline.identity.refine import LIMIT_BROKEN
from profile_pipeline.profile_ids import assign_profile_ids
from profile_pipeline.records import changes as record_changes
from profile_pipeline.records.current import identifiers_query
from profile_pipeline.warehouse import connect, literal, mark_built, replace_table, rows, scalar
from profile_pipeline_tests.worlds import quick_folder

FIELDS = {
    "given": "given_name",
    "born": "birth_date",
    "mail": "email",
    "code": "postcode",
}
COMPARED = ("edges", "components", "groups", "cut_links", "clusters", "attachments", "blocking_keys", "nodes")
LEDGER = ("registry", "membership", "redirects")
Row = dict[str, str | None]


def rules(**matching: Any) -> Config:
    source = {
        "kind": "record", "files": "x", "format": {"type": "csv"}, "columns": list(FIELDS), "key": "id",
        "attributes": {name: name for name in FIELDS},
    }  # fmt: skip
    identity = {
        "namespaces": {
            "card": {"priority": 1, "unique": 1},
            "mail": {"type": "email", "priority": 2, "link": False, "unique": 2},
            "token": {"priority": 3, "link": False},
        },
        "matching": {"max_block": 3, "hysteresis": 0, **matching},
        "clustering": {"max_cluster_size": 6, "generic_limit": 3, "never_differ": ["code"]},
    }
    return Config.model_construct(
        attributes={name: Attribute.model_validate({"type": kind}) for name, kind in FIELDS.items()},
        sources={name: Source.model_validate(source) for name in ("crm", "shop")},
        identity=IdentityRules.model_validate(identity),
    )


@dataclass(frozen=True)
class Change:
    """What one run brings: records written or deleted, events with what they state, decisions.

    The first identifier of an event is its subject.
    """

    written: dict[str, Row]
    deleted: frozenset[str]
    events: dict[str, list[tuple[str, str]]]
    decided: tuple[tuple[str, str, str], ...]


@st.composite
def records(draw: st.DrawFn) -> Row:
    return {
        "given": draw(st.sampled_from(["ann", "anne", "bob", "cy", None])),
        "born": draw(st.sampled_from(["1980-01-01", "1980-01-02", "1991-05-07", None])),
        "mail": draw(st.sampled_from(["a@x.test", "b@x.test", "c@x.test", None])),
        "code": draw(st.sampled_from(["N1", "N2", None, None])),
        "card": draw(st.sampled_from(["k1", "k2", "k3", None, None])),
        "token": draw(st.sampled_from(["t1", "t2", None])),
    }


KEYS = st.sampled_from([f"{source}:{n:02d}" for source in ("crm", "shop") for n in range(8)])


@st.composite
def changes_drawn(draw: st.DrawFn, most: int = 6) -> Change:
    pairs = st.tuples(KEYS, KEYS).filter(lambda pair: pair[0] < pair[1])
    decided = draw(st.lists(st.tuples(pairs, st.sampled_from(decisions.DECISIONS)), max_size=2))
    return Change(
        written=draw(st.dictionaries(KEYS, records(), max_size=most)),
        deleted=frozenset(draw(st.lists(KEYS, max_size=2))),
        events=draw(
            st.dictionaries(
                st.sampled_from(["e1", "e2", "e3"]),
                st.lists(
                    st.tuples(
                        st.sampled_from(["mail", "token"]), st.sampled_from(["a@x.test", "t1", "t2", "z"])
                    ),
                    min_size=1,
                    max_size=2,
                    unique=True,
                ),
                max_size=2,
            )
        ),
        decided=tuple((*pair, what) for pair, what in decided),
    )


def histories() -> st.SearchStrategy[list[Change]]:
    return st.tuples(changes_drawn(most=14), st.lists(changes_drawn(), min_size=1, max_size=3)).map(
        lambda drawn: [drawn[0], *drawn[1]]
    )


@contextmanager
def warehouse(path: Path, config: Config) -> Iterator[DuckDBPyConnection]:
    """Empty records of the shapes that the records stage writes, and a model."""
    with connect(path, memory="512MiB", threads=1) as con:
        columns = "".join(f", {name} text" for name in FIELDS)
        con.execute(
            f"""create table records.current (record_key text, node ubigint, source text, observed_at timestamptz,
                identifiers struct(namespace text, value text, raw text)[]{columns});
            create table records.events (event_key text, occurred_at timestamptz,
                identifiers struct(namespace text, value text, raw text)[], subject text, attribution text);
            create table raw.batches (batch integer, as_of timestamptz)"""
        )
        con.execute(model.TABLES)
        yield con


def lend_model(con: DuckDBPyConnection, config: Config) -> None:
    """A model that was never trained: starting values, small blocks."""
    wanted = comparisons.settings(config)
    caps = blocking.full_caps(blocking.project_rules(config), config.identity.matching.max_block)
    manifest = json.dumps({"caps": caps, "threshold": 4.0, "household": None})
    con.execute(
        "insert into identity.models values ('m', null, ?, ?, ?, true)",
        [model.rules_fingerprint(config), json.dumps(wanted), manifest],
    )


def identifiers(row: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"namespace": space, "value": row[space], "raw": row[space]}
        for space in ("card", "mail", "token")
        if row[space]
    ]


AFRESH = 3
"""Every so many steps the records stage writes all records afresh, and nobody says which ones differ."""


def apply(con: DuckDBPyConnection, change: Change, step: int) -> None:
    for key in {*change.written, *change.deleted}:
        con.execute("delete from records.current where record_key = ?", [key])
        record_changes.note(con, record_changes.RECORDS, f"select {literal(key)} as key")
    if step % AFRESH == 0:
        record_changes.forget(con, record_changes.RECORDS)
    for key, row in change.written.items():
        if key not in change.deleted:
            source = key.split(":")[0]
            con.execute(
                f"insert into records.current values (?, hash(?), ?, null, ?{', ?' * len(FIELDS)})",
                [key, key, source, identifiers(row), *(row[n] for n in FIELDS)],
            )
    replace_table(con, "records.identifiers", identifiers_query())
    for name, stated in change.events.items():
        space, value = stated[0]
        listed = [{"namespace": s, "value": v, "raw": v} for s, v in stated]
        own = f"from records.events where event_key = {literal(name)}"
        record_changes.note(con, "nodes", f"select subject as key {own}")
        con.execute(f"delete {own}")
        con.execute(
            "insert into records.events values (?, null, ?, ?, 'stated')",
            [name, listed, f"event:{space}={value}"],
        )
        record_changes.note(con, "nodes", f"select subject as key {own}")
    con.execute(decisions.TABLES)
    for left, right, what in change.decided:
        newest = scalar(con, "select coalesce(max(decision_id), 0) + 1 from identity.decisions")
        con.execute(
            "insert into identity.decisions values (?, ?, ?, ?, null, 'me', make_timestamptz(?))",
            [newest, left, right, what, newest * 1_000_000],
        )
    con.execute("insert into raw.batches values (?, make_timestamptz(?))", [step, step * 86_400_000_000])
    mark_built(con, "records.current", str(step), {"full": f"full {step // AFRESH}"})
    mark_built(con, "records.events", str(step))


def resolve(con: DuckDBPyConnection, config: Config, *, afresh: bool) -> None:
    if afresh:
        con.execute(
            "delete from state.built where starts_with(name, 'identity.') and name <> 'identity.model'"
        )
    nodes.build_nodes(con, config)
    features.build_features(con, config)
    edges.build_edges(con, config)
    clusters.build_clusters(con, config)
    assign_profile_ids(con, config)


class PretendScorer:
    """A stand-in for Splink: bits for what is equal, against what differs; nothing for what is missing."""

    PARTS: ClassVar = {"given": (3, -4), "birth_date": (5, -5), "email": (6, -2), "postcode": (2, -1)}

    def __init__(self, work: DuckDBPyConnection, *_: object) -> None:
        self.work = work

    def score(self, pairs: str, scored: str, *, floor: float | None = None) -> int:
        weight = " + ".join(
            f"case when l.{n} is null or r.{n} is null then 0 when l.{n} = r.{n} then {a} else {b} end"
            for n, (a, b) in self.PARTS.items()
        )
        self.work.execute(f"create table if not exists {scored} {scoring.SCORED}")
        self.work.execute(
            f"""insert into {scored} select match_key, join_key_l, join_key_r, weight, 0 from (
                select match_key, join_key_l, join_key_r, {weight} as weight from {pairs}
                join features l on l.unique_id = join_key_l join features r on r.unique_id = join_key_r)
            where weight >= {-100 if floor is None else floor}"""
        )
        return scalar(self.work, f"select count(*) from {pairs}")


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "Scorer", PretendScorer)
    monkeypatch.setattr(edges, "estimate_missed", lambda *_: [])
    # among few records a tenth is one: keys would be put together every time, never be kept apart
    monkeypatch.setattr(blocking, "MOVED_SHARE", 1.0)


def examples(number: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=number, deadline=None, derandomize=True, database=None, print_blob=False,
        phases=[Phase.explicit, Phase.generate],  # to shrink an example would take minutes
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def contents(con: DuckDBPyConnection, tables: tuple[str, ...]) -> dict[str, list[Any]]:
    return {name: rows(con, f"select * from identity.{name} order by all") for name in tables}


WRONG_PROBABILITIES = """
    select * from identity.cut_links c left join (
        from identity.edges where type = 'probabilistic' and accepted) e using (left_key, right_key)
    where c.cut_probability is distinct from e.match_probability"""


def assert_incremental_equals_full(history: list[Change], config: Config) -> None:
    with quick_folder() as folder, ExitStack() as stack:
        kept, fresh = (stack.enter_context(warehouse(folder / name, config)) for name in ("kept", "fresh"))
        for con in (kept, fresh):
            lend_model(con, config)
        for step, change in enumerate(history, start=1):
            for con in (kept, fresh):
                apply(con, change, step)
                resolve(con, config, afresh=con is fresh)
            for name, found in contents(kept, COMPARED).items():
                assert found == contents(fresh, (name,))[name], f"{name} after step {step}"
            assert contents(kept, LEDGER) == contents(fresh, LEDGER), f"ledger after step {step}"
        assert not rows(kept, WRONG_PROBABILITIES)
        assert not any(laws.ledger_problems(kept).values())
        assert not laws.broken_limits(kept, config)
        assert not laws.joined_against_decisions(kept)


@pytest.mark.usefixtures("pretend")
@examples(8)
@given(histories())
def test_incremental_equals_full(history: list[Change]) -> None:
    assert_incremental_equals_full(history, rules())


@pytest.mark.long
@pytest.mark.usefixtures("pretend")
@examples(1000)
@given(histories())
def test_incremental_equals_full_a_thousand_times(history: list[Change]) -> None:
    assert_incremental_equals_full(history, rules())


@examples(2)
@given(histories())
def test_incremental_equals_full_with_splink(history: list[Change]) -> None:
    assert_incremental_equals_full(history, rules())


@pytest.mark.usefixtures("pretend")
def test_a_value_that_becomes_contested_is_noticed_where_it_acted() -> None:
    """Three addresses under one card are one too many, until the third turns out to be somebody else's."""
    nobody: Row = dict.fromkeys([*FIELDS, "card", "token"])
    first = {f"crm:0{n}": {**nobody, "card": "k1", "mail": f"{n}@x.test"} for n in range(3)}
    later = {"shop:00": {**nobody, "card": "k2", "mail": "2@x.test"}}
    history = [Change(first, frozenset(), {}, ()), Change(later, frozenset(), {}, ())]
    assert_incremental_equals_full(history, rules())


@pytest.mark.usefixtures("pretend")
def test_a_value_that_becomes_generic_counts_no_more_between_those_who_had_it() -> None:
    """One address of four people identifies nobody; with three it still made them a little alike."""
    nobody: Row = dict.fromkeys([*FIELDS, "card", "token"])
    people: list[Row] = [
        {**nobody, "given": name, "born": f"19{n}0-01-01", "mail": "all@x.test"}
        for n, name in enumerate(("ann", "bob", "cyd", "dan"), start=5)
    ]
    first = {f"crm:0{n}": person for n, person in enumerate(people[:3])}
    history = [
        Change(first, frozenset(), {}, ()),
        Change({"shop:00": people[3]}, frozenset(), {}, ()),
        Change({}, frozenset({"shop:00"}), {}, ()),
    ]
    assert_incremental_equals_full(history, rules(max_block=50))


@pytest.mark.parametrize("after", [False, True], ids=["in the first run", "in a later one"])
def test_two_record_keys_of_one_hash_stop_the_run(tmp_path: Path, after: bool) -> None:
    nobody: Row = dict.fromkeys([*FIELDS, "card", "token"])
    with warehouse(tmp_path / "w.duckdb", rules()) as con:
        apply(con, Change({"crm:00": nobody}, frozenset(), {}, ()), 1)
        if after:
            nodes.build_nodes(con, rules())
        apply(con, Change({"crm:01": nobody}, frozenset(), {}, ()), 2)
        con.execute("update records.current set node = hash('crm:00')")
        if after:
            con.execute("update records.changes set key = 'crm:00'")
        with pytest.raises(PipelineError, match="the same hash"):
            nodes.build_nodes(con, rules())


@pytest.mark.usefixtures("pretend")
def test_an_identity_that_states_more_stays_with_its_holder() -> None:
    nobody: Row = dict.fromkeys([*FIELDS, "card", "token"])
    holder: Row = {**nobody, "given": "ann", "token": "t1"}
    more = {"e2": [("token", "t1"), ("mail", "z@x.test")]}
    history = [
        Change({"crm:00": holder}, frozenset(), {"e1": [("token", "t1")]}, ()),
        Change({}, frozenset(), more, ()),
    ]
    assert_incremental_equals_full(history, rules())


@pytest.mark.usefixtures("pretend")
def test_an_identity_with_a_second_holder_leaves_the_first_and_comes_back() -> None:
    """The groups of both stay as they are: only who is attached differs."""
    nobody: Row = dict.fromkeys([*FIELDS, "card", "token"])
    holders = {f"crm:0{n}": {**nobody, "given": name, "token": "t1"} for n, name in enumerate(("ann", "bob"))}
    history = [
        Change({"crm:00": holders["crm:00"]}, frozenset(), {"e1": [("token", "t1")]}, ()),
        Change({"crm:01": holders["crm:01"]}, frozenset(), {}, ()),
        Change({}, frozenset({"crm:01"}), {}, ()),
    ]
    assert_incremental_equals_full(history, rules())


@pytest.mark.usefixtures("pretend")
def test_identities_that_would_break_a_limit_are_not_attached() -> None:
    """Two addresses are the most: a third stays apart, one that is there already joins, and so does a second."""
    nobody: Row = dict.fromkeys([*FIELDS, "card", "token"])
    full = [{**nobody, "card": "k2", "mail": f"{n}@x.test", "token": f"t{n}"} for n in (1, 2)]
    room = {**nobody, "card": "k3", "mail": "5@x.test", "token": "t5"}
    events = {
        "e1": [("token", "t1"), ("mail", "3@x.test")],
        "e2": [("token", "t2"), ("mail", "1@x.test")],
        "e3": [("token", "t5"), ("mail", "6@x.test")],
    }
    history = [
        Change({"crm:00": full[0], "shop:00": full[1], "crm:01": room}, frozenset(), events, ()),
        Change({}, frozenset({"shop:00"}), {}, ()),
        Change({"shop:00": full[1]}, frozenset(), {}, ()),
    ]
    assert_incremental_equals_full(history, rules())
    with quick_folder() as folder, warehouse(folder / "one", rules()) as con:
        lend_model(con, rules())
        apply(con, history[0], 1)
        resolve(con, rules(), afresh=True)
        attached = rows(con, "select record_key, holder_key from identity.attachments order by 1")
        replace_table(con, MEMBER_TABLE, "select 'event:token=t1' as record_key")
        [told], _ = rejected(con, rules())
    assert attached == [("event:token=t2", "shop:00"), ("event:token=t5", "crm:01")]
    assert (told.other_key, told.evidence) == ("crm:00", "both carry token t1")
    assert told.reason == f"{LIMIT_BROKEN}: together 3 values of mail, at most 2"


@pytest.mark.usefixtures("pretend")
def test_a_decision_keeps_even_equal_records_apart() -> None:
    same: Row = {
        "given": "ann",
        "born": "1980-01-01",
        "mail": "a@x.test",
        "code": None,
        "card": "k1",
        "token": None,
    }
    decided = (("crm:00", "crm:01", "no_match"),)
    history = [
        Change({"crm:00": same, "crm:01": same}, frozenset(), {}, ()),
        Change({}, frozenset(), {}, decided),
    ]
    assert_incremental_equals_full(history, rules())


def test_a_change_leaves_other_components_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of untouched components are not even written again."""
    monkeypatch.setattr(edges, "Scorer", PretendScorer)
    monkeypatch.setattr(edges, "estimate_missed", lambda *_: [])
    draw, config = random.Random(3), rules(max_block=50)
    people: dict[str, Row] = {}
    for n in range(40):
        person = dict.fromkeys([*FIELDS, "card", "token"]) | {
            "given": f"g{n}",
            "born": f"19{n + 10}-01-02",
        }
        people |= {f"crm:{n:02d}": person, f"shop:{n:02d}": {**person, "token": draw.choice(["t1", None])}}
    with warehouse(tmp_path / "w", config) as con:
        lend_model(con, config)
        apply(con, Change(people, frozenset(), {}, ()), 1)
        resolve(con, config, afresh=False)
        before = dict(rows(con, "select record_key, rowid from identity.clusters"))
        changed = {"shop:07": {**people["shop:07"], "given": "other"}}
        apply(con, Change(changed, frozenset(), {}, ()), 2)
        resolve(con, config, afresh=False)
        after = dict(rows(con, "select record_key, rowid from identity.clusters"))
        assert {key for key in before if before[key] != after[key]} == {"crm:07", "shop:07"}
        assert scalar(con, "select count(distinct cluster_key) from identity.clusters") == 41
