"""Placing windows over a document: where each chunk starts and ends, before it is counted.

Works on a text and its token map; positions are characters. Every window takes in text that the
one before it did not have, so no chunk is pure overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

from embedding_core.chunking.tokens.boundaries import (
    PARAGRAPH,
    SENTENCE,
    WORD,
    joins,
    last_boundary,
    word_boundaries,
)
from embedding_core.chunking.tokens.token_map import TokenMap

BACK_OFF = {PARAGRAPH: 2, SENTENCE: 4, WORD: 4}
"""Kinds of boundary, best first: each is taken in the last 1/n of the window. Paragraphs are
taken in its last half, so that soon after an edit windows end where they did before."""


@dataclass(frozen=True, slots=True)
class Window:
    """A span of the text without white space at its ends."""

    start: int
    """First character."""
    end: int
    """Character after the last one."""


class Placer:
    """Places windows of at most ``budget`` content tokens over one text."""

    def __init__(
        self, text: str, tokens: TokenMap, budget: int, overlap: int, min_new_tokens: int = 0
    ) -> None:
        self.text = text
        self.tokens = tokens
        self.budget = budget
        self.overlap = overlap
        self.min_new_tokens = min_new_tokens

    def next(self, previous: Window | None) -> Window | None:
        """The window after ``previous`` (None: the first); None when nothing is left."""
        fresh = self.fresh_after(previous)
        if fresh == len(self.text):
            return None
        start = fresh if previous is None else self.overlapping(previous, fresh)
        return self.from_start(start, fresh, self.budget)

    def fresh_after(self, previous: Window | None) -> int:
        """First character that is in no window yet."""
        return self.skip_space(previous.end if previous else 0)

    def planned(self, window: Window) -> int:
        """Content tokens the whole text has within the window."""
        return self.tokens.first_after(window.end - 1) + 1 - self.tokens.first_after(window.start)

    def from_start(self, start: int, fresh: int, budget: int) -> Window:
        """The window of at most ``budget`` tokens that starts at ``start``, or, when that leaves
        no room for the text from ``fresh`` on, at ``fresh``."""
        end = self._end(start, fresh, budget)
        if end is None and start < fresh:
            start = fresh
            end = self._end(start, fresh, budget)
        if end is None:
            end = self._inside_word(start, budget)
        return Window(start, self.trim(start, end))

    def _end(self, start: int, fresh: int, budget: int) -> int | None:
        """The best end of the window after ``fresh``; None when a word has to be cut."""
        first = self.tokens.first_after(start)
        if first + budget >= len(self.tokens):
            return len(self.text)
        high = self.skip_space(self.tokens.start(first + budget))
        enough = min(self.tokens.first_after(fresh) + self.min_new_tokens, first + budget)
        for kind, fraction in BACK_OFF.items():
            earliest = max(first + budget - budget // fraction, enough)
            low = max(self.tokens.start(earliest), fresh + 1)
            if (at := last_boundary(kind, self.text, low, high)) is not None:
                return at
        return last_boundary(WORD, self.text, fresh + 1, high)

    def _inside_word(self, start: int, budget: int) -> int:
        """A cut between two tokens of a word that is longer than a window."""
        first = self.tokens.first_after(start)
        last = min(first + budget, len(self.tokens) - 1)
        for token in range(last, first, -1):
            at = self.tokens.start(token)
            if at > start and not joins(self.text, at):
                return at
        return max(self.tokens.start(last), start + 1)

    def overlapping(self, previous: Window, fresh: int) -> int:
        """Where the next window starts: about ``overlap`` tokens before ``fresh``, at a word."""
        if not self.overlap:
            return fresh
        after = self.tokens.first_after(fresh)
        ideal = self.tokens.start(max(after - self.overlap, 0))
        low = self.tokens.start(max(after - self.overlap - self.overlap // 2, 0))
        low = max(low, previous.start + 1)
        words = [at for at in word_boundaries(self.text, low, fresh) if at < fresh]
        if words:
            return self.skip_space(min(words, key=lambda at: abs(at - ideal)))
        return self._token_start(max(ideal, low), fresh)

    def _token_start(self, at: int, fresh: int) -> int:
        """Where the overlap starts when no word starts within it: at a token inside a word that was
        cut anyway; else the words are longer than the overlap, and the window starts at ``fresh``.
        """
        if self.text[fresh - 1].isspace():
            return fresh
        token = self.tokens.first_after(at)
        while token < len(self.tokens) and self.tokens.start(token) < fresh:
            start = self.tokens.start(token)
            if start >= at and not joins(self.text, start) and not self.text[start].isspace():
                return start
            token += 1
        return fresh

    def skip_space(self, at: int) -> int:
        """The first character from ``at`` on that is not white space, or the end."""
        while at < len(self.text) and self.text[at].isspace():
            at += 1
        return at

    def trim(self, start: int, end: int) -> int:
        """The end of a window without the white space before it."""
        while end > start and self.text[end - 1].isspace():
            end -= 1
        return end
