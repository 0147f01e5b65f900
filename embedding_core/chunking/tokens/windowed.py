"""The ``tokens`` strategy: overlapping windows, cut where a reader would cut.

Windows are placed by the tokens of the whole text, then counted again by their edges, because a
tokenizer may split differently at a cut, and where a prompt comes before it. A window that turns
out too long is made shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from embedding_core.chunking.options import LengthOptions, checked_max_tokens, with_lengths
from embedding_core.chunking.tokens.context import OVERLAP_SHARE, fitted, in_context
from embedding_core.chunking.tokens.edges import count_spans
from embedding_core.chunking.tokens.new_text import joined
from embedding_core.chunking.tokens.token_map import SEGMENT_CHARACTERS, TokenMap
from embedding_core.chunking.tokens.windows import Placer, Window
from embedding_core.protocols import Tokenizer
from embedding_core.recipe.chunk import ChunkStrategy
from embedding_core.records import Chunk, Document

BURST_TOKENS = 32_768
"""Tokens placed and counted at a time. After a miscount the chunker starts again with one window,
so that fewer windows are placed in vain than are kept."""

SHORT_CHARACTERS = 3
"""Characters a token up to which a text is counted first: English has 4 to 5, so that it fits."""


class TokenWindows(LengthOptions):
    """Windows of tokens."""

    strategy: Literal["tokens"] = "tokens"
    """``tokens``: windows of at most ``max_tokens``."""


class TokenChunker:
    """Windows of at most ``max_tokens`` that share about ``overlap`` tokens.

    Ends prefer a paragraph in the last half of the window, then a line or sentence in its last
    quarter, then a word; a word is only cut when it is longer than a window. Only a single
    character that alone has more tokens than ``max_tokens`` is ever in a chunk above it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_tokens: int,
        overlap: int = 0,
        min_new_tokens: int = 0,
        context: str | None = None,
    ) -> None:
        """``context`` is embedded before every chunk; see ``fitted``."""
        self._plain = tokenizer
        self._tokenizer = in_context(tokenizer, context)
        self._max_tokens = max_tokens
        self._budget = max(1, max_tokens - self._tokenizer.n_special)
        self._overlap = overlap
        self._fitting_overlap = min(overlap, self._budget // OVERLAP_SHARE)
        self._min_new_tokens = min_new_tokens
        self._context = context

    def chunk(self, document: Document) -> list[Chunk]:
        """See ``Chunker``."""
        context = fitted(document.title, self._plain, self._max_tokens)
        return self.behind(context).cut(document.text)

    def behind(self, context: str | None) -> TokenChunker:
        """The chunker of texts that are embedded behind a context."""
        if context == self._context:
            return self
        return TokenChunker(
            self._plain, self._max_tokens, self._overlap, self._min_new_tokens, context
        )

    def cut(self, text: str) -> list[Chunk]:
        """The chunks of a text. Time is linear in it, apart from the tokenizer's own."""
        start, end = stripped(text)
        if start == end:
            return []
        inner = text[start:end]
        windows = self._short(inner) or self._windows(inner)
        return [
            Chunk(
                index, inner[w.start : w.end], w.start + start, w.end + start, n_tokens,
                self._context,
            )
            for index, (w, n_tokens) in enumerate(windows)
        ]  # fmt: skip

    def _short(self, text: str) -> list[tuple[Window, int]]:
        """The text as one window if it is so short that it should fit, and does: then the positions
        of its tokens are not needed."""
        n_short = min(self._budget * SHORT_CHARACTERS, SEGMENT_CHARACTERS)
        if len(text) > n_short:
            return []
        (n_tokens,) = self._tokenizer.count([text])
        return [(Window(0, len(text)), n_tokens)] if n_tokens <= self._max_tokens else []

    def _windows(self, text: str) -> list[tuple[Window, int]]:
        """Windows over the whole text, each with its tokens."""
        tokens = TokenMap.of(text, self._tokenizer)
        placer = Placer(text, tokens, self._budget, self._fitting_overlap, self._min_new_tokens)
        if len(tokens) <= self._budget and len(text) <= SEGMENT_CHARACTERS:
            whole, n_tokens = Window(0, len(text)), len(tokens) + self._tokenizer.n_special
            if self._tokenizer.merges_at_start:
                (n_tokens,) = self._count(placer, [whole])
            if n_tokens <= self._max_tokens:
                return [(whole, n_tokens)]
        counted = self._fitting(placer)
        return joined(counted, placer, partial(self._count, placer), self._max_tokens)

    def _fitting(self, placer: Placer) -> list[tuple[Window, int]]:
        """Windows over the whole text, each counted and within the limit."""
        kept: list[tuple[Window, int]] = []
        full = max(1, BURST_TOKENS // self._max_tokens)
        burst = full
        while windows := _place(placer, kept[-1][0] if kept else None, burst):
            burst = min(burst * 2, full)
            for window, n_tokens in zip(windows, self._count(placer, windows), strict=True):
                if n_tokens > self._max_tokens:
                    fresh = placer.fresh_after(kept[-1][0] if kept else None)
                    kept.append(self._shrunk(placer, window, fresh, n_tokens))
                    burst = 1
                    break
                kept.append((window, n_tokens))
        return kept

    def _shrunk(
        self, placer: Placer, window: Window, fresh: int, n_tokens: int
    ) -> tuple[Window, int]:
        """A shorter window within the limit that still takes in the text at ``fresh``."""
        budget = placer.planned(window)
        while n_tokens > self._max_tokens and window.end - window.start > 1:
            budget = max(1, budget - (n_tokens - self._max_tokens))
            shorter = placer.from_start(window.start, fresh, budget)
            window = shorter if shorter.end < window.end else _halved(window, fresh)
            (n_tokens,) = self._count(placer, [window])
        return window, n_tokens

    def _count(self, placer: Placer, windows: Sequence[Window]) -> list[int]:
        spans = [(window.start, window.end) for window in windows]
        return count_spans(placer.text, placer.tokens, self._tokenizer, spans)


class Tokens:
    """The strategy ``tokens``."""

    options = TokenWindows

    def settle(self, options: TokenWindows, limit: int) -> TokenWindows:
        """See ``ChunkStrategy``."""
        return with_lengths(options, limit)

    def chunker(self, options: TokenWindows, tokenizer: Tokenizer, limit: int) -> TokenChunker:
        """See ``ChunkStrategy``."""
        max_tokens = checked_max_tokens(options, tokenizer, limit)
        return TokenChunker(tokenizer, max_tokens, options.overlap, options.min_new_tokens)


TOKENS: ChunkStrategy[TokenWindows] = Tokens()


def _place(placer: Placer, previous: Window | None, n_windows: int) -> list[Window]:
    windows: list[Window] = []
    while len(windows) < n_windows and (window := placer.next(previous)) is not None:
        windows.append(window)
        previous = window
    return windows


def _halved(window: Window, fresh: int) -> Window:
    """The window without its overlap, or the first half of a window that has none.

    Helps where a count is above what the tokens explain.
    """
    if window.start < fresh:
        return Window(fresh, window.end)
    return Window(window.start, (window.start + window.end) // 2)


def stripped(text: str) -> tuple[int, int]:
    """Span of the text without white space at its ends; empty for a blank text."""
    start = len(text) - len(text.lstrip())
    return start, max(start, len(text.rstrip()))
