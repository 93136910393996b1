"""Decisions of stewards: append-only, the newest of a pair in effect, all or nothing, in and out by file."""

import tempfile
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_pipeline import decisions
from profile_pipeline.decisions import (
    Imported,
    contradictions,
    decide,
    effective_query,
    export_csv,
    import_csv,
    unmerge,
    withdraw,
)
from profile_pipeline.errors import PipelineError
from profile_pipeline.runs import forget_derived
from profile_pipeline.warehouse import rows, scalar
from profile_pipeline_tests.hand_made import set_clusters, set_profiles, warehouse

A, B, C, D, E = "crm:a", "crm:b", "crm:c", "crm:d", "crm:e"
ALL = [A, B, C, D, E]


@pytest.fixture
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        set_clusters(opened, [[key] for key in ALL])
        yield opened


def in_effect(con: DuckDBPyConnection) -> dict[tuple[str, str], str]:
    return {(left, right): decision for left, right, decision, _ in rows(con, effective_query())}


def history(con: DuckDBPyConnection) -> list[tuple]:
    return rows(
        con,
        "select left_key, right_key, decision, reason, author, decided_at from identity.decisions order by 6, 1, 2",
    )


def number(con: DuckDBPyConnection) -> int:
    con.execute(decisions.TABLES)
    return scalar(con, "select count(*) from identity.decisions")


# ---------------------------------------------------------------- deciding


def test_the_newest_decision_of_a_pair_is_in_effect_whatever_the_order_of_its_keys(
    con: DuckDBPyConnection,
) -> None:
    assert decide(con, [(B, A), (A, B), (C, D)], "match", "eva") == 2
    assert in_effect(con) == {(A, B): "match", (C, D): "match"}
    decide(con, [(A, B)], "no_match", "eva", "twins")
    assert in_effect(con) == {(A, B): "no_match", (C, D): "match"}
    assert withdraw(con, [(D, C)], "bob") == 1
    assert in_effect(con) == {(A, B): "no_match"}
    assert number(con) == 4


def test_a_later_decision_wins_even_when_the_clock_went_back(
    con: DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(con, [(A, B)], "match", "eva")
    con.execute("update identity.decisions set decided_at = decided_at + interval 3 hours")
    decide(con, [(A, B)], "no_match", "eva")
    assert in_effect(con) == {(A, B): "no_match"}
    assert scalar(con, "select count(distinct decided_at) from identity.decisions") == 2


def test_the_mark_changes_with_every_decision(con: DuckDBPyConnection) -> None:
    marks = [decisions.fingerprint_of(con)]
    for decision in ("match", "no_match", "withdrawn", "match"):
        decide(con, [(A, B)], decision, "eva")
        marks.append(decisions.fingerprint_of(con))
    assert marks[0] is None
    assert len(set(marks)) == 5


def test_decisions_outlive_a_rebuild(con: DuckDBPyConnection) -> None:
    decide(con, [(A, B)], "match", "eva")
    forget_derived(con)
    assert in_effect(con) == {(A, B): "match"}


@pytest.mark.parametrize(
    ("pairs", "decision", "author", "message"),
    [
        ([(A, B), (C, C)], "match", "eva", "cannot be decided against itself"),
        ([(A, B), (C, "crm:x")], "match", "eva", "1 of the keys belong to no record"),
        ([(A, B)], "maybe", "eva", "unknown decision `maybe`; use match, no_match, withdrawn"),
        ([(A, B)], "match", " ", "needs an author"),
    ],
)
def test_one_bad_pair_and_nothing_is_written(
    con: DuckDBPyConnection, pairs: list[tuple[str, str]], decision: str, author: str, message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        decide(con, pairs, decision, author)
    assert number(con) == 0


def test_only_what_is_in_effect_can_be_withdrawn(con: DuckDBPyConnection) -> None:
    decide(con, [(A, B)], "match", "eva")
    with pytest.raises(PipelineError, match="1 of 2 pairs have no decision in effect"):
        withdraw(con, [(A, B), (C, D)], "eva")
    assert in_effect(con) == {(A, B): "match"}


def test_a_dry_run_checks_and_writes_nothing(con: DuckDBPyConnection) -> None:
    assert decide(con, [(A, B)], "match", "eva", dry_run=True) == 1
    with pytest.raises(PipelineError):
        decide(con, [(A, "crm:x")], "match", "eva", dry_run=True)
    assert number(con) == 0


# ---------------------------------------------------------------- unmerge


def ledger(con: DuckDBPyConnection, *groups: list[str]) -> dict[str, str]:
    set_clusters(con, groups)
    return set_profiles(con, groups)


def test_unmerge_parts_every_pair_across_and_overrules_matches(con: DuckDBPyConnection) -> None:
    ids = ledger(con, [A, B, C, D], [E])
    decide(con, [(A, C), (A, B), (A, E)], "match", "eva")
    found = unmerge(con, ids[A], [C, D], "bob")
    assert (found.separated, found.rest, found.no_match, found.overruled) == (2, 2, 4, 1)
    across = {(A, C): "no_match", (A, D): "no_match", (B, C): "no_match", (B, D): "no_match"}
    assert in_effect(con) == {(A, B): "match", (A, E): "match", **across}
    assert {row[3] for row in history(con) if row[4] == "bob"} == {f"unmerged from profile {ids[A]}"}
    assert unmerge(con, ids[A], [C, D], "bob").no_match == 0
    assert number(con) == 7


def test_unmerge_dry_run_counts_and_writes_nothing(con: DuckDBPyConnection) -> None:
    ids = ledger(con, [A, B, C])
    assert unmerge(con, ids[A], [C], "bob", dry_run=True).no_match == 2
    assert number(con) == 0


def test_unmerge_refuses_what_makes_no_sense(con: DuckDBPyConnection) -> None:
    ids = ledger(con, [A, B], [C])
    for keys, message in [
        ([C], "1 of 1 keys are not in this profile"),
        ([A, B], "some, not all"),
        ([], "some, not all"),
    ]:
        with pytest.raises(PipelineError, match=message):
            unmerge(con, ids[A], keys, "bob")
    con.execute("insert into identity.redirects values ('p_gone', ?, 2)", [ids[A]])
    with pytest.raises(PipelineError, match=f"has the id p_gone; its records are now in {ids[A]}"):
        unmerge(con, "p_gone", [A], "bob")
    assert number(con) == 0


# ---------------------------------------------------------------- files


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


HEADER = "left_key,right_key,decision,reason,author,decided_at"


def test_export_and_import_again_changes_nothing(con: DuckDBPyConnection, tmp_path: Path) -> None:
    decide(con, [(A, B)], "match", "eva", "=cmd()")
    decide(con, [(A, B)], "no_match", "eva")
    assert export_csv(con, tmp_path / "d.csv") == 2
    assert "'=cmd()" in (tmp_path / "d.csv").read_text()
    before = history(con)
    assert import_csv(con, tmp_path / "d.csv", "bob") == Imported(0, 2, 0, 0)
    assert history(con) == before


TEXT = st.text(
    alphabet=st.sampled_from("=+-@'\"\t\r\n,;\0\u202e\uff1d :é🙂ab"), min_size=1, max_size=8
) | st.text(min_size=1, max_size=12)
DRAWN = st.lists(
    st.tuples(
        st.tuples(TEXT, TEXT).filter(lambda pair: pair[0] != pair[1]),
        st.sampled_from(decisions.DECISIONS),
        st.none() | TEXT,
        TEXT.filter(str.strip),
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DRAWN)
def test_any_history_survives_a_trip_through_a_file(
    made: list[tuple[tuple[str, str], str, str | None, str]],
) -> None:
    with warehouse() as con, warehouse() as other, tempfile.TemporaryDirectory() as folder:
        set_clusters(con, [[key] for key in {key for pair, *_ in made for key in pair}])
        for pair, decision, reason, author in made:
            decide(con, [pair], decision, author, reason)
        path = Path(folder) / "d.csv"
        export_csv(con, path)
        found = import_csv(other, path, "somebody")
        assert (found.written, found.waiting) == (len(made), len(made))
        assert history(other) == history(con)
        assert in_effect(other) == in_effect(con)
        assert import_csv(other, path, "somebody").written == 0
        assert import_csv(con, path, "somebody") == Imported(0, len(made), 0, 0)


def test_an_older_history_does_not_overrule_what_was_decided_since(
    con: DuckDBPyConnection, tmp_path: Path
) -> None:
    decide(con, [(A, B)], "match", "eva")
    export_csv(con, tmp_path / "d.csv")
    con.execute("delete from identity.decisions")
    decide(con, [(A, B)], "no_match", "eva")
    assert import_csv(con, tmp_path / "d.csv", "bob").written == 1
    assert in_effect(con) == {(A, B): "no_match"}


def test_rows_without_a_time_are_new_decisions_once(con: DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(
        tmp_path / "d.csv",
        "left_key;right_key;decision",
        f"{B};{A};No match",
        f"{A};{B};no_match",
        f"{C};{D};match",
    )
    assert import_csv(con, path, "bob", dry_run=True) == Imported(2, 1, 0, 0)
    assert number(con) == 0
    assert import_csv(con, path, "bob") == Imported(2, 1, 0, 0)
    assert import_csv(con, path, "bob") == Imported(0, 3, 0, 0)
    assert in_effect(con) == {(A, B): "no_match", (C, D): "match"}
    decide(con, [(A, B)], "match", "eva")
    assert import_csv(con, path, "bob").written == 1
    assert in_effect(con)[A, B] == "no_match"


def test_a_new_row_follows_the_history_in_its_own_file(con: DuckDBPyConnection, tmp_path: Path) -> None:
    decide(con, [(A, B)], "no_match", "eva")
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    path = write(tmp_path / "d.csv", HEADER, f"{A},{B},match,,eva,{at}", f"{A},{B},no_match,,eva,")
    assert import_csv(con, path, "bob").written == 2
    assert in_effect(con) == {(A, B): "no_match"}


def test_decisions_of_records_that_are_gone_wait_for_them(con: DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", HEADER, f"{A},crm:gone,match,,eva,2026-01-01T00:00:00Z")
    assert import_csv(con, path, "bob") == Imported(1, 0, 0, 1)
    ledger(con, [A, B], [C])
    set_clusters(con, [[A]])
    assert decide(con, [(A, C)], "no_match", "eva") == 1, "a record that a profile once had is known"


MISTAKES = {
    f"{A},crm:x,match,,,": "no record ever had one of these keys; correct the key",
    f"{A},{A},match,,,": "both keys are the same record; name two records",
    f"{A},,match,,,": "left_key or right_key is empty",
    f"{A},{B},maybe,,,": "decision must be match, no_match or withdrawn",
    f"{A},{B},,,,": "decision must be",
    f"{A},{B},match,,,yesterday": "decided_at is no ISO time",
    f"{A},{B},match,,,9999-01-01T00:00:00Z": "decided_at lies in the future",
    f"{C},{D},no_match,,,": "decides the pair of line 2 again, differently",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_file_line_and_fix_and_nothing_is_written(
    con: DuckDBPyConnection, tmp_path: Path, mistake: str
) -> None:
    path = write(tmp_path / "d.csv", HEADER, f"{C},{D},match,,,", mistake)
    with pytest.raises(PipelineError, match=rf"^d\.csv: line 3: {MISTAKES[mistake]}"):
        import_csv(con, path, "bob")
    assert number(con) == 0


def test_many_mistakes_are_a_line_each_and_then_counted(con: DuckDBPyConnection, tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", HEADER, *[f"{A},{A},match,,,"] * 15)
    with pytest.raises(PipelineError) as caught:
        import_csv(con, path, "bob")
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "d.csv: 5 more lines have mistakes"


def test_one_time_cannot_hold_two_decisions_of_a_pair(con: DuckDBPyConnection, tmp_path: Path) -> None:
    row = f"{A},{B},{{}},,eva,2026-01-01T00:00:00Z"
    import_csv(con, write(tmp_path / "d.csv", HEADER, row.format("match")), "bob")
    with pytest.raises(PipelineError, match=r"line 2: differs from what is known of this pair and time"):
        import_csv(con, write(tmp_path / "d.csv", HEADER, row.format("no_match")), "bob")
    assert in_effect(con) == {(A, B): "match"}


# ---------------------------------------------------------------- agreement


def test_a_chain_of_matches_contradicts_a_no_match(con: DuckDBPyConnection) -> None:
    decide(con, [(A, B), (B, C), (C, D)], "match", "eva")
    decide(con, [(A, C), (A, D), (A, E)], "no_match", "eva")
    found = {(c.left_key, c.right_key): c.chain for c in contradictions(con)}
    assert found == {(A, C): 2, (A, D): 3}
    withdraw(con, [(B, C)], "eva")
    assert contradictions(con) == []


def test_decisions_that_clusters_do_not_follow_are_named(con: DuckDBPyConnection) -> None:
    set_clusters(con, [[A, B], [C, D], [E]])
    decide(con, [(A, B), (B, C)], "match", "eva")
    decide(con, [(A, E), (C, D)], "no_match", "eva")
    found = {(row["left_key"], row["right_key"]) for row in decisions.broken(con)}
    assert found == {(B, C), (C, D)}
    set_clusters(con, [[A, B], [C]])
    assert {(row["left_key"], row["right_key"]) for row in decisions.broken(con)} == {(B, C)}
