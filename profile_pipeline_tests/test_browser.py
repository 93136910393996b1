"""Profile pages in a real browser: the way of a steward through them, hostile values, phone width, keyboard.

Any dialog, any request to another host, any complaint of the browser about a page is a failure.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from profile_pipeline.warehouse import rows
from profile_pipeline_tests.served import HOSTILE, TOKEN, Site, make_site, served
from profile_pipeline_tests.worlds import warehouse_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)} is installed"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def address(site: Site) -> Iterator[str]:
    with served(site.project) as (base, _):
        yield base


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        found = player.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@dataclass
class Watched:
    """A tab that has been let in, and all that must not happen in it."""

    page: "Page"
    base: str
    script: bool
    wrong: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        self.page.goto(self.base + path)

    @property
    def wide(self) -> bool:
        """Whether the page is wider than the window."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )


def watched(browser: "Browser", base: str, *, width: int = 1280, script: bool = True) -> Watched:
    page = browser.new_context(
        viewport={"width": width, "height": 800}, java_script_enabled=script
    ).new_page()
    found = Watched(page, base, script)

    def dialog(shown: object) -> None:
        found.wrong.append(f"dialog: {shown}")
        shown.dismiss()  # ty: ignore[unresolved-attribute]

    page.on("dialog", dialog)
    page.on("request", lambda r: None if r.url.startswith(base + "/") else found.wrong.append(r.url))
    page.on("console", lambda m: found.wrong.append(m.text) if m.type in {"error", "warning"} else None)
    page.on("pageerror", lambda e: found.wrong.append(str(e)))
    found.go(f"/?token={TOKEN}")
    assert "token" not in page.url
    return found


@pytest.fixture(params=[True, False], ids=["script", "no script"])
def tab(request: pytest.FixtureRequest, browser: "Browser", address: str) -> Iterator[Watched]:
    found = watched(browser, address, script=request.param)
    yield found
    assert found.wrong == []
    found.page.context.close()


def search(tab: Watched, text: str) -> None:
    tab.page.get_by_label("Find a person").fill(text)
    tab.page.get_by_role("button", name="Search").click()


def test_an_email_in_capitals_leads_to_the_person(tab: Watched, site: Site) -> None:
    search(tab, "ANNA.MEYER@EXAMPLE.ORG")
    tab.page.wait_for_url(f"**/profiles/{site.living}*")
    assert tab.page.get_by_role("heading", level=1).inner_text() == "Anna Meyer"
    assert tab.page.get_by_role("region", name="Values").get_by_text("anna.meyer@example.org").count()
    assert tab.page.get_by_role("img", name=re.compile("records and identities")).is_visible()
    assert "EXAMPLE" not in tab.page.url, "what was searched for stays in no address"


def test_a_merged_id_leads_to_its_successor(tab: Watched, site: Site) -> None:
    tab.go(f"/profiles/{site.retired}")
    tab.page.wait_for_url(f"**/profiles/{site.living}*")
    assert site.retired in tab.page.get_by_role("status").inner_text()
    search_again = tab.page.get_by_role("link", name="Search")
    search_again.click()
    search(tab, site.retired)
    tab.page.wait_for_url(f"**/profiles/{site.living}*")


def test_older_events_come_in_place_or_on_a_page(tab: Watched, site: Site) -> None:
    tab.go(f"/profiles/{site.living}")
    assert tab.page.locator(".event").count() == 25
    tab.page.get_by_role("link", name="Older events").click()
    if tab.script:
        tab.page.locator(".event").nth(49).wait_for()
        assert tab.page.url.endswith(site.living)
    else:
        tab.page.wait_for_url("**/timeline*")
        assert tab.page.locator(".event").count() == 25


def test_hidden_values_are_shown_for_a_reason(tab: Watched, site: Site) -> None:
    tab.go(f"/profiles/{site.living}")
    assert not tab.page.get_by_text("1980-02-03").count()
    tab.page.get_by_text("Hidden: birth date").click()
    tab.page.get_by_label("Why you need to see them").fill("she called")
    tab.page.get_by_role("button", name="Show once").click()
    tab.page.get_by_text("1980-02-03").first.wait_for()


def test_a_pair_is_decided(browser: "Browser", address: str, site: Site) -> None:
    tab = watched(browser, address)
    tab.go("/review")
    first = tab.page.locator(".question").first
    item = first.get_by_role("checkbox").get_attribute("value")
    first.get_by_role("checkbox").check()
    tab.page.get_by_role("textbox", name="Reason").fill("a family")
    tab.page.get_by_role("button", name="Two people").click()
    tab.page.get_by_role("status").wait_for()
    assert "1 decision written" in tab.page.get_by_role("status").inner_text()
    assert (
        "decided: two people"
        in tab.page.locator(".question").filter(has=tab.page.locator(f"[value='{item}']")).inner_text()
    )
    with warehouse_of(site.project) as con:
        assert rows(con, "select decision, author, reason from identity.decisions") == [
            ("no_match", "tester", "a family")
        ]
    assert tab.wrong == []


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_values_stay_text_on_every_page(
    browser: "Browser", address: str, site: Site, width: int
) -> None:
    tab = watched(browser, address, width=width)
    profile_id = site.id_of(f"crm:{HOSTILE['id']}")
    for path in (
        f"/profiles/{profile_id}",
        "/review",
        "/audiences",
        "/audiences/reachable",
        "/policies",
        "/",
        f"/profiles/{site.living}",
    ):
        tab.go(path)
        for details in tab.page.locator("details").all():
            details.evaluate("element => element.open = true")
        for place in ("body", "table", "bdi", "a", "summary"):
            for found in tab.page.locator(place).all()[:40]:
                found.dispatch_event("mouseover")
                found.dispatch_event("focus")
        assert not tab.wide, f"{path} is wider than {width} pixels"
    for text in (HOSTILE["first"], HOSTILE["last"], '"><img src=x onerror=alert(9)>', "javascript:alert(1)"):
        tab.go("/")
        search(tab, text)
        tab.page.wait_for_load_state()
    assert tab.wrong == []


def test_the_way_to_a_profile_needs_no_mouse(browser: "Browser", address: str, site: Site) -> None:
    tab = watched(browser, address)
    tab.page.keyboard.type("c-1a")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_url(f"**/profiles/{site.living}*")
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    tab.page.keyboard.press("Enter")
    seen = set()
    for _ in range(60):
        tab.page.keyboard.press("Tab")
        seen.add(
            tab.page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
            )
        )
    assert {"Values", "Records side by side"} <= seen
    assert tab.wrong == []


def test_every_control_and_region_has_a_name(browser: "Browser", address: str, site: Site) -> None:
    tab = watched(browser, address)
    for path in ("/", f"/profiles/{site.living}", "/review", "/audiences/gold", "/policies"):
        tab.go(path)
        nameless = tab.page.evaluate(NAMELESS)
        assert nameless == [], path
        levels = [
            int(h[1])
            for h in tab.page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(e => e.tagName)")
        ]
        assert levels.count(1) == 1, path
        assert tab.page.evaluate("document.documentElement.lang") == "en"


def test_colours_are_readable(browser: "Browser", address: str, site: Site, tmp_path: Path) -> None:
    """Text against its ground: 4.5 to 1 at least, light and dark (WCAG 2.1, AA)."""
    for scheme in ("light", "dark"):
        tab = watched(browser, address)
        tab.page.emulate_media(color_scheme=scheme)  # ty: ignore[invalid-argument-type]
        tab.go(f"/profiles/{site.living}")
        poor = tab.page.evaluate(CONTRAST)
        assert poor == [], scheme
        tab.page.context.close()


NAMELESS = """() => {
  const wanted = 'input:not([type=hidden]), button, a, [role=region], [role=img], table';
  const named = e => e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length);
  return [...document.querySelectorAll(wanted)].filter(e => !named(e)).map(e => e.outerHTML.slice(0, 80));
}"""
CONTRAST = """() => {
  const rgb = t => (t.match(/[\\d.]+/g) || []).map(Number);
  const linear = v => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const says = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const poor = [];
  for (const e of document.querySelectorAll('main *, header *')) {
    if (e.closest('svg') || !says(e)) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName} ${e.className} ${ratio.toFixed(2)} ${e.textContent.trim().slice(0, 30)}`);
  }
  return [...new Set(poor)];
}"""
