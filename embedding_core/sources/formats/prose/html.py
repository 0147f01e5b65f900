"""HTML: the main text of a page as Markdown, without navigation, banners and footers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import RawIOBase

from embedding_core.errors import words
from embedding_core.reasons import CORRUPT_HTML, NO_TEXT
from embedding_core.recipe.formats import Format
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import Fields, Fit, Flaw, Record, TextFormat
from embedding_core.sources.formats.prose.library import library
from embedding_core.sources.formats.prose.text import file_fields, whole_bytes

MAX_HTML_BYTES = 16 * 1024 * 1024
"""Largest page that is read; extracting its text takes some two seconds per megabyte."""
START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,2000}?-->\s*)*<(?:!doctype\s+html|html)\b",
    re.IGNORECASE | re.DOTALL,
)
METADATA = ("title", "author", "date", "description", "url")
"""What a page says of itself, as far as it does."""


class Html(TextFormat):
    """A page is one document."""

    suffixes = (".html", ".htm", ".xhtml")

    def fit(self, head: bytes, stream: RawIOBase) -> Fit:
        """See ``Format``."""
        return Fit.LIKELY if START.match(head) else Fit.POSSIBLE

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """A record with ``text``, the page's metadata, ``name`` and ``uri``; an empty file has
        none."""
        trafilatura = library("trafilatura", "html")
        data = whole_bytes(stream, MAX_HTML_BYTES, "a page of this size is data; convert it")
        if not data.strip():
            return
        try:
            tree = trafilatura.load_html(data)
            asked = any(map(fields.asks_for, METADATA))  # finding a date takes its time
            page = trafilatura.extract_metadata(tree) if asked and tree is not None else None
            text = (
                None
                if tree is None
                else trafilatura.extract(
                    tree, output_format="markdown", include_comments=False, include_tables=True
                )
            )
        except Exception as error:  # noqa: BLE001  whatever a parser makes of damaged markup
            yield Flaw(0, CORRUPT_HTML, words(error)[:200])
            return
        if not text:
            detail = "no main text: a page of navigation, of scripts, or a few words; leave it out"
            yield Flaw(0, NO_TEXT, detail)
            return
        metadata = {name: getattr(page, name, None) for name in METADATA}
        yield Record(0, {**metadata, "text": text, **file_fields(file)})

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``."""
        return file.size_bytes or None


HTML: Format = Html()
