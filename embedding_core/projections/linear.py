"""The plane of the first two principal components: at once, and for any number of vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedding_core.projections.components import Components
from embedding_core.projections.projection import Points, Projection
from embedding_core.protocols import Vectors


@dataclass(frozen=True, slots=True)
class Plane:
    """See ``Placement``."""

    components: Components
    points: Points

    def place(self, vectors: Vectors) -> Points:
        """See ``Placement``."""
        return _in_plane(self.components, vectors)


class PrincipalPlane:
    """See ``Projection``."""

    fewest = 1

    def fit(self, vectors: Vectors) -> Plane:
        """See ``Projection``."""
        components = Components.of(vectors, 2)
        return Plane(components, _in_plane(components, vectors))


def _in_plane(components: Components, vectors: Vectors) -> Points:
    """Points; 0 for a component that there is not, of a single vector or dimension."""
    points = np.zeros((len(vectors), 2), np.float32)
    placed = components.place(vectors)
    points[:, : placed.shape[1]] = placed
    return points


PCA: Projection = PrincipalPlane()
