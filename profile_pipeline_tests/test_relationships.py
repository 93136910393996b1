"""Shared values that merge nobody: who shares what, and values too widely shared to name anyone."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from duckdb import DuckDBPyConnection

from profile_pipeline import dictionary
from profile_pipeline.config.identity import IdentityRules
from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import PACKAGE_RULES
from profile_pipeline.config.sources import Attribute
from profile_pipeline.identity.relationships import KINDS, build_relationships
from profile_pipeline.runs import relationship_numbers
from profile_pipeline.warehouse import columns_of, connect, mark_built, rows

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPACES = {
    "crm": {},
    "mail": {"link": False},
    "tablet": {"kind": "device"},
    "cookie": {"kind": "cookie"},
}
ADDRESS = {"surname": "family_name", "road": "street_address", "nr": "house_number", "code": "postcode"}
CREATE = """
create table identity.membership (record_key text, profile_id text, from_revision integer, to_revision integer);
create table identity.nodes (record_key text, source text, kind text);
create table identity.identifiers (record_key text, namespace text, value text, observed_at timestamptz);
create table records.events (event_key text, occurred_at timestamptz,
    identifiers struct(namespace text, value text, raw text)[]);
create table records.event_subjects (event_key text, subject text, attribution text)"""


def rules(fields: dict[str, str] | None = None, **relationships: int) -> Config:
    attributes = {n: Attribute.model_validate({"type": t}) for n, t in (fields or {}).items()}
    identity = IdentityRules.model_validate({"namespaces": SPACES, "relationships": relationships})
    return Config.model_construct(attributes=attributes, sources={}, identity=identity)


@contextmanager
def warehouse(path: Path, fields: tuple[str, ...] = ()) -> Iterator[DuckDBPyConnection]:
    with connect(path, memory="1GiB", threads=2) as con:
        con.execute(CREATE)
        listed = "".join(f", {name} text" for name in fields)
        con.execute(f"create table records.current (record_key text, observed_at timestamptz{listed})")
        yield con


def add_record(con: DuckDBPyConnection, key: str, profile: str, *identifiers: str, day: int = 0) -> None:
    con.execute("insert into identity.membership values (?, ?, 1, null)", [key, profile])
    con.execute("insert into identity.nodes values (?, 'x', ?)", [key, kind_of(key)])
    for each in identifiers:
        at = NOON + timedelta(days=day)
        con.execute("insert into identity.identifiers values (?, ?, ?, ?)", [key, *each.split(":"), at])


def kind_of(key: str) -> str:
    return "pseudonymous" if key.startswith("event:cookie") else "record"


def add_event(con: DuckDBPyConnection, key: str, subject: str, identifier: str, attribution: str) -> None:
    namespace, value = identifier.split(":")
    con.execute(
        "insert into records.events values (?, ?, [{'namespace': ?, 'value': ?, 'raw': null}])",
        [key, NOON, namespace, value],
    )
    con.execute("insert into records.event_subjects values (?, ?, ?)", [key, subject, attribution])


def found(con: DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return rows(
        con,
        "select kind, namespace, value, profile_id, record_count, profile_count from identity.relationships"
        " order by all nulls last",
    )


def test_a_person_identifier_in_several_profiles_is_a_shared_contact(tmp_path):
    with warehouse(tmp_path / "w.duckdb") as con:
        add_record(con, "a:1", "A", "crm:1", "mail:m", day=5)
        add_record(con, "a:2", "A", "crm:1", "mail:m", day=3)
        add_record(con, "a:3", "B", "crm:2", "mail:m", day=4)
        add_record(con, "a:4", "C", "mail:other")
        build_relationships(con, rules())
        assert found(con) == [
            ("shared_contact", "mail", "m", "A", 2, 2),
            ("shared_contact", "mail", "m", "B", 1, 2),
        ]
        since = rows(con, "select profile_id, since from identity.relationships order by 1")
        assert since == [("A", NOON + timedelta(days=3)), ("B", NOON + timedelta(days=4))]
        assert len(set(rows(con, "select relationship_id from identity.relationships"))) == 1


def test_ended_memberships_do_not_count(tmp_path):
    with warehouse(tmp_path / "w.duckdb") as con:
        add_record(con, "a:1", "A", "mail:m")
        add_record(con, "a:2", "A", "mail:m")
        con.execute("insert into identity.membership values ('a:2', 'B', 0, 1)")
        build_relationships(con, rules())
        assert found(con) == []


def test_a_device_is_shared_by_the_people_identified_on_it(tmp_path):
    with warehouse(tmp_path / "w.duckdb") as con:
        add_record(con, "a:1", "A", "crm:1", "tablet:t")
        add_record(con, "a:2", "B", "crm:2")
        add_record(con, "event:cookie=c", "P", "cookie:c")
        add_event(con, "e:1", "a:2", "tablet:t", "stated")
        add_event(con, "e:2", "a:2", "tablet:t", "inferred")
        add_event(con, "e:3", "a:1", "cookie:c", "stated")
        add_event(con, "e:4", "event:cookie=c", "cookie:c", "pseudonymous")
        build_relationships(con, rules())
        assert found(con) == [
            ("shared_device", "tablet", "t", "A", 1, 2),
            ("shared_device", "tablet", "t", "B", 2, 2),
        ], "events of nobody in particular share nothing"


@pytest.mark.parametrize(
    ("second", "together"),
    [
        (("green", "high street", "12", "Z1"), True),
        (("brown", "high street", "12", "Z1"), False),
        (("green", "high street", "13", "Z1"), False),
        (("green", "high street", "12", "Z2"), False),
        (("green", "high street", "12", None), False),
    ],
)
def test_one_family_name_at_one_address_is_a_household(tmp_path, second, together):
    with warehouse(tmp_path / "w.duckdb", tuple(ADDRESS)) as con:
        homes = {"A": ("green", "high street", "12", "Z1"), "B": second}
        for profile, home in homes.items():
            add_record(con, f"a:{profile}", profile)
            con.execute(
                "insert into records.current values (?, ?, ?, ?, ?, ?)", [f"a:{profile}", NOON, *home]
            )
        build_relationships(con, rules(ADDRESS))
        expected = [("household", "address", "green, 12, high street, Z1", p, 1, 2) for p in "AB"]
        assert found(con) == (expected if together else [])


def test_a_street_without_a_number_is_no_household(tmp_path):
    with warehouse(tmp_path / "w.duckdb", tuple(ADDRESS)) as con:
        for profile, road in {
            "A": "mill lane",
            "B": "mill lane",
            "C": "4 mill lane",
            "D": "4 mill lane",
        }.items():
            add_record(con, f"a:{profile}", profile)
            home = [f"a:{profile}", NOON, "green", road, None, "Z1"]
            con.execute("insert into records.current values (?, ?, ?, ?, ?, ?)", home)
        build_relationships(con, rules(ADDRESS))
        assert [(value, profile) for _, _, value, profile, *_ in found(con)] == [
            ("green, 4 mill lane, Z1", "C"),
            ("green, 4 mill lane, Z1", "D"),
        ]


@pytest.mark.parametrize("missing", ["surname", "road", "code"])
def test_no_households_without_the_fields_for_it(tmp_path, missing):
    fields = {name: kind for name, kind in ADDRESS.items() if name != missing}
    with warehouse(tmp_path / "w.duckdb", tuple(fields)) as con:
        build_relationships(con, rules(fields))
        assert found(con) == []


def test_500_logins_on_one_tablet_are_one_row_that_counts_them(tmp_path):
    with warehouse(tmp_path / "w.duckdb") as con:
        for n in range(500):
            add_record(con, f"a:{n}", f"P{n}", f"crm:{n}", "tablet:t")
        add_record(con, "a:x", "P0", "tablet:t")
        build_relationships(con, rules())
        assert found(con) == [("shared_device", "tablet", "t", None, 501, 500)]
        numbers = relationship_numbers(con)
        assert (numbers["shared_too_widely"], numbers["profiles_in_shared_device"]) == (1, 0)


def test_the_limit_is_the_configured_one(tmp_path):
    with warehouse(tmp_path / "w.duckdb") as con:
        for n in range(3):
            add_record(con, f"a:{n}", f"P{n}", "mail:m")
        build_relationships(con, rules(max_profiles=3))
        assert len(found(con)) == 3
        build_relationships(con, rules(max_profiles=2))
        assert found(con) == [("shared_contact", "mail", "m", None, 3, 3)]


def test_ids_are_the_same_whoever_else_is_there(tmp_path):
    seen = []
    for more in (False, True):
        with warehouse(tmp_path / f"w{more}.duckdb") as con:
            for profile in "ABC" if more else "AB":
                add_record(con, f"a:{profile}", profile, "mail:m", "tablet:m")
            build_relationships(con, rules())
            seen.append(set(rows(con, "select kind, relationship_id from identity.relationships")))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 2, "one value in two namespaces is two relationships"


def test_nothing_is_written_when_nothing_changed(tmp_path):
    with warehouse(tmp_path / "w.duckdb") as con:
        add_record(con, "a:1", "A", "mail:m")
        build_relationships(con, rules())
        add_record(con, "a:2", "B", "mail:m")
        build_relationships(con, rules())
        assert found(con) == [], "same fingerprints upstream: untouched"
        mark_built(con, "identity.membership", "changed")
        build_relationships(con, rules())
        assert len(found(con)) == 2


def test_numbers_by_kind_hold_no_values(tmp_path):
    with warehouse(tmp_path / "w.duckdb") as con:
        for profile in "ABC":
            add_record(con, f"a:{profile}", profile, "mail:m", "mail:n" if profile != "A" else "mail:o")
        build_relationships(con, rules())
        numbers = relationship_numbers(con)
        assert (numbers["relationships_shared_contact"], numbers["profiles_in_shared_contact"]) == (2, 3)
        assert numbers["relationships_household"] == 0
        assert all(isinstance(n, int) for n in numbers.values())
        assert {name.split("_", 1)[1] for name in numbers if name.startswith("relationships_")} == set(KINDS)


def test_every_column_is_described(tmp_path):
    config = load_config(PACKAGE_RULES)
    with warehouse(tmp_path / "w.duckdb") as con:
        build_relationships(con, rules())
        for column in columns_of(con, "identity.relationships"):
            assert dictionary.describe_internal(config, "identity.relationships", column), column
    assert dictionary.is_personal(config, "profile_relationships", "value")
