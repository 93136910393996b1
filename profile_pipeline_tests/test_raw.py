"""raw: the ledger takes every file once, and what was read is what was delivered."""

import io
import os
from datetime import UTC, datetime

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profile_pipeline import runs
from profile_pipeline.config.load import load_config
from profile_pipeline.config.sources import Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.metrics import unbalanced
from profile_pipeline.raw import delimited, intake, ledger, lines

AS_OF = datetime(2026, 4, 1, tzinfo=UTC)
HEADER = "id,first,last,email,note,moment\n"
GOOD = "1,Ann,Lee,ann@mail.com,hello,2026-01-01\n"
EVERYTHING = (
    "select * from raw.crm order by all",
    "select * from raw.files order by all",
    "select * from raw.batches order by all",
    "select * from raw.rejects order by all",
    "select * from records.crm order by all",
    "select * from records.current order by all",
    "select * from records.quarantine order by all",
    "select * from records.validations order by all",
    "select name, fingerprint from state.built order by all",
)


def state(core):
    return [core.rows(query) for query in EVERYTHING]


def test_running_again_without_news_changes_nothing(project, run_core):
    place = project(files={"crm_1.csv": HEADER + GOOD + "broken\n"})
    before = state(run_core(place))
    core = run_core(place, datetime(2027, 1, 1, tzinfo=UTC))
    assert core.scan.new == 0
    assert state(core) == before


def test_the_same_content_again_adds_a_ledger_entry_only(project, run_core):
    place = project(files={"crm_1.csv": HEADER + GOOD})
    before = state(run_core(place))
    project.deliver(place, "crm_again.csv", HEADER + GOOD)
    after = state(run_core(place))
    assert after[4:6] == before[4:6]
    assert after[0] == before[0]
    assert len(after[1]) == 2


def test_files_of_two_folders_and_subfolders_are_found_in_order(project, run_core):
    place = project(
        files={"crm_b.csv": HEADER + GOOD, "deep/crm_a.csv": HEADER + GOOD.replace("1,", "2,", 1)}
    )
    (place.data / "sources").mkdir()
    (place.data / "sources" / "crm_z.csv").write_text(HEADER + GOOD.replace("1,", "3,", 1))
    core = run_core(place)
    assert core.values("select name from raw.files order by file_id") == [
        "sources/crm_z.csv", "inbox/crm_b.csv", "inbox/deep/crm_a.csv",
    ]  # fmt: skip


def test_files_nobody_claims_are_named(project, run_core):
    core = run_core(project(files={"crm_1.csv": HEADER + GOOD, "letter.txt": "hello"}))
    assert core.scan.unclaimed == ["inbox/letter.txt"]


def test_a_file_that_is_taken_away_during_a_look_is_passed_over(project, monkeypatch):
    where = project({"crm": project.crm()}, {"crm_1.csv": HEADER, "crm_2.csv": HEADER})
    listed = [*ledger.delivered_files(where)]
    monkeypatch.setattr(ledger, "delivered_files", lambda _: listed)
    listed[0][1].unlink()
    found, _ = ledger.deliveries(load_config(where.rules), where)
    assert [item.path for item in found] == [listed[1][1]]


def test_a_refused_file_mended_under_the_same_name_is_read(project, run_core):
    place = project(files={"crm_1.csv": "nonsense\n"})
    assert run_core(place).file("crm_1.csv")[0] == "refused"
    assert run_core(place).scan.new == 0, "an unchanged refused file is left alone"
    project.deliver(place, "crm_1.csv", HEADER + GOOD)
    core = run_core(place)
    assert core.scan.conflicts == []
    assert core.file("crm_1.csv") == ("loaded", None)
    assert core.one("select count(*) from raw.files") == 1


def test_a_refused_file_is_told_until_it_is_taken_away(project, run_core):
    place = project(files={"crm_1.csv": "nonsense\n", "crm_2.csv": HEADER + GOOD})
    [told] = runs.refused_files(run_core(place).con, "crm")
    assert told.startswith("inbox/crm_1.csv: lacks the columns id, first")
    assert told.endswith("list them under optional_columns, or take the file away")
    (place.inbox / "crm_1.csv").unlink()
    core = run_core(place)
    assert runs.refused_files(core.con) == []
    assert (core.scan.new, core.file("crm_1.csv")[0]) == (0, "removed")
    project.deliver(place, "crm_1.csv", HEADER + GOOD.replace("1,", "2,", 1))
    assert run_core(place).file("crm_1.csv") == ("loaded", None)


def test_a_folder_that_is_not_there_takes_no_refused_file_away(project, run_core):
    place = project(files={"crm_1.csv": "nonsense\n"})
    run_core(place)
    place.inbox.rename(place.data / "unmounted")
    assert run_core(place).file("crm_1.csv")[0] == "refused"


def test_a_refused_file_is_read_when_the_reading_rules_change(project, run_core):
    place = project(files={"crm_1.csv": (HEADER + GOOD).replace(",", ";")})
    assert run_core(place).file("crm_1.csv")[0] == "refused"
    project.write_rules(place, {"crm": project.crm(format={"type": "csv", "delimiter": ";"})})
    assert run_core(place).file("crm_1.csv") == ("loaded", None)


def test_a_refused_file_leaves_no_rows_even_when_its_end_is_bad(project, run_core):
    rule = project.crm(format={"type": "csv", "encoding": "utf-16"})
    content = (HEADER + "".join(GOOD.replace("1,", f"{n},", 1) for n in range(40_000))).encode("utf-16")[:-1]
    core = run_core(project({"crm": rule}, {"crm_1.csv": content}))
    assert core.file("crm_1.csv")[0] == "refused"
    assert core.one("select count(*) from raw.crm") == 0


def test_a_column_that_joins_the_contract_is_added(project, run_core):
    place = project(files={"crm_1.csv": HEADER + GOOD})
    run_core(place)
    columns = [*project.crm()["columns"], "city"]
    project.write_rules(place, {"crm": project.crm(columns=columns)})
    project.deliver(
        place,
        "crm_2.csv",
        HEADER.replace("\n", ",city\n") + GOOD.replace("\n", ",York\n").replace("1,", "2,", 1),
    )
    assert run_core(place).rows("select id, city from raw.crm order by 1") == [("1", None), ("2", "York")]


def test_a_file_without_a_header_line_is_read_by_position(project, run_core):
    rule = project.crm(format={"type": "csv", "header": False})
    core = run_core(project({"crm": rule}, {"crm_1.csv": GOOD + "x,y\n"}))
    assert core.rows("select _line, first from raw.crm") == [(1, "Ann")]
    assert core.reasons() == {2: ["2 fields instead of 6"]}


def test_other_delimiters_and_quotes(project, run_core):
    rule = project.crm(format={"type": "csv", "delimiter": "|", "quote": "'"})
    text = HEADER.replace(",", "|") + "1|'A|n''n'|Lee|a\"b|x,y|2026-01-01\n"
    core = run_core(project({"crm": rule}, {"crm_1.csv": text}))
    assert core.one("select first, email, note from raw.crm") == ("A|n'n", 'a"b', "x,y")


def test_two_sources_may_share_a_file_by_where(project, run_core):
    sources = {"crm": project.crm(where="note = 'hello'"), "other": project.crm(where="note <> 'hello'")}
    core = run_core(project(sources, {"crm_1.csv": HEADER + GOOD + "2,B,C,,bye,2026-01-01\n"}))
    assert core.values("select record_key from records.current order by 1") == ["crm:1", "other:2"]
    assert unbalanced(core.con) == []


def test_a_file_that_cannot_be_opened_is_told_and_does_not_stop_the_others(project, run_core, monkeypatch):
    place = project(files={"crm_1.csv": HEADER + GOOD, "crm_2.csv": HEADER + GOOD.replace("1,", "2,", 1)})
    original = ledger.sha256_of

    def denied(path):
        if path.name == "crm_1.csv":
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(ledger, "sha256_of", denied)
    core = run_core(place)
    assert core.scan.conflicts == [
        "inbox/crm_1.csv: cannot be opened (Permission denied); mend its permissions or remove it"
    ]
    assert core.values("select name from raw.files") == ["inbox/crm_2.csv"]
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), PipelineError),
        (duckdb.OutOfMemoryException("could not allocate"), duckdb.OutOfMemoryException),
        (duckdb.InterruptException("interrupted"), duckdb.InterruptException),
    ],
)
def test_trouble_of_the_machine_never_refuses_a_file(project, run_core, monkeypatch, error, expected):
    place = project(files={"crm_1.csv": HEADER + GOOD})

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(delimited, "load", fail)
        with pytest.raises(expected):
            run_core(place)
    assert run_core(place).file("crm_1.csv") == ("loaded", None)


def test_reverting_a_batch_is_as_if_it_had_never_come(project, run_core):
    second = HEADER + "1,Eve,Fox,eve@x.com,changed,2026-02-01\n2,Bob,Ray,,new,2026-02-01\nbroken\n"
    derived = ("select * from records.current order by 1", "select * from records.identifiers order by all",
               "select * from records.quarantine order by all",
               "select * from metrics.row_fates where reverted = 0 order by all")  # fmt: skip
    place = project(files={"crm_1.csv": HEADER + GOOD})
    expected = [run_core(place).rows(query) for query in derived]
    project.deliver(place, "crm_2.csv", second)
    assert [run_core(place).rows(query) for query in derived] != expected
    assert ledger.revert(run_core(place).con, 2) == 1
    core = run_core(place)
    assert [core.rows(query) for query in derived] == expected
    assert core.one("select count(*) from raw.crm") == 3, "raw keeps what was delivered"
    assert core.one("select batch, delivered, reverted from metrics.row_fates where reverted > 0") == (
        2,
        3,
        3,
    )
    assert ledger.batch_states(core.con)[0][4] == 1


def test_reverting_a_batch_lets_a_duplicate_of_another_batch_take_its_place(project, run_core):
    place = project(files={"crm_1.csv": HEADER + GOOD})
    run_core(place)
    project.deliver(place, "crm_again.csv", HEADER + GOOD)
    core = run_core(place)
    ledger.revert(core.con, 1)
    core = run_core(place)
    assert core.file("crm_again.csv") == ("loaded", None)
    assert core.values("select batch from records.current") == [2]
    ledger.revert(core.con, 2)
    assert run_core(place).values("select batch from records.current") == []


def test_a_reverted_file_that_is_delivered_again_is_told_and_counts_under_a_new_name(project, run_core):
    place = project(files={"crm_1.csv": HEADER + GOOD})
    core = run_core(place)
    ledger.revert(core.con, 1)
    assert run_core(place).scan.reverted == [], "it only still lies there"
    os.utime(project.deliver(place, "crm_1.csv", HEADER + GOOD), (1, 1))
    assert run_core(place).scan.reverted == [
        "inbox/crm_1.csv: delivered again, but taken back with batch 1; `profile-pipeline batch restore 1` lets it count,"
        " or deliver it under a new name"
    ]
    assert core.values("select batch from records.current") == []
    project.deliver(place, "crm_new.csv", HEADER + GOOD)
    assert run_core(place).values("select batch from records.current") == [2]


def test_require_loaded_names_what_is_missing(project, run_core):
    core = run_core(project())
    with pytest.raises(PipelineError, match="put files that match"):
        intake.require_loaded(core.con, core.config)
    core = run_core(project(files={"crm_1.csv": HEADER + GOOD}))
    intake.require_loaded(core.con, core.config)


def test_scanning_twice_enters_nothing_twice(project, run_core):
    place = project(files={"crm_1.csv": HEADER + GOOD})
    config = load_config(place.rules)
    core = run_core(place)
    assert ledger.scan(core.con, config, place, AS_OF).new == 0
    assert ledger.pending(core.con, "crm") == []


# the reader of delimited text against a slow and obvious model of it


def read(text: str, width: int = 2, **rule) -> tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]:
    source = Source.model_validate(
        {
            "kind": "record",
            "files": "x",
            "format": {"type": "csv", "header": False, **rule},
            "columns": ["a", "b"],
            "key": "a",
        }
    )
    stream = io.TextIOWrapper(
        io.BytesIO(text.encode("utf-8", "surrogateescape")), "utf-8", "surrogateescape", newline=""
    )
    chunks = list(delimited.read_rows(stream, source, width))
    good = [pair for chunk in chunks for pair in zip(chunk.lines, chunk.rows, strict=True)]
    return good, [(line, reason) for chunk in chunks for line, reason, _ in chunk.rejects]


FIELD = st.text(st.sampled_from('ab",\n\r\x00é\u2028 '), max_size=6)


def quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"'


@given(st.lists(st.lists(FIELD, min_size=2, max_size=2), max_size=8), st.integers(1, 40))
def test_well_formed_text_is_read_back_whatever_the_block_size(table, block):
    text = "".join(",".join(map(quoted, row)) + "\n" for row in table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_CHARACTERS", block)
        good, bad = read(text)
    assert [row for _, row in good] == table
    assert bad == []


@given(
    st.lists(
        st.sampled_from(["a,b", "a", '"a,b', 'a,"b"x', '"x\n', "", "a,b,c", "\udcff,b", '"q",z', 'x" ,"']),
        max_size=12,
    ),
    st.integers(1, 60),
)
def test_blocks_change_neither_rows_nor_rejects_and_no_line_is_lost(parts, block):
    text = "".join(part + "\n" for part in parts)
    whole = read(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_CHARACTERS", block)
        assert read(text) == whole
    good, bad = whole
    numbers = [line for line, _ in good] + [line for line, _ in bad]
    assert len(set(numbers)) == len(numbers), "a line is one row or one reject"
    spanned = sum(1 + sum(field.count("\n") for field in row) for _, row in good)
    blank = sum(1 for line in io.StringIO(text, newline="") if not line.strip("\r\n"))
    assert spanned + len(bad) <= len(list(io.StringIO(text, newline=""))) <= spanned + len(bad) + blank


def test_a_line_of_any_length_is_cut_at_the_limit_and_the_next_one_is_found():
    text = "a,b\n" + "x" * 100_000 + "\nc,d\n" + "y" * 70_000
    good, bad = read(text, max_line_bytes=50)
    assert good == [(1, ["a", "b"]), (3, ["c", "d"])]
    assert bad == [(2, "line longer than 50 characters"), (4, "line longer than 50 characters")]


def test_unread_bytes_are_hashed_too(tmp_path):
    from profile_pipeline.raw.streams import verified

    path = tmp_path / "file"
    path.write_bytes(os.urandom(3_000_000))
    with verified(path, ledger.sha256_of(path)) as file:
        file.read(10)
