"""Planes that keep neighbours together: t-SNE by scikit-learn, UMAP by umap-learn.

Both are fitted to the first 50 principal components, by a single thread and from a fixed seed, so
that the same vectors give the same points. Neither can place a vector that it was not fitted to in
a way that does not depend on its company, so others are placed among their nearest neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedding_core.projections.components import Components, Numbers
from embedding_core.projections.projection import Points, Projection, library
from embedding_core.protocols import Vectors

DEPTH = 50
"""Components that neighbours are looked for in."""
PERPLEXITY = 30
"""Neighbours that t-SNE and UMAP think of, where there are enough."""
NEAREST = 5
"""Neighbours that another vector is placed among."""
ROWS_AT_ONCE = 1_024


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """See ``Placement``."""

    components: Components
    fitted: Numbers
    """(n_fitted, 50) the vectors it was fitted to, in their components."""
    points: Points

    def place(self, vectors: Vectors) -> Points:
        """The mean of the nearest fitted vectors' points, the nearer the heavier; the point itself
        of a vector that is one of them."""
        parts = [
            self._placed(vectors[start : start + ROWS_AT_ONCE])
            for start in range(0, len(vectors), ROWS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, 2), np.float32)

    def _placed(self, vectors: Vectors) -> Points:
        components = self.components.place(vectors)  # (n_rows, 50)
        squares = (
            np.square(components).sum(axis=1)[:, None]
            - 2 * components @ self.fitted.T
            + np.square(self.fitted).sum(axis=1)
        )  # (n_rows, n_fitted)
        nearest = np.argsort(squares, axis=1, kind="stable")[:, :NEAREST]
        distances = np.sqrt(np.maximum(np.take_along_axis(squares, nearest, axis=1), 0.0))
        weights = 1.0 / np.maximum(distances, 1e-6)
        weights /= weights.sum(axis=1, keepdims=True)
        points: Points = np.einsum("rn,rnd->rd", weights, self.points[nearest]).astype(np.float32)
        return points


@dataclass(frozen=True, slots=True)
class Neighbourly:
    """See ``Projection``."""

    layout: Callable[[Numbers], Any]
    """(n_rows, 50) to (n_rows, 2)"""
    fewest: int = 10

    def fit(self, vectors: Vectors) -> Neighbourhood:
        """See ``Projection``."""
        components = Components.of(vectors, DEPTH)
        fitted = components.place(vectors)
        return Neighbourhood(components, fitted, np.asarray(self.layout(fitted), np.float32))


def _tsne(fitted: Numbers) -> Any:
    manifold = library("sklearn.manifold", "report", "tsne")
    threads = library("threadpoolctl", "report", "tsne")
    perplexity = min(PERPLEXITY, (len(fitted) - 1) / 3)
    method = manifold.TSNE(
        perplexity=perplexity, init=_start(fitted), learning_rate="auto", random_state=0
    )
    with threads.threadpool_limits(limits=1):  # fixes the order of sums
        return method.fit_transform(fitted.astype(np.float32))


def _umap(fitted: Numbers) -> Any:
    umap = library("umap", "umap", "umap")
    n_neighbours = min(PERPLEXITY, len(fitted) - 1)
    method = umap.UMAP(
        n_neighbors=n_neighbours, init=_start(fitted), random_state=0, n_jobs=1, metric="euclidean"
    )
    return method.fit_transform(fitted.astype(np.float32))


def _start(fitted: Numbers) -> Points:
    """The first two components, small, as both methods like to start; spread a little so that no
    two points coincide."""
    start = np.zeros((len(fitted), 2))
    start[:, : min(2, fitted.shape[1])] = fitted[:, :2]
    widest = float(start.std(axis=0).max()) or 1.0
    jitter = np.random.default_rng(0).standard_normal(start.shape)
    points: Points = (1e-4 * (start / widest + 1e-3 * jitter)).astype(np.float32)
    return points


TSNE: Projection = Neighbourly(_tsne)
UMAP: Projection = Neighbourly(_umap)
