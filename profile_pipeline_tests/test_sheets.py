"""CSV files for spreadsheets: every text comes back, no cell is a formula, and mistakes name file and line."""

import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profile_pipeline.errors import PipelineError
from profile_pipeline.sheets import harmless, original, read_sheet, write_sheet

HOSTILE = st.text(
    alphabet=st.sampled_from("=+-@'\"\t\r\n,;|a\0\u202e\ufeff\uff1d é🙂"), max_size=8
) | st.text(max_size=20)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(HOSTILE, HOSTILE), max_size=6))
def test_every_text_comes_back_and_none_is_a_formula(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        assert write_sheet(path, ["a", "b"], rows) == len(rows)
        found = [(line.cells["a"], line.cells["b"]) for line in read_sheet(path, ["a", "b"])]
    assert found == [row for row in rows if any(row)]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum(a1)", "\t=1", "\r=1", "\n=1", "'=1", "\uff1d1"])
def test_formulas_are_harmless_and_come_back(text: str) -> None:
    assert harmless(text) == f"'{text}"
    assert original(harmless(text)) == text


@pytest.mark.parametrize("text", ["", "'quoted'", "a=b", "O'Brien", "x@y.org"])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text == original(text)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_a_spreadsheet_saves_is_read(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "x.csv"
    lines = [["A ", "b", "more"], ["1", '"two\r\nlines"', ""], ["", "", ""], ["3", "4"]]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(map(delimiter.join, lines)).encode())
    found = read_sheet(path, ["a", "b"])
    assert [(line.number, line.cells["a"], line.cells["b"]) for line in found] == [
        (2, "1", "two\r\nlines"),
        (5, "3", "4"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.csv: line 1: lacks the columns a, b"),
        (b"a\n1\n", r"x\.csv: line 1: lacks the columns b"),
        (b"a,b\n1,2\n1,2,3\n", r"x\.csv: line 3: has more cells than the header"),
        (b'a,b\n1,"2\n', r"x\.csv: line 2: cannot be read as CSV"),
        (b"a,b\n\xff,1\n", r"x\.csv: is not UTF-8"),
    ],
)
def test_a_mistake_names_file_line_and_fix(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=message):
        read_sheet(path, ["a", "b"])


def test_a_missing_file_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"x\.csv: cannot be read"):
        read_sheet(tmp_path / "x.csv", ["a"])


def test_a_file_is_readable_by_its_owner_only_and_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("older")
    write_sheet(path, ["a"], [[None], [1]])
    assert path.read_bytes() == b'a\r\n""\r\n1\r\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]
