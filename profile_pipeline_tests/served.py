"""A small published project with everything that profile pages show, and the pages served from it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from profile_pipeline import publish, quality
from profile_pipeline.config.load import load_config
from profile_pipeline.config.project import Project
from profile_pipeline.serve.security import Gate, gate
from profile_pipeline_tests.hand_made import all_hold, day, people
from profile_pipeline_tests.worlds import Row, World, deliver, ids_of, run_core, warehouse_of, write_rules

TOKEN = "a-token-that-is-long-enough-to-be-one"
SCRIPT = "<script>alert(1)</script>"
HOSTILE = {
    "id": "H<img src=x onerror=alert(1)>",
    "first": SCRIPT,
    "last": '" onmouseover="alert(2)',
    "email": "'onfocus=alert(3)'@evil.example.org",
    "phone": "020 7946 0777",
    "street": "=cmd|' /C calc'!A0",
    "city": "\u202egnitirw\u2066 <svg onload=alert(4)>",
    "segment": "javascript:alert(5)",
    "born": "1970-01-01",
}
"""Markup, formulas and text that turns its line around, in every field."""
ANNA = {
    "id": "C-1a", "first": "Anna", "last": "Meyer", "born": "1980-02-03", "email": "Anna.Meyer@Example.org",
    "phone": "020 7946 0123", "segment": "gold", "city": "Leeds", "street": "1 High Street",
}  # fmt: skip
ALSO = {"id": "C-2", "first": "Ann", "last": "MEYER", "email": "am@x.org", "moment": "2026-02-01T00:00:00Z"}
HOUSE = [
    {"id": f"Q-{n}", "first": first, "last": "Quinn", "email": "quinn@example.org", "phone": "020 7946 0999"}
    for n, first in enumerate(["Peter", "Paula", "Pia", "Paul"])
]
"""More people behind one address than one profile may hold: a link is cut, and asked about."""
AUDIENCES = """
consent: {default: none}
audiences:
  reachable: {where: email is not null}
  gold: {description: Gold customers., field: segment, is: gold}
  born_long_ago: {field: birth_date, below: "1975"}
  visitors: {all: [{event: view, at_least: 2}, {audience: reachable}]}
"""


def visits(email: str, number: int, first: str = "Anna") -> list[Row]:
    """Events of one person, an hour apart."""
    return [
        Row(
            "visit",
            (
                ("id", f"v{first}{n}"),
                ("moment", f"2026-03-{1 + n // 24:02d}T{n % 24:02d}:00:00Z"),
                ("cookie", f"k{n % 3}"),
                ("email", email),
                ("first", first),
                ("type", "view"),
            ),
        )
        for n in range(number)
    ]


@dataclass(frozen=True)
class Site:
    """A project, its published ids by record, and an id that two profiles gave up for another one."""

    project: Project
    living: str
    retired: str

    def id_of(self, record_key: str) -> str:
        return ids_of(self.project)[record_key]


def publish_again(project: Project) -> publish.Generation:
    """Publish what the warehouse holds."""
    with warehouse_of(project) as con:
        return publish.publish(con, load_config(project.rules), project, {})


def make_site(folder: str | object) -> Site:
    """Two batches, in the second of which two profiles become one."""
    project = write_rules(folder, World((), size=3))  # ty: ignore[invalid-argument-type]
    (project.rules / "audiences.yaml").write_text(AUDIENCES, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "validate", all_hold)
        deliver(project, people(ANNA, ALSO, HOSTILE, *HOUSE) + visits("anna.meyer@example.org", 60), "1")
        run_core(project, day(1))
        before = ids_of(project)
        moved = {**ALSO, "email": "anna.meyer@example.org", "moment": "2026-02-02T00:00:00Z"}
        deliver(project, people(moved), "2")
        run_core(project, day(2))
        publish_again(project)
    living = ids_of(project)["crm:C-1a"]
    [retired] = {before["crm:C-1a"], before["crm:C-2"]} - {living}
    return Site(project, living, retired)


@contextmanager
def served(project: Project, who: str = "tester") -> Iterator[tuple[str, Gate]]:
    """The pages of a project on a free port of loopback: their address and gate."""
    import uvicorn

    from profile_pipeline.serve.app import make_app

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    at = gate(TOKEN, "127.0.0.1", port, [])
    config = uvicorn.Config(
        make_app(project, at, who),
        log_level="critical",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}", at
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
