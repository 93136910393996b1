"""The measured tables of the READMEs are those of the committed results, and their marks are whole."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import tables  # noqa: E402  (a script of the benchmarks folder, which is no package)


@pytest.fixture
def made() -> dict[str, str]:
    return tables.tables(tables.RESULTS)


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_are_those_of_the_results(page, made):
    text = page.read_text(encoding="utf-8")
    assert tables.filled(text, made) == text, "run `python benchmarks/tables.py`"


def test_every_table_has_a_place_and_every_mark_a_table(made):
    opened, closed = [], []
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        opened += re.findall(r"<!-- ([a-z-]+) -->", text)
        closed += re.findall(r"<!-- /([a-z-]+) -->", text)
    assert opened == closed
    assert set(opened) == set(made)


def test_results_name_no_folder_of_a_machine():
    for file in tables.RESULTS.glob("*.json"):
        text = file.read_text(encoding="utf-8")
        json.loads(text)
        assert not re.search(r"(?<![\w<])/(?:\w+/)+\w+|[A-Z]:\\\\", text), file.name


def test_a_table_is_replaced_between_its_marks_only():
    page = "before\n<!-- a -->\nold\n<!-- /a -->\nbetween\n<!-- b -->\nkept\n<!-- /b -->\n"
    assert (
        tables.filled(page, {"a": "new"})
        == "before\n<!-- a -->\n\nnew\n\n<!-- /a -->\nbetween\n<!-- b -->\nkept\n<!-- /b -->\n"
    )


def test_a_rival_that_failed_or_was_stopped_is_shown_as_such():
    done = {
        "status": "done",
        "evaluation": {"pairwise": {"f1": 0.99996}},
        "seconds": {"a": 1.0},
        "peak_rss_mb": 512,
    }
    found = {
        "sets": {
            "one": {
                "ours": done,
                "slow": {"status": "too slow", "reason": "stopped after 900 s", "peak_rss_mb": 2048},
                "broken": {"status": "failed", "reason": "ValueError", "peak_rss_mb": 10},
                "absent": {"status": "left out", "reason": "no example"},
            }
        }
    }
    scores = tables.rivals_table(found).splitlines()[-1]
    assert scores == "| one | **0.9999** | too slow | failed | - |"
    assert (
        tables.rivals_cost_table(found).splitlines()[-1]
        == "| one | 1 s, 0.5 GiB | too slow, 2.0 GiB | failed, 0.0 GiB | - |"
    )
