"""JSON lines, plain or gzip: one object per line, UTF-8.

Python's parser is made strict where it is lenient (NaN, repeated keys) and its limits (nesting,
digits) become rejects of one line. Blank lines are no records but count as positions.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from io import BufferedReader, RawIOBase
from typing import IO, NoReturn, cast

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import (
    CORRUPT_GZIP,
    INVALID_UTF8,
    LINE_TOO_LONG,
    MALFORMED_JSON,
    NOT_AN_OBJECT,
    TOO_DEEP,
    TRUNCATED_GZIP,
    WRONG_FORMAT,
)
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import Fields, Flaw, Format, Record, shown, type_name
from embedding_core.sources.formats.waste import Waste

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longest line that is parsed; a longer one is skipped piece by piece, never held in memory."""

SKIP_BYTES = 1024 * 1024
"""Bytes read at a time while skipping an overlong line."""

BUFFER_BYTES = 1024 * 1024
"""Read-ahead: large enough for few requests to a store, small beside the longest line."""

UTF8_BOM = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"


LOOK_BYTES = 1024 * 1024
"""Bytes at a file's beginning that tell how many a record takes."""
MOST_TEXT_BYTES = 16 * 1024 * 1024
"""Most bytes that a look decompresses."""
GZIP_WINDOW = 31
"""zlib's word for the largest window, in a gzip header."""
READ_BYTES = 4 * 1024 * 1024
"""Bytes searched for line ends at a time."""


class JsonLines:
    """Uncompressed JSON lines. Spans are bytes from the beginning of a line to an end of one."""

    suffixes = (".jsonl", ".ndjson")

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """See ``Format``."""
        if span is not None:
            stream.seek(span.start)
            with BufferedReader(stream, BUFFER_BYTES) as buffered:
                yield from _records(buffered, span.first_position, span.end)
            return
        with BufferedReader(stream, BUFFER_BYTES) as buffered:
            head = buffered.peek(4)
            if head.startswith(GZIP_MAGIC):
                raise RejectedInput(WRONG_FORMAT, "gzip data without .gz at the end of the name")
            if head.startswith(PARQUET_MAGIC):
                raise RejectedInput(WRONG_FORMAT, "Parquet data in a file named as JSON lines")
            yield from _records(buffered)

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """See ``Format``. Reads the whole file, to count its lines."""
        start = first = at = lines = 0
        while block := stream.read(READ_BYTES):
            if at == 0 and block.startswith((GZIP_MAGIC, PARQUET_MAGIC)):
                return  # not what its name says
            searched = 0
            while (end := _line_end(block, max(searched, start + target_bytes - at - 1))) > 0:
                lines += block.count(b"\n", searched, end)
                yield Span(start, at + end, first)
                start, first, searched = at + end, lines, end
            lines += block.count(b"\n", searched)
            at += len(block)
        if start < at:
            yield Span(start, at, first)

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``."""
        stored = stream.read(LOOK_BYTES) or b""
        return _per_line(stored, len(stored))


class GzipJsonLines:
    """A gzip file of one or more members, decompressed as it streams, so that it has no spans."""

    suffixes = (".jsonl.gz", ".ndjson.gz")

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """See ``Format``."""
        if file.size_bytes == 0:
            raise RejectedInput(
                TRUNCATED_GZIP,
                "the file has no bytes, not even a header; write it again or remove it",
            )
        try:
            with BufferedReader(stream, BUFFER_BYTES) as buffered, gzip.open(buffered) as lines:
                yield from _records(cast("IO[bytes]", lines))
        except EOFError as error:
            raise RejectedInput(TRUNCATED_GZIP, "the gzip data ends too early") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise RejectedInput(CORRUPT_GZIP, words(error)) from error

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """See ``Format``."""
        return iter(())

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``; the bytes are compressed ones."""
        stored = stream.read(LOOK_BYTES) or b""
        member = zlib.decompressobj(GZIP_WINDOW)
        try:
            text = member.decompress(stored, MOST_TEXT_BYTES)
        except zlib.error as error:
            raise RejectedInput(CORRUPT_GZIP, words(error)) from error
        return _per_line(text, len(stored) - len(member.unconsumed_tail) - len(member.unused_data))


JSON_LINES: Format = JsonLines()
GZIP_JSON_LINES: Format = GzipJsonLines()


def _line_end(block: bytes, begin: int) -> int:
    """Offset after the first line end at or after ``begin``; 0 without a line end."""
    return block.find(b"\n", begin) + 1


def _per_line(text: bytes, n_bytes: int) -> float | None:
    n_lines = text.count(b"\n")
    return n_bytes / n_lines if n_lines else None


def _records(
    lines: IO[bytes] | BufferedReader, first_position: int = 0, end: int | None = None
) -> Iterator[Record | Flaw]:
    """Records of the lines from here on, up to the byte ``end``, where a line begins."""
    position = first_position - 1
    waste = Waste("blank or overlong lines")
    while (end is None or lines.tell() < end) and (line := lines.readline(MAX_LINE_BYTES + 1)):
        position += 1
        if len(line) > MAX_LINE_BYTES:
            yield Flaw(position, LINE_TOO_LONG, _skip_line(lines, line, waste))
            continue
        if position == 0:
            line = line.removeprefix(UTF8_BOM)
        if line.isspace() or not line:
            waste.waste(n_bytes=len(line))
        else:
            waste.use(len(line))
            yield _record(position, line)


def _skip_line(lines: IO[bytes] | BufferedReader, piece: bytes, waste: Waste) -> str:
    n_bytes = len(piece)
    waste.waste(n_bytes=n_bytes)
    while piece and not piece.endswith(b"\n"):
        piece = lines.readline(SKIP_BYTES)
        n_bytes += len(piece)
        waste.waste(0, len(piece))
    return f"the line has {n_bytes} bytes, the limit is {MAX_LINE_BYTES}; split the record"


def _record(position: int, line: bytes) -> Record | Flaw:
    try:
        value = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        detail = f"byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8"
        return Flaw(position, INVALID_UTF8, detail)
    except json.JSONDecodeError as error:
        return Flaw(position, MALFORMED_JSON, f"{error.msg} at column {error.colno}")
    except RecursionError:
        return Flaw(position, TOO_DEEP, "objects or lists are nested too deep to be parsed")
    except ValueError as error:
        return Flaw(position, MALFORMED_JSON, words(error))
    if not isinstance(value, dict):
        return Flaw(position, NOT_AN_OBJECT, f"expected an object, got {type_name(value)}")
    return Record(position, value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"key {shown(name)} twice in one object")
        seen.add(name)
    return record


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_unique_keys)
