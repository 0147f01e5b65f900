"""Where a text has the words of a query, for people who look why it was found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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


def marks_of(query: str, text: str) -> list[Mark]:
    """Spans of the words in ``text`` that a query has too, whatever their case and ending."""
    words = {match.group().casefold() for match in _WORD.finditer(query)}
    words = {word for word in words if word not in COMMON} or words
    spaced = sorted(word for word in words if not _WITHOUT_SPACES.search(word))
    unspaced = sorted(words.difference(spaced), key=len, reverse=True)
    marks: list[Mark] = []
    for span in sorted([*_marked_words(spaced, text), *_marked_parts(unspaced, text)]):
        if len(marks) == MOST_MARKS:
            break
        if not marks or span[0] >= marks[-1][1]:
            marks.append(span)
    return marks


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


def _marked_words(words: Sequence[str], text: str) -> Iterator[Mark]:
    if not words:
        return
    for match in _WORD.finditer(text):
        if any(_same_stem(match.group().casefold(), word) for word in words):
            yield match.span()


def _same_stem(first: str, second: str) -> bool:
    short, long = sorted((first, second), key=len)
    if short == long:
        return True
    ending = len(long) - len(short)
    return len(short) >= SHORTEST_STEM and ending <= LONGEST_ENDING and long.startswith(short)


def _marked_parts(words: Sequence[str], text: str) -> Iterator[Mark]:
    for word in words:
        yield from (match.span() for match in re.finditer(re.escape(word), text))


def _before_a_word(text: str, position: int) -> int:
    """The nearest position before, at which a word begins; the same where none is near."""
    if position <= 0 or position >= len(text):
        return max(0, min(position, len(text)))
    space = text.rfind(" ", max(0, position - 24), position)
    return position if space < 0 else space + 1
