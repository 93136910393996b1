"""Finds a published profile by any identifier or id, and tells where its values come from. Reads only."""

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
        return [_profile(con, profile_id, how) for profile_id, how in _candidates(con, config, text.strip())]


def _candidates(con: DuckDBPyConnection, config: Config, text: str) -> list[tuple[str, str]]:
    uuid = text.lower()
    by_id = rows(con, "select profile_id, 'profile id' from profiles where profile_id = ?", [uuid])
    retired = rows(con, "select successor, 'retired id' from profile_redirects where profile_id = ?", [uuid])
    by_record = rows(
        con, "select profile_id, 'source record' from source_records where record_key = ?", [text]
    )
    by_value = rows(
        con,
        "select profile_id, min(namespace) from profile_identifiers where (namespace, value) in"
        " (select unnest(?), unnest(?)) group by profile_id order by profile_id limit 20",
        list(map(list, zip(*identifier_keys(config, text), strict=True))) or [[], []],
    )
    return list(dict(by_value + by_record + retired + by_id).items())


def identifier_keys(config: Config, text: str) -> list[tuple[str, str]]:
    """The text as a key of every namespace in which it could be one, under every country of a source."""
    countries = sorted({source.country for source in config.sources.values()})
    found = []
    with duckdb.connect() as con:
        normalise.register(con)
        for name, namespace in config.namespaces.items():
            for country in countries:
                query = normalise.identifier_query(
                    namespace, _any_source(country), normalise.filled_query("v")
                )
                [(key,)] = rows(con, f"select {query} from (select cast(? as text) as v)", [text])
                if key is not None:
                    found.append((name, key))
    return list(dict.fromkeys(found))


def _any_source(country: str) -> Source:
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
