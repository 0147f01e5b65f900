"""The ``tokens`` strategy: overlapping windows, cut where a reader would cut.

Windows are placed by the tokens of the whole text, then counted again by their edges, because a
tokenizer may split differently at a cut, and where a prompt comes before it. A window that turns
out too long is made shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal, Self

from pydantic import Field, model_validator

from embedding_core.chunking.tokens.boundaries import joins, word_boundaries
from embedding_core.chunking.tokens.edges import count_spans
from embedding_core.chunking.tokens.token_map import SEGMENT_CHARACTERS, TokenMap
from embedding_core.chunking.tokens.windows import Placer, Window
from embedding_core.errors import UsageError
from embedding_core.protocols import Tokenizer
from embedding_core.recipe.chunk import ChunkOptions, ChunkStrategy
from embedding_core.records import Chunk, Document

BURST_TOKENS = 32_768
"""Tokens placed and counted at a time. After a miscount the chunker starts again with one window,
so that fewer windows are placed in vain than are kept."""

SHORT_CHARACTERS = 3
"""Characters a token up to which a text is counted first: English has 4 to 5, so that it fits."""

TAIL_TRIES = 8
"""Starts tried for a last chunk that has to grow to ``min_tokens``."""


DEFAULT_MAX_TOKENS = 512
"""Longest chunk when the recipe does not say, unless the model takes less."""


class TokenWindows(ChunkOptions):
    """Windows of tokens. Lengths are in tokens the model sees, special tokens included."""

    strategy: Literal["tokens"] = "tokens"
    """``tokens``: windows of at most ``max_tokens``."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Longest chunk; default: 512, or what the model takes if that is less."""
    overlap: int = Field(default=0, ge=0)
    """Tokens a chunk repeats of the one before it."""
    min_tokens: int = Field(default=1, ge=1)
    """A shorter last chunk starts earlier, until it has this length; no text is lost."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_tokens is not None and self.overlap * 2 > self.max_tokens:
            raise ValueError(
                f"overlap {self.overlap} is more than half of max_tokens {self.max_tokens}; "
                f"use at most {self.max_tokens // 2}"
            )
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}; lower it"
            )
        return self


class TokenChunker:
    """Windows of at most ``max_tokens`` that share about ``overlap`` tokens.

    Ends prefer a paragraph in the last half of the window, then a line or sentence in its last
    quarter, then a word; a word is only cut when it is longer than a window. A last chunk shorter
    than ``min_tokens`` grows backwards, over words, as far as ``max_tokens`` allows. Only a single
    character that alone has more tokens than ``max_tokens`` is ever in a chunk above it.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_tokens: int, overlap: int = 0, min_tokens: int = 1
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._budget = max_tokens - tokenizer.n_special
        self._overlap = overlap
        self._min_tokens = min_tokens

    def chunk(self, document: Document) -> list[Chunk]:
        """See ``Chunker``."""
        return self.cut(document.text)

    def cut(self, text: str) -> list[Chunk]:
        """The chunks of a text. Time is linear in it, apart from the tokenizer's own."""
        start, end = stripped(text)
        if start == end:
            return []
        inner = text[start:end]
        windows = self._short(inner) or self._windows(inner)
        return [
            Chunk(index, inner[w.start : w.end], w.start + start, w.end + start, n_tokens)
            for index, (w, n_tokens) in enumerate(windows)
        ]

    def _short(self, text: str) -> list[tuple[Window, int]]:
        """The text as one window if it is so short that it should fit, and does: then the positions
        of its tokens are not needed."""
        n_short = min(self._budget * SHORT_CHARACTERS, SEGMENT_CHARACTERS)
        if self._tokenizer.merges_at_start or len(text) > n_short:
            return []
        (n_tokens,) = self._tokenizer.count([text])
        return [(Window(0, len(text)), n_tokens)] if n_tokens <= self._max_tokens else []

    def _windows(self, text: str) -> list[tuple[Window, int]]:
        """Windows over the whole text, each with its tokens."""
        tokens = TokenMap.of(text, self._tokenizer)
        placer = Placer(text, tokens, self._budget, self._overlap)
        if len(tokens) <= self._budget and len(text) <= SEGMENT_CHARACTERS:
            whole, n_tokens = Window(0, len(text)), len(tokens) + self._tokenizer.n_special
            if self._tokenizer.merges_at_start:
                (n_tokens,) = self._count(placer, [whole])
            if n_tokens <= self._max_tokens:
                return [(whole, n_tokens)]
        return self._grow_tail(placer, self._fitting(placer))

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

    def _grow_tail(
        self, placer: Placer, counted: list[tuple[Window, int]]
    ) -> list[tuple[Window, int]]:
        """Let a short last window start earlier; windows it then holds whole are left out."""
        last, n_tokens = counted[-1]
        if n_tokens >= self._min_tokens or len(counted) == 1:
            return counted
        starts = self._tail_starts(placer, last)
        grown = [Window(start, last.end) for start in starts]
        for window, longer in zip(grown, self._count(placer, grown), strict=True):
            if self._min_tokens <= longer <= self._max_tokens:
                return [*_needed_before(window, counted[:-1]), (window, longer)]
        return counted

    def _tail_starts(self, placer: Placer, last: Window) -> list[int]:
        """Starts that give the last window ``min_tokens``, the latest first: words, or tokens
        where the window lies inside one long word."""
        tokens = placer.tokens
        latest = max(len(tokens) - (self._min_tokens - self._tokenizer.n_special), 0)
        lowest = max(len(tokens) - placer.budget, 0)
        words = word_boundaries(placer.text, tokens.start(lowest), last.start)
        if words:
            starts = [at for at in words if at <= tokens.start(latest)]
        else:
            starts = [tokens.start(token) for token in range(lowest, latest + 1)]
        safe = (
            at
            for at in reversed(starts)
            if at < last.start and not placer.text[at].isspace() and not joins(placer.text, at)
        )
        return list(islice(safe, TAIL_TRIES))


class Tokens:
    """The strategy ``tokens``."""

    options = TokenWindows

    def settle(self, options: TokenWindows, limit: int) -> TokenWindows:
        """See ``ChunkStrategy``."""
        max_tokens = options.max_tokens
        if max_tokens is None:
            max_tokens = min(DEFAULT_MAX_TOKENS, limit)
        if max_tokens > limit:
            raise UsageError(
                f"chunk.max_tokens {max_tokens} is above the model's limit of {limit} tokens; "
                f"use at most {limit}, or a model that takes more"
            )
        if options.overlap * 2 > max_tokens:
            raise UsageError(
                f"chunk.overlap {options.overlap} is more than half of chunk.max_tokens "
                f"{max_tokens}; use at most {max_tokens // 2}"
            )
        if options.min_tokens > max_tokens:
            raise UsageError(
                f"chunk.min_tokens {options.min_tokens} is above chunk.max_tokens {max_tokens}; "
                "lower it"
            )
        return options.model_copy(update={"max_tokens": max_tokens})

    def chunker(self, options: TokenWindows, tokenizer: Tokenizer, limit: int) -> TokenChunker:
        """See ``ChunkStrategy``."""
        if options.max_tokens is None:
            raise UsageError("chunk.max_tokens is not settled; call `chunking.settled` first")
        self.settle(options, limit)
        if options.max_tokens <= tokenizer.n_special:
            raise UsageError(
                f"chunk.max_tokens {options.max_tokens} leaves no room beside the model's "
                f"{tokenizer.n_special} special tokens; raise it"
            )
        return TokenChunker(tokenizer, options.max_tokens, options.overlap, options.min_tokens)


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


def _needed_before(last: Window, counted: list[tuple[Window, int]]) -> list[tuple[Window, int]]:
    """The windows that hold text which neither ``last`` nor the window before them has."""
    needed = [entry for entry in counted if entry[0].start < last.start]
    while len(needed) > 1 and needed[-2][0].end >= last.start:
        needed.pop()
    return needed


def stripped(text: str) -> tuple[int, int]:
    """Span of the text without white space at its ends; empty for a blank text."""
    start = len(text) - len(text.lstrip())
    return start, max(start, len(text.rstrip()))
