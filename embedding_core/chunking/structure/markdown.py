"""The ``markdown`` strategy: sections, paragraphs, lists and code blocks, under their headings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

from embedding_core.chunking.options import LengthOptions, with_lengths
from embedding_core.chunking.structure.libraries import library, splitters
from embedding_core.chunking.structure.outline import PATH_SEPARATOR, Outline
from embedding_core.chunking.structure.pieces import Contexts, Everywhere, Lengths
from embedding_core.chunking.structure.sizer import Sizer
from embedding_core.chunking.tokens.context import fitted
from embedding_core.protocols import Tokenizer
from embedding_core.recipe.chunk import ChunkStrategy
from embedding_core.records import CONTEXT_END, Chunk, ColumnType, Document

COLUMN = "headings"


class MarkdownPieces(LengthOptions):
    """Sections of Markdown. Needs ``embedlake[chunkers]``."""

    strategy: Literal["markdown"]
    """``markdown``: the largest of section, block, sentence and word that fits."""
    headings: Literal["context", "column", "both", "none"] = "context"
    """What becomes of the headings above a chunk, ``Guide > Install``: embedded before it as its
    context, a metadata column ``headings`` (which names the chunk's section), or both."""

    @property
    def columns(self) -> Mapping[str, ColumnType]:
        """See ``ChunkOptions``."""
        return {COLUMN: "string"} if self.headings in ("column", "both") else {}


class MarkdownChunker:
    """Chunks along the blocks of a Markdown text, behind the headings above them."""

    def __init__(self, lengths: Lengths, headings: str) -> None:
        self._lengths = lengths
        self._is_context = headings in ("context", "both")
        self._is_column = headings in ("column", "both")

    def chunk(self, document: Document) -> list[Chunk]:
        """See ``Chunker``."""
        outline = Outline.of(document.text, _markdown_it())
        contexts: Contexts = Everywhere(self._lengths.title_of(document))
        if self._is_context and outline.headings:
            contexts = HeadingContexts(outline, document.title, self._lengths)
        chunks = self._lengths.chunks(document.text, markdown_splitter, contexts)
        if not self._is_column:
            return chunks
        paths = (PATH_SEPARATOR.join(outline.section(chunk.char_start)) for chunk in chunks)
        return [
            replace(chunk, metadata={COLUMN: path or None})
            for chunk, path in zip(chunks, paths, strict=True)
        ]


class HeadingContexts:
    """The title, and below it the headings above a chunk."""

    def __init__(self, outline: Outline, title: str | None, lengths: Lengths) -> None:
        self._outline = outline
        self._title = fitted(title, lengths.tokenizer, lengths.max_tokens)
        self._lengths = lengths
        self._fitted: dict[tuple[str, ...], str | None] = {}

    def at(self, start: int) -> str | None:
        """See ``Contexts``."""
        return self._of(self._outline.above(start))

    def longest(self) -> str | None:
        """See ``Contexts``."""
        return self._longest

    @cached_property
    def _longest(self) -> str | None:
        paths = {(), *(heading.path for heading in self._outline.headings)}
        contexts = sorted({context for path in paths if (context := self._of(path)) is not None})
        if not contexts:
            return None
        counts = self._lengths.tokenizer.count(contexts)
        return max(zip(counts, contexts, strict=True))[1]

    def _of(self, path: tuple[str, ...]) -> str | None:
        if path not in self._fitted:
            lines = [line for line in (self._title, PATH_SEPARATOR.join(path)) if line]
            context = CONTEXT_END.join(lines) or None
            lengths = self._lengths
            self._fitted[path] = fitted(context, lengths.tokenizer, lengths.max_tokens)
        return self._fitted[path]


def markdown_splitter(sizer: Sizer, capacity: int, overlap: int) -> Any:
    """The library's splitter of Markdown."""
    return splitters("markdown").MarkdownSplitter.from_callback(sizer, capacity, overlap)


def _markdown_it() -> Any:
    return library("markdown_it", "chunkers", "markdown")


class Markdown:
    """The strategy ``markdown``."""

    options = MarkdownPieces

    def settle(self, options: MarkdownPieces, limit: int) -> MarkdownPieces:
        """See ``ChunkStrategy``."""
        splitters(options.strategy)
        _markdown_it()
        return with_lengths(options, limit)

    def chunker(self, options: MarkdownPieces, tokenizer: Tokenizer, limit: int) -> MarkdownChunker:
        """See ``ChunkStrategy``."""
        splitters(options.strategy)
        _markdown_it()
        return MarkdownChunker(Lengths.of(options, tokenizer, limit), options.headings)


MARKDOWN: ChunkStrategy[MarkdownPieces] = Markdown()
