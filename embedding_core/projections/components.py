"""Principal components of vectors: the directions in which they differ most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedding_core.protocols import Vectors

EXTRA_DIRECTIONS = 30
"""Directions that are followed beside those asked for, so that the last of these are right, too."""
ROUNDS = 8
"""Multiplications by the covariance. The error of a component shrinks with each by the square of
its variance's ratio to the first one that is not followed."""
SEED = 0
FLAT = 1e-10
"""Vectors whose variance is below this share of their squared length are all equal."""
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Components:
    """The first components of some vectors, that of the largest variance first."""

    mean: Numbers
    """(dim,)"""
    axes: Numbers
    """(n_components, dim) of unit length; the largest number of each is positive."""
    shares: tuple[float, ...]
    """Share of the whole variance that each explains; 0 when all vectors are equal."""

    @classmethod
    def of(cls, vectors: Vectors, n_components: int) -> Components:
        """The components of (n_rows, dim) finite vectors, at most as many as there are rows or
        dimensions; the same ones every time.

        By subspace iteration from random directions (Halko, Martinsson and Tropp 2011): 5,000
        vectors of 4,096 dimensions take about a second.
        """
        mean = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - mean  # (n_rows, dim)
        total, length = float(np.square(centred).sum()), float(np.square(vectors).sum())
        if total <= FLAT * length:
            centred[:] = 0.0
        width = min(n_components + EXTRA_DIRECTIONS, *vectors.shape)
        start = np.random.default_rng(SEED).standard_normal((vectors.shape[1], width))
        basis = np.linalg.qr(start)[0]  # (dim, width)
        for _ in range(ROUNDS):
            basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
        _, lengths, turned = np.linalg.svd(centred @ basis, full_matrices=False)
        axes = (turned @ basis.T)[:n_components]
        largest = np.abs(axes).argmax(axis=1)
        axes *= np.where(axes[np.arange(len(axes)), largest] < 0, -1.0, 1.0)[:, None]
        variances = np.square(lengths[:n_components])
        shares = variances / total if total > FLAT * length else np.zeros_like(variances)
        return cls(mean, axes, tuple(shares.tolist()))

    def place(self, vectors: Vectors) -> Numbers:
        """(n_rows, n_components) where vectors lie on the axes."""
        return np.asarray((vectors - self.mean) @ self.axes.T, np.float64)
