"""Google Cloud storage, by google-cloud-storage."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profile_pipeline.config.secrets import secret
from profile_pipeline.config.stores import LOOPBACK, Store, host_of
from profile_pipeline.errors import PipelineError
from profile_pipeline.sharing.objects import plainly

if TYPE_CHECKING:
    from google.cloud.storage import Bucket

HASH = "sha256"
TIMEOUT = (10, 120)
"""Seconds to connect, and to wait for an answer."""


def google_objects(store: Store, where: str) -> "GoogleObjects":
    """A bucket, with the key file of a service account; on this machine's own address without any."""
    try:
        from google.cloud import storage
    except ImportError:
        raise PipelineError(
            f"{where}.to: needs the package google-cloud-storage; pip install 'profile-pipeline[gcs]'"
        ) from None
    options = {"api_endpoint": store.endpoint} if store.endpoint else None
    credentials, project = _credentials(store, where)
    client = storage.Client(project=project, credentials=credentials, client_options=options)
    return GoogleObjects(client.bucket(store.bucket), where, f"bucket {store.bucket}")


def _credentials(store: Store, where: str) -> tuple[Any, str]:
    if store.endpoint and host_of(store.endpoint) in LOOPBACK:
        from google.auth.credentials import AnonymousCredentials

        return AnonymousCredentials(), "local"
    from google.oauth2.service_account import Credentials

    key = f"{where}.to.credentials_file_env"
    path = secret(store.credentials_file_env, key)
    try:
        found = Credentials.from_service_account_file(path)
    except Exception:  # the library's message can repeat the file
        raise PipelineError(
            f"{key}: {store.credentials_file_env} does not lead to a key file of a service account; set it anew"
        ) from None
    return found, found.project_id


class GoogleObjects:
    """See Objects."""

    def __init__(self, bucket: "Bucket", where: str, place: str) -> None:
        self._bucket = bucket
        self._where = where
        self._place = place

    def put(self, path: Path, name: str, sha256: str) -> None:
        """See Objects. The library compares a checksum of what it sent with the store's own."""
        with self._plain():
            blob = self._bucket.blob(name)
            blob.metadata = {HASH: sha256}
            blob.upload_from_filename(str(path), checksum="crc32c", timeout=TIMEOUT, retry=None)

    def read(self, name: str) -> bytes | None:
        """See Objects."""
        with self._plain():
            blob = self._bucket.get_blob(name, timeout=TIMEOUT, retry=None)
            return blob.download_as_bytes(timeout=TIMEOUT, retry=None) if blob else None

    def sha256_of(self, name: str) -> str | None:
        """See Objects."""
        with self._plain():
            blob = self._bucket.get_blob(name, timeout=TIMEOUT, retry=None)
            return (blob.metadata or {}).get(HASH) if blob else None

    def sizes(self, folder: str) -> dict[str, int]:
        """See Objects."""
        with self._plain():
            found = self._bucket.list_blobs(prefix=f"{folder}/", timeout=TIMEOUT, retry=None)
            return {blob.name: blob.size or 0 for blob in found}

    def delete(self, names: Sequence[str]) -> None:
        """See Objects."""
        with self._plain():
            self._bucket.delete_blobs(names, on_error=lambda _: None, timeout=TIMEOUT, retry=None)

    def _plain(self) -> AbstractContextManager[None]:
        return plainly(self._where, self._place)
