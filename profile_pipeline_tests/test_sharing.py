"""Deliveries: who is in them, in which form, what changed, when they leave, and what the ledger knows afterwards."""

import csv
import hashlib
import hmac
import json
import shutil
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from profile_pipeline import quality
from profile_pipeline.check.sharing import sharing_table_problems
from profile_pipeline.cli import app
from profile_pipeline.config.load import RuleError
from profile_pipeline.config.project import Project
from profile_pipeline.config.sharing import Health
from profile_pipeline.defs.run import Options, run_graph
from profile_pipeline.defs.sharing import assets
from profile_pipeline.errors import PipelineError
from profile_pipeline.sharing import deliver, health, ledger, sinks
from profile_pipeline.sharing.deliver import Wishes, preview
from profile_pipeline.sheets import original
from profile_pipeline.warehouse import connect
from profile_pipeline_tests.hand_made import all_hold, people
from profile_pipeline_tests.parcels import (
    BEGIN,
    Arrived,
    World,
    ask,
    config_of,
    delivered_folders,
    id_of,
    make_project,
    person,
    plain_hash,
    publish,
    received,
    replayed,
    share,
    write_sharing,
)
from profile_pipeline_tests.worlds import LINKED, quick_folder, write_rules
from profile_pipeline_tests.worlds import deliver as deliver_rows

KEY = "a-key-of-sixteen-or-more"


def partner(ship: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One destination, a local folder, with one shipment `s`."""
    return {"partner": {"to": {"type": "local", "folder": "shared/partner"}, "ship": {"s": ship}, **more}}


def root_of(project: Project) -> Path:
    return project.data / "shared" / "partner"


def all_received(project: Project, shipment: str = "s") -> list[Arrived]:
    return [received(folder) for folder in delivered_folders(root_of(project), shipment)]


def delivered(folder: Path, world: World, ship: dict[str, Any], **more: Any) -> Arrived:
    """What arrives of one generation."""
    project = make_project(folder / "p", partner(ship, **more))
    publish(project, world)
    outcome = share(project)["s"]
    assert outcome.status == ledger.DELIVERED, outcome
    [found] = all_received(project)
    return found


def ids(arrived: Arrived) -> set[str]:
    return {row["profile_id"] for row in arrived.rows}


# ---------------------------------------------------------------- rules


def rule_problems(folder: Path, destinations: dict[str, Any]) -> list[str]:
    with pytest.raises(RuleError) as caught:
        config_of(make_project(folder / "p", destinations))
    return caught.value.problems


def to(**store: str) -> dict[str, Any]:
    return {"partner": {"to": store, "ship": {"s": {"table": "profiles"}}}}


SECRET = "wJalrXUtnFEMI/K7MDENG"
LITERALS = [
    to(type="s3", bucket="bucket", secret_key=SECRET),
    to(type="s3", bucket="bucket", secret_key_env=SECRET),
    to(type="s3", bucket="bucket", access_key_env="AKIA" + "IOSFODNN7EXAMPLE"),
    to(type="s3", bucket="bucket", endpoint=f"https://user:{SECRET}@store.example"),
    to(type="azure", account="abc", container="con", account_key=SECRET),
    to(type="azure", account="abc", container="con", sas_token_env=f"sv=2020&sig={SECRET}"),
    to(type="azure", account="abc", container="con", endpoint=f"https://x.example/?sig={SECRET}"),
    to(type="gcs", bucket="bucket", credentials=SECRET),
    partner({"table": "profiles"}, hash={"columns": ["email"], "key": SECRET}),
    partner({"table": "profiles"}, hash={"columns": ["email"], "key_env": SECRET}),
]


@pytest.mark.parametrize("destinations", LITERALS, ids=str)
def test_a_secret_in_the_rules_is_refused_without_being_repeated(tmp_path, destinations):
    [line] = rule_problems(tmp_path, destinations)
    assert line.startswith("sharing.yaml: destinations.partner.")
    assert SECRET not in line
    assert "AKIA" not in line
    assert "environment variable" in line or "leave out user, password" in line


MISTAKES = [
    (to(type="s3", bucket="bucket", endpoint="http://store.example"), "partner.to.endpoint: must begin with https://"),
    (to(type="s3"), "partner.to: `type: s3` needs `bucket:`"),
    (to(type="local", folder="x", bucket="bucket"), "partner.to: `bucket:` is not for `type: local`"),
    (to(type="local", folder="../x"), "partner.to.folder: must not go up"),
    (to(type="local", folder="state/x"), "partner.to.folder: is a folder of the pipeline's own"),
    (partner({"table": "profiles"}, hash={"columns": ["email"]}), "partner.hash: needs `key_env:`"),
    (partner({}), "partner.ship.s: needs one of `audience:` and `table:`"),
    (partner({"audience": "golf"}), "partner.ship.s.audience: unknown audience `golf`; did you mean `gold`?"),
    (partner({"table": "profiles_othr"}), "partner.ship.s.table: unknown table `profiles_othr`; did you mean `profiles_other`?"),
    (partner({"audience": "gold", "columns": ["emial"]}), "partner.ship.s.columns: unknown column `emial`; did you mean `email`?"),
    (partner({"audience": "gold", "require": ["emial"]}), "partner.ship.s.require: unknown column `emial`"),
    (partner({"audience": "gold", "purpose": "pots"}), "partner.ship.s.purpose: unknown purpose `pots`; did you mean `post`?"),
    (partner({"audience": "gold"}, consent="consent"), "partner.consent: unknown attribute `consent`"),
    (partner({"table": "profiles", "file": "{day}"}), "partner.ship.s: `file:` has no token `{day}`"),
    (partner({"table": "profiles", "folder": "a/../b"}), "partner.ship.s: `folder:` has an empty or hidden part"),
    (partner({"table": "profiles", "rows_per_file": 9, "file": "x"}), "partner.ship.s: `rows_per_file:` makes several files"),
    (partner({"table": "profiles", "mode": "incremental", "folder": "x"}), "put {delivery} into `folder:`"),
    (partner({"table": "profiles", "mode": "incremental", "columns": ["email"]}), "add it to `columns:`"),
    (partner({"table": "profiles", "columns": ["email", "phone"], "rename": {"phone": "Email"}}), "would be called `email`"),
    (partner({"table": "profiles", "rename": {"email": "=mail"}}), "begin with a letter"),
    (partner({"table": "profiles", "format": {"type": "csv", "compression": "snappy"}}), "snappy` is not for `type: csv`"),
    (partner({"table": "profiles", "columns": ["identity_map"]}, hash={"columns": ["email"], "method": "sha256"}),
     "holds identifiers in the clear"),
]  # fmt: skip


@pytest.mark.parametrize(("destinations", "line"), MISTAKES, ids=[line for _, line in MISTAKES])
def test_a_mistake_is_one_line_with_its_fix(tmp_path, destinations, line):
    [found] = rule_problems(tmp_path, destinations)
    assert line in found


def test_two_shipments_never_share_a_folder(tmp_path):
    same = {"a": {"table": "profiles", "folder": "x"}, "b": {"audience": "gold", "folder": "x/y"}}
    destinations = {"partner": {"to": {"type": "local", "folder": "shared"}, "ship": same}}
    [line] = rule_problems(tmp_path, destinations)
    assert "the folder of" in line


# ---------------------------------------------------------------- who is in it


CROWD = World(
    [
        person(1),
        person(2, marketing_consent=False),
        person(3, marketing_consent=None),
        person(4, email=None),
        person(5, kind="pseudonymous", marketing_consent=None, email=None),
        person(6, email="p1@example.org"),
        person(7, post_consent=True, marketing_consent=False),
    ]
)


def test_consent_decides_whatever_else_is_asked(tmp_path):
    found = delivered(tmp_path, CROWD, {"table": "profiles", "require": ["email"]})
    assert ids(found) == {id_of(1), id_of(6)}
    assert found.manifest["excluded"] == {
        "pseudonymous": 1,
        "no_consent": 3,
        "no_identifier": 1,
    }
    assert found.manifest["consent"] == ["marketing_consent"]


def test_a_purpose_asks_for_its_own_consent_or_none(tmp_path):
    post = delivered(tmp_path / "post", CROWD, {"table": "profiles", "purpose": "post"})
    assert ids(post) == {id_of(7)}
    service = delivered(tmp_path / "service", CROWD, {"table": "profiles", "purpose": "service"})
    assert ids(service) == {id_of(n) for n in (1, 2, 3, 4, 6, 7)}
    everybody = {"table": "profiles", "purpose": "service", "pseudonymous": True}
    assert len(delivered(tmp_path / "all", CROWD, everybody).rows) == 7


def test_a_destination_adds_its_consent_to_those_of_an_audience(tmp_path):
    people = World(
        [person(1), person(2, post_consent=True), person(3, marketing_consent=False, post_consent=True)]
    )
    found = delivered(
        tmp_path, people, {"audience": "all_of_them"}, consent="post_consent", purpose="service"
    )
    assert ids(found) == {id_of(2), id_of(3)}
    mail = delivered(tmp_path / "mail", people, {"audience": "all_of_them"}, consent="post_consent")
    assert ids(mail) == {id_of(2)}


def test_members_who_left_stay_away(tmp_path):
    stays = [
        {"audience": "gold", "profile_id": id_of(1), "entered_at": BEGIN, "entry_reason": "condition"},
        {
            "audience": "gold",
            "profile_id": id_of(2),
            "entered_at": BEGIN,
            "exited_at": BEGIN + timedelta(days=1),
        },
        {"audience": "other", "profile_id": id_of(3), "entered_at": BEGIN},
    ]
    found = delivered(tmp_path, World([person(1), person(2), person(3)], stays=stays), {"audience": "gold"})
    assert found.rows == [
        {"profile_id": id_of(1), "audience": "gold", "entered_at": BEGIN, "entry_reason": "condition"}
    ]


def test_one_of_several_with_the_same_address_leaves(tmp_path):
    found = delivered(tmp_path, CROWD, {"table": "profiles", "one_per": ["email"]})
    assert ids(found) == {id_of(6)}, "the one seen last"
    assert found.manifest["excluded"]["duplicate"] == 1
    assert found.manifest["excluded"]["no_identifier"] == 1


EVENTS = World(
    [person(1), person(2, marketing_consent=False), person(3, kind="pseudonymous")],
    redirects={id_of(9): id_of(1), id_of(8): id_of(2)},
    events=[
        {"event_key": f"web:{n}", "profile_id": n and id_of(n), "event_type": "view", "payload": '{"n": 1}'}
        for n in (1, 2, 3, 9, 8, 7, None)
    ],
)


def test_rows_about_a_person_ask_that_person_even_under_a_retired_id(tmp_path):
    found = delivered(tmp_path, EVENTS, {"table": "profile_events"})
    assert {row["event_key"] for row in found.rows} == {"web:1", "web:9"}
    assert found.manifest["excluded"] == {"no_profile": 2, "pseudonymous": 1, "no_consent": 2}
    unasked = {"table": "profile_events", "purpose": "service", "pseudonymous": True}
    assert len(delivered(tmp_path / "all", EVENTS, unasked).rows) == 7


def test_personal_rows_of_nobody_in_particular_need_a_purpose_without_consent(tmp_path):
    project = make_project(tmp_path / "p", partner({"table": "links"}))
    publish(project, CROWD)
    outcome = share(project)["s"]
    assert (outcome.status, "whose consent could be asked" in outcome.reason) == (ledger.FAILED, True)
    write_sharing(project, partner({"table": "links", "purpose": "service"}))
    assert share(project)["s"].status == ledger.DELIVERED
    write_sharing(project, partner({"table": "metrics_profiles"}))
    assert share(project)["s"].status == ledger.DELIVERED, "counts are of nobody"


def test_an_unknown_table_or_column_is_named_with_its_fix(tmp_path):
    project = make_project(tmp_path / "p", partner({"table": "profile_event"}))
    publish(project, CROWD)
    assert "did you mean `profile_events`?" in share(project)["s"].reason
    write_sharing(project, partner({"table": "profile_events", "columns": ["event_kind"]}))
    assert "has no column `event_kind`" in share(project)["s"].reason


def test_check_knows_what_is_published(tmp_path):
    project = make_project(tmp_path / "p", partner({"table": "profile_event"}))
    [problem] = sharing_table_problems(config_of(project))
    assert problem.line.startswith(
        "sharing.yaml: destinations.partner.ship.s.table: `profile_event` is not published"
    )
    write_sharing(project, partner({"table": "profile_events"}))
    assert sharing_table_problems(config_of(project)) == []


def test_columns_come_from_fields_computed_attributes_and_namespaces(tmp_path):
    columns = ["crm_id", "orders", "profile_id", "email"]
    ship = {"table": "profiles", "columns": columns, "rename": {"crm_id": "Customer No."}}
    found = delivered(tmp_path, World([person(1), person(2)]), ship)
    assert next(row for row in found.rows if row["orders"] == 1) == {
        "Customer No.": "C2",
        "orders": 1,
        "profile_id": id_of(2),
        "email": "p2@example.org",
    }


def test_what_no_generation_has_yet_is_said_in_one_line(tmp_path):
    columns = {"table": "profiles", "columns": ["profile_id", "revenue"]}
    audience = {"audience": "gold", "purpose": "later"}
    for ship, what in ((columns, "`revenue`"), (audience, "`new_consent`")):
        project = make_project(tmp_path / what, partner(ship))
        generation = publish(project, CROWD)
        with connect(project.database):
            pass
        add_to_rules(project, "computed.yaml", ["attributes"], {"revenue": {"compute": "count"}})
        add_to_rules(project, "audiences.yaml", ["consent", "purposes"], {"later": "new_consent"})
        add_to_rules(project, "sources.yaml", ["attributes"], {"new_consent": {"type": "consent"}})
        told = CliRunner().invoke(
            app, ["share", "preview", "partner", "--project", str(project.rules.parent)]
        )
        assert (told.exit_code, told.stderr.count("\n")) == (1, 1), told.output
        line = f"generation {generation.number} has no values of {what} yet; `profile-pipeline run` first"
        assert told.stderr.startswith("error: sharing.yaml: destinations.partner.ship.s")
        assert line in told.stderr


def test_a_new_attribute_is_no_column_by_default_before_the_generation_has_it(tmp_path):
    project = make_project(tmp_path / "p", partner({"table": "profiles"}))
    publish(project, CROWD)
    add_to_rules(project, "computed.yaml", ["attributes"], {"revenue": {"compute": "count"}})
    with connect(project.database, memory="1GB", threads=1) as con:
        [(_, columns)] = preview(con, config_of(project), project, "partner")
    assert ("orders" in columns, "revenue" in columns) == (True, False)


def add_to_rules(project, file, path, more):
    """Change a rule file without a run."""
    where = project.rules / file
    rules = part = json.loads(where.read_text(encoding="utf-8"))
    for key in path:
        part = part[key]
    part |= more
    where.write_text(json.dumps(rules), encoding="utf-8")


def test_another_policy_has_its_values_and_the_default_one_the_consent(tmp_path):
    found = delivered(tmp_path, CROWD, {"table": "profiles_other", "columns": ["profile_id", "tier"]})
    assert {row["tier"] for row in found.rows} == {"other"}
    assert ids(found) == {id_of(n) for n in (1, 4, 6)}


# ---------------------------------------------------------------- hashes


def test_identifiers_leave_as_the_hash_that_the_partner_can_compute(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTNER_KEY", KEY)
    people = World([person(1, email="zoë@example.org"), person(2, email=None)])
    ship = {"table": "profiles", "columns": ["profile_id", "email", "crm_id"]}
    keyed = {"columns": ["email", "crm_id", "profile_id"], "key_env": "PARTNER_KEY"}
    found = delivered(tmp_path / "keyed", people, ship, hash=keyed)

    def expected(text: str) -> str:
        return hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()

    with_address, without = sorted(found.rows, key=lambda row: row["email"] is None)
    assert with_address == {
        "profile_id": expected(id_of(1)), "email": expected("zoë@example.org"), "crm_id": expected("C1"),
    }  # fmt: skip
    assert without["email"] is None
    assert [column.get("hash") for column in found.manifest["schema"]] == ["hmac_sha256"] * 3
    plain = delivered(tmp_path / "plain", people, ship, hash={"columns": ["email"], "method": "sha256"})
    assert {row["profile_id"]: row["email"] for row in plain.rows} == {
        id_of(1): plain_hash("zoë@example.org"), id_of(2): None,
    }  # fmt: skip


def test_a_long_key_is_hashed_first_as_the_standard_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PARTNER_KEY", "k" * 100)
    ship = {"table": "profiles", "columns": ["email"]}
    found = delivered(
        tmp_path, World([person(1)]), ship, hash={"columns": ["email"], "key_env": "PARTNER_KEY"}
    )
    assert found.rows[0]["email"] == hmac.new(b"k" * 100, b"p1@example.org", hashlib.sha256).hexdigest()


@pytest.mark.parametrize(("key", "why"), [(None, "is not set"), ("short", "is shorter than 16")])
def test_without_a_proper_key_nothing_leaves(tmp_path, monkeypatch, key, why):
    monkeypatch.delenv("PARTNER_KEY", raising=False)
    if key:
        monkeypatch.setenv("PARTNER_KEY", key)
    rules = partner({"table": "profiles"}, hash={"columns": ["email"], "key_env": "PARTNER_KEY"})
    project = make_project(tmp_path / "p", rules)
    publish(project, CROWD)
    with pytest.raises(PipelineError, match=why) as caught:
        share(project)
    assert key is None or key not in str(caught.value).replace("is shorter than", "")
    assert not root_of(project).exists()


def test_what_would_undo_hashing_is_left_out_or_refused(tmp_path):
    hashed = {"columns": ["email"], "method": "sha256"}
    found = delivered(tmp_path, World([person(1)]), {"table": "profiles"}, hash=hashed)
    assert "identity_map" not in found.rows[0]
    assert found.rows[0]["email"] == plain_hash("p1@example.org")
    events = delivered(tmp_path / "e", EVENTS, {"table": "profile_events"}, hash=hashed)
    assert "payload" not in events.rows[0]
    project = make_project(
        tmp_path / "f", partner({"table": "profile_events", "columns": ["payload"]}, hash=hashed)
    )
    publish(project, EVENTS)
    assert "`payload` holds identifiers in the clear" in share(project)["s"].reason


# ---------------------------------------------------------------- files


HOSTILE = [
    "=1+1", "-1-1",
    "+cmd", "-cmd", "@SUM(A1)", "\tx", "\rx", "\nx", "'=1", "\N{FULLWIDTH EQUALS SIGN}1", "plain", 'a "quoted", cell', "-12.5",
    "+441632960001", "=HYPERLINK(\"http://x\")", "", "'", "1-2", "-", "+", "line\nbreak", "<script>", "naïve ☃",
]  # fmt: skip


def test_cells_of_a_csv_file_are_harmless_and_nothing_is_lost(tmp_path):
    people = World([person(n, note=text) for n, text in enumerate(HOSTILE)])
    ship = {"table": "profiles", "columns": ["note", "points"], "format": {"type": "csv"}}
    project = make_project(tmp_path / "p", partner(ship))
    publish(project, people)
    share(project)
    [folder] = delivered_folders(root_of(project), "s")
    [path] = folder.glob("*.csv")
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    by_points = {int(line["points"]): line["note"] for line in lines}
    numbers = {"-12.5", "+441632960001"}
    for n, text in enumerate(HOSTILE):
        cell = by_points[n]
        assert cell == text or original(cell) == text
        if cell and cell[0] in "=+-@\t\r\n\N{FULLWIDTH EQUALS SIGN}":
            assert text in numbers
    assert by_points[HOSTILE.index("=1+1")] == "'=1+1"
    assert by_points[HOSTILE.index("-12.5")] == "-12.5"


def test_cells_leave_as_they_are_where_no_spreadsheet_reads_them(tmp_path):
    people = World([person(1, note="=1+1")])
    csv_form = {"type": "csv", "spreadsheet_safe": False}
    found = delivered(tmp_path, people, {"table": "profiles", "columns": ["note"], "format": csv_form})
    assert found.rows == [{"note": "=1+1"}]
    lines = delivered(
        tmp_path / "j", people, {"table": "profiles", "columns": ["note"], "format": {"type": "jsonl"}}
    )
    assert lines.rows == [{"note": "=1+1"}]


FORMS = [("parquet", c) for c in ("none", "gzip", "zstd", "snappy")]
FORMS += [(kind, c) for kind in ("csv", "jsonl") for c in ("none", "gzip", "zstd")]


@pytest.mark.parametrize(("kind", "compression"), FORMS)
def test_every_form_arrives_as_its_manifest_says(tmp_path, kind, compression):
    people = World([person(n, tags=["a", "b"] if n else None) for n in range(25)])
    ship = {
        "table": "profiles", "columns": ["profile_id", "email", "points", "tags", "identity_map", "last_observed_at"],
        "format": {"type": kind, "compression": compression}, "rows_per_file": 10,
    }  # fmt: skip
    found = delivered(tmp_path, people, ship)
    assert [file["rows"] for file in found.manifest["files"]] == [10, 10, 5]
    assert [row["profile_id"] for row in found.rows] == sorted(id_of(n) for n in range(25))
    tags = next(row["tags"] for row in found.rows if row["profile_id"] == id_of(3))
    assert tags == ('["a","b"]' if kind == "csv" else ["a", "b"])
    ending = {"none": "", "gzip": ".gz", "zstd": ".zst"}.get(compression, "") if kind != "parquet" else ""
    assert all(file["name"].endswith(f".{kind}{ending}") for file in found.manifest["files"])


def test_names_come_from_templates_and_the_time_of_the_data(tmp_path):
    ship = {
        "audience": "gold",
        "folder": "{table}/d={date}/{generation}",
        "file": "{destination}_{shipment}_{time}_{part}",
    }
    project = make_project(tmp_path / "p", partner(ship))
    publish(project, CROWD)
    outcome = share(project)["s"]
    assert outcome.folder == "gold/d=2026-04-02/000001"
    found = received(root_of(project) / outcome.folder)
    assert [file["name"] for file in found.manifest["files"]] == ["partner_s_060000_0001.parquet"]


def test_a_csv_file_has_the_delimiter_and_the_missing_text_that_are_asked_for(tmp_path):
    form = {"type": "csv", "delimiter": "|", "missing": "NULL", "header": False}
    ship = {"table": "profiles", "columns": ["email", "phone"], "format": form, "folder": "x", "file": "x"}
    project = make_project(tmp_path / "p", partner(ship))
    publish(project, World([person(1)]))
    share(project)
    assert (root_of(project) / "x" / "x.csv").read_text() == "p1@example.org|NULL\n"


def test_nobody_to_deliver_is_an_empty_file_with_its_columns(tmp_path):
    ship = {"table": "profiles", "columns": ["email"], "format": {"type": "csv"}}
    found = delivered(tmp_path, World([person(1, marketing_consent=False)]), ship)
    assert (found.rows, [file["rows"] for file in found.manifest["files"]]) == ([], [0])
    assert found.manifest["excluded"]["no_consent"] == 1


def test_the_manifest_tells_versions_and_nobody(tmp_path):
    found = delivered(tmp_path, CROWD, {"audience": "gold"}).manifest
    assert (found["generation"], found["model"], found["policies"]) == (1, "m1", {"golden": 1, "other": 2})
    assert (found["destination"], found["shipment"], found["delivery"], found["audience"]) == (
        "partner",
        "s",
        1,
        "gold",
    )
    assert found["schema"][0] == {"name": "profile_id", "type": "VARCHAR"}
    text = json.dumps(found)
    assert "example.org" not in text
    assert id_of(1) not in text


def test_files_are_for_their_owner_only(tmp_path):
    project = make_project(tmp_path / "p", partner({"table": "profiles"}))
    publish(project, CROWD)
    share(project)
    for path in root_of(project).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


# ---------------------------------------------------------------- what changed


INCREMENTAL = {"table": "profiles", "mode": "incremental", "columns": ["profile_id", "email", "tier"]}


def changes_of(arrived: Arrived) -> dict[str, tuple[str, str | None]]:
    return {row["profile_id"]: (row["change"], row["other_profile_id"]) for row in arrived.rows}


def test_changes_say_what_happened_to_each_profile(tmp_path):
    project = make_project(tmp_path / "p", partner(INCREMENTAL))
    publish(project, World([person(n) for n in range(1, 8)]))
    share(project)
    people = [
        person(1), person(2, email="new@example.org"), person(4, marketing_consent=False), person(5, email="x@x.org"),
        person(8), person(9), person(7),
    ]  # fmt: skip
    world = World(
        people, redirects={id_of(3): id_of(5), id_of(6): id_of(4)}, splits=[(2, id_of(1), id_of(8))]
    )
    publish(project, world)
    outcome = share(project)["s"]
    first, second = all_received(project)
    assert set(changes_of(first).values()) == {("inserted", None)}
    assert len(first.rows) == 7
    assert changes_of(second) == {
        id_of(2): ("updated", None),
        id_of(3): ("merged", id_of(5)),
        id_of(4): ("deleted", None),  # consent was withdrawn, which is nobody's business
        id_of(5): ("updated", None),
        id_of(6): ("deleted", None),  # merged into somebody whom the partner does not get
        id_of(8): ("split", id_of(1)),
        id_of(9): ("inserted", None),
    }
    gone = next(row for row in second.rows if row["change"] == "merged")
    assert (gone["email"], gone["tier"]) == (None, None)
    assert outcome.changes == {"inserted": 1, "split": 1, "updated": 2, "merged": 1, "deleted": 2}
    assert second.manifest["base_delivery"] == 1
    assert second.manifest["changes"] == outcome.changes


def test_an_old_split_is_no_news(tmp_path):
    project = make_project(tmp_path / "p", partner(INCREMENTAL))
    publish(project, World([person(1)], splits=[(1, id_of(1), id_of(2))]))
    share(project)
    publish(project, World([person(1), person(2)], splits=[(1, id_of(1), id_of(2))]))
    share(project)
    assert changes_of(all_received(project)[1]) == {id_of(2): ("inserted", None)}


def test_ids_that_leave_as_hashes_are_hashed_in_every_place(tmp_path):
    hashed = {"columns": ["profile_id"], "method": "sha256"}
    project = make_project(tmp_path / "p", partner(INCREMENTAL, hash=hashed))
    publish(project, World([person(1), person(2)]))
    share(project)
    publish(project, World([person(2)], redirects={id_of(1): id_of(2)}))
    share(project)
    assert changes_of(all_received(project)[1]) == {plain_hash(id_of(1)): ("merged", plain_hash(id_of(2)))}


def test_rows_of_a_table_are_known_by_their_key(tmp_path):
    ship = {"table": "profile_events", "mode": "incremental", "purpose": "service", "pseudonymous": True}
    project = make_project(tmp_path / "p", partner(ship))
    publish(project, EVENTS)
    share(project)
    kept = [
        each | ({"event_type": "order"} if each["event_key"] == "web:1" else {})
        for each in EVENTS.events[:-1]
    ]
    publish(project, World(EVENTS.people, EVENTS.redirects, events=kept))
    share(project)
    first, second = all_received(project)
    assert {row["change"] for row in second.rows} == {"updated", "deleted"}
    held = replayed([first, second], key="row_key")
    assert {row["event_key"]: row["event_type"] for row in held.values()} == {
        each["event_key"]: each["event_type"] for each in kept
    }


def test_everything_can_be_sent_again(tmp_path):
    project = make_project(tmp_path / "p", partner(INCREMENTAL))
    publish(project, World([person(1), person(2)]))
    share(project)
    publish(project, World([person(2), person(3)]))
    assert share(project, wishes=Wishes(resend=True))["s"].changes == {
        "inserted": 1,
        "updated": 1,
        "deleted": 1,
    }
    assert len(replayed(all_received(project))) == 2
    assert share(project)["s"].status == "unchanged"
    assert share(project, wishes=Wishes(resend=True))["s"].status == ledger.DELIVERED


# ---------------------------------------------------------------- when


def test_nothing_leaves_when_nothing_changed(tmp_path):
    for mode in ("full", "incremental"):
        project = make_project(tmp_path / mode, partner({"table": "profiles", "mode": mode}))
        publish(project, World([person(1)]))
        share(project)
        before = ask(project, "from state.deliveries")
        publish(project, World([person(1)]))
        assert share(project)["s"].status == "unchanged"
        assert ask(project, "from state.deliveries") == before
        assert len(all_received(project)) == 1


def test_other_columns_are_a_change_and_another_description_is_none(tmp_path):
    project = make_project(tmp_path / "p", partner({"table": "profiles", "columns": ["email"]}))
    publish(project, World([person(1)]))
    share(project)
    write_sharing(project, partner({"table": "profiles", "columns": ["email"], "description": "New."}))
    assert share(project)["s"].status == "unchanged"
    write_sharing(project, partner({"table": "profiles", "columns": ["email"], "rename": {"email": "mail"}}))
    assert share(project)["s"].status == ledger.DELIVERED


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_a_list_can_wait_until_somebody_comes_or_goes(tmp_path, mode):
    ship = {"audience": "gold", "columns": ["profile_id", "email"], "when": "members_changed", "mode": mode}
    project = make_project(tmp_path / "p", partner(ship))
    publish(project, World([person(1)]))
    share(project)
    publish(project, World([person(1, email="new@example.org")]))
    assert share(project)["s"].status == "unchanged"
    publish(project, World([person(1, email="new@example.org"), person(2)]))
    assert share(project)["s"].status == ledger.DELIVERED
    assert len(replayed(all_received(project))) == 2
    publish(project, World([person(2)]))
    assert share(project)["s"].status == ledger.DELIVERED


def test_every_generation_can_be_asked_for(tmp_path):
    project = make_project(tmp_path / "p", partner({"table": "profiles", "when": "published"}))
    publish(project, World([person(1)]))
    assert [share(project)["s"].status for _ in range(2)] == [ledger.DELIVERED, "unchanged"]
    publish(project, World([person(1)]))
    assert share(project)["s"].status == ledger.DELIVERED


def test_a_full_disk_stops_one_shipment_and_not_the_others(tmp_path, monkeypatch):
    rules = partner({"table": "profiles"})
    rules["partner"]["ship"]["t"] = {"table": "profiles"}
    project = make_project(tmp_path / "p", rules)
    publish(project, World([person(1)]))
    write = deliver._write

    def full(con, parcel, building):
        if parcel.channel.shipment == "s":
            raise OSError(28, "No space left on device")
        return write(con, parcel, building)

    monkeypatch.setattr(deliver, "_write", full)
    found = share(project)
    assert (found["s"].status, found["t"].status) == (ledger.FAILED, ledger.DELIVERED)
    assert "No space left" in found["s"].reason


def test_not_more_often_than_asked_by_the_time_of_the_data(tmp_path):
    project = make_project(tmp_path / "p", partner({"table": "profiles", "every": "2 days"}))
    for hours, status in ((0, "delivered"), (45, "not due"), (47.99, "delivered")):
        publish(project, World([person(1, points=hours)]), as_of=BEGIN + timedelta(hours=hours))
        assert share(project)["s"].status == status


def test_a_destination_that_moved_is_a_new_one(tmp_path):
    project = make_project(tmp_path / "p", partner({"table": "profiles"}))
    publish(project, World([person(1)]))
    share(project)
    moved = partner({"table": "profiles"})
    moved["partner"]["to"]["folder"] = "shared/elsewhere"
    write_sharing(project, moved)
    assert "give the new place a destination of its own" in share(project)["s"].reason


def test_switched_off_shipments_and_destinations_get_nothing(tmp_path):
    rules = partner({"table": "profiles", "enabled": False})
    rules["partner"]["ship"]["t"] = {"table": "profiles"}
    project = make_project(tmp_path / "p", rules)
    publish(project, World([person(1)]))
    assert list(share(project)) == ["t"]
    write_sharing(project, partner({"table": "profiles"}, enabled=False))
    with pytest.raises(PipelineError, match="is switched off"):
        share(project)
    with pytest.raises(PipelineError, match="no destination `partnr`; did you mean `partner`"):
        share(project, "partnr")


def test_one_shipment_that_fails_leaves_the_others_alone(tmp_path):
    rules = partner({"table": "nothing"})
    rules["partner"]["ship"]["t"] = {"table": "profiles"}
    project = make_project(tmp_path / "p", rules)
    publish(project, World([person(1)]))
    assert {name: o.status for name, o in share(project).items()} == {"s": "failed", "t": "delivered"}


# ---------------------------------------------------------------- health


def test_sizes_are_compared_with_their_mean_and_deviation():
    rules = Health()
    steady, lively = [100] * 10, [100, 140, 60, 120, 80, 130, 70, 100]
    assert health.compared(120, steady, rules).why == "", "a fifth never blocks"
    assert "121 is too far from the mean of 100 over 10 days" in health.compared(121, steady, rules).why
    assert health.compared(0, steady, rules).why
    assert health.compared(170, lively, rules).why == "", "three deviations of 26"
    assert health.compared(181, lively, rules).why
    assert health.compared(0, steady[:6], rules).why == "", "too little history"
    assert health.compared(0, steady, Health(enabled=False)).why == ""
    assert health.compared(0, [0] * 10, rules).why == ""


def stays_of(sizes: list[int], begin: datetime = BEGIN) -> list[dict[str, Any]]:
    """Stays that give an audience these sizes at the end of each day; people leave and come in order."""
    found: list[dict[str, Any]] = []
    inside: list[dict[str, Any]] = []
    for day, size in enumerate(sizes):
        at = begin + timedelta(days=day)
        while len(inside) > size:
            inside.pop()["exited_at"] = at
        while len(inside) < size:
            stay = {"audience": "gold", "profile_id": id_of(len(inside) + 1), "entered_at": at}
            inside.append(stay)
            found.append(stay)
    return found


def test_an_audience_that_collapses_is_held_back_until_somebody_accepts_it(tmp_path):
    sizes = [20, 21, 20, 19, 20, 20, 21, 20, 20, 2]
    project = make_project(tmp_path / "p", partner({"audience": "gold"}))
    people = [person(n) for n in range(1, 30)]
    publish(project, World(people, stays=stays_of(sizes[:-1])), as_of=BEGIN + timedelta(days=8))
    assert share(project)["s"].status == ledger.DELIVERED
    publish(project, World(people, stays=stays_of(sizes)), as_of=BEGIN + timedelta(days=9))
    outcome = share(project)["s"]
    assert outcome.status == ledger.BLOCKED
    assert "gold: 2 is too far from the mean of 20 over 9 days" in outcome.reason
    assert len(all_received(project)) == 1
    assert [row["status"] for row in ask(project, "from state.deliveries order by delivery")] == [
        "delivered",
        "blocked",
    ]
    share(project)
    assert len(ask(project, "from state.deliveries")) == 2, "asked again, it is still one blocked delivery"
    assert share(project, wishes=Wishes(accept=True))["s"].status == ledger.DELIVERED
    assert len(all_received(project)[-1].rows) == 2
    assert [row["status"] for row in ask(project, "from state.deliveries order by delivery")] == [
        "delivered"
    ] * 2


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=12), st.integers(2, 10), st.sampled_from([0, 6]))
def test_the_history_of_an_audience_is_exact(sizes, days, hour):
    with quick_folder() as folder:
        project = make_project(folder / "p", partner({"audience": "gold"}))
        begin = BEGIN.replace(hour=hour)
        stays = stays_of(sizes, begin)
        as_of = begin + timedelta(days=len(sizes) - 1)
        publish(project, World([person(n) for n in range(1, 8)], stays=stays), as_of=as_of)
        with connect(project.database, memory="1GB", threads=1) as con:
            con.execute(f"attach '{project.published}/current/profiles.duckdb' as generation (read_only)")
            found = health.sizes_of_audience(con, "gold", as_of, days)
            con.execute("detach generation")
    first = next((n for n, size in enumerate(sizes) if size), len(sizes))
    assert found == sizes[first:-1][-days:] if stays else found == []


def test_other_shipments_are_compared_with_what_was_delivered_before(tmp_path):
    ship = {"table": "profiles", "when": "published", "health": {"minimum_days": 3}}
    project = make_project(tmp_path / "p", partner(ship))
    for day in range(3):
        publish(project, World([person(n, points=day) for n in range(20)]), as_of=BEGIN + timedelta(days=day))
        assert share(project)["s"].status == ledger.DELIVERED
    publish(
        project,
        World([person(n, marketing_consent=n < 3) for n in range(20)]),
        as_of=BEGIN + timedelta(days=9),
    )
    assert share(project)["s"].status == ledger.BLOCKED


# ---------------------------------------------------------------- interrupted


class Killed(BaseException):
    """The process ends here."""


def killed_at(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, *, after: bool = False) -> None:
    """The next call of a function ends the process before (or after) its work."""
    work = getattr(place, name)

    def stop(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(place, name, work)
        if after:
            work(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(place, name, stop)


STOPS = [(sinks.LocalSink, "deliver", False), (sinks.LocalSink, "deliver", True), (ledger, "begin", False),
         (ledger, "begin", True), (ledger, "finish", False), (ledger, "finish", True)]  # fmt: skip


@pytest.mark.parametrize(("place", "name", "after"), STOPS, ids=[f"{n} {a}" for _, n, a in STOPS])
@pytest.mark.parametrize("other", [False, True], ids=["same generation", "newer generation"])
def test_a_killed_delivery_ends_as_if_nothing_had_happened(tmp_path, monkeypatch, place, name, after, other):
    project = make_project(tmp_path / "p", partner(INCREMENTAL))
    publish(project, World([person(1), person(2)]))
    share(project)
    publish(project, World([person(2), person(3)]))
    killed_at(monkeypatch, place, name, after=after)
    with pytest.raises(Killed):
        share(project)
    if other:
        publish(project, World([person(2, tier="silver"), person(4)]))
    share(project)
    held = replayed(all_received(project))
    assert set(held) == ({id_of(2), id_of(4)} if other else {id_of(2), id_of(3)})
    assert {row["status"] for row in ask(project, "from state.deliveries")} == {"delivered"}
    assert {
        str(row["row_key"]) for row in ask(project, "from state.delivered where to_delivery is null")
    } == set(held)
    assert ask(project, "from state.delivering") == []
    assert not [path for path in root_of(project).iterdir() if path.name.startswith(".")]
    assert share(project)["s"].status == "unchanged"


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    project = make_project(tmp_path / "p", partner({"table": "profiles", "folder": "x"}))
    publish(project, World([person(1)]))
    mine = root_of(project) / "x" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    outcome = share(project)["s"]
    assert (outcome.status, "holds files that no delivery brought" in outcome.reason) == (ledger.FAILED, True)
    assert mine.read_text() == "mine"
    shutil.rmtree(mine.parent)
    assert share(project)["s"].status == ledger.DELIVERED


def test_a_newer_full_delivery_takes_the_place_of_the_one_before(tmp_path):
    project = make_project(tmp_path / "p", partner({"table": "profiles", "folder": "x", "file": "{date}"}))
    for n in (1, 2):
        publish(project, World([person(n)]))
        share(project)
        assert ids(received(root_of(project) / "x")) == {id_of(n)}


# ---------------------------------------------------------------- the ledger


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[World, bool]]:
    """Generations with people who come, change, merge, split, withdraw consent; and whether the delivery is killed."""
    found, alive = [], {}
    redirects: dict[str, str] = {}
    splits: list[tuple[int, str, str]] = []
    for revision in range(1, draw(st.integers(2, 6)) + 1):
        for n in draw(st.sets(st.integers(1, 6), max_size=4)):
            alive[n] = person(
                n,
                email=draw(st.sampled_from([None, f"p{n}@example.org", f"q{n}@example.org"])),
                marketing_consent=draw(st.sampled_from([True, True, True, False])),
                kind=draw(st.sampled_from(["person"] * 5 + ["pseudonymous"])),
            )
            redirects.pop(id_of(n), None)
            if draw(st.booleans()):
                splits.append((revision, id_of(n % 6 + 1), id_of(n)))
        for n in draw(st.sets(st.sampled_from(sorted(alive) or [0]), max_size=2)):
            if alive.pop(n, None) and alive and draw(st.booleans()):
                redirects[id_of(n)] = id_of(draw(st.sampled_from(sorted(alive))))
        redirects = {old: new for old, new in redirects.items() if new in {id_of(n) for n in alive}}
        world = World([alive[n] for n in sorted(alive)], dict(redirects), list(splits))
        found.append((world, draw(st.booleans())))
    return found


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_increments_replayed_are_a_full_delivery_and_the_ledger_knows_both(history):
    check_history(history)


@pytest.mark.long
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_increments_replayed_are_a_full_delivery_over_many_histories(history):
    check_history(history)


def check_history(history: list[tuple[World, bool]]) -> None:
    columns = ["profile_id", "email", "tier"]
    ship = {"one": INCREMENTAL, "all": {"table": "profiles", "columns": columns}}
    rules = {"partner": {"to": {"type": "local", "folder": "shared/partner"}, "ship": ship}}
    with quick_folder() as folder, pytest.MonkeyPatch.context() as patch:
        project = make_project(folder / "p", rules)
        for world, killed in history:
            publish(project, world)
            if killed:
                killed_at(patch, sinks.LocalSink, "deliver", after=len(world.people) % 2 == 1)
                with suppress(Killed):
                    share(project)
                patch.undo()
            else:
                share(project)
        share(project)
        one, everything = all_received(project, "one"), all_received(project, "all")
        held = replayed(one)
        assert held == {row["profile_id"]: row for row in everything[-1].rows}
        check_ledger(project, "one", one)
        check_ledger(project, "all", everything)


def check_ledger(project: Project, shipment: str, deliveries: list[Arrived]) -> None:
    """Who is in which delivery, by the ledger, is who is in its files."""
    held = ask(project, f"from state.delivered where shipment = '{shipment}'")
    now = [row["row_key"] for row in held if row["to_delivery"] is None]
    assert len(now) == len(set(now)), "a row is held once"
    for arrived in deliveries:
        number = arrived.manifest["delivery"]
        if arrived.manifest["mode"] == "full":
            known = {
                str(row["profile_id"])
                for row in held
                if row["from_delivery"] <= number and number < (row["to_delivery"] or number + 1)
            }
            assert known == ids(arrived)
        else:
            brought = {str(row["profile_id"]) for row in held if row["from_delivery"] == number}
            taken = {str(row["profile_id"]) for row in held if row["to_delivery"] == number} - brought
            gone = {row["profile_id"] for row in arrived.rows if row["change"] in {"merged", "deleted"}}
            assert (brought, taken) == (ids(arrived) - gone, gone)


def test_the_ledger_tells_who_got_rows_about_a_person_and_forgets_on_request(tmp_path):
    rules = partner({"table": "profiles"})
    rules["archive"] = {
        "to": {"type": "local", "folder": "shared/archive"}, "purpose": "service",
        "ship": {"events": {"table": "profile_events", "mode": "incremental", "pseudonymous": True}},
    }  # fmt: skip
    project = make_project(tmp_path / "p", rules)
    publish(project, EVENTS)
    share(project)
    share(project, "archive")
    publish(project, World([person(1, marketing_consent=False), person(2)]))
    share(project)
    with connect(project.database, memory="1GB", threads=1) as con:
        found = ledger.recipients(con, [id_of(1)])
        assert [
            (r["destination"], r["shipment"], r["from_delivery"], r["to_delivery"], r["row_count"])
            for r in found
        ] == [
            ("archive", "events", 1, None, 2),
            ("partner", "s", 1, 2, 1),
        ]
        assert [r["folder"] for r in found] == ["events/2026-04-02_000001", "s/2026-04-02_000001"]
        assert ledger.recipients(con, [id_of(77)]) == []
        assert ledger.forget(con, [id_of(1)]) == 3
        assert ledger.recipients(con, [id_of(1)]) == []
        assert ledger.recipients(con, [id_of(2)])


def test_a_preview_sends_and_notes_nothing(tmp_path):
    project = make_project(tmp_path / "p", partner(INCREMENTAL))
    publish(project, CROWD)
    with connect(project.database, memory="1GB", threads=1) as con:
        [(outcome, columns)] = preview(con, config_of(project), project, "partner")
    assert (outcome.status, outcome.held_count, outcome.changes) == ("due", 3, {"inserted": 3})
    assert outcome.excluded["no_consent"] == 3
    assert columns == ["profile_id", "email", "tier"]
    assert ask(project, "from state.deliveries") == []
    assert not root_of(project).exists()


def test_before_the_first_generation_there_is_nothing_to_send(tmp_path):
    project = make_project(tmp_path / "p", partner(INCREMENTAL))
    with pytest.raises(PipelineError, match="nothing is published yet"):
        share(project)


def test_of_profiles_as_they_were_nothing_is_shared(tmp_path):
    project = make_project(tmp_path / "p", partner(INCREMENTAL))
    publish(project, CROWD)
    assert len(assets(config_of(project), project)) == 1
    project.state.mkdir(exist_ok=True)
    project.past.touch()
    assert assets(config_of(project), project) == []
    with pytest.raises(PipelineError, match="as they were; nothing is shared"):
        share(project)


# ---------------------------------------------------------------- the whole graph, and the command line


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with deliveries, one destination that works and one that cannot."""
    monkeypatch.setattr(quality, "validate", all_hold)
    project = write_rules(tmp_path / "p", LINKED)
    mail = {"table": "profiles", "columns": ["profile_id", "email", "segment"], "mode": "incremental"}
    write_sharing(
        project,
        {
            **partner({**mail, "health": {"enabled": False}}),
            "broken": {
                "to": {"type": "local", "folder": "shared/broken"},
                "ship": {"s": {"table": "nothing"}},
            },
        },
    )
    deliver_rows(project, people({"id": "1", "email": "a@x.org"}, {"id": "2", "email": "b@x.org"}), "1")
    return project


@pytest.mark.slow
def test_a_run_publishes_then_delivers_and_what_fails_is_said(whole):
    result = run_graph(config_of(whole), whole, Options(as_of="2026-04-02T00:00:00Z"))
    assert (result.success, result.published) == (False, True)
    assert (
        "broken: s: sharing.yaml: destinations.broken.ship.s.table: `nothing` is not published"
        in result.failure
    )
    assert [(check.asset, check.name) for check in result.failed_checks] == [("shared/broken", "arrived")]
    [arrived] = all_received(whole)
    assert {row["email"] for row in arrived.rows} == {"a@x.org", "b@x.org"}
    write_sharing(
        whole,
        partner({"table": "profiles", "columns": ["profile_id", "email", "segment"], "mode": "incremental"}),
    )
    assert run_graph(config_of(whole), whole, Options(as_of="2026-04-02T00:00:00Z")).success
    assert len(all_received(whole)) == 1, "nothing changed, nothing leaves"
    before = {row["email"]: row["profile_id"] for row in replayed(all_received(whole)).values()}
    deliver_rows(whole, people({"id": "2", "email": "a@x.org", "moment": "2026-03-05T00:00:00Z"}), "2")
    assert run_graph(config_of(whole), whole, Options(as_of="2026-04-03T00:00:00Z")).success
    merged = [row for row in all_received(whole)[-1].rows if row["change"] == "merged"]
    assert {(row["profile_id"], row["other_profile_id"]) for row in merged} < set(
        permutations(before.values(), 2)
    )
    assert len(merged) == 1
    deliver_rows(whole, people({"id": "2", "email": "b@x.org", "moment": "2026-03-06T00:00:00Z"}), "3")
    assert run_graph(config_of(whole), whole, Options(as_of="2026-04-04T00:00:00Z")).success
    deliveries = all_received(whole)
    assert [row["change"] for row in deliveries[-1].rows if row["change"] != "updated"] in (
        ["split"],
        ["inserted"],
    )
    assert {row["email"] for row in replayed(deliveries).values()} == {"a@x.org", "b@x.org"}


def said(*arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    return done.exit_code, json.loads(done.stdout) if done.stdout.startswith(("[", "{")) else done.output


def test_the_command_line_shows_tries_and_sends(tmp_path):
    project = make_project(
        tmp_path / "p", partner({**INCREMENTAL, "health": {"minimum_days": 2, "deviations": 1}})
    )
    where = ["--project", str(tmp_path / "p")]
    code, found = said("share", "preview", "partner", *where)
    assert (code, "no run yet" in found) == (1, True)
    with connect(project.database):
        pass
    publish(project, CROWD)
    assert said("share", "list", *where)[1][0]["consent"] == "marketing_consent"
    assert said("share", "preview", "partner", *where)[1][0]["status"] == "due"
    assert [said("share", "run", *where)[1][0]["status"] for _ in range(2)] == ["delivered", "unchanged"]
    assert said("share", "resend", "partner", "--yes", *where)[1][0]["row_count"] == 3
    assert [each["delivery"] for each in said("share", "status", *where)[1]] == [2, 1]
    code, found = said("share", "run", "nobody", *where)
    assert (code, "no destination `nobody`" in found) == (1, True)
    for day in (3, 4):
        publish(project, World([person(n, points=day) for n in range(20)]), as_of=BEGIN + timedelta(days=day))
        said("share", "run", "--accept", *where)
    publish(project, World([person(1)]), as_of=BEGIN + timedelta(days=9))
    code, found = said("share", "run", *where)
    assert (code, found[0]["status"]) == (2, "blocked")
    assert said("share", "run", "--accept", *where)[0] == 0
    table = CliRunner().invoke(app, ["share", "status", *where])
    assert "delivered" in table.output
