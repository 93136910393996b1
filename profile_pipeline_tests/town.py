"""A small town with matching on: duplicates with flaws, cards, clicks, a switchboard, and one customer number on two cards.

Three people a household; records `crm:a<n>` and `crm:b<n>` are one person for even n. Everything is drawn with a fixed seed.
"""

import random
from pathlib import Path

import pytest

from profile_pipeline import quality
from profile_pipeline.config.project import Project
from profile_pipeline.warehouse import rows
from profile_pipeline_tests.hand_made import all_hold, day, people
from profile_pipeline_tests.worlds import Row, World, deliver, run_core, warehouse_of, write_rules

PEOPLE = 60
HOSTILE = "[/]x[red]"
"""A source key that would break a terminal that reads it as markup."""
GIVEN = ("Anna", "Bert", "Cleo", "Dora", "Egon", "Fred", "Gina", "Hugo", "Ivan", "Jana", "Kurt", "Lena")
FAMILY = ("Meyer", "Smith", "Jones", "Novak", "Rossi", "Silva", "Dubois", "Jansen", "Weber", "Moore")
IDENTITY = """
namespaces:
  crm_id: {priority: 10}
  card: {priority: 20, unique: 1}
  email: {type: email, priority: 30, link: false}
  phone: {type: phone, priority: 40, link: false}
  cookie: {kind: cookie}
matching: {matching}
clustering: {generic_limit: 5}
"""
NEWS = """
  news:
    kind: event
    files: news_*.csv
    format: {type: csv}
    columns: [id, moment, email]
    time: {value: moment}
    event: {id: id, type: "'click'"}
    identifiers: {email: email}
"""
SWITCHBOARD = "020 7946 0999"
COUPLE = "both@x.org"
"""The address of two people."""
Fields = dict[str, str]


def build_town(folder: Path, matching: str = "{floor: -30}") -> Project:
    """The project after its first run."""
    project = write_rules(folder, World(()))
    rules = IDENTITY.replace("{matching}", matching)
    (project.rules / "identity.yaml").write_text(rules, encoding="utf-8")
    with (project.rules / "sources.yaml").open("a", encoding="utf-8") as file:
        file.write(NEWS)
    deliver(project, [*people(*town()), *cards()], "1")
    (project.data / "sources" / "news_1.csv").write_text(clicks(), encoding="utf-8")
    run_town(project, 1)
    return project


def run_town(project: Project, number: int) -> None:
    """A run, without the seconds that Great Expectations takes to load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", all_hold)
        run_core(project, day(number))


def contents(project: Project) -> dict[str, tuple[int, int]]:
    """Every table of the warehouse: rows, and a hash of all of them."""
    with warehouse_of(project) as con:
        names = rows(con, "select schema_name || '.' || table_name from duckdb_tables() where not temporary")
        return {name: rows(con, f"select count(*), bit_xor(hash(t)) from {name} t")[0] for (name,) in names}


def town() -> list[Fields]:
    """Rows of the CRM."""
    draw = random.Random(3)
    found = []
    for number in range(PEOPLE):
        person = _person(number, draw)
        found.append({**person, "id": f"a{number}"})
        if number % 2 == 0:
            found.append({**person, "id": f"b{number}", **_flaw(person, number)})
    shared = [
        _person(PEOPLE + number, draw) | {"id": f"s{number}", "phone": SWITCHBOARD} for number in range(8)
    ]
    couple = [_person(200 + 3 * number, draw) | {"id": f"c{number}", "email": COUPLE} for number in range(2)]
    return [*found, *shared, _person(99, draw) | {"id": HOSTILE}, *couple]


def _person(number: int, draw: random.Random) -> Fields:
    first, last = GIVEN[number % len(GIVEN)], FAMILY[number // 3 % len(FAMILY)]
    return {
        "first": first,
        "last": last,
        "born": f"{draw.randint(1940, 2004)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}",
        "email": f"{first}.{last}{number}@x.org".lower(),
        "phone": f"020 7946 0{100 + number // 3}",
        "street": f"{number // 3} High Street",
        "city": ("Leeds", "York", "Hull")[number // 3 % 3],
    }


def _flaw(person: Fields, number: int) -> Fields:
    flaws = (
        {"last": person["last"] + "s", "email": ""},
        {"first": person["first"][:-1], "phone": ""},
        {"email": "", "street": ""},
    )
    return flaws[number // 2 % 3]


def cards() -> list[Row]:
    """Cards that name a customer number: one each, and two that name the same."""
    plain = [_card(f"k{number}", f"a{number}") for number in range(0, 20, 4)]
    return [*plain, _card("k900", "a41"), _card("k901", "a41")]


def _card(number: str, crm_id: str) -> Row:
    return Row("card", (("number", number), ("crm_id", crm_id), ("moment", "2026-03-01T00:00:00Z")))


def clicks() -> str:
    """Newsletter clicks of people known by their address only."""
    addresses = [row["email"] for row in town() if row["id"] in {"a1", "a3", "c0"}]
    lines = [f"n{n},2026-03-01T00:00:00Z,{email}" for n, email in enumerate(addresses)]
    return "\n".join(["id,moment,email", *lines, ""])
