"""Whether vectors are what they should be: there, finite, of unit length, and not all alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from embedding_core.records.space import NORM_TOLERANCE

DISTINCT_KEPT = 1 << 18
"""Different vectors that are remembered to find equal ones: 8 MiB. A larger corpus is sampled by
the digest of the vector, so that equal vectors stay together."""

Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Health:
    """Counts of what is wrong with a column's vectors."""

    rows: int
    missing: int
    """Rows without a vector."""
    non_finite: int
    """Rows whose vector holds NaN or inf."""
    off_norm: int
    """Rows whose vector is finite and not of unit length, to within 0.005."""
    shared: float
    """Share of rows whose vector is identical to another text's. A model that reads only the
    beginning of long texts has a few such rows; in a collapsed space nearly all are."""
    mean_cosine: float | None
    """Mean cosine similarity of two rows; None with fewer than two. Near 1 in a collapsed space."""
    queries_without_vector: int
    """Queries that the model has no vector for."""


class HealthCheck:
    """Collects what ``Health`` says, batch by batch; memory does not grow with the corpus."""

    def __init__(self, dim: int, most_kept: int = DISTINCT_KEPT) -> None:
        """``most_kept``: different vectors that are remembered."""
        self._most_kept = most_kept
        self._counts = np.zeros(4, np.int64)  # rows, missing, non-finite, off norm
        self._sum, self._squares, self._usable = np.zeros(dim), 0.0, 0
        self._kept = _Kept.empty()

    def add(self, texts: Sequence[str], vectors: npt.NDArray[np.float32]) -> None:
        """Take in a batch; ``vectors`` (n_rows, dim), NaN throughout for a row without one."""
        missing = np.isnan(vectors).all(axis=1)
        finite: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(vectors), axis=1)
        usable = vectors[finite]
        norms = np.linalg.norm(usable, axis=1)
        off_norm = np.abs(norms - 1) > NORM_TOLERANCE
        self._counts += (
            len(vectors), missing.sum(), (~finite & ~missing).sum(), off_norm.sum(),
        )  # fmt: skip
        unit = usable / np.where(norms > 0, norms, 1)[:, None]
        self._sum += unit.sum(axis=0, dtype=np.float64)
        self._squares += float(np.square(unit, dtype=np.float64).sum())
        self._usable += len(unit)
        read = (text.encode() for text, ok in zip(texts, finite, strict=True) if ok)
        self._kept = self._kept.with_rows(
            _digests(map(bytes, usable)), _digests(read), self._most_kept
        )

    def health(self, queries_without_vector: int = 0) -> Health:
        """The counts over all batches so far."""
        rows, missing, non_finite, off_norm = self._counts.tolist()
        return Health(
            rows,
            missing,
            non_finite,
            off_norm,
            self._kept.shared(),
            self._mean_cosine(),
            queries_without_vector,
        )

    def _mean_cosine(self) -> float | None:
        """|Σv|² is the sum over all pairs, each vector with itself included."""
        n_pairs = self._usable * (self._usable - 1)
        return float(self._sum @ self._sum - self._squares) / n_pairs if n_pairs else None


@dataclass(frozen=True, slots=True)
class _Kept:
    """Different vectors by digest, ascending, with what is needed to see different texts."""

    vectors: Digests
    first_texts: Digests
    """The smallest digest among the texts of each vector."""
    last_texts: Digests
    """The largest; unequal to the smallest when the texts differ."""
    n_rows: Digests

    @classmethod
    def empty(cls) -> _Kept:
        none = np.empty(0, np.uint64)
        return cls(none, none, none, none)

    def with_rows(self, vectors: Digests, texts: Digests, most: int) -> _Kept:
        """Add rows; of more than ``most`` vectors those with the smallest digests stay."""
        if not len(vectors):
            return self
        every = np.concatenate([self.vectors, vectors])
        order = np.argsort(every, kind="stable")
        every = every[order]
        starts = np.flatnonzero(np.concatenate([[True], every[1:] != every[:-1]]))

        def merged(combine: np.ufunc, kept: Digests, more: Digests) -> Digests:
            reduced: Digests = combine.reduceat(np.concatenate([kept, more])[order], starts)
            return reduced[:most]

        return _Kept(
            every[starts][:most],
            merged(np.minimum, self.first_texts, texts),
            merged(np.maximum, self.last_texts, texts),
            merged(np.add, self.n_rows, np.ones_like(texts)),
        )

    def shared(self) -> float:
        """Share of the rows whose vector has different texts."""
        is_shared = self.first_texts != self.last_texts
        return float(self.n_rows[is_shared].sum() / max(1, self.n_rows.sum()))


def _digests(values: Iterable[bytes]) -> Digests:
    """(n_values,) 64 bits of each value's BLAKE2b."""
    joined = b"".join(blake2b(value, digest_size=8).digest() for value in values)
    return np.frombuffer(joined, np.uint64)
