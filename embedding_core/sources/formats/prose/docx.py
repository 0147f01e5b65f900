"""DOCX: the document as Markdown, headings, lists and tables in order; pictures are left out."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from io import BytesIO, RawIOBase
from typing import Any
from xml.etree import ElementTree

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import CORRUPT_OFFICE, NO_TEXT
from embedding_core.recipe.formats import Format, FormatOptions
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import Fields, Fit, Flaw, Record
from embedding_core.sources.formats.prose.library import library
from embedding_core.sources.formats.prose.office import office_bytes, office_fit
from embedding_core.sources.formats.prose.text import file_fields
from embedding_core.store.retry import never_silent

PROPERTIES = "docProps/core.xml"
PROPERTY_TAGS = {
    "title": "{http://purl.org/dc/elements/1.1/}title",
    "author": "{http://purl.org/dc/elements/1.1/}creator",
    "created": "{http://purl.org/dc/terms/}created",
}


class Docx:
    """A file is one document."""

    suffixes = (".docx",)
    options = FormatOptions()
    is_text = False

    def fit(self, head: bytes, stream: RawIOBase) -> Fit:
        """See ``Format``."""
        return office_fit(head, stream, "word/document.xml")

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """A record with ``text``, ``title``, ``author``, ``created``, ``name`` and ``uri``."""
        mammoth, markdownify = library("mammoth", "office"), library("markdownify", "office")
        data = office_bytes(stream)
        try:
            with never_silent(f"read {file.uri}"):
                page = mammoth.convert_to_html(data, convert_image=_no_image).value
                text = markdownify.markdownify(page, heading_style="ATX").strip()
            properties = _properties(data)
        except Exception as error:
            raise RejectedInput(CORRUPT_OFFICE, words(error)[:200]) from error
        if text:
            yield Record(0, {**properties, "text": text, **file_fields(file)})
        else:
            yield Flaw(0, NO_TEXT, "the document has no text")

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """See ``Format``: a file is read as a whole."""
        return iter(())

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``."""
        return file.size_bytes or None


DOCX: Format = Docx()


def _no_image(image: object) -> list[Any]:
    return []


def _properties(data: BytesIO) -> dict[str, object]:
    """What the file says of itself; null where it does not."""
    with zipfile.ZipFile(data) as archive:
        if PROPERTIES not in archive.namelist():
            return dict.fromkeys(PROPERTY_TAGS)
        root = ElementTree.fromstring(archive.read(PROPERTIES))
    return {name: root.findtext(tag) or None for name, tag in PROPERTY_TAGS.items()}
