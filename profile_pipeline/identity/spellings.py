"""What normalising identifiers before they become keys saved, in profiles."""

import numpy as np
from duckdb import DuckDBPyConnection

from profile_pipeline.config.load import Config
from profile_pipeline.warehouse import literal


def duplicates_avoided(con: DuckDBPyConnection, config: Config) -> int:
    """Profiles that keys in their delivered spelling would have made in addition.

    Groups of nodes that share a person identifier, counted twice: keyed by the raw and by the normalised value.
    John.Greene@luma.com and john.greene@luma.com are two groups in the first count and one in the second.
    """
    people = [name for name, space in config.namespaces.items() if space.kind == "person"]
    return _groups(con, people, "coalesce(raw_value, value)") - _groups(con, people, "value")


def _groups(con: DuckDBPyConnection, namespaces: list[str], key: str) -> int:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    listed = ", ".join(map(literal, namespaces)) or "null"
    pairs = con.sql(
        f"""select dense_rank() over (order by record_key) - 1 as node,
            dense_rank() over (order by namespace, {key}) - 1 as identifier
        from identity.identifiers where namespace in ({listed})
            and (namespace, value) not in (select (namespace, value) from identity.generic_values)"""
    ).fetchnumpy()
    nodes, identifiers = (np.ma.getdata(pairs[side]).astype(np.int64) for side in ("node", "identifier"))
    if not len(nodes):
        return 0
    size = int(nodes.max()) + 1 + int(identifiers.max()) + 1
    edges = (np.ones(len(nodes), dtype=np.int8), (nodes, identifiers + nodes.max() + 1))
    return int(connected_components(coo_array(edges, shape=(size, size)), directed=False)[0])
