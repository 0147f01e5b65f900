"""JSON that is no JSON lines: a list of objects, at the top or inside, or objects in a row.

Values are parsed from a window that slides over the text, so that memory is bounded by the longest
of them. An object that breaks a rule costs itself; where brackets or quotes are wrong nobody can
say where the next one begins, and the file is rejected as a whole.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from io import BytesIO, RawIOBase

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import (
    INVALID_UTF8,
    MALFORMED_JSON,
    MISSING_FIELD,
    NOT_AN_OBJECT,
    TEXT_TOO_LONG,
    TOO_DEEP,
)
from embedding_core.recipe.formats import Format, FormatOptions
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import (
    Fields,
    Fit,
    Flaw,
    Record,
    TextFormat,
    shown,
    type_name,
)
from embedding_core.sources.formats.jsonl import ARRAY_OF_OBJECTS, JSON_LINES, UTF8_BOM
from embedding_core.sources.formats.strict_json import (
    STRICT,
    TOLERANT,
    check_width,
    may_be_cut_off,
)
from embedding_core.sources.formats.waste import Waste

READ_BYTES = 1024 * 1024
"""Bytes read at a time."""
MOST_CHARACTERS = 64 * 1024 * 1024
"""Longest value that is parsed, in characters."""
LOOK_BYTES = 256 * 1024
"""Bytes at a file's beginning that tell how many a record takes."""
NO_SPACE = re.compile(r"[^ \t\r\n]")


class JsonOptions(FormatOptions):
    """How JSON files are read."""

    items: str | None = None
    """Path of the list of records, names with dots between: ``data.rows``; default: the file is
    the list, or objects one after the other."""


class JsonList(TextFormat):
    """JSON lists; a record's position is its number in the list."""

    suffixes = (".json",)
    options: JsonOptions = JsonOptions()

    def fit(self, head: bytes, stream: RawIOBase) -> Fit:
        """See ``Format``: a list of objects, or an object that is more than a line."""
        start = head.removeprefix(UTF8_BOM).lstrip()
        if ARRAY_OF_OBJECTS.match(head):
            return Fit.LIKELY
        if self.options.items is not None or start[:1] in (b"[", b""):
            return Fit.POSSIBLE
        if start[:1] != b"{" or JSON_LINES.fit(head, stream) is Fit.LIKELY:
            return Fit.NONE
        return Fit.LIKELY

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """See ``Format``."""
        return self._records(_Window(stream))

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``."""
        window, n_records = _Window(BytesIO(stream.read(LOOK_BYTES) or b"")), 0
        try:
            for _ in self._records(window):
                n_records += 1
        except RejectedInput:  # the end of the look, as a rule
            pass
        return window.n_characters / n_records if n_records else None

    def _records(self, window: _Window) -> Iterator[Record | Flaw]:
        path = self.options.items.split(".") if self.options.items else []
        for name in path:
            _enter(window, name)
        if path or window.next() == "[":
            yield from _listed(window)
            if not path:
                window.skip("")
        else:
            position = 0
            while window.next():
                yield _record(position, window)
                position += 1


JSON: Format = JsonList()


class _Window:
    """The part of a text from the next value on; more is read as it is asked for."""

    def __init__(self, stream: RawIOBase | BytesIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text, self._at = "", 0
        self._has_bad_bytes = self._has_ended = False
        self._waste = Waste("blank characters")
        self.n_characters = 0
        """Characters before the next value."""

    def next(self) -> str:
        """The next character that is no white space, which stays; empty at the end."""
        while True:
            character = NO_SPACE.search(self._text, self._at)
            n_blank = (character.start() if character else len(self._text)) - self._at
            self._move(n_blank)
            self._waste.waste(0, n_blank)
            if character is not None or not self._more():
                return self._text[self._at : self._at + 1]

    def skip(self, character: str) -> None:
        """Go past this character, or be at the end; where another comes, it is malformed."""
        got = self.next()
        if got != character:
            expected = repr(character) if character else "the end"
            raise self._malformed(f"expected {expected}, got {got or 'the end'!r}", self._at)
        self._move(len(character))

    def value(self) -> tuple[object, str | None]:
        """The next value and what is wrong with its bytes.

        Raises ``ValueError`` for one that breaks a rule, ``RejectedInput`` where its end cannot be
        told. The next value is the one after it then.
        """
        self.next()
        try:
            value, end = self._decoded(STRICT)
        except ValueError:
            self.pass_value()
            raise
        text = self._text[self._at : end] if self._has_bad_bytes else ""
        self._waste.use(end - self._at)
        self._move(end - self._at)
        return value, _bad_byte(text)

    def pass_value(self) -> None:
        """Go past the next value, whatever it is."""
        self.next()
        _, end = self._decoded(TOLERANT)
        self._move(end - self._at)

    def _decoded(self, decoder: json.JSONDecoder) -> tuple[object, int]:
        """The value from here on and the position after it, however much has to be read."""
        while True:
            check_width(self._text, self._at)
            try:
                return decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not may_be_cut_off(self._text, error.pos) or not self._more():
                    raise self._malformed(error.msg, error.pos) from error
            except RecursionError as error:
                raise RejectedInput(
                    TOO_DEEP,
                    f"objects or lists are nested too deep to be parsed, at character "
                    f"{self.n_characters + 1} of the file",
                ) from error

    def _more(self) -> bool:
        """Read on, at least as much as waits already; whether there was more."""
        waiting = len(self._text) - self._at
        if waiting > MOST_CHARACTERS:
            raise RejectedInput(
                TEXT_TOO_LONG,
                f"a value of more than {MOST_CHARACTERS} characters at {self.n_characters}; write "
                "the file as JSON lines",
            )
        if self._has_ended:
            return False
        block = self._stream.read(max(READ_BYTES, waiting)) or b""
        self._has_ended = not block
        text = self._decoder.decode(block, final=not block)
        self._has_bad_bytes = self._has_bad_bytes or _bad_byte(text) is not None
        self._text, self._at = self._text[self._at :] + text, 0
        return bool(text) or not self._has_ended

    def _move(self, n_characters: int) -> None:
        self._at += n_characters
        self.n_characters += n_characters

    def _malformed(self, message: str, position: int) -> RejectedInput:
        where = self.n_characters + position - self._at
        return RejectedInput(MALFORMED_JSON, f"{message} at character {where + 1} of the file")


def _listed(window: _Window) -> Iterator[Record | Flaw]:
    """The records of the list that comes next."""
    position = 0
    window.skip("[")
    while window.next() != "]":
        if position:
            window.skip(",")
        yield _record(position, window)
        position += 1
    window.skip("]")


def _record(position: int, window: _Window) -> Record | Flaw:
    try:
        value, bad_byte = window.value()
    except ValueError as error:
        return Flaw(position, MALFORMED_JSON, words(error))
    if bad_byte is not None:
        return Flaw(position, INVALID_UTF8, bad_byte)
    if not isinstance(value, dict):
        return Flaw(position, NOT_AN_OBJECT, f"expected an object, got {type_name(value)}")
    return Record(position, value)


def _enter(window: _Window, name: str) -> None:
    """Go to the value of this name in the object that comes next."""
    window.skip("{")
    while window.next() != "}":
        try:
            key, _ = window.value()
        except ValueError as error:
            raise RejectedInput(MALFORMED_JSON, words(error)) from error
        window.skip(":")
        if key == name:
            return
        window.pass_value()
        if window.next() != "}":
            window.skip(",")
    raise RejectedInput(
        MISSING_FIELD, f"no {shown(name)} on the path source.formats.json.items; correct it"
    )


def _bad_byte(text: str) -> str | None:
    """Which byte of a text was no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) - 0xDC00
        return f"byte 0x{byte:02x} at character {error.start + 1} of the record is not UTF-8"
    return None
