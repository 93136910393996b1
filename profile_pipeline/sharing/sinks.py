"""The way into a store. Nobody sees half a delivery: a folder appears at once, a bucket gets `_SUCCESS` last."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from profile_pipeline.config.project import Project
from profile_pipeline.config.sharing import Destination
from profile_pipeline.errors import PipelineError
from profile_pipeline.raw.ledger import sha256_of
from profile_pipeline.sharing.files import File
from profile_pipeline.sharing.manifest import MANIFEST, SUCCESS


class Sink(Protocol):
    """Where deliveries of one destination go."""

    def building(self, shipment: str) -> Path:
        """An empty private folder for the files of a delivery that is being made."""
        ...

    def arrived(self, folder: str) -> str | None:
        """SHA-256 of the manifest of the complete delivery in a folder; None where there is none."""
        ...

    def deliver(self, building: Path, folder: str, files: Sequence[File]) -> int:
        """Bring files and manifest into a folder, `_SUCCESS` last; how many files were not there before."""
        ...

    def clear(self, folder: str) -> None:
        """Remove a delivery that is not to be seen."""
        ...


def sink_of(project: Project, name: str, destination: Destination) -> Sink:
    """The way into the store of a destination. Raises PipelineError where a secret or a library is missing."""
    store = destination.to
    if store.type == "local":
        return LocalSink(project.data / Path(store.folder or "."))
    from profile_pipeline.sharing.objects import ObjectSink, objects_of

    where = f"sharing.yaml: destinations.{name}"
    building = project.state / "sharing" / name
    return ObjectSink(objects_of(store, where), building, store.prefix, destination.attempts)


class LocalSink:
    """A folder. A delivery is built in a hidden folder beside and takes its place by a rename."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def building(self, shipment: str) -> Path:
        """See Sink."""
        folder = self._root / f".building-{shipment}"
        return fresh_folder(folder)

    def arrived(self, folder: str) -> str | None:
        """See Sink."""
        target = self._root / folder
        return sha256_of(target / MANIFEST) if (target / SUCCESS).exists() else None

    def deliver(self, building: Path, folder: str, files: Sequence[File]) -> int:
        """See Sink."""
        (building / SUCCESS).touch(mode=0o600)
        for path in [*building.iterdir(), building]:
            _sync(path)
        target = self._root / folder
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        old = self._root / f".old-{building.name}"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            if not (target / MANIFEST).exists():
                raise PipelineError(
                    f"{target}: holds files that no delivery brought; empty it or choose another folder"
                )
            target.rename(old)
        building.rename(target)
        _sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)
        return len(files)

    def clear(self, folder: str) -> None:
        """See Sink. What was not finished is in the hidden folder, which the next delivery empties."""


def fresh_folder(folder: Path) -> Path:
    """An empty folder that only its owner can read."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    return folder


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
