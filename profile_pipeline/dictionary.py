"""The analyst's contract: which tables are published, their grain, and a description for every column."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from profile_pipeline.audiences.leaves import condition_text
from profile_pipeline.config.load import Config, read_yaml
from profile_pipeline.config.structs import structs_of
from profile_pipeline.metrics import COUNTED
from profile_pipeline.profile_ids import MEMBERS, final_redirects_query
from profile_pipeline.profiles.unified import table_of
from profile_pipeline.warehouse import literal, rows

DESCRIPTIONS = Path(__file__).parent / "dictionary.yaml"


@dataclass(frozen=True)
class Table:
    """A published table: its query over the warehouse, grain and stable order."""

    name: str
    query: str
    grain: str
    order: str
    described_as: str


LINKS = (
    "select left_key, right_key, type, namespace, match_weight, match_probability, evidence"
    " from identity.edges anti join identity.cut_links using (left_key, right_key) where accepted"
    " union all select holder_key, record_key, 'attached', namespace, null, null, null from identity.attachments"
)
QUERIES = {
    "profile_identifiers": "select * from profiles.identifiers",
    "profile_events": "select * from profiles.events",
    "profile_lineage": "select * from profiles.lineage",
    "profile_pins": "select * exclude (value) from profiles.pinned_values",
    "profile_history": "select e.*, r.as_of from identity.profile_events e join identity.revisions r using (revision)",
    "profile_redirects": final_redirects_query(),
    "profile_relationships": "select * from identity.relationships",
    "source_records": "select c.record_key, c.source, c.source_key, m.profile_id, c.observed_at, c.clock,"
    " c.ingested_at, c.batch, f.name as file, c._line as line from records.current c join identity.membership m"
    " on m.record_key = c.record_key and m.to_revision is null join raw.files f on f.file_id = c._file",
    "links": f"select m.profile_id, l.* from ({LINKS}) l join ({MEMBERS}) m on m.record_key = l.left_key",
    "review_queue": "select * from identity.review_queue",
    "computed_attributes": "select * from profiles.computed",
    "audience_membership": "select * from audiences.membership",
    "audience_list_members": "select * from audiences.external_members",
    "audience_unmatched": "select * from audiences.external_unmatched",
    "metrics_row_fates": "select * from metrics.row_fates",
    **{f"metrics_{name}": f"select * from metrics.{name}" for name in COUNTED},
    "quarantine_summary": "select source, batch, stage, reason, count(*) as row_count from ("
    "select source, batch, stage, unnest(reasons) as reason from records.quarantine) group by all",
}


@cache
def _descriptions() -> dict[str, Any]:
    return read_yaml(DESCRIPTIONS)


def published_tables(config: Config) -> list[Table]:
    """The tables of a generation, the default policy's profiles first."""
    names = {config.profiles.default: "profiles"}
    names |= {p: f"profiles_{p}" for p in config.profiles.policies if p != config.profiles.default}
    profiles = [_table(n, f"select * from {table_of(config, p)}", "profiles") for p, n in names.items()]
    others = [_table(name, query, name) for name, query in QUERIES.items()]
    return [*profiles, *others, _table("audiences", _audiences_query(config), "audiences")]


def _table(name: str, query: str, described_as: str) -> Table:
    entry = _descriptions()[described_as]
    return Table(name, query, entry["grain"], entry["order"], described_as)


def _audiences_query(config: Config) -> str:
    entries = [
        f"({literal(name)}, {literal(a.description)}, {literal(a.purpose or 'default')}, {literal(condition_text(config, name))},"
        f" {literal(', '.join(config.audiences.consents(name)))})"
        for name, a in config.audiences.audiences.items()
    ]
    head = "select * from (values {}) t(audience, description, purpose, condition, consent)"
    empty = "('', '', '', '', '')"
    return head.format(", ".join(entries)) if entries else head.format(empty) + " where false"


def describe(con: DuckDBPyConnection, config: Config, tables: list[Table]) -> list[dict[str, Any]]:
    """The dictionary: every published table with its columns, types and descriptions, from the real tables."""
    return [
        {
            "name": table.name,
            "description": _descriptions()[table.described_as]["description"],
            "grain": table.grain,
            "columns": [
                {
                    "name": name,
                    "type": kind,
                    "description": column_description(config, table.described_as, name),
                    "personal": is_personal(config, table.described_as, name),
                }
                for name, kind, *_ in rows(con, f"describe {table.query}")
            ],
        }
        for table in tables
    ]


def column_description(config: Config, table: str, column: str) -> str:
    """What a column means; profile fields take theirs from sources.yaml."""
    known = _descriptions().get(table, {}).get("columns", {})
    if column in known:
        return known[column]
    if table == "computed_attributes" and column in config.computed.attributes:
        return config.computed.attributes[column].description or f"{column.replace('_', ' ').capitalize()}."
    attribute = config.attributes.get(column)
    if attribute and table == "profiles":
        return attribute.description or f"{column.replace('_', ' ').capitalize()} ({attribute.type})."
    return (
        _of_struct(config, table, column)
        or _of_list(config, table, column)
        or _descriptions()["common"].get(column, "")
    )


def _of_struct(config: Config, table: str, column: str) -> str:
    """What a struct means, and where its parts are."""
    if table != "profiles" or column not in config.structs:
        return ""
    own = config.structs[column].description or f"{column.replace('_', ' ').capitalize()}."
    return f"{own} Holds {', '.join(structs_of(config.structs)[column].values())}."


def _of_list(config: Config, table: str, column: str) -> str:
    """What the columns mean that a field with `keep: list` has besides its own."""
    field, _, end = column.rpartition("_")
    if table != "profiles" or field not in config.attributes:
        return ""
    texts = {"all": f"All values of {field} that the policy keeps, best first.",
             "capped": f"True when there were more values of {field} than the policy keeps."}  # fmt: skip
    return texts.get(end, "")


PUBLISHED_AS = {
    "profiles.identifiers": "profile_identifiers",
    "profiles.events": "profile_events",
    "profiles.lineage": "profile_lineage",
    "profiles.pinned_values": "profile_pins",
    "identity.profile_events": "profile_history",
    "identity.redirects": "profile_redirects",
    "identity.relationships": "profile_relationships",
    "identity.edges": "links",
    "identity.review_queue": "review_queue",
    "profiles.computed": "computed_attributes",
    "audiences.membership": "audience_membership",
    "audiences.external_members": "audience_list_members",
    "audiences.external_unmatched": "audience_unmatched",
}


def published_as(table: str) -> str:
    """The published table that shows a warehouse table, or the table's own name."""
    schema, _, name = table.partition(".")
    if table.startswith("profiles.unified"):
        return "profiles"
    return PUBLISHED_AS.get(table, f"metrics_{name}" if schema == "metrics" else table)


def describe_internal(config: Config, table: str, column: str) -> str:
    """What a column of a warehouse table means; columns as delivered speak for themselves."""
    own = _descriptions()["internal"].get(table, {})
    if column in own:
        return own[column]
    found = column_description(config, published_as(table), column)
    attribute = config.attributes.get(column)
    return found or (attribute.description if attribute else "")


PERSONAL = frozenset((
    "content", "identifiers", "identity_map", "left_key", "payload", "pin_reason", "raw", "raw_value", "raw_values", "record_key",
    "right_key", "shown", "source_key", "value",
))  # fmt: skip


def is_personal(config: Config, table: str, column: str) -> bool:
    """Whether a column can hold values that name or describe a person; delivered columns are taken for personal."""
    stage, _, name = table.partition(".")
    if stage == "raw" and name in config.sources:
        return column in config.sources[name].columns
    if table == "computed_attributes" and column in config.computed.attributes:
        return config.computed.attributes[column].personal
    if table == "profiles" and column in config.structs:
        return any(config.attributes[part].personal for part in structs_of(config.structs)[column].values())
    field = column.removesuffix("_all") if table == "profiles" and column not in config.attributes else column
    attribute = config.attributes.get(field) if table == "profiles" or stage == "records" else None
    return attribute.personal if attribute else column in PERSONAL


def as_markdown(described: list[dict[str, Any]]) -> str:
    """The dictionary as a page."""
    parts = ["# Published tables\n"]
    for table in described:
        parts.append(f"## {table['name']}\n\n{table['description']} Grain: {table['grain']}.\n")
        parts.append("| column | type | personal | meaning |\n|---|---|---|---|")
        parts += [
            f"| {c['name']} | `{c['type']}` | {'yes' if c['personal'] else ''} | {c['description']} |"
            for c in table["columns"]
        ]
        parts.append("")
    return "\n".join(parts)
