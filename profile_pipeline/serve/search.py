"""Finds profiles by whatever somebody typed: an id, living or retired, a record, an identifier, else a name."""

from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import Attribute
from profile_pipeline.lookup import any_source, candidates, identifier_keys
from profile_pipeline.records import normalise
from profile_pipeline.serve.shelf import Published
from profile_pipeline.warehouse import literal, quote, records_of, scalar

LONGEST = 400
"""Characters of a question; longer ones find nobody."""
MOST = 50
"""Profiles that a name lists."""
NAME_TYPES = ("given_name", "family_name", "full_name")
FACTS = ("kind", "record_count", "event_count", "last_event_at")


@dataclass(frozen=True)
class Hit:
    """A profile that was found, by what, and what tells it from others of the same name."""

    profile_id: str
    found_by: str
    name: str
    facts: dict[str, Any]


def find(published: Published, text: str) -> list[Hit]:
    """Profiles behind a text, those of identifiers and ids before any name; at most MOST."""
    text, config = text.strip(), published.config
    if not text or len(text) > LONGEST:
        return []
    with published.unplanned() as con:
        keys = identifier_keys(config, text, con)
    with published.read() as con:
        found = candidates(con, text, keys)
        return hits(con, config, dict(found)) if found else by_name(con, config, text)


def hits(con: DuckDBPyConnection, config: Config, found: dict[str, str]) -> list[Hit]:
    """The profiles of ids, with what each was found by."""
    known = records_of(
        con,
        f"select profile_id, {', '.join(FACTS)}, {name_query(config)} as name"
        f" from profiles where {' or '.join('profile_id = ?' for _ in found)} order by profile_id",
        list(found),
    )
    return [_hit(row, found[row["profile_id"]]) for row in known]


def _hit(row: dict[str, Any], found_by: str) -> Hit:
    return Hit(row["profile_id"], found_by, row["name"] or "", {fact: row[fact] for fact in FACTS})


def name_fields(config: Config) -> list[str]:
    """Fields that hold names, given names first."""
    return [name for kind in NAME_TYPES for name, a in config.attributes.items() if a.type == kind]


def name_query(config: Config) -> str:
    """SQL of how a profile is called."""
    parts = [f for f in name_fields(config) if config.attributes[f].type != "full_name"]
    whole = [f for f in name_fields(config) if config.attributes[f].type == "full_name"]
    spaced = f"nullif(concat_ws(' ', {', '.join(map(quote, parts))}), '')" if parts else "null::text"
    return f"coalesce({', '.join([spaced, *map(quote, whole)])})" if whole else spaced


def by_name(con: DuckDBPyConnection, config: Config, text: str) -> list[Hit]:
    """Profiles with every word of the text in their name, without accents and case, the most active first."""
    fields = name_fields(config)
    words = _words(con, text)
    if not fields or not words:
        return []
    said = f"concat_ws(' ', {', '.join(map(quote, fields))})"
    folded = f"regexp_replace({normalise.folded_query('said')}, '[{normalise.APOSTROPHES}.]', '', 'g')"
    held = " and ".join(f"contains(folded, {literal(word)})" for word in words)
    found = records_of(
        con,
        f"""select profile_id, {", ".join(FACTS)}, {name_query(config)} as name
        from (select *, {folded} as folded from (select *, {said} as said from profiles))
        where {held} order by event_count desc, profile_id limit {MOST}""",
    )
    return [_hit(row, "name") for row in found]


def _words(con: DuckDBPyConnection, text: str) -> list[str]:
    """The words of a name as matching compares them: [a-z] only, so that they are safe inside SQL."""
    folded = normalise.folded_query(normalise.clean_query("v"))
    query = normalise.value_query(Attribute(type="full_name"), any_source(), folded)
    found = scalar(con, f"select {query} from (select cast(? as text) as v)", [text])
    return sorted(set((found or "").split()))
