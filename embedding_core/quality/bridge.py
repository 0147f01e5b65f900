"""A bridge from a new space to the old: vectors of the new model, turned into the old space.

While a table is being embedded again, its rows have old vectors only. The bridge is the linear map
with orthonormal rows or columns that brings the new vectors of some rows nearest to their old ones
(orthogonal Procrustes: Schönemann 1966, doi:10.1007/BF02289451; for embedding spaces: Smith et al.
2017, arXiv:1702.03859). With ``N`` the new vectors of the rows and ``O`` the old ones, the singular
value decomposition of the cross-covariance ``NᵀO = U S Vᵀ`` gives the map ``U Vᵀ``. It maximises
the sum of the inner products of mapped and old vectors, whatever the two dimensions are.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from embedding_core.errors import UsageError
from embedding_core.plurals import counted
from embedding_core.protocols import Corpus, Vectors
from embedding_core.quality.metrics import Comparison

LEAST_KEPT = 0.9
"""Share of the old nDCG@10 below which a bridge is not worth having."""
HELD_OUT = 10
"""A row in ten is not fitted to, and shows how near mapped vectors come to old ones."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A map from the new space to the old."""

    matrix: npt.NDArray[np.float32]
    """(new dim, old dim)"""

    def mapped(self, vectors: Vectors) -> Vectors:
        """New vectors (n, new dim) as old ones (n, old dim), unit norm; NaN stays NaN."""
        return unit_rows(vectors @ self.matrix)


def unit_rows(vectors: Vectors) -> Vectors:
    """The rows at length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = (vectors / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return scaled


@dataclass(slots=True)
class BridgeFit:
    """Fits a bridge to rows that come in batches; keeps sums alone."""

    new_dim: int
    old_dim: int
    rows: int = 0
    """Rows with a vector in both spaces."""
    _covariance: npt.NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self._covariance = np.zeros((self.new_dim, self.old_dim))

    def add(self, new: Vectors, old: Vectors) -> None:
        """Add rows, (n, new dim) and (n, old dim); those without a vector do not count."""
        usable = np.isfinite(new).all(axis=1) & np.isfinite(old).all(axis=1)
        self._covariance += new[usable].T.astype(np.float64) @ old[usable]
        self.rows += int(usable.sum())

    def bridge(self, fewest: int | None = None) -> Bridge:
        """The bridge. Raises ``UsageError`` for fewer rows than ``fewest``, by default the larger
        dimension: fewer say nothing of some directions, where the map would be chance."""
        fewest = max(self.new_dim, self.old_dim) if fewest is None else fewest
        if self.rows < fewest:
            raise UsageError(
                f"a bridge from {self.new_dim:,} to {counted(self.old_dim, 'dimension')} needs at "
                f"least {counted(fewest, 'row')} with a vector in both, and there are "
                f"{self.rows:,}; take a larger sample"
            )
        left, _, right = np.linalg.svd(self._covariance, full_matrices=False)
        return Bridge((left @ right).astype(np.float32))


@dataclass(frozen=True, slots=True)
class BridgeQuality:
    """What a bridge keeps of the answers that a table gives without the new model."""

    metrics: dict[str, Comparison]
    """Old: queries of the old model on the old vectors. New: queries of the new model, through the
    bridge, on the same vectors."""
    kept: float
    """nDCG@10 through the bridge over the old one; 1 when both are 0."""
    cosine: float | None
    """Mean cosine of mapped and old vectors over rows that the bridge was not fitted to; None
    without such rows."""

    @classmethod
    def of(cls, metrics: dict[str, Comparison], cosine: float | None) -> BridgeQuality:
        """The quality by rankings of the same queries."""
        compared = metrics["ndcg@10"]
        old, new = compared.old.mean, compared.new.mean
        return cls(metrics, new / old if old else 1.0, cosine)

    @property
    def is_enough(self) -> bool:
        """Whether people should be offered the bridge."""
        return self.kept >= LEAST_KEPT


def fit_bridge(corpus: Corpus, new_dim: int, old_dim: int) -> Bridge:
    """The bridge by the rows of a corpus that are not held out. Raises as ``BridgeFit.bridge``."""
    fit = BridgeFit(new_dim, old_dim)
    for rows in corpus():
        fitted = ~are_held_out(rows.chunk_ids)
        fit.add(rows.new[fitted], rows.old[fitted])
    return fit.bridge()


def are_held_out(chunk_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(n_rows,) whether a bridge is not fitted to a row: a digest of its id decides."""
    digests = [zlib.crc32(chunk_id.encode()) for chunk_id in chunk_ids]
    held_out: npt.NDArray[np.bool_] = np.array(digests, dtype=np.int64) % HELD_OUT == 0
    return held_out


class CosineMean:
    """Mean cosine of mapped and old vectors over held-out rows, batch by batch."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._total, self._rows = 0.0, 0

    def add(self, chunk_ids: Sequence[str], new: Vectors, old: Vectors) -> None:
        """Take in the rows of a batch; those without one of the vectors do not count."""
        usable = (
            are_held_out(chunk_ids) & np.isfinite(new).all(axis=1) & np.isfinite(old).all(axis=1)
        )
        mapped = self._bridge.mapped(new[usable])
        self._total += float(np.einsum("ij,ij->", mapped, unit_rows(old[usable])))
        self._rows += int(usable.sum())

    def mean(self) -> float | None:
        """None without a row."""
        return self._total / self._rows if self._rows else None
