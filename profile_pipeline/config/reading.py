"""One rule file as plain data: YAML 1.2, small, no aliases, tags, directives or repeated keys.

Mistakes are PipelineErrors of one line that name the line of the file and the fix.
"""

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    ScalarEvent,
)

from profile_pipeline.errors import PipelineError

MAX_RULE_BYTES = 1_000_000
MAX_DEPTH = 40
PLAIN_WORDS = (
    (r"character '\\t'", "a tab; indent with spaces"),
    (r"character '(.)' that cannot start", "a value starts with `{0}`; put it in quotes"),
    (r'duplicate key "([^"]*)"', "`{0}` appears twice; keep one"),
    (r"mapping values are not allowed", "a second `: ` in one line; put the value in quotes"),
    (r"found unexpected end of stream", "a quote is opened and never closed; close it"),
    (
        r"could not find expected ':'",
        "a key without `:`, or a value that is not indented; write `key: value`",
    ),
    (r"expected ',' or '[\]}]'", "a [ or { is not closed; close it, and put values with : or , in quotes"),
    (r"expected the node content", "a [ or { is not closed; close it"),
    (r"expected <block end>", "does not line up with the lines above; mend the indentation"),
    (r"another document", "`---` starts a second document; keep one a file"),
)


def read_yaml(path: Path) -> Any:  # noqa: ANN401
    """The data of a YAML file, None when it is empty; raises PipelineError."""
    if path.stat().st_size > MAX_RULE_BYTES:
        raise PipelineError(
            f"larger than {MAX_RULE_BYTES:,} bytes; rule files are small, split data from rules"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise PipelineError("is not UTF-8; save it with that encoding") from None
    return parse_yaml(text)


def parse_yaml(text: str) -> Any:  # noqa: ANN401
    """The data of a YAML text; raises PipelineError."""
    depth = 0
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            _refuse(event, depth)
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        raise PipelineError(_plain(error)) from None
    except YAMLError as error:
        raise PipelineError(f"{str(error).splitlines()[0]}; remove it") from None


def _refuse(event: Event, depth: int) -> None:
    line = event.start_mark.line + 1 if event.start_mark else "?"
    if depth > MAX_DEPTH:
        raise PipelineError(f"line {line}: nested more than {MAX_DEPTH} deep; rule files are flat")
    if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
        raise PipelineError(f"line {line}: a % directive; remove it, rule files are YAML 1.2")
    if isinstance(event, ScalarEvent) and event.value == "<<" and not event.style:
        raise PipelineError(f"line {line}: `<<` is not allowed; write the value out")
    if getattr(event, "anchor", None):
        raise PipelineError(f"line {line}: anchors and aliases are not allowed; put the value in quotes")
    if tag := getattr(event, "tag", None):
        raise PipelineError(f"line {line}: `{tag}` is a tag; write a plain value, or put it in quotes")


def _plain(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    line = f"line {mark.line + 1}" if mark else "somewhere"
    for pattern, words in PLAIN_WORDS:
        if found := re.search(pattern, str(error.problem)):
            return f"{line}: {words.replace('{0}', found[found.lastindex or 0])}"
    return f"{line}: {error.problem}; mend the YAML"
