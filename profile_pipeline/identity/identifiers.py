"""Identifiers of nodes: those of records are kept by the records stage, those of identities known from events here."""

from profile_pipeline.warehouse import rows_where

COLUMNS = "record_key, source, namespace, value, raw_value, observed_at, value_key, node"
VIEW = f"""
    select {COLUMNS} from records.identifiers
    union all
    select {COLUMNS} from identity.subject_identifiers where record_key not in (from identity.expired)"""
"""identity.identifiers. Grain: one row a node, namespace and value; `value_key` is a hash of the latter two."""


def identifiers_where(condition: str) -> str:
    """Few rows of identity.identifiers as a query: of the others only what the condition looks at is read."""
    known = f"record_key not in (from identity.expired) and ({condition})"
    return f"""({rows_where("records.identifiers", condition, COLUMNS)}
        union all {rows_where("identity.subject_identifiers", known, COLUMNS)})"""
