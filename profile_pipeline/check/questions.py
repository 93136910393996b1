"""Questions that `sources infer` left open: comment lines in sources.yaml that a person has to answer.

Each stands above the key it is about, whose value is `?` until it is answered.
"""

import re
from pathlib import Path

from profile_pipeline.check.problem import Problem

MARK = "# QUESTION "
PATTERN = re.compile(r"^\s*# QUESTION (?P<key>[\w.]+): (?P<text>.+)$")


def open_questions(rules: Path) -> list[Problem]:
    """An error for each question line of a rules folder."""
    return [
        Problem(path.name, found["key"], f"{found['text']} Then delete line {number}, the question.")
        for path in sorted(rules.glob("*.yaml"))
        for number, line in enumerate(_lines(path), start=1)
        if (found := PATTERN.match(line))
    ]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
