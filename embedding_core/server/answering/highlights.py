"""Where a text has the words of a query, for people who look why it was found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

Mark = tuple[int, int]
"""First character, and the one after the last, in characters, 0-based."""

MOST_MARKS = 200
"""Marks of a text."""
SHORTEST_STEM, LONGEST_ENDING = 4, 4
"""``catch`` marks ``catching``: a word of at least 4 letters with at most 4 more."""
SNIPPET_CHARACTERS = 420
"""Length of the part of a long text that is shown at first."""
COMMON = frozenset([
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for", "from", "had",
    "has", "have", "how", "i", "if", "in", "is", "it", "its", "not", "of", "on", "or", "so",
    "that", "the", "their", "there", "they", "this", "to", "was", "we", "were", "what", "when",
    "where", "which", "who", "why", "will", "with", "you",
])  # fmt: skip
"""Words that say nothing of a text; they are marked when a query has no others."""

_WORD = re.compile(r"\w+")
_WITHOUT_SPACES = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Scripts that put no spaces between words."""


class Highlighter:
    """Finds the words of a query in texts, whatever their case and ending."""

    def __init__(self, query: str) -> None:
        words = {match.group().lower() for match in _WORD.finditer(query)}
        words = {word for word in words if word not in COMMON} or words
        patterns = map(_pattern, sorted(words, key=len, reverse=True))
        self._words = re.compile("|".join(patterns), re.IGNORECASE) if words else None

    def marks(self, text: str) -> list[Mark]:
        """Spans of the words in a text, in order and apart; the first ``MOST_MARKS``."""
        if self._words is None:
            return []
        return [match.span() for match in islice(self._words.finditer(text), MOST_MARKS)]


def _pattern(word: str) -> str:
    """A word as a pattern: itself, with an ending, or what is left of it without one.

    ``catching`` becomes ``catc(?:h(?:i(?:n(?:g\\w{0,4})?)?)?)?`` between the edges of a word.
    """
    if _WITHOUT_SPACES.search(word):
        return re.escape(word)
    if len(word) < SHORTEST_STEM:
        return rf"\b{re.escape(word)}\b"
    n_fixed = max(SHORTEST_STEM, len(word) - LONGEST_ENDING)
    ending = rf"\w{{0,{LONGEST_ENDING}}}"
    for letter in reversed(word[n_fixed:]):
        ending = f"(?:{re.escape(letter)}{ending})?"
    return rf"\b{re.escape(word[:n_fixed])}{ending}\b"


def snippet_of(text: str, marks: Sequence[Mark]) -> Mark:
    """The part of a text that has most marks, about ``SNIPPET_CHARACTERS`` long."""
    if len(text) <= SNIPPET_CHARACTERS * 5 // 4:
        return 0, len(text)
    starts = [start for start, _ in marks]
    best = max(
        starts,
        key=lambda start: (sum(start <= at < start + SNIPPET_CHARACTERS for at in starts), -start),
        default=0,
    )
    begin = max(0, min(best - SNIPPET_CHARACTERS // 6, len(text) - SNIPPET_CHARACTERS))
    return _before_a_word(text, begin), _before_a_word(text, begin + SNIPPET_CHARACTERS)


def _before_a_word(text: str, position: int) -> int:
    """The nearest position before, at which a word begins; the same where none is near."""
    if position <= 0 or position >= len(text):
        return max(0, min(position, len(text)))
    space = text.rfind(" ", max(0, position - 24), position)
    return position if space < 0 else space + 1
