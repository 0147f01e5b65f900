"""The ``sentences`` strategy: as many whole sentences as fit."""

from __future__ import annotations

from typing import Any, Literal

from embedding_core.chunking.options import LengthOptions, with_lengths
from embedding_core.chunking.structure.libraries import splitters
from embedding_core.chunking.structure.pieces import Everywhere, Lengths
from embedding_core.chunking.structure.sizer import Sizer
from embedding_core.protocols import Tokenizer
from embedding_core.recipe.chunk import ChunkStrategy
from embedding_core.records import Chunk, Document


class SentencePieces(LengthOptions):
    """Whole paragraphs, lines and sentences. Needs ``embedlake[chunkers]``."""

    strategy: Literal["sentences"]
    """``sentences``: as many whole sentences as ``max_tokens`` takes; a longer one is cut between
    words."""


class SentenceChunker:
    """Chunks end with the largest of paragraph, line, sentence and word that fits."""

    def __init__(self, lengths: Lengths) -> None:
        self._lengths = lengths

    def chunk(self, document: Document) -> list[Chunk]:
        """See ``Chunker``."""
        title = self._lengths.title_of(document)
        return self._lengths.chunks(document.text, text_splitter, Everywhere(title))


def text_splitter(sizer: Sizer, capacity: int, overlap: int) -> Any:
    """The library's splitter of text without markup."""
    return splitters("sentences").TextSplitter.from_callback(sizer, capacity, overlap)


class Sentences:
    """The strategy ``sentences``."""

    options = SentencePieces

    def settle(self, options: SentencePieces, limit: int) -> SentencePieces:
        """See ``ChunkStrategy``."""
        splitters(options.strategy)
        return with_lengths(options, limit)

    def chunker(self, options: SentencePieces, tokenizer: Tokenizer, limit: int) -> SentenceChunker:
        """See ``ChunkStrategy``."""
        splitters(options.strategy)
        return SentenceChunker(Lengths.of(options, tokenizer, limit))


SENTENCES: ChunkStrategy[SentencePieces] = Sentences()
