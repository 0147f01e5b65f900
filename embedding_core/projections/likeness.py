"""Pairs of vectors that are nearly the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedding_core.protocols import Vectors

ROWS_AT_ONCE = 1_024


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows, by their numbers."""

    first: int
    second: int
    """Larger than ``first``."""
    cosine: float


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Pairs above a cosine."""

    least_cosine: float
    count: int
    """All of them."""
    pairs: tuple[Pair, ...]
    """The most alike ones."""


def near_duplicates(unit: Vectors, least_cosine: float, most_pairs: int) -> NearDuplicates:
    """Compare all (n_rows, dim) vectors of unit length with each other, some rows at a time."""
    count = 0
    best: list[Pair] = []
    for start in range(0, len(unit), ROWS_AT_ONCE):
        rows = unit[start : start + ROWS_AT_ONCE]
        cosines = rows @ unit[start:].T
        first, second = np.nonzero(np.triu(cosines >= least_cosine, k=1))
        count += len(first)
        values = cosines[first, second]
        likest = np.argsort(-values, kind="stable")[:most_pairs]
        best += [
            Pair(start + int(first[n]), start + int(second[n]), min(1.0, float(values[n])))
            for n in likest
        ]
        best = sorted(best, key=lambda pair: (-pair.cosine, pair.first, pair.second))[:most_pairs]
    return NearDuplicates(least_cosine, count, tuple(best))
