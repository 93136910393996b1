"""Fixtures: small projects in a temporary folder, and the core run over them without Dagster.

Great Expectations takes seconds to import and tenths of a second to run; `run_core` judges the derived
expectations in SQL unless asked for `ge=True` (test_quality proves that both say the same).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection

from profile_pipeline import metrics, quality
from profile_pipeline.config.expectations import Expectation
from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import Project, project_at
from profile_pipeline.publish import Generation
from profile_pipeline.quality import Outcome
from profile_pipeline.raw import intake, ledger
from profile_pipeline.records import current, events, staging
from profile_pipeline.warehouse import connect, quote, rows
from profile_pipeline_tests.hand_made import all_hold
from profile_pipeline_tests.tally import Counted, counted_world

AS_OF = datetime(2026, 4, 1, tzinfo=UTC)
Rules = dict[str, Any]

ATTRIBUTES: Rules = {
    "given_name": {"type": "given_name"},
    "family_name": {"type": "family_name"},
    "email": {"type": "email"},
    "phone": {"type": "phone"},
    "birth_date": {"type": "birth_date"},
    "note": {"type": "text"},
}
NAMESPACES: Rules = {
    "crm_id": {"priority": 10},
    "email": {"type": "email", "priority": 40, "link": False},
    "device": {"kind": "device"},
    "cookie": {"kind": "cookie"},
}
CRM: Rules = {
    "kind": "record",
    "files": "crm_*.csv*",
    "format": {"type": "csv"},
    "columns": ["id", "first", "last", "email", "note", "moment"],
    "key": "id",
    "time": {"value": "moment"},
    "country": "GB",
    "attributes": {"given_name": "first", "family_name": "last", "email": "email", "note": "note"},
    "identifiers": {"crm_id": "id", "email": "email"},
    "guards": {"max_error_share": 1.0},
}
WEB: Rules = {
    "kind": "event",
    "files": "web_*.jsonl*",
    "format": {"type": "jsonl"},
    "columns": ["id", "ts", "kind", "crm_id", "device", "cookie"],
    "optional_columns": ["kind", "crm_id", "device", "cookie"],
    "time": {"value": "ts"},
    "event": {"id": "id", "type": "kind"},
    "identifiers": {"crm_id": "crm_id", "device": "device", "cookie": "cookie"},
    "guards": {"max_error_share": 1.0},
}


class Projects:
    """Makes projects; `crm` and `web` are source rules to vary."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0

    @staticmethod
    def crm(**changes: Any) -> Rules:
        """A record source with a clock of its own."""
        return {**CRM, **changes}

    @staticmethod
    def web(**changes: Any) -> Rules:
        """An event source that names people, devices and cookies."""
        return {**WEB, **changes}

    def __call__(
        self,
        sources: Rules | None = None,
        files: dict[str, str | bytes] | None = None,
        *,
        attributes: Rules | None = None,
        namespaces: Rules | None = None,
        suites: dict[str, list[Rules]] | None = None,
    ) -> Project:
        """A project folder with rules and delivered files (in data/inbox)."""
        self._made += 1
        project = project_at(self._folder / f"project_{self._made}")
        self.write_rules(project, sources, attributes=attributes, namespaces=namespaces, suites=suites)
        for name, content in (files or {}).items():
            self.deliver(project, name, content)
        return project

    @staticmethod
    def write_rules(
        project: Project,
        sources: Rules | None = None,
        *,
        attributes: Rules | None = None,
        namespaces: Rules | None = None,
        suites: dict[str, list[Rules]] | None = None,
    ) -> None:
        """Write or replace the rule files; JSON is YAML."""
        kept = {"attributes": ATTRIBUTES | (attributes or {}), "sources": sources or {"crm": CRM}}
        folder = project.rules
        (folder / "expectations").mkdir(parents=True, exist_ok=True)
        documents = {
            "sources": kept,
            "identity": {"namespaces": NAMESPACES | (namespaces or {}), "matching": {"enabled": False}},
            "profiles": {"default": "golden", "policies": {"golden": {}}},
            **{f"expectations/{name}": {"expectations": items} for name, items in (suites or {}).items()},
        }
        for name, document in documents.items():
            (folder / f"{name}.yaml").write_text(json.dumps(document), encoding="utf-8")

    @staticmethod
    def deliver(project: Project, name: str, content: str | bytes) -> Path:
        """Put a file into data/inbox."""
        path = project.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@pytest.fixture
def project(tmp_path: Path) -> Projects:
    """A factory of projects."""
    return Projects(tmp_path)


class Core:
    """A project after a run: its warehouse, open, and what the scan said."""

    def __init__(self, con: DuckDBPyConnection, config: Config, scan: ledger.Scan) -> None:
        self.con = con
        self.config = config
        self.scan = scan

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row of a query."""
        return rows(self.con, query, values)

    def values(self, query: str) -> list[Any]:
        """The first column of a query."""
        return [row[0] for row in rows(self.con, query)]

    def one(self, query: str) -> Any:
        """The only row of a query; its value when it has one column."""
        [row] = rows(self.con, query)
        return row[0] if len(row) == 1 else row

    def reasons(self, name: str = "crm") -> dict[int, list[str]]:
        """Reasons of quarantined rows by line."""
        return dict(
            rows(self.con, "select line, reasons from records.quarantine where source = ? order by 1", [name])
        )

    def file(self, name: str) -> tuple[Any, ...]:
        """(state, reason) of a delivered file by its name without the folder."""
        return self.one(f"select state, reason from raw.files where name like '%/{name}'")


def validate_in_sql(
    con: DuckDBPyConnection, table: str, suite: Sequence[Expectation], order: str = ""
) -> list[Outcome]:
    """The derived expectations, all of the form `ok__<name> is true`, without Great Expectations."""
    found = []
    for item in suite:
        assert set(item.kwargs) == {"column", "value_set"}, "use ge=True for declared expectations"
        flag = quote(item.kwargs["column"])
        failed = rows(con, f"select row_id from {table} where not {flag} order by row_id")
        evaluated = rows(con, f"select count(*) from {table}")[0][0]
        positions = [position for (position,) in failed]
        found.append(
            Outcome(item.label, item.severity, not failed, evaluated, len(failed), positions, item.notes)
        )
    return found


def run_records(con: DuckDBPyConnection, config: Config, project: Project, as_of: datetime) -> ledger.Scan:
    """The raw and records stages."""
    found = ledger.scan(con, config, project, as_of)
    for name in config.sources:
        intake.load_source(con, config, project, name)
        staging.stage_source(con, config, name)
    current.build_current(con, config)
    events.build_events(con, config)
    current.build_quarantine(con, config)
    metrics.build_row_fates(con, config)
    return found


def run_rest(con: DuckDBPyConnection, config: Config, project: Project) -> Generation:
    """Identity, profiles, audiences, metrics and publication."""
    from profile_pipeline import audiences, profile_ids, publish, review
    from profile_pipeline.computed.build import build_computed
    from profile_pipeline.identity import clusters, edges, features, model, nodes, relationships
    from profile_pipeline.profiles import candidates, lineage, policy_versions, timeline, unified

    nodes.build_nodes(con, config)
    features.build_features(con, config)
    model.ensure_model(con, config)
    edges.build_edges(con, config)
    clusters.build_clusters(con, config)
    profile_ids.assign_profile_ids(con, config)
    relationships.build_relationships(con, config)
    review.build_review_queue(con, config)
    for build in (timeline.build_timeline, candidates.build_candidates, lineage.build_lineage):
        build(con, config)
    policy_versions.note_versions(con, config)
    unified.build_unified(con, config)
    build_computed(con, config)
    audiences.build_audiences(con, config)
    metrics.build_profile_facts(con, config)
    return publish.publish(con, config, project, {})


_configs: dict[str, Config] = {}


def read_config(folder: Path) -> Config:
    """The rules of a folder; equal texts are parsed once a session, most tests share theirs."""
    text = "\0".join(path.name + path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.yaml")))
    if text not in _configs:
        _configs[text] = load_config(folder)
    return _configs[text]


@pytest.fixture
def run_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Core]]:
    """Run a project up to records (`everything=True`: up to publication); its warehouse stays open for queries."""
    validate = quality.validate
    opened: dict[Path, DuckDBPyConnection] = {}
    with ExitStack() as stack:

        def run(
            project: Project, as_of: datetime = AS_OF, *, ge: bool = False, everything: bool = False
        ) -> Core:
            config = read_config(project.rules)
            if project.database not in opened:
                opened[project.database] = stack.enter_context(
                    connect(project.database, memory="1GB", threads=1)
                )
            con = opened[project.database]
            monkeypatch.setattr(quality, "validate", validate if ge else validate_in_sql)
            found = run_records(con, config, project, as_of)
            if everything:
                run_rest(con, config, project)
            return Core(con, config, found)

        yield run


@pytest.fixture(scope="session")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Counted:
    """A published retailer of three monthly batches with everything that its metrics should say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", all_hold)
        return counted_world(tmp_path_factory.mktemp("counted"))
