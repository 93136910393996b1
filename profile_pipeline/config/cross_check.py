"""Mistakes between rule files: names that nothing declares, names that are taken, fields with two rules."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from profile_pipeline.config.audience_check import audience_name_problems
from profile_pipeline.config.computed_check import computed_problems
from profile_pipeline.config.policy_check import policy_problems
from profile_pipeline.config.sharing_check import sharing_problems
from profile_pipeline.config.wording import suggestion

if TYPE_CHECKING:
    from profile_pipeline.config.load import Config

RESERVED_WORDS = frozenset((
    "all", "analyse", "analyze", "and", "anti", "any", "array", "as", "asc", "asof", "asymmetric", "at",
    "authorization", "binary", "both", "by", "case", "cast", "check", "collate", "collation", "column",
    "columns", "concurrently", "constraint", "create", "cross", "default", "deferrable", "desc",
    "describe", "distinct", "do", "else", "end", "except", "false", "fetch", "for", "foreign", "freeze",
    "from", "full", "generated", "glob", "group", "having", "ilike", "in", "initially", "inner",
    "intersect", "into", "is", "isnull", "join", "lambda", "lateral", "leading", "left", "like",
    "limit", "map", "natural", "not", "notnull", "null", "offset", "on", "only", "or", "order", "outer",
    "overlaps", "pivot", "pivot_longer", "pivot_wider", "placing", "positional", "primary", "qualify",
    "references", "returning", "right", "select", "semi", "show", "similar", "some", "struct",
    "summarize", "symmetric", "table", "tablesample", "then", "to", "trailing", "true", "try_cast",
    "tuple", "union", "unique", "unpack", "unpivot", "using", "variadic", "verbose", "when", "where",
    "window", "with",
))  # fmt: skip
PROFILE_COLUMNS = frozenset((
    "profile_id", "kind", "record_count", "sources", "identity_map", "event_count", "last_event_at",
    "first_observed_at", "last_observed_at", "flagged", "policy", "policy_version",
))  # fmt: skip
RECORD_COLUMNS = frozenset((
    "row_id", "batch", "ingested_at", "source", "source_key", "record_key", "observed_at", "clock",
    "deleted", "event_key", "event_id", "event_type", "channel", "zone", "payload", "raw", "cleared",
    "identifiers", "content_hash", "reasons", "doubtful",
))  # fmt: skip
TAKEN_TABLES = frozenset((
    "batches", "files", "rejects", "current", "events", "event_subjects", "fill", "identifiers",
    "loads", "quarantine", "replays", "validations", "outcomes",
))  # fmt: skip
SUITE_SCHEMAS = {"records", "identity", "profiles", "audiences", "metrics"}


def cross_check(config: "Config") -> list[str]:
    """Lines `file: key.path: what is wrong; how to mend it`."""
    return [
        *_check_names(config),
        *_check_sources(config),
        *_check_anchors(config),
        *_check_policies(config),
        *policy_problems(config, PROFILE_COLUMNS),
        *computed_problems(config, PROFILE_COLUMNS),
        *audience_name_problems(config, PROFILE_COLUMNS, unknown),
        *sharing_problems(config, PROFILE_COLUMNS, unknown),
        *_check_suites(config),
    ]


def unknown(where: str, kind: str, name: str, known: Iterable[str]) -> str:
    """The line about a name that nothing declares."""
    names = list(known)
    otherwise = f"known: {', '.join(names) or 'none'}"
    return f"{where}: unknown {kind} `{name}`; {suggestion(name, names, otherwise)}"


def _check_names(config: "Config") -> list[str]:
    taken = PROFILE_COLUMNS | RECORD_COLUMNS
    problems = [
        f"sources.yaml: attributes.{field}: is a column that every profile or record has; write `customer_{field}`"
        for field in [*config.structs, *config.attributes]
        if field in taken
    ]
    fields = [*config.structs, *config.attributes]
    for kind, names, end in (("attributes", fields, "value"), ("sources", config.sources, "feed")):
        problems += [
            f"sources.yaml: {kind}.{name}: is a word of SQL; write `{name}_{end}`"
            for name in names
            if name in RESERVED_WORDS
        ]
    problems += [
        f"sources.yaml: sources.{name}: is the name of a table of our own; write `{name}_feed`"
        for name in config.sources
        if name in TAKEN_TABLES
    ]
    if "event" in config.sources:
        # a record key begins with its source: `event:` tells an identity known from events from a record
        problems.append(
            "sources.yaml: sources.event: is how keys of identities known from events begin; write `event_feed`"
        )
    return problems


def _check_sources(config: "Config") -> list[str]:
    problems = []
    for name, source in config.sources.items():
        where = f"sources.yaml: sources.{name}"
        problems += [
            unknown(f"{where}.attributes", "attribute", field, config.attributes)
            for field in source.attributes
            if field not in config.attributes
        ]
        problems += [
            unknown(f"{where}.identifiers", "namespace", space, config.namespaces)
            + " (namespaces are declared in identity.yaml)"
            for space in source.identifiers
            if space not in config.namespaces
        ]
        problems += [
            unknown(f"{where}.optional_columns", "column", column, source.columns)
            for column in source.optional_columns
            if column not in source.columns
        ]
        lowered = [column.lower() for column in source.columns]
        problems += [
            f"{where}.columns: `{column}` appears twice (letter case does not count); keep one"
            for column in dict.fromkeys(lowered)
            if lowered.count(column) > 1
        ]
    return problems


def _check_anchors(config: "Config") -> list[str]:
    return [
        unknown("identity.yaml: ids.anchors", "source", name, config.record_sources)
        for name in config.identity.ids.anchors
        if name not in config.record_sources
    ]


def _check_policies(config: "Config") -> list[str]:
    rules = config.profiles
    problems = []
    if rules.default not in rules.policies:
        problems.append(unknown("profiles.yaml: default", "policy", rules.default, rules.policies))
    for name, policy in rules.policies.items():
        where = f"profiles.yaml: policies.{name}"
        named = [*policy.fields, *(f for group in policy.groups.values() for f in group.fields)]
        ranked = [*policy.sources, *(s for f in policy.fields.values() for s in f.sources or {})]
        options = [policy, *policy.groups.values(), *policy.fields.values()]
        trusted = dict.fromkeys(source for option in options for source in option.trust or {})
        problems += [
            unknown(where, "attribute", field, config.attributes)
            for field in named
            if field not in config.attributes
        ]
        problems += [
            unknown(f"{where}.sources", "source", source, config.record_sources)
            for source in ranked
            if source not in config.record_sources
        ]
        problems += [
            unknown(f"{where}.trust", "source", source, config.record_sources)
            for source in trusted
            if source not in config.record_sources
        ]
        problems += [
            f"{where}: `{field}` is in a group and has its own rule, or in two groups; keep one"
            for field in dict.fromkeys(named)
            if named.count(field) > 1
        ]
    return problems


def _check_suites(config: "Config") -> list[str]:
    problems = []
    for table in config.suites:
        schema, _, name = table.partition(".")
        if schema == "raw" and name in config.sources:
            continue
        if schema not in SUITE_SCHEMAS or not name:
            problems.append(
                f"expectations/{table}.yaml: (file): no such table; name the file <schema>.<table>.yaml,"
                " for example raw.crm.yaml"
            )
    return problems
