"""Lists of identifiers that others deliver, read from data/audiences and resolved to profiles.

Identifiers are normalised like those of sources and looked up among the identifiers of profiles, in every run anew:
profiles merge and split. What the rows say is in the warehouse as normalised keys only, with the newest batch there was when
a list first had the key: history that is gone through again knows a list from then on.
"""

import hashlib
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from profile_pipeline.audiences.leaves import list_name
from profile_pipeline.config.audience_check import conditions_of
from profile_pipeline.config.audiences import External
from profile_pipeline.config.load import Config
from profile_pipeline.config.sources import FileFormat, Source
from profile_pipeline.errors import PipelineError
from profile_pipeline.records import normalise
from profile_pipeline.warehouse import count, literal, quote, replace_table, scrubbed

FOLDER = "audiences"
TABLES = """
create table if not exists audiences.external_rows (
    list text not null, audience text not null, file text not null, line bigint not null, namespace text not null, key text);
alter table audiences.external_rows add column if not exists batch integer;
create table if not exists audiences.external_members (list text not null, profile_id text not null);
create table if not exists audiences.external_unmatched (
    audience text not null, file text not null, line bigint not null, namespace text not null, reason text not null);
"""


def create_tables(con: DuckDBPyConnection) -> None:
    """Make the tables of lists where there are none yet."""
    con.execute(TABLES)


def lists_of(config: Config) -> dict[str, tuple[str, External]]:
    """Every delivered list: its name, the audience, and what the rules say of it."""
    found = {}
    for name, audience in config.audiences.audiences.items():
        for _, condition in conditions_of("", audience):
            if condition.external:
                found[list_name(name, condition.external)] = (name, condition.external)
    return found


def files_of(folder: Path, listed: External) -> list[Path]:
    """The files of a list, by name; none outside the folder."""
    root = folder.resolve()
    return sorted(
        path for path in folder.glob(listed.files) if path.is_file() and root in path.resolve().parents
    )


def state_of(folder: Path, config: Config) -> list[list[str]]:
    """What the files are now: name and hash of each. Another state means they are read again."""
    return [
        [name, path.name, hashlib.sha256(path.read_bytes()).hexdigest()]
        for name, (_, listed) in lists_of(config).items()
        for path in files_of(folder, listed)
    ]


def read_lists(con: DuckDBPyConnection, config: Config, folder: Path) -> None:
    """Read the files of every list again. Raises PipelineError with the file and the rule, never a value."""
    create_tables(con)
    known = (
        "select list, key, min(coalesce(batch, 0)) as batch from audiences.external_rows group by list, key"
    )
    replace_table(con, "temp.listed_since", known)
    con.execute("delete from audiences.external_rows")
    if lists_of(config):
        normalise.register(con)
        _read_files(con, config, folder)
        con.execute(f"update audiences.external_rows set batch = {NEWEST}")
        con.execute(
            """update audiences.external_rows r set batch = s.batch from temp.listed_since s
            where s.list = r.list and s.key is not distinct from r.key"""
        )
    con.execute("drop table temp.listed_since")


NEWEST = "(select coalesce(max(batch), 0) from raw.batches)"


def _read_files(con: DuckDBPyConnection, config: Config, folder: Path) -> None:
    for name, (audience, listed) in lists_of(config).items():
        for path in files_of(folder, listed):
            try:
                con.execute(_rows_query(config, name, audience, listed, path))
            except duckdb.Error as error:
                raise PipelineError(
                    f"data/{FOLDER}/{path.name}: cannot be read for audiences.{audience}.external: {scrubbed(error)};"
                    f" it needs to be UTF-8 CSV with a column {listed.column}"
                ) from None


def _rows_query(config: Config, name: str, audience: str, listed: External, path: Path) -> str:
    key = normalise.identifier_query(
        config.namespaces[listed.namespace], _source(listed), normalise.filled_query("v")
    )
    source = (
        f"read_csv({literal(path)}, header = true, all_varchar = true, delim = {literal(listed.delimiter)},"
        " auto_detect = false, columns = {columns})"
    )
    header = _header(path, listed)
    columns = "{" + ", ".join(f"{literal(column)}: 'VARCHAR'" for column in header) + "}"
    return f"""insert into audiences.external_rows (list, audience, file, line, namespace, key)
        select {literal(name)}, {literal(audience)}, {literal(path.name)}, line, {literal(listed.namespace)}, {key}
        from (select {quote(listed.column)} as v, row_number() over () + 1 as line from {source.replace("{columns}", columns)})"""


def _header(path: Path, listed: External) -> list[str]:
    import csv

    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file, delimiter=listed.delimiter), [])
    if listed.column not in header:
        raise PipelineError(
            f"data/{FOLDER}/{path.name}: has no column `{listed.column}`; name one of its columns in `external.column`"
        )
    return header


def _source(listed: External) -> Source:
    return Source(
        kind="record",
        files="*",
        format=FileFormat(type="csv"),
        columns=["v"],
        key="v",
        country=listed.country,
    )


def resolve_lists(con: DuckDBPyConnection) -> None:
    """Find the profiles of every row, and say of the others why there is none.

    An identifier that several profiles carry stands for all of them, unless it is one that identifies nobody.
    """
    create_tables(con)
    generic = "select (namespace, value) from profiles.identifiers where generic"
    con.execute("delete from audiences.external_members; delete from audiences.external_unmatched")
    if not count(con, "audiences.external_rows"):
        return
    con.execute(
        """insert into audiences.external_members select distinct r.list, i.profile_id
        from audiences.external_rows r join profiles.identifiers i on i.namespace = r.namespace and i.value = r.key
        where not i.generic"""
    )
    con.execute(
        f"""insert into audiences.external_unmatched select audience, file, line, namespace, case
            when key is null then 'unreadable'
            when (namespace, key) in ({generic}) then 'generic'
            else 'unknown' end
        from audiences.external_rows r anti join
            (from profiles.identifiers where not generic) i on i.namespace = r.namespace and i.value = r.key"""
    )
