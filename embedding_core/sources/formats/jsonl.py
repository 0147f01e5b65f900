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
from embedding_core.records import Slice, SourceFile
from embedding_core.sources.formats.format import Fields, Flaw, Record, shown, type_name
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


def read_json_lines(stream: RawIOBase, file: SourceFile, fields: Fields) -> Iterator[Record | Flaw]:
    """Records of an uncompressed JSON lines file."""
    with BufferedReader(stream, BUFFER_BYTES) as buffered:
        head = buffered.peek(4)
        if head.startswith(GZIP_MAGIC):
            raise RejectedInput("wrong_format", "gzip data without .gz at the end of the name")
        if head.startswith(PARQUET_MAGIC):
            raise RejectedInput("wrong_format", "Parquet data in a file named as JSON lines")
        yield from _records(buffered)


def read_json_lines_slice(
    stream: RawIOBase, file: SourceFile, fields: Fields, part: Slice
) -> Iterator[Record | Flaw]:
    """Records of the lines that begin in the slice's bytes."""
    stream.seek(part.start)
    with BufferedReader(stream, BUFFER_BYTES) as buffered:
        yield from _records(buffered, part.first_position, part.end)


def read_gzip_json_lines(
    stream: RawIOBase, file: SourceFile, fields: Fields
) -> Iterator[Record | Flaw]:
    """Records of a gzip file of one or more members, decompressed as it streams."""
    if file.size_bytes == 0:
        raise RejectedInput(
            "truncated_gzip",
            "the file has no bytes, not even a header; write it again or remove it",
        )
    try:
        with BufferedReader(stream, BUFFER_BYTES) as buffered, gzip.open(buffered) as lines:
            yield from _records(cast("IO[bytes]", lines))
    except EOFError as error:
        raise RejectedInput("truncated_gzip", "the gzip data ends too early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise RejectedInput("corrupt_gzip", words(error)) from error


def _records(
    lines: IO[bytes] | BufferedReader, first_position: int = 0, end: int | None = None
) -> Iterator[Record | Flaw]:
    """Records of the lines from here on, up to the byte ``end``, where a line begins."""
    position = first_position - 1
    waste = Waste("blank or overlong lines")
    while (end is None or lines.tell() < end) and (line := lines.readline(MAX_LINE_BYTES + 1)):
        position += 1
        if len(line) > MAX_LINE_BYTES:
            yield Flaw(position, "line_too_long", _skip_line(lines, line, waste))
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
        return Flaw(position, "invalid_utf8", detail)
    except json.JSONDecodeError as error:
        return Flaw(position, "malformed_json", f"{error.msg} at column {error.colno}")
    except RecursionError:
        return Flaw(position, "too_deep", "objects or lists are nested too deep to be parsed")
    except ValueError as error:
        return Flaw(position, "malformed_json", words(error))
    if not isinstance(value, dict):
        return Flaw(position, "not_an_object", f"expected an object, got {type_name(value)}")
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
