"""GoldenMatch without configuration; runs in an environment of its own and imports nothing of this project.

    python goldenmatch_run.py zero|probabilistic INPUT.parquet OUTPUT.parquet

`zero` is `dedupe_df(table)`; `probabilistic` is `dedupe_df` with the configuration that
`auto_configure_probabilistic_df` proposes, the one its authors compare with Splink.
"""

import json
import sys
import time

import goldenmatch
import pyarrow as pa
import pyarrow.parquet as pq

HIDDEN = ["source", "record_id"]
"""Random keys, given to no system as a field to match on."""


def main() -> None:
    """Deduplicate, write (source, record_id, cluster), print seconds."""
    mode, source, target = sys.argv[1:]
    table = pq.read_table(source)
    start = time.perf_counter()
    found = deduplicate(table.drop_columns(HIDDEN), mode)
    seconds = round(time.perf_counter() - start, 2)
    pq.write_table(table.select(HIDDEN).append_column("cluster", [labels(found, table.num_rows)]), target)
    print(json.dumps({"seconds": {"dedupe": seconds}, "version": goldenmatch.__version__}))


def deduplicate(table: pa.Table, mode: str) -> "dict[int, dict[str, list[int]]]":
    """GoldenMatch's clusters: number to members (row numbers)."""
    if mode == "zero":
        return goldenmatch.dedupe_df(table).clusters
    config = goldenmatch.auto_configure_probabilistic_df(table)
    return goldenmatch.dedupe_df(table, config=config).clusters


def labels(clusters: "dict[int, dict[str, list[int]]]", size: int) -> pa.Array:
    """The cluster of every row; a row that is in none is alone."""
    found = [f"row {row}" for row in range(size)]
    for number, cluster in clusters.items():
        for row in cluster["members"]:
            found[row] = str(number)
    return pa.array(found)


if __name__ == "__main__":
    main()
