"""Refused rows are listed, exported, repaired and delivered again; every row keeps one fate."""

import csv
import json
import re
import stat
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from profile_pipeline import batches
from profile_pipeline.cli import app
from profile_pipeline.errors import PipelineError
from profile_pipeline.metrics import unbalanced
from profile_pipeline.quarantine import HELPERS, export, open_rows, replay
from profile_pipeline.raw import ledger

PAGE = (Path(__file__).parents[1] / "docs" / "quarantine.md").read_text(encoding="utf-8")
HEADER = "id,first,last,email,note,moment\n"
LINES = '1,Ann,Lee,,"a, ""b""",2026-01-01\n,Bob,Ray,b@x.com,"line\nbreak",2026-01-02\n3,too,few\n'
KIND = {"csv": {"type": "csv"}, "jsonl": {"type": "jsonl"}, "parquet": {"type": "parquet"}}


def world(project, run_core, **changes):
    place = project({"crm": project.crm(**changes)}, {"crm_1.csv": HEADER + LINES})
    return place, run_core(place)


def read_csv(path, **dialect):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, **dialect))


def write_csv(path, found, **dialect):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), **dialect)
        writer.writeheader()
        writer.writerows(found)


def test_open_rows_are_counted_by_source_batch_stage_and_reason(project, run_core):
    _, core = world(project, run_core)
    assert open_rows(core.con) == [
        ("crm", 1, "raw", "3 fields instead of 6", 1),
        ("crm", 1, "records", "key_present", 1),
    ]


def test_before_the_first_run_nothing_is_open(project, run_core, tmp_path):
    core = run_core(project())
    core.con.execute("drop table records.quarantine")
    assert open_rows(core.con) == []
    assert export(core.con, core.config, tmp_path / "repair") == []
    path = tmp_path / "crm.csv"
    path.write_text("_file,_line," + HEADER + "inbox/crm_1.csv,3,1,a,b,c,d,e\n")
    with pytest.raises(PipelineError, match="no row is in quarantine yet"):
        replay(core.con, core.config, project(), path, "crm")


def test_an_exported_file_is_private_complete_and_replayable(project, run_core, tmp_path):
    place, core = world(project, run_core)
    [path] = export(core.con, core.config, tmp_path / "repair")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = read_csv(path)
    assert found[0] == {
        "_file": "inbox/crm_1.csv",
        "_line": "3",
        "_reasons": "key_present",
        "_content": "",
        "id": "",
        "first": "Bob",
        "last": "Ray",
        "email": "b@x.com",
        "note": "line\nbreak",
        "moment": "2026-01-02",
    }
    assert (found[1]["_line"], found[1]["_content"], found[1]["_reasons"]) == (
        "5",
        "3,too,few",
        "3 fields instead of 6",
    )
    found[0]["id"] = "2"
    found[1] |= {"id": "3", "first": "Cid", "moment": "2026-01-03"}
    write_csv(path, found)
    done = replay(core.con, core.config, place, path, "crm")
    assert done.name.startswith("inbox/crm_replay_")
    assert (done.repaired, done.left_open) == (2, 0)
    assert open_rows(core.con) == []
    core = run_core(place)
    assert core.rows("select source_key, given_name, note from records.current order by 1") == [
        ("1", "ann", 'a, "b"'),
        ("2", "bob", "line break"),
        ("3", "cid", None),
    ]
    assert core.one("select count(*) from records.quarantine") == 2, "the refused rows stay what they were"
    assert unbalanced(core.con) == []
    assert core.one("select distinct replayed_at from raw.replays") == ledger.as_of(core.con)
    assert open_rows(core.con) == []
    assert export(core.con, core.config, tmp_path / "again") == []


def test_rows_that_were_not_repaired_stay_open(project, run_core, tmp_path):
    place, core = world(project, run_core)
    [path] = export(core.con, core.config, tmp_path)
    found = read_csv(path)
    found[0]["id"] = "2"
    write_csv(path, found)
    done = replay(core.con, core.config, place, path, "crm")
    assert (done.repaired, done.left_open) == (1, 1)
    assert open_rows(core.con) == [("crm", 1, "raw", "3 fields instead of 6", 1)]
    write_csv(path, found[1:])
    with pytest.raises(PipelineError, match="holds no repaired row"):
        replay(core.con, core.config, place, path, "crm")


def test_a_second_replay_of_the_same_rows_is_refused(project, run_core, tmp_path):
    place, core = world(project, run_core)
    [path] = export(core.con, core.config, tmp_path)
    found = read_csv(path)[:1]
    found[0]["id"] = "2"
    write_csv(path, found)
    replay(core.con, core.config, place, path, "crm")
    with pytest.raises(PipelineError, match=r"1 of 1 rows do not wait in the quarantine of crm"):
        replay(core.con, core.config, place, path, "crm")


def test_a_replay_that_is_refused_again_or_taken_back_is_open_again(project, run_core, tmp_path):
    place, core = world(project, run_core)
    [path] = export(core.con, core.config, tmp_path)
    found = read_csv(path)[:1]
    found[0]["id"] = "n/a"
    write_csv(path, found)
    replay(core.con, core.config, place, path, "crm")
    core = run_core(place)
    assert open_rows(core.con) == [
        ("crm", 1, "raw", "3 fields instead of 6", 1),
        ("crm", 2, "records", "key_present", 1),
    ]
    ledger.revert(core.con, 2)
    core = run_core(place)
    assert open_rows(core.con) == [
        ("crm", 1, "raw", "3 fields instead of 6", 1),
        ("crm", 1, "records", "key_present", 1),
    ]


def test_rows_that_are_as_they_were_refused_are_not_delivered_again(project, run_core, tmp_path):
    place = project(files={"crm_1.csv": HEADER + ",Ann,Lee,,,2026-01-01\n,Bob,Ray,,,2026-01-02\n"})
    core = run_core(place)
    [path] = export(core.con, core.config, tmp_path)
    with pytest.raises(PipelineError, match=r"crm\.csv: holds no repaired row: none differs from what was"):
        replay(core.con, core.config, place, path, "crm")
    assert not list(place.inbox.glob("*replay*"))
    found = read_csv(path)
    found[0]["id"] = "1"
    write_csv(path, found)
    done = replay(core.con, core.config, place, path, "crm")
    assert (done.repaired, done.left_open) == (1, 1)
    core = run_core(place)
    assert core.values("select source_key from records.current") == ["1"]
    assert open_rows(core.con) == [("crm", 1, "records", "key_present", 1)]


def test_rows_of_a_replay_that_could_not_be_read_stay_open_when_it_is_taken_away(project, run_core, tmp_path):
    place, core = world(project, run_core)
    waiting = open_rows(core.con)
    [path] = export(core.con, core.config, tmp_path)
    found = read_csv(path)[:1]
    found[0]["id"] = "2"
    write_csv(path, found)
    delivered = place.data / replay(core.con, core.config, place, path, "crm").name
    delivered.write_text("nonsense\n")
    assert open_rows(run_core(place).con) == waiting
    delivered.unlink()
    assert open_rows(run_core(place).con) == waiting
    replay(core.con, core.config, place, path, "crm")
    assert run_core(place).values("select source_key from records.current order by 1") == ["1", "2"]


def test_the_same_repair_after_its_batch_was_taken_back_asks_for_a_restore(project, run_core, tmp_path):
    place, core = world(project, run_core)
    [path] = export(core.con, core.config, tmp_path)
    found = read_csv(path)[:1]
    found[0]["id"] = "2"
    write_csv(path, found)
    replay(core.con, core.config, place, path, "crm")
    batches.revert(run_core(place).con, 2, "ann", "a mistake")
    core = run_core(place)
    with pytest.raises(PipelineError, match=r"taken back with batch 2; `profile-pipeline batch restore 2`"):
        replay(core.con, core.config, place, path, "crm")
    batches.restore(core.con, 2, "ann", "it was right after all")
    core = run_core(place)
    assert core.values("select source_key from records.current order by 1") == ["1", "2"]
    assert open_rows(core.con) == [("crm", 1, "raw", "3 fields instead of 6", 1)]


def test_csv_keeps_the_dialect_of_its_source(project, run_core, tmp_path):
    rule = {"type": "csv", "delimiter": ";", "quote": "'", "encoding": "windows-1252", "header": False}
    place = project(
        {"crm": project.crm(format=rule)}, {"crm_1.csv": ";Zoë;'L;ee';;n;2026-01-01\n".encode("cp1252")}
    )
    core = run_core(place)
    [path] = export(core.con, core.config, tmp_path)
    text = path.read_bytes().decode("cp1252")
    assert "Zoë;'L;ee'" in text
    path.write_bytes(text.replace(";;Zoë", ";9;Zoë").encode("cp1252"))
    replay(core.con, core.config, place, path, "crm")
    assert run_core(place).one("select source_key, given_name, family_name from records.current") == (
        "9",
        "zoe",
        "l ee",
    )


def test_json_lines_keep_nesting_nulls_and_absence(project, run_core, tmp_path):
    rule = project.crm(
        files="crm_*.jsonl.gz", format={"type": "jsonl"}, write="patch", clear_value="null",
        optional_columns=["first", "last", "email", "moment"], attributes={"given_name": "note ->> '$.name'", "email": "email"},
    )  # fmt: skip
    import gzip

    lines = [
        {"id": "1", "email": "a@x.com", "note": {"name": "Ann"}},
        {"email": None, "note": {"name": "Bob", "n": [1, 2]}},
        "nonsense",
    ]
    content = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    place = project({"crm": rule}, {"crm_1.jsonl.gz": gzip.compress(content.encode())})
    core = run_core(place)
    [path] = export(core.con, core.config, tmp_path)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found[0] == {
        "_file": "inbox/crm_1.jsonl.gz", "_line": "2", "_reasons": "key_present", "_content": "", "email": None,
        "note": {"name": "Bob", "n": [1, 2]},
    }  # fmt: skip
    assert found[1]["_content"] == "nonsense"
    path.write_text(json.dumps(found[0] | {"id": "1"}) + "\n" + json.dumps(found[1]) + "\n")
    done = replay(core.con, core.config, place, path, "crm")
    assert done.name.endswith(".jsonl.gz")
    core = run_core(place)
    assert core.one("select given_name, email, cleared from records.current") == ("bob", None, ["email"])
    assert open_rows(core.con) == [("crm", 1, "raw", "not a JSON object", 1)]


def shown(mark):
    """A block of the page, between its marks."""
    return re.search(f"<!-- {mark} -->\n```\n(.*?)```\n<!-- /{mark} -->", PAGE, re.DOTALL)[1]


def test_the_page_shows_what_the_commands_do(project, run_core, tmp_path):
    place = project(files={"crm_1.csv": shown("delivered")})
    core = run_core(place)
    core.con.close()
    repair = tmp_path / "repair"

    def call(*arguments):
        done = CliRunner().invoke(app, ["quarantine", *arguments, "--project", str(place.rules.parent)])
        assert done.exit_code == 0, done.output
        return done.output

    call("export", str(repair))
    assert (repair / "crm.csv").read_text() == shown("exported")
    (repair / "crm.csv").write_text(shown("mended"))
    said = call("replay", str(repair / "crm.csv"), "--source", "crm")
    assert " ".join(said.split()) == shown("said").strip()
    assert " ".join(call("list").split()).endswith("crm 1 raw 3 fields instead of 6 1")
    assert all(f"`{column}`" in PAGE for column in HELPERS)


def json_world(project, run_core, lines, **changes):
    rule = project.crm(files="crm_*.jsonl", format=KIND["jsonl"], **changes)
    content = "".join(line + "\n" if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    place = project({"crm": rule}, {"crm_1.jsonl": content})
    return place, run_core(place)


ANN = {"id": None, "first": "Ann", "last": None, "email": None, "note": {"n": 1.0}, "moment": "2026-01-01"}


@pytest.mark.parametrize("kept", [list(ANN), ["id", "first", "moment"]])
def test_json_lines_of_a_repair_have_every_column_of_the_contract(project, run_core, tmp_path, kept):
    place, core = json_world(project, run_core, [ANN, "nonsense"])
    [path] = export(core.con, core.config, tmp_path)
    refused, malformed = (json.loads(line) for line in path.read_text().splitlines())
    assert {column: refused[column] for column in ANN} == ANN
    assert [malformed[column] for column in ANN] == [None] * len(ANN)
    mended = {column: value for column, value in refused.items() if column[0] == "_" or column in kept}
    path.write_text(json.dumps(mended | {"id": 7}) + "\n" + json.dumps(malformed) + "\n")
    replay(core.con, core.config, place, path, "crm")
    core = run_core(place)
    assert core.one("select source_key, given_name, family_name from records.current") == ("7", "ann", None)
    assert core.values("select state from raw.files") == ["loaded", "loaded"]
    assert open_rows(core.con) == [("crm", 1, "raw", "not a JSON object", 1)]


def test_unchanged_json_lines_are_known_whatever_their_spacing(project, run_core, tmp_path):
    place, core = json_world(project, run_core, [ANN])
    [path] = export(core.con, core.config, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()), separators=(",", ":"), sort_keys=True))
    with pytest.raises(PipelineError, match="holds no repaired row"):
        replay(core.con, core.config, place, path, "crm")


def test_a_column_that_no_repaired_line_has_is_named_where_a_null_would_clear(project, run_core, tmp_path):
    told = {column: value for column, value in ANN.items() if column not in {"id", "last"}}
    place, core = json_world(project, run_core, [told, ANN | {"id": "9"}], write="patch", clear_value="null")
    [path] = export(core.con, core.config, tmp_path)
    row = json.loads(path.read_text()) | {"id": "1"}
    path.write_text(json.dumps(row))
    with pytest.raises(
        PipelineError, match=r'no repaired row has the columns last; write "" into one'
    ) as caught:
        replay(core.con, core.config, place, path, "crm")
    assert "\n" not in str(caught.value)
    path.write_text(json.dumps(row | {"last": ""}))
    replay(core.con, core.config, place, path, "crm")
    core = run_core(place)
    assert core.one("select cleared from records.current where source_key = '1'") == ["email"]


def test_parquet_is_exported_as_parquet(project, run_core, tmp_path):
    import pyarrow as pa

    columns = {
        "id": [None, "2"],
        "first": ["Ann", "Bob"],
        "last": ["Lee", None],
        "email": [None, None],
        "note": ["n", "n"],
        "moment": ["2026-01-01"] * 2,
    }
    place = project({"crm": project.crm(files="crm_*.parquet", format=KIND["parquet"])})
    place.inbox.mkdir(parents=True)
    pq.write_table(pa.table(columns), place.inbox / "crm_1.parquet")
    core = run_core(place)
    [path] = export(core.con, core.config, tmp_path)
    found = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([found[0] | {"id": "1"}]), path)
    replay(core.con, core.config, place, path, "crm")
    assert run_core(place).rows(
        "select source_key, given_name, family_name from records.current order by 1"
    ) == [("1", "ann", "lee"), ("2", "bob", None)]


def test_a_repaired_parquet_row_clears_nothing_that_was_not_delivered(project, run_core, tmp_path):
    import pyarrow as pa

    row = {"id": None, "first": None, "last": "Lee", "note": "n", "moment": "2026-01-01"}
    rule = project.crm(
        files="crm_*.parquet", format=KIND["parquet"], write="patch", clear_value="null", optional_columns=["email"]
    )  # fmt: skip
    place = project({"crm": rule})
    place.inbox.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row]), place.inbox / "crm_1.parquet")
    pq.write_table(pa.Table.from_pylist([row | {"email": None}]), place.inbox / "crm_2.parquet")
    core = run_core(place)
    [path] = export(core.con, core.config, tmp_path)
    with pytest.raises(PipelineError, match="holds no repaired row"):
        replay(core.con, core.config, place, path, "crm")
    silent, cleared = pq.read_table(path).to_pylist()
    mended = [silent | {"id": "1"}, cleared | {"id": "2"}]
    pq.write_table(pa.Table.from_pylist(mended), path)
    with pytest.raises(PipelineError, match="only some of the rows were delivered with the columns email"):
        replay(core.con, core.config, place, path, "crm")
    for row in mended:
        pq.write_table(pa.Table.from_pylist([row]), path)
        replay(core.con, core.config, place, path, "crm")
    assert run_core(place).rows("select source_key, cleared from records.current order by 1") == [
        ("1", ["given_name"]),
        ("2", ["given_name", "email"]),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,first\n1,x\n", "lacks `_file` and `_line`"),
        ("_file,_line,id,first\ninbox/crm_1.csv,3,1,x\n", "lacks the columns last, email, note, moment"),
        ("_file,_line," + HEADER + "inbox/crm_1.csv,3,1\n", "row 1 does not have 8 fields"),
        ("_file,_line," + HEADER + "inbox/other.csv,3,1,a,b,c,d,e\n", "do not wait in the quarantine"),
        ('_file,"_line\n', "cannot be read as csv"),
        ("", "lacks `_file` and `_line`"),
    ],
)
def test_a_file_that_cannot_be_replayed_is_refused_in_one_line(project, run_core, tmp_path, content, message):
    place, core = world(project, run_core)
    path = tmp_path / "repaired.csv"
    path.write_text(content)
    with pytest.raises(PipelineError, match=message) as caught:
        replay(core.con, core.config, place, path, "crm")
    assert "\n" not in str(caught.value)
    assert not list(place.inbox.glob("*replay*"))


def test_unknown_sources_and_missing_files(project, run_core, tmp_path):
    place, core = world(project, run_core)
    with pytest.raises(PipelineError, match="unknown source `erp`; known: crm"):
        replay(core.con, core.config, place, tmp_path / "x.csv", "erp")
    with pytest.raises(PipelineError, match=r"x\.csv: not found"):
        replay(core.con, core.config, place, tmp_path / "x.csv", "crm")


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("crm_*.csv*", True),
        ("crm_[0-9]*.csv", True),
        ("crm_?_*.csv", True),
        ("*.csv", True),
        ("crm_1.csv", False),
        ("crm_?.csv", False),
    ],
)
def test_the_name_of_a_replay_matches_the_pattern_or_there_is_none(
    project, run_core, tmp_path, pattern, fits
):
    name = {"crm_[0-9]*.csv": "crm_1.csv", "crm_?_*.csv": "crm_1_a.csv"}.get(pattern, "crm_1.csv")
    place = project({"crm": project.crm(files=pattern)}, {name: HEADER + LINES})
    core = run_core(place)
    [path] = export(core.con, core.config, tmp_path)
    found = read_csv(path)[:1]
    found[0]["id"] = "2"
    write_csv(path, found)
    if not fits:
        with pytest.raises(PipelineError, match="use a pattern with"):
            replay(core.con, core.config, place, path, "crm")
        return
    replay(core.con, core.config, place, path, "crm")
    assert run_core(place).values("select source_key from records.current order by 1") == ["1", "2"]
