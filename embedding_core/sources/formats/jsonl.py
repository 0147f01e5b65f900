"""JSON lines: one object per line, UTF-8.

The parser's limits (nesting, digits) become rejects of one line. Blank lines are no records but
count as positions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from io import BufferedReader, RawIOBase
from typing import IO

from embedding_core.errors import RejectedInput, words
from embedding_core.plurals import counted
from embedding_core.reasons import (
    INVALID_UTF8,
    LINE_TOO_LONG,
    MALFORMED_JSON,
    NOT_AN_OBJECT,
    TOO_DEEP,
    TOO_MANY_VALUES,
)
from embedding_core.recipe.formats import Format
from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import (
    Fields,
    Fit,
    Flaw,
    Record,
    Rows,
    TextFormat,
    type_name,
)
from embedding_core.sources.formats.strict_json import (
    STRICT,
    TOLERANT,
    check_width,
    may_be_cut_off,
    objects_of,
)
from embedding_core.sources.formats.waste import Waste

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longest line that is parsed; a longer one is skipped piece by piece, never held in memory."""

SKIP_BYTES = 1024 * 1024
"""Bytes read at a time while skipping an overlong line."""

BATCH_LINES = 64
"""Lines that are parsed together, where they are not long."""
BATCH_BYTES = 256 * 1024
"""Bytes from which on lines are not put together."""
BUFFER_BYTES = 1024 * 1024
"""Read-ahead: large enough for few requests to a store, small beside the longest line."""

UTF8_BOM = b"\xef\xbb\xbf"

ARRAY_OF_OBJECTS = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{")
SPACE = re.compile(r"[ \t\r\n]*")
LONG_OBJECT = re.compile(rb'\{\s*"[^"]*"\s*:')
LONG_LINE_BYTES = 32 * 1024
"""A first line without an end is one of JSON lines from this length on."""
LOOK_BYTES = 1024 * 1024
"""Bytes at a file's beginning that tell how many a record takes."""
READ_BYTES = 4 * 1024 * 1024
"""Bytes searched for line ends at a time."""


_Line = tuple[int, bytes]
"""A line and its position, 0-based."""


class JsonLines(TextFormat):
    """JSON lines. Spans are bytes from the beginning of a line to an end of one."""

    suffixes = (".jsonl", ".ndjson")

    def fit(self, head: bytes, stream: RawIOBase) -> Fit:
        """See ``Format``: the first line is an object, or the beginning of a long one. Objects that
        share a line, or go over several, are no JSON lines."""
        if ARRAY_OF_OBJECTS.match(head) or not _is_an_object_a_line(head):
            return Fit.NONE
        first, _, rest = head.removeprefix(UTF8_BOM).lstrip().partition(b"\n")
        is_object = first.startswith(b"{") and isinstance(_record(0, first), Record)
        is_cut_off = not rest and len(head) >= LONG_LINE_BYTES and LONG_OBJECT.match(first)
        return Fit.LIKELY if is_object or is_cut_off else Fit.POSSIBLE

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """See ``Format``."""
        for line in _lines(stream, span):
            yield line if isinstance(line, Flaw) else _record(*line)

    def rows(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Rows | Record | Flaw]:
        """See ``ReadsRows``: some lines at a time, where they hold what is usual."""
        paths = [FieldPath.parse(field) for field in fields.all]
        if not all(path.is_name for path in paths):
            yield from self.records(stream, file, fields, span)
            return
        names = {path.root for path in paths}
        for batch in _batches(_lines(stream, span)):
            if isinstance(batch, Flaw):
                yield batch
            elif (objects := objects_of([line for _, line in batch])) is None:
                yield from (_record(*line) for line in batch)
            else:
                columns = {name: [values.get(name) for values in objects] for name in names}
                yield Rows(batch[0][0], columns, len(batch), objects)

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """See ``Format``. Reads the whole file, to count its lines."""
        start = first = at = lines = 0
        while block := stream.read(READ_BYTES):
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
        text = BufferedReader(stream, LOOK_BYTES).read(LOOK_BYTES)
        n_lines = text.count(b"\n")
        return len(text) / n_lines if n_lines else None


JSON_LINES: Format = JsonLines()


def _line_end(block: bytes, begin: int) -> int:
    """Offset after the first line end at or after ``begin``; 0 without a line end."""
    return block.find(b"\n", begin) + 1


def _is_an_object_a_line(head: bytes) -> bool:
    """Whether no line end is within an object and there is one between any two, as far as the
    objects at the beginning of a file can be parsed."""
    text = head.removeprefix(UTF8_BOM).decode("utf-8", "surrogateescape")
    at = 0
    while text.startswith("{", start := _after_space(text, at)):
        if at and "\n" not in text[at:start]:
            return False
        try:
            _, at = TOLERANT.raw_decode(text, start)
        except json.JSONDecodeError as error:
            is_cut_off = len(head) >= LONG_LINE_BYTES and may_be_cut_off(text, error.pos)
            return not (is_cut_off and "\n" in text[start:])
        except RecursionError:
            return True
        if "\n" in text[start:at]:
            return False
    return True


def _after_space(text: str, at: int) -> int:
    match = SPACE.match(text, at)
    return match.end() if match is not None else at


def _lines(stream: RawIOBase, span: Span | None) -> Iterator[_Line | Flaw]:
    """The lines of a file or span that are not blank."""
    if span is not None:
        stream.seek(span.start)
    with BufferedReader(stream, BUFFER_BYTES) as lines:
        if span is None:
            yield from _numbered(lines, 0, None)
        else:
            yield from _numbered(lines, span.first_position, span.end)


def _batches(lines: Iterator[_Line | Flaw]) -> Iterator[list[_Line] | Flaw]:
    """The lines, those that follow each other together."""
    batch: list[_Line] = []
    n_bytes = 0
    for line in lines:
        is_next = not isinstance(line, Flaw) and (not batch or line[0] == batch[-1][0] + 1)
        if batch and (not is_next or len(batch) == BATCH_LINES or n_bytes > BATCH_BYTES):
            yield batch
            batch, n_bytes = [], 0
        if isinstance(line, Flaw):
            yield line
        else:
            batch.append(line)
            n_bytes += len(line[1])
    if batch:
        yield batch


def _numbered(
    lines: IO[bytes] | BufferedReader, first_position: int, end: int | None
) -> Iterator[_Line | Flaw]:
    """The lines from here on, up to the byte ``end``, where a line begins."""
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
            yield position, line


def _advice(line: bytes) -> str:
    """What to do about a line that may be a part of an object that is written over several."""
    is_part = line.strip() in (b"{", b"}", b"},") or line[:1].isspace()
    return "; if objects go over several lines, set source.format to json" if is_part else ""


def _skip_line(lines: IO[bytes] | BufferedReader, piece: bytes, waste: Waste) -> str:
    n_bytes = len(piece)
    waste.waste(n_bytes=n_bytes)
    while piece and not piece.endswith(b"\n"):
        piece = lines.readline(SKIP_BYTES)
        n_bytes += len(piece)
        waste.waste(0, len(piece))
    return (
        f"the line has {counted(n_bytes, 'byte')}, the limit is {MAX_LINE_BYTES:,}; "
        "split the record"
    )


def _record(position: int, line: bytes) -> Record | Flaw:
    try:
        text = line.decode()
        check_width(text)
        value = STRICT.decode(text)
    except RejectedInput as error:
        return Flaw(position, TOO_MANY_VALUES, error.detail)
    except UnicodeDecodeError as error:
        detail = f"byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8"
        return Flaw(position, INVALID_UTF8, detail)
    except json.JSONDecodeError as error:
        return Flaw(position, MALFORMED_JSON, f"{error.msg} at column {error.colno}{_advice(line)}")
    except RecursionError:
        return Flaw(position, TOO_DEEP, "objects or lists are nested too deep to be parsed")
    except ValueError as error:
        return Flaw(position, MALFORMED_JSON, words(error))
    if not isinstance(value, dict):
        return Flaw(position, NOT_AN_OBJECT, f"expected an object, got {type_name(value)}")
    return Record(position, value)
