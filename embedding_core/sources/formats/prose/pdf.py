"""PDF: the text layer of each page. Nothing is recognised in pictures."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import closing
from io import RawIOBase
from typing import Any, Literal

from embedding_core.errors import RejectedInput, words
from embedding_core.plurals import counted
from embedding_core.reasons import (
    CORRUPT_PDF,
    ENCRYPTED,
    NO_TEXT,
    TEXT_TOO_LONG,
    TOO_MANY_VALUES,
)
from embedding_core.recipe.formats import Format, FormatOptions
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import Fields, Fit, Flaw, Record
from embedding_core.sources.formats.prose.library import library
from embedding_core.sources.formats.prose.text import MAX_TEXT_BYTES, file_fields, whole_bytes
from embedding_core.store.retry import never_silent

MAX_PDF_BYTES = 256 * 1024 * 1024
"""Largest file that is read; it is held in memory whole."""
MOST_PAGES = 100_000
"""Most pages of a file: a page may stand in it any number of times, for a few bytes each."""
PAGES_WATCHED = 32
"""Pages that are watched together: to start a watch may take longer than to read a page."""
MAGIC = re.compile(rb".{0,1023}?%PDF-\d", re.DOTALL)
END = b"%%EOF"
END_WITHIN_BYTES = 2048
"""Bytes at the end of a file that hold its end mark; PDFium would mend a cut file silently."""
PASSWORD_ERROR = 4
"""PDFium's code for a document that asks for a password."""
HYPHEN = re.compile("[\x02\ufffe]\r?\n?")
"""A hyphen that only a line's end put into a word."""

_ONE_AT_A_TIME = threading.Lock()
"""PDFium must not be called by two threads at once."""


class PdfOptions(FormatOptions):
    """How PDF files are read."""

    record: Literal["page", "file"] = "page"
    """A record is a page, or the file with a blank line between pages."""


class Pdf:
    """A page is a record, its position its 0-based number; a blank page is no record."""

    suffixes = (".pdf",)
    options: PdfOptions = PdfOptions()
    is_text = False

    def fit(self, head: bytes, stream: RawIOBase) -> Fit:
        """See ``Format``."""
        return Fit.CERTAIN if MAGIC.match(head) else Fit.NONE

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """Records with ``text``, ``page`` (1-based), ``pages``, ``title``, ``author``, ``name`` and
        ``uri``."""
        pdfium = library("pypdfium2", "pdf")
        data = whole_bytes(stream, MAX_PDF_BYTES, "cut it into several files")
        with closing(_opened(pdfium, data)) as document:
            about = _about(document) | file_fields(file)
            pages = _pages(pdfium, document, file.uri)
            if self.options.record == "file":
                yield from _whole(pages, about)
                return
            is_empty = True
            for number, page in enumerate(pages):
                if isinstance(page, Flaw):
                    is_empty = False
                    yield page
                elif page:
                    is_empty = False
                    yield Record(number, {**about, "text": page, "page": number + 1})
            if is_empty:
                raise RejectedInput(NO_TEXT, "none of its pages has anything on it")

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """See ``Format``: a file is read as a whole."""
        return iter(())

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``: it cannot be told without reading the file."""
        return file.size_bytes if self.options.record == "file" else None


PDF: Format = Pdf()


def _opened(pdfium: Any, data: bytes) -> Any:
    """The document. Raises ``RejectedInput`` for one with a password, or a damaged one."""
    if END not in data[-END_WITHIN_BYTES:]:
        raise RejectedInput(
            CORRUPT_PDF, "the file does not end as a PDF does: it was cut off; copy it again"
        )
    try:
        with _ONE_AT_A_TIME:
            document = pdfium.PdfDocument(data)
            n_pages = len(document)
    except pdfium.PdfiumError as error:
        if getattr(error, "err_code", None) == PASSWORD_ERROR:
            raise RejectedInput(
                ENCRYPTED, "the file asks for a password; save it without one"
            ) from error
        raise RejectedInput(CORRUPT_PDF, words(error)) from error
    if n_pages > MOST_PAGES:
        with _ONE_AT_A_TIME:
            document.close()
        raise RejectedInput(
            TOO_MANY_VALUES,
            f"the file has {counted(n_pages, 'page')}, the limit is {MOST_PAGES:,}; cut it into "
            "several",
        )
    return document


def _about(document: Any) -> dict[str, object]:
    with _ONE_AT_A_TIME:
        metadata = document.get_metadata_dict()
        return {
            "pages": len(document),
            "title": metadata.get("Title") or None,
            "author": metadata.get("Author") or None,
        }


def _pages(pdfium: Any, document: Any, uri: str) -> Iterator[str | Flaw]:
    """The text of each page; empty for a blank one, a flaw for one that has only pictures.

    Nothing bounds the work of a page: its drawings may contain each other, and PDFium cannot be
    stopped. The log says which pages take long.
    """
    n_characters, n_pages = 0, len(document)
    for first in range(0, n_pages, PAGES_WATCHED):
        numbers = range(first, min(first + PAGES_WATCHED, n_pages))
        pages: list[tuple[str, int]] = []
        with never_silent(f"read pages {first + 1} to {numbers.stop} of {uri}"):
            for number in numbers:
                try:
                    with _ONE_AT_A_TIME:
                        pages.append(_page(pdfium, document, number))
                except pdfium.PdfiumError as error:
                    problem = f"page {number + 1}: {words(error)}"
                    raise RejectedInput(CORRUPT_PDF, problem) from error
                n_characters += len(pages[-1][0])
                if n_characters > MAX_TEXT_BYTES:
                    raise RejectedInput(
                        TEXT_TOO_LONG,
                        f"more than {MAX_TEXT_BYTES} characters up to page {number + 1}",
                    )
        for number, (text, n_objects) in zip(numbers, pages, strict=True):
            yield _text_of(number, text, n_objects)


def _text_of(number: int, text: str, n_objects: int) -> str | Flaw:
    text = HYPHEN.sub("", text).replace("\r\n", "\n").strip()
    if text or not n_objects:
        return text
    detail = f"page {number + 1} has pictures and no text layer; run OCR over the file"
    return Flaw(number, NO_TEXT, detail)


def _page(pdfium: Any, document: Any, number: int) -> tuple[str, int]:
    """The text of a page and how many objects are on it."""
    with closing(document[number]) as page:
        with closing(page.get_textpage()) as layer:
            text: str = layer.get_text_bounded()
        return text, pdfium.raw.FPDFPage_CountObjects(page.raw)


def _whole(pages: Iterator[str | Flaw], about: dict[str, object]) -> Iterator[Record | Flaw]:
    """All pages that have text as one record, then those that have none."""
    texts: list[str] = []
    flaws: list[Flaw] = []
    for page in pages:
        if isinstance(page, Flaw):
            flaws.append(page)
        elif page:
            texts.append(page)
    if not texts:
        raise RejectedInput(NO_TEXT, "none of its pages has a text layer; run OCR over the file")
    yield Record(0, {**about, "text": "\n\n".join(texts)})
    yield from flaws
