"""The ``characters`` strategy: exact windows of a number of characters."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from embedding_core.chunking.tokens.context import fitted, in_context
from embedding_core.chunking.tokens.token_map import count_tokens
from embedding_core.protocols import Tokenizer
from embedding_core.recipe.chunk import ChunkOptions, ChunkStrategy
from embedding_core.records import Chunk, Document


class CharacterWindows(ChunkOptions):
    """Windows of characters, cut wherever they end: in words, between a letter and its accent."""

    strategy: Literal["characters"]
    """``characters``: ``text[0:N]``, ``text[N:2N]``, … as they are, white space included."""
    max_characters: int = Field(default=1_000, ge=1)
    """N, the characters of a chunk; the last has what is left."""
    overlap: int = Field(default=0, ge=0)
    """Characters a chunk repeats of the one before it."""
    min_new_tokens: int = Field(default=0, ge=0)
    """A chunk that brings fewer tokens is joined to the one before it, which is then longer than N:
    mostly the last."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.overlap * 2 > self.max_characters:
            raise ValueError(
                f"overlap {self.overlap} is more than half of max_characters "
                f"{self.max_characters}; use at most {self.max_characters // 2}"
            )
        return self


class CharacterChunker:
    """Windows of N characters; ``n_tokens`` may be above the model's limit.

    Windows that bring nothing but white space are left out.
    """

    def __init__(self, tokenizer: Tokenizer, options: CharacterWindows, limit: int) -> None:
        self._tokenizer = tokenizer
        self._options = options
        self._limit = limit

    def chunk(self, document: Document) -> list[Chunk]:
        """See ``Chunker``."""
        context = fitted(document.title, self._tokenizer, self._limit)
        tokenizer = in_context(self._tokenizer, context)
        text = document.text
        spans = self._spans(text, tokenizer)
        counts = tokenizer.count([text[start:end] for start, end in spans])
        return [
            Chunk(index, text[start:end], start, end, n_tokens, context)
            for index, ((start, end), n_tokens) in enumerate(zip(spans, counts, strict=True))
        ]

    def _spans(self, text: str, tokenizer: Tokenizer) -> list[tuple[int, int]]:
        size, overlap = self._options.max_characters, self._options.overlap
        least = self._options.min_new_tokens
        spans: list[tuple[int, int]] = []
        covered = 0
        for start in range(0, max(1, len(text) - overlap), size - overlap):
            end = min(start + size, len(text))
            new = text[covered:end]
            covered = end
            if not new.strip():
                continue
            if spans and least and count_tokens(new, tokenizer) - tokenizer.n_special < least:
                spans[-1] = spans[-1][0], end
            else:
                spans.append((start, end))
        return spans


class Characters:
    """The strategy ``characters``."""

    options = CharacterWindows

    def settle(self, options: CharacterWindows, limit: int) -> CharacterWindows:
        """See ``ChunkStrategy``: lengths are in characters, whatever the model takes."""
        return options

    def chunker(
        self, options: CharacterWindows, tokenizer: Tokenizer, limit: int
    ) -> CharacterChunker:
        """See ``ChunkStrategy``."""
        return CharacterChunker(tokenizer, options, limit)


CHARACTERS: ChunkStrategy[CharacterWindows] = Characters()
