"""Delivered files against the sources that claim them: only names and header lines are read."""

import json
from pathlib import Path

import duckdb

from profile_pipeline.check.formats import encoding_problem
from profile_pipeline.check.problem import Problem
from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.config.sources import Source
from profile_pipeline.raw import delimited
from profile_pipeline.raw.ledger import Delivery, deliveries
from profile_pipeline.raw.streams import FileRefused, HashedFile, decompressed, text_lines
from profile_pipeline.raw.target import agree_columns
from profile_pipeline.warehouse import literal, rows


def file_problems(config: Config, project: Project) -> list[Problem]:
    """Strangers, missing deliveries, files of two sources, and headers that differ from the contract."""
    found, unclaimed = deliveries(config, project)
    claimed = {item.source for item in found}
    absent = [
        Problem("sources.yaml", f"sources.{name}.files", _no_files(source, unclaimed), "warning")
        for name, source in config.sources.items()
        if name not in claimed
    ]
    headers = [
        problem for item in found for problem in _header(item.name, item.path, config.sources[item.source])
    ]
    return [*_strangers(config, unclaimed), *absent, *_shared(config, _claims(found)), *headers]


def _no_files(source: Source, unclaimed: list[str]) -> str:
    fix = "mend the pattern" if unclaimed else "put its deliveries into data/sources"
    return f"no file matches `{source.files}`; {fix}"


def _strangers(config: Config, unclaimed: list[str]) -> list[Problem]:
    if not config.sources:
        return []
    fix = "`profile-pipeline sources infer` proposes a source for it"
    return [Problem(name, "", f"no source claims this file; {fix}", "warning") for name in unclaimed]


def _claims(found: list[Delivery]) -> dict[str, list[str]]:
    """Sources that claim a file, by the name of the file."""
    claims: dict[str, list[str]] = {}
    for item in found:
        claims.setdefault(item.name, []).append(item.source)
    return claims


def _shared(config: Config, claims: dict[str, list[str]]) -> list[Problem]:
    """Two sources may share a file only if each says which rows are its own."""
    return [
        Problem(
            name,
            "",
            f"claimed by {' and '.join(sources)}; give each a `where:` or its own `files:`",
            "warning",
        )
        for name, sources in claims.items()
        if len(sources) > 1 and not all(config.sources[source].where for source in sources)
    ]


def _header(name: str, path: Path, source: Source) -> list[Problem]:
    if encoding_problem(source.format.encoding):
        return []  # said once, at the source
    try:
        columns = _columns(path, source)
    except FileRefused as refusal:
        return [Problem(name, "", str(refusal), "warning")]
    except (UnicodeError, EOFError, OSError, duckdb.Error):
        message = f"damaged, or not {source.format.type}; deliver it again or mend `format:`"
        return [Problem(name, "", message, "warning")]
    if columns is None:
        return []
    try:
        notes = agree_columns(columns, source)
    except FileRefused as refusal:
        return [Problem(name, "", str(refusal))]
    return [Problem(name, "", note, "warning") for note in notes]


def _columns(path: Path, source: Source) -> list[str] | None:
    """Delivered columns; None for JSON lines, where a key may be absent from any line."""
    if source.format.type == "parquet":
        return [
            column for column, *_ in rows(duckdb.connect(), f"describe from read_parquet({literal(path)})")
        ]
    with HashedFile(path) as file:
        text = text_lines(decompressed(file, path, source.format), source.format, "")
        if source.format.type == "csv":
            return delimited.read_header(text, source)
        line = text.readline(source.format.max_line_bytes)
    if line.strip() and not _is_object(line):
        raise FileRefused("does not start with a JSON object; deliver one object a line")
    return None


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
