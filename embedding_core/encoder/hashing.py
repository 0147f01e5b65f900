"""A deterministic encoder without a model: for tests, dry runs and measuring everything else.

Feature hashing (Weinberger et al. 2009, arXiv:0902.2206): words and their character trigrams are
signed counts in ``dim`` buckets. Texts that share words are similar, whatever they mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, sha256

import numpy as np

from embedding_core.encoder.base import Encoder, InvalidText
from embedding_core.encoder.engines import ModelInfo
from embedding_core.encoder.stream import Piece, Rows, refuse_bare_string
from embedding_core.errors import ModelError
from embedding_core.protocols import Kind, Offsets, Vectors
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.records import Space

NAME = "hashing"
DEFAULT_DIM = 256
DEFAULT_MAX_TOKENS = 8192
RULES = "hashing-1"
"""Version of the rules; it changes when the same text would get another vector."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
_TRIGRAM_WEIGHT = 0.3
"""Small against a word's own weight: "catching" is near "catch" but not the same."""
_LONG_WORD = 8
"""Characters from which a word counts fully; short words are mostly grammar."""


def _space(dim: int | None, max_tokens: int | None) -> Space:
    return Space(
        model=NAME,
        revision=None,
        identity=(sha256(RULES.encode()).hexdigest(),),
        tokenizer=sha256(_TOKEN.pattern.encode()).hexdigest(),
        pooling="mean",
        query_prompt="",
        document_prompt="",
        max_tokens=DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens,
        dim=DEFAULT_DIM if dim is None else dim,
        dtype_class="full",
    )


class HashingTokenizer:
    """Words and punctuation marks, each one token; no special tokens."""

    n_special = 0
    merges_at_start = False
    seams = (re.compile(r"\S(?= )"),)

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """Per text an (n_tokens, 2) array of character offsets."""
        refuse_bare_string(texts)
        return [
            np.array([m.span() for m in _TOKEN.finditer(text)], dtype=np.int64).reshape(-1, 2)
            for text in texts
        ]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens per text."""
        refuse_bare_string(texts)
        return [sum(1 for _ in _TOKEN.finditer(text)) for text in texts]

    def unknown_shares(self, texts: Sequence[str]) -> list[float]:
        """Zeros: every word has features."""
        return [0.0] * len(texts)


class HashingEncoder(Encoder):
    """The encoder; deterministic across runs, processes and machines."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.tokenizer = HashingTokenizer()

    def encode_pieces(self, pieces: Iterable[Piece], kind: Kind) -> Iterator[tuple[Piece, Rows]]:
        """Queries and documents are treated alike; a text without words has a vector too."""
        for piece in pieces:
            yield piece, self._rows(piece)

    def _rows(self, piece: Piece) -> Rows:
        n_texts, limit = len(piece.texts), self.space.max_tokens
        vectors = np.zeros((n_texts, self.space.dim), dtype=np.float32)  # (n_texts, dim)
        counts = np.zeros(n_texts, dtype=np.int32)
        for row, text in enumerate(piece.texts):
            _refuse_surrogates(piece, row, text)
            tokens = [match.group() for match in _TOKEN.finditer(text)]
            counts[row] = len(tokens)
            _add_features(vectors[row], tokens[:limit])
        none = np.zeros(n_texts, dtype=np.bool_)
        return Rows(_unit(vectors), np.minimum(counts, limit), counts > limit, none, {})


@dataclass(frozen=True, slots=True)
class HashingInfo:
    """The hashing encoder with some settings; see ``ModelInfo``."""

    space: Space

    @property
    def tokenizer(self) -> HashingTokenizer:
        """The tokenizer, which has no settings."""
        return HashingTokenizer()

    def tokenizer_for(self, document_prompt: str) -> HashingTokenizer:
        """The same tokenizer: a prompt adds no special tokens."""
        return self.tokenizer


class HashingEngine:
    """The engine of the name ``hashing``."""

    options = frozenset({"dtype", "dim", "max_tokens", "allow_unverified"})
    """``allow_unverified`` changes nothing: all that this encoder computes is tested."""

    def claims(self, name: str) -> bool:
        """Whether the name is ``hashing``."""
        return name == NAME

    def describe(self, model: ModelSpec) -> HashingInfo:
        """The space with the section's ``dim`` and ``max_tokens``; see ``Engine.describe``."""
        if model.dtype not in ("auto", "fp32"):
            raise ModelError(f"{NAME!r} computes in fp32 only, not {model.dtype}; use auto or fp32")
        return HashingInfo(_space(model.dim, model.max_tokens))

    def load(self, info: ModelInfo, resources: Resources) -> HashingEncoder:
        """The encoder, which has neither a device nor batches."""
        return HashingEncoder(info.space)


HASHING = HashingEngine()


def _refuse_surrogates(piece: Piece, row: int, text: object) -> None:
    if not isinstance(text, str):
        why = f"is a {type(text).__name__}; pass strings"
        raise InvalidText(piece.start + row, why, piece.batch)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        why = f"is not valid Unicode ({error.reason}); repair or leave it out"
        raise InvalidText(piece.start + row, why, piece.batch) from error


def _add_features(vector: np.ndarray[tuple[int], np.dtype[np.float32]], words: list[str]) -> None:
    for word in words:
        for code, weight in _features(word.lower()):
            sign = 1.0 if code & 1 else -1.0
            vector[(code >> 1) % vector.size] += sign * weight


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)  # (n_texts, 1)
    vectors[norms[:, 0] == 0.0, 0] = 1.0  # no words, or buckets that cancelled out
    norms[norms == 0.0] = 1.0
    unit: Vectors = vectors / norms
    return unit


@lru_cache(maxsize=65_536)
def _features(word: str) -> tuple[tuple[int, float], ...]:
    """(63-bit bucket and sign bit, weight) of the word and its trigrams."""
    weight = min(len(word), _LONG_WORD) / _LONG_WORD
    return (
        (_code(word), weight),
        *((_code("#" + trigram), weight * _TRIGRAM_WEIGHT) for trigram in _trigrams(word)),
    )


def _trigrams(word: str) -> Iterator[str]:
    for start in range(len(word) - 2):
        yield word[start : start + 3]


def _code(feature: str) -> int:
    return int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "big")
