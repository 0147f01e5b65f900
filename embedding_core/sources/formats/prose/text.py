"""Plain text: the whole file is one document."""

from __future__ import annotations

from collections.abc import Iterator
from io import RawIOBase

from embedding_core.errors import RejectedInput
from embedding_core.plurals import counted
from embedding_core.reasons import INVALID_UTF8, TEXT_TOO_LONG
from embedding_core.recipe.formats import Format
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import Fields, Flaw, Record, TextFormat, TextOptions

MAX_TEXT_BYTES = 256 * 1024 * 1024
"""Largest file read as one document: it is held in memory whole, and offsets are 32 bits."""
READ_BYTES = 4 * 1024 * 1024
"""Bytes read at a time."""


class Text(TextFormat):
    """A file is one document, so that it has no spans."""

    suffixes = (".txt",)
    options: TextOptions = TextOptions()

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """A record with ``text``, ``name`` (of the file) and ``uri``; an empty file has none."""
        text = whole_text(stream, self.options.encoding)
        if isinstance(text, Flaw):
            yield text
        elif text:
            yield Record(0, {"text": text, **file_fields(file)})

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``."""
        return file.size_bytes or None


TEXT: Format = Text()


def file_fields(file: SourceFile) -> dict[str, object]:
    """Fields that every document of a file has."""
    return {"name": file.uri.rpartition("/")[2], "uri": file.uri}


def whole_bytes(stream: RawIOBase, limit: int, advice: str) -> bytes:
    """All bytes of a file that becomes one document. Raises ``RejectedInput`` above a limit."""
    data = bytearray()
    while block := stream.read(READ_BYTES):
        data += block
        if len(data) > limit:
            raise RejectedInput(
                TEXT_TOO_LONG,
                f"the file has more than {counted(limit, 'byte')}, the limit; {advice}",
            )
    return bytes(data)


def whole_text(stream: RawIOBase, encoding: str) -> str | Flaw:
    """The text of a file that is one document."""
    data = whole_bytes(stream, MAX_TEXT_BYTES, "cut it into JSON lines or several files")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        detail = f"byte 0x{data[error.start]:02x} at {error.start} is not {encoding}"
        return Flaw(0, INVALID_UTF8, f"{detail}; set source.formats, or write UTF-8")
