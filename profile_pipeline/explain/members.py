"""Which profile is meant, and which records and identities it holds."""

from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.errors import PipelineError
from profile_pipeline.identity.features import match_fields
from profile_pipeline.lookup import identifier_keys
from profile_pipeline.profile_ids import MEMBERS, final_redirects_query
from profile_pipeline.warehouse import quote, records_of, replace_table, rows, scalar, table_exists

MOST_NAMED = 10
"""Profiles listed when an identifier leads to several."""
MEMBER_TABLE = "temp.explained"
"""Grain: one row a node of the profile that is explained: (record_key)."""


@dataclass(frozen=True)
class Member:
    """A source record or an identity known from events: what matching sees of it, and its identifiers by namespace."""

    record_key: str
    source: str
    kind: str
    values: dict[str, Any]
    identifiers: dict[str, list[str]]


def find_profile(con: DuckDBPyConnection, config: Config, text: str) -> str:
    """The active profile id behind an id (active or retired), a record key or an identifier."""
    if not table_exists(con, "identity.membership"):
        raise PipelineError("no profile yet; `profile-pipeline run` makes the first ones")
    status = scalar(con, "select status from identity.registry where profile_id = ?", [text.lower()])
    if status == "active":
        return text.lower()
    if status:
        return _successor(con, text.lower())
    found = _holders(con, config, text)
    if not found:
        raise PipelineError(
            "no profile has this id or identifier; `profile-pipeline lookup --record` finds similar people"
        )
    if len(found) > 1:
        named = ", ".join(found[:MOST_NAMED]) + (" ..." if len(found) > MOST_NAMED else "")
        raise PipelineError(f"{len(found)} profiles carry this identifier; explain one of: {named}")
    return found[0]


def _successor(con: DuckDBPyConnection, retired: str) -> str:
    found = scalar(
        con,
        f"""select successor from ({final_redirects_query()})
        where successor in (select profile_id from identity.registry where status = 'active') and profile_id = ?""",
        [retired],
    )
    if found is None:
        raise PipelineError(
            f"{retired} is retired and nobody of it is left; `profile-pipeline ids history` tells its life"
        )
    return found


def _holders(con: DuckDBPyConnection, config: Config, text: str) -> list[str]:
    keys = identifier_keys(config, text.strip())
    found = rows(
        con,
        f"""select distinct profile_id from ({MEMBERS}) where record_key = ? or record_key in (
            select record_key from identity.identifiers
            where (namespace, value) in (select unnest(?::text[]), unnest(?::text[])))
        order by profile_id""",
        [text.strip(), [space for space, _ in keys], [key for _, key in keys]],
    )
    return [profile_id for (profile_id,) in found]


def register_members(con: DuckDBPyConnection, profile_id: str) -> None:
    """Write temp.explained, the nodes of a profile."""
    replace_table(con, MEMBER_TABLE, f"select record_key from ({MEMBERS}) where profile_id = ?", [profile_id])


def members(con: DuckDBPyConnection, config: Config) -> tuple[Member, ...]:
    """The nodes of temp.explained: records first, then identities known from events."""
    fields = [field for names in match_fields(config).values() for field in names]
    listed = "".join(f", c.{quote(field)}" for field in fields)
    found = records_of(
        con,
        f"""select record_key, n.source, n.kind{listed}
        from {MEMBER_TABLE} join identity.nodes n using (record_key) left join records.current c using (record_key)
        order by n.kind <> 'record', record_key""",
    )
    held = _identifiers(con)
    return tuple(
        Member(
            row["record_key"],
            row["source"],
            row["kind"],
            {field: row[field] for field in fields if row[field] is not None},
            held.get(row["record_key"], {}),
        )
        for row in found
    )


def _identifiers(con: DuckDBPyConnection) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for key, namespace, values in rows(
        con,
        f"""select record_key, namespace, list(distinct value order by value)
        from identity.identifiers where record_key in (from {MEMBER_TABLE}) group by all order by all""",
    ):
        found.setdefault(key, {})[namespace] = values
    return found
