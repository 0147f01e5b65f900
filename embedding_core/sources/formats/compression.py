"""Compressed files: recognised by their first bytes, read as the bytes that were compressed.

Arrow decompresses, for all three kinds alike: members and frames one after the other are one text,
and data that ends early or is damaged is an error, never a shorter text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import RawIOBase

import pyarrow as pa

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import CORRUPT_COMPRESSED, TRUNCATED_COMPRESSED

LOOK_BYTES = 256 * 1024
"""Compressed bytes that tell how much smaller they are."""
MOST_PLAIN_BYTES = 16 * 1024 * 1024
"""Most bytes that this look decompresses."""


@dataclass(frozen=True, slots=True)
class Compression:
    """A way to compress files."""

    name: str
    """The name that Arrow and people use."""
    suffix: str
    """End of the names of such files, lower case."""
    start: re.Pattern[bytes]
    """Their first bytes."""


COMPRESSIONS = (
    Compression("gzip", ".gz", re.compile(rb"\x1f\x8b")),
    Compression("bz2", ".bz2", re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")),
    Compression("zstd", ".zst", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")),
)


def compression_of(head: bytes) -> Compression | None:
    """The compression of a file that begins with these bytes."""
    return next((kind for kind in COMPRESSIONS if kind.start.match(head)), None)


def compression_named(name: str) -> Compression | None:
    """The compression that a file's name says it has."""
    return next((kind for kind in COMPRESSIONS if name.endswith(kind.suffix)), None)


class Decompressed(RawIOBase):
    """The text of a compressed file, in one pass from its beginning; it has no offsets.

    A read raises ``RejectedInput`` where the compressed data ends too early or is damaged.
    """

    def __init__(self, stream: RawIOBase, compression: Compression) -> None:
        super().__init__()
        self._compression = compression
        self._stored = _Stored(stream)
        self._plain = _plain(self._stored, compression)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as a step of the decompression does; 0 at the end."""
        try:
            return int(self._plain.readinto(buffer))
        except (pa.ArrowException, OSError) as error:
            if self._stored.fault is not None:
                raise self._stored.fault from error
            if self._stored.has_ended:
                raise RejectedInput(
                    TRUNCATED_COMPRESSED,
                    f"the {self._compression.name} data ends too early; copy the file again",
                ) from error
            raise RejectedInput(CORRUPT_COMPRESSED, words(error)) from error


def stored_share(stream: RawIOBase, compression: Compression) -> float:
    """Compressed bytes per byte of text, by the beginning of a file; the stream moves."""
    stored = pa.BufferReader(stream.read(LOOK_BYTES) or b"")
    plain, n_plain = _plain(stored, compression), 0
    try:
        while n_plain < MOST_PLAIN_BYTES and (block := plain.read(1024 * 1024)):
            n_plain += len(block)
    except (pa.ArrowException, OSError):  # the end of the look, as a rule
        pass
    return stored.tell() / n_plain if n_plain else 1.0


class _Stored(RawIOBase):
    """The compressed bytes as Arrow reads them; remembers whether they ended, and a fault of the
    store, which Arrow might tell as one of the data."""

    def __init__(self, stream: RawIOBase) -> None:
        super().__init__()
        self._stream = stream
        self.has_ended = False
        self.fault: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            n_bytes = self._stream.readinto(buffer) or 0
        except Exception as error:
            self.fault = error
            raise
        self.has_ended = self.has_ended or n_bytes == 0
        return n_bytes


def _plain(stored: object, compression: Compression) -> pa.NativeFile:
    source = stored if isinstance(stored, pa.NativeFile) else pa.PythonFile(stored, mode="r")
    return pa.CompressedInputStream(source, compression.name)
