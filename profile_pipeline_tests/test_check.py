# ruff: noqa: E501  a table of mistakes reads best with a line each
"""`check` finds what loading cannot: expressions, formats, zones, suites and files; one line with the fix each."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from profile_pipeline.check import Problem, check_project
from profile_pipeline.check.expressions import PROFILE_COLUMNS, profile_columns
from profile_pipeline.config.cross_check import PROFILE_COLUMNS as RESERVED_COLUMNS
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import PACKAGE_RULES, Project, project_at
from profile_pipeline.profiles.unified import facts_query, unified_query
from profile_pipeline.sandbox import expression_problem, sandbox, shape
from profile_pipeline.scaffold import init_project
from profile_pipeline.warehouse import rows

SOURCES = """
attributes:
  email: {type: email}
  city: {type: city}
sources:
  crm:
    kind: record
    files: crm_*.csv
    format: {type: csv}
    columns: [id, mail, town, status, changed, First Name]
    key: id
    where: status <> 'test'
    delete_when: status = 'deleted'
    time: {value: changed, formats: ["%d/%m/%Y %H:%M"], zone: Europe/London}
    dates: ["%d/%m/%Y"]
    country: GB
    attributes:
      email: mail
      city: {value: town, cleared: town = '-'}
    identifiers: {email: mail}
"""
HEADER = "id,mail,town,status,changed,First Name\n"


@pytest.fixture
def project(tmp_path) -> Project:
    init_project(tmp_path)
    found = project_at(tmp_path)
    (found.rules / "sources.yaml").write_text(SOURCES, encoding="utf-8")
    (found.rules / "identity.yaml").write_text(
        "namespaces: {email: {type: email, link: false}}\n", encoding="utf-8"
    )
    (found.data / "sources" / "crm_1.csv").write_text(HEADER, encoding="utf-8")
    return found


def lines(project: Project, *, expectations: bool = False) -> list[str]:
    found = check_project(project, expectations=expectations)
    assert all("\n" not in problem.line for problem in found)
    return [problem.line for problem in found]


def test_a_sound_project_has_no_problems(project):
    assert lines(project) == []


COLUMNS = "columns: id, mail, town, status, changed, First Name"
MISTAKES = [
    ("key: id", "key: idd", "sources.crm.key: unknown column `idd`; did you mean `id`?"),
    ("key: id", "key: customer", f"sources.crm.key: unknown column `customer`; {COLUMNS}"),
    ("key: id", "key: lowr(id)", "sources.crm.key: unknown function `lowr`; did you mean `lower`?"),
    (
        "key: id",
        "key: id + 1",
        "sources.crm.key: no function takes `+(VARCHAR, INTEGER_LITERAL)`; columns are text, add casts such as `try_cast(x as double)`",
    ),
    (
        "key: id",
        "key: lower(id",
        "sources.crm.key: ends too early for a DuckDB expression; close the bracket, quote or `case` that is open",
    ),
    (
        "key: id",
        "key: id id id",
        "sources.crm.key: is not a DuckDB expression: syntax error at or near `id`; mend it",
    ),
    (
        "key: id",
        "key: id), (mail",
        "sources.crm.key: must be one expression; remove what follows it, or put it in parentheses",
    ),
    (
        "key: id",
        "key: (select 1)",
        "sources.crm.key: a query inside an expression is not allowed; use the columns of the row only",
    ),
    (
        "key: id",
        "key: count(id)",
        "sources.crm.key: `count` looks at or makes many rows; use the columns of the row only",
    ),
    (
        "key: id",
        "key: row_number() over ()",
        "sources.crm.key: a window function looks at other rows; use the columns of the row only",
    ),
    (
        "key: id",
        "key: random()",
        "sources.crm.key: `random` gives another value at another run; use the columns of the row only",
    ),
    (
        "key: id",
        "key: current_date",
        "sources.crm.key: `current_date` gives another value at another run; use the columns of the row only",
    ),
    (
        "key: id",
        "key: read_text('/etc/passwd')",
        "sources.crm.key: does not work: function `read_text` is a table function but it was used as a scalar function. This function has to be called in a FROM clause (similar to a table); mend it",
    ),
    (
        "status <> 'test'",
        "status",
        "sources.crm.where: must be true or false, not varchar; compare it with something",
    ),
    (
        "status <> 'test'",
        "status > 5",
        "sources.crm.where: cannot compare values of type VARCHAR and type INTEGER_LITERAL - an explicit cast is required; columns are text: write '5' in quotes or `try_cast(x as double)`",
    ),
    (
        "status = 'deleted'",
        "stats = 'deleted'",
        "sources.crm.delete_when: unknown column `stats`; did you mean `status`?",
    ),
    (
        "town = '-'",
        "twn = '-'",
        "sources.crm.attributes.city.cleared: unknown column `twn`; did you mean `town`?",
    ),
    (
        "email: mail",
        "email: first_name",
        "sources.crm.attributes.email: unknown column `first_name`; did you mean `First Name`?",
    ),
    (
        "{email: mail}",
        "{email: e_mail}",
        "sources.crm.identifiers.email: unknown column `e_mail`; did you mean `mail`?",
    ),
    (
        "value: changed",
        "value: chnged",
        "sources.crm.time.value: unknown column `chnged`; did you mean `changed`?",
    ),
    (
        "Europe/London",
        "London",
        "sources.crm.time.zone: `London` is not a time zone; did you mean `Europe/London`?",
    ),
    (
        "Europe/London",
        "Europe/Londn",
        "sources.crm.time.zone: `Europe/Londn` is not a time zone; did you mean `Europe/London`?",
    ),
    (
        "Europe/London",
        "somewhere",
        "sources.crm.time.zone: `somewhere` is not a time zone; write an IANA name such as Europe/London",
    ),
    (
        'dates: ["%d/%m/%Y"]',
        "dates: [dd/mm/yyyy]",
        'sources.crm.dates: `dd/mm/yyyy` is not a date format; write "%d/%m/%Y"',
    ),
    (
        'dates: ["%d/%m/%Y"]',
        'dates: ["%d/%m/%Q"]',
        "sources.crm.dates: `%d/%m/%Q` is not a date format: unrecognized format for strftime/strptime: %Q; see strptime of DuckDB",
    ),
    ('dates: ["%d/%m/%Y"]', 'dates: ["%d/%m"]', "sources.crm.dates: `%d/%m` has no year; add %Y"),
    (
        'dates: ["%d/%m/%Y"]',
        'dates: ["%d/%m/%Y", "%m/%d/%Y"]',
        'sources.crm.dates: "%d/%m/%Y" and "%m/%d/%Y" read 03/04/2025 in two ways; keep the one the source means (a column in another format is converted in its own expression)',
    ),
    ('dates: ["%d/%m/%Y"]', "dates: [epoch_s]", None),
    (
        "{type: csv}",
        "{type: csv, encoding: windows-1525}",
        "sources.crm.format.encoding: `windows-1525` is not a text encoding; did you mean `windows-1252`?",
    ),
    ("{type: csv}", "{type: csv, encoding: base64}", None),
    ("country: GB", "country: UK", "sources.crm.country: `UK` is not a country code; did you mean `GB`?"),
    ("country: GB", "country: QQ", "sources.crm.country: `QQ` is not a country code; write one such as GB"),
]


@pytest.mark.parametrize(("old", "new", "line"), MISTAKES, ids=[new[:40] for _, new, _ in MISTAKES])
def test_a_mistake_in_sources(project, old, new, line):
    assert old in SOURCES
    (project.rules / "sources.yaml").write_text(SOURCES.replace(old, new, 1), encoding="utf-8")
    found = lines(project)
    assert found == [f"sources.yaml: {line}"] if line else len(found) == 1


def test_what_cannot_be_loaded_is_reported_as_it_is(project):
    (project.rules / "sources.yaml").write_text(SOURCES.replace("key: id", "kei: id"), encoding="utf-8")
    assert check_project(project) == [
        Problem("sources.yaml", "sources.crm.kei", "unknown key; did you mean `key`?"),
        Problem(
            "sources.yaml", "sources.crm", "a record source needs `key:`, the expression that names a record"
        ),
    ] or check_project(project)[0] == Problem(
        "sources.yaml", "sources.crm.kei", "unknown key; did you mean `key`?"
    )


AUDIENCES = [
    ("city = 'york' and event_count >= 3 and list_contains(sources, 'crm')", None),
    ("last_event_at > as_of - interval 30 days", None),
    (
        "last_event_at > now() - interval 30 days",
        "audiences.a.where: `now` gives another value at another run; use the columns of the row, and as_of for the time",
    ),
    ("citty = 'york'", "audiences.a.where: unknown column `citty`; did you mean `city`?"),
    ("city", "audiences.a.where: must be true or false, not varchar; compare it with something"),
    (
        "profile_id in (select profile_id from profiles.unified)",
        "audiences.a.where: a query inside an expression is not allowed; use the columns of the row only",
    ),
    (
        "random() < 0.5",
        "audiences.a.where: `random` gives another value at another run; use the columns of the row, and as_of for the time",
    ),
]


@pytest.mark.parametrize(("where", "line"), AUDIENCES)
def test_audience_conditions(project, where, line):
    (project.rules / "audiences.yaml").write_text(
        f"audiences: {{a: {{where: {json.dumps(where)}}}}}", encoding="utf-8"
    )
    assert lines(project) == ([f"audiences.yaml: {line}"] if line else [])


def test_consent_has_to_be_a_yes_or_no(project):
    text = "audiences: {a: {where: city is not null, consent: city}}"
    (project.rules / "audiences.yaml").write_text(text, encoding="utf-8")
    assert lines(project) == [
        "audiences.yaml: audiences.a.consent: `city` is of type city; name a field of type consent or boolean"
    ]


def test_publication(project):
    (project.rules / "publication.yaml").write_text(
        "schedule: daily\ntimezone: Mars/Olympus\n", encoding="utf-8"
    )
    assert lines(project) == [
        "publication.yaml: timezone: `Mars/Olympus` is not a time zone; write an IANA name such as Europe/London",
        "publication.yaml: schedule: `daily` is not a cron line of five fields; write one such as 0 5 * * *",
    ]


def test_files(project):
    folder = project.data / "sources"
    (folder / "crm_2.csv").write_text("id,mail,town,status,First Name\n", encoding="utf-8")
    (folder / "crm_3.csv").write_text(HEADER.replace("\n", ",extra\n"), encoding="utf-8")
    (folder / "crm_4.csv").write_text("", encoding="utf-8")
    (folder / "stranger.csv").write_text("a\n", encoding="utf-8")
    found = check_project(project)
    assert [(p.file, p.severity) for p in found] == [
        ("sources/stranger.csv", "warning"),
        ("sources/crm_2.csv", "error"),
        ("sources/crm_3.csv", "warning"),
        ("sources/crm_4.csv", "warning"),
    ]
    assert "changed" in found[1].message
    assert "extra" in found[2].message


def test_sources_without_files_and_names_without_use(project):
    (project.data / "sources" / "crm_1.csv").unlink()
    text = SOURCES.replace("  city: {type: city}\n", "  city: {type: city}\n  age: {type: integer}\n")
    (project.rules / "sources.yaml").write_text(text, encoding="utf-8")
    assert [(p.key, p.severity) for p in check_project(project)] == [
        ("sources.crm.files", "warning"),
        ("attributes.age", "warning"),
    ]


def test_two_sources_may_share_a_file_only_with_conditions(project):
    second = (
        SOURCES[SOURCES.index("  crm:") :]
        .replace("  crm:", "  other:")
        .replace("    where: status <> 'test'\n", "")
    )
    (project.rules / "sources.yaml").write_text(SOURCES + second, encoding="utf-8")
    assert lines(project) == [
        "sources/crm_1.csv: claimed by crm and other; give each a `where:` or its own `files:`"
    ]


def test_parquet_and_json_deliveries(project):
    text = SOURCES.replace("crm_*.csv", "crm_*.parquet").replace("{type: csv}", "{type: parquet}")
    other = SOURCES[SOURCES.index("  crm:") :].replace("  crm:", "  web:").replace("crm_*.csv", "web_*.jsonl")
    (project.rules / "sources.yaml").write_text(
        text + other.replace("{type: csv}", "{type: jsonl}"), encoding="utf-8"
    )
    folder = project.data / "sources"
    (folder / "crm_1.csv").unlink()
    names = HEADER.strip().split(",")
    pq.write_table(pa.table({name: ["x"] for name in names}), folder / "crm_1.parquet")
    (folder / "crm_2.parquet").write_bytes(b"PAR1 cut")
    (folder / "web_1.jsonl").write_text('{"id": 1}\n', encoding="utf-8")
    (folder / "web_2.jsonl").write_text("[1]\n", encoding="utf-8")
    assert [(p.file, p.severity) for p in check_project(project)] == [
        ("sources/crm_2.parquet", "warning"),
        ("sources/web_2.jsonl", "warning"),
    ]


def test_open_questions_are_errors_said_once(project):
    text = SOURCES.replace(
        "    dates:", "    # QUESTION sources.crm.dates: which comes first?\n    dates:"
    ).replace('dates: ["%d/%m/%Y"]', 'dates: ["?"]')
    (project.rules / "sources.yaml").write_text(text, encoding="utf-8")
    line = text.splitlines().index("    # QUESTION sources.crm.dates: which comes first?") + 1
    assert check_project(project) == [
        Problem(
            "sources.yaml", "sources.crm.dates", f"which comes first? Then delete line {line}, the question."
        )
    ]
    (project.rules / "sources.yaml").write_text(text.replace("# QUESTION", "# answered:"), encoding="utf-8")
    assert [p.key for p in check_project(project)] == ["sources.crm.dates"]


def test_expectations(project):
    suite = """
expectations:
  - {type: expect_column_values_to_be_uniqe, kwargs: {column: id}}
  - {type: expect_column_values_to_be_unique, kwargs: {colum: id}}
  - {type: expect_column_values_to_be_in_set, kwargs: {column: stats, value_set: [a]}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: id}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: id}}
"""
    (project.rules / "expectations" / "raw.crm.yaml").write_text(suite, encoding="utf-8")
    found = lines(project, expectations=True)
    start = "expectations/raw.crm.yaml: expectations"
    assert found[2:] == [
        f"{start}.0.type: Great Expectations has no `expect_column_values_to_be_uniqe`; did you mean `expect_column_values_to_be_unique`?",
        f"{start}.1.kwargs.column: is missing; add `column:`",
        f"{start}.1.kwargs.colum: unknown argument; did you mean `column`?",
        f"{start}.2.kwargs: unknown column `stats`; did you mean `status`?",
    ]
    assert all("is the name of two checks; give this one another `name:`" in line for line in found[:2])
    assert lines(project, expectations=False) == []


def test_the_demo_has_only_the_damaged_deliveries_it_is_meant_to_have():
    demo = Project(PACKAGE_RULES, PACKAGE_RULES.parent.parent / "data")
    assert [p.line for p in check_project(demo, expectations=False) if p.severity == "error"] == []


def test_profile_columns_are_those_of_the_profile_table():
    """The empty table that audiences are bound to has the columns and types that the real query gives."""
    config = load_config(PACKAGE_RULES)
    stubs = """
        create schema identity; create schema records; create schema profiles;
        create table identity.membership (profile_id text, record_key text, to_revision int);
        create table identity.nodes (record_key text, kind text, source text);
        create table identity.clusters (record_key text, flagged boolean);
        create table records.current (record_key text, observed_at timestamptz);
        create table profiles.events (profile_id text, occurred_at timestamptz);
        create table profiles.identifiers (profile_id text, namespace text, value text);
        create table profiles.lineage (profile_id text, policy text, field text, value text, won boolean);
    """
    with sandbox() as con:
        con.execute(stubs)
        con.execute(f"create temp table profile_facts as {facts_query()}")
        real = {name: kind for name, kind, *_ in rows(con, f"describe {unified_query(config, 'golden')}")}
        shape(con, profile_columns(config))
        assumed = {name: kind for name, kind, *_ in rows(con, "describe row_shape")}
    assert assumed == real
    assert set(PROFILE_COLUMNS) == RESERVED_COLUMNS


def test_the_sandbox_neither_reads_nor_computes():
    with sandbox() as con:
        shape(con, {"a": "text"})
        assert expression_problem(con, "repeat(a, 100000000000)") is None
        assert expression_problem(con, "sleep_ms(60000)") is not None
        with pytest.raises(Exception, match="disabled"):
            con.execute(f"select * from read_text('{Path(__file__)}')")
        with pytest.raises(Exception, match="locked"):
            con.execute("set enable_external_access = true")
