"""Compressed files: recognised by their first bytes, read as the bytes that were compressed.

Members and frames one after the other are one text. Data that ends early or is damaged is an error,
never a shorter text. Zero bytes behind gzip and bzip2 data are padding, as for their own tools;
behind zstd data they are damage, as for its own.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO, RawIOBase
from typing import Any

import pyarrow as pa

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import CORRUPT_COMPRESSED, TRUNCATED_COMPRESSED

LOOK_BYTES = 256 * 1024
"""Compressed bytes that tell how much smaller they are."""
MOST_PLAIN_BYTES = 16 * 1024 * 1024
"""Most bytes that this look decompresses, about: a text 64 times as large counts as that."""
READ_BYTES = 256 * 1024
"""Compressed bytes that are read at a time."""
GZIP_WINDOW_BITS = 31
"""What tells ``zlib`` that gzip's header and checksum stand around the data."""


@dataclass(frozen=True, slots=True)
class Compression:
    """A way to compress files."""

    name: str
    """The name that people use."""
    suffix: str
    """End of the names of such files, lower case."""
    starts: tuple[bytes, ...]
    """Their first bytes."""
    opened: Callable[[RawIOBase], RawIOBase]
    """Gives the stream of the bytes that were compressed."""

    def is_cut_in_start(self, head: bytes) -> bool:
        """Whether a file that has these bytes alone ends within the first bytes of its kind."""
        return any(start.startswith(head) for start in self.starts) and head not in self.starts


def compression_of(head: bytes) -> Compression | None:
    """The compression of a file that begins with these bytes."""
    return next((kind for kind in COMPRESSIONS if head.startswith(kind.starts)), None)


def compression_named(name: str) -> Compression | None:
    """The compression that a file's name says it has."""
    return next((kind for kind in COMPRESSIONS if name.endswith(kind.suffix)), None)


class Decompressed(RawIOBase):
    """The text of a compressed file, in one pass from its beginning; it has no offsets.

    A read raises ``RejectedInput`` where the compressed data ends too early or is damaged.
    """

    def __init__(self, stream: RawIOBase | BytesIO, compression: Compression) -> None:
        super().__init__()
        self._compression = compression
        self._stored = _Stored(stream)
        self._plain = compression.opened(self._stored)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as a step of the decompression does; 0 at the end."""
        try:
            return int(self._plain.readinto(buffer))
        except (pa.ArrowException, zlib.error, OSError, EOFError) as error:
            if self._stored.fault is not None:
                raise self._stored.fault from error
            if self._stored.has_ended:
                raise cut_off(self._compression) from error
            raise RejectedInput(
                CORRUPT_COMPRESSED,
                f"the {self._compression.name} data is damaged, or something else stands behind it "
                f"({words(error)}); copy the file again",
            ) from error

    @property
    def n_stored(self) -> int:
        """Compressed bytes that were read so far."""
        return self._stored.n_bytes


def cut_off(compression: Compression) -> RejectedInput:
    """The reject of a file whose compressed data ends too early."""
    return RejectedInput(
        TRUNCATED_COMPRESSED, f"the {compression.name} data ends too early; copy the file again"
    )


def stored_share(stream: RawIOBase, compression: Compression) -> float:
    """Compressed bytes per byte of text, by the beginning of a file; the stream moves."""
    plain = Decompressed(BytesIO(stream.read(LOOK_BYTES) or b""), compression)
    n_plain = 0
    try:
        while n_plain < MOST_PLAIN_BYTES and (block := plain.read(1024 * 1024)):
            n_plain += len(block)
    except RejectedInput:  # the end of the look, as a rule
        pass
    return plain.n_stored / n_plain if n_plain else 1.0


class _Stored(RawIOBase):
    """The compressed bytes as a decompressor reads them; remembers whether they ended, and a fault
    of the store, which a decompressor might tell as one of the data."""

    def __init__(self, stream: RawIOBase | BytesIO) -> None:
        super().__init__()
        self._stream = stream
        self.has_ended = False
        self.fault: Exception | None = None
        self.n_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        try:
            n_bytes = self._stream.readinto(buffer) or 0
        except Exception as error:
            self.fault = error
            raise
        self.n_bytes += n_bytes
        self.has_ended = self.has_ended or n_bytes == 0
        return n_bytes


class _Members(RawIOBase):
    """Members of gzip or bzip2 data, one after the other, with zero bytes behind any of them.

    Raises ``EOFError`` where the data ends within a member.
    """

    def __init__(self, stored: RawIOBase, decompressor: Callable[[], Any]) -> None:
        """``decompressor`` makes one for a member, as ``bz2`` and ``zlib`` have them."""
        super().__init__()
        self._stored = stored
        self._decompressor = decompressor
        self._member = decompressor()
        self._waiting = b""  # compressed bytes that were read and not yet decompressed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._member.eof or self._goes_on():
            data = self._member.decompress(self._waiting, len(buffer))
            if self._member.eof:
                self._waiting = self._member.unused_data
            else:  # bz2 keeps by itself what it had no room for
                self._waiting = getattr(self._member, "unconsumed_tail", b"")
            if data:
                buffer[: len(data)] = data
                return len(data)
            if not self._member.eof and not self._more():
                raise EOFError("the data ends within a member")
        return 0

    def _goes_on(self) -> bool:
        """Begin the next member, past padding; False at the end."""
        while not (rest := self._waiting.lstrip(b"\0")):
            if not self._more():
                return False
        self._member, self._waiting = self._decompressor(), rest
        return True

    def _more(self) -> bool:
        self._waiting = self._stored.read(READ_BYTES) or b""
        return bool(self._waiting)


def _zstd_frames(stored: RawIOBase) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(stored, mode="r"), "zstd")


COMPRESSIONS = (
    Compression(
        "gzip",
        ".gz",
        (b"\x1f\x8b",),
        partial(_Members, decompressor=partial(zlib.decompressobj, GZIP_WINDOW_BITS)),
    ),
    Compression(
        "bz2",
        ".bz2",
        tuple(
            b"BZh%d%b" % (level, block)
            for level in range(1, 10)
            for block in (b"1AY&SY", b"\x17rE8P\x90")
        ),
        partial(_Members, decompressor=bz2.BZ2Decompressor),
    ),
    Compression(
        "zstd",
        ".zst",
        (b"\x28\xb5\x2f\xfd", *(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))),
        _zstd_frames,
    ),
)
