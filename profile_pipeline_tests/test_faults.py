"""The fault catalogue, malformed input: one test a row of the catalogue, by its number.

Rows: 3 CSV read with sniffing, 4 bad lines, 5 JSON errors, 6 bit flip, 7 hostile values, 8 spreadsheet formulas,
9 hostile column names, 13 encodings, 14 long lines, 15 duplicate headers, 16 invisible characters, 17 paths,
18 bombs, 19 YAML, 20 deep JSON, 21 numbers as text, 22 times, 23 nothing delivered, 24 volume, 25 schema drift,
26 clocks, 27 repeated names.
"""

import gzip
import json
import logging
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from profile_pipeline.config.load import RuleError, load_config
from profile_pipeline.errors import PipelineError
from profile_pipeline.metrics import unbalanced
from profile_pipeline.raw import json_lines, ledger
from profile_pipeline.records import staging

AS_OF = datetime(2026, 4, 1, tzinfo=UTC)
HEADER = "id,first,last,email,note,moment\n"
GOOD = "1,Ann,Lee,ann@mail.com,hello,2026-01-01\n"


def rows_of(core, name="crm"):
    return core.rows(f"select _line, id from raw.{name} order by _line")


# 3 CSV is read as declared, never sniffed


def test_fault_03_wrong_delimiter_is_a_refusal_not_one_wide_column(project, run_core):
    core = run_core(project(files={"crm_1.csv": (HEADER + GOOD).replace(",", ";")}))
    state, reason = core.file("crm_1.csv")
    assert state == "refused"
    assert reason.startswith("lacks the columns id, first, last")
    assert "optional_columns" in reason


def test_fault_03_unterminated_quote_refuses_its_line_only(project, run_core):
    text = HEADER + '1,"Ann,Lee,a@x.com,n,2026-01-01\n' + GOOD.replace("1,", "2,", 1)
    core = run_core(project(files={"crm_1.csv": text}))
    assert rows_of(core) == [(3, "2")]
    assert core.reasons() == {2: ["a quote that is never closed"]}
    assert core.one("select content from raw.rejects").startswith('1,"Ann')


def test_fault_03_text_behind_a_closing_quote_is_refused(project, run_core):
    core = run_core(project(files={"crm_1.csv": HEADER + '1,"Ann"x,Lee,a@x.com,n,2026-01-01\n' + GOOD}))
    assert core.reasons() == {2: ["text behind a closing quote"]}
    assert rows_of(core) == [(3, "1")]


def test_fault_03_quoted_line_breaks_delimiters_and_quotes_are_kept(project, run_core):
    text = HEADER + '1,"A\nn, ""n""",Lee,a@x.com,n,2026-01-01\n' + GOOD.replace("1,", "2,", 1)
    core = run_core(project(files={"crm_1.csv": text}))
    assert core.rows("select _line, first from raw.crm order by 1") == [(2, 'A\nn, "n"'), (4, "Ann")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_fault_03_every_line_ending_is_read(project, run_core, end):
    core = run_core(
        project(files={"crm_1.csv": (HEADER + GOOD + GOOD.replace("1,", "2,", 1)).replace("\n", end)})
    )
    assert rows_of(core) == [(2, "1"), (3, "2")]


def test_fault_03_header_with_an_open_quote_is_refused(project, run_core):
    core = run_core(project(files={"crm_1.csv": 'id,"first\n' + GOOD}))
    assert core.file("crm_1.csv") == (
        "refused",
        "has a header line with an open quote; mend it or set `quote` of the source",
    )


# 4 bad lines are refused alone, once, by number, and never quoted


def test_fault_04_ragged_undecodable_and_long_lines_are_refused_by_number(project, run_core):
    lines = [HEADER, GOOD, "2,too,few\n", "3,one,too,many@x.com,n,2026-01-01,secret-7731\n", "\n",
             "4,bad,\udcff,b@x.com,n,2026-01-01\n", GOOD.replace("1,", "5,", 1), "6," + "x" * 200 + ",,,,\n"]  # fmt: skip
    content = "".join(lines).encode("utf-8", "surrogateescape")
    rule = project.crm(format={"type": "csv", "max_line_bytes": 150})
    core = run_core(project({"crm": rule}, {"crm_1.csv": content}))
    assert rows_of(core) == [(2, "1"), (7, "5")]
    assert core.reasons() == {
        3: ["3 fields instead of 6"],
        4: ["7 fields instead of 6"],
        6: ["bytes that do not fit the declared encoding"],
        8: ["line longer than 150 characters"],
    }
    assert unbalanced(core.con) == []
    assert core.one("select row_count from raw.files") == 6, "a blank line is not a row"


def test_fault_04_a_line_is_refused_once_also_inside_a_quoted_record(project, run_core):
    text = HEADER + '1,"open\nmiddle\n2,Bob,Ray,b@x.com,n,2026-01-01\n'
    core = run_core(project(files={"crm_1.csv": text}))
    assert core.rows("select line, count(*) from raw.rejects group by 1 order by 1") == [(2, 1), (3, 1)]
    assert rows_of(core) == [(4, "2")]


def test_fault_04_reasons_logs_and_summary_never_quote_the_line(project, run_core, caplog, capfd):
    secret = "zelda.canary@mail.com"
    csv_lines = f'{HEADER}{secret},x\n"{secret}"{secret},,,,,\n"{secret}\n{GOOD}'
    web = f'{{"id": "{secret}"\n["{secret}"]\n{{"id":1,"id":"{secret}"}}\n{{"id": 1, "ts": "{secret}"}}\n'
    with caplog.at_level(logging.DEBUG):
        core = run_core(
            project(
                {"crm": project.crm(), "web": project.web()}, {"crm_1.csv": csv_lines, "web_1.jsonl": web}
            )
        )
    spoken = [
        *core.values("select unnest(reasons) from records.quarantine"),
        caplog.text,
        *capfd.readouterr(),
    ]
    assert len(spoken) >= 7
    assert not [text for text in spoken if "canary" in text]
    assert not [text for text in core.values("select notes from records.validations") if "canary" in text]


# 5 a bad JSON line never becomes a row of NULLs


NO_OBJECTS = [
    '{"id": 1', "[1, 2]", '"text"', "null", "17", "{id: 1}", '{"id": 1}{"id": 2}', '{"id": "\\ud800"}', "\x00", '{"id": 01}'
]  # fmt: skip


def test_fault_05_what_is_not_an_object_is_refused(project, run_core):
    text = (
        '{"id": "1", "ts": "2026-01-01", "crm_id": "1"}\n'
        + "".join(line + "\n" for line in NO_OBJECTS)
        + "\n  \n"
    )
    core = run_core(project({"web": project.web()}, {"web_1.jsonl": text}))
    assert rows_of(core, "web") == [(1, "1")]
    assert core.reasons("web") == {line: ["not a JSON object"] for line in range(2, len(NO_OBJECTS) + 2)}
    assert unbalanced(core.con) == []


def test_fault_05_a_key_that_occurs_twice_is_refused(project, run_core):
    text = '{"id": "1", "ts": "2026-01-01"}\n{"id": "2", "ts": "2026-01-01", "id": "3"}\n'
    core = run_core(project({"web": project.web()}, {"web_1.jsonl": text}))
    assert core.reasons("web") == {2: ["a key occurs twice"]}


# 6 a bit that flipped on the way or on disk is noticed


def parquet_bytes(**columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="none", use_dictionary=False)
    return sink.getvalue().to_pybytes()


def parquet_crm(project, **changes):
    return {"crm": project.crm(files="crm_*.parquet", format={"type": "parquet"}, **changes)}


COLUMNS = {"id": ["1", "2"], "first": ["Annabel", "Bob"], "last": ["Lee", None], "email": [None, "b@x.com"],
           "note": ["a", "b"], "moment": ["2026-01-01", "2026-01-02"]}  # fmt: skip


def test_fault_06_a_bit_flip_after_the_scan_refuses_the_file_and_leaves_no_row(project, run_core):
    place = project(parquet_crm(project), {"crm_1.parquet": parquet_bytes(**COLUMNS)})
    config = load_config(place.rules)
    core = run_core(project())  # a warehouse to work in
    ledger.scan(core.con, config, place, AS_OF)
    path = place.inbox / "crm_1.parquet"
    content = bytearray(path.read_bytes())
    content[content.index(b"Annabel")] ^= 1
    path.write_bytes(content)
    from profile_pipeline.raw import intake

    intake.load_source(core.con, config, place, "crm")
    assert core.file("crm_1.parquet")[0] == "refused"
    assert core.file("crm_1.parquet")[1].startswith("changed while it was read")
    assert core.one("select count(*) from raw.crm") == 0


def test_fault_06_a_checksum_beside_the_file_is_verified(project, run_core):
    place = project(files={"crm_1.csv": HEADER + GOOD, "crm_1.csv.sha256": "0" * 64 + "  crm_1.csv\n"})
    core = run_core(place)
    assert (
        core.file("crm_1.csv")[1] == "does not match crm_1.csv.sha256: damaged on the way; deliver it again"
    )


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_fault_06_damaged_parquet_is_refused_with_one_line(project, run_core, damage):
    content = parquet_bytes(**COLUMNS)
    broken = {"cut": content[:-20], "noise": os.urandom(500), "empty": b""}[damage]
    core = run_core(project(parquet_crm(project), {"crm_1.parquet": broken}))
    state, reason = core.file("crm_1.parquet")
    assert state == "refused"
    assert reason.startswith("damaged, or not parquet (")
    assert "\n" not in reason


def test_fault_06_parquet_values_become_text_and_null_stays_null(project, run_core):
    columns = COLUMNS | {
        "id": [10**15, 7],
        "moment": [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)],
    }
    core = run_core(project(parquet_crm(project), {"crm_1.parquet": parquet_bytes(**columns)}))
    assert core.rows("select id, last from raw.crm order by _line") == [
        ("1000000000000000", "Lee"),
        ("7", None),
    ]
    assert core.values("select clock from records.current") == ["source", "source"]


# 7, 8 hostile values are data, all the way to the published tables


HOSTILE = [
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "'; drop table records.crm; --", '"><svg/onload=a>',
    "=HYPERLINK(\"http://x\",\"y\")", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1+1)", "{{7*7}}", "${jndi:ldap://x}", "%s%n",
    "../../etc/passwd", "$.a[*]", "\\x41",
]  # fmt: skip


def hostile_world(project, run_core):
    lines = [
        {
            "id": f"h{n}",
            "first": f"Name {chr(97 + n)}",
            "last": f"House {chr(110 - n)}",
            "email": None,
            "note": value,
            "moment": "2026-01-01",
        }
        for n, value in enumerate(HOSTILE)
    ]
    rule = project.crm(files="crm_*.jsonl", format={"type": "jsonl"})
    content = "".join(json.dumps(line) + "\n" for line in lines)
    place = project({"crm": rule}, {"crm_1.jsonl": content})
    return place, run_core(place, everything=True)


def test_fault_07_08_hostile_values_travel_unchanged_and_only_as_data(project, run_core, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        place, core = hostile_world(project, run_core)
    assert core.values("select note from raw.crm order by _line") == HOSTILE
    assert core.values("select note from records.current order by _line") == HOSTILE
    folder = place.published / "current"
    with duckdb.connect(str(folder / "profiles.duckdb"), read_only=True) as published:
        shown = {note for (note,) in published.sql("select note from profiles").fetchall()}
        names = {name for (name,) in published.sql("select table_name from duckdb_tables()").fetchall()}
        columns = {name for (name,) in published.sql("select column_name from duckdb_columns()").fetchall()}
    assert shown == set(HOSTILE)
    everywhere = " ".join([*names, *columns, caplog.text, *capfd.readouterr()])
    documents = [
        path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in {".md", ".json"}
    ]
    assert documents
    for value in HOSTILE:
        if len(value) > 4:
            assert value not in everywhere
            assert not [text for text in documents if value in text]


def test_fault_08_formulas_stay_as_they_are_in_parquet(project, run_core):
    place, _ = hostile_world(project, run_core)
    found = pq.read_table(place.published / "current" / "profiles.parquet")["note"].to_pylist()
    assert set(found) == set(HOSTILE)


# 9 hostile names of columns


NAMES = ['x"; drop table raw.files; --', "select", "a b", "é'", "it's", "a.b", "$.*", "*", "file_id", "batch", "deleted",
         "source_key", "a/b~c", "line", "row", "text", "keys", "name"]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_fault_09_hostile_column_names_are_data(project, run_core, kind):
    columns = ["id", *NAMES]
    values = {column: f"value {n}" for n, column in enumerate(columns)}
    if kind == "csv":
        quoted = ",".join('"' + column.replace('"', '""') + '"' for column in columns)
        content = f"{quoted}\n{','.join(values.values())}\n".encode()
    elif kind == "jsonl":
        content = json.dumps(values).encode()
    else:
        content = parquet_bytes(**{column: [value] for column, value in values.items()})
    rule = project.crm(
        files=f"crm_*.{kind}", format={"type": kind}, columns=columns, time=None, key="id", where="batch is not null",
        attributes={"note": 'concat("x""; drop table raw.files; --", batch, "source_key", deleted)'},
        identifiers={"crm_id": "file_id"},
    )  # fmt: skip
    core = run_core(project({"crm": rule}, {f"crm_1.{kind}": content}))
    assert core.file(f"crm_1.{kind}") == ("loaded", None)
    kept = core.con.execute("select * exclude (_file, _line, _nulls) from raw.crm").fetchone()
    assert kept == tuple(values.values())
    assert core.one("select row_count from raw.files") == 1
    expected = "".join(values[name] for name in (NAMES[0], "batch", "source_key", "deleted"))
    assert core.one("select note from records.current") == expected
    assert core.one("select value from records.identifiers") == values["file_id"].upper()


@pytest.mark.parametrize("bad", ['x"; drop table', "Crm", "1crm", "a-b", "", "a" * 64, "crm;--"])
def test_fault_09_our_own_names_are_refused_by_the_rules(project, bad):
    for rules in (
        {"sources": {bad: project.crm()}},
        {"attributes": {bad: {"type": "text"}}},
        {"namespaces": {bad: {}}},
    ):
        with pytest.raises(RuleError):
            load_config(project(**rules).rules)


@pytest.mark.parametrize("taken", ["_file", "_LINE", "_nulls"])
def test_fault_09_a_column_named_like_one_of_ours_is_refused(project, run_core, taken):
    rule = project.crm(columns=[*project.crm()["columns"], taken])
    with pytest.raises(PipelineError, match=r"columns.*another name"):
        run_core(project({"crm": rule}, {"crm_1.csv": HEADER + GOOD}))


# 13 encodings


TEXT = "1,Zoë,Müller,z@mail.com,naïve €,2026-01-01\n"


@pytest.mark.parametrize(
    "encoding",
    [
        "utf-8",
        "UTF8",
        "utf-8-sig",
        "utf-16",
        "utf-16-le",
        "utf-32",
        "windows-1252",
        "iso-8859-15",
        "utf-7",
        "mac-roman",
    ],
)
def test_fault_13_declared_encodings_are_read(project, run_core, encoding):
    rule = project.crm(format={"type": "csv", "encoding": encoding})
    core = run_core(project({"crm": rule}, {"crm_1.csv.gz": gzip.compress((HEADER + TEXT).encode(encoding))}))
    assert core.rows("select first, last, note from raw.crm") == [("Zoë", "Müller", "naïve €")]
    assert rows_of(core) == [(2, "1")]


def test_fault_13_a_byte_order_mark_is_not_part_of_the_header(project, run_core):
    core = run_core(project(files={"crm_1.csv": b"\xef\xbb\xbf" + (HEADER + TEXT).encode()}))
    assert core.one("select first from raw.crm") == "Zoë"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_fault_13_wide_encodings_are_named_when_not_declared(project, run_core, encoding):
    core = run_core(project(files={"crm_1.csv": (HEADER + TEXT).encode(encoding)}))
    assert core.file("crm_1.csv") == (
        "refused",
        f"is {encoding.upper()}, not utf-8; set `encoding: {encoding}` for the source",
    )


def test_fault_13_latin1_delivered_as_utf8_refuses_the_lines_that_do_not_fit(project, run_core):
    core = run_core(
        project(files={"crm_1.csv": (HEADER + TEXT + GOOD.replace("1,", "2,", 1)).encode("cp1252")})
    )
    assert core.reasons() == {2: ["bytes that do not fit the declared encoding"]}
    assert rows_of(core) == [(3, "2")]


def test_fault_13_a_byte_windows_1252_does_not_define_refuses_its_line(project, run_core):
    rule = project.crm(format={"type": "csv", "encoding": "windows-1252"})
    content = HEADER.encode() + b"1,A\x81nn,Lee,a@x.com,n,2026-01-01\n" + GOOD.encode()
    core = run_core(project({"crm": rule}, {"crm_1.csv": content}))
    assert core.reasons() == {2: ["bytes that do not fit the declared encoding"]}


def test_fault_13_a_header_in_another_encoding_is_refused(project, run_core):
    rule = project.crm(columns=["id", "prénom"], attributes={}, identifiers={}, time=None)
    core = run_core(project({"crm": rule}, {"crm_1.csv": "id,prénom\n1,x\n".encode("latin-1")}))
    assert core.file("crm_1.csv")[1] == "has a header that is not utf-8; set the `encoding` of the source"


@pytest.mark.parametrize("encoding", ["latin-99", "hex", "rot13", "base64"])
def test_fault_13_an_encoding_that_is_none_is_refused(project, run_core, encoding):
    rule = project.crm(format={"type": "csv", "encoding": encoding})
    core = run_core(project({"crm": rule}, {"crm_1.csv": HEADER + GOOD}))
    assert core.file("crm_1.csv")[1] == f"encoding {encoding} is unknown; use a name such as windows-1252"


def test_fault_13_cut_utf16_is_refused(project, run_core):
    rule = project.crm(format={"type": "csv", "encoding": "utf-16"})
    core = run_core(project({"crm": rule}, {"crm_1.csv": (HEADER + TEXT).encode("utf-16")[:-3]}))
    assert core.file("crm_1.csv")[1].startswith("damaged, or not csv (UnicodeDecodeError)")


def test_fault_13_mojibake_is_kept_as_delivered(project, run_core):
    core = run_core(project(files={"crm_1.csv": HEADER + TEXT.replace("Zoë", "ZoÃ«")}))
    assert core.one("select first from raw.crm") == "ZoÃ«"


# 14 long fields


def test_fault_14_a_field_of_three_megabytes_refuses_its_line_only(project, run_core):
    long = "2,Bob,Ray,b@x.com," + "x" * 3_000_000 + ",2026-01-01\n"
    core = run_core(project(files={"crm_1.csv": HEADER + GOOD + long + GOOD.replace("1,", "3,", 1)}))
    assert core.reasons() == {3: ["line longer than 1,000,000 characters"]}
    assert rows_of(core) == [(2, "1"), (4, "3")]
    assert core.one("select length(content) from raw.rejects") == 1000


def test_fault_14_a_long_line_inside_a_quoted_record_is_not_cut_in_silence(project, run_core):
    rule = project.crm(format={"type": "csv", "max_line_bytes": 100})
    text = HEADER + '1,"A\nnn",' + "l" * 60 + "," + "e" * 60 + ",n,2026-01-01\n" + GOOD.replace("1,", "2,", 1)
    core = run_core(project({"crm": rule}, {"crm_1.csv": text}))
    assert rows_of(core) == [(4, "2")]
    assert core.reasons()[2] == ["line longer than 100 characters"]


def test_fault_14_the_limit_can_be_raised(project, run_core):
    rule = project.crm(format={"type": "csv", "max_line_bytes": 5_000_000})
    long = "2,Bob,Ray,b@x.com," + "x" * 3_000_000 + ",2026-01-01\n"
    core = run_core(project({"crm": rule}, {"crm_1.csv": HEADER + long}))
    assert core.one("select length(note) from raw.crm") == 3_000_000


def test_fault_14_long_json_lines_too(project, run_core):
    rule = project.web(format={"type": "jsonl", "max_line_bytes": 100})
    text = (
        json.dumps({"id": "1", "ts": "2026-01-01", "kind": "x" * 500}) + '\n{"id": "2", "ts": "2026-01-01"}\n'
    )
    core = run_core(project({"web": rule}, {"web_1.jsonl": text}))
    assert core.reasons("web") == {1: ["line longer than 100 characters"]}
    assert rows_of(core, "web") == [(2, "2")]


# 15 duplicate headers


@pytest.mark.parametrize("again", ["email", "EMAIL", "Email"])
def test_fault_15_a_header_named_twice_is_refused(project, run_core, again):
    core = run_core(
        project(files={"crm_1.csv": HEADER.replace("\n", f",{again}\n") + GOOD.replace("\n", ",x\n")})
    )
    state, reason = core.file("crm_1.csv")
    assert state == "refused"
    assert reason.startswith("has columns named twice: ")
    assert again in reason


def test_fault_15_keys_that_differ_by_case_are_refused_in_json_and_parquet(project, run_core):
    text = '{"id": "1", "ts": "2026-01-01"}\n{"ID": "2", "id": "3", "ts": "2026-01-01"}\n'
    core = run_core(project({"web": project.web()}, {"web_1.jsonl": text}))
    assert core.file("web_1.jsonl")[1].startswith("has columns named twice: ID, id")
    assert core.one("select count(*) from raw.web") == 0
    columns = COLUMNS | {"Email": ["x", "y"]}
    core = run_core(project(parquet_crm(project), {"crm_1.parquet": parquet_bytes(**columns)}))
    assert core.file("crm_1.parquet")[0] == "refused"


def test_fault_15_a_file_without_its_header_line_is_not_quoted(project, run_core):
    core = run_core(project(files={"crm_1.csv": "7,London,London,secret@mail.com,n,2026-01-01\n"}))
    state, reason = core.file("crm_1.csv")
    assert state == "refused"
    assert "London" not in reason
    assert "secret" not in reason


# 16 characters nobody sees


INVISIBLE = [
    "\x00", "\x07\x1b", "\x7f", "\x9b", "\u202e\u2066\u200f", "\u200b\ufeff\u2060", "\u00ad", "\U000e0041", "\u200d", "\u061c"
]  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_fault_16_invisible_characters_stay_in_raw_and_nowhere_else(project, run_core, kind):
    lines = [
        {"id": f"A{hidden}{n}", "first": f"An{hidden}n", "last": "Lee", "email": f"ann{hidden}@mail.com",
         "note": f"se{hidden}en", "moment": "2026-01-01"}
        for n, hidden in enumerate(INVISIBLE)
    ]  # fmt: skip
    texts = [json.dumps(line) if kind == "jsonl" else ",".join(line.values()) for line in lines]
    content = (HEADER if kind == "csv" else "") + "\n".join(texts)
    core = run_core(
        project({"crm": project.crm(files="crm_*", format={"type": kind})}, {f"crm_1.{kind}": content})
    )
    assert core.values("select note from raw.crm order by _line") == [line["note"] for line in lines]
    shown = core.rows("select source_key, given_name, email, note from records.current order by _line")
    assert shown == [(f"A{n}", "ann", "ann@mail.com", "seen") for n in range(len(INVISIBLE))]
    keys = core.values("select value from records.identifiers where namespace = 'crm_id'")
    assert sorted(keys) == [f"A{n}" for n in range(len(INVISIBLE))]


def test_fault_16_every_kind_of_space_is_one_space(project, run_core):
    spaces = ["\u00a0", "\u2003", "\u3000", "\t", " \u2009 ", "\u2028", "\x85"]
    lines = [{"id": f"A{n}{space}", "note": f"{space}a{space}b"} for n, space in enumerate(spaces)]
    rule = project.crm(
        files="crm_*", format={"type": "jsonl"}, optional_columns=["first", "last", "email", "moment"]
    )
    core = run_core(project({"crm": rule}, {"crm_1.jsonl": "\n".join(map(json.dumps, lines))}))
    expected = [("a b", f"A{n}") for n in range(len(spaces))]
    assert core.rows("select note, source_key from records.current order by _line") == expected


def test_fault_16_confusables_are_not_folded(project, run_core):
    """Cyrillic letters are transliterated as the letters they are; they never become the look-alike."""
    cyrillic = "\u0420\u0430ul"  # ER and A, which look like P and a
    text = (
        HEADER + f"1,{cyrillic},Lee,p\u0430ul@mail.com,n,2026-01-01\n2,Paul,Lee,paul@mail.com,n,2026-01-01\n"
    )
    core = run_core(project(files={"crm_1.csv": text}))
    assert core.values("select given_name from records.current order by source_key") == ["raul", "paul"]
    assert len(set(core.values("select email from records.current"))) == 2


# 17 paths


def test_fault_17_a_link_that_leads_outside_is_refused(project, run_core, tmp_path):
    place = project()
    outside = tmp_path / "secret.csv"
    outside.write_text(HEADER + GOOD)
    place.inbox.mkdir(parents=True)
    (place.inbox / "crm_1.csv").symlink_to(outside)
    core = run_core(place)
    assert core.file("crm_1.csv") == (
        "refused",
        "leads outside the delivery folders; deliver a copy, not a link",
    )
    assert rows_of(core) == []


@pytest.mark.parametrize("pattern", ["../*.csv", "/etc/*", "../../*"])
def test_fault_17_a_pattern_only_ever_matches_names_inside(project, run_core, pattern, tmp_path):
    (tmp_path / "outside.csv").write_text(HEADER + GOOD)
    place = project({"crm": project.crm(files=pattern)}, {"crm_1.csv": HEADER + GOOD})
    try:
        core = run_core(place)
    except RuleError:
        return
    assert core.rows("select name from raw.files") == []


def test_fault_17_a_linked_folder_is_not_entered_and_hidden_files_are_not_read(project, run_core, tmp_path):
    place = project(
        files={".crm_1.csv": HEADER + GOOD, ".git/crm_2.csv": HEADER + GOOD, "crm_3.csv.part": HEADER + GOOD}
    )
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "crm_9.csv").write_text(HEADER + GOOD)
    (place.inbox / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    core = run_core(place)
    assert core.values("select state from raw.files where state = 'loaded'") == []


# 18 bombs


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstd), ("zstd", zstd)])
def test_fault_18_a_compressed_file_is_read(project, run_core, suffix, pack):
    core = run_core(project(files={f"crm_1.csv.{suffix}": pack((HEADER + GOOD).encode())}))
    assert rows_of(core) == [(2, "1")]


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("zst", zstd)])
@pytest.mark.parametrize("shape", ["one line", "many lines"])
def test_fault_18_a_bomb_is_refused_at_the_ratio(project, run_core, suffix, pack, shape):
    filler = b"x" * 5_000_000 if shape == "one line" else GOOD.encode() * 100_000
    core = run_core(project(files={f"crm_1.csv.{suffix}": pack(HEADER.encode() + filler)}))
    state, reason = core.file(f"crm_1.csv.{suffix}")
    assert state == "refused"
    assert reason.startswith("decompresses to more than ")
    assert "max_ratio" in reason
    assert rows_of(core) == []


def test_fault_18_a_bomb_is_refused_at_the_size(project, run_core):
    rule = project.crm(format={"type": "csv", "max_decompressed_bytes": 1000})
    core = run_core(project({"crm": rule}, {"crm_1.csv.gz": gzip.compress((HEADER + GOOD * 100).encode())}))
    assert core.file("crm_1.csv.gz")[1].startswith("decompresses to more than 1,000 bytes")


@pytest.mark.parametrize(
    ("suffix", "pack", "damage"),
    [("gz", gzip.compress, "cut"), ("gz", gzip.compress, "flip"), ("gz", gzip.compress, "not compressed"), ("zst", zstd, "cut"),
     ("zst", zstd, "not compressed")],
)  # fmt: skip
def test_fault_18_damaged_compression_is_refused_with_one_line(project, run_core, suffix, pack, damage):
    plain = HEADER.encode() + b"".join(GOOD.replace("1,", f"{n},", 1).encode() for n in range(2000))
    content = bytearray(pack(plain))
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[len(content) // 2] ^= 0xFF
    else:
        content = bytearray(plain)
    core = run_core(project(files={f"crm_1.csv.{suffix}": bytes(content)}))
    assert core.file(f"crm_1.csv.{suffix}") == (
        "refused",
        "is damaged: it cannot be decompressed; deliver it again",
    )
    assert rows_of(core) == []


# 19 YAML


@pytest.mark.parametrize(
    "text",
    [
        "attributes: &a {x: {type: text}}\nsources: *a\n",
        "attributes: !!python/object/apply:os.system ['true']\n",
        "attributes: {x: {type: text}}\nattributes: {y: {type: text}}\n",
        "attributes: [\n",
        "#" * 1_000_001,
    ],
)
def test_fault_19_hostile_yaml_is_refused_with_one_line(project, text):
    place = project()
    (place.rules / "sources.yaml").write_text(text)
    with pytest.raises(RuleError) as caught:
        load_config(place.rules)
    assert all(line.startswith("sources.yaml") for line in str(caught.value).splitlines())


# 20 deep JSON


@pytest.mark.parametrize("depth", [129, 20_000])
def test_fault_20_deep_json_refuses_its_line(project, run_core, depth):
    deep = '{"id": "2", "ts": "2026-01-01", "kind": ' + "[" * (depth - 1) + "]" * (depth - 1) + "}"
    text = '{"id": "1", "ts": "2026-01-01", "kind": "' + "[" * 500 + '"}\n' + deep + "\n"
    core = run_core(project({"web": project.web()}, {"web_1.jsonl": text}))
    assert rows_of(core, "web") == [(1, "1")], "brackets inside a text are no nesting"
    assert core.reasons("web") == {2: ["nested deeper than 128 levels"]}


def test_fault_20_many_shallow_brackets_are_fine():
    line = json.dumps({"a": [[1]] * 500, "b": 'x"]}[' * 200})
    assert json_lines.depth(line) == 3


# 21 numbers that are names


def test_fault_21_keys_that_look_like_numbers_stay_text(project, run_core):
    names = [
        "007",
        "1e5",
        "00000000000000000000012345678901234567890",
        "+44",
        "0x1F",
        "1_000",
        "Infinity",
        "true",
    ]
    core = run_core(
        project(files={"crm_1.csv": HEADER + "".join(GOOD.replace("1,", f"{n},", 1) for n in names)})
    )
    assert core.values("select id from raw.crm order by _line") == names
    assert core.values("select source_key from records.current order by _line") == names


def test_fault_21_large_json_integers_keep_every_digit(project, run_core):
    text = (
        '{"id": 12345678901234567890123, "ts": "2026-01-01"}\n{"id": 9007199254740993, "ts": "2026-01-01"}\n'
    )
    core = run_core(project({"web": project.web()}, {"web_1.jsonl": text}))
    assert rows_of(core, "web") == [(1, "12345678901234567890123"), (2, "9007199254740993")]


# 22 times


def times(project, run_core, texts, **clock):
    rule = project.crm(time={"value": "moment", **clock})
    lines = "".join(f"{n},A,B,,n,{text}\n" for n, text in enumerate(texts))
    core = run_core(project({"crm": rule}, {"crm_1.csv": HEADER + lines}))
    found = core.rows("select observed_at, clock from records.crm order by _line")
    return [
        moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if clock == "source" else clock
        for moment, clock in found
    ]


def test_fault_22_times_with_and_without_offset(project, run_core):
    texts = ["2026-01-05T10:00:00Z", "2026-01-05 10:00:00+02:00", "2026-01-05T10:00+0530", "2026-01-05 10:00:00.123456 -08",
             "2026-01-05 10:00:00", "2026-07-05 10:00", "2026-01-05"]  # fmt: skip
    assert times(project, run_core, texts, zone="Europe/Berlin") == [
        "2026-01-05 10:00", "2026-01-05 08:00", "2026-01-05 04:30", "2026-01-05 18:00",
        "2026-01-05 09:00", "clipped", "2026-01-04 23:00",
    ]  # fmt: skip


def test_fault_22_a_time_in_the_gap_moves_forward_and_an_ambiguous_one_is_standard_time(project, run_core):
    texts = ["2026-03-29 01:30:00", "2025-10-26 01:30:00", "2026-03-29 00:59:00", "2026-03-29 02:00:00"]
    assert times(project, run_core, texts, zone="Europe/London") == [
        "2026-03-29 01:30", "2025-10-26 01:30", "2026-03-29 00:59", "2026-03-29 01:00",
    ]  # fmt: skip


NO_TIMES = [
    "9999-12-31 00:00:00", "0001-01-01", "1899-12-31", "2026-02-30", "2026-13-01", "epoch", "infinity", "-2026-01-01", "now",
    "today", "2026-01-01 (BC)", "2026-01-05 10:00:00 America/New_York", "294247-01-10 04:00:54", "290309-12-22", "26-01-05",
    "05/01/2026", "x", "2026-01-05T25:00:00", "2026-01-05T10:00:00+99:00",
]  # fmt: skip


def test_fault_22_what_is_no_declared_time_is_not_read(project, run_core):
    assert times(project, run_core, NO_TIMES) == ["ingestion"] * len(NO_TIMES)


def test_fault_22_an_unreadable_time_is_reported(project, run_core):
    core = run_core(project(files={"crm_1.csv": HEADER + "1,A,B,,n,someday\n2,A,B,,n,\n"}))
    check = staging.checks(core.con, "crm")["time_readable"]
    assert (check.severity, check.success, check.failed) == ("warning", False, 1)


def test_fault_22_epochs_and_numbers_beyond_every_calendar(project, run_core):
    texts = ["1767571200", "1e300", "-1e300", "nan", "inf", "99999999999999", "", "0"]
    assert times(project, run_core, texts, formats=["epoch_s"]) == [
        "2026-01-05 00:00",
        *["ingestion"] * 6,
        "1970-01-01 00:00",
    ]
    assert times(project, run_core, ["1767571200000"], formats=["epoch_ms"]) == ["2026-01-05 00:00"]


def test_fault_22_a_time_in_the_future_is_clipped_to_the_delivery(project, run_core):
    core = run_core(project(files={"crm_1.csv": HEADER + "1,A,B,,n,2031-01-01\n"}))
    assert core.one("select clock, observed_at = ingested_at from records.current") == ("clipped", True)


def births(project, run_core, texts, formats):
    rule = project.crm(dates=formats, attributes={"birth_date": "note"})
    lines = "".join(f'{n},A,B,,"{text}",2026-01-01\n' for n, text in enumerate(texts))
    core = run_core(project({"crm": rule}, {"crm_1.csv": HEADER + lines}))
    unreadable = core.one("select failed from records.validations where name = 'birth_date_readable'")
    return core.values("select birth_date from records.crm order by _line"), unreadable


def test_fault_22_dates_are_read_in_declared_formats_only(project, run_core):
    texts = [
        "03/04/1980",
        "31/02/1980",
        "1980-04-03",
        "03/04/80",
        "",
        "00/00/0000",
        "01/01/1900",
        "01/01/3025",
        "01/04/2026",
        "02/04/2026",
    ]
    found, unreadable = births(project, run_core, texts, ["%d/%m/%Y"])
    assert found == ["1980-04-03", None, None, None, None, None, None, None, "2026-04-01", None]
    assert unreadable == 6, (
        "31/02, ISO, a short year, 00/00 and two births in the future; a placeholder is missing only"
    )


def test_fault_22_two_digit_years_need_a_declared_format(project, run_core):
    assert births(project, run_core, ["03/04/80"], ["%d/%m/%Y"])[0] == [None]
    assert births(project, run_core, ["03/04/80", "03/04/01"], ["%d/%m/%y"])[0] == [
        "1980-04-03",
        "2001-04-03",
    ]


def test_fault_22_iso_dates_may_be_partial(project, run_core):
    found, unreadable = births(
        project, run_core, ["1980", "1980-04", "1980-04-03", "1980-13", "1980-04-03T10:00:00"], ["iso"]
    )
    assert found == ["1980", "1980-04", "1980-04-03", None, "1980-04-03"]
    assert unreadable == 1


# 23 nothing delivered


def test_fault_23_an_empty_file_and_a_header_only(project, run_core):
    core = run_core(project(files={"crm_1.csv": "", "crm_2.csv": HEADER, "crm_3.csv": "\n\n"}))
    assert core.file("crm_1.csv") == (
        "refused",
        "is empty: not even a header line; deliver it again",
    )
    assert core.file("crm_2.csv") == ("loaded", None)
    assert core.file("crm_3.csv")[0] == "refused"
    assert core.one("select notes from raw.files where state = 'loaded'") == ["no rows"]
    assert core.one("select count(*) from records.crm") == 0


def test_fault_23_no_file_at_all_and_no_row_selected(project, run_core):
    core = run_core(project())
    assert core.one("select count(*) from records.current") == 0
    core = run_core(project({"crm": project.crm(where="note = 'x'")}, {"crm_1.csv": HEADER + GOOD}))
    assert core.rows("select delivered, not_selected, current from metrics.row_fates") == [(1, 1, 0)]


def test_fault_23_an_empty_json_lines_file_is_loaded_with_a_note(project, run_core):
    core = run_core(project({"web": project.web()}, {"web_1.jsonl": "\n\n"}))
    assert core.one("select state, notes from raw.files") == ("loaded", ["no rows"])


def test_fault_23_too_few_rows_of_a_source_fail_until_there_are_enough(project, run_core):
    place = project({"crm": project.crm(guards={"min_rows": 2})})
    check = staging.checks(run_core(place).con, "crm")["min_rows"]
    assert (check.severity, check.success, check.failed) == ("critical", False, 2)
    assert check.notes == (
        "a project needs at least 2 usable rows of this source, there are 0; deliver more, or lower guards.min_rows of"
        " sources.crm"
    )
    project.deliver(place, "crm_1.csv", HEADER + GOOD)
    assert not staging.checks(run_core(place).con, "crm")["min_rows"].success
    project.deliver(place, "crm_2.csv", HEADER + GOOD.replace("1,", "2,", 1))
    assert staging.checks(run_core(place).con, "crm")["min_rows"].success


# 24 volume guard


def many(count, first=0):
    return HEADER + "".join(f"{n},A,B,,n,2026-01-01\n" for n in range(first, first + count))


def full_project(project, **changes):
    return project({"crm": project.crm(delivery="full", **changes)}, {"crm_1.csv": many(100)})


def test_fault_24_a_delivery_nine_tenths_smaller_fails_until_it_is_accepted(project, run_core):
    place = full_project(project)
    assert staging.checks(run_core(place).con, "crm")["volume"].success
    project.deliver(place, "crm_2.csv", many(9))
    core = run_core(place)
    check = staging.checks(core.con, "crm")["volume"]
    assert (check.severity, check.success, check.failed) == ("critical", False, 91)
    assert check.notes == (
        "batch 2: 9 rows after 100 in the delivery before (in inbox/crm_2.csv); a full delivery has at least 10% of the"
        " rows of the one before; `profile-pipeline batch revert 2` takes it back, `profile-pipeline run"
        " --accept-volume-change` lets it in and deletes what it lacks"
    )
    assert not staging.checks(run_core(place).con, "crm")["volume"].success, "running again accepts nothing"
    ledger.accept_volume(core.con)
    check = staging.checks(run_core(place).con, "crm")["volume"]
    assert (check.success, check.failed) == (True, 0)
    assert check.notes == "a smaller full delivery was accepted"
    assert core.one("select count(*) from records.current") == 9


def test_fault_24_other_rules_or_a_third_delivery_do_not_accept_it(project, run_core):
    place = full_project(project)
    run_core(place)
    project.deliver(place, "crm_2.csv", many(9))
    run_core(place)
    project.write_rules(place, {"crm": project.crm(delivery="full", country="DE")})
    assert not staging.checks(run_core(place).con, "crm")["volume"].success
    project.deliver(place, "crm_3.csv", many(9, 50))
    core = run_core(place)
    assert not staging.checks(core.con, "crm")["volume"].success
    ledger.accept_volume(core.con)
    project.write_rules(place, {"crm": project.crm(delivery="full", country="FR")})
    assert staging.checks(run_core(place).con, "crm")["volume"].success, "accepted stays accepted"


def test_fault_24_a_header_only_delivery_is_the_smallest(project, run_core):
    place = full_project(project)
    run_core(place)
    project.deliver(place, "crm_2.csv", HEADER)
    core = run_core(place)
    assert not staging.checks(core.con, "crm")["volume"].success
    ledger.accept_volume(core.con)
    assert run_core(place).one("select count(*) from records.current") == 0


def test_fault_24_a_delivery_that_is_a_little_smaller_or_of_changes_is_fine(project, run_core):
    place = full_project(project)
    run_core(place)
    project.deliver(place, "crm_2.csv", many(10))
    assert staging.checks(run_core(place).con, "crm")["volume"].success
    place = project({"crm": project.crm()}, {"crm_1.csv": many(100)})
    run_core(place)
    project.deliver(place, "crm_2.csv", many(1))
    assert "volume" not in staging.checks(run_core(place).con, "crm")


# 25 schema drift


def test_fault_25_a_removed_column_refuses_the_file(project, run_core):
    core = run_core(project(files={"crm_1.csv": HEADER.replace("email,", "") + "1,Ann,Lee,n,2026-01-01\n"}))
    assert core.file("crm_1.csv") == (
        "refused",
        "lacks the columns email; deliver them or list them under optional_columns",
    )


def test_fault_25_an_optional_column_may_be_absent(project, run_core):
    rule = project.crm(optional_columns=["email"])
    core = run_core(
        project({"crm": rule}, {"crm_1.csv": HEADER.replace("email,", "") + "1,Ann,Lee,n,2026-01-01\n"})
    )
    assert core.one("select email, note from raw.crm") == (None, "n")


def test_fault_25_an_added_column_is_noted_and_ignored(project, run_core):
    text = HEADER.replace("first", "new \x1b thing,first") + GOOD.replace("Ann", "x,Ann")
    core = run_core(project(files={"crm_1.csv": text}))
    assert core.one("select notes from raw.files") == ["new column new ? thing, not in the contract: ignored"]
    assert core.one("select first from raw.crm") == "Ann"


def test_fault_25_a_thousand_added_keys_are_not_all_listed(project, run_core):
    line = {"id": "1", "ts": "2026-01-01", **{f"k{n}": n for n in range(1000)}}
    core = run_core(project({"web": project.web()}, {"web_1.jsonl": json.dumps(line)}))
    notes = core.one("select notes from raw.files")
    assert len(notes) == 11
    assert notes[-1] == "and 990 more"


def test_fault_25_columns_in_another_order_are_the_same_columns(project, run_core):
    core = run_core(
        project(files={"crm_1.csv": "moment,note,email,last,first,id\n2026-01-01,n,a@x.com,Lee,Ann,1\n"})
    )
    assert core.one("select id, first, moment from raw.crm") == ("1", "Ann", "2026-01-01")


def test_fault_25_another_type_warns_or_quarantines(project, run_core):
    attributes = {"points": {"type": "integer"}}
    rule = project.crm(attributes={"points": "note"})
    suite = {
        "records.crm": [
            {
                "type": "expect_column_values_to_not_be_null",
                "kwargs": {"column": "points"},
                "severity": "error",
            }
        ]
    }
    text = HEADER + "1,A,B,,12,2026-01-01\n2,A,B,,many,2026-01-01\n"
    core = run_core(project({"crm": rule}, {"crm_1.csv": text}, attributes=attributes))
    check = staging.checks(core.con, "crm")["points_readable"]
    assert (check.severity, check.success, check.failed) == ("warning", False, 1)
    assert core.reasons() == {}
    core = run_core(project({"crm": rule}, {"crm_1.csv": text}, attributes=attributes, suites=suite), ge=True)
    assert core.reasons() == {3: ["column_values_to_not_be_null_points"]}


# 26 clocks


def test_fault_26_a_clock_moved_back_does_not_reorder_deliveries(project, run_core):
    rule = project.crm(time=None)
    place = project({"crm": rule}, {"crm_1.csv": HEADER + GOOD})
    run_core(place, AS_OF)
    project.deliver(place, "crm_2.csv", HEADER + GOOD.replace("hello", "later"))
    core = run_core(place, AS_OF - timedelta(days=30))
    assert core.one("select note from records.current") == "later"
    assert ledger.as_of(core.con) == AS_OF
    assert core.values("select as_of from raw.batches order by batch") == [AS_OF, AS_OF]


def test_fault_26_the_time_of_ingestion_is_that_of_the_run(project, run_core):
    core = run_core(
        project({"crm": project.crm(time=None)}, {"crm_1.csv": HEADER + GOOD}),
        datetime(2001, 2, 3, tzinfo=UTC),
    )
    assert core.one("select observed_at from records.current").date() == date(2001, 2, 3)


def test_fault_26_equal_times_everywhere_have_one_winner(project, run_core):
    versions = [f"1,Ann,Lee,,note {n},2026-01-01\n" for n in range(6)]
    winners = set()
    for order in (versions, versions[::-1], versions[3:] + versions[:3]):
        core = run_core(
            project(
                files={"crm_1.csv": HEADER + "".join(order[:2]), "crm_2.csv": HEADER + "".join(order[2:])}
            )
        )
        winners.add(core.one("select note from records.current"))
    assert len(winners) == 1


# 27 the same file again, and another file under the same name


def test_fault_27_the_same_content_under_another_name_is_a_duplicate(project, run_core):
    core = run_core(project(files={"crm_1.csv": HEADER + GOOD, "crm_2.csv": HEADER + GOOD}))
    assert core.file("crm_2.csv") == ("duplicate", "same content as inbox/crm_1.csv")
    assert len(rows_of(core)) == 1


def test_fault_27_other_content_under_the_same_name_is_a_conflict(project, run_core):
    place = project(files={"crm_1.csv": HEADER + GOOD})
    run_core(place)
    project.deliver(place, "crm_1.csv", HEADER + GOOD.replace("Ann", "Eve"))
    core = run_core(place)
    assert core.scan.conflicts == [
        "inbox/crm_1.csv: same name as an earlier delivery but other content; deliver it under a new name"
    ]
    assert core.values("select first from raw.crm") == ["Ann"]


def test_fault_27_a_touched_file_is_the_same_file(project, run_core):
    place = project(files={"crm_1.csv": HEADER + GOOD})
    run_core(place)
    os.utime(place.inbox / "crm_1.csv", (1, 1))
    core = run_core(place)
    assert (core.scan.new, core.scan.conflicts) == (0, [])


def test_fault_27_a_file_that_vanished_before_it_was_read_is_refused(project, run_core):
    place = project(files={"crm_1.csv": HEADER + GOOD})
    core = run_core(project())
    config = load_config(place.rules)
    ledger.scan(core.con, config, place, AS_OF)
    Path(place.inbox / "crm_1.csv").unlink()
    from profile_pipeline.raw import intake

    intake.load_source(core.con, config, place, "crm")
    assert core.file("crm_1.csv") == ("refused", "is no longer there; deliver it again")
