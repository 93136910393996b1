"""Amazon S3 and Azure Blob storage, and what speaks as they do, by obstore."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profile_pipeline.config.secrets import secret
from profile_pipeline.config.stores import Store
from profile_pipeline.errors import PipelineError
from profile_pipeline.sharing.objects import plainly

if TYPE_CHECKING:
    from obstore.store import ObjectStore

HASH = "sha256"
"""Metadata under which an object's hash is stored."""
PATIENCE: dict[str, Any] = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
"""Of the library itself, for a single request."""
CONNECT_SECONDS, ANSWER_SECONDS = 10, 120


def s3_objects(store: Store, where: str) -> "ObstoreObjects":
    """An S3 bucket; every credential is given, so that nothing else of the environment is used."""
    stores = _library(where)
    key = secret(store.access_key_env, f"{where}.to.access_key_env")
    credentials = {
        "access_key_id": key,
        "secret_access_key": secret(store.secret_key_env, f"{where}.to.secret_key_env"),
        "token": secret(store.session_token_env, f"{where}.to.session_token_env")
        if store.session_token_env
        else None,
        "expires_at": None,
    }
    endpoint = store.endpoint or f"https://s3.{store.region}.amazonaws.com"
    bucket = stores.S3Store(
        store.bucket,
        endpoint=endpoint,
        region=store.region,
        checksum_algorithm="SHA256",
        credential_provider=lambda: credentials,
        client_options=_options(endpoint),
        retry_config=PATIENCE,
    )
    return ObstoreObjects(bucket, where, f"bucket {store.bucket}")


def azure_objects(store: Store, where: str) -> "ObstoreObjects":
    """An Azure container, with the account key or a shared access signature."""
    stores = _library(where)
    if store.sas_token_env:
        by = {"sas_key": secret(store.sas_token_env, f"{where}.to.sas_token_env")}
    else:
        by = {"account_key": secret(store.account_key_env, f"{where}.to.account_key_env")}
    endpoint = store.endpoint or f"https://{store.account}.blob.core.windows.net"
    try:
        container = stores.AzureStore(
            store.container,
            account_name=store.account,
            endpoint=endpoint,
            client_options=_options(endpoint),
            retry_config=PATIENCE,
            **by,
        )
    except Exception:  # the library's message repeats the key
        raise PipelineError(f"{where}.to: the key is not one of Azure storage; copy it again") from None
    return ObstoreObjects(container, where, f"container {store.container}")


def _library(where: str) -> Any:  # noqa: ANN401
    try:
        import obstore.store
    except ImportError:
        raise PipelineError(
            f"{where}.to: needs the package obstore; pip install 'profile-pipeline[s3]' or 'profile-pipeline[azure]'"
        ) from None
    return obstore.store


def _options(endpoint: str) -> dict[str, Any]:
    return {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "timeout": timedelta(seconds=ANSWER_SECONDS),
    }


class ObstoreObjects:
    """See Objects."""

    def __init__(self, store: "ObjectStore", where: str, place: str) -> None:
        self._store = store
        self._where = where
        self._place = place

    def put(self, path: Path, name: str, sha256: str) -> None:
        """See Objects."""
        import obstore

        with self._plain():
            obstore.put(self._store, name, path, attributes={HASH: sha256})

    def read(self, name: str) -> bytes | None:
        """See Objects."""
        import obstore

        return self._unless_missing(lambda: bytes(obstore.get(self._store, name).bytes()))

    def sha256_of(self, name: str) -> str | None:
        """See Objects."""
        import obstore

        found = self._unless_missing(
            lambda: obstore.get(self._store, name, options={"head": True}).attributes
        )
        return (found or {}).get(HASH)

    def sizes(self, folder: str) -> dict[str, int]:
        """See Objects."""
        import obstore

        with self._plain():
            return {
                each["path"]: each["size"]
                for chunk in obstore.list(self._store, prefix=folder)
                for each in chunk
            }

    def delete(self, names: Sequence[str]) -> None:
        """See Objects."""
        import obstore

        for name in names:
            self._unless_missing(lambda name=name: obstore.delete(self._store, name))

    def _unless_missing(self, verb: Callable[[], Any]) -> Any:  # noqa: ANN401
        with self._plain():
            try:
                return verb()
            except FileNotFoundError:
                return None

    def _plain(self) -> AbstractContextManager[None]:
        return plainly(self._where, self._place)
