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


def assets(config: Config, project: Project) -> list[dg.AssetsDefinition]:
    """The ledger and the raw table of every source."""
    return [_files(config, project), *(_source(config, project, name) for name in config.sources)]


def _files(config: Config, project: Project) -> dg.AssetsDefinition:
    key = key_of(FILES)
    found: dict[str, ledger.Scan] = {}

    def build(con: DuckDBPyConnection, options: IntakeOptions) -> None:
        runs.prepare(con, rebuild=options.rebuild, accept_volume_change=options.accept_volume_change)
        now = datetime.fromisoformat(options.as_of) if options.as_of else datetime.now(UTC)
        found["scan"] = ledger.scan(con, config, project, now)

    def results(con: DuckDBPyConnection) -> list[dg.AssetCheckResult]:
        scan = found["scan"]
        refused = scalar(con, "select count(*) from raw.files where state = 'refused'")
        return [
            checks.fact(
                key, "same_name_same_content", passed=not scan.conflicts, critical=True,
                why="; ".join(scan.conflicts), files=len(scan.conflicts),
            ),
            checks.fact(
                key, "every_file_claimed", passed=not scan.unclaimed, critical=False,
                why="no source's `files:` pattern matches " + ", ".join(scan.unclaimed[:10]), files=len(scan.unclaimed),
            ),
            checks.fact(
                key, "every_file_readable", passed=not refused, critical=False,
                why="; ".join(runs.refused_files(con)), files=refused,
            ),
        ]  # fmt: skip

    return table_step(
        config,
        {FILES: "Every delivered file, once: hash, size, rows, batch and what became of it."},
        build,
        options=IntakeOptions,
        kinds=("file", "duckdb"),
        numbers=lambda con: {"new_files": found["scan"].new, "batch": scalar(con, "select max(batch) from raw.batches") or 0},
        checks=[
            checks.spec(key, "same_name_same_content", "a file name stands for one content for ever", blocking=True),
            checks.spec(key, "every_file_claimed", "every delivered file belongs to a source"),
            checks.spec(key, "every_file_readable", "every delivered file could be read"),
        ],
        results=results,
    )


def _source(config: Config, project: Project, name: str) -> dg.AssetsDefinition:
    source = config.sources[name]
    return table_step(
        config,
        {f"raw.{name}": f"{source.description or name} As delivered: text, append-only, one row a delivered row."},
        partial(_load, config=config, project=project, name=name),
        deps=[FILES],
        kinds=(source.format.type, "duckdb"),
        owner=source.owner,
        numbers=partial(runs.source_numbers, name=name),
    )


def _load(con: DuckDBPyConnection, *, config: Config, project: Project, name: str) -> None:
    intake.load_source(con, config, project, name)
