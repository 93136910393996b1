"""Profile pages: who gets in, what is found, shown and hidden, what is recorded, and that looking changes nothing."""

import hashlib
import html
import json
import math
import re
import shutil
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from profile_pipeline import decisions, publish, quality
from profile_pipeline.cli import app as command_line
from profile_pipeline.config.project import Project, project_at
from profile_pipeline.identity.weights import Part, Score
from profile_pipeline.serve import graph, weights
from profile_pipeline.serve.audit import FILE
from profile_pipeline.serve.likeness import likeness
from profile_pipeline.serve.masking import HIDDEN
from profile_pipeline.serve.portrait import PAGE
from profile_pipeline.serve.security import HEADERS, LARGEST_BODY, LONGEST_QUERY, Gate, gate
from profile_pipeline.warehouse import rows, run_lock
from profile_pipeline_tests.hand_made import all_hold, day, people
from profile_pipeline_tests.served import ANNA, HOSTILE, SCRIPT, TOKEN, Site, make_site, publish_again, served
from profile_pipeline_tests.worlds import deliver, files_below, ids_of, run_core, warehouse_of

PAGES = ("/", "/audiences", "/audiences/gold", "/review", "/policies")
API = ("/api/audiences", "/api/audiences/gold", "/api/review", "/api/openapi.json", "/api/lookup?q=x")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def address(site: Site) -> Iterator[tuple[str, Gate]]:
    with served(site.project) as found:
        yield found


@pytest.fixture
def web(address: tuple[str, Gate]) -> Iterator[httpx.Client]:
    """A browser that has been let in."""
    base, at = address
    with httpx.Client(base_url=base, cookies={at.cookie: at.pass_}, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def stranger(address: tuple[str, Gate]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address[0], timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def program(address: tuple[str, Gate]) -> Iterator[httpx.Client]:
    """A program that sends the token with every request."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=address[0], headers=headers, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def form(address: tuple[str, Gate]) -> dict[str, str]:
    """What every form carries."""
    return {"form_token": address[1].form_token}


@pytest.fixture
def own(site: Site, tmp_path: Path) -> Project:
    """The project again, to be changed."""
    folder = site.project.rules.parent
    shutil.copytree(folder, tmp_path / "own", symlinks=True)
    return project_at(tmp_path / "own")


def said(page: str) -> str:
    """What a page says, without its markup."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


def noted(project: Project) -> list[dict[str, Any]]:
    path = project.state / FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# ---------------------------------------------------------------- who gets in


@pytest.mark.parametrize("path", [*PAGES, *API, "/profiles/x", "/nowhere"])
def test_nobody_comes_in_without_the_token(stranger: httpx.Client, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 401
    assert "Meyer" not in answer.text


def test_the_token_of_the_address_becomes_a_cookie(stranger: httpx.Client, address: tuple[str, Gate]) -> None:
    answer = stranger.get("/audiences/gold", params={"token": TOKEN, "after": "x&y"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/audiences/gold?after=x%26y")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert stranger.get("/").status_code == 200, "the client keeps the cookie"


def test_the_way_in_leads_to_no_other_host(stranger: httpx.Client) -> None:
    answer = stranger.get(f"//evil.example.org/%2e?token={TOKEN}")
    assert answer.headers["location"].startswith("/")
    assert not answer.headers["location"].startswith("//")


@pytest.mark.parametrize("token", ["wrong", TOKEN + "x", TOKEN[:-1], "é"])
def test_another_token_opens_nothing(stranger: httpx.Client, token: str) -> None:
    assert stranger.get("/", params={"token": token}).status_code == 401
    assert stranger.get("/", headers={"Authorization": f"Bearer {token}".encode()}).status_code == 401
    assert stranger.get("/").status_code == 401


def test_a_program_sends_the_token_itself(program: httpx.Client) -> None:
    assert program.get("/api/audiences").status_code == 200


@pytest.mark.parametrize(
    "name", ["evil.example.org", "evil.example.org:{port}", "127.0.0.1", "127.0.0.1:1", ""]
)
def test_a_name_that_is_made_to_lead_here_is_refused(
    program: httpx.Client, address: tuple[str, Gate], name: str
) -> None:
    port = address[0].rpartition(":")[2]
    for path in ("/", "/static/style.css", "/api/audiences"):
        assert program.get(path, headers={"Host": name.format(port=port)}).status_code == 421


@pytest.mark.parametrize("path", ["/", "/profiles/nobody", "/nowhere", "/api/audiences", "/static/style.css"])
def test_every_answer_carries_the_headers(web: httpx.Client, stranger: httpx.Client, path: str) -> None:
    for answer in (web.get(path), stranger.get(path), web.get(path, headers={"Host": "x"})):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "server" not in {name.lower() for name in answer.headers if answer.headers[name] == "uvicorn"}


def test_the_policy_forbids_what_is_not_ours() -> None:
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("path", ["/search", "/review", "/profiles/{id}/reveal", "/profiles/{id}/weights"])
def test_a_form_of_somebody_else_does_nothing(
    web: httpx.Client, site: Site, form: dict[str, str], path: str
) -> None:
    path = path.format(id=site.living)
    before = len(noted(site.project))
    assert web.post(path, data={"q": "C-1a", "why": "x"}).status_code == 400
    for headers in (
        {"Origin": "http://evil.example.org"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert web.post(path, data={**form, "q": "C-1a", "why": "x"}, headers=headers).status_code == 403
    assert len(noted(site.project)) == before


def test_a_browser_is_not_led_to_use_the_json_with_its_cookie(
    web: httpx.Client, program: httpx.Client, site: Site
) -> None:
    path = f"/api/profiles/{site.living}/reveal"
    assert web.post(path, json={"why": "x"}).status_code == 400
    assert program.post(path, json={"why": "x"}).status_code == 200


def test_what_is_too_large_is_refused(web: httpx.Client, form: dict[str, str]) -> None:
    assert web.post("/search", data={**form, "q": "x" * LARGEST_BODY}).status_code == 413
    assert web.get("/", params={"x": "y" * LONGEST_QUERY}).status_code == 414
    assert web.post("/search", data={**form, "q": "x" * 401}).status_code == 422
    assert web.get("/api/lookup", params={"q": "x" * 401}).status_code == 422
    assert web.get("/profiles/" + "a" * 5000).status_code == 414


def test_a_body_that_does_not_say_how_long_it_is_ends_at_the_limit(
    web: httpx.Client, form: dict[str, str]
) -> None:
    def endless() -> Iterator[bytes]:
        yield f"form_token={form['form_token']}&q=".encode()
        for _ in range(20):
            yield b"x" * (LARGEST_BODY // 10)

    answer = web.post(
        "/search", content=endless(), headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code >= 400


@given(st.text(max_size=60), st.integers(1, 65535))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_only_loopback_names_are_hosts_of_a_loopback_server(name: str, port: int) -> None:
    hosts = gate(TOKEN, "127.0.0.1", port, []).hosts
    assert (name.lower() in hosts) == (
        name.lower() in {f"{n}:{port}" for n in ("127.0.0.1", "localhost", "[::1]")}
    )


# ---------------------------------------------------------------- the command


def ask(*arguments: str, environment: dict[str, str] | None = None) -> str:
    answer = CliRunner(env=environment or {}).invoke(command_line, ["serve", *arguments])
    assert answer.exit_code == 1
    return answer.output


def test_other_machines_need_a_token_of_ones_own(site: Site) -> None:
    folder = str(site.project.rules.parent)
    assert "--token-from" in ask("--project", folder, "--host", "0.0.0.0")
    short = ask("--project", folder, "--token-from", "PAGES", environment={"PAGES": "short"})
    assert "shorter than 20" in short
    assert "not set" in ask("--project", folder, "--token-from", "NOT_THERE")


def test_a_taken_port_is_said(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another" in ask("--project", str(site.project.rules.parent), "--port", port)


# ---------------------------------------------------------------- finding


@pytest.mark.parametrize(
    "text",
    [
        "ANNA.MEYER@EXAMPLE.ORG", " anna.meyer@example.org ", "+44 20 7946 0123", "(020) 7946-0123", "c-1A",
        "crm:C-1a", "anna meyer", "MEYER", "Ánna",
    ],
)  # fmt: skip
def test_a_person_is_found_by_any_spelling(
    web: httpx.Client, site: Site, form: dict[str, str], text: str
) -> None:
    answer = web.post("/search", data={**form, "q": text})
    assert answer.status_code == 303
    assert answer.headers["location"].partition("?")[0] == f"/profiles/{site.living}"
    found = web.get("/api/lookup", params={"q": text}).json()["profiles"]
    assert [hit["profile_id"] for hit in found] == [site.living]


def test_what_leads_to_several_lists_them(web: httpx.Client, site: Site, form: dict[str, str]) -> None:
    answer = web.post("/search", data={**form, "q": "020 7946 0999"})
    assert answer.status_code == 200
    ids = {site.id_of(f"crm:Q-{n}") for n in range(4)}
    assert len(ids) > 1
    assert set(re.findall(r'href="/profiles/([^?"]+)', answer.text)) == ids


@pytest.mark.parametrize(
    "text", ["nobody@example.org", "'; drop table profiles; --", "%", "_", "\\", "\x00", "(", "x" * 400]
)
def test_what_leads_nowhere_says_so(web: httpx.Client, form: dict[str, str], text: str) -> None:
    answer = web.post("/search", data={**form, "q": text})
    assert answer.status_code == 200
    assert "Nobody found" in answer.text


@given(text=st.text(max_size=120))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_no_text_breaks_the_search(shared_web: httpx.Client, text: str) -> None:
    answer = shared_web.get("/api/lookup", params={"q": text.encode("utf-8", "replace").decode()})
    assert answer.status_code == 200


@pytest.fixture(scope="module")
def shared_web(address: tuple[str, Gate]) -> Iterator[httpx.Client]:
    base, at = address
    with httpx.Client(base_url=base, cookies={at.cookie: at.pass_}, timeout=60, trust_env=False) as client:
        yield client


def test_a_retired_id_leads_to_its_successor(web: httpx.Client, site: Site, form: dict[str, str]) -> None:
    answer = web.get(f"/profiles/{site.retired.upper()}")
    assert answer.status_code == 302
    page = web.get(answer.headers["location"])
    assert f"The id {site.retired} is retired" in said(page.text)
    found = web.post("/search", data={**form, "q": site.retired}).headers["location"]
    assert found.startswith(f"/profiles/{site.living}")
    redirect = web.get(f"/api/profiles/{site.retired}")
    assert (redirect.status_code, redirect.headers["location"]) == (308, f"/api/profiles/{site.living}")


@pytest.mark.parametrize("profile_id", ["nobody", "%2e%2e", "x" * 300, "'or'1'='1"])
def test_an_unknown_id_is_not_found(web: httpx.Client, profile_id: str) -> None:
    assert web.get(f"/profiles/{profile_id}").status_code == 404
    assert web.get(f"/api/profiles/{profile_id}").status_code in {404, 422}


# ---------------------------------------------------------------- the profile


def test_the_page_tells_values_and_why(web: httpx.Client, site: Site) -> None:
    text = said(web.get(f"/profiles/{site.living}").text)
    for part in (
        "Anna Meyer", site.living, "anna.meyer@example.org", "crm C-1a", "Records side by side", "Leeds",
        "both carry the same email", "What happened to the id", "merged", site.retired, "60",
    ):  # fmt: skip
        assert part in text, part


def test_json_and_page_have_the_same_values(web: httpx.Client, site: Site) -> None:
    found = web.get(f"/api/profiles/{site.living}").json()
    text = said(web.get(f"/profiles/{site.living}").text)
    for reason in found["reasons"]:
        assert reason["words"] in text
        if reason["value"] is not None:
            assert reason["value"] in text
    assert {row["record_key"] for row in found["records"]} >= {"crm:C-1a", "crm:C-2"}
    assert found["redirected"] == [site.retired]


def test_every_policy_is_shown_side_by_side(web: httpx.Client, site: Site) -> None:
    found = web.get(f"/api/profiles/{site.living}").json()["others"]
    assert list(found) == ["golden", "newest", "ranked"]
    newest = web.get(f"/api/profiles/{site.living}", params={"policy": "newest"}).json()
    assert newest["policy"] == "newest"
    assert newest["values"] == found["newest"]
    assert web.get(f"/profiles/{site.living}", params={"policy": "nope"}).status_code == 400


def test_policies_differ_where_brute_force_says_so(web: httpx.Client, site: Site) -> None:
    ids = sorted(set(ids_of(site.project).values()))
    found = [web.get(f"/api/profiles/{profile_id}").json()["others"] for profile_id in ids]
    differing = sum(values["golden"] != values["ranked"] for values in found)
    row = re.search(r"any field</th>(.*?)</tr>", web.get("/policies").text, re.DOTALL)
    assert row
    assert said(row[1]).split()[2:4][0] == str(differing)


def test_the_timeline_has_every_event_once_newest_first(web: httpx.Client, site: Site) -> None:
    keys, times, older = [], [], ""
    while True:
        page = web.get(f"/api/profiles/{site.living}/timeline", params={"before": older}).json()
        assert len(page["events"]) <= PAGE
        keys += [event["event_key"] for event in page["events"]]
        times += [event["occurred_at"] for event in page["events"]]
        older = page["older"]
        if not older:
            break
    assert len(keys) == len(set(keys)) == 60
    assert times == sorted(times, reverse=True)


def test_older_events_are_a_link_that_works_without_script(web: httpx.Client, site: Site) -> None:
    page = web.get(f"/profiles/{site.living}").text
    [link] = re.findall(r'href="(/profiles/[^"]+/timeline[^"]+)"', page)
    older = web.get(html.unescape(link))
    assert "<html" in older.text
    assert older.text.count('class="event"') == PAGE
    fragment = web.get(html.unescape(link), headers={"HX-Request": "true"})
    assert "<html" not in fragment.text
    assert fragment.text.count('class="event"') == PAGE
    assert web.get(f"/profiles/{site.living}/timeline", params={"before": "rubbish,x"}).status_code == 400


def test_audiences_tell_the_condition_that_fails(web: httpx.Client, site: Site) -> None:
    found = {why["audience"]: why for why in web.get(f"/api/profiles/{site.living}").json()["audiences"]}
    assert {name: why["inside"] for name, why in found.items()} == {
        "reachable": True, "gold": True, "born_long_ago": False, "visitors": True,
    }  # fmt: skip
    other = web.get(f"/api/profiles/{site.id_of('crm:Q-0')}").json()["audiences"]
    [visitors] = [why for why in other if why["audience"] == "visitors"]
    [failing] = [part for part in visitors["parts"] if not part["holds"]]
    assert failing["condition"] == "view, at least 2"
    assert failing["seen"].startswith("0")
    assert "view, at least 2" in said(web.get(f"/profiles/{site.id_of('crm:Q-0')}").text)


def test_audiences_of_rules_that_do_not_fit_are_not_shown(own: Project) -> None:
    path = own.rules / "audiences.yaml"
    path.write_text(path.read_text() + "  odd: {where: no_such_column is null}\n")
    with served(own) as (base, at), client(base, at) as web:
        profile_id = ids_of(own)["crm:C-1a"]
        assert "cannot be asked of this generation" in web.get(f"/profiles/{profile_id}").text


def client(base: str, at: Gate) -> httpx.Client:
    return httpx.Client(base_url=base, cookies={at.cookie: at.pass_}, timeout=60, trust_env=False)


def test_an_audience_pages_through_all_its_members(
    web: httpx.Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profile_pipeline.serve.audience_pages.PAGE", 2)
    found, after = [], ""
    while True:
        page = web.get("/api/audiences/reachable", params={"after": after}).json()
        found += [member["profile_id"] for member in page["members"]]
        after = page["after"]
        if not after:
            break
    with warehouse_of(site.project) as con:
        query = (
            "select profile_id from audiences.membership where audience = 'reachable' and exited_at is null"
        )
        assert found == sorted(i for (i,) in rows(con, query))
    assert page["about"]["member_count"] == len(found)
    assert web.get("/audiences/nope").status_code == 404


# ---------------------------------------------------------------- what is hidden, what is recorded


def test_sensitive_values_are_hidden_everywhere(web: httpx.Client, site: Site) -> None:
    for path in (f"/profiles/{site.living}", f"/api/profiles/{site.living}", "/review", "/api/review"):
        answer = web.get(path)
        assert "1980-02-03" not in answer.text
        assert "1970-01-01" not in answer.text
    found = web.get(f"/api/profiles/{site.living}").json()
    assert found["values"]["birth_date"] == HIDDEN
    assert found["hidden"] == ["birth_date"]
    [asked] = [why for why in found["audiences"] if why["audience"] == "born_long_ago"]
    assert asked["parts"][0]["seen"] == HIDDEN


def test_they_are_shown_once_for_a_reason_that_is_recorded(
    web: httpx.Client, site: Site, form: dict[str, str]
) -> None:
    path = f"/profiles/{site.living}/reveal"
    assert web.post(path, data={**form, "why": "  "}).status_code == 400
    assert "1980-02-03" in web.post(path, data={**form, "why": "she called us"}).text
    row = noted(site.project)[-1]
    assert (row["action"], row["who"], row["profile_id"], row["why"]) == (
        "revealed", "tester", site.living, "she called us",
    )  # fmt: skip
    assert "1980-02-03" not in web.get(f"/profiles/{site.living}").text


def test_rules_say_what_is_sensitive(own: Project) -> None:
    path = own.rules / "sources.yaml"
    path.write_text(
        path.read_text()
        .replace("birth_date: {type: birth_date}", "birth_date: {type: birth_date, sensitive: false}")
        .replace("email: {type: email}", "email: {type: email, sensitive: true}")
    )
    with served(own) as (base, at), client(base, at) as web:
        page = web.get(f"/profiles/{ids_of(own)['crm:C-1a']}").text
    assert "1980-02-03" in page
    assert "anna.meyer@example.org" not in page.lower(), "value, identifier, event and record all hide it"


@pytest.mark.parametrize(
    ("ask", "action"),
    [
        (lambda web, site, form: web.get(f"/profiles/{site.living}"), "viewed"),
        (lambda web, site, form: web.get(f"/api/profiles/{site.living}"), "viewed"),
        (lambda web, site, form: web.get(f"/profiles/{site.living}/timeline"), "viewed"),
        (lambda web, site, form: web.get(f"/api/profiles/{site.living}/timeline"), "viewed"),
        (lambda web, site, form: web.get("/api/lookup?q=C-1a"), "listed"),
        (lambda web, site, form: web.post("/search", data={**form, "q": "C-1a"}), "listed"),
        (lambda web, site, form: web.get("/audiences/gold"), "listed"),
    ],
)
def test_every_look_is_recorded(
    web: httpx.Client, site: Site, form: dict[str, str], ask: Any, action: str
) -> None:
    before = len(noted(site.project))
    ask(web, site, form)
    fresh = noted(site.project)[before:]
    assert [(row["action"], row["profile_id"]) for row in fresh] == [(action, site.living)]
    assert {"at", "who", "why"} <= fresh[0].keys()


def test_the_audit_file_is_private_and_holds_no_values(
    web: httpx.Client, site: Site, form: dict[str, str]
) -> None:
    web.post("/search", data={**form, "q": "anna.meyer@example.org"})
    web.get(f"/profiles/{site.living}")
    path = site.project.state / FILE
    assert path.stat().st_mode & 0o077 == 0
    text = path.read_text().lower()
    assert not [part for part in ("anna", "meyer", "example.org", "7946", "leeds") if part in text]


def test_nothing_is_shown_that_cannot_be_recorded(own: Project) -> None:
    (own.state / FILE).unlink(missing_ok=True)
    (own.state / FILE).mkdir()
    with served(own) as (base, at), client(base, at) as web:
        living = ids_of(own)["crm:C-1a"]
        for path in (f"/profiles/{living}", f"/api/profiles/{living}", "/api/lookup?q=C-1a", "/review"):
            answer = web.get(path)
            assert answer.status_code == 400
            assert "nothing is shown" in answer.text
            assert "Meyer" not in answer.text


# ---------------------------------------------------------------- hostile values


class Elements(HTMLParser):
    """Every element of a page with its attributes, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))


def test_hostile_values_stay_text(web: httpx.Client, site: Site, form: dict[str, str]) -> None:
    profile_id = site.id_of(f"crm:{HOSTILE['id']}")
    for page in (
        web.get(f"/profiles/{profile_id}"),
        web.post("/search", data={**form, "q": SCRIPT}, follow_redirects=True),
        web.post("/search", data={**form, "q": '"><img src=x onerror=alert(1)>'}, follow_redirects=True),
        web.get("/review"),
        web.get(f"/profiles/{profile_id}", params={"by": '"><script>', "retired": SCRIPT}),
        web.get(f"/audiences/{SCRIPT}"),
    ):
        assert page.headers["content-type"].startswith("text/html")
        found = Elements(page.text)
        assert [a for tag, a in found.all if tag == "script"] == [
            {"src": "/static/htmx.min.js", "defer": None}
        ]
        assert not {tag for tag, _ in found.all} & {"img", "iframe", "object", "embed", "style", "base"}
        for _, attributes in found.all:
            assert not [name for name in attributes if name.startswith("on") or name in {"style", "srcdoc"}]
            assert not [v for v in attributes.values() if (v or "").strip().lower().startswith("javascript:")]
        assert "\u202e" not in page.text
        assert "\u2066" not in page.text
    assert "alert(1)" in said(web.get(f"/profiles/{profile_id}").text), "the value is there, as text"


# ---------------------------------------------------------------- what changes, and what does not


def hashes(project: Project) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files_below(project.data)
        if path.name != FILE and "tmp" not in path.parts
    }


def test_looking_changes_nothing_and_leaves_the_lock_alone(own: Project) -> None:
    living = ids_of(own)["crm:C-1a"]
    with served(own) as (base, at), client(base, at) as web:
        before = hashes(own)
        with run_lock(own.state), warehouse_of(own):
            for path in (
                *PAGES,
                *API,
                f"/profiles/{living}",
                f"/profiles/{living}/timeline",
                f"/api/profiles/{living}",
            ):
                assert web.get(path).status_code == 200, path
        assert hashes(own) == before


def test_pages_follow_the_pointer_without_a_restart(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "validate", all_hold)
    living = ids_of(own)["crm:C-1a"]
    with served(own) as (base, at), client(base, at) as web:
        assert "Generation 1" in web.get("/").text
        deliver(own, people({**ANNA, "last": "Married", "moment": "2026-04-01T00:00:00Z"}), "3")
        run_core(own, day(3))
        assert "Married" not in web.get(f"/profiles/{living}").text
        first = publish.current(own)
        assert publish_again(own).number == 2
        page = web.get(f"/profiles/{living}").text
        assert "Generation 2" in page
        assert "Married" in page
        assert first
        publish.point_to(own, first.folder)
        assert "Married" not in web.get(f"/profiles/{living}").text


def test_before_the_first_generation_a_page_says_what_to_do(own: Project) -> None:
    shutil.rmtree(own.published)
    with served(own) as (base, at), client(base, at) as web:
        answer = web.get("/")
        assert answer.status_code == 503
        assert "profile-pipeline run" in said(answer.text)
        assert web.get("/api/audiences").json() == {
            "error": "nothing is published yet; `profile-pipeline run` makes the first generation"
        }
        assert web.get("/static/style.css").status_code == 200


# ---------------------------------------------------------------- review


def questions_of(web: httpx.Client) -> list[dict[str, Any]]:
    return web.get("/api/review").json()["questions"]


def test_a_question_shows_both_records(web: httpx.Client, site: Site) -> None:
    [question, *_] = questions_of(web)
    assert question["facts"]["reason"] == "limit_broken"
    assert question["left"]["email"] == question["right"]["email"] == "quinn@example.org"
    text = said(web.get("/review").text)
    assert "quinn@example.org" in text
    assert question["facts"]["left_key"].partition(":")[2] in text
    assert web.get("/review", params={"reason": "borderline"}).text.count("Nothing to decide") == 1
    assert web.get("/review", params={"reason": "nope"}).status_code == 400


def test_a_decision_is_written_and_the_next_run_applies_it(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "validate", all_hold)
    with served(own, who="steward") as (base, at), client(base, at) as web:
        form = {"form_token": at.form_token}
        asked = questions_of(web)
        items = [question["item_id"] for question in asked]
        answer = web.post("/review", data={**form, "item": items, "decision": "no_match", "why": "a family"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/review?reason=&done={len(items)}")
        assert f"{len(items)} decision" in said(web.get(answer.headers["location"]).text)
        assert {question["decision"] for question in questions_of(web)} == {"no_match"}
        with warehouse_of(own) as con:
            written = rows(con, "select decision, author, reason from identity.decisions")
        assert written == [("no_match", "steward", "a family")] * len(items)
        run_core(own, day(3))
        publish_again(own)
        left = {question["item_id"] for question in questions_of(web)}
        assert not left & set(items), "what is decided is not asked again"


def test_decisions_can_be_withdrawn_and_bad_ones_are_refused(own: Project) -> None:
    with served(own) as (base, at), client(base, at) as web:
        form = {"form_token": at.form_token}
        [first, *_] = questions_of(web)
        item = {"item": first["item_id"]}
        for wrong in (
            {},
            {**item},
            {**item, "decision": "perhaps"},
            {"decision": "match"},
            {"item": "0123", "decision": "match"},
        ):
            assert web.post("/review", data={**form, **wrong}).status_code == 400, wrong
        assert web.post("/review", data={**form, **item, "decision": "withdrawn"}).status_code == 400
        assert web.post("/review", data={**form, **item, "decision": "match"}).status_code == 303
        assert questions_of(web)[0]["decision"] == "match"
        assert web.post("/review", data={**form, **item, "decision": "withdrawn"}).status_code == 303
        assert questions_of(web)[0]["decision"] is None
    with warehouse_of(own) as con:
        assert rows(con, f"select count(*) from ({decisions.effective_query()})") == [(0,)]


def test_a_decision_waits_while_a_run_is_at_work(own: Project) -> None:
    import subprocess
    import sys

    hold = "import sys, time; from pathlib import Path; from profile_pipeline.warehouse import run_lock\n"
    hold += "with run_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with served(own) as (base, at), client(base, at) as web:
        [first, *_] = questions_of(web)
        other = subprocess.Popen(
            [sys.executable, "-c", hold, str(own.state)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert other.stdout
            assert other.stdout.readline() == "held\n"
            data = {"form_token": at.form_token, "item": first["item_id"], "decision": "match"}
            answer = web.post("/review", data=data)
            assert answer.status_code == 503
            assert "another run holds this project" in said(answer.text).lower()
            assert web.get("/review").status_code == 200
        finally:
            other.kill()
            other.wait()
            if other.stdout:
                other.stdout.close()
        assert web.post("/review", data=data).status_code == 303


def test_what_each_comparison_adds_is_shown_when_asked_for(
    web: httpx.Client, site: Site, form: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/profiles/{site.living}/weights"
    assert web.post(path, data=form).status_code == 200, "without a matching model there is nothing to add"
    parts = (Part("email", "same", 17.9, 0.0), Part("family", "different", -7.0, 0.0))
    scored = Score(6.9, 0.99, -4.0, 0.0, parts)
    monkeypatch.setattr(weights, "scores_of", lambda con, edges: {("crm:C-1a", "crm:C-2"): scored})
    text = said(web.post(path, data=form).text)
    assert "same e-mail +17.9" in text
    assert "different family name -7.0" in text


def test_the_json_is_described(web: httpx.Client) -> None:
    described = web.get("/api/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/lookup", "/api/profiles/{profile_id}", "/api/profiles/{profile_id}/reveal",
        "/api/profiles/{profile_id}/timeline", "/api/audiences", "/api/audiences/{name}", "/api/review",
    }  # fmt: skip
    assert all("summary" in way for ways in described["paths"].values() for way in ways.values())
    assert web.get("/docs").status_code == 404


# ---------------------------------------------------------------- the picture


def links(pairs: list[tuple[int, int]]) -> list[dict[str, Any]]:
    return [
        {
            "left_key": f"a:{min(p)}",
            "right_key": f"a:{max(p)}",
            "type": "probabilistic",
            "namespace": None,
            "match_weight": 9.0 - n,
        }
        for n, p in enumerate(pairs)
    ]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda p: p[0] != p[1]), max_size=60)
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_no_two_boxes_overlap(pairs: list[tuple[int, int]]) -> None:
    found = links(pairs)
    keys = sorted({link[side] for link in found for side in ("left_key", "right_key")})
    drawing = graph.draw(keys, found)
    if drawing is None:
        assert len(keys) < 2
        return
    boxes = [
        tuple(map(float, box))
        for box in re.findall(r'<rect x="([-.\d]+)" y="([-.\d]+)" width="172.0" height="46.0"', drawing.svg)
    ]
    assert len(boxes) + drawing.left_out == len(keys)
    assert all(
        abs(x - u) > graph.WIDTH or abs(y - v) > graph.HEIGHT
        for n, (x, y) in enumerate(boxes)
        for u, v in boxes[n + 1 :]
    )
    assert min(min(box) for box in boxes) > 0
    assert all(map(math.isfinite, (value for box in boxes for value in box)))


def test_the_picture_escapes_what_it_shows() -> None:
    keys = [f"crm:{SCRIPT}", 'event:cookie="><b>']
    link = {
        "left_key": keys[0],
        "right_key": keys[1],
        "type": "attached",
        "namespace": "<i>",
        "match_weight": None,
    }
    drawing = graph.draw(keys, [link])
    assert drawing
    assert not re.search(r"<(script|b|i)\b", drawing.svg)
    assert graph.draw(keys[:1], []) is None


def test_likeness_in_words() -> None:
    left = {"email": "A@x", "city": "Leeds", "name": "Jon", "only": "x", "none": None}
    right = {"email": "a@x", "city": "York", "name": "Jonathan", "none": "y"}
    assert (
        likeness(left, right, ["email", "city", "name", "only", "none"])
        == "same email; similar name; different city"
    )
