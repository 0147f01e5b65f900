"""Lengths counted: exact percentiles in little memory, and counts of parts that add up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

EXACT_BELOW = 65_536
"""Every length below this is counted by itself."""
LEADING_BITS = 12
"""Longer lengths are counted by their first bits: rounded down by less than 1 in 2,048."""
PERCENTILES = (50, 90, 95, 99)


@dataclass(slots=True)
class Lengths:
    """How often each length occurs. At most 65,536 numbers, and 2,048 for each doubling beyond."""

    counts: Counter[int] = field(default_factory=Counter)
    """Keys are lengths, or lengths rounded down from ``EXACT_BELOW`` on."""
    total: int = 0
    """Sum of all lengths, exact."""
    longest: int = 0
    """Exact."""

    def add(self, length: int, times: int = 1) -> None:
        """Count a length."""
        self.counts[_rounded(length)] += times
        self.total += length * times
        self.longest = max(self.longest, length)

    def merge(self, others: Lengths) -> None:
        """Count what others have counted."""
        self.counts.update(others.counts)
        self.total += others.total
        self.longest = max(self.longest, others.longest)

    def summary(self) -> LengthSummary | None:
        """The lengths in figures; None without any."""
        n_lengths = sum(self.counts.values())
        if not n_lengths:
            return None
        return LengthSummary(
            count=n_lengths,
            mean=self.total / n_lengths,
            shortest=min(self.counts),
            longest=self.longest,
            percentiles=self._percentiles(n_lengths),
            histogram=self._histogram(),
        )

    def _percentiles(self, n_lengths: int) -> dict[str, int]:
        """The smallest length that so many percent of all are no longer than."""
        percentiles: dict[str, int] = {}
        waiting = [(math.ceil(n_lengths * percent / 100), percent) for percent in PERCENTILES]
        n_before = 0
        for length in sorted(self.counts):
            n_before += self.counts[length]
            while waiting and n_before >= waiting[0][0]:
                percentiles[str(waiting.pop(0)[1])] = length
        return percentiles

    def _histogram(self) -> tuple[Bin, ...]:
        """Counts between powers of two, from the first that has any to the last."""
        bins = Counter[int]()
        for length, times in self.counts.items():
            bins[length.bit_length()] += times
        numbers = range(min(bins), max(bins) + 1)
        return tuple(Bin((1 << n) >> 1, max(0, (1 << n) - 1), bins[n]) for n in numbers)


@dataclass(frozen=True, slots=True)
class Bin:
    """Lengths between two powers of two."""

    shortest: int
    longest: int
    """Included."""
    count: int


@dataclass(frozen=True, slots=True)
class LengthSummary:
    """Lengths in tokens, special tokens included."""

    count: int
    mean: float
    shortest: int
    longest: int
    percentiles: Mapping[str, int]
    """Per percent, the smallest length that so many are no longer than."""
    histogram: tuple[Bin, ...]


def _rounded(length: int) -> int:
    if length < EXACT_BELOW:
        return length
    shift = length.bit_length() - LEADING_BITS
    return length >> shift << shift
