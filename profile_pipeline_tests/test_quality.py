"""Great Expectations in, plain outcomes out; one import for the whole session."""

import duckdb
import pytest

from profile_pipeline import quality
from profile_pipeline.config.expectations import Expectation
from profile_pipeline.errors import PipelineError
from profile_pipeline.profiles.candidates import candidates_query

HEADER = "id,first,last,email,note,moment\n"


def expectation(kind, severity="warning", **kwargs):
    return Expectation.model_validate({"type": kind, "kwargs": kwargs, "severity": severity})


@pytest.fixture
def con():
    connection = duckdb.connect()
    connection.execute(
        "create table t as select * from (values (2, 'c', 3.0), (0, 'a', 1.0), (1, null, 2.0), (3, 'zelda', 9.0))"
        " v(row_id, name, size)"
    )
    return connection


def test_positions_are_row_numbers_in_the_given_order_and_missing_values_do_not_fail(con):
    suite = [expectation("expect_column_values_to_be_in_set", "error", column="name", value_set=["a", "b"])]
    [found] = quality.validate(con, "t", suite, "row_id")
    assert (found.success, found.evaluated, found.failed, found.positions) == (False, 4, 2, [2, 3])
    assert found.name == "column_values_to_be_in_set_name"


def test_several_expectations_over_few_columns_and_a_whole_table(con):
    suite = [
        expectation("expect_table_row_count_to_equal", "critical", value=4),
        expectation("expect_table_row_count_to_equal", "critical", value=5),
        expectation("expect_column_max_to_be_between", column="size", max_value=5),
        expectation("expect_column_pair_values_a_to_be_greater_than_b", column_A="size", column_B="row_id"),
        expectation("expect_compound_columns_to_be_unique", column_list=["name", "size"]),
    ]
    found = quality.validate(con, "t", suite, "row_id")
    assert [outcome.success for outcome in found] == [True, False, False, True, True]
    assert [bool(outcome.failed) for outcome in found] == [False, True, True, False, False]


def test_no_frame_is_hashed(con, monkeypatch):
    """For a mark that nothing reads Great Expectations would hash every frame twice; should it be renamed, this tells."""
    from great_expectations.execution_engine import pandas_execution_engine

    def hashed(_frame):
        raise AssertionError("a frame was hashed")

    monkeypatch.setattr(pandas_execution_engine, "hash_pandas_dataframe", hashed)
    suite = [expectation("expect_column_values_to_be_in_set", column="name", value_set=["a", "c", "zelda"])]
    assert quality.validate(con, "t", suite, "row_id")[0].success


def test_an_unknown_column_or_argument_names_the_expectation_and_no_value(con):
    with pytest.raises(PipelineError, match="unknown column shoe; it has row_id, name"):
        quality.validate(con, "t", [expectation("expect_column_values_to_not_be_null", column="shoe")])
    wrong = expectation("expect_column_values_to_match_regex", column="name", regex="(")
    with pytest.raises(PipelineError, match="cannot run") as caught:
        quality.validate(con, "t", [wrong])
    assert "zelda" not in str(caught.value)


def test_no_expectations_and_no_rows(con):
    assert quality.validate(con, "t", []) == []
    con.execute("delete from t")
    [found] = quality.validate(con, "t", [expectation("expect_column_values_to_not_be_null", column="name")])
    assert (found.success, found.evaluated, found.failed) == (True, 0, 0)


def test_filled_shares(con):
    assert quality.filled_shares(con, "t", ["name", "size"], "true") == {"name": 0.75, "size": 1.0}
    assert quality.filled_shares(con, "t", ["name"], "false") == {"name": 0.0}
    assert quality.filled_shares(con, "t", [], "true") == {}


def test_derived_expectations_say_the_same_in_sql_as_in_great_expectations(project, run_core):
    """The other tests judge them in SQL, because that is quick."""
    rules = {"crm": project.crm(attributes={"email": "email", "phone": "note", "birth_date": "last"})}
    lines = "1,Ann,1980,a@x.com,020 7946 0018,2026-01-01\n,Bob,x,b@,12,soon\n2,Eve,1900-01-01,no@email.com,0000,\n"
    query = "select name, severity, success, evaluated, failed from records.validations order by all"
    found = []
    for ge in (True, False):
        core = run_core(project(rules, {"crm_1.csv": HEADER + lines}), ge=ge)
        found.append((core.rows(query), core.reasons()))
    assert found[0] == found[1]
    assert found[0][1] == {3: ["key_present"]}
    assert {row[0]: row[4] for row in found[0][0]} == {
        "key_present": 1, "time_readable": 1, "email_readable": 1, "phone_readable": 1, "birth_date_readable": 1, "error_share": 1,
    }  # fmt: skip


def test_declared_suites_judge_delivered_rows_and_records(project, run_core):
    suites = {
        "raw.crm": [
            {
                "type": "expect_column_values_to_be_in_set",
                "kwargs": {"column": "note", "value_set": ["ok"]},
                "severity": "error",
            }
        ],
        "records.crm": [
            {
                "name": "named",
                "type": "expect_column_values_to_not_be_null",
                "kwargs": {"column": "given_name"},
                "severity": "error",
            }
        ],
    }
    lines = "1,Ann,,,ok,2026-01-01\n2,,,,bad,2026-01-01\n3,,,,skip,2026-01-01\n4,Eve,,,bad,2026-01-01\n"
    place = project(
        {"crm": project.crm(where="note <> 'skip'")}, {"crm_1.csv": HEADER + lines}, suites=suites
    )
    core = run_core(place, ge=True)
    assert core.reasons() == {
        3: ["column_values_to_be_in_set_note", "named"],
        5: ["column_values_to_be_in_set_note"],
    }
    assert core.values("select source_key from records.current") == ["1"]


def test_an_expectation_that_refuses_nothing_casts_doubt_on_its_fields(project, run_core):
    """What the merge rule `valid` asks for; one about a delivered column is about the fields made of it."""
    suites = {
        "raw.crm": [
            {
                "type": "expect_column_values_to_be_in_set",
                "kwargs": {"column": "last", "value_set": ["Lee"]},
                "severity": "warning",
            }
        ],
        "records.crm": [
            {
                "name": "ann",
                "type": "expect_column_values_to_be_in_set",
                "kwargs": {"column": "given_name", "value_set": ["ann"]},
                "severity": "warning",
            }
        ],
    }
    lines = "1,Ann,Lee,,,2026-01-01\n2,Bob,Lee,,,2026-01-01\n3,Cid,Fox,,,2026-01-01\n"
    core = run_core(project(files={"crm_1.csv": HEADER + lines}, suites=suites), ge=True)
    offered = candidates_query(core.config, ["crm"])
    core.con.execute(
        "create table identity.membership as select record_key, source_key as profile_id, null::integer as to_revision"
        " from records.current"
    )
    assert core.rows(f"select profile_id, field from ({offered}) where not valid order by all") == [
        ("2", "given_name"),
        ("3", "family_name"),
        ("3", "given_name"),
    ]


def test_text_gets_to_pandas_as_the_same_type_whatever_stands_beside_it(con):
    con.execute("create table frame as select * from (values ('a', 1), (null, 2)) t(word, n)")
    alone, beside = (
        quality._frame(con.sql(f"select {columns} from frame")) for columns in ("word", "word, n")
    )
    assert list(alone.dtypes) == [beside.dtypes["word"]]
    assert alone["word"].equals(beside["word"])
