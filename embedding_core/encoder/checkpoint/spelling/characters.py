"""What a tokenizer makes of single characters, learned as texts bring them.

It answers for whole texts what would take tokenising them: whether any word could be unknown, and,
for BERT's tokenizers, where the tokens lie. The library's own offsets take half as long again as
the tokens, and are Python objects.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers.models import WordLevel, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from embedding_core.protocols import Offsets

_IN_NO_VOCABULARY = "\U0010ffff"
"""A code point that Unicode will never give a meaning."""

LONG_WORD = 90
"""WordPiece takes a word of more than 100 characters for unknown, whatever it is made of."""
_LONG_WORD = re.compile(rf"\S{{{LONG_WORD}}}")

_JAMO = "\u1160", "\u11ff"
"""Hangul vowels and finals, which join the letter before them."""

_IS_SPACE = np.array([chr(code).isspace() for code in range(0x3002)], dtype=np.bool_)
"""Whether a code point is white space; the last entry stands for all above it."""


class Characters:
    """The characters that one tokenizer has met."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        tokens = inner.model.tokenize(_IN_NO_VOCABULARY)
        self.unknown_id: int | None = tokens[0].id if len(tokens) == 1 else None
        """The token that stands for what the vocabulary cannot spell; None if it spells all."""
        self._bert: _Bert | None = None
        if self.unknown_id is not None and _is_bert(inner):
            self._bert = _Bert(inner, self.unknown_id)
        self._met: set[str] = set()
        self._spelt: set[str] = set()
        self._plain: set[str] = set()

    def may_be_unknown(self, text: str) -> bool:
        """Whether a word of the text may be unknown; False is certain."""
        if self.unknown_id is None:
            return False
        return _has_long_word(text) or not self._all_in(self._spelt, text)

    def are_plain(self, text: str) -> bool:
        """Whether the ids of the text's tokens may tell their offsets."""
        return self._bert is not None and self._all_in(self._plain, text)

    def offsets(self, text: str, ids: Sequence[int]) -> Offsets | None:
        """The offsets of a plain text's tokens; None where only the library can tell."""
        return None if self._bert is None else self._bert.offsets(text, ids)

    def _all_in(self, chars: set[str], text: str) -> bool:
        if chars.issuperset(text):
            return True
        self._learn(set(text) - self._met)
        return chars.issuperset(text)

    def _learn(self, chars: set[str]) -> None:
        """Sort new characters: ``_spelt`` are those that make no word unknown, at its start or
        within it; a vocabulary of whole words spells nothing. ``_plain`` are spelt, too."""
        self._met |= chars
        self._spelt.update(filter(str.isspace, chars))
        if not isinstance(self._inner.model, WordLevel):
            alone = [char for char in chars if not char.isspace() and _stands_alone(char)]
            words = [word for char in alone for word in (char, char * 3)]
            encodings = self._inner.encode_batch_fast(words, add_special_tokens=False)
            is_spelt = [self.unknown_id not in encoding.ids for encoding in encodings]
            pairs = zip(alone, is_spelt[::2], is_spelt[1::2], strict=True)
            self._spelt.update(char for char, first, within in pairs if first and within)
        if self._bert is not None:
            self._plain.update(filter(self._bert.is_plain, chars & self._spelt))


class _Bert:
    """BERT's tokens: each covers its own length of the text, and only white space is in none."""

    def __init__(self, inner: tokenizers.Tokenizer, unknown_id: int) -> None:
        self._normalizer: Any = inner.normalizer
        self._splitter: Any = inner.pre_tokenizer
        vocabulary = inner.get_vocab(with_added_tokens=True)
        self._lengths = np.zeros(1 + max(vocabulary.values()), dtype=np.int64)
        for token, number in inner.get_vocab(with_added_tokens=False).items():
            self._lengths[number] = len(token.removeprefix("##"))
        self._lengths[[unknown_id, *inner.get_added_tokens_decoder()]] = 0

    def is_plain(self, char: str) -> bool:
        """Whether the character ends words and is in no token, or is one character of a token."""
        spans = self._splitter.pre_tokenize_str(self._normalizer.normalize_str(f"a{char}a"))
        words = [word for word, _ in spans]
        return words == ["a", "a"] if char.isspace() else sum(map(len, words)) == 3

    def offsets(self, text: str, ids: Sequence[int]) -> Offsets | None:
        """Offsets of the tokens of a text of plain characters; None with a token that does not say
        what it covers."""
        lengths = self._lengths[np.array(ids, dtype=np.int64)]
        codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        visible = np.flatnonzero(~_IS_SPACE[np.minimum(codes, len(_IS_SPACE) - 1)])
        if not lengths.all() or lengths.sum() != len(visible):
            return None
        ends = lengths.cumsum()
        return np.column_stack((visible[ends - lengths], visible[ends - 1] + 1))


def _is_bert(inner: tokenizers.Tokenizer) -> bool:
    return (
        isinstance(inner.model, WordPiece)
        and inner.model.continuing_subword_prefix == "##"
        and isinstance(inner.normalizer, BertNormalizer)
        and isinstance(inner.pre_tokenizer, BertPreTokenizer)
    )


def _has_long_word(text: str) -> bool:
    start = 0
    while len(text) - start >= LONG_WORD:  # from space to space, as far as each reaches
        space = text.rfind(" ", start, start + LONG_WORD)
        if space < 0:
            return _LONG_WORD.search(text, start) is not None
        start = space + 1
    return False


def _stands_alone(char: str) -> bool:
    """Whether no normaliser joins the character to the one before it; never half of a pair."""
    first = unicodedata.normalize("NFKD", char)[0]
    joins = unicodedata.category(first) in ("Mn", "Mc", "Me", "Cf", "Cs")
    return not joins and not _JAMO[0] <= first <= _JAMO[1]
