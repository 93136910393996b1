"""Files written aside and moved into place together, so that nobody ever reads half a delivery."""

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq


class Staging:
    """A folder beside the target that collects files until `publish`."""

    def __init__(self, target: Path) -> None:
        """Open the staging folder inside `target`, on the same disk."""
        target.mkdir(parents=True, exist_ok=True)
        self.target = target
        self.folder = Path(tempfile.mkdtemp(prefix=".generating-", dir=target))
        self.texts: dict[str, BinaryIO] = {}
        self.tables: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> Self:
        """Return the staging folder itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind, whatever happened."""
        self.close_files()
        shutil.rmtree(self.folder)

    def write_lines(self, name: str, lines: pa.ChunkedArray, header: str, encoding: str) -> None:
        """Append lines, which carry their line ends; a new file begins with the header."""
        stream = self.texts.get(name)
        if stream is None:
            stream = self.texts[name] = self.path_of(name).open("wb")
            stream.write(header.encode(encoding))
        for chunk in lines.chunks:
            stream.write(encode(text_of(chunk), encoding))

    def write_rows(self, name: str, rows: pa.Table) -> None:
        """Append rows to a Parquet file, one row group a call."""
        if name not in self.tables:
            self.tables[name] = pq.ParquetWriter(self.path_of(name), rows.schema, compression="zstd")
        self.tables[name].write_table(rows)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a whole file."""
        self.path_of(name).write_bytes(content)

    def read_bytes(self, name: str) -> bytes:
        """Read a closed file back."""
        return self.path_of(name).read_bytes()

    def path_of(self, name: str) -> Path:
        """Return where a file of the target is collected."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def close_files(self, prefix: str = "") -> None:
        """Finish the open files whose names begin with `prefix`."""
        for files in (self.texts, self.tables):
            for name in [name for name in files if name.startswith(prefix)]:
                files.pop(name).close()

    def publish(self) -> list[Path]:
        """Move every file into the target, replacing files of the same name, and return them in order."""
        self.close_files()
        staged = sorted(path for path in self.folder.rglob("*") if path.is_file())
        places = [self.target / path.relative_to(self.folder) for path in staged]
        for path, place in zip(staged, places, strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
        return places


def text_of(chunk: pa.StringArray) -> memoryview:
    """Return the texts of an array joined, which is how Arrow keeps them anyway."""
    if len(chunk) == 0:
        return memoryview(b"")
    _, offsets, content = chunk.buffers()
    width = memoryview(offsets).cast("i")
    return memoryview(content)[width[chunk.offset] : width[chunk.offset + len(chunk)]]


def encode(text: memoryview, encoding: str) -> memoryview | bytes:
    """Turn UTF-8 into another encoding."""
    return text if encoding == "utf-8" else bytes(text).decode("utf-8").encode(encoding)
