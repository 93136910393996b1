"""Deliveries into a bucket: files first, then the manifest, `_SUCCESS` last; what is there with the right hash stays.

A store is a few verbs over names (`Objects`). Errors of the libraries behind them can hold addresses, keys and
names of files, so only their kind gets out.
"""

import hashlib
import re
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from profile_pipeline.config.stores import Store
from profile_pipeline.errors import PipelineError
from profile_pipeline.sharing.files import File
from profile_pipeline.sharing.manifest import MANIFEST, SUCCESS
from profile_pipeline.sharing.sinks import fresh_folder

BACKOFF_SECONDS = 0.5
"""Wait before the second attempt; twice as long before each further one."""
REFUSED = frozenset(
    (
        "PermissionDeniedError",
        "UnauthenticatedError",
        "Unauthorized",
        "Forbidden",
        "RefreshError",
        "InvalidOperation",
    )
)
MISSING = frozenset(("NotFoundError", "FileNotFoundError", "NotFound"))
"""Kinds of errors of the libraries that trying again does not mend."""
Answer = TypeVar("Answer")


class StoreError(PipelineError):
    """A store did not do what it was asked. `lasting`: trying again will not help."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        self.lasting = lasting
        super().__init__(message)


class Objects(Protocol):
    """A bucket. Every verb raises StoreError, without anything that the library behind it said."""

    def put(self, path: Path, name: str, sha256: str) -> None:
        """Store a file whole or not at all, with its hash as metadata."""
        ...

    def read(self, name: str) -> bytes | None:
        """The content of a small object, None where there is none."""
        ...

    def sha256_of(self, name: str) -> str | None:
        """The hash that an object was stored with, None where there is no object or hash."""
        ...

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each object below a folder, by its full name."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; those that are not there are no mistake."""
        ...


@contextmanager
def plainly(where: str, place: str) -> Generator[None]:
    """Let errors of a library out by their kind only: its messages hold addresses, keys and names."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        raise _error(where, place, type(error).__name__, str(error)) from None


def _error(where: str, place: str, kind: str, message: str) -> StoreError:
    # what the library has no kind of its own for, it tells by the status of the answer
    if kind in REFUSED or re.search(r"\b(401|403)\b", message):
        why = f"{place} refuses the credentials ({kind}); check the variables that `to:` names, and their rights"
        return StoreError(f"{where}: {why}", lasting=True)
    if kind in MISSING or re.search(r"\b404\b", message):
        return StoreError(f"{where}: there is no {place}; create it", lasting=True)
    return StoreError(f"{where}: {place} cannot be reached or fails ({kind}); run again later", lasting=False)


def objects_of(store: Store, where: str) -> Objects:
    """The bucket of a destination. Raises PipelineError where its library or a secret is missing."""
    if store.type == "gcs":
        from profile_pipeline.sharing.google import google_objects

        return google_objects(store, where)
    from profile_pipeline.sharing.obstores import azure_objects, s3_objects

    return s3_objects(store, where) if store.type == "s3" else azure_objects(store, where)


class ObjectSink:
    """See Sink. `attempts` are made for each verb that fails for a reason that may pass."""

    def __init__(self, objects: Objects, building: Path, prefix: str, attempts: int) -> None:
        self._objects = objects
        self._building = building
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._attempts = attempts

    def building(self, shipment: str) -> Path:
        """See Sink."""
        return fresh_folder(self._building / shipment)

    def arrived(self, folder: str) -> str | None:
        """See Sink."""
        if self._patiently(lambda: self._objects.read(self._name(folder, SUCCESS))) is None:
            return None
        content = self._patiently(lambda: self._objects.read(self._name(folder, MANIFEST)))
        return hashlib.sha256(content).hexdigest() if content is not None else None

    def deliver(self, building: Path, folder: str, files: Sequence[File]) -> int:
        """See Sink. Files that are there with the right hash and size are not sent again."""
        there = self._sizes(folder)
        self._delete([name for name in there if name.endswith(f"/{SUCCESS}")])
        missing = [file for file in files if not self._is_there(there, folder, file)]
        for file in missing:
            self._put(building / file.name, self._name(folder, file.name), file.sha256)
        wanted = {self._name(folder, file.name): file.bytes for file in files}
        self._delete([name for name in there if name not in wanted])
        self._check(folder, wanted)
        for name in (MANIFEST, SUCCESS):
            path = building / name
            path.touch()
            self._put(path, self._name(folder, name), hashlib.sha256(path.read_bytes()).hexdigest())
        return len(missing)

    def clear(self, folder: str) -> None:
        """See Sink."""
        self._delete(list(self._sizes(folder)))

    def _is_there(self, there: dict[str, int], folder: str, file: File) -> bool:
        name = self._name(folder, file.name)
        known = there.get(name) == file.bytes
        return known and self._patiently(lambda: self._objects.sha256_of(name)) == file.sha256

    def _check(self, folder: str, wanted: dict[str, int]) -> None:
        there = self._sizes(folder)
        if any(there.get(name) != size for name, size in wanted.items()):
            raise StoreError("the store shows other sizes than were sent; run again", lasting=False)

    def _name(self, folder: str, name: str) -> str:
        return f"{self._prefix}{folder}/{name}"

    def _sizes(self, folder: str) -> dict[str, int]:
        return self._patiently(lambda: self._objects.sizes(f"{self._prefix}{folder}"))

    def _delete(self, names: Sequence[str]) -> None:
        if names:
            self._patiently(lambda: self._objects.delete(names))

    def _put(self, path: Path, name: str, sha256: str) -> None:
        self._patiently(lambda: self._objects.put(path, name, sha256))

    def _patiently(self, verb: Callable[[], Answer]) -> Answer:
        """Do it, and again after a pause where that may help."""
        for attempt in range(self._attempts - 1):
            try:
                return verb()
            except StoreError as error:
                if error.lasting:
                    raise
                time.sleep(BACKOFF_SECONDS * 2**attempt)
        return verb()
