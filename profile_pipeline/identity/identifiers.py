"""Identifiers of nodes: those of records are kept by the records stage, those of identities known from events here."""

COLUMNS = "record_key, source, namespace, value, raw_value, observed_at, value_key, node"
VIEW = f"""
    select {COLUMNS} from records.identifiers
    union all
    select {COLUMNS} from identity.subject_identifiers where record_key not in (from identity.expired)"""
"""identity.identifiers. Grain: one row a node, namespace and value; `value_key` is a hash of the latter two."""
