"""The graph as Dagster sees it: a committed picture of it, descriptions everywhere, and nothing heavy on import."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import PACKAGE_RULES, Project
from profile_pipeline.defs.graph import build_definitions
from profile_pipeline.dictionary import QUERIES

SNAPSHOT = Path(__file__).parent / "snapshots" / "graph.txt"
STAGES = {"raw", "records", "identity", "profiles", "audiences", "metrics", "published", "shared"}
HEAVY = ("great_expectations", "splink", "pandas", "scipy", "altair", "matplotlib")
RENEW = "python -m profile_pipeline_tests.test_definitions"


def demo_definitions(folder: Path) -> dg.Definitions:
    return build_definitions(load_config(PACKAGE_RULES), Project(rules=PACKAGE_RULES, data=folder))


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return demo_definitions(tmp_path_factory.mktemp("data"))


def picture(definitions: dg.Definitions) -> str:
    """Assets with what they read and how they are checked, then jobs, schedules and sensors, one fact a line."""
    return "\n".join([*_assets(definitions), *_automation(definitions)]) + "\n"


def _assets(definitions: dg.Definitions) -> Iterator[str]:
    graph = definitions.resolve_asset_graph()
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        yield f"asset {key.to_user_string()} ({node.group_name})"
        yield from (f"  reads {parent.to_user_string()}" for parent in sorted(node.parent_keys))
        checks = [graph.get(check) for check in sorted(graph.get_check_keys_for_assets({key}))]
        yield from (f"  check {check.key.name}{' (blocking)' if check.blocking else ''}" for check in checks)


def _automation(definitions: dg.Definitions) -> Iterator[str]:
    repository = definitions.get_repository_def()
    yield from (f"job {job.name}" for job in repository.get_all_jobs() if not job.name.startswith("__"))
    for schedule in repository.schedule_defs:
        yield f"schedule {schedule.name}: {schedule.cron_schedule} {schedule.execution_timezone}, {schedule.default_status.value}"
    for sensor in sorted(repository.sensor_defs, key=lambda each: each.name):
        yield f"sensor {sensor.name}: {sensor.default_status.value}"


def test_the_graph_is_the_committed_one(definitions: dg.Definitions) -> None:
    found, known = picture(definitions).splitlines(), SNAPSHOT.read_text(encoding="utf-8").splitlines()
    assert found == known, f"the graph changed; if it is meant to: {RENEW}"


def test_every_asset_is_described_and_grouped_by_its_stage(definitions: dg.Definitions) -> None:
    specs = list(definitions.resolve_all_asset_specs())
    assert {spec.group_name for spec in specs} == STAGES
    for spec in specs:
        assert spec.description, spec.key
        assert spec.group_name == spec.key.path[0]
        assert len(spec.key.path) == 2
        assert spec.kinds, spec.key


def test_every_check_is_described(definitions: dg.Definitions) -> None:
    checks = [
        check
        for asset in definitions.assets or []
        if isinstance(asset, dg.AssetsDefinition)
        for check in asset.check_specs
    ]
    assert checks
    assert [check.key for check in checks if not check.description] == []


def test_publication_waits_for_every_table_it_reads(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    ready = {
        ".".join(key.path) for key in graph.get_ancestor_asset_keys(dg.AssetKey(["published", "generation"]))
    }
    for asset in definitions.assets or []:
        assert isinstance(asset, dg.AssetsDefinition)
        together = {".".join(key.path) for key in asset.keys}
        ready |= together if together & ready else set()
    read = {table for query in QUERIES.values() for table in re.findall(r"(?:from|join) (\w+\.\w+)", query)}
    tables = {".".join(key.path) for key in graph.get_all_asset_keys()}
    assert len(read & tables) > 10
    assert read & tables <= ready


def test_the_definitions_load_and_resolve(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import profile_pipeline.cli, profile_pipeline.definitions;"
        "from profile_pipeline_tests.test_definitions import demo_definitions;"
        f"demo_definitions(Path({str(tmp_path)!r})); print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SNAPSHOT.parents[2])
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr[-500:]


def test_the_command_line_starts_without_the_graph() -> None:
    code = "import sys, profile_pipeline.cli; print([n for n in ('dagster', 'duckdb', 'pyarrow') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr[-500:]


if __name__ == "__main__":
    import tempfile

    SNAPSHOT.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        SNAPSHOT.write_text(picture(demo_definitions(Path(folder))), encoding="utf-8")
