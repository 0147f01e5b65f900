"""A context is embedded before a chunk and counts against its length; it is no part of the text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from embedding_core.chunking.tokens.boundaries import joins
from embedding_core.protocols import Offsets, Tokenizer
from embedding_core.records import CONTEXT_END

CONTEXT_SHARE = 2
"""A context has at most 1/n of the tokens of a chunk; the end of a longer one is left out."""
CHARACTERS_PER_TOKEN = 32
"""A context has at most n characters for each token that it may have. To many tokenizers a word of
any length is one token, and a context stands in the row of every chunk."""
OVERLAP_SHARE = 2
"""A chunk repeats at most 1/n of what it has room for behind its context. Windows that bring a
token each would embed a text hundreds of times."""


class InContext:
    """A model's tokenizer, for texts that are embedded behind a context."""

    merges_at_start = True

    def __init__(self, tokenizer: Tokenizer, context: str) -> None:
        self._tokenizer = tokenizer
        self._before = context + CONTEXT_END
        (self.n_special,) = tokenizer.count([self._before])

    @property
    def seams(self) -> tuple[re.Pattern[str], ...]:
        """See ``Tokenizer``."""
        return self._tokenizer.seams

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """See ``Tokenizer``."""
        return self._tokenizer.offsets(texts)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of context and text together."""
        return self._tokenizer.count([self._before + text for text in texts])

    def unknown_shares(self, texts: Sequence[str]) -> list[float]:
        """See ``Tokenizer``."""
        return self._tokenizer.unknown_shares(texts)


def in_context(tokenizer: Tokenizer, context: str | None) -> Tokenizer:
    """The tokenizer that counts texts behind a context; the same one without a context."""
    return tokenizer if context is None else InContext(tokenizer, context)


def fitted(context: str | None, tokenizer: Tokenizer, max_tokens: int) -> str | None:
    """The beginning of a context that leaves room for text in a chunk of ``max_tokens``; None when
    there is no context, or no room."""
    if context is None:
        return None
    room = max(0, max_tokens - tokenizer.n_special) // CONTEXT_SHARE
    end = min(len(context), room * CHARACTERS_PER_TOKEN)
    (offsets,) = tokenizer.offsets([context[:end]])
    if len(offsets) > room:
        end = int(offsets[room][0])
    while joins(context, end):
        end -= 1
    return context[:end].rstrip() or None
