"""HTML: the main text of a page as Markdown, without navigation, banners and footers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import RawIOBase
from typing import Any

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import CORRUPT_HTML, NO_TEXT, TOO_DEEP, TOO_MANY_VALUES, Reason
from embedding_core.recipe.formats import Format
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import Fields, Fit, Flaw, Record, TextFormat
from embedding_core.sources.formats.prose.library import library
from embedding_core.sources.formats.prose.text import file_fields, whole_bytes
from embedding_core.store.retry import never_silent

MAX_HTML_BYTES = 16 * 1024 * 1024
"""Largest page that is read; extracting its text takes some two seconds per megabyte."""
MOST_ELEMENTS = 500_000
"""Most elements of a page: extracting its text takes up to half a minute for so many."""
MOST_ATTRIBUTES = 1_000
"""Most attributes of an element: the time for them grows with their square."""
DEEPEST = 256
"""Elements around each other that the parser keeps; it would leave out deeper ones silently."""
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
        markup = trafilatura.utils.decode_file(data)
        markup = trafilatura.utils.repair_faulty_html(markup, markup[:50].lower())
        _check_markup(markup)
        try:
            with never_silent(f"read {file.uri}"):
                tree = trafilatura.load_html(markup)
                asked = any(map(fields.asks_for, METADATA))  # finding a date takes its time
                page = trafilatura.extract_metadata(tree) if asked and tree is not None else None
                text = _main_text(trafilatura, tree)
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


def _main_text(trafilatura: Any, tree: Any) -> str | None:
    if tree is None:
        return None
    text: str | None = trafilatura.extract(
        tree, output_format="markdown", include_comments=False, include_tables=True
    )
    return text


class _Limits:
    """Sees the elements of a page as they are parsed. Raises ``RejectedInput`` at a limit."""

    def __init__(self) -> None:
        self._n_elements = self._depth = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        self._n_elements += 1
        self._depth += 1
        if self._n_elements > MOST_ELEMENTS:
            self._reject(TOO_MANY_VALUES, "elements in the page", MOST_ELEMENTS)
        if len(attributes) > MOST_ATTRIBUTES:
            self._reject(TOO_MANY_VALUES, f"attributes in an element {tag!r}", MOST_ATTRIBUTES)
        if self._depth > DEEPEST:
            self._reject(TOO_DEEP, "elements around each other", DEEPEST)

    def end(self, tag: str) -> None:
        """An element ends."""
        self._depth -= 1

    def close(self) -> None:
        """The page ends."""

    def _reject(self, reason: Reason, excess: str, limit: int) -> None:
        raise RejectedInput(reason, f"more than {limit:,} {excess}, the limit; convert the page")


def _check_markup(markup: str) -> None:
    """Raise ``RejectedInput`` for a page that takes far more time than its size says, or of which
    the parser would leave something out."""
    etree = library("lxml.etree", "html")
    parser = etree.HTMLParser(target=_Limits(), encoding="utf-8")
    with suppress(etree.LxmlError):  # of what is no markup at all
        etree.fromstring(markup.encode("utf-8", "surrogatepass"), parser)
