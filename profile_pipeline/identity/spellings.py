"""What normalising identifiers before they become keys saved, in profiles."""

import numpy as np
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.identity.components import connected
from profile_pipeline.warehouse import literal


def duplicates_avoided(con: DuckDBPyConnection, config: Config) -> int:
    """Profiles that keys in their delivered spelling would have made in addition.

    Groups of nodes that share a person identifier, counted twice: keyed by the raw and by the normalised value.
    John.Greene@luma.com and john.greene@luma.com are two groups in the first count and one in the second. Values
    that one node has alone are the same in both counts and left out.
    """
    people = [name for name, space in config.namespaces.items() if space.kind == "person"]
    listed = ", ".join(map(literal, people)) or "null"
    found = con.sql(
        f"""with held as (
            select record_key, hash(namespace, value) as value_key, hash(namespace, coalesce(raw_value, value)) as raw_key
            from identity.identifiers where namespace in ({listed})
                and (namespace, value) not in (select (namespace, value) from identity.generic_values)
        ), shared as (select value_key from held group by value_key having count(*) > 1)
        select hash(record_key) as node, value_key, raw_key from held semi join shared using (value_key)"""
    ).fetchnumpy()
    node, value, raw = (
        np.unique(np.ma.getdata(found[column]), return_inverse=True)[1]
        for column in ("node", "value_key", "raw_key")
    )
    return _groups(node, raw) - _groups(node, value)


def _groups(nodes: np.ndarray, identifiers: np.ndarray) -> int:
    if not len(nodes):
        return 0
    first = int(nodes.max()) + 1
    labels = connected(nodes, identifiers + first, first + int(identifiers.max()) + 1)
    return int(labels.max()) + 1
