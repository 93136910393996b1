"""Typed events: the text syntax, mistakes in it, both resolvers on it, and the command that shows them."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from profile_pipeline.cli import app
from profile_pipeline.config.identity import IdentityRules
from profile_pipeline.errors import PipelineError
from profile_pipeline.identity.simulate import Simulation, resolve, simulate_ours
from profile_pipeline.identity.simulation_file import parse_lines

PAGE = Path(__file__).parent.parent / "docs" / "simulate.md"
SPACES = {
    "crm_id": {"priority": 1, "unique": 1, "blocked": ["0"]},
    "email": {"type": "email", "priority": 2, "link": False},
    "phone": {"type": "phone", "priority": 3},
    "cookie": {"kind": "cookie"},
}
RULES = IdentityRules.model_validate({"namespaces": SPACES})
TEXT = """
# two people, one browser
CRM_ID: A, Email: John.Greene@luma.com, cookie: x
crm_id: B, cookie: x
"""


def ours(text: str, country: str = "", **rules: object) -> Simulation:
    changed = IdentityRules.model_validate({"namespaces": SPACES, **rules})
    return simulate_ours(parse_lines(text, SPACES), changed, country)


def members(found: Simulation) -> list[list[int]]:
    return [graph.lines for graph in found.graphs]


def test_names_of_namespaces_are_read_in_any_case_and_values_as_written():
    [first, second] = parse_lines(TEXT, SPACES)
    assert first.identities == (("crm_id", "A"), ("email", "John.Greene@luma.com"), ("cookie", "x"))
    assert (first.number, second.number) == (3, 4)
    assert (second.at - first.at).total_seconds() == 60


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-03-01 cookie: 1", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T10:30 cookie: 1", datetime(2026, 3, 1, 10, 30, tzinfo=UTC)),
        ("2026-03-01 10:30:05, cookie: 1", datetime(2026, 3, 1, 10, 30, 5, tzinfo=UTC)),
        ("2026-03-01T10:30+02:00 cookie: 1", datetime(2026, 3, 1, 8, 30, tzinfo=UTC)),
        ("2026-03-01T10:30Z  cookie: 1", datetime(2026, 3, 1, 10, 30, tzinfo=UTC)),
    ],
)
def test_a_line_may_begin_with_a_time(text, at):
    [line] = parse_lines(text, SPACES)
    assert (line.at, line.identities) == (at, (("cookie", "1"),))


def test_a_value_may_hold_colons_and_an_identity_counts_once():
    [line] = parse_lines("cookie: a:b, cookie: a:b", SPACES)
    assert line.identities == (("cookie", "a:b"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crmid: secret", "f: line 1: unknown namespace `crmid`; did you mean `crm_id`?"),
        ("zzz: secret", "f: line 1: unknown namespace `zzz`; known: crm_id, email, phone, cookie"),
        ("cookie: 1\nsecret", "f: line 2: part 1 is not `NS: value`; write a namespace, a colon, a value"),
        ("cookie: ", "f: line 1: part 1 is not `NS: value`; write a namespace, a colon, a value"),
        ("2026-13-01 cookie: 1", "f: line 1: `2026-13-01` is no time; write it such as 2026-03-01T10:30"),
        (
            "2026-03-01 cookie: 1\ncookie: 2",
            "f: line 2: has no time, others have; give every line one, or none",
        ),
        ("# nothing", "f: no events; write lines such as `crm_id: 1, email: a@example.org`"),
        (", ".join(f"cookie: {n}" for n in range(21)), "f: line 1: more than 20 identities; split the line"),
        ("cookie: 1\n" * 10_001, "f: more than 10,000 lines; simulate a part of it"),
    ],
)
def test_a_mistake_is_one_line_with_file_line_and_fix(text, message):
    with pytest.raises(PipelineError) as caught:
        parse_lines(text, SPACES, "f")
    assert str(caught.value) == message
    assert "secret" not in str(caught.value), "values are personal"


def test_all_mistakes_are_told_at_once():
    with pytest.raises(PipelineError) as caught:
        parse_lines("a: 1\nb: 2", SPACES)
    assert len(str(caught.value).splitlines()) == 2


def test_ours_normalises_before_it_compares_and_adobe_does_not():
    text = "crm_id: A, email: John.Greene@luma.com\nemail: john.greene@LUMA.com"
    assert members(ours(text)) == [[1, 2]]
    adobe = resolve(parse_lines(text, SPACES), RULES, "newest_link")
    assert members(adobe) == [[1], [2]]


def test_a_click_belongs_to_the_only_holder_and_the_link_is_shown():
    found = ours("crm_id: A, email: a@mail.test\nemail: a@mail.test\nemail: b@mail.test")
    assert members(found) == [[1, 2], [3]]
    [link] = found.links
    assert (link.left, link.right, link.by, link.why) == ("line 1", "line 2", "email: a@mail.test", "")


def test_values_that_identify_nobody_are_told():
    found = ours("crm_id: 0, cookie: x\ncrm_id: n/a, cookie: y\nphone: 12, crm_id: A")
    assert found.notes == [
        f"line {n}: its {space} identifies nobody (placeholder, blocked or malformed)"
        for n, space in [(1, "crm_id"), (2, "crm_id"), (3, "phone")]
    ]
    assert [graph.identities for graph in found.graphs] == [["cookie: x"], ["cookie: y"], ["crm_id: A"]]


def test_numbers_are_read_as_those_of_the_country():
    text = "phone: 020 7946 0018, crm_id: A\nphone: +442079460018"
    assert members(ours(text, "GB")) == [[1, 2]]
    assert len(ours(text).notes) == 1


def test_a_cut_names_the_limit():
    found = ours("crm_id: A, phone: +442079460018\ncrm_id: B, phone: +442079460018")
    assert [link.why for link in found.links] == [
        "carried by 2 holders of crm_id (unique: 1), so it ties nobody"
    ]


def test_a_cut_of_evidence_and_of_a_device_says_so():
    found = ours("crm_id: A, email: a@mail.test, cookie: x\ncrm_id: B, email: a@mail.test, cookie: x")
    assert {link.by.split(":")[0]: link.why for link in found.links} == {
        "cookie": "a cookie is shared; it ties nobody to anybody",
        "email": "`link: false`; evidence only",
    }
    assert found.relationships == [
        "shared_contact email: a@mail.test (2 profiles)",
        "shared_device cookie: x (2 profiles)",
    ]


def test_the_session_gap_of_the_rules_holds():
    text = "2026-03-01T10:00 crm_id: A, cookie: x\n2026-03-01T10:20 cookie: x"
    assert members(ours(text)) == [[1, 2]]
    apart = ours(text, session_gap_minutes=10)
    assert members(apart) == [[1], [2]]
    assert [link.why for link in apart.links] == ["nobody was identified on this cookie near in time"]


def test_sixty_browsers_of_one_person_stay_with_her_and_adobe_drops_ten():
    text = "\n".join(f"crm_id: A, cookie: {n:02d}" for n in range(60))
    [graph] = ours(text).graphs
    assert len(graph.identities) == 61
    adobe = resolve(parse_lines(text, SPACES), RULES, "newest_link")
    assert sorted(len(graph.identities) for graph in adobe.graphs) == [1] * 11 + [50]


def test_500_logins_on_one_tablet_are_500_people_and_one_relationship():
    found = ours("\n".join(f"crm_id: {n}, cookie: t" for n in range(1, 501)))
    assert len(found.graphs) == 500
    assert found.relationships == ["shared_device cookie: t (500 profiles)"]
    assert len(found.links) == 499


def test_the_same_lines_give_the_same_result():
    assert ours(TEXT) == ours(TEXT)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "events.txt"
    path.write_text("CRM_ID: 100, Email: a@x.org, device: t\ncrm_id: 200, device: t\n", encoding="utf-8")
    return path


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["simulate", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_shows_both_resolvers_one_after_the_other(file):
    code, out, _ = run(str(file))
    assert code == 0
    assert (
        out
        == """\
ours: 2 graphs
  1. crm_id: 100, email: a@x.org; shares device: t (lines 1)
  2. crm_id: 200; shares device: t (lines 2)
  cut:
    [1] line 1 - - line 2 by device: t (a device is shared; it ties nobody to anybody)
  shared, merges nobody:
    shared_device device: t (2 profiles)

newest_link: 1 graph
  1. crm_id: 100, crm_id: 200, device: t, email: a@x.org (lines 1, 2)
  kept:
    [1] crm_id: 100 --- device: t
    [2] crm_id: 100 --- email: a@x.org
    [3] device: t --- email: a@x.org
    [4] crm_id: 200 --- device: t

"""
    )


def test_the_page_about_it_shows_real_output(tmp_path):
    _, events, shown = re.findall(r"```(?:text)?\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[:3]
    path = tmp_path / "tablet.txt"
    path.write_text(events, encoding="utf-8")
    assert run(str(path))[1].strip() == shown.strip()


def test_json_has_one_resolver_or_both(file):
    both = json.loads(run(str(file), "--json")[1])
    assert [found["resolver"] for found in both] == ["ours", "newest_link"]
    [one] = json.loads(run(str(file), "--json", "--resolver", "newest_link")[1])
    assert one == both[1]
    assert set(one) == {"resolver", "graphs", "links", "relationships", "notes"}


def test_it_changes_nothing(file, tmp_path, monkeypatch):
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("PROFILE_DATA", str(tmp_path / "data"))
    assert run(str(file))[0] == 0
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("crmid: 1", [], "events.txt: line 1: unknown namespace `crmid`; did you mean `crm_id`?"),
        ("device: t", ["--resolver", "best"], "--resolver: unknown `best`; choose ours or newest_link"),
        (None, [], "cannot be read; name a UTF-8 text file, a line an event"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(file, content, arguments, message):
    file.write_text(content or "", encoding="utf-8")
    if content is None:
        file.unlink()
    code, out, errors = run(str(file), *arguments)
    assert (code, out, len(errors.splitlines())) == (1, "", 1)
    assert message in errors


def test_many_links_are_counted_on_the_terminal(file):
    file.write_text("\n".join(f"crm_id: 1, device: {n}" for n in range(80)), encoding="utf-8")
    assert "and 29 more; --json shows all" in run(str(file), "--resolver", "ours")[1]
