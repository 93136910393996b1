"""The factory behind every table asset: asset key `a/b` is table `a.b`, with rows, columns and numbers shown."""

import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from duckdb import DuckDBPyConnection

from profile_pipeline import dictionary
from profile_pipeline.config.load import Config
from profile_pipeline.defs.resources import Warehouse
from profile_pipeline.errors import PipelineError
from profile_pipeline.runs import Chart
from profile_pipeline.warehouse import columns_of, count, scrubbed, table_exists

Numbers = Callable[[DuckDBPyConnection], dict[str, Any]]
Results = Callable[[DuckDBPyConnection], list[dg.AssetCheckResult]]


def key_of(table: str) -> dg.AssetKey:
    """`schema.table` as an asset key."""
    return dg.AssetKey(table.split("."))


@contextmanager
def readable_errors() -> Generator[None]:
    """Let only messages without personal values reach Dagster's run storage and logs."""
    try:
        yield
    except PipelineError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    except Exception as error:
        # any library may quote data in its message: keep the kind of error and the place
        raise dg.Failure(description=f"{scrubbed(error)} (in {_place(error)})", allow_retries=False) from None


def _place(error: Exception) -> str:
    """The innermost line of this package on the way to an error."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "profile_pipeline" in frame.filename
    ]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "a library"


def table_step(
    config: Config,
    tables: dict[str, str],
    build: Callable[..., None],
    *,
    deps: Sequence[str] = (),
    options: type[dg.Config] | None = None,
    kinds: Sequence[str] = ("duckdb",),
    owner: str = "",
    numbers: Numbers | None = None,
    checks: Sequence[dg.AssetCheckSpec] = (),
    results: Results | None = None,
    memberships_wait: bool = True,
) -> dg.AssetsDefinition:
    """A step in which `build(con[, options])` writes tables, given with their descriptions for analysts.

    `numbers` go on the first table; `results` answer `checks`. Steps that no audience waits for come behind the others.
    """
    first = next(iter(tables))

    def body(warehouse: Warehouse, chosen: dg.Config | None) -> Iterator[dg.MaterializeResult]:
        with readable_errors(), warehouse.get_connection() as con:
            build(con, chosen) if chosen is not None else build(con)
            answers = results(con) if results else []
            for table in tables:
                key = key_of(table)
                own = shown(numbers(con)) if numbers and table == first else {}
                yield dg.MaterializeResult(
                    asset_key=key,
                    metadata={**table_metadata(con, config, table), **own},
                    check_results=[answer for answer in answers if answer.asset_key == key],
                )

    declare = dg.multi_asset(
        name=first.replace(".", "__"),
        specs=[_spec(table, text, deps, kinds, owner) for table, text in tables.items()],
        check_specs=list(checks),
        op_tags={} if memberships_wait else {"dagster/priority": "-1"},
    )
    return declare(_with_options(body, options) if options else _without_options(body))


def _spec(
    table: str, description: str, deps: Sequence[str], kinds: Sequence[str], owner: str
) -> dg.AssetSpec:
    return dg.AssetSpec(
        key_of(table),
        deps=[key_of(name) for name in deps],
        group_name=table.split(".")[0],
        description=description,
        kinds=set(kinds),
        owners=[owner] if owner else [],
        metadata={"dagster/table_name": table},
    )


Body = Callable[[Warehouse, dg.Config | None], Iterator[dg.MaterializeResult]]


def _without_options(body: Body) -> Callable[..., Iterator[dg.MaterializeResult]]:
    def run(warehouse: Warehouse) -> Iterator[dg.MaterializeResult]:
        yield from body(warehouse, None)

    return run


def _with_options(body: Body, options: type[dg.Config]) -> Callable[..., Iterator[dg.MaterializeResult]]:
    def run(warehouse: Warehouse, config: dg.Config) -> Iterator[dg.MaterializeResult]:
        yield from body(warehouse, config)

    # Dagster builds the Launchpad form from this annotation
    run.__annotations__["config"] = options
    return run


def shown(numbers: dict[str, Any]) -> dict[str, Any]:
    """Numbers as metadata; charts as inline pictures."""
    return {name: dg.MetadataValue.md(v) if isinstance(v, Chart) else v for name, v in numbers.items()}


def table_metadata(con: DuckDBPyConnection, config: Config, table: str) -> dict[str, Any]:
    """Row count and described columns, in the places where the Dagster UI looks for them."""
    if not table_exists(con, table):
        return {}
    columns = [
        dg.TableColumn(
            name,
            kind.lower(),
            description=dictionary.describe_internal(config, table, name),
            tags={"pii": ""} if dictionary.is_personal(config, dictionary.published_as(table), name) else {},
        )
        for name, kind in columns_of(con, table).items()
    ]
    return {
        "dagster/row_count": count(con, table),
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }
