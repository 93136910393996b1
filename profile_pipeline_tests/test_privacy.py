"""No personal value in logs, run storage, check results, manifest or terminal, whether runs succeed or fail.

Canaries are planted in every format, in good rows, malformed lines and rows that are refused; then every byte of
every file that is not the data itself is searched for them.
"""

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from profile_pipeline import publish
from profile_pipeline.cli import app
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.defs import automation
from profile_pipeline.defs.run import dagster_home, instance_of
from profile_pipeline.errors import PipelineError
from profile_pipeline.warehouse import scrubbed
from profile_pipeline_tests.worlds import (
    LINKED,
    files_below,
    quick_folder,
    run_command,
    run_core,
    write_rules,
)

CANARIES = ("zanzi", "brixl", "quorn", "7946095", "1961-", "/1961", "3.02.1961", "vortexweg", "kestrelby")
"""Parts of the planted values as they could appear anywhere: mail, names, phone, birth date, street, city."""
BANK = """
  bank:
    kind: record
    files: bank_*.parquet
    format: {type: parquet}
    columns: [id, last, email, born, moment]
    key: id
    time: {value: moment}
    attributes: {family_name: last, email: email, birth_date: born}
    identifiers: {email: email}
"""
AS_OF = "2026-04-01T00:00:00Z"
SUITES = {
    "raw.crm": "{name: known_status, type: expect_column_values_to_be_in_set, severity: error,"
    " kwargs: {column: status, value_set: [active, deleted]}}",
    "records.crm": "{name: short_names, type: expect_column_value_lengths_to_be_between, severity: warning,"
    " kwargs: {column: family_name, max_value: 3}}",
    "profiles.unified": "{name: no_such_city, type: expect_column_values_to_not_match_regex, severity: warning,"
    ' kwargs: {column: city, regex: "^Kes"}}',
}
CRM = """id,first,last,born,email,phone,street,city,segment,status,moment
c1,Brixl,O'Quorn,1961-02-03,zanzi1@brixl.example,020 7946 0951,9 Vortexweg,Kestrelby,gold,active,2026-03-01T00:00:00Z
c2,"Brixl ""B""
Second",Quorn,03.02.1961,zanzi two@@brixl,020-7946-0952 call me,Vortexweg,Kestrelby,?,active,2026-03-01 1961
c3,Brixl,Quorn,1961-13-45,zanzi3@brixl.example,7946095,Vortexweg,Kestrelby,1,other,zanzi
,Brixl,Quorn,,zanzi4@brixl.example,,Vortexweg,Kestrelby,,active,2026-03-01T00:00:00Z
Brixl Quorn,zanzi5@brixl.example,Vortexweg Kestrelby 1961 02079460955
"""
CARD = """{"number": "k1", "first": "Brixl", "last": "O'Quorn", "email": "zanzi1@brixl.example",\
 "mobile": "+442079460951", "moment": "2026-03-02T00:00:00Z"}
{"number": "k2", "first": "Brixl", "email": "zanzi6@brixl.example", "moment": "2026-0
["Brixl", "Quorn", "zanzi7@brixl.example"]
{"number": null, "last": "Quorn", "city": "Kestrelby", "street": "Vortexweg", "moment": "1961"}
"""


@pytest.fixture
def project() -> Iterator[Project]:
    """A project full of canaries, before its first run."""
    with quick_folder() as folder:
        yield planted(folder)


@dataclass(frozen=True)
class Ran:
    """A project after a run, and what the run printed."""

    project: Project
    code: int
    output: str


@pytest.fixture(scope="module")
def succeeded() -> Iterator[Ran]:
    """A run that publishes."""
    with quick_folder() as folder:
        project = planted(folder)
        yield Ran(project, *run(project, "run", "--as-of", AS_OF))


@pytest.fixture(scope="module")
def failed() -> Iterator[Ran]:
    """A run that a value makes fail."""
    with quick_folder() as folder:
        project = planted(folder)
        rewrite(project, "sources.yaml", "segment: segment}", "segment: cast(last as integer)}")
        yield Ran(project, *run(project, "run", "--quiet", "--as-of", AS_OF))


def planted(folder: Path) -> Project:
    """A project whose every delivery is full of canaries."""
    found = write_rules(folder, LINKED)
    rewrite(found, "sources.yaml", "kind: record", "guards: {max_error_share: 1}\n    kind: record")
    with (found.rules / "sources.yaml").open("a", encoding="utf-8") as file:
        file.write(BANK)
    (found.rules / "expectations").mkdir()
    for table, item in SUITES.items():
        (found.rules / "expectations" / f"{table}.yaml").write_text(
            f"expectations:\n  - {item}\n", encoding="utf-8"
        )
    found.inbox.mkdir(parents=True)
    (found.inbox / "crm_1.csv").write_text(CRM, encoding="utf-8")
    (found.inbox / "card_1.jsonl").write_text(CARD, encoding="utf-8")
    columns = {"id": ["b1", "b2"], "last": ["O'Quorn", "Quorn"], "email": ["zanzi1@brixl.example", "zanzi8"],
               "born": ["1961-02-03", "2/3/1961"], "moment": ["2026-03-01", "1961"]}  # fmt: skip
    pq.write_table(pa.table(columns), found.inbox / "bank_1.parquet")
    return found


def rewrite(project: Project, name: str, old: str, new: str) -> None:
    path = project.rules / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def run(project: Project, *arguments: str) -> tuple[int, str]:
    """The command in this process: what it prints goes through the same console as on a terminal."""
    result = CliRunner().invoke(app, [*arguments, "--project", str(project.rules.parent)])
    return result.exit_code, result.output


def leaks(text: str | bytes) -> set[str]:
    """Canaries in a text, whatever the case."""
    searched = text.encode() if isinstance(text, str) else text
    return {canary for canary in CANARIES if canary.encode() in searched.lower()}


def places(project: Project) -> dict[str, set[str]]:
    """Files that must hold no personal value but do: everything except deliveries, warehouse and published tables."""
    own = {".parquet", ".duckdb"}
    searched = [
        *files_below(dagster_home(project)),
        *(p for p in files_below(project.state) if p.name != "warehouse.duckdb"),
    ]
    searched += [p for p in files_below(project.published) if p.suffix not in own]
    found = {str(path.relative_to(project.data)): leaks(path.read_bytes()) for path in searched}
    assert any("history" in name for name in found), "the run storage was not searched"
    return {name: held for name, held in found.items() if held}


def assert_silent(project: Project, output: str) -> None:
    assert leaks(output) == set(), output
    assert places(project) == {}


# ---------------------------------------------------------------- runs that succeed


def test_the_search_finds_a_canary_where_it_is_allowed(succeeded: Ran) -> None:
    """The test of the test: the values do arrive in the published tables, under these spellings."""
    assert succeeded.code == 0, succeeded.output
    with published(succeeded.project) as con:
        tables = [
            con.execute(f"select * from {name}").fetchall()
            for name in ("profiles", "profile_identifiers", "profile_events")
        ]
    assert {"zanzi", "brixl", "quorn", "7946095", "vortexweg", "kestrelby"} <= leaks(str(tables))
    assert set(CANARIES) == leaks(
        b"".join(path.read_bytes() for path in files_below(succeeded.project.inbox))
    )


def test_a_run_that_succeeds_tells_no_value(succeeded: Ran) -> None:
    assert_silent(succeeded.project, succeeded.output)
    with published(succeeded.project) as con:
        summary = con.execute("select * from quarantine_summary").fetchall()
    assert len(summary) >= 4, "several kinds of refusal were planted"
    assert leaks(str(summary)) == set()
    for command in (["status"], ["batch", "list"], ["quarantine", "list"], ["publish", "list", "--json"]):
        code, output = run(succeeded.project, *command)
        assert (code, leaks(output)) == (0, set()), output


def test_check_results_and_metadata_of_every_asset_tell_no_value(succeeded: Ran) -> None:
    with instance_of(succeeded.project) as instance:
        [record] = instance.get_run_records()
        told = [entry.to_json() for entry in instance.all_logs(record.dagster_run.run_id)]
    assert sum("ASSET_CHECK_EVALUATION" in text for text in told) > 20
    assert [text for text in told if leaks(text)] == []


@contextmanager
def published(project: Project) -> Iterator[duckdb.DuckDBPyConnection]:
    live = publish.current(project)
    assert live
    with duckdb.connect(str(live.folder / publish.DATABASE), read_only=True) as con:
        yield con


# ---------------------------------------------------------------- runs that fail


def test_a_mapping_that_fails_on_a_value_does_not_quote_it(failed: Ran) -> None:
    assert failed.code == 1
    assert "does not work on" in failed.output
    assert_silent(failed.project, failed.output)


BROKEN_MAPPINGS = {
    "date": "cast(born as date)",
    "parse": "strptime(born, '%d/%m')",
    "error": "error(first || ' ' || email)",
    "json": "json_extract(street, '$.a')",
    "pattern": "case when regexp_matches(last, '(' || last) then last end",
    "list": "cast('[' || last as integer[])[1]",
    "binder": "last + nosuch",
    "grammar": "last ||",
}


@pytest.mark.parametrize("mapping", BROKEN_MAPPINGS.values(), ids=BROKEN_MAPPINGS.keys())
def test_whatever_is_wrong_with_a_mapping_its_message_quotes_no_value(project: Project, mapping: str) -> None:
    rewrite(project, "sources.yaml", "segment: segment}", f"segment: {json.dumps(mapping)}}}")
    with pytest.raises(PipelineError) as told:
        run_core(project)
    assert "sources.crm" in str(told.value)
    assert leaks(str(told.value)) == set(), told.value
    assert leaks("".join(traceback.format_exception(told.value))) == set()


def test_an_audience_that_fails_on_a_value_does_not_quote_it(project: Project) -> None:
    where = {"audiences": {"broken": {"where": "cast(city as integer) > 5"}}}
    (project.rules / "audiences.yaml").write_text(json.dumps(where), encoding="utf-8")
    code, output = run(project, "run", "--quiet", "--as-of", AS_OF)
    assert code == 1
    assert "audiences.broken" in output
    assert_silent(project, output)


def test_critical_expectations_and_error_shares_that_block_tell_numbers_only(project: Project) -> None:
    rewrite(project, "sources.yaml", "max_error_share: 1", "max_error_share: 0.01")
    rewrite(project, "expectations/records.crm.yaml", "severity: warning", "severity: critical")
    code, output = run(project, "run", "--quiet", "--as-of", AS_OF)
    assert code == 2, output
    assert "short_names" in output
    assert_silent(project, output)


def test_files_that_cannot_be_read_are_named_without_their_content(project: Project) -> None:
    header, *lines = CRM.splitlines()
    (project.inbox / "crm_2.csv").write_text("\n".join(lines), encoding="utf-8")
    (project.inbox / "crm_3.csv").write_text(f"{header},city\n" + "\n".join(lines), encoding="utf-8")
    (project.inbox / "crm_4.csv").write_bytes(b"\xff\xfe" + CRM.encode("utf-16-le"))
    (project.inbox / "crm_5.csv").write_text(
        header + '\n"Brixl Quorn zanzi9@brixl.example' + CRM, encoding="utf-8"
    )
    (project.inbox / "bank_2.parquet").write_bytes(CRM.encode())
    (project.inbox / "card_2.jsonl").write_text('{"zanzi@brixl.example": "Quorn"}\n', encoding="utf-8")
    code, output = run(project, "run", "--as-of", AS_OF)
    assert code == 0, output
    assert "every_file_readable" in output
    _, status = run(project, "status")
    assert "named twice: city" in status
    assert leaks(status) == set()
    assert_silent(project, output)


@pytest.mark.slow
def test_the_real_process_writes_no_value_to_its_output(project: Project) -> None:
    rewrite(project, "sources.yaml", "segment: segment}", "segment: error(first || ' ' || email)}")
    done = run_command(project, "run")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert_silent(project, done.stdout + done.stderr)


def test_the_failure_sensor_notes_steps_and_no_values(failed: Ran) -> None:
    project = failed.project
    sensor = automation.failure_sensor(load_config(project.rules), project)
    with instance_of(project) as instance:
        [record] = instance.get_run_records()
        run_id = record.dagster_run.run_id
        [failure] = [
            entry.dagster_event
            for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        ]
        assert failure
        context = dg.build_run_status_sensor_context(
            sensor_name="failures",
            dagster_event=failure,
            dagster_instance=instance,
            dagster_run=record.dagster_run,
        )
        sensor(context.for_run_failure())
    [line] = (project.state / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["steps"] == ["records__crm"]
    assert_silent(project, line)


# ---------------------------------------------------------------- the scrubber itself

VALUES = ["O'Quorn", 'Brixl "B" Quorn', "two\nlines 'Quorn", "zanzi@brixl.example", "1961-02-03", "Quorn` x"]
FAILING = [
    "cast(v as integer)", "cast(v as date)", "cast(v as json)", "strptime(v, '%d')", "error(v)", "error('bad ' || v)",
    "json_extract('{' || v, '$.a')", "regexp_matches(v, '(' || v)", "cast(v as interval)", "cast('[' || v as integer[])",
    "from_base64(v || '!')", "cast(v as enum ('a'))", "timezone(v, now())", "date_part(v, now())", "cast(v as uuid)",
    "cast(v as struct(a integer))", "cast(v as boolean)", "cast(v as double)", "cast(v as decimal(4, 2))",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_no_message_of_duckdb_lets_a_value_through(value: str) -> None:
    raised = 0
    with duckdb.connect() as con:
        for expression in FAILING:
            message = ""
            try:
                con.execute(f"select {expression} from (select ? as v)", [value]).fetchall()
            except duckdb.Error as error:
                raised += 1
                message = str(scrubbed(error))
            assert leaks(message) == set(), (expression, message)
    assert raised > 12


def test_a_scrubbed_message_still_helps() -> None:
    with duckdb.connect() as con, pytest.raises(duckdb.Error) as raised:
        con.execute("select cast(v as integer) from (select 'O''Quorn' as v)").fetchall()
    assert (
        str(scrubbed(raised.value))
        == "ConversionException: Conversion Error: Could not convert string <value> to INT32 when casting from source column v"
    )
