"""What a projection promises, and which ones there are. A new one is a file and a line here."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedding_core.errors import SetupError, UsageError, words
from embedding_core.plurals import counted
from embedding_core.protocols import Vectors
from embedding_core.registry import PROJECTIONS, Registry

Points = npt.NDArray[np.float32]
"""(n_rows, 2)"""


class Placement(Protocol):
    """A plane that was fitted to vectors. Small, pickles."""

    @property
    def points(self) -> Points:
        """Where the vectors lie that it was fitted to, in their order."""
        ...

    def place(self, vectors: Vectors) -> Points:
        """Where other vectors lie, each by itself: how they are grouped makes no difference."""
        ...


class Projection(Protocol):
    """A way to put vectors into a plane."""

    @property
    def fewest(self) -> int:
        """Fewer vectors cannot be placed."""
        ...

    def fit(self, vectors: Vectors) -> Placement:
        """Fit a plane to (n_rows, dim) finite vectors; the same vectors give the same plane.

        Raises ``SetupError`` when a library is missing.
        """
        ...


KNOWN_PROJECTIONS = Registry[Projection](
    PROJECTIONS,
    {
        "pca": "embedding_core.projections.linear:PCA",
        "tsne": "embedding_core.projections.neighbourly:TSNE",
        "umap": "embedding_core.projections.neighbourly:UMAP",
    },
    Projection,
)


def projection(name: str, n_vectors: int | None = None) -> Projection:
    """A projection by name. Raises ``UsageError`` for a name that nobody has registered, and where
    there are fewer than ``n_vectors`` should be."""
    if name not in KNOWN_PROJECTIONS.names():
        raise UsageError(f"no projection {name!r}; use {', '.join(KNOWN_PROJECTIONS.names())}")
    method = KNOWN_PROJECTIONS.get(name)
    if n_vectors is not None and n_vectors < method.fewest:
        raise UsageError(
            f"{name} needs at least {counted(method.fewest, 'vector')}, and there are "
            f"{n_vectors:,}; use pca"
        )
    return method


def library(module: str, extra: str, name: str) -> ModuleType:
    """A module of an extra. Raises ``SetupError`` with the line that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise SetupError(
            f"the projection {name} needs {module.partition('.')[0]} ({words(error)}): "
            f"pip install 'embedlake[{extra}]'"
        ) from error
