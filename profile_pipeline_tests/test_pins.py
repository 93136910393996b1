"""Pins of values: they win before every rule, expire at the as-of time, and retire when a source corrects itself."""

import csv
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from duckdb import DuckDBPyConnection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from profile_pipeline import laws, publish, quality, runs
from profile_pipeline.cli import app
from profile_pipeline.cli.shell import PROBLEM
from profile_pipeline.config.load import Config, load_config
from profile_pipeline.config.project import Project
from profile_pipeline.errors import PipelineError
from profile_pipeline.lookup import lookup
from profile_pipeline.profiles import pins
from profile_pipeline.profiles.candidates import build_candidates
from profile_pipeline.profiles.lineage import build_lineage
from profile_pipeline.profiles.pin_sheets import Imported, export_csv, import_csv
from profile_pipeline.profiles.reasons import reasons
from profile_pipeline.profiles.unified import build_unified
from profile_pipeline.warehouse import built, rows, scalar
from profile_pipeline_tests.hand_made import (
    all_hold,
    config_of,
    day,
    people,
    set_records,
    source,
    warehouse,
)
from profile_pipeline_tests.worlds import LINKED, deliver, ids_of, run_core, warehouse_of, write_rules

Record = Mapping[str, Any]
GOLDEN = {"golden": {}}
EVA = {"author": "eva", "reason": "called us"}


@pytest.fixture
def con() -> Generator[DuckDBPyConnection]:
    with warehouse() as opened:
        opened.execute("create table raw.batches (batch integer, as_of timestamptz)")
        opened.execute("create table raw.files (batch integer, state text)")
        take_in(opened, 1)
        yield opened


def take_in(con: DuckDBPyConnection, number: int, at: int | None = None) -> None:
    """A batch, taken in on that day."""
    con.execute("insert into raw.batches values (?, ?)", [number, day(number if at is None else at)])
    con.execute("insert into raw.files values (?, 'loaded')", [number])


def build(con: DuckDBPyConnection, config: Config) -> None:
    build_candidates(con, config)
    build_lineage(con, config)
    build_unified(con, config)


def merge(con: DuckDBPyConnection, config: Config, *records: Record, batch: int = 1) -> None:
    """A run over these records, which are there now; `profile` is p unless given."""
    set_records(con, config, [{"profile": "p", **record} for record in records])
    con.execute("update records.current set batch = ?", [batch])
    build(con, config)


def value(con: DuckDBPyConnection, name: str = "city", profile: str = "p", table: str = "unified") -> Any:
    return scalar(con, f"select {name} from profiles.{table} where profile_id = ?", [profile])


def pin(
    con: DuckDBPyConnection,
    config: Config,
    text: str | None,
    name: str = "city",
    profile: str = "p",
    **more: Any,
) -> pins.Pin:
    return pins.pin(con, config, profile, name, text, **(EVA | more))


def events(con: DuckDBPyConnection) -> list[str]:
    return [row["event"] for row in pins.history(con)]


# ---------------------------------------------------------------- a pin wins


def test_a_pin_wins_under_every_policy_and_the_losers_stay(con: DuckDBPyConnection) -> None:
    policies = {
        "golden": {"choose": ["most_frequent"]},
        "ranked": {"method": "dataset_precedence", "sources": {"a": 1}, "unlisted": "exclude"},
        "strict": {"choose": ["most_restrictive"]},
    }
    config = config_of({"city": "city", "news": "consent"}, policies)
    said = [{"key": f"{name}:1", "city": "leds", "raw": {"city": "Leds"}, "news": False} for name in "abc"]
    merge(con, config, *said)
    made = pin(con, config, " Leeds ")
    pin(con, config, "yes", "news")
    assert (made.value, made.shown, [c["record_key"] for c in made.corrected]) == (
        "leeds",
        "Leeds",
        ["a:1", "b:1", "c:1"],
    )
    assert value(con) == "Leds", "a pin holds from the next run on"
    build(con, config)
    for table in ("unified", "unified_ranked", "unified_strict"):
        assert (value(con, table=table), value(con, "news", table=table)) == ("Leeds", True)
    key = f"steward:{made.pin_id}"
    query = (
        "select record_key, rank, won, rule from profiles.lineage where policy = 'golden' and field = 'city'"
    )
    assert rows(con, f"{query} order by rank") == [
        (key, 1, True, "pin"), ("a:1", 2, False, "pin"), ("b:1", 3, False, "pin"), ("c:1", 4, False, "pin"),
    ]  # fmt: skip
    assert not any(laws.profile_problems(con, config).values())


def test_a_pin_of_one_field_of_a_group_leaves_the_others_to_one_record(con: DuckDBPyConnection) -> None:
    group = {"address": {"fields": ["street", "city", "postcode"]}}
    config = config_of(dict.fromkeys(("street", "city", "postcode"), "text"), {"golden": {"groups": group}})
    merge(
        con,
        config,
        {"key": "a:1", "street": "s", "city": "leds"},
        {"key": "b:1", "city": "york", "postcode": "y"},
    )
    before = value(con, "street"), value(con, "postcode")
    pin(con, config, "leeds")
    build(con, config)
    assert (value(con), value(con, "street"), value(con, "postcode")) == ("leeds", *before)
    assert not any(laws.profile_problems(con, config).values())


def test_a_pin_can_clear_a_field_and_fill_an_empty_one(con: DuckDBPyConnection) -> None:
    config = config_of({"city": "text", "note": "text"}, GOLDEN)
    merge(con, config, {"key": "a:1", "city": "leds"})
    pin(con, config, None)
    pin(con, config, "vip", "note")
    build(con, config)
    assert (value(con), value(con, "note")) == (None, "vip")
    assert rows(con, "select field, value, cleared, rule from profiles.lineage where won order by field") == [
        ("city", None, True, "pin"), ("note", "vip", False, "pin"),
    ]  # fmt: skip
    assert not any(laws.profile_problems(con, config).values())


@pytest.mark.parametrize(
    ("kind", "text", "compares", "shown"),
    [
        ("given_name", "  Zoë ", "zoe", "Zoë"), ("phone", "020 7946 0123", "+442079460123", "+442079460123"),
        ("birth_date", "1980-02-01", "1980-02-01", "1980-02-01"), ("integer", "12", "12", "12"),
        ("consent", "Nein", "false", "false"),
        ("list", "b;a", '["a","b"]', '["a","b"]'), ("category", "VIP Gold", "vip gold", "VIP Gold"),
        ("number", "-1.5", "-1.5", "-1.5"),
    ],
)  # fmt: skip
def test_a_value_is_read_as_a_delivery_is(
    con: DuckDBPyConnection, kind: str, text: str, compares: str, shown: str
) -> None:
    config = config_of({"city": kind}, GOLDEN)
    config.sources["a"] = source(country="GB")
    merge(con, config, {"key": "a:1"})
    made = pin(con, config, text, source="a")
    assert (made.value, made.shown) == (compares, shown)
    build(con, config)
    assert value(con) is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"profile": "q"}, "no active profile has the id q; `profile-pipeline lookup` finds ids"),
        ({"name": "cty"}, "unknown field `cty`; did you mean `city`?"),
        ({"name": "born", "text": "soon"}, "born: the text is no birth date; write it as a source would, or use --clear"),
        ({"name": "born", "text": "2999-01-01"}, "born: the text is no birth date; write it as a source would, or use --clear"),
        ({"text": " n/a "}, "city: the text is no city; write it as a source would, or use --clear"),
        ({"reason": " "}, "a pin needs the reason; give --reason"),
        ({"author": ""}, "a pin needs the author; give --author"),
        ({"until": date(2026, 4, 1)},
         "a pin until 2026-04-01 would be over: the newest batch is of 2026-04-02; give a later --until"),
        ({"source": "d"}, "no record source `d`; the record sources are: a, b, c"),
        ({"name": "born", "text": "03/04/1980"},
         "the sources read this born differently; write a date as YYYY-MM-DD and a phone number"
         " with its country code, or name the source with --source"),
    ],
)  # fmt: skip
def test_what_cannot_be_pinned_is_one_plain_line(
    con: DuckDBPyConnection, change: dict[str, Any], words: str
) -> None:
    config = config_of({"city": "city", "born": "birth_date"}, GOLDEN)
    config.sources["b"] = source(dates=["%d/%m/%Y"])
    config.sources["c"] = source(dates=["%m/%d/%Y"])
    merge(con, config, {"key": "a:1", "city": "leds"})
    with pytest.raises(PipelineError) as caught:
        pin(con, config, **({"text": "leeds"} | change))
    assert str(caught.value) == words
    assert events(con) == []


# ---------------------------------------------------------------- how long it holds


def test_expiry_goes_by_the_as_of_time_of_the_newest_batch(con: DuckDBPyConnection) -> None:
    config = config_of({"city": "text"}, GOLDEN)
    merge(con, config, {"key": "a:1", "city": "leds"})
    pin(con, config, "leeds", until=day(3).date())
    for number, shown in ((2, "leeds"), (3, "leeds"), (4, "leds")):
        take_in(con, number)
        build(con, config)
        assert value(con) == shown, number
    assert events(con) == ["pinned"], "expiry is no event: it follows from the pin and the as-of time"
    assert pins.in_effect(con) == []


A, B = {"key": "a:1", "city": "leds", "at": 5}, {"key": "b:1", "city": "york"}
LATER: dict[str, tuple[list[Record], bool]] = {
    # what is there in the next run, and whether the pin of `leeds` retires
    "nothing changed": ([A, B], False),
    "the source was corrected": ([A | {"city": "leeds"}, B], True),
    "the source says something else": ([A | {"city": "hull"}, B], True),
    "the source clears it": ([A | {"city": None, "cleared": ["city"]}, B], True),
    "the same wrong value again": ([A | {"at": 9, "ingested": 9}, B], False),
    "the same wrong value, written otherwise": ([A | {"raw": {"city": "  LEDS"}}, B], False),
    "the same text, read by other rules": ([A | {"city": "leds!", "raw": {"city": "leds"}}, B], False),
    "the record is deleted": ([B], False),
    "the record says nothing any more": ([A | {"city": None}, B], False),
    "another record joins": ([A, B, {"key": "c:1", "city": "hull", "at": 9}], False),
    "what was never shown changes": ([A, B | {"city": "hull", "at": 9}], False),
}


@pytest.mark.parametrize("case", LATER)
def test_a_pin_retires_when_what_it_corrected_changes(con: DuckDBPyConnection, case: str) -> None:
    later, retires = LATER[case]
    config = config_of({"city": "text"}, GOLDEN)
    merge(con, config, A, B)
    pin(con, config, "leeds")
    merge(con, config, A, B)
    take_in(con, 2)
    merge(con, config, *later, batch=2)
    assert events(con) == ["pinned", "retired"][: 1 + retires]
    assert (pins.in_effect(con) == []) == retires
    assert (value(con) == "leeds") == (not retires or later[0]["city"] == "leeds")
    assert runs.pin_numbers(con) == {"values_pinned": int(not retires), "pins_retired": int(retires)}
    marks = built(con, "profiles.candidates")
    build(con, config)
    assert built(con, "profiles.candidates") == marks
    assert events(con) == ["pinned", "retired"][: 1 + retires], "recorded once"


def test_a_deleted_record_that_comes_back_is_compared_with_what_it_said(con: DuckDBPyConnection) -> None:
    config = config_of({"city": "text"}, GOLDEN)
    merge(con, config, A, B)
    pin(con, config, "leeds")
    for there, shown in (([B], "leeds"), ([A, B], "leeds"), ([A | {"city": "hull"}, B], "hull")):
        merge(con, config, *there)
        assert value(con) == shown


def test_a_retirement_lasts_unless_the_batch_that_caused_it_is_reverted(con: DuckDBPyConnection) -> None:
    config = config_of({"city": "text"}, GOLDEN)
    merge(con, config, A)
    pin(con, config, "leeds")
    take_in(con, 2)
    merge(con, config, A | {"city": "hull"}, batch=2)
    retired = pins.history(con)[-1]
    assert (retired["event"], retired["batch"], retired["reason"]) == (
        "retired",
        2,
        "what it corrected has changed in a",
    )
    assert retired["noted_at"] == day(2)
    take_in(con, 3)
    merge(con, config, A, batch=3)
    assert value(con) == "leds", "what was found to have changed stays found"
    con.execute("update raw.files set state = 'reverted' where batch = 2")
    build(con, config)
    assert value(con) == "leeds"


def test_a_pin_that_is_withdrawn_leaves_no_trace_in_what_is_shown(con: DuckDBPyConnection) -> None:
    config = config_of({"city": "text"}, GOLDEN)
    merge(con, config, A, B)
    before = rows(con, "from profiles.lineage order by all"), built(con, "profiles.lineage")
    pin(con, config, "leeds")
    build(con, config)
    pins.withdraw(con, "p", "city", "eva", dry_run=True)
    assert pins.in_effect(con)
    pins.withdraw(con, "p", "city", "eva", "a mistake")
    build(con, config)
    assert (rows(con, "from profiles.lineage order by all"), built(con, "profiles.lineage")) == before
    assert events(con) == ["pinned", "withdrawn"]
    with pytest.raises(PipelineError, match="no value of `city` is pinned on p"):
        pins.withdraw(con, "p", "city", "eva")


def test_a_newer_pin_replaces_the_older_and_corrects_what_that_corrected(con: DuckDBPyConnection) -> None:
    config = config_of({"city": "text"}, GOLDEN)
    merge(con, config, A, B)
    first = pin(con, config, "leeds")
    build(con, config)
    second = pin(con, config, "hull", until=day(2).date())
    assert (second.replaces, [c["record_key"] for c in second.corrected]) == ((first.pin_id,), ["a:1"])
    build(con, config)
    assert value(con) == "hull"
    take_in(con, 3)
    build(con, config)
    assert value(con) == "leds", "the older pin does not come back when the newer one expires"
    assert events(con) == ["pinned", "replaced", "pinned"]


def test_a_pin_waits_while_its_field_is_of_another_type(con: DuckDBPyConnection) -> None:
    text, number = config_of({"city": "text"}, GOLDEN), config_of({"city": "integer"}, GOLDEN)
    merge(con, text, {"key": "a:1", "city": "12"})
    pin(con, text, "leeds")
    merge(con, number, {"key": "a:1", "city": 12})
    assert value(con) == 12
    assert not any(laws.profile_problems(con, number).values())
    merge(con, text, {"key": "a:1", "city": "12"})
    assert value(con) == "leeds"


# ---------------------------------------------------------------- whose pin it is


def redirect(con: DuckDBPyConnection, *pairs: tuple[str, str]) -> None:
    con.execute("delete from identity.redirects")
    for retired, successor in pairs:
        con.execute("insert into identity.redirects values (?, ?, 1)", [retired, successor])


def test_a_pin_follows_redirects_and_stays_with_its_id_after_a_split(con: DuckDBPyConnection) -> None:
    config = config_of({"city": "text"}, GOLDEN)
    apart = [A, {**B, "profile": "q"}]
    merge(con, config, *apart)
    pin(con, config, "hull", profile="q")
    pin(con, config, "leeds")
    merge(con, config, *apart)
    assert (value(con), value(con, profile="q")) == ("leeds", "hull")
    set_records(con, config, [A | {"profile": "p"}, B | {"profile": "p"}])
    redirect(con, ("q", "p"))
    build(con, config)
    assert value(con) == "leeds", "of two, the newest holds"
    assert [row["shown"] for row in pins.in_effect(con, "p")] == ["leeds", "hull"]
    assert [row["profile_id"] for row in pins.history(con, "p")] == ["q", "p"]
    redirect(con)
    merge(con, config, *apart)
    assert (value(con), value(con, profile="q")) == ("leeds", "hull")
    set_records(con, config, [A | {"profile": "p"}, B | {"profile": "p"}])
    redirect(con, ("q", "r"), ("r", "p"))
    assert len(pins.withdraw(con, "p", "city", "eva")) == 2, "both of them hold the field"
    build(con, config)
    assert value(con) == "leds"


def test_a_pin_of_a_profile_that_is_gone_waits_for_it(con: DuckDBPyConnection) -> None:
    config = config_of({"city": "text"}, GOLDEN)
    merge(con, config, A)
    pin(con, config, "leeds")
    merge(con, config, B | {"profile": "q"})
    assert scalar(con, "select count(*) from profiles.candidates where pinned") == 0
    merge(con, config, A)
    assert value(con) == "leeds"


# ---------------------------------------------------------------- in words


def test_every_value_says_why_it_is_shown(con: DuckDBPyConnection) -> None:
    config = config_of(
        {"city": "text", "note": "text"},
        {"golden": {"choose": ["source_priority"], "sources": {"a": 1, "b": 2}}},
    )
    merge(con, config, A | {"note": "x"}, B | {"note": "X"}, {"key": "c:1", "note": "y", "cleared": ["city"]})
    city, note = reasons(con, "p", "golden")
    assert (city.value, city.record_key, city.words, city.conflicts, city.pin) == (
        "leds",
        "a:1",
        "its source ranks first",
        1,
        None,
    )
    assert [(o.value, o.record_key, o.words, o.same) for o in city.beaten] == [
        ("york", "b:1", "its source ranks lower", False), (None, "c:1", "its source ranks lower", False),
    ]  # fmt: skip
    assert [(o.value, o.words) for o in note.beaten] == [
        ("X", "says the same"),
        ("y", "its source ranks lower"),
    ]
    assert note.conflicts == 1
    pin(con, config, "leeds", until=day(9).date())
    build(con, config)
    city, _ = reasons(con, "p", "golden")
    assert (city.value, city.words, city.conflicts) == (
        "leeds",
        "pinned by eva until 2026-04-10: called us",
        2,
    )
    assert {offer.words for offer in city.beaten} == {"a steward's pin comes first"}


def test_what_shows_nothing_or_several_values_says_so_too(con: DuckDBPyConnection) -> None:
    fields = {
        "city": {"choose": ["unanimous_or_null"]},
        "mail": {"keep": "list", "max": 2, "choose": ["most_recent"]},
    }
    group = {"address": {"fields": ["street", "post"], "choose": ["most_recent"]}}
    kinds = dict.fromkeys(("city", "mail", "street", "post"), "text")
    config = config_of(kinds, {"golden": {"fields": fields, "groups": group}})
    merge(
        con,
        config,
        {"key": "a:1", "city": "leds", "mail": "x", "at": 3, "street": "s"},
        {"key": "b:1", "city": "york", "mail": "y", "at": 2, "post": "LS2"},
        {"key": "c:1", "mail": "z", "at": 1},
    )
    city, mail, post, _ = reasons(con, "p", "golden")
    assert (city.value, city.words, city.conflicts) == (None, "not all records agree, so nothing is shown", 2)
    assert [(o.value, o.words, o.kept) for o in mail.beaten] == [
        ("y", "kept too", True),
        ("z", "no room left in the list", False),
    ]
    assert (mail.value, mail.conflicts) == ("x", 1)
    assert (post.value, post.words) == (None, "the record that won its group says nothing of it")
    pin(con, config, "w", "mail")
    build(con, config)
    assert (value(con, "mail"), value(con, "mail_all")) == ("w", ["w"])
    assert not any(laws.profile_problems(con, config).values())


# ---------------------------------------------------------------- files


def exchange(con: DuckDBPyConnection, config: Config, path: Path) -> tuple[list[Any], list[Any]]:
    """All pins here, and in an empty warehouse that imports them from a file."""
    export_csv(con, path)
    query = "from profiles.value_pins order by all"
    with warehouse() as other:
        merge(other, config, A)
        assert import_csv(other, config, path, "bob", dry_run=True).known == 0
        assert events(other) == []
        found = import_csv(other, config, path, "bob")
        assert found == Imported(0, len(rows(con, query)), 0)
        assert import_csv(other, config, path, "bob") == Imported(0, 0, found.brought_back)
        return rows(con, query), rows(other, query)


def test_a_file_brings_the_whole_history_back(con: DuckDBPyConnection, tmp_path: Path) -> None:
    config = config_of({"city": "text", "note": "text"}, GOLDEN)
    merge(con, config, A, B)
    pin(con, config, "=cmd()", until=day(9).date(), reason="-1 'quoted', \n lines")
    pin(con, config, "leeds")
    pin(con, config, None, "note")
    pins.withdraw(con, "p", "note", "eva")
    take_in(con, 2)
    merge(con, config, A | {"city": "hull"}, B, batch=2)
    assert sorted(events(con)) == ["pinned", "pinned", "pinned", "replaced", "retired", "withdrawn"]
    here, there = exchange(con, config, tmp_path / "pins.csv")
    assert here == there


def test_new_pins_come_from_a_spreadsheet_all_or_none(con: DuckDBPyConnection, tmp_path: Path) -> None:
    config = config_of({"city": "city", "born": "birth_date"}, GOLDEN)
    merge(con, config, A | {"born": "1980-01-01"})
    path = tmp_path / "new.csv"
    path.write_text(
        "profile_id,field,shown,reason,until_on,cleared\np,city,Leeds,called,2026-12-31,\np,born,,privacy,,true\n",
        encoding="utf-8",
    )
    assert import_csv(con, config, path, "eva") == Imported(2, 0, 0)
    build(con, config)
    assert (value(con), value(con, "born")) == ("Leeds", None)
    before = events(con)
    path.write_text(
        "profile_id;field;shown;reason;until_on;pin_id\nq;city;Leeds;x;;\np;city;;x;;\np;city;York;x;soon;\np;city;York;x;;\n"
        "p;city;Hull;x;;\np;city;Hull;x;;abc\n",
        encoding="utf-8",
    )
    with pytest.raises(PipelineError) as caught:
        import_csv(con, config, path, "eva")
    assert str(caught.value).splitlines() == [
        "new.csv: line 2: no active profile has the id q; `profile-pipeline lookup` finds ids",
        "new.csv: line 3: write the value into `shown`, or `true` into `cleared` to show none",
        "new.csv: line 4: until_on is no ISO date; write it like 2026-12-31 or leave it empty",
        "new.csv: line 6: pins the field of line 5 again; keep one of them",
        "new.csv: line 7: is not as it was exported; empty pin_id to pin anew",
    ]
    assert events(con) == before


@pytest.mark.parametrize(
    ("column", "text", "words"),
    [
        ("shown", "york", "differs from what is known of this pin; empty pin_id to pin anew"),
        ("profile_id", "q", "pin_id is not that of this profile, field and time; empty it to pin anew"),
        ("event", "expired", "is not as it was exported; empty pin_id to pin anew"),
        ("corrected", "[1]", "is not as it was exported; empty pin_id to pin anew"),
    ],
)
def test_history_cannot_be_rewritten(
    con: DuckDBPyConnection, tmp_path: Path, column: str, text: str, words: str
) -> None:
    config = config_of({"city": "text"}, GOLDEN)
    merge(con, config, A)
    pin(con, config, "leeds")
    path = tmp_path / "pins.csv"
    export_csv(con, path)
    header, row = path.read_text(encoding="utf-8").splitlines()
    cells = dict(zip(header.split(","), next(csv.reader([row])), strict=True)) | {column: text}
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([cells.keys(), cells.values()])
    with pytest.raises(PipelineError, match=f"pins.csv: line 2: {words}"):
        import_csv(con, config, path, "eva")


# ---------------------------------------------------------------- any sequence, against a few lines of Python

KEYS, VALUES, PROFILES = ("a:1", "a:2", "b:1", "b:2"), ("u", "v", "w"), ("p", "q")
HOME = {"a:1": "p", "a:2": "p", "b:1": "q", "b:2": "q"}
Said = tuple[str | None, int]
"""What a record says (None: it clears the field), and when."""


@dataclass
class Reference:
    """What pins and records should make of `city`; the newest value wins where nothing is pinned."""

    said: dict[str, Said] = field(default_factory=dict)
    pins: list[dict[str, Any]] = field(default_factory=list)
    joined: bool = False
    today: int = 1
    seen: dict[str, Said] = field(default_factory=dict)
    """What the last run saw, with `seen_home` whose it was."""
    seen_home: dict[str, str] = field(default_factory=dict)

    def whose(self, profile: str) -> str:
        return "p" if self.joined else profile

    def holding(self, profile: str) -> list[dict[str, Any]]:
        alive = [
            pin
            for pin in self.pins
            if not pin["over"] and (pin["until"] is None or pin["until"] >= self.today)
        ]
        return [pin for pin in alive if self.whose(pin["profile"]) == profile]

    def best(self, profile: str) -> Said | None:
        """The newest that the last run saw."""
        own = [said for key, said in self.seen.items() if self.seen_home[key] == profile]
        return max(own, key=lambda said: said[1], default=None)

    def pin(self, profile: str, text: str | None, until: int | None) -> None:
        best = self.best(profile)
        noted = {
            key: said for key, (said, _) in self.seen.items()
            if self.seen_home[key] == profile and best and said == best[0] and said != text
        }  # fmt: skip
        self.unpin(profile)
        self.pins.append({"profile": profile, "text": text, "until": until, "noted": noted, "over": False})

    def unpin(self, profile: str) -> None:
        for pin in self.holding(profile):
            pin["over"] = True

    def run(self) -> dict[str, str | None]:
        """What the profiles that have records show."""
        self.seen, self.seen_home = dict(self.said), {key: self.whose(HOME[key]) for key in KEYS}
        shown = {}
        for profile in {self.seen_home[key] for key in self.seen}:
            own = {key: text for key, (text, _) in self.seen.items() if self.seen_home[key] == profile}
            for pin in self.holding(profile):
                pin["over"] = any(key in own and own[key] != said for key, said in pin["noted"].items())
            held = self.holding(profile)
            shown[profile] = held[-1]["text"] if held else (self.best(profile) or (None, 0))[0]
        return shown


STEPS = st.one_of(
    st.tuples(st.just("deliver"), st.sampled_from(KEYS), st.sampled_from([*VALUES, None])),
    st.tuples(st.just("deliver"), st.sampled_from(KEYS), st.sampled_from([*VALUES, None])),
    st.tuples(st.just("delete"), st.sampled_from(KEYS)),
    st.tuples(
        st.just("pin"),
        st.sampled_from(PROFILES),
        st.sampled_from([*VALUES, None]),
        st.sampled_from([None, None, 0, 1, 3]),
    ),
    st.tuples(st.just("pin"), st.sampled_from(PROFILES), st.sampled_from([*VALUES, None]), st.none()),
    st.tuples(st.just("unpin"), st.sampled_from(PROFILES)),
    st.tuples(st.just("wait"), st.integers(1, 2)),
    st.tuples(st.just("join")),
    st.tuples(st.just("run")),
    st.tuples(st.just("run")),
)


class World:
    """The pipeline beside the reference; a step is done to both."""

    def __init__(self, con: DuckDBPyConnection) -> None:
        self.con = con
        self.config = config_of({"city": "text"}, GOLDEN)
        self.expected = Reference()
        self.clock = 0
        self.together = False
        con.execute("create table raw.batches (batch integer, as_of timestamptz)")
        con.execute("insert into raw.batches values (1, ?)", [day(1)])

    def deliver(self, key: str, text: str | None) -> None:
        self.clock += 1
        self.expected.said[key] = (text, self.clock)

    def delete(self, key: str) -> None:
        self.expected.said.pop(key, None)

    def wait(self, days: int) -> None:
        self.expected.today += days
        self.con.execute(
            "insert into raw.batches values (?, ?)", [self.expected.today, day(self.expected.today)]
        )

    def join(self) -> None:
        """One profile from the next run on, or two again."""
        self.together = not self.together

    def active(self, profile: str) -> bool:
        return any(self.expected.seen_home[key] == profile for key in self.expected.seen)

    def pin(self, profile: str, text: str | None, days: int | None) -> None:
        if self.active(profile):
            until = None if days is None else self.expected.today + days
            self.expected.pin(profile, text, until)
            pin(self.con, self.config, text, profile=profile, until=until and day(until).date())

    def unpin(self, profile: str) -> None:
        if self.active(profile) and self.expected.holding(profile):
            self.expected.unpin(profile)
            pins.withdraw(self.con, profile, "city", "eva")

    def run(self) -> None:
        self.expected.joined = self.together
        records = [
            {
                "key": key,
                "profile": self.expected.whose(HOME[key]),
                "city": text,
                "at": at,
                "cleared": [] if text else ["city"],
            }
            for key, (text, at) in self.expected.said.items()
        ]
        set_records(self.con, self.config, records)
        redirect(self.con, *([("q", "p")] if self.expected.joined else []))
        build(self.con, self.config)
        wanted = self.expected.run()
        assert dict(rows(self.con, "select profile_id, city from profiles.unified")) == wanted
        assert not any(laws.profile_problems(self.con, self.config).values())


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=4, max_size=24))
def test_any_pins_withdrawals_and_deliveries_show_what_the_reference_shows(
    steps: list[tuple[Any, ...]],
) -> None:
    with warehouse() as con:
        world = World(con)
        world.deliver("a:1", "u")
        world.deliver("b:1", "v")
        world.run()
        for name, *values in steps:
            getattr(world, name)(*values)
        world.run()


# ---------------------------------------------------------------- a project


def call(project: Project, *arguments: object, answer: str = "") -> Result:
    return CliRunner().invoke(
        app, [*map(str, arguments), "--project", str(project.rules.parent)], input=answer
    )


def said(result: Result) -> str:
    return " ".join((result.stdout + result.stderr).split())


def ok(project: Project, *arguments: object, answer: str = "") -> str:
    result = call(project, *arguments, answer=answer)
    assert result.exit_code == 0, said(result)
    return said(result)


@pytest.fixture
def anna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """One person, whose town is misspelt."""
    monkeypatch.setattr(quality, "validate", all_hold)
    project = write_rules(tmp_path / "p", LINKED)
    deliver(
        project,
        people({"id": "1", "first": "Anna", "email": "anna@x.org", "city": "Leds", "segment": "gold"}),
        "1",
    )
    run_core(project, day(1))
    return project


def shown(project: Project, name: str = "city") -> Any:
    with warehouse_of(project) as con:
        return scalar(con, f"select {name} from profiles.unified")


def test_pin_look_and_unpin_from_the_command_line(anna: Project) -> None:
    profile = ids_of(anna)["crm:1"]
    wrong = call(anna, "values", "pin", "crm:1", "town", "Leeds", "--reason", "x")
    assert (wrong.exit_code, "unknown field `town`" in said(wrong)) == (PROBLEM, True)
    for values in (["Leeds", "--clear"], [], ["Leeds", "--until", "soon"]):
        assert call(anna, "values", "pin", "crm:1", "city", *values, "--reason", "x").exit_code == PROBLEM
    command = (
        "values",
        "pin",
        "anna@x.org",
        "city",
        "Leeds",
        "--reason",
        "called us",
        "--author",
        "eva",
        "--until",
        "2026-12-31",
    )
    assert "corrects crm:1; dry run: nothing is written" in ok(anna, *command, "--dry-run")
    assert ok(anna, "values", "pins") == "none"
    assert (
        f"city of {profile} pinned to Leeds until 2026-12-31; corrects crm:1; next: profile-pipeline run"
        in ok(anna, *command)
    )
    run_core(anna, day(2))
    assert shown(anna) == "Leeds"
    asked = call(anna, "values", "pin", "crm:1", "city", "--clear", "--reason", "wants none", answer="n\n")
    assert "pinned to Leeds by eva: called us, until 2026-12-31" in said(asked)
    [held] = json.loads(ok(anna, "values", "pins", "crm:1", "--json"))
    assert (held["shown"], held["author"], held["until_on"], held["corrects"]) == (
        "Leeds",
        "eva",
        "2026-12-31",
        ["crm:1"],
    )
    ok(anna, "values", "pin", "crm:1", "city", "--clear", "--reason", "wants none", answer="y\n")
    assert json.loads(ok(anna, "values", "unpin", "crm:1", "city", "--dry-run", "--json"))["withdrawn"][0][
        "cleared"
    ]
    assert call(anna, "values", "unpin", "crm:1", "city", answer="n\n").exit_code == 0
    ok(anna, "values", "unpin", "crm:1", "city", "--yes")
    assert call(anna, "values", "unpin", "crm:1", "city", "--yes").exit_code == PROBLEM
    run_core(anna, day(2))
    assert shown(anna) == "Leds"
    assert [row["event"] for row in json.loads(ok(anna, "values", "pins", "--all", "--json"))] == [
        "pinned", "replaced", "pinned", "withdrawn",
    ]  # fmt: skip
    assert "withdrawn" in ok(anna, "values", "pins", "crm:1", "--all")


def test_pins_survive_a_rebuild_and_are_published_and_explained(anna: Project, tmp_path: Path) -> None:
    ok(
        anna,
        "values",
        "pin",
        "crm:1",
        "city",
        "Leeds",
        "--reason",
        "called us",
        "--author",
        "eva",
        "--until",
        "2026-12-31",
    )
    run_core(anna, day(2), rebuild=True)
    with warehouse_of(anna) as con:
        publish.publish(con, load_config(anna.rules), anna, {})
        marks = rows(
            con,
            "select name, fingerprint from state.built where starts_with(name, 'profiles.') order by name",
        )
    run_core(anna, day(2), rebuild=True)
    with warehouse_of(anna) as con:
        assert (
            rows(
                con,
                "select name, fingerprint from state.built where starts_with(name, 'profiles.') order by name",
            )
            == marks
        )
    [found] = lookup(load_config(anna.rules), anna, "anna@x.org")
    why = {reason.field: reason for reason in found.reasons}
    assert (found.values["city"], why["city"].words) == ("Leeds", "pinned by eva until 2026-12-31: called us")
    assert (why["segment"].words, why["segment"].record_key) == ("the only record with a value", "crm:1")
    for command in ("explain", "lookup"):
        text = ok(anna, command, "anna@x.org")
        assert "pinned by eva until 2026-12-31: called us beat Leds of crm:1, 2026-03-01" in text, command
        assert "1 of 4 fields have other values on offer" in text
        loaded = json.loads(ok(anna, command, "anna@x.org", "--json"))
        told = loaded["values"] if command == "explain" else loaded[0]["reasons"]
        assert [(r["words"], r["conflicts"], r["pin"]["author"]) for r in told if r["field"] == "city"] == [
            ("pinned by eva until 2026-12-31: called us", 1, "eva")
        ]
    ok(anna, "values", "export", tmp_path / "pins.csv")
    assert "known: 1" in ok(anna, "values", "import", tmp_path / "pins.csv")


def test_a_run_says_that_a_pin_retired(anna: Project) -> None:
    ok(anna, "values", "pin", "crm:1", "city", "Leeds", "--reason", "called us")
    deliver(
        anna,
        people(
            {
                "id": "1",
                "first": "Anna",
                "email": "anna@x.org",
                "city": "Leeds",
                "moment": "2026-03-02T00:00:00Z",
            }
        ),
        "2",
    )
    run_core(anna, day(2))
    with warehouse_of(anna) as con:
        assert runs.summary(con, load_config(anna.rules)).pins == {"values_pinned": 0, "pins_retired": 1}
    assert ok(anna, "values", "pins") == "none"
    [_, retired] = json.loads(ok(anna, "values", "pins", "--all", "--json"))
    assert (retired["event"], retired["author"], retired["batch"]) == ("retired", "profile-pipeline", 2)
