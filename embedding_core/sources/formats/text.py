"""Plain text and Markdown: the whole file is one document."""

from __future__ import annotations

from collections.abc import Iterator
from io import RawIOBase

from embedding_core.errors import RejectedInput
from embedding_core.reasons import INVALID_UTF8, TEXT_TOO_LONG
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import Fields, Flaw, Format, Record

MAX_TEXT_BYTES = 256 * 1024 * 1024
"""Largest file read as one document: it is held in memory whole, and offsets are 32 bits."""


class Text:
    """A file is one document, so that it has no spans."""

    suffixes = (".txt", ".md")

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """A record with ``text``, ``name`` (of the file) and ``uri``; an empty file has none."""
        if file.size_bytes > MAX_TEXT_BYTES:
            raise RejectedInput(
                TEXT_TOO_LONG,
                f"the file has {file.size_bytes} bytes, one document may have {MAX_TEXT_BYTES}; "
                "cut it into JSON lines or several files",
            )
        data = stream.readall()
        if not data:
            return
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            detail = f"byte 0x{data[error.start]:02x} at {error.start} is not UTF-8"
            yield Flaw(0, INVALID_UTF8, detail)
            return
        name = file.uri.rpartition("/")[2]
        yield Record(0, {"text": text, "name": name, "uri": file.uri})

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """See ``Format``."""
        return iter(())

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``."""
        return file.size_bytes or None


TEXT: Format = Text()
