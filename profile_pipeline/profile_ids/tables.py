"""The tables of the ledger, and the queries that other stages build on."""

from duckdb import DuckDBPyConnection

from profile_pipeline.warehouse import PLAIN, columns_of

MEMBERSHIP = "identity.membership"
PENDING = "identity.pending_changes"
# registry: one row an id, without an index, which would cost more than all the rest of a revision; the law
# `one_profile_a_record` counts an id that is there twice
MEMBERS = "select record_key, profile_id from identity.membership where to_revision is null"
TABLES = f"""
create table if not exists identity.revisions (
    revision integer primary key, batch integer, as_of timestamptz, model_id text, rules text, threshold double,
    generic_values ubigint[], decision_id bigint, approved boolean, profile_count bigint, record_count bigint);
create table if not exists identity.registry (
    profile_id text not null {PLAIN}, status text not null, created_revision integer not null,
    retired_revision integer, reason text, birth_record_key text not null {PLAIN}, generation integer not null);
create table if not exists identity.membership (
    record_key text not null {PLAIN}, profile_id text not null {PLAIN}, from_revision integer not null, to_revision integer,
    cause text not null, node ubigint);
create table if not exists identity.redirects (
    profile_id text primary key, successor text not null, revision integer not null);
create table if not exists identity.profile_events (
    revision integer not null, profile_id text not null {PLAIN}, event text not null, other_profile_id text,
    record_count integer, model_id text, cause text);
create table if not exists identity.pins (
    profile_id text primary key, record_key text not null, author text not null, reason text not null,
    pinned_at timestamptz not null, revision integer);
create table if not exists identity.pending_changes (
    profile_id text not null, change text not null, other_profile_id text, record_count bigint, moved_count bigint,
    cause text not null);
"""
ADDED = {
    "identity.revisions": "rules text, threshold double, generic_values ubigint[], decision_id bigint,"
    " approved boolean, profile_count bigint, record_count bigint",
    "identity.profile_events": "cause text",
    "identity.membership": "node ubigint",
}
"""Columns that the first ledgers did not have."""


def create_tables(con: DuckDBPyConnection) -> None:
    """Make the ledger where there is none, and add what an older one lacks: its history cannot be made again."""
    con.execute(TABLES)
    for table, columns in ADDED.items():
        known = columns_of(con, table)
        for column in columns.split(", "):
            if column.split(" ")[0] not in known:
                con.execute(f"alter table {table} add column {column}")
    con.execute("update identity.membership set node = hash(record_key) where node is null")


def final_redirects_query() -> str:
    """Every retired id with the active (or erased) id its redirects lead to; none when all records are gone."""
    return """
        with recursive chain (profile_id, successor, hops) as (
            select profile_id, successor, 1 from identity.redirects
            union all
            select c.profile_id, r.successor, c.hops + 1 from chain c
            join identity.redirects r on r.profile_id = c.successor where c.hops < 10000
        ), ends as (select profile_id, arg_max(successor, hops) as successor from chain group by profile_id)
        select profile_id, successor from ends
        where successor not in (select profile_id from identity.registry where reason = 'emptied')"""
