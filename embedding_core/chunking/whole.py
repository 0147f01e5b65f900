"""The ``none`` strategy: one chunk per document."""

from __future__ import annotations

from typing import Literal

from embedding_core.chunking.tokens.context import fitted, in_context
from embedding_core.chunking.tokens.token_map import count_tokens
from embedding_core.chunking.tokens.windowed import stripped
from embedding_core.protocols import Tokenizer
from embedding_core.recipe.chunk import ChunkOptions, ChunkStrategy
from embedding_core.records import Chunk, Document


class WholeDocuments(ChunkOptions):
    """One chunk per document."""

    strategy: Literal["none"]
    """``none``: one chunk per document."""


class WholeDocument:
    """The document without the white space at its ends, however long it is."""

    def __init__(self, tokenizer: Tokenizer, limit: int) -> None:
        self._tokenizer = tokenizer
        self._limit = limit

    def chunk(self, document: Document) -> list[Chunk]:
        """See ``Chunker``; ``n_tokens`` may be above the model's limit."""
        start, end = stripped(document.text)
        if start == end:
            return []
        inner = document.text[start:end]
        context = fitted(document.title, self._tokenizer, self._limit)
        n_tokens = count_tokens(inner, in_context(self._tokenizer, context))
        return [Chunk(0, inner, start, end, n_tokens, context)]


class Whole:
    """The strategy ``none``."""

    options = WholeDocuments

    def settle(self, options: WholeDocuments, limit: int) -> WholeDocuments:
        """See ``ChunkStrategy``: there are no lengths."""
        return options

    def chunker(self, options: WholeDocuments, tokenizer: Tokenizer, limit: int) -> WholeDocument:
        """See ``ChunkStrategy``."""
        return WholeDocument(tokenizer, limit)


NONE: ChunkStrategy[WholeDocuments] = Whole()
