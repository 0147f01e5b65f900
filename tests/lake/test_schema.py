"""What storing vectors as float16 does to a cosine."""

from __future__ import annotations

import numpy as np
import pytest

CAUCHY_SCHWARZ = 2.0**-11


@pytest.mark.parametrize(
    ("dim", "measured"), [(32, 1.9e-4), (384, 4.8e-5), (1_024, 3.3e-5), (4_096, 1.7e-5)]
)
def test_float16_storage_moves_a_cosine_as_little_as_documented(dim: int, measured: float) -> None:
    vectors = np.random.default_rng(0).standard_normal((2_000, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = vectors.astype(np.float16).astype(np.float32)
    lengths = np.linalg.norm(stored, axis=1)
    queries = vectors[:100]
    change = np.abs(queries @ vectors.T - queries @ stored.T / lengths).max()
    assert change < CAUCHY_SCHWARZ
    assert change == pytest.approx(measured, rel=0.15)
