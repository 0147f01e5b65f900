"""Where a text has the words of a query, for people who look why it was found."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
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
_LETTERS = r"\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WITHOUT_SPACES = re.compile(f"[{_LETTERS}]")
"""Scripts that put no spaces between words: a word of theirs is looked for within others."""


class Highlighter:
    """Finds the words of a query in texts, whatever their case and ending.

    Looks at each word of a text once, however many words the query has.
    """

    def __init__(self, query: str) -> None:
        words = {match.group().lower() for match in _WORD.finditer(query)}
        words = {word for word in words if word not in COMMON} or words
        self._parts = {word for word in words if _WITHOUT_SPACES.search(word)}
        self._words = words - self._parts
        self._by_stem: dict[str, list[str]] = {}
        for word in self._words:
            if len(word) >= SHORTEST_STEM:
                self._by_stem.setdefault(word[:SHORTEST_STEM], []).append(word)
        self._spans = _spans(self._parts)

    def marks(self, text: str) -> list[Mark]:
        """Spans of the words in a text, in order and apart; the first ``MOST_MARKS``."""
        if not self._words and not self._parts:
            return []
        fitting = (m.span() for m in self._spans.finditer(text) if self._fits(m.group().lower()))
        return list(islice(fitting, MOST_MARKS))

    def _fits(self, word: str) -> bool:
        """Whether a word of a text is one of the query, with another ending or without one."""
        if word in self._words or word in self._parts:
            return True
        return any(
            _differ_in_their_ending(word, asked)
            for asked in self._by_stem.get(word[:SHORTEST_STEM], ())
        )


def _spans(parts: Collection[str]) -> re.Pattern[str]:
    """What to look at in a text: the parts, and the words of scripts with spaces."""
    word = rf"[^\W{_LETTERS}]+"
    if not parts:
        return re.compile(word)
    # Almost nowhere do all parts have to be tried: a look at the first letter says so.
    first = "".join(sorted({re.escape(part[0]) for part in parts}))
    longest_first = "|".join(map(re.escape, sorted(parts, key=len, reverse=True)))
    return re.compile(f"(?=[{first}])(?:{longest_first})|{word}", re.IGNORECASE)


def _differ_in_their_ending(word: str, other: str) -> bool:
    """Whether one of two words is the other with at most ``LONGEST_ENDING`` more letters."""
    short, long = sorted((word, other), key=len)
    return long.startswith(short) and len(long) - len(short) <= LONGEST_ENDING


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
