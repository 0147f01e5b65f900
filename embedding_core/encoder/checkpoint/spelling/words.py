"""Token ids put together from words that were met before.

Where a tokenizer's words end at spaces (see ``Tokenizer.seams``), a word's tokens do not depend on
other words. Each distinct word is tokenised once; most words of a language come again and again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

MOST_CHARACTERS = 1_000_000
"""Characters of all the words that are remembered, about 120,000 words in 40 MB; then it starts
afresh, so that a corpus that changes its language is no slower."""

LONGEST_TEXT = 200_000
"""Characters of a text up to which its words are looked up."""

LONG_WORDS = 12
"""Characters a word, on average, from which a text is tokenised whole: its words will hardly come
again (Chinese, addresses, numbers in long lists)."""

_WORD = re.compile(r"\s*\S+(?:[^\S ]\s*\S+)*(?:[^\S ]\s*\Z)?|\s+")
"""A text's parts between seams: a seam lies before each space that follows no white space."""

_BEFORE = "a"
"""What stands before a word that does not begin its text, while its tokens are learned."""

Ids = Sequence[int]


class Words:
    """The words that one tokenizer has met. Threads may share it."""

    def __init__(self, inner: Any, most_characters: int = MOST_CHARACTERS) -> None:
        """``inner``, a ``tokenizers.Tokenizer`` whose words end at spaces."""
        self._inner = inner
        self._most_characters = most_characters
        self._n_before = len(inner.encode(_BEFORE, add_special_tokens=False).ids)
        self._met = _Met()

    def ids(self, texts: Sequence[str]) -> list[Ids | None]:
        """Token ids of each text as it is, without special tokens; None for a text whose words are
        better not remembered. Raises ``TypeError`` for text that is not valid Unicode."""
        met = self._met
        words = [_words(text) for text in texts]
        try:
            return [met.ids(of_text) for of_text in words]
        except KeyError:
            self._learn(met, [of_text for of_text in words if of_text])
        if met.n_characters > self._most_characters:
            self._met = _Met()
        return [met.ids(of_text) for of_text in words]

    def _learn(self, met: _Met, words: Sequence[Sequence[str]]) -> None:
        first = list({of_text[0] for of_text in words}.difference(met.first))
        later = list({word for of_text in words for word in of_text[1:]}.difference(met.later))
        texts = first + [_BEFORE + word for word in later]
        encodings = self._inner.encode_batch_fast(texts, add_special_tokens=False)
        tokens = [tuple(encoding.ids) for encoding in encodings]
        met.first.update(zip(first, tokens[: len(first)], strict=True))
        behind = (ids[self._n_before :] for ids in tokens[len(first) :])
        met.later.update(zip(later, behind, strict=True))
        met.n_characters += sum(map(len, texts))


def _words(text: str) -> Sequence[str] | None:
    if len(text) > LONGEST_TEXT:
        return None
    words = _WORD.findall(text)
    return words if len(text) <= LONG_WORDS * len(words) else None


class _Met:
    """Words and their tokens."""

    def __init__(self) -> None:
        self.first: dict[str, tuple[int, ...]] = {}
        """Words that begin a text: some tokenizers put a space before those."""
        self.later: dict[str, tuple[int, ...]] = {}
        self.n_characters = 0

    def ids(self, words: Sequence[str] | None) -> Ids | None:
        """Raises ``KeyError`` for a word that was not met."""
        if not words:
            return None if words is None else ()
        later = map(self.later.__getitem__, words[1:])
        return [*self.first[words[0]], *chain.from_iterable(later)]
