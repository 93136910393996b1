"""Adds a proposal to the rule files: text is inserted, so every line and comment that was there stays as it was."""

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from profile_pipeline.config.reading import parse_yaml
from profile_pipeline.errors import PipelineError
from profile_pipeline.infer.propose import Proposal


def add_to_project(proposal: Proposal, rules_folder: Path) -> list[str]:
    """Append what is missing to sources.yaml and identity.yaml; a line for each addition.

    Raises PipelineError, and writes nothing, when a source of that name exists or a file cannot be extended.
    """
    sources, identity = rules_folder / "sources.yaml", rules_folder / "identity.yaml"
    text, spaces_text = _read(sources), _read(identity)
    known = parse_yaml(text) or {}
    taken = [name for name in proposal.sources if name in (known.get("sources") or {})]
    if taken:
        raise PipelineError(
            f"sources.yaml: sources.{taken[0]} exists already; pass another name, or mend it there"
        )
    attributes = _missing(proposal.attributes, known.get("attributes"))
    spaces = _missing(proposal.namespaces, (parse_yaml(spaces_text) or {}).get("namespaces"))
    blocks = [line for lines in proposal.sources.values() for line in ("", *lines)]
    text = insert(insert(text, "attributes", list(attributes.values())), "sources", blocks)
    _check(text, known, {"attributes": attributes, "sources": proposal.sources})
    spaces_text = insert(spaces_text, "namespaces", list(spaces.values()))
    _write(identity, spaces_text)
    _write(sources, text)
    return [
        *(f"identity.yaml: namespaces.{name}" for name in spaces),
        *(f"sources.yaml: attributes.{name}" for name in attributes),
        *(f"sources.yaml: sources.{name}" for name in proposal.sources),
    ]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _missing(lines: dict[str, str], known: dict[str, Any] | None) -> dict[str, str]:
    return {name: line for name, line in lines.items() if name not in (known or {})}


def insert(text: str, key: str, lines: list[str]) -> str:
    """The text with lines added at the end of the block of a top-level key, which is made where it is missing."""
    if not lines:
        return text
    document = YAML(typ="rt", pure=True).load(text) if text.strip() else None
    at = text.splitlines()
    if not isinstance(document, CommentedMap) or key not in document:
        return "\n".join([*at, *([""] if at else []), f"{key}:", *_trimmed(lines), ""])
    line = document.lc.key(key)[0]
    inner = document[key]
    if not inner:
        at[line] = re.sub(rf"^{key}\s*:\s*(\{{\s*\}})?", f"{key}:", at[line])
        return "\n".join([*at[: line + 1], *_trimmed(lines), *at[line + 1 :], ""])
    if inner.fa.flow_style():
        raise PipelineError(f"`{key}:` is written in braces; write it as an indented block, one entry a line")
    indent = " " * inner.lc.key(next(iter(inner)))[1]
    moved = [re.sub(r"^ {2}", indent, each) for each in lines]
    end = _end_of_block(document, key, at)
    return "\n".join([*at[:end], *moved, *at[end:], ""])


def _trimmed(lines: list[str]) -> list[str]:
    return lines[1:] if not lines[0] else lines


def _end_of_block(document: CommentedMap, key: str, at: list[str]) -> int:
    """The line behind the block of a key; blank lines and comments at the margin belong to the next one."""
    later = [
        document.lc.key(other)[0] for other in document if document.lc.key(other)[0] > document.lc.key(key)[0]
    ]
    end = min(later, default=len(at))
    while end and (not at[end - 1].strip() or at[end - 1].startswith("#")):
        end -= 1
    return end


def _check(text: str, known: dict[str, Any], added: dict[str, dict[str, Any]]) -> None:
    """What was there is still there, and what was added is found: never write a file we cannot read back."""
    found = parse_yaml(text)
    for key, names in added.items():
        before, after = known.get(key) or {}, found.get(key) or {}
        if set(after) != {*before, *names} or any(after[name] != before[name] for name in before):
            raise PipelineError(
                f"sources.yaml: `{key}:` cannot be extended by machine; paste the proposal by hand"
            )


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
