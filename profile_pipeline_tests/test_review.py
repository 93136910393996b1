"""The review queue: what is asked and why, in which order, within bounds; and the commands of a steward."""

import csv
import json
import math
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from duckdb import DuckDBPyConnection
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from profile_pipeline import review
from profile_pipeline.cli import app
from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.decisions import decide, withdraw
from profile_pipeline.errors import PipelineError
from profile_pipeline.identity.bridges import bridges
from profile_pipeline.identity.refine import CONTRADICTED, LIMIT_BROKEN
from profile_pipeline.warehouse import built, connect, mark_built, rows, scalar
from profile_pipeline_tests.hand_made import config_of, set_clusters, set_profiles, touch, warehouse

THRESHOLD = 4.0
EDGES = """create or replace table identity.edges (
    left_key text, right_key text, type text, namespace text, strength integer, match_weight double,
    match_probability double, evidence text, model_id text, accepted boolean)"""
Pair = tuple[str, str]


def probability(weight: float) -> float:
    return 2**weight / (1 + 2**weight)


def entropy(weight: float) -> float:
    p = probability(weight)
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


class Graph:
    """A run's result made by hand; nodes are single letters, a cluster is a word."""

    def __init__(self, con: DuckDBPyConnection) -> None:
        self.con = con

    def set(
        self,
        clusters: Iterable[str],
        scores: dict[str, float],
        shared: Iterable[str] = (),
        cut: dict[str, str] | None = None,
        flagged: str = "",
        evidence: dict[str, str] | None = None,
    ) -> None:
        """`scores` are match weights by pair, `shared` pairs share an identifier, `cut` are links that do not hold."""
        set_clusters(self.con, [list(word) for word in clusters])
        self.con.execute("update identity.clusters set flagged = contains(?, record_key)", [flagged])
        self.con.execute(EDGES)
        for pair, weight in scores.items():
            values = [
                *sorted(pair),
                weight,
                probability(weight),
                (evidence or {}).get(pair, "names"),
                weight >= THRESHOLD,
            ]
            self.con.execute(
                "insert into identity.edges values (?, ?, 'probabilistic', null, 0, ?, ?, ?, 'm', ?)", values
            )
        for pair in shared:
            self.con.execute(
                "insert into identity.edges values (?, ?, 'deterministic', 'crm_id', 999, null, 1, null, null, true)",
                sorted(pair),
            )
        self.con.execute(
            "create or replace table identity.cut_links (left_key text, right_key text, reason text)"
        )
        for pair, reason in (cut or {}).items():
            self.con.execute("insert into identity.cut_links values (?, ?, ?)", [*sorted(pair), reason])
        touch(self.con, "identity.clusters")
        mark_built(self.con, "identity.edges", str(scores), {"threshold": THRESHOLD})
        set_profiles(self.con, [list(word) for word in clusters])

    def ask(self, most: int = 100, size: int = 100) -> dict[str, str]:
        """Build the queue; reason by pair, most valuable first."""
        review.build_review_queue(self.con, rules(most, size))
        return {row["left_key"] + row["right_key"]: row["reason"] for row in review.queue(self.con)}

    def item(self, pair: str) -> dict[str, Any]:
        [found] = [row for row in review.queue(self.con) if row["left_key"] + row["right_key"] == pair]
        return found


def rules(most: int = 100, size: int = 100) -> Config:
    identity = {
        "namespaces": {"crm_id": {}},
        "review": {"max_items": most},
        "clustering": {"max_cluster_size": size},
    }
    return config_of({"given_name": "given_name"}, {"golden": {}}, identity=identity)


@pytest.fixture
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        yield opened


@pytest.fixture
def graph(con: DuckDBPyConnection) -> Graph:
    return Graph(con)


# ---------------------------------------------------------------- what is asked


def test_scores_near_the_threshold_are_asked_by_uncertainty_times_records(graph: Graph) -> None:
    graph.set(
        ["abc", "def", "g", "h"],
        {"ab": 20, "ac": 20, "bc": 20, "de": 20, "df": 20, "ef": 20, "cd": 2, "cg": 0, "gh": -8},
    )
    assert graph.ask() == {"cd": "borderline", "cg": "borderline"}
    found = graph.item("cd")
    assert found["records_affected"] == 3
    assert found["uncertainty"] == pytest.approx(entropy(2), abs=1e-6)
    assert found["value"] == pytest.approx(3 * entropy(2), abs=1e-5)
    assert found["details"] == "match weight 2.0, threshold 4.0"
    ids = dict(
        rows(graph.con, "select record_key, profile_id from identity.membership where to_revision is null")
    )
    assert (found["left_profile_id"], found["right_profile_id"]) == (ids["c"], ids["d"])


def test_two_profiles_are_asked_about_once_by_their_likeliest_pair(graph: Graph) -> None:
    graph.set(["ab", "cd"], {"ab": 20, "cd": 20, "ac": 1, "ad": 2, "bc": 0})
    assert graph.ask() == {"ad": "borderline"}


def test_a_shared_identifier_leaves_nothing_to_ask(graph: Graph) -> None:
    graph.set(["ab"], {"ab": 3}, shared=["ab"])
    assert graph.ask() == {}


def test_links_that_do_not_hold_are_asked_with_one_bit_each(graph: Graph) -> None:
    graph.set(
        ["ab", "c", "d"], {"ab": 30, "bc": 30}, shared=["ad"], cut={"bc": CONTRADICTED, "ad": LIMIT_BROKEN}
    )
    assert graph.ask() == {"ad": "limit_broken", "bc": "contradicted"}
    assert graph.item("bc")["uncertainty"] == graph.item("ad")["uncertainty"] == 1.0
    assert graph.item("ad")["evidence"] == "shared crm_id"


def test_a_pair_with_several_reasons_is_one_item_that_every_reason_finds(graph: Graph) -> None:
    graph.set(["ab", "cd"], {"ab": 20, "cd": 20, "ac": 4.5}, cut={"ac": CONTRADICTED})
    assert graph.ask() == {"ac": "contradicted"}
    assert graph.item("ac")["other_reasons"] == ["borderline"]
    assert len(review.queue(graph.con, reason="borderline")) == 1
    assert review.queue(graph.con, reason="bridge") == []


def test_a_bridge_is_one_scored_link_between_two_parts_of_at_least_two(graph: Graph) -> None:
    triangles = {"ab": 20, "ac": 20, "bc": 20, "de": 20, "df": 20, "ef": 20}
    graph.set(["abcdef"], triangles | {"cd": 10})
    assert graph.ask() == {"cd": "bridge"}
    assert graph.item("cd")["records_affected"] == 3
    graph.set(["abcdef"], triangles | {"cd": 10, "be": 10})
    assert graph.ask() == {}
    graph.set(["abcdef"], triangles | {"cd": 10}, shared=["cd"])
    assert graph.ask() == {}, "an identifier holds the parts together as well"
    graph.set(["abcd"], {"ab": 20, "ac": 20, "bc": 20, "cd": 10})
    assert graph.ask() == {}, "one record alone is no part"


def test_a_very_large_profile_is_asked_about_by_its_weakest_link(graph: Graph) -> None:
    graph.set(["abcd"], {"ab": 20, "bc": 15, "ac": 20, "ad": 20, "bd": 20, "cd": 20}, flagged="abcd")
    assert graph.ask(size=6) == {"bc": "large_cluster"}
    assert graph.ask(size=8) == {}


def test_a_record_close_to_two_that_are_different_is_a_triangle(graph: Graph) -> None:
    graph.set(["ac", "b"], {"ac": 12, "bc": 9}, cut={"bc": "decided"})
    decide(graph.con, [("a", "b")], "no_match", "eva")
    assert graph.ask() == {"bc": "conflict_triangle"}
    assert graph.item("bc")["uncertainty"] == 1.0
    decide(graph.con, [("b", "c")], "no_match", "eva")
    assert graph.ask() == {}, "it is settled whose record it is"


def test_a_match_that_profiles_do_not_follow_is_shown_until_it_is_changed(graph: Graph) -> None:
    graph.set(["a", "b"], {"ab": 9}, cut={"ab": LIMIT_BROKEN})
    decide(graph.con, [("a", "b")], "match", "eva")
    assert graph.ask() == {"ab": "decision_ignored"}
    assert graph.item("ab")["details"] == f"decided match, yet kept apart: {LIMIT_BROKEN}"
    withdraw(graph.con, [("a", "b")], "eva")
    assert graph.ask() == {"ab": "limit_broken"}


def test_decided_pairs_are_gone_at_once_and_after_the_next_run(graph: Graph) -> None:
    graph.set(["ab", "c", "d"], {"ab": 20, "ac": 2, "bc": 1, "cd": 1})
    assert graph.ask() == {"ac": "borderline", "cd": "borderline"}
    decide(graph.con, [("a", "c")], "no_match", "eva")
    assert [row["left_key"] + row["right_key"] for row in review.queue(graph.con)] == ["cd"]
    assert graph.ask() == {"cd": "borderline"}, "nor is bc asked: it would merge what was decided different"


def test_nothing_is_computed_again_until_something_changes(graph: Graph) -> None:
    graph.set(["a", "b"], {"ab": 1})
    graph.ask()
    mark = built(graph.con, "identity.review_queue")
    graph.con.execute("delete from identity.review_queue")
    assert graph.ask() == {}
    decide(graph.con, [("a", "b")], "match", "eva")
    withdraw(graph.con, [("a", "b")], "eva")
    assert graph.ask() == {"ab": "borderline"}
    assert built(graph.con, "identity.review_queue") != mark


def test_items_have_no_values_and_names_that_last(graph: Graph) -> None:
    graph.set(["a", "b"], {"ab": 1})
    graph.ask()
    first = graph.item("ab")
    graph.set(["ac", "b"], {"ab": 2, "ac": 30})
    graph.ask()
    assert graph.item("ab")["item_id"] == first["item_id"]
    assert len(first["item_id"]) == 12


# ---------------------------------------------------------------- order and bounds


def test_the_queue_is_bounded_and_counts_what_is_left_out(graph: Graph) -> None:
    letters = "abcdefghij"
    graph.set(
        letters, {a + b: 1 + i / 10 for i, (a, b) in enumerate(zip(letters[::2], letters[1::2], strict=True))}
    )
    assert graph.ask(most=2) == {"ab": "borderline", "cd": "borderline"}
    found = review.numbers(graph.con)
    assert (found["items"], found["items_borderline"], found["items_left_out"]) == (2, 2, 3)


def test_learning_walks_through_kinds_of_evidence_first(graph: Graph) -> None:
    graph.set("abcdefgh", {"ab": 0.1, "cd": 0.2, "ef": 3.5, "gh": 0.3}, evidence={"gh": "email"})
    graph.ask()
    assert [row["left_key"] for row in review.queue(graph.con, order="value")] == ["a", "c", "g", "e"]
    assert [row["left_key"] for row in review.queue(graph.con, order="learning")] == ["a", "g", "e", "c"]
    assert [row["left_key"] for row in review.queue(graph.con, order="learning", limit=2)] == ["a", "g"]


def test_a_full_queue_keeps_places_for_other_evidence(graph: Graph) -> None:
    letters = [chr(ord("a") + i) for i in range(26)] + [chr(ord("A") + i) for i in range(26)]
    pairs = [a + b for a, b in zip(letters[::2], letters[1::2], strict=True)]
    scores = {pair: 0.02 * i for i, pair in enumerate(pairs)} | {pairs[-1]: 5.5}
    graph.set(letters, scores)
    asked = list(graph.ask(most=10))
    assert (len(asked), asked[0]) == (10, pairs[0]), "the most uncertain stays"
    assert graph.item("".join(sorted(pairs[-1])))["uncertainty"] < 0.2


def test_the_result_does_not_depend_on_the_order_of_rows(graph: Graph) -> None:
    scores = {"ab": 1.0, "cd": 1.0, "ef": 1.0, "ag": 1.0, "bg": 1.0}
    graph.set("abcdefg", scores)
    graph.ask(most=3)
    first = review.queue(graph.con)
    graph.set("gfedcba", dict(reversed(scores.items())))
    graph.ask(most=3)
    assert review.queue(graph.con) == first


@pytest.mark.parametrize(
    ("words", "message"), [({"order": "x"}, "unknown order `x`"), ({"reason": "x"}, "unknown reason `x`")]
)
def test_unknown_words_are_named(graph: Graph, words: dict[str, str], message: str) -> None:
    graph.set(["a", "b"], {"ab": 1})
    graph.ask()
    with pytest.raises(PipelineError, match=message):
        review.queue(graph.con, **words)


def test_no_queue_yet_says_what_to_do(con: DuckDBPyConnection) -> None:
    with pytest.raises(PipelineError, match="no review queue yet; `profile-pipeline run` makes it"):
        review.queue(con)


# ---------------------------------------------------------------- bridges


def by_hand(pairs: list[Pair], size: int) -> list[int]:
    """The definition: without the link, how many nodes are on the smaller side of it."""

    def reached(links: list[Pair], start: int) -> set[int]:
        seen, waiting = {start}, [start]
        while waiting:
            node = waiting.pop()
            for a, b in links:
                for other in {a, b} - {node} if node in (a, b) else ():
                    if other not in seen:
                        seen.add(other)
                        waiting.append(other)
        return seen

    found = []
    for pair in pairs:
        without = [other for other in pairs if other != pair]
        left, right = reached(without, pair[0]), reached(without, pair[1])
        found.append(0 if pair[1] in left else min(len(left), len(right)))
    return found


@settings(max_examples=200, deadline=None)
@given(
    st.integers(2, 9).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.sets(
                st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] < p[1]),
                min_size=1,
                max_size=12,
            ),
        )
    )
)
def test_bridges_are_those_of_the_definition(drawn: tuple[int, set[Pair]]) -> None:
    size, pairs = drawn[0], sorted(drawn[1])
    left, right = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    assert bridges(left, right, np.ones(size, dtype=np.int64)).tolist() == by_hand(pairs, size)


# ---------------------------------------------------------------- commands


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """Records a and b, doubtful, and c and d, one profile; b's name looks like a formula and like markup."""
    from profile_pipeline_tests.conftest import Projects

    made = Projects(tmp_path)()
    with connect(made.database, memory="1GB", threads=1) as con:
        graph = Graph(con)
        graph.set(["a", "b", "cd"], {"ab": 1, "cd": 30, "bc": -2})
        graph.ask()
        con.execute(
            """create table records.current as select * from (values
            ('a', now(), 'anna', null), ('b', null, '=[red]1+1[/red]', null))
            t(record_key, observed_at, given_name, family_name)"""
        )
        con.execute(
            "alter table records.current add column email text; alter table records.current add column phone text"
        )
        con.execute(
            "alter table records.current add column birth_date text; alter table records.current add column note text"
        )
        con.execute(
            "create table identity.identifiers as select 'a' as record_key, 'crm_id' as namespace, '1' as value"
        )
    return made


def on(project: Project, *arguments: object, answer: str = "") -> Result:
    words = ["review", *map(str, arguments), "--project", str(project.rules.parent)]
    return CliRunner().invoke(app, words, input=answer)


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def said(result: Result) -> str:
    return " ".join((result.stdout + result.stderr).split())


def data(result: Result) -> Any:
    return json.loads(ok(result))


def standing(project: Project) -> dict[str, str]:
    return {
        row["left_key"] + row["right_key"]: row["decision"]
        for row in data(on(project, "list", "--decided", "--json"))
    }


def first_item(project: Project) -> str:
    return data(on(project, "list", "--json"))[0]["item_id"]


def test_list_shows_what_waits(project: Project) -> None:
    assert [row["left_key"] + row["right_key"] for row in data(on(project, "list", "--json"))] == ["ab", "bc"]
    assert len(data(on(project, "list", "--limit", 1, "--order", "learning", "--json"))) == 1
    assert data(on(project, "list", "--reason", "bridge", "--json")) == []
    shown = on(project, "list")
    assert "borderline" in "".join(ok(shown).split())
    assert first_item(project) in shown.stdout, "what is typed again is not cut short"
    assert on(project, "list", "--order", "x").exit_code == 1


def test_show_puts_both_records_side_by_side(project: Project) -> None:
    item = first_item(project)
    shown = ok(on(project, "show", item))
    assert "anna" in shown
    assert "≠" in shown
    assert "=[red]1+1[/red]" in shown
    found = data(on(project, "show", item, "--json"))
    assert ["given_name", "anna", "=[red]1+1[/red]"] in found["records"]
    assert ["id crm_id", "1", None] in found["records"]
    assert "no item nonsense in the queue" in said(on(project, "show", "nonsense"))


def test_decide_and_withdraw_by_item(project: Project) -> None:
    item = first_item(project)
    assert "say which: --match or --no-match" in said(on(project, "decide", item))
    assert "nothing is written" in ok(on(project, "decide", item, "--match", "--dry-run"))
    assert standing(project) == {}
    assert "next: profile-pipeline run" in said(
        on(project, "decide", item, "--no-match", "--author", "eva", "--reason", "twins")
    )
    assert standing(project) == {"ab": "no_match"}
    [decided] = data(on(project, "list", "--decided", "--json"))
    assert (decided["author"], decided["reason"], decided["item_id"]) == ("eva", "twins", item)
    assert "twins" in ok(on(project, "show", item))
    ok(on(project, "withdraw", item, answer="n\n"))
    assert standing(project) == {"ab": "no_match"}
    ok(on(project, "withdraw", item, "--yes"))
    assert standing(project) == {}


def test_decide_in_bulk_from_a_file_and_by_records(project: Project, tmp_path: Path) -> None:
    listed = tmp_path / "items.txt"
    listed.write_text("".join(f"{row['item_id']}\n" for row in data(on(project, "list", "--json"))))
    assert data(on(project, "decide", "--from", listed, "--match", "--json")) == {
        "decision": "match",
        "pairs": 2,
        "dry_run": False,
    }
    ok(on(project, "decide", "--records", "a", "c", "d", "--no-match"))
    assert standing(project) == {
        "ab": "match",
        "bc": "match",
        "ac": "no_match",
        "ad": "no_match",
        "cd": "no_match",
    }
    assert "1 of the keys belong to no record" in said(
        on(project, "decide", "--records", "a", "zz", "--match")
    )
    checked = on(project, "check", "--json")
    assert checked.exit_code == 1
    found = json.loads(checked.stdout)
    assert [(row["left_key"], row["right_key"], row["chain"]) for row in found["contradictions"]] == [
        ("a", "c", 2)
    ]
    assert {row["left_key"] + row["right_key"] for row in found["broken"]} == {"ab", "bc", "cd"}
    assert on(project, "check").exit_code == 1


def test_the_author_is_the_user_of_the_computer(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "steward")
    ok(on(project, "decide", first_item(project), "--match"))
    assert data(on(project, "list", "--decided", "--json"))[0]["author"] == "steward"


def test_a_queue_is_filled_in_and_comes_back(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "queue.csv"
    assert "fill in `decision`" in ok(on(project, "export", path))
    with path.open(encoding="utf-8", newline="") as file:
        sheet = list(csv.DictReader(file))
    assert [row["decision"] for row in sheet] == ["", ""]
    assert (sheet[0]["given_name left"], sheet[0]["given_name right"]) == ("anna", "'=[red]1+1[/red]")
    sheet[0] |= {"decision": "Match", "reason": "same birthday"}
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, list(sheet[0]))
        out.writeheader()
        out.writerows(sheet)
    assert data(on(project, "import", path, "--dry-run", "--json"))["written"] == 1
    assert standing(project) == {}
    assert data(on(project, "import", path, "--yes", "--json"))["undecided"] == 1
    assert standing(project) == {"ab": "match"}
    assert data(on(project, "list", "--decided", "--json"))[0]["reason"] == "same birthday"
    ok(on(project, "export", tmp_path / "d.csv", "--decisions"))
    assert data(on(project, "import", tmp_path / "d.csv", "--json"))["written"] == 0


def test_a_bad_file_changes_nothing(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("left_key,right_key,decision\na,b,match\na,zz,match\n")
    assert "d.csv: line 3: no record ever had one of these keys" in said(on(project, "import", path, "--yes"))
    assert standing(project) == {}


def test_unmerge_parts_a_profile(project: Project) -> None:
    with connect(project.database, memory="1GB", threads=1) as con:
        profile = scalar(con, "select profile_id from identity.membership where record_key = 'c'")
    assert data(on(project, "unmerge", profile, "--records", "d", "--dry-run", "--json"))["no_match"] == 1
    ok(on(project, "unmerge", profile, "--records", "d", answer="n\n"))
    assert standing(project) == {}
    ok(on(project, "unmerge", profile, "--records", "d", "--yes"))
    assert standing(project) == {"cd": "no_match"}
    assert "some, not all" in said(on(project, "unmerge", profile, "--records", "c", "d", "--yes"))
