"""Finds a published profile by any identifier or id, and tells where its values come from. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.config.sources import FileFormat, Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.profiles.reasons import Reason, reasons
from profile_pipeline.publish import DATABASE, current
from profile_pipeline.records import normalise
from profile_pipeline.warehouse import records_of, rows

Key = tuple[str, str]
"""A namespace and a normalised value."""


@dataclass(frozen=True)
class Found:
    """A profile, how it was found, the lineage of its winning values, and why each of them is shown, in words."""

    profile_id: str
    found_by: str
    values: dict[str, Any]
    identifiers: list[dict[str, Any]]
    lineage: list[dict[str, Any]]
    reasons: tuple[Reason, ...]


def lookup(config: Config, project: Project, text: str) -> list[Found]:
    """Profiles that carry an identifier or (retired) id, normalised as the pipeline does; at most 20."""
    live = current(project)
    if live is None:
        raise PipelineError("nothing is published yet; `profile-pipeline run` makes the first generation")
    with duckdb.connect(str(live.folder / DATABASE), read_only=True) as con:
        keys = identifier_keys(config, text.strip())
        return [_profile(con, profile_id, how) for profile_id, how in candidates(con, text.strip(), keys)]


def candidates(con: DuckDBPyConnection, text: str, keys: Sequence[Key]) -> list[tuple[str, str]]:
    """Profiles that a text leads to, itself or by its keys, and what each was found by; at most 20 share an identifier."""
    uuid = text.lower()
    by_id = rows(con, "select profile_id, 'profile id' from profiles where profile_id = ?", [uuid])
    retired = rows(con, "select successor, 'retired id' from profile_redirects where profile_id = ?", [uuid])
    record = "select profile_id, 'source record' from source_records where record_key = ?"
    by_record = rows(con, record, [text]) if ":" in text else []
    by_value = _carriers(con, keys)
    return list(dict(by_value + by_record + retired + by_id).items())


def _carriers(con: DuckDBPyConnection, keys: Sequence[Key]) -> list[tuple[str, str]]:
    """Profiles that carry one of the keys, and its first namespace; at most 20."""
    spaces: dict[str, list[str]] = {}
    for space, value in keys:
        spaces.setdefault(value, []).append(space)
    if not spaces:
        return []
    # the table is in the order of the values: for one value only the block that can hold it is read, for a list all
    each = "select profile_id, namespace from profile_identifiers where value = ? and list_contains(?::text[], namespace)"
    query = f"""select profile_id, min(namespace) from ({" union all ".join(each for _ in spaces)})
        group by profile_id order by profile_id limit 20"""
    return rows(con, query, [part for value, names in spaces.items() for part in (value, names)])


def identifier_keys(config: Config, text: str, con: DuckDBPyConnection | None = None) -> list[Key]:
    """The text as a key of every namespace in which it could be one, under every country of a source.

    `con`: a connection that knows the functions of `normalise`; without it one is made.
    """
    if con is None:
        with duckdb.connect() as own:
            normalise.register(own)
            return identifier_keys(config, text, own)
    readings = [
        (name, country)
        for name, namespace in config.namespaces.items()
        for country in (_countries(config) if namespace.type == "phone" else ("",))
    ]
    queries = {reading: _key_query(config, *reading) for reading in readings}
    distinct = list(dict.fromkeys(queries.values()))
    # cleaned once and not in every expression: planning the query would take longer than everything else
    filled = f"select {normalise.filled_query('clean')} as filled from (select {normalise.clean_query('v')} as clean"
    query = f"select {', '.join(distinct)} from ({filled} from (select cast(? as text) as v)))"
    [found] = rows(con, query, [text])
    key_of = dict(zip(distinct, found, strict=True))
    keys = [(name, key_of[queries[name, country]]) for name, country in readings]
    return list(dict.fromkeys((name, key) for name, key in keys if key is not None))


def _countries(config: Config) -> list[str]:
    return sorted({source.country for source in config.sources.values()})


def _key_query(config: Config, name: str, country: str) -> str:
    return normalise.identifier_query(config.namespaces[name], any_source(country), "filled")


def any_source(country: str = "") -> Source:
    """A source that says nothing but in which country its numbers are."""
    return Source(
        kind="record", files="*", format=FileFormat(type="csv"), columns=["v"], key="v", country=country
    )


def _profile(con: DuckDBPyConnection, profile_id: str, how: str) -> Found:
    [values] = records_of(con, "select * from profiles where profile_id = ?", [profile_id])
    identifiers = records_of(
        con,
        "select namespace, value, raw_values, sources from profile_identifiers where profile_id = ?"
        " order by namespace, value",
        [profile_id],
    )
    lineage = records_of(
        con,
        "select field, value, source, record_key, rule, observed_at from profile_lineage"
        " where profile_id = ? and won and policy = ? order by field",
        [profile_id, values["policy"]],
    )
    why = reasons(con, profile_id, values["policy"], "main.profile_lineage", "main.profile_pins")
    return Found(profile_id, how, values, identifiers, lineage, why)
