"""The report: says what the tables say, judges by stated rules, is harmless with any names, and loads nothing."""

import base64
import hashlib
import re
import shutil
from collections.abc import Generator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from profile_pipeline import publish, quality
from profile_pipeline.cli import app
from profile_pipeline.config.project import Project
from profile_pipeline.report import REPORT, write_report
from profile_pipeline.report.facts import (
    About,
    Audience,
    Block,
    Changes,
    Check,
    Combination,
    Destination,
    Facts,
    Fates,
    Field,
    Link,
    Namespace,
    Overlap,
    Point,
    Policy,
    Refusal,
    Size,
    Source,
    Weight,
    Won,
)  # fmt: skip
from profile_pipeline.report.page import report_page, start_page
from profile_pipeline.report.start import Step
from profile_pipeline.scaffold import init_project
from profile_pipeline_tests.hand_made import all_hold, day, people
from profile_pipeline_tests.worlds import World, deliver, run_and_publish, write_rules

FIRST = people(
    {"id": "1", "first": "Anna", "last": "Meyer", "email": "anna@x.org", "segment": "gold"},
    {"id": "2", "first": "Bob", "last": "Stone", "email": "bob@x.org"},
    {"id": "3", "first": "Carl", "last": "Long", "email": "carl@x.org"},
)
SECOND = people(
    {"id": "1", "first": "Anne", "last": "Meyer", "email": "anna@x.org", "moment": "2026-03-02T00:00:00Z"},
    {"id": "4", "first": "New", "last": "Person", "email": "new@x.org"},
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Generator[Project]:
    """Two batches, a generation after each."""
    project = write_rules(tmp_path_factory.mktemp("published"), World(()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", all_hold)
        for number, rows in enumerate([FIRST, SECOND], start=1):
            deliver(project, rows, str(number))
            run_and_publish(project, day(number))
        yield project


class Page(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.rows: set[tuple[str, str]] = set()
        """Every name that begins a row of a table, with every number in that row."""
        self._cells: list[str] = []
        self._inside: list[str] = []
        self.feed(text.replace("<wbr>", ""))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)
        self._cells = [] if tag == "tr" else [*self._cells, ""] if tag in {"td", "th"} else self._cells

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr":
            self.rows |= {(self._cells[0], cell) for cell in self._cells[1:]}
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self._inside:
            self.words.append(data)
            self._cells[-1:] = [cell + data for cell in self._cells[-1:]]

    @property
    def text(self) -> str:
        """What a person reads."""
        return " ".join(" ".join(self.words).split())


def page_of(project: Project) -> Page:
    return Page((project.published / "current" / REPORT).read_text(encoding="utf-8"))


# ---------------------------------------------------------------- where it is


def test_every_generation_has_a_report_that_its_manifest_vouches_for(published: Project) -> None:
    for generation in publish.generations(published):
        assert generation.manifest["files"][REPORT]["rows"] is None
        assert publish.verify(generation) == []


def test_the_command_names_the_report_of_the_live_generation(published: Project) -> None:
    result = CliRunner().invoke(app, ["report", "--project", str(published.rules.parent)])
    assert result.exit_code == 0, result.output
    assert Path(result.stdout.strip()) == published.published / "current" / REPORT


def test_before_the_first_generation_a_page_says_what_to_do_next(tmp_path: Path) -> None:
    init_project(tmp_path / "new")
    result = CliRunner().invoke(app, ["report", "--project", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.strip())
    page = Page(path.read_text(encoding="utf-8"))
    assert "Nothing is published yet" in page.text
    [step] = [attributes for tag, attributes in page.elements if attributes.get("aria-current") == "step"]
    assert step
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    followed = [path.parent / str(link) for link in links if link and not link.startswith("#")]
    assert len(followed) >= 4
    assert all(target.exists() for target in followed)


def test_rules_with_mistakes_are_named_on_the_first_page(tmp_path: Path) -> None:
    init_project(tmp_path / "new")
    (tmp_path / "new" / "rules" / "profiles.yaml").write_text("policies: {}\n")
    result = CliRunner().invoke(app, ["report", "--project", str(tmp_path / "new")])
    page = Page(Path(result.stdout.strip()).read_text(encoding="utf-8"))
    assert "The rules have mistakes" in page.text
    assert "profiles.yaml" in page.text


# ---------------------------------------------------------------- what it is


def test_the_same_generation_makes_the_same_bytes(published: Project, tmp_path: Path) -> None:
    newest, before = publish.generations(published)
    copied = shutil.copytree(newest.folder, tmp_path / "again")
    (copied / REPORT).unlink()
    again = write_report(copied, newest.manifest, (before.folder, before.manifest), tmp_path / "tmp")
    assert again.read_bytes() == (newest.folder / REPORT).read_bytes()


def test_the_page_runs_nothing_and_loads_nothing(published: Project) -> None:
    text = (published.published / "current" / REPORT).read_text(encoding="utf-8")
    page = Page(text)
    assert {tag for tag, _ in page.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "form",
        "use",
    } == set()
    for _, attributes in page.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in {"style", "src", "xlink:href"}
        ]
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?://|url\(|@import", text)


def test_what_is_pointed_at_exists_and_no_id_is_given_twice(published: Project) -> None:
    page = page_of(published)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "href"):
            pointed = (attributes.get(name) or "").split()
            assert {target.lstrip("#") for target in pointed} <= set(ids), (name, pointed)


def test_headings_go_down_one_level_at_a_time(published: Project) -> None:
    levels = [int(tag[1]) for tag, _ in page_of(published).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_no_customer_value_is_on_the_page(published: Project) -> None:
    text = page_of(published).text
    for value in ("Anna", "Meyer", "anna@x.org", "Carl", "crm:1"):
        assert value not in text


# ---------------------------------------------------------------- what it says


def test_changes_are_those_between_the_two_generations(published: Project) -> None:
    said = page_of(published).text
    assert "Compared with generation 1" in said
    assert "2 rows delivered since" in said
    for words in ("new 1", "gone 0", "other values 1", "unchanged 2", "given_name 1"):
        assert words in said, words


def test_the_equation_is_that_of_the_rows(published: Project) -> None:
    said = page_of(published).text
    assert "The rows balance" in said
    assert "5 delivered = 4 current records + 1 superseded by a newer version" in said


def test_every_table_of_metrics_is_shown_to_the_last_number(published: Project) -> None:
    """The figures on the page are those of the tables, whatever the tables say."""
    live = publish.current(published)
    assert live
    page = page_of(published)
    with duckdb.connect(str(live.folder / "profiles.duckdb"), read_only=True) as con:
        for query in (
            "select source, delivered from (select source, sum(delivered)::bigint as delivered from metrics_row_fates group by 1)",
            "select namespace, profile_count from metrics_namespaces where day = (select max(day) from metrics_dates)",
            "select audience, member_count from metrics_audiences where day = (select max(day) from metrics_dates)",
            "select field, filled_count from metrics_fields where policy = 'golden' and day = (select max(day) from metrics_dates)",
        ):
            found = con.execute(query).fetchall()
            assert found
            for name, count in found:
                assert (name, f"{count:,}") in page.rows, (name, count)


def test_no_audience_says_what_to_do_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "validate", all_hold)
    project = write_rules(tmp_path, World(()))
    (project.rules / "audiences.yaml").unlink()
    deliver(project, FIRST, "1")
    run_and_publish(project, day(1))
    said = page_of(project).text
    assert "No audience is defined yet" in said
    assert "docs/rules/audiences.md" in said


def test_a_generation_of_an_older_program_before_this_one_is_no_hindrance(
    published: Project, tmp_path: Path
) -> None:
    newest, before = publish.generations(published)
    older = shutil.copytree(before.folder, tmp_path / "older")
    with duckdb.connect(str(older / "profiles.duckdb")) as con:
        con.execute("drop table metrics_audiences")
        con.execute("alter table metrics_fields drop column day")
    copied = shutil.copytree(newest.folder, tmp_path / "again")
    manifest = {key: value for key, value in before.manifest.items() if key not in {"matching", "deliveries"}}
    page = Page(
        write_report(copied, newest.manifest, (older, manifest), tmp_path / "tmp").read_text(encoding="utf-8")
    )
    assert "new 1" in page.text
    assert "Audiences that grew" not in page.text


HOSTILE = "<script>alert(1)</script>\"' onmouseover=x {{7*7}} =cmd|' \u202egnp.exe"


def hostile_facts() -> Facts:
    """Facts in which every name that people give is an attack."""
    at = day(1)
    about = About(1, at, 1, 1, HOSTILE, {HOSTILE: 1}, HOSTILE, {"loaded": 1}, 1.0, 0.9, 0.9)
    return Facts(
        about,
        history=[Point(1, at, *[1] * 11), Point(2, at, *[1] * 11)],
        fates=[Fates(HOSTILE, 3, 1, 0, 0, 0, 1, 0, 0)],
        checks=[
            Check(HOSTILE, HOSTILE, HOSTILE, False, 1, 1, HOSTILE),
            Check(HOSTILE, HOSTILE, "", True, 1, 1, HOSTILE),
        ],
        changes=Changes(1, at, 1, 1, 1, 1, [(HOSTILE, 1)], 1),
        policies=[Policy(HOSTILE, 1, True, 1, 0.5, 1, 1, 1, 1)],
        namespaces=[Namespace(HOSTILE, 1, 1, 1)],
        combinations=[Combination((HOSTILE,), 1)],
        source_combinations=[Combination((HOSTILE,), 1)],
        audiences=[Audience(HOSTILE, HOSTILE, HOSTILE, 1, 2)],
        overlaps=[Overlap(HOSTILE, HOSTILE, 1, 50.0)] * 12,
        fields=[Field(HOSTILE, 1, 1, 1, 9)],
        won=[Won(HOSTILE, HOSTILE, 1)],
        sources=[Source(HOSTILE, at, at, 1, 1, 1, 1, 2, 1)],
        refusals=[Refusal(HOSTILE, HOSTILE, HOSTILE, 1)],
        destinations=[Destination(HOSTILE, HOSTILE, 1, at)],
        weights=[Weight(1, 1, 1)],
        sizes=[Size(1, 1, 1)],
        links=[Link(HOSTILE, HOSTILE, 1, 1)],
        blocks=[Block(HOSTILE, 1, 1, 1, 1)],
        published=1,
    )


def test_hostile_names_are_text_and_nothing_else() -> None:
    text = report_page(hostile_facts())
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "\u202e" not in text
    assert "49" not in page.text
    assert page.text.count("<script>alert(1)</script>") > 30  # shown as the name it is


def test_hostile_mistakes_in_rules_are_text_too() -> None:
    text = start_page([Step(HOSTILE, False, HOSTILE, HOSTILE, "x.md")], [HOSTILE], "")
    assert "script" not in {tag for tag, _ in Page(text).elements}


def test_the_policy_of_the_page_names_its_own_style_sheet(published: Project) -> None:
    text = (published.published / "current" / REPORT).read_text(encoding="utf-8")
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = [
        a["content"] for _, a in Page(text).elements if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


# ---------------------------------------------------------------- in a real browser

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_it_without_a_word_of_complaint(published: Project, tmp_path: Path) -> None:
    """Hostile names, every width, both schemes: no dialog, no request, no message, nothing wider than the window."""
    from playwright.sync_api import sync_playwright

    hostile = tmp_path / "hostile.html"
    hostile.write_text(report_page(hostile_facts()), encoding="utf-8")
    heard: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (390, 1280):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark")
            page.on("dialog", lambda dialog: heard.append(dialog.message))
            page.on("console", lambda message: heard.append(message.text))
            page.on(
                "request", lambda request: heard.append(request.url) if request.url[:5] != "file:" else None
            )
            for path in (hostile, published.published / "current" / REPORT):
                page.goto(path.as_uri())
                style = page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert style == "rgb(16, 21, 27)", "the style sheet was not applied"
                assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.textContent") == "To the content"
            page.close()
        browser.close()
    assert heard == []
