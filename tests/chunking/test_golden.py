"""Texts of every kind are cut where they always were: rows of existing tables depend on it.

A digest that differs here moves chunks in every table: their texts would be cut and embedded again.
"""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from embedding_core.chunking import Tokenizer
from embedding_core.chunking.tokens.windowed import TokenChunker
from tests.chunking.tokenizers import WordTokenizer
from tests.models import describe

UNITS = {
    "prose": ["The ", "quick brown ", "fox, ", "jumps. ", "Over\n", "the lazy dog!\n\n", "naïve "],
    "code": ["def f(x):\n", "    return ", "x[1:-1] ", "# note\n", "self._items.append(", ")\n\n"],
    "typeset": ["“Well,” ", "she said… ", "it’s ", "— no ", "½ of ", "20\u202f000 € ", "end.\n\n"],
    "Chinese": ["他说的话", "很长，", "但是没有空格。", "「是吗？」", "\n"],
    "Japanese": ["カﾞ", "漢字かな", "、", "か\u3099。", "ラーメン ", "々"],
    "marks": ["e\u0301", "\u0301 ", "क्षि ", "👩🏽‍💻", "🇫🇷 ", "שָׁלוֹם ", "ﷺ ", "a\u200db "],
    "odd": ["\x00", "\ufeff", "\x1c", "\x85", "\u2028", "\xad", "##", "[UNK] ", "ﬁ ", "İ ", "Σς "],
    "long words": ["x" * 130, " ", "/".join("abc" * 9), "-" * 95, " a\t", "é" * 101],
}
SETTINGS = [(16, 0), (40, 9), (128, 16)]


def text_of(name: str) -> str:
    chance = random.Random(name)
    return "".join(chance.choice(UNITS[name]) for _ in range(400))


def digest_of(name: str, tokenizer: Tokenizer) -> str:
    """Of the chunks of a text and of a short one, with every setting."""
    text = text_of(name)
    chunks = [
        (chunk.char_start, chunk.char_end, chunk.n_tokens)
        for setting in SETTINGS
        for part in (text, text[:60])
        for chunk in TokenChunker(tokenizer, *setting).cut(part)
    ]
    return sha256(repr(chunks).encode()).hexdigest()[:12]


DIGESTS = {
    "prose": ("3826fe957cab", "3826fe957cab", "c5c9d5f628c8"),
    "code": ("3c8ec5ccce5b", "96445f570d6a", "0eb2c16e93a0"),
    "typeset": ("bdb46c90e884", "1106ce6ef021", "437001bc39c1"),
    "Chinese": ("5e038461a98c", "9aa2f2e9e475", "c797a262cdc0"),
    "Japanese": ("f8b9a0716527", "430541b3181e", "11f56aca868b"),
    "marks": ("8f05d178bb38", "da5895ffc709", "060e402f6bb9"),
    "odd": ("4d804bfca3f2", "ead16cb74397", "ff810057fd1f"),
    "long words": ("b1e319817a8b", "44aa86abeb46", "b15173357a73"),
}
"""By text: with words for tokens, with MiniLM's tokenizer, and with a document prompt before it."""


@pytest.mark.slow
@pytest.mark.parametrize("name", UNITS)
def test_chunks_of_a_text_are_where_they_always_were(name: str, minilm: str) -> None:
    info = describe(minilm)
    kinds = WordTokenizer(), info.tokenizer_for(""), info.tokenizer_for("passage: ")
    assert tuple(digest_of(name, tokenizer) for tokenizer in kinds) == DIGESTS[name]
