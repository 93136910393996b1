"""JSON lines: one object a line. A line that is not an object is rejected alone; nothing becomes a row of NULLs."""

import io
import re
from collections.abc import Iterator

from profile_pipeline.raw.lines import Lines, Rows
from profile_pipeline.raw.streams import is_text
from profile_pipeline.raw.target import Target, agree_columns
from profile_pipeline.warehouse import literal, quote, rows, scalar

NEWLINE = "\n"
MAX_DEPTH = 128
"""Levels of nesting; readers of JSON that recurse, such as Python's, stay far from their limit."""
STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')


def load(target: Target, text: io.TextIOWrapper) -> list[str]:
    """Append the objects of a file to its raw table; notes for the ledger."""
    con = target.con
    con.execute("create or replace temp table json_keys (key text)")
    for chunk in read_lines(text, target.source.format.max_line_bytes):
        target.reject(chunk.rejects)
        _insert(target, chunk)
    seen = [key for (key,) in rows(con, "select distinct key from json_keys order by 1")]
    con.execute("drop table json_keys")
    any_rows = scalar(con, f"select count(*) from raw.{target.name} where _file = ?", [target.file_id])
    return agree_columns(seen, target.source) if any_rows else []


def read_lines(text: io.TextIOWrapper, limit: int) -> Iterator[Rows[str]]:
    """Lines in chunks; over-long, undecodable and too deeply nested ones are rejected, blank ones skipped."""
    feed = Lines(text, limit, NEWLINE)
    for blocks in feed.chunks():
        result: Rows[str] = Rows()
        for block in blocks:
            for number, line in enumerate(block, feed.number + 1):
                problem = _problem(line, limit)
                if problem is None:
                    result.keep(number, line)
                elif problem:
                    result.reject(number, problem, line, limit)
            feed.number += len(block)
        yield result


def _problem(line: str, limit: int) -> str | None:
    """Why a line is refused; None when it may be an object, empty text when it is blank."""
    if len(line) > limit:
        return f"line longer than {limit:,} characters"
    if not is_text(line):
        return "bytes that do not fit the declared encoding"
    if line.count("{") + line.count("[") > MAX_DEPTH and depth(line) > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH} levels"
    return "" if line.isspace() else None


def depth(line: str) -> int:
    """Levels of nesting in a line of JSON."""
    level = deepest = 0
    for character in STRINGS.sub("", line):
        if character in "{[":
            level += 1
            deepest = max(deepest, level)
        elif character in "}]":
            level -= 1
    return deepest


def _insert(target: Target, chunk: Rows[str]) -> None:
    import pyarrow as pa

    con, columns = target.con, target.source.columns
    lines = pa.array(chunk.lines, pa.int64())
    con.register("chunk", pa.table({"line": lines, "text": pa.array(chunk.rows, pa.string())}))
    con.execute(
        "create or replace temp table parsed as select line, text, case when json_type(try_cast(text as json))"
        " = 'OBJECT' then json_keys(text) end as keys from chunk"
    )
    con.unregister("chunk")
    # objects of a feed have few shapes: what depends on the keys alone is judged once a shape
    con.execute(
        "create or replace temp table shapes as select keys, case when keys is null then 'not a JSON object'"
        " when len(list_distinct(keys)) < len(keys) then 'a key occurs twice' end as problem"
        " from (select distinct keys from parsed)"
    )
    con.execute("insert into json_keys select distinct unnest(keys) from shapes where problem is null")
    con.execute(
        f"insert into raw.rejects select {target.file_id}, line, problem, rtrim(text, chr(13) || chr(10))"
        " from parsed join shapes on shapes.keys is not distinct from parsed.keys where problem is not null"
    )
    con.execute(
        f"""insert into raw.{target.name} (_file, _line, _nulls{"".join(", " + quote(c) for c in columns)})
        select {target.file_id}, line, {_nulls(target)}{"".join(f", found[{i + 1}]" for i in range(len(columns)))} from (
            select line, json_extract_string(text, {_pointers(columns)}) as found, {_kinds(target)} as kinds
            from parsed where keys is not null
                and keys not in (select keys from shapes where problem is not null and keys is not null))"""
    )
    con.execute("drop table parsed")
    con.execute("drop table shapes")


def _pointers(columns: list[str]) -> str:
    """JSON pointers (RFC 6901) of the columns: unlike paths they have no wildcards and take any key."""
    escaped = (column.replace("~", "~0").replace("/", "~1") for column in columns)
    return "[" + ", ".join(literal("/" + column) for column in escaped) + "]"


def _kinds(target: Target) -> str:
    """The JSON types of the columns, where an explicit null says something else than an absent key."""
    if target.source.clear_value != "null":
        return "null"
    return f"json_type(text, {_pointers(target.source.columns)})"


def _nulls(target: Target) -> str:
    """The contract columns whose value is an explicit null."""
    if target.source.clear_value != "null":
        return "null"
    names = "[" + ", ".join(map(literal, target.source.columns)) + "]"
    return f"nullif(list_filter({names}, lambda name, i: kinds[i] = 'NULL'), [])"
