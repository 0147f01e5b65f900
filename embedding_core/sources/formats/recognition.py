"""Which format a file is in: by its content where that is certain, else by its name."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase

from embedding_core import reasons
from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.recipe.formats import KNOWN_FORMATS, Format
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.compression import (
    COMPRESSIONS,
    Compression,
    Decompressed,
    compression_named,
    compression_of,
    cut_off,
    stored_share,
)
from embedding_core.sources.formats.format import Fit

HEAD_BYTES = 64 * 1024
"""First bytes of a file that its format is told by."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file as its format reads it."""

    format: Format
    """The format has the options of the recipe."""
    stream: RawIOBase
    """The file from its beginning; of a compressed file the bytes that were compressed."""
    compression: Compression | None
    stored: RawIOBase
    """The file as it is stored; seekable."""

    def spans(self, file: SourceFile, target_bytes: int) -> list[Span]:
        """See ``Format``; a compressed file has none."""
        if self.compression is not None:
            return []
        return list(self.format.spans(self.stream, file, target_bytes))

    def bytes_per_record(self, file: SourceFile) -> float | None:
        """See ``Format``; of a compressed file these are compressed bytes."""
        if self.compression is None:
            return self.format.bytes_per_record(self.stream, file)
        share = stored_share(_rewound(self.stored), self.compression)
        plain = Decompressed(_rewound(self.stored), self.compression)
        larger = replace(file, size_bytes=round(file.size_bytes / share))
        n_bytes = self.format.bytes_per_record(plain, larger)
        return None if n_bytes is None else n_bytes * share


def suffixes() -> tuple[str, ...]:
    """Ends of the names of files that can be read."""
    compressed = ["", *(compression.suffix for compression in COMPRESSIONS)]
    return tuple(
        suffix + end
        for format in KNOWN_FORMATS.working().values()
        for suffix in format.suffixes
        for end in (compressed if format.is_text else compressed[:1])
    )


def readable_names() -> str:
    """The same for a person."""
    formats = dict(KNOWN_FORMATS.working()).values()
    plain = [suffix for format in formats for suffix in format.suffixes]
    ends = ", ".join(compression.suffix for compression in COMPRESSIONS)
    return f"*{', *'.join(plain)}, texts also with {ends} behind"


def recognised(stream: RawIOBase, file: SourceFile, spec: SourceSpec) -> Recognised:
    """A file's format and its stream.

    Content decides about compression and about formats that nothing else looks like (Parquet, PDF).
    Of texts the name decides, unless the content cannot be what it says. Raises ``RejectedInput``
    for a file that no format fits, and for what cannot be read compressed.
    """
    name = file.uri.rpartition("/")[2].lower()
    head = _read_head(stream)
    compression, named_compression = compression_of(head), compression_named(name)
    plain: RawIOBase = Peeked(stream, head)
    if compression is not None:
        decompressed = Decompressed(plain, compression)
        head = _read_head(decompressed)
        plain = Peeked(decompressed, head)
        if compression_of(head) is not None:
            raise RejectedInput(reasons.WRONG_FORMAT, "compressed twice; decompress it once")
    elif named_compression is not None and not head:
        raise RejectedInput(
            reasons.TRUNCATED_COMPRESSED,
            "the file has no bytes, not even a header; write it again or remove it",
        )
    elif named_compression is not None and named_compression.is_cut_in_start(head):
        raise cut_off(named_compression)
    if named_compression is not None:
        name = name.removesuffix(named_compression.suffix)
    formats = _formats(spec)
    format_name = spec.format or _format_name(name, formats, head, plain)
    if format_name is None:
        raise _unknown(name)
    format = formats[format_name]
    if compression is None and named_compression is not None and not _looks(format, head, plain):
        raise RejectedInput(
            reasons.CORRUPT_COMPRESSED,
            f"the name ends with {named_compression.suffix}, the content is no "
            f"{named_compression.name}; write the file again, or give it the name of what it is",
        )
    if compression is not None and not format.is_text:
        raise RejectedInput(
            reasons.WRONG_FORMAT,
            f"{compression.name} around {format_name}, which is read from several places at once; "
            "decompress it",
        )
    return Recognised(format, plain, compression, stream)


class Peeked(RawIOBase):
    """A stream whose first bytes were read before: they come from memory."""

    def __init__(self, stream: RawIOBase, head: bytes) -> None:
        super().__init__()
        self._stream, self._head, self._at = stream, head, 0
        self._stream_at = len(head)
        self._size: int | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Whether the stream below is."""
        return self._stream.seekable()

    def tell(self) -> int:
        """The next byte to be read, 0-based."""
        return self._at

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move to an absolute, relative or from-the-end offset in bytes."""
        if whence == SEEK_END:
            self._at = max(0, self._n_bytes() + offset)
        else:
            self._at = max(0, offset + (self._at if whence == SEEK_CUR else 0))
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes, all the rest for -1; makes room for what the file has."""
        if size < 0:
            return self.readall()
        if self.seekable():
            size = min(size, max(0, self._n_bytes() - self._at))
        first = self._remembered(size)
        if len(first) == size or (first and not self.seekable()):
            return first
        rest = self._at_its_place().read(size - len(first)) or b""
        self._moved_by(len(rest))
        return first + rest if first else rest

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill the buffer; fewer bytes only where the stream gives fewer, or has no offsets."""
        view = memoryview(buffer).cast("B")
        first = self._remembered(len(view))
        view[: len(first)] = first
        if len(first) == len(view) or (first and not self.seekable()):
            return len(first)
        n_bytes = self._at_its_place().readinto(view[len(first) :]) or 0
        self._moved_by(n_bytes)
        return len(first) + n_bytes

    def _remembered(self, size: int) -> bytes:
        """The next bytes, as far as they are in memory; the stream is behind them then."""
        first = self._head[self._at : self._at + size]
        self._at += len(first)
        return first

    def _at_its_place(self) -> RawIOBase:
        """The stream below, where this one is."""
        if self._stream_at != self._at:
            self._stream.seek(self._at)
        return self._stream

    def _moved_by(self, n_bytes: int) -> None:
        self._at += n_bytes
        self._stream_at = self._at

    def _n_bytes(self) -> int:
        if self._size is None:
            self._size = self._stream_at = self._stream.seek(0, SEEK_END)
        return self._size


def _read_head(stream: RawIOBase) -> bytes:
    head = bytearray()
    while len(head) < HEAD_BYTES and (block := stream.read(HEAD_BYTES - len(head))):
        head += block
    return bytes(head)


def _rewound(stream: RawIOBase) -> RawIOBase:
    stream.seek(0)
    return stream


def _formats(spec: SourceSpec) -> dict[str, Format]:
    """Every format by its name, with the options that the recipe has for it."""
    formats = dict(KNOWN_FORMATS.working())
    for name, options in spec.formats.items():
        configured = copy(formats[name])
        configured.options = options  # type: ignore[misc]
        formats[name] = configured
    return formats


def _format_name(
    name: str, formats: dict[str, Format], head: bytes, stream: RawIOBase
) -> str | None:
    """The name of the format that content and name agree on best; None where nothing fits."""
    named = _named(name)
    fits = {key: format.fit(head, stream) for key, format in formats.items()}
    if stream.seekable():
        stream.seek(0)
    certain = [key for key, fit in fits.items() if fit is Fit.CERTAIN]
    if certain:
        return named if named in certain else certain[0]
    if named is not None and fits[named] is not Fit.NONE:
        return named
    likely = (key for key, fit in fits.items() if fit is Fit.LIKELY)
    return next(likely, named)


def _named(name: str) -> str | None:
    """The format with the longest suffix that a file's name ends with; of two the first."""
    endings = [
        (len(suffix), key)
        for key, format in KNOWN_FORMATS.working().items()
        for suffix in format.suffixes
        if name.endswith(suffix)
    ]
    return max(endings, key=lambda ending: ending[0])[1] if endings else None


def _looks(format: Format, head: bytes, stream: RawIOBase) -> bool:
    return format.fit(head, stream) in (Fit.LIKELY, Fit.CERTAIN)


def _unknown(name: str) -> RejectedInput:
    advice = "; ".join(
        ["change source.include, or name the format in source.format", *KNOWN_FORMATS.problems()]
    )
    return RejectedInput(
        reasons.UNKNOWN_FORMAT,
        f"{name!r} has the content of no format that can be told by it, and its name ends with "
        f"none of {readable_names()}; {advice}",
    )
