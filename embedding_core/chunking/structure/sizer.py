"""How large a piece of a text is to a splitter: the model's own count, without tokenising it again.

A splitter asks for the size of many pieces of one text, each a little longer or shorter than the
last. A piece is looked up in the text, whose tokens are known, and counted by its edges.
"""

from __future__ import annotations

from collections import deque

from embedding_core.chunking.tokens.edges import count_spans
from embedding_core.chunking.tokens.token_map import TokenMap
from embedding_core.protocols import Tokenizer

REMEMBERED = 64
"""Pieces whose place is remembered: more than a splitter asks for between two chunks."""


CERTAINLY_TOO_LARGE = 2
"""A piece with more than n times the tokens that fit is not counted exactly: cuts change few."""


class Sizer:
    """Counts the content tokens of pieces of one text, white space at their ends left out.

    The count is exact for every piece that may have no more than ``capacity`` tokens.
    """

    def __init__(self, text: str, tokens: TokenMap, tokenizer: Tokenizer, capacity: int) -> None:
        self._certain = capacity * CERTAINLY_TOO_LARGE
        self._text = text
        self._tokens = tokens
        self._tokenizer = tokenizer
        self._starts = deque([0], maxlen=REMEMBERED)

    def __call__(self, piece: str) -> int:
        """The tokens of a piece."""
        piece = piece.strip()
        if not piece:
            return 0
        # Pieces come in the order of the text, so that no piece starts before the earliest of the
        # last ones. Equal pieces have equal counts: which of them is met makes no difference.
        start = self._text.find(piece, min(self._starts))
        if start < 0:
            (n_tokens,) = self._tokenizer.count([piece])
        else:
            self._starts.append(start)
            span = (start, start + len(piece))
            tokens = self._tokens
            planned = tokens.first_after(span[1] - 1) + 1 - tokens.first_after(start)
            if planned > self._certain:
                return planned
            (n_tokens,) = count_spans(self._text, self._tokens, self._tokenizer, [span])
        return n_tokens - self._tokenizer.n_special
