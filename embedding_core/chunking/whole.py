"""The ``none`` strategy: one chunk per document."""

from __future__ import annotations

from embedding_core.chunking.chunker import Tokenizer
from embedding_core.chunking.tokens.token_map import count_tokens
from embedding_core.chunking.tokens.windowed import stripped
from embedding_core.records import Chunk


class WholeDocument:
    """The document without the white space at its ends, however long it is."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def chunk(self, text: str) -> list[Chunk]:
        """See ``Chunker``; ``n_tokens`` may be above the model's limit."""
        start, end = stripped(text)
        if start == end:
            return []
        inner = text[start:end]
        return [Chunk(0, inner, start, end, count_tokens(inner, self._tokenizer))]
