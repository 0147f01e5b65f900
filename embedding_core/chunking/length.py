"""The length policy: what becomes of chunks that are longer than the model takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from embedding_core.chunking.tokens.windowed import TokenChunker
from embedding_core.plurals import counted
from embedding_core.protocols import Tokenizer
from embedding_core.recipe.chunk import Chunker
from embedding_core.records import Chunk, Document

Policy = Literal["drop", "truncate", "split", "error"]
"""``drop``: left out; ``truncate``: kept, its vector covers the beginning; ``split``: several;
``error``: left out, and the caller refuses the file."""


@dataclass(frozen=True, slots=True)
class LengthResult:
    """What the length policy made of a document's chunks."""

    kept: tuple[Chunk, ...]
    """Chunks that become rows, in order, indexed from 0 without gaps."""
    dropped: tuple[tuple[Chunk, str], ...]
    """Chunks left out, as the chunker indexed them, each with the detail of its reject."""
    truncated: tuple[tuple[Chunk, str], ...]
    """Members of ``kept`` that are longer than the limit, each with the detail of its reject.
    Their ``n_tokens`` is the full count; the encoder cuts what it embeds."""


def apply_length_policy(
    chunks: Iterable[Chunk], policy: Policy, tokenizer: Tokenizer, limit: int
) -> LengthResult:
    """Treat every chunk above ``limit`` tokens (specials included) as the policy says.

    ``split`` cuts with the ``tokens`` strategy at ``limit``, without overlap; a piece that cannot
    be cut any further (one character) and is still too long is dropped.
    """
    fitting: list[Chunk] = []
    dropped: list[tuple[Chunk, str]] = []
    for chunk in chunks:
        for piece in _pieces(chunk, policy, tokenizer, limit):
            if piece.n_tokens > limit and policy != "truncate":
                dropped.append((chunk, _detail(piece, limit)))
            else:
                fitting.append(piece)
    kept = tuple(
        chunk if chunk.index == index else replace(chunk, index=index)
        for index, chunk in enumerate(fitting)
    )
    truncated = tuple((chunk, _detail(chunk, limit)) for chunk in kept if chunk.n_tokens > limit)
    return LengthResult(kept, tuple(dropped), truncated)


def chunk_document(
    document: Document, chunker: Chunker, policy: Policy, tokenizer: Tokenizer, limit: int
) -> LengthResult:
    """Cut one document and apply the length policy to its chunks."""
    return apply_length_policy(chunker.chunk(document), policy, tokenizer, limit)


def _pieces(chunk: Chunk, policy: Policy, tokenizer: Tokenizer, limit: int) -> Sequence[Chunk]:
    if policy != "split" or chunk.n_tokens <= limit:
        return (chunk,)
    at = chunk.char_start
    return [
        replace(
            piece,
            char_start=piece.char_start + at,
            char_end=piece.char_end + at,
            metadata=chunk.metadata,
        )
        for piece in TokenChunker(tokenizer, limit, context=chunk.context).cut(chunk.text)
    ]


def _detail(chunk: Chunk, limit: int) -> str:
    return (
        f"{counted(chunk.n_tokens, 'token')} at characters {chunk.char_start} to {chunk.char_end}, "
        f"the model takes {limit}"
    )
