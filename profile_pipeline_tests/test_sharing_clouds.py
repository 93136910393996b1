"""Deliveries to servers that speak as S3, Google Cloud storage and Azure Blob storage do, read back without our own code."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from profile_pipeline.config.project import Project
from profile_pipeline.sharing import ledger, objects
from profile_pipeline.warehouse import connect
from profile_pipeline_tests.parcels import (
    Arrived,
    World,
    ask,
    id_of,
    make_project,
    person,
    publish,
    received,
    replayed,
    share,
    write_sharing,
)
from profile_pipeline_tests.worlds import command, files_below

SECRET = "very-secret-key-of-the-store"
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The public key of every azurite."""
COLUMNS = ["profile_id", "email", "tier"]


@dataclass
class Cloud:
    """A running server: where rules have to lead, and a way to read everything that is in its bucket."""

    to: dict[str, str]
    read: Callable[[], dict[str, bytes]]
    secret: str


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def s3_client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="reader", aws_secret_access_key="reader"
    )  # fmt: skip


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The address of a server that speaks S3."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def ask_for_keys(moto: str, after: float) -> None:
    """Let the server check credentials once so many requests have been answered."""
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(
        f"{moto}/moto-api/reset-auth", str(after).encode(), headers, method="POST"
    )
    urllib.request.urlopen(request).close()


@pytest.fixture
def s3(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    ask_for_keys(moto, after=float("inf"))
    urllib.request.urlopen(urllib.request.Request(f"{moto}/moto-api/reset", method="POST")).close()
    client = s3_client(moto)
    client.create_bucket(Bucket="exchange")
    client.put_bucket_versioning(Bucket="exchange", VersioningConfiguration={"Status": "Enabled"})
    monkeypatch.setenv("STORE_ID", "writer")
    monkeypatch.setenv("STORE_SECRET", SECRET)

    def read() -> dict[str, bytes]:
        listed = client.list_objects_v2(Bucket="exchange").get("Contents", [])
        return {o["Key"]: client.get_object(Bucket="exchange", Key=o["Key"])["Body"].read() for o in listed}

    to = {"type": "s3", "bucket": "exchange", "prefix": "retailer", "endpoint": moto,
          "access_key_env": "STORE_ID", "secret_key_env": "STORE_SECRET"}  # fmt: skip
    yield Cloud(to, read, SECRET)
    client.close()


@pytest.fixture
def gcs() -> Iterator[Cloud]:
    from gcp_storage_emulator.server import create_server

    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    address = f"http://127.0.0.1:{port}/storage/v1/b"

    def call(url: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    call(f"{address}?project=test", json.dumps({"name": "exchange"}).encode())

    def read() -> dict[str, bytes]:
        listed = json.loads(call(f"{address}/exchange/o")).get("items", [])
        names = [each["name"] for each in listed]
        return {
            name: call(f"{address}/exchange/o/{urllib.parse.quote(name, safe='')}?alt=media")
            for name in names
        }

    yield Cloud({"type": "gcs", "bucket": "exchange", "endpoint": f"http://127.0.0.1:{port}"}, read, SECRET)
    server.stop()


def azurite_program() -> Path:
    """The program azurite, installed once into the folder for temporary files; skips where that is not possible."""
    home = Path(tempfile.gettempdir()) / "profile-pipeline-azurite"
    program = home / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not shutil.which("npm"):
        pytest.skip("azurite needs node and npm")
    if not program.exists():
        home.mkdir(exist_ok=True)
        install = ["npm", "install", "--no-audit", "--no-fund", "--silent", "azurite"]
        done = subprocess.run(install, cwd=home, capture_output=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip("azurite cannot be installed from the npm registry")
    return program


def make_container(endpoint: str) -> None:
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    listed = "\n".join(f"{name}:{value}" for name, value in headers.items())
    resource = f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/exchange\nrestype:container"
    signed = "PUT" + "\n" * 12 + f"{listed}\n{resource}"
    digest = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
    headers |= {
        "Authorization": f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}",
        "Content-Length": "0",
    }
    url = f"{endpoint}/exchange?restype=container"
    urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).close()


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    import obstore
    from obstore.store import AzureStore

    port = free_port()
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--skipApiVersionCheck", "--silent"]
    options += ["--disableTelemetry", "--location", str(tmp_path / "azurite")]
    server = subprocess.Popen(["node", str(azurite_program()), *options], stdout=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    for _ in range(200):
        try:
            make_container(endpoint)
            break
        except OSError:
            time.sleep(0.1)
    monkeypatch.setenv("STORE_SECRET", AZURE_KEY)
    store = AzureStore(
        "exchange", account_name=AZURE_ACCOUNT, account_key=AZURE_KEY, endpoint=endpoint,
        client_options={"allow_http": True},
    )  # fmt: skip

    def read() -> dict[str, bytes]:
        names = [each["path"] for chunk in obstore.list(store) for each in chunk]
        return {name: bytes(obstore.get(store, name).bytes()) for name in names}

    to = {"type": "azure", "account": AZURE_ACCOUNT, "container": "exchange", "prefix": "retailer",
          "endpoint": endpoint, "account_key_env": "STORE_SECRET"}  # fmt: skip
    yield Cloud(to, read, AZURE_KEY)
    server.terminate()
    server.wait()


@pytest.fixture(params=["s3", "gcs", pytest.param("azure", marks=pytest.mark.slow)])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    return request.getfixturevalue(request.param)


def to_cloud(cloud: Cloud, **ship: Any) -> dict[str, Any]:
    shipment = {"table": "profiles", "columns": COLUMNS, **ship}
    return {"partner": {"to": cloud.to, "attempts": 2, "ship": {"s": shipment}}}


def fetched(cloud: Cloud, folder: Path) -> list[Arrived]:
    """Every complete delivery in the bucket, in order, held to its manifest."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in cloud.read().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    found = [received(path.parent) for path in folder.rglob("_SUCCESS")]
    return sorted(found, key=lambda arrived: arrived.manifest["delivery"])


RUNS = [
    World([person(n) for n in range(1, 8)]),
    World(
        [person(1), person(2, tier="silver"), person(3), person(5), person(8)], redirects={id_of(4): id_of(1)}
    ),
    World(
        [person(2, tier="silver"), person(3, email="n@example.org"), person(9)],
        redirects={id_of(1): id_of(2)},
    ),
]


def test_full_then_increments_over_three_runs_are_a_new_full_delivery(cloud, tmp_path):
    project = make_project(tmp_path / "p", to_cloud(cloud, mode="incremental", rows_per_file=2))
    for number, world in enumerate(RUNS, start=1):
        publish(project, world)
        assert share(project)["s"].status == ledger.DELIVERED
        assert share(project)["s"].status == "unchanged"
        arrived = fetched(cloud, tmp_path / "fetched")
        assert len(arrived) == number
        held = replayed(arrived)
        wanted = {each["profile_id"]: {c: each[c] for c in COLUMNS} for each in world.people}
        assert held == wanted
    assert {row["change"] for row in arrived[-1].rows} == {"inserted", "updated", "merged", "deleted"}


def test_a_newer_full_delivery_leaves_nothing_of_the_older_in_its_folder(cloud, tmp_path):
    project = make_project(tmp_path / "p", to_cloud(cloud, folder="now", rows_per_file=2))
    for world in RUNS:
        publish(project, world)
        assert share(project)["s"].status == ledger.DELIVERED
        [arrived] = fetched(cloud, tmp_path / "fetched")
        assert len(arrived.rows) == len(world.people)


def test_an_interrupted_delivery_goes_on_without_sending_again_what_is_there(cloud, tmp_path, monkeypatch):
    project = make_project(tmp_path / "p", to_cloud(cloud, rows_per_file=1))
    publish(project, RUNS[0])
    left = iter([True] * 3)
    put = objects.ObjectSink._put

    def fails(self: Any, path: Path, name: str, sha256: str) -> None:
        if not next(left, False):
            raise objects.StoreError("the line is dead", lasting=True)
        put(self, path, name, sha256)

    monkeypatch.setattr(objects.ObjectSink, "_put", fails)
    outcome = share(project)["s"]
    assert (outcome.status, outcome.reason) == (ledger.FAILED, "the line is dead")
    assert fetched(cloud, tmp_path / "fetched") == []
    assert len(cloud.read()) == 3
    monkeypatch.setattr(objects.ObjectSink, "_put", put)
    outcome = share(project)["s"]
    assert (outcome.status, outcome.file_count, outcome.sent_count) == (ledger.DELIVERED, 7, 4)
    [arrived] = fetched(cloud, tmp_path / "fetched")
    assert len(arrived.rows) == 7
    assert [row["status"] for row in ask(project, "from state.deliveries")] == ["delivered"]
    assert not list((project.state / "sharing").rglob("*.parquet")), "no copy stays behind"


def test_what_was_begun_for_an_older_generation_is_removed(cloud, tmp_path, monkeypatch):
    project = make_project(tmp_path / "p", to_cloud(cloud, rows_per_file=1))
    publish(project, RUNS[0])
    delete = objects.ObjectSink._check
    monkeypatch.setattr(objects.ObjectSink, "_check", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        share(project)
    monkeypatch.setattr(objects.ObjectSink, "_check", delete)
    assert len(cloud.read()) == 7
    publish(project, RUNS[2])
    assert share(project)["s"].status == ledger.DELIVERED
    [arrived] = fetched(cloud, tmp_path / "fetched")
    assert (len(arrived.rows), len(cloud.read())) == (3, 5)


class Refusing(BaseHTTPRequestHandler):
    """Answers as Google cloud storage does to a key that it does not know; its emulator refuses nobody."""

    def refuse(self) -> None:
        body = b'{"error": {"code": 401, "message": "Invalid Credentials"}}'
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = refuse  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def test_a_google_store_that_refuses_is_said_at_once(gcs, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        project = make_project(
            tmp_path / "p", to_cloud(Cloud({**gcs.to, "endpoint": endpoint}, gcs.read, gcs.secret))
        )
        publish(project, RUNS[0])
        outcome = share(project)["s"]
        server.shutdown()
    assert outcome.status == ledger.FAILED
    assert "refuses the credentials" in outcome.reason


def test_an_unreachable_store_fails_after_its_attempts_and_is_tried_again_later(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr("profile_pipeline.sharing.obstores.PATIENCE", {"max_retries": 0})
    lost = Cloud({**s3.to, "endpoint": f"http://127.0.0.1:{free_port()}"}, s3.read, s3.secret)
    project = make_project(tmp_path / "p", to_cloud(lost))
    publish(project, RUNS[0])
    outcome = share(project)["s"]
    assert outcome.status == ledger.FAILED
    assert "cannot be reached or fails" in outcome.reason
    write_sharing(project, to_cloud(s3))
    assert share(project)["s"].status == ledger.DELIVERED


def test_a_missing_bucket_is_named(cloud, tmp_path):
    key = "container" if cloud.to["type"] == "azure" else "bucket"
    project = make_project(
        tmp_path / "p", to_cloud(Cloud({**cloud.to, key: "nowhere"}, cloud.read, cloud.secret))
    )
    publish(project, RUNS[0])
    outcome = share(project)["s"]
    assert (outcome.status, "there is no" in outcome.reason) == (ledger.FAILED, True), outcome.reason


@pytest.mark.parametrize("name", ["s3", pytest.param("azure", marks=pytest.mark.slow)])
def test_refused_credentials_are_said_at_once_and_never_shown(name, request, tmp_path, monkeypatch):
    cloud = request.getfixturevalue(name)
    if name == "s3":
        ask_for_keys(cloud.to["endpoint"], after=0)
        secret = SECRET
    else:
        secret = base64.b64encode(b"another key of this length, wrong").decode()
        monkeypatch.setenv("STORE_SECRET", secret)
    project = make_project(tmp_path / "p", to_cloud(cloud))
    publish(project, RUNS[0])
    outcome = share(project)["s"]
    assert outcome.status == ledger.FAILED
    assert "refuses the credentials" in outcome.reason
    assert secret not in outcome.reason
    assert "writer" not in outcome.reason
    for path in files_below(tmp_path / "p"):
        assert secret.encode() not in path.read_bytes(), path


def test_without_its_variable_a_store_is_not_even_asked(s3, tmp_path, monkeypatch):
    monkeypatch.delenv("STORE_SECRET")
    project = make_project(tmp_path / "p", to_cloud(s3))
    publish(project, RUNS[0])
    with pytest.raises(Exception, match="the environment variable STORE_SECRET is not set"):
        share(project)


def test_a_process_killed_in_the_middle_leaves_nothing_to_see_and_the_next_goes_on(s3, tmp_path):
    project = make_project(tmp_path / "p", to_cloud(s3, rows_per_file=1))
    people = [person(n) for n in range(80)]
    publish(project, World(people))
    with connect(project.database):
        pass
    client = s3_client(s3.to["endpoint"])
    before = kill_after(project, lambda: stored(client) >= 5)
    assert 5 <= before < 80
    assert fetched(s3, tmp_path / "fetched") == []
    done = subprocess.run(
        command(project, "share", "run", "--json"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [outcome] = json.loads(done.stdout)
    assert (outcome["status"], outcome["sent_count"]) == ("delivered", 80 - before)
    [arrived] = fetched(s3, tmp_path / "fetched")
    assert {row["profile_id"] for row in arrived.rows} == {id_of(n) for n in range(80)}
    versions = client.list_object_versions(Bucket="exchange", MaxKeys=1000)["Versions"]
    assert len(versions) == 82, "no object was written twice"
    client.close()


def stored(client: Any) -> int:
    return client.list_objects_v2(Bucket="exchange")["KeyCount"]


def kill_after(project: Project, seen: Callable[[], bool]) -> int:
    """Start a delivery in a process of its own and kill it once something is seen; objects that are there then."""
    child = subprocess.Popen(
        command(project, "share", "run"), stdout=subprocess.DEVNULL, env=dict(os.environ)
    )
    while not seen():
        assert child.poll() is None, "it ended before it could be killed"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    [row] = ask(project, "select status, file_count from state.deliveries")
    assert (row["status"], row["file_count"]) == ("running", 80)
    endpoint = json.loads((project.rules / "sharing.yaml").read_text())["destinations"]["partner"]["to"][
        "endpoint"
    ]
    client = s3_client(endpoint)
    found = stored(client)
    client.close()
    return found
