"""Bytes of a delivered file as text lines: hashed, decompressed under a cap, decoded as declared."""

import codecs
import gzip
import hashlib
import io
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from profile_pipeline.config.sources import FileFormat
from profile_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 1 << 20
MARKS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
"""Byte order marks by encoding; that of UTF-32 begins with that of UTF-16."""


class FileRefused(PipelineError):  # noqa: N818  a state of the ledger, named by its word
    """A file cannot be read as declared; the reason says what to change."""


class Decompressing(Protocol):
    """What gzip and zstd streams have in common."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


class HashedFile(io.RawIOBase):
    """A file that hashes the bytes it hands out, so that what was read is what the ledger names."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill the buffer from the file."""
        view = memoryview(buffer)
        data = self._file.read(len(view))
        self._digest.update(data)
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def hexdigest(self) -> str:
        """SHA-256 of the whole file; reads what a reader left unread."""
        while chunk := self._file.read(CHUNK):
            self._digest.update(chunk)
        return self._digest.hexdigest()


class Capped(io.RawIOBase):
    """A decompressed stream that refuses to grow beyond a size or a ratio."""

    def __init__(self, stream: "Decompressing", compressed_bytes: int, rule: FileFormat) -> None:
        self._stream = stream
        self._limit = min(rule.max_decompressed_bytes, max(compressed_bytes, 10_000) * rule.max_ratio)
        self._seen = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill the buffer; raises FileRefused once the cap is passed."""
        view = memoryview(buffer)
        try:
            data = self._stream.read(len(view))
        except (OSError, EOFError, ValueError, zlib.error):  # what gzip and zstd raise for damaged bytes
            raise FileRefused("is damaged: it cannot be decompressed; deliver it again") from None
        self._seen += len(data)
        if self._seen > self._limit:
            raise FileRefused(
                f"decompresses to more than {self._limit:,} bytes; raise max_decompressed_bytes or max_ratio"
                " if this is expected"
            )
        view[: len(data)] = data
        return len(data)


@contextmanager
def verified(path: Path, sha256: str) -> Generator[HashedFile]:
    """The bytes of a delivered file; raises FileRefused when they are not those the ledger hashed."""
    check_sidecar(path, sha256)
    with HashedFile(path) as file:
        yield file
        if file.hexdigest() != sha256:
            raise FileRefused("changed while it was read; deliver files under a temporary name, then rename")


def check_sidecar(path: Path, sha256: str) -> None:
    """A `<file>.sha256` beside a delivery, as sha256sum writes it, must agree with the bytes."""
    sidecar = path.with_name(path.name + ".sha256")
    if sidecar.exists() and sidecar.read_text(encoding="utf-8").split()[:1] != [sha256]:
        raise FileRefused(f"does not match {sidecar.name}: damaged on the way; deliver it again")


def decompressed(file: HashedFile, path: Path, rule: FileFormat) -> io.BufferedReader:
    """The stream behind .gz and .zst names, capped; any other name as it is."""
    size = path.stat().st_size
    if path.suffix == ".gz":
        inner: Decompressing = gzip.GzipFile(fileobj=io.BufferedReader(file, CHUNK))
    elif path.suffix in {".zst", ".zstd"}:
        import pyarrow as pa

        inner = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
    else:
        return io.BufferedReader(file, CHUNK)
    return io.BufferedReader(Capped(inner, size, rule), CHUNK)


def text_lines(stream: io.BufferedReader, rule: FileFormat, newline: str) -> io.TextIOWrapper:
    """The stream as text; bytes that do not fit the encoding become lone surrogates, seen by `is_text`."""
    encoding = known_encoding(rule.encoding)
    head = stream.peek(4)[:4]
    marked = next((name for name, marks in MARKS.items() if head.startswith(marks)), None)
    if marked and not encoding.startswith(marked):
        raise FileRefused(
            f"is {marked.upper()}, not {rule.encoding}; set `encoding: {marked}` for the source"
        )
    errors = "strict" if encoding.startswith(tuple(MARKS)) else "surrogateescape"
    # surrogateescape lets one bad byte spoil its line only; the wide encodings lose their step instead
    return io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline=newline)


def known_encoding(name: str) -> str:
    """The codec of an encoding's name; raises FileRefused for one that is unknown or gives no text."""
    try:
        "".encode(name)
        found = codecs.lookup(name).name
    except (LookupError, UnicodeError):
        raise FileRefused(f"encoding {name} is unknown; use a name such as windows-1252") from None
    return "utf-8-sig" if found == "utf-8" else found


def is_text(line: str) -> bool:
    """Whether every byte of the line fitted the declared encoding."""
    if line.isascii():
        return True
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
