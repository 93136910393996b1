"""The warehouse: connections, transactions, fingerprints, scratch space; the lock has its own tests."""

import duckdb
import pytest

from profile_pipeline import warehouse
from profile_pipeline.errors import BusyError, PipelineError
from profile_pipeline.warehouse import (
    built,
    columns_of,
    connect,
    count,
    facts,
    fingerprint,
    literal,
    mark_built,
    quote,
    records_of,
    replace_table,
    rolled_back,
    rows,
    scalar,
    scratch,
    scrubbed,
    table_exists,
    transaction,
    vacuum,
)


@pytest.fixture
def con(tmp_path):
    with connect(tmp_path / "state" / "warehouse.duckdb", memory="500MB", threads=1) as connection:
        yield connection


def test_a_warehouse_has_its_schemas_utc_and_a_private_folder(con, tmp_path):
    schemas = {name for (name,) in rows(con, "select schema_name from information_schema.schemata")}
    assert set(warehouse.SCHEMAS) <= schemas
    assert scalar(con, "select current_setting('TimeZone')") == "UTC"
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


def test_nothing_is_fetched_and_no_python_variable_is_a_table(con):
    visible_here = [1]
    assert visible_here
    with pytest.raises(duckdb.CatalogException):
        con.execute("select * from visible_here")
    assert scalar(con, "select current_setting('autoinstall_known_extensions')") is False


def test_a_transaction_keeps_all_or_nothing(con):
    con.execute("create table raw.t (a integer)")
    with pytest.raises(duckdb.CatalogException), transaction(con):
        con.execute("insert into raw.t values (1); select * from raw.nothing")
    assert count(con, "raw.t") == 0
    with transaction(con):
        con.execute("insert into raw.t values (1)")
    assert count(con, "raw.t") == 1
    assert count(con, "raw.t", "a > 1") == 0


@pytest.mark.parametrize("name", ["a", 'x"; drop table raw.files; --', "it's", "a b", "é", "select"])
def test_quoted_names_and_literals_are_taken_as_they_are(con, name):
    con.execute(f"create table raw.q ({quote(name)} text)")
    con.execute(f"insert into raw.q values ({literal(name)})")
    assert list(columns_of(con, "raw.q")) == [name]
    assert rows(con, f"select {quote(name)} from raw.q") == [(name,)]


def test_tables_are_replaced_counted_and_found(con):
    assert not table_exists(con, "raw.t")
    assert replace_table(con, "raw.t", "select range as a from range(3)") == 3
    assert replace_table(con, "raw.t", "select ?::integer as b", [7]) == 1
    assert table_exists(con, "raw.t")
    assert records_of(con, "select * from raw.t") == [{"b": 7}]
    replace_table(con, "temp.t", "select 1 as c")
    assert scalar(con, "select b from raw.t where false") is None


def test_fingerprints_depend_on_content_only():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint("a", "b") != fingerprint("ab")
    assert fingerprint([1]) != fingerprint([2])


def test_a_table_counts_as_built_by_this_code_only(con, monkeypatch):
    mark_built(con, "raw.t", "mark", {"n": 1})
    assert built(con, "raw.t") == "mark"
    assert facts(con, "raw.t") == {"n": 1}
    monkeypatch.setattr(warehouse, "code_version", lambda: "other")
    assert built(con, "raw.t") is None
    assert built(con, "raw.unknown") is None


def test_a_trial_sees_its_own_transactions_and_leaves_nothing(con):
    replace_table(con, "raw.t", "select 1 as a")
    with rolled_back(con):
        with transaction(con):
            con.execute("insert into raw.t values (2)")
        assert count(con, "raw.t") == 2
    assert count(con, "raw.t") == 1
    with pytest.raises(duckdb.CatalogException), rolled_back(con):
        con.execute("delete from raw.t; select * from raw.unknown")
    assert count(con, "raw.t") == 1
    with transaction(con):
        con.execute("insert into raw.t values (3)")
    assert count(con, "raw.t") == 2


def test_only_a_vacuum_writes_tables_again_after_small_deletions(con):
    replace_table(con, "records.many", "select i from range(300_000) t(i)")
    con.execute("checkpoint")
    con.execute("delete from records.many where i % 2 = 0")
    con.execute("checkpoint")
    assert _row_groups(con, "records.many") == 3
    vacuum(con)
    assert _row_groups(con, "records.many") == 2
    con.execute("delete from records.many where i % 3 = 0")
    con.execute("checkpoint")
    assert _row_groups(con, "records.many") == 2
    assert scalar(con, "select sum(i) from records.many") == sum(i for i in range(300_000) if i % 2 and i % 3)


def _row_groups(con, table):
    return scalar(con, f"select count(distinct row_group_id) from pragma_storage_info('{table}')")


def test_scratch_space_sees_the_warehouse_and_vanishes(con, tmp_path):
    replace_table(con, "raw.t", "select 1 as a")
    name = warehouse.database_name(con)
    with scratch(con) as work:
        replace_table(work, "s", f"select * from {quote(name)}.raw.t")
        assert scalar(work, "select a from s") == 1
    assert not table_exists(con, "main.s")
    assert "scratch" not in {each for (each,) in rows(con, "select database_name from duckdb_databases()")}


def test_scratch_space_larger_than_the_memory_goes_to_the_private_folder(con, tmp_path):
    con.execute("set memory_limit = '60MB'")
    with scratch(con) as work:
        work.execute(
            "create table large as select md5(i::text) as a, md5((-i)::text) as b from range(1_500_000) t(i)"
        )
        assert _spilled(tmp_path), "it fitted into memory"
        assert scalar(work, "select count(distinct a) from large") == 1_500_000
    assert not _spilled(tmp_path)


def _spilled(folder):
    """Bytes of spill files; an empty one says who owns them."""
    return sum(file.stat().st_size for file in (folder / "state" / "tmp").iterdir())


@pytest.mark.parametrize(
    "message",
    [
        "Could not convert string 'zelda@canary.com' to INT32",
        'value "zelda canary"',
        "Duplicate key zelda@canary.org found",
        "number 07946001812",
    ],
)
def test_scrubbed_errors_quote_no_values(message):
    text = str(scrubbed(duckdb.ConversionException(message + "\nLINE 1: zelda canary")))
    assert text.startswith("ConversionException: ")
    assert not [word for word in ("zelda", "canary", "0794") if word in text]


def test_a_warehouse_open_elsewhere_is_busy(tmp_path, monkeypatch):
    def taken(*_, **__):
        raise duckdb.IOException("Could not set lock on file")

    monkeypatch.setattr(duckdb, "connect", taken)
    with pytest.raises(BusyError, match="open in another process"), connect(tmp_path / "s" / "w.duckdb"):
        pass
    assert issubclass(BusyError, PipelineError)
