"""Assets of the raw stage: the file ledger, and one table a source."""

from datetime import UTC, datetime
from functools import partial

import dagster as dg
from duckdb import DuckDBPyConnection
from pydantic import Field

from profile_pipeline import runs
from profile_pipeline.config.load import Config
from profile_pipeline.config.project import Project
from profile_pipeline.defs import checks
from profile_pipeline.defs.tables import key_of, table_step
from profile_pipeline.raw import intake, ledger
from profile_pipeline.warehouse import scalar

FILES = "raw.files"


class IntakeOptions(dg.Config):
    """What may vary from run to run."""

    as_of: str = Field(default="", description="ISO time that counts as now; empty: the clock")
    accept_volume_change: bool = Field(default=False, description="let a much smaller full delivery through")
    rebuild: bool = Field(default=False, description="compute every table afresh; profile ids persist")
    settled_seconds: float = Field(
        default=0.0, description="files of the inbox that changed within so many seconds wait for another run"
    )


def assets(config: Config, project: Project) -> list[dg.AssetsDefinition]:
    """The ledger and the raw table of every source."""
    return [_files(config, project), *(_source(config, project, name) for name in config.sources)]


def _files(config: Config, project: Project) -> dg.AssetsDefinition:
    key = key_of(FILES)
    found: dict[str, ledger.Scan] = {}

    def build(con: DuckDBPyConnection, options: IntakeOptions) -> None:
        if options.rebuild:
            runs.forget_derived(con)
        now = runs.moment(options.as_of) if options.as_of else datetime.now(UTC)
        found["scan"] = ledger.scan(con, config, project, now, options.settled_seconds)
        runs.require_deliveries(con, project)
        if options.accept_volume_change:  # also for a delivery that this very scan has found
            ledger.accept_volume(con)

    def results(_: DuckDBPyConnection) -> list[dg.AssetCheckResult]:
        scan = found["scan"]
        return [
            checks.fact(
                key, "same_name_same_content", passed=not scan.conflicts, critical=True,
                why="; ".join(scan.conflicts), files=len(scan.conflicts),
            ),
            checks.fact(
                key, "every_file_claimed", passed=not scan.unclaimed, critical=False,
                why=_unclaimed(scan.unclaimed), files=len(scan.unclaimed),
            ),
            checks.fact(
                key, "reverted_files_stay_away", passed=not scan.reverted, critical=False,
                why="; ".join(scan.reverted), files=len(scan.reverted),
            ),
        ]  # fmt: skip

    return table_step(
        config,
        {FILES: "Every delivered file, once: hash, size, rows, batch and what became of it."},
        build,
        options=IntakeOptions,
        kinds=("file", "duckdb"),
        numbers=lambda con: {
            "new_files": found["scan"].new,
            "batch": scalar(con, "select max(batch) from raw.batches") or 0,
        },
        checks=[
            checks.spec(
                key, "same_name_same_content", "a file name stands for one content for ever", blocking=True
            ),
            checks.spec(key, "every_file_claimed", "every delivered file belongs to a source"),
            checks.spec(key, "reverted_files_stay_away", "no file of a reverted batch is delivered again"),
        ],
        results=results,
    )


def _unclaimed(names: list[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"no source's `files:` pattern matches {', '.join(names[:10])}{more}" if names else ""


def _source(config: Config, project: Project, name: str) -> dg.AssetsDefinition:
    source = config.sources[name]
    key = key_of(f"raw.{name}")
    return table_step(
        config,
        {
            f"raw.{name}": f"{source.description or name} As delivered: text, append-only, one row a delivered row."
        },
        partial(_load, config=config, project=project, name=name),
        deps=[FILES],
        kinds=(source.format.type, "duckdb"),
        owner=source.owner,
        numbers=partial(runs.source_numbers, name=name),
        checks=[checks.spec(key, "every_file_readable", "every delivered file could be read")],
        results=partial(_readable, key=key, name=name),
    )


def _readable(con: DuckDBPyConnection, *, key: dg.AssetKey, name: str) -> list[dg.AssetCheckResult]:
    refused = runs.refused_files(con, name)
    why = "; ".join(refused)
    return [
        checks.fact(
            key, "every_file_readable", passed=not refused, critical=False, why=why, files=len(refused)
        )
    ]


def _load(con: DuckDBPyConnection, *, config: Config, project: Project, name: str) -> None:
    intake.load_source(con, config, project, name)
