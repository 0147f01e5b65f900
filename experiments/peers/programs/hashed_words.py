"""The vectors of every peer: those of embedlake's ``hashing`` encoder, and slow if need be."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from hashlib import blake2b

DIM = 32
SECONDS_PER_TEXT = "PEERS_SECONDS_PER_TEXT"
"""Name of the environment variable that says how long an encoder takes for a text."""
_TOKEN = re.compile(r"\w+|[^\w\s]")


def vectors(texts: Sequence[str]) -> list[list[float]]:
    """Unit vectors of ``DIM`` numbers, in the time that the environment sets."""
    time.sleep(float(os.environ.get(SECONDS_PER_TEXT, "0")) * len(texts))
    return [_vector(text) for text in texts]


def _vector(text: str) -> list[float]:
    sums = [0.0] * DIM
    for word in _TOKEN.findall(text):
        for code, weight in _features(word.lower()):
            sums[(code >> 1) % DIM] += weight if code & 1 else -weight
    length = sum(value * value for value in sums) ** 0.5
    return [value / length for value in sums] if length else [1.0, *[0.0] * (DIM - 1)]


def _features(word: str) -> Iterator[tuple[int, float]]:
    """(63-bit bucket and sign bit, weight) of the word and its trigrams."""
    weight = min(len(word), 8) / 8
    yield _code(word), weight
    for start in range(len(word) - 2):
        yield _code("#" + word[start : start + 3]), weight * 0.3


def _code(feature: str) -> int:
    return int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "big")
