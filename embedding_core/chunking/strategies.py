"""From a recipe's chunk section to a chunker that fits the model."""

from __future__ import annotations

from embedding_core.chunking.chunker import Chunker, Tokenizer
from embedding_core.chunking.tokens.windowed import TokenChunker
from embedding_core.chunking.whole import WholeDocument
from embedding_core.errors import UsageError
from embedding_core.recipe import ChunkSpec, WholeDocuments

DEFAULT_MAX_TOKENS = 512
"""Longest chunk when the recipe does not say, unless the model takes less."""


def resolve_chunk_spec(spec: ChunkSpec, limit: int) -> ChunkSpec:
    """The section with its lengths filled in for a model that takes ``limit`` tokens.

    Raises ``UsageError`` when a length does not fit the model, or each other.
    """
    if isinstance(spec, WholeDocuments):
        return spec
    max_tokens = min(DEFAULT_MAX_TOKENS, limit) if spec.max_tokens is None else spec.max_tokens
    if max_tokens > limit:
        raise UsageError(
            f"chunk.max_tokens {max_tokens} is above the model's limit of {limit} tokens; "
            f"use at most {limit}, or a model that takes more"
        )
    if spec.overlap * 2 > max_tokens:
        raise UsageError(
            f"chunk.overlap {spec.overlap} is more than half of chunk.max_tokens {max_tokens}; "
            f"use at most {max_tokens // 2}"
        )
    if spec.min_tokens > max_tokens:
        raise UsageError(
            f"chunk.min_tokens {spec.min_tokens} is above chunk.max_tokens {max_tokens}; lower it"
        )
    return spec.model_copy(update={"max_tokens": max_tokens})


def chunker_for(spec: ChunkSpec, tokenizer: Tokenizer, limit: int) -> Chunker:
    """The chunker a resolved section asks for; ``limit`` is the model's, specials included.

    Raises ``UsageError`` when ``max_tokens`` is not resolved, is above ``limit``, or leaves no
    room beside the special tokens.
    """
    if isinstance(spec, WholeDocuments):
        return WholeDocument(tokenizer)
    if spec.max_tokens is None:
        raise UsageError("chunk.max_tokens is not resolved; call resolve_chunk_spec first")
    resolve_chunk_spec(spec, limit)
    return token_chunker(tokenizer, spec.max_tokens, spec.overlap, spec.min_tokens)


def token_chunker(
    tokenizer: Tokenizer, max_tokens: int, overlap: int, min_tokens: int
) -> TokenChunker:
    """A ``TokenChunker``, after checking that a chunk can hold a token of text."""
    if max_tokens <= tokenizer.n_special:
        raise UsageError(
            f"chunk.max_tokens {max_tokens} leaves no room beside the model's "
            f"{tokenizer.n_special} special tokens; raise it"
        )
    return TokenChunker(tokenizer, max_tokens, overlap, min_tokens)
