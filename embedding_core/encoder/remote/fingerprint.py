"""A fingerprint of a server's vectors: the same for the same model, whatever noise they have.

A server's vectors change in their last digits with the batch that a text is in, with a restart,
with a driver. A digest of them would change, too. So the vectors of a few fixed texts are projected
onto 32 fixed directions of random signs, which keeps distances (Johnson and Lindenstrauss 1984),
and kept as a byte each: 64 hex digits that can be compared with a tolerance. The first fingerprint
of a model is recorded with the space, and stands for all that are near.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Self

import numpy as np

from embedding_core.protocols import Vectors
from embedding_core.records import Space

POOLING = "server"
"""``Space.pooling`` of every endpoint: the server's own affair, which its vectors tell."""

N_DIRECTIONS = 32
SCALE = 32.0
"""Steps of a byte per unit: projections have a standard deviation of 1, so four of them fit."""
MOST_DISTANCE = 0.06
"""Root mean square difference of projections. Half precision against fp32 stays below it (cosine
0.999 or more: 0.045); another model is at about 1.4, one in 8-bit weights at 0.1 and more."""
_SEED = b"embedlake fingerprint 1"
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is kept of the vectors of the probe texts."""

    digits: str
    """64 hex digits, a signed byte per direction."""

    @classmethod
    def of(cls, vectors: Vectors) -> Self:
        """The fingerprint of (n_texts, n_values) unit vectors of the probe texts."""
        values = vectors.astype(np.float64).reshape(-1)
        projected = values @ _directions(values.size) / np.sqrt(len(vectors))
        steps = np.clip(np.rint(projected * SCALE), -127, 127).astype(np.int8)
        return cls(steps.tobytes().hex())

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The fingerprint written as ``text``; None for another text."""
        return cls(text) if _HEX.fullmatch(text) else None

    def distance(self, other: Fingerprint) -> float:
        """How far the vectors are apart: 0 for the same, about 1.4 for unrelated models."""
        difference = self._projections() - other._projections()
        return float(np.sqrt(np.mean(difference**2)))

    def is_near(self, other: Fingerprint) -> bool:
        """Whether both are of the same model."""
        return self.distance(other) <= MOST_DISTANCE

    def cosine(self, other: Fingerprint) -> float:
        """About the mean cosine between the vectors of both."""
        return 1 - self.distance(other) ** 2 / 2

    def _projections(self) -> np.ndarray:
        return np.frombuffer(bytes.fromhex(self.digits), np.int8).astype(np.float64) / SCALE


LEAST_COSINE = 1 - MOST_DISTANCE**2 / 2
"""``Fingerprint.cosine`` of the same model, for messages."""


def is_same_model(first: Space, second: Space) -> bool:
    """Whether two spaces of endpoints are of one model by its id and its fingerprint."""
    if first.pooling != POOLING or second.pooling != POOLING:
        return False
    prints = [Fingerprint.read(space.revision or "") for space in (first, second)]
    ids = [set(space.identity) - {space.revision} for space in (first, second)]
    return (
        prints[0] is not None
        and prints[1] is not None
        and ids[0] == ids[1]
        and prints[0].is_near(prints[1])
    )


def _directions(n_values: int) -> np.ndarray:
    """(n_values, N_DIRECTIONS) of -1 and 1; the first rows do not depend on ``n_values``."""
    stream = hashlib.shake_256(_SEED).digest(n_values * N_DIRECTIONS // 8)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8)).reshape(n_values, N_DIRECTIONS)
    return bits.astype(np.float64) * 2 - 1
