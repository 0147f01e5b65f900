"""The positions of a document's tokens, worked out segment by segment.

A tokenizer keeps hundreds of bytes per token while it works, so a long text is tokenised in
segments; what stays is two int32 per token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embedding_core.protocols import Tokenizer

SEGMENT_CHARACTERS = 100_000
"""Characters tokenised at a time; about 25,000 tokens of English."""

COUNTED_CHARACTERS = 1_000_000
"""Characters counted at a time: more tokens than any model here takes, so that every count that
matters is exact."""

LONGEST_WORD = 8_000_000
"""Characters up to which a word is counted whole: to some tokenizers a long word is one token."""


_SPACE = re.compile(r"\s")


@dataclass(frozen=True, slots=True)
class TokenMap:
    """Content tokens of one text, in order."""

    starts: np.ndarray
    """(n_tokens,) int32: first character of each token; never decreases."""
    ends: np.ndarray
    """(n_tokens,) int32: character after each token; never decreases."""
    cuts: tuple[int, ...]
    """First characters of the segments after the first; tokens beside them may be others than in
    the whole text."""
    all_visible: bool
    """Whether every token after the first of a segment covers some character."""

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer) -> TokenMap:
        """Tokenise ``text``. Cutting into segments may add a token or two at their edges."""
        spans, cuts, all_visible = [np.zeros((0, 2), dtype=np.int32)], [], True
        for start, end in segments(text):
            (offsets,) = tokenizer.offsets([text[start:end]])
            all_visible &= bool((offsets[1:, 0] < offsets[1:, 1]).all())
            spans.append((offsets.reshape(-1, 2) + start).astype(np.int32))
            cuts.append(start)
        # Normalisers can leave a token without characters, at (0, 0): the running maximum puts it
        # where its neighbour ends.
        pairs = np.maximum.accumulate(np.concatenate(spans), axis=0)
        return cls(pairs[:, 0].copy(), pairs[:, 1].copy(), tuple(cuts[1:]), all_visible)

    def __len__(self) -> int:
        return len(self.starts)

    def start(self, token: int) -> int:
        """First character of the token with this number."""
        return int(self.starts[token])

    def first_after(self, character: int) -> int:
        """Number of the first token that holds ``character`` or comes after it."""
        # An int of another type, or a strided array, would copy the array for every search.
        return int(self.ends.searchsorted(np.int32(character), side="right"))

    def between(self, start: int, end: int) -> int | None:
        """Tokens between two seams of the text; None where a cut may have changed them."""
        if not self.all_visible or any(start <= cut <= end for cut in self.cuts):
            return None
        return self.first_after(end) - self.first_after(start)


def segments(
    text: str, n_characters: int = SEGMENT_CHARACTERS, longest_word: int = 0
) -> Iterator[tuple[int, int]]:
    """Spans that cover ``text``, of about ``n_characters``, cut in front of white space.

    That is the last white space in the second half of a span. A span without any grows by at most
    ``longest_word`` to the next white space, else a word is cut.
    """
    start = 0
    while len(text) - start > n_characters:
        end = start + n_characters
        cut = _last_space(text, end - n_characters // 2, end)
        if cut is None:
            space = _SPACE.search(text, end, end + longest_word)
            grown = end + longest_word
            cut = space.start() if space else end if grown < len(text) else len(text)
        yield start, cut
        start = cut
    if start < len(text):
        yield start, len(text)


def count_tokens(text: str, tokenizer: Tokenizer) -> int:
    """Tokens the model sees; for a very long text, the sum over its segments."""
    spans = segments(text, COUNTED_CHARACTERS, LONGEST_WORD)
    pieces = [text[start:end] for start, end in spans] or [""]
    content = sum(tokenizer.count([piece])[0] - tokenizer.n_special for piece in pieces)
    return content + tokenizer.n_special


def _last_space(text: str, low: int, high: int) -> int | None:
    """Index of the last white space in ``text[low:high]``, if there is any."""
    return next((at for at in range(high - 1, low - 1, -1) if text[at].isspace()), None)
