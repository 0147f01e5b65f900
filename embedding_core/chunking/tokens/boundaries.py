"""Where a text may be cut: at paragraphs, at lines and sentences, between words.

Scripts without spaces (Han, kana) may be cut between any two of their characters, except in front
of closing punctuation. No boundary lies between a character and the marks that combine with it.
"""

from __future__ import annotations

import re
import unicodedata

_IDEOGRAPH = "\u3040-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CLOSING = "、。，．！？：；）」』】〉》ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ"

# Kinds of boundary; a boundary is where a match ends.
# Possessive quantifiers and look-behinds keep a run of dots or quotes from being tried again from
# each of its characters.
PARAGRAPH = re.compile(r"\n[^\S\n]*+\n\s*+")
SENTENCE = re.compile(r"\n\s*+|(?<=[.!?…])[\"'”’)\]]*+\s++|(?<=[。！？｡])[」』）”’]*+\s*+")
WORD = re.compile(rf"\s++|(?:(?<=[{_IDEOGRAPH}])|(?=[{_IDEOGRAPH}]))(?![{_CLOSING}])")

ZERO_WIDTH_JOINER = "\u200d"
SKIN_TONES = ("\U0001f3fb", "\U0001f3ff")


def last_boundary(kind: re.Pattern[str], text: str, low: int, high: int) -> int | None:
    """The last boundary at ``low`` or after it and at ``high`` or before it."""
    last = None
    for match in kind.finditer(text, max(0, low - 1), high + 1):
        if low <= match.end() <= high and not joins(text, match.end()):
            last = match.end()
    return last


def word_boundaries(text: str, low: int, high: int) -> list[int]:
    """Every place from ``low`` to before ``high`` where a word starts, ascending."""
    places = [] if low else [0]
    for match in WORD.finditer(text, max(0, low - 1), high + 1):
        at = match.end()
        if low <= at < high and not joins(text, at) and (not places or at > places[-1]):
            places.append(at)
    return places


def joins(text: str, at: int) -> bool:
    """Whether the character at ``at`` belongs to the one before it."""
    if not 0 < at < len(text):
        return False
    here = text[at]
    if here < "\u0300":  # Latin and below: nothing there combines
        return False
    if here == ZERO_WIDTH_JOINER or text[at - 1] == ZERO_WIDTH_JOINER:
        return True
    return unicodedata.category(here).startswith("M") or SKIN_TONES[0] <= here <= SKIN_TONES[1]
