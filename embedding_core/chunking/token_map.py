"""Where the tokens of a document are, found piece by piece.

A tokenizer keeps hundreds of bytes per token while it works, so a long text is tokenised in
segments; what stays is two int32 per token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embedding_core.chunking.protocols import Tokenizer

SEGMENT_CHARACTERS = 100_000
"""Characters tokenised at a time; about 25,000 tokens of English."""


@dataclass(frozen=True, slots=True)
class TokenMap:
    """Content tokens of one text, in order."""

    starts: np.ndarray
    """(n_tokens,) int32: first character of each token; never decreases."""
    ends: np.ndarray
    """(n_tokens,) int32: character after each token; never decreases."""

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer) -> TokenMap:
        """Tokenise ``text``. Cutting into segments may add a token or two at their edges."""
        parts = [np.zeros((0, 2), dtype=np.int32)]
        for start, end in segments(text):
            (offsets,) = tokenizer.offsets([text[start:end]])
            parts.append((offsets.reshape(-1, 2) + start).astype(np.int32))
        # Normalisers can leave a token without characters of its own, at (0, 0): the running
        # maximum puts it where its neighbour ends.
        pairs = np.maximum.accumulate(np.concatenate(parts), axis=0)
        return cls(pairs[:, 0].copy(), pairs[:, 1].copy())

    def __len__(self) -> int:
        return len(self.starts)

    def start(self, token: int) -> int:
        """First character of the token with this number."""
        return int(self.starts[token])

    def first_after(self, character: int) -> int:
        """Number of the first token that holds ``character`` or comes after it."""
        # An int of another type, or a strided array, would copy the array for every search.
        return int(self.ends.searchsorted(np.int32(character), side="right"))


def segments(text: str) -> Iterator[tuple[int, int]]:
    """Spans that cover ``text``, of about ``SEGMENT_CHARACTERS``, cut in front of white space
    where there is some in the second half of a span."""
    start = 0
    while len(text) - start > SEGMENT_CHARACTERS:
        end = start + SEGMENT_CHARACTERS
        cut = _last_space(text, end - SEGMENT_CHARACTERS // 2, end)
        yield start, cut
        start = cut
    if start < len(text):
        yield start, len(text)


def count_tokens(text: str, tokenizer: Tokenizer) -> int:
    """Tokens the model sees; of a text longer than a segment, the sum over its segments."""
    pieces = [text[start:end] for start, end in segments(text)] or [""]
    content = sum(tokenizer.count([piece])[0] - tokenizer.n_special for piece in pieces)
    return content + tokenizer.n_special


def _last_space(text: str, low: int, high: int) -> int:
    """Place of the last white space in ``text[low:high]``, else ``high``."""
    for at in range(high - 1, low - 1, -1):
        if text[at].isspace():
            return at
    return high
