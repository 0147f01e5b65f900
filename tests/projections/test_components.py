"""Principal components by iteration against those of a whole decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from embedding_core.projections.components import Components
from embedding_core.protocols import Vectors


def vectors(n_rows: int, dim: int, seed: int = 0) -> Vectors:
    """Vectors that differ less and less from one direction to the next, as embeddings do."""
    drawn = np.random.default_rng(seed).standard_normal((n_rows, dim))
    return (drawn / np.sqrt(1 + np.arange(dim)) + 0.3).astype(np.float32)


@pytest.mark.parametrize(("n_rows", "dim"), [(500, 64), (40, 256), (3, 8), (2, 2)])
def test_components_are_those_of_a_singular_value_decomposition(n_rows: int, dim: int) -> None:
    numbers = vectors(n_rows, dim)
    components = Components.of(numbers, 10)
    centred = numbers.astype(np.float64) - numbers.mean(axis=0, dtype=np.float64)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    shares = np.square(lengths) / np.square(lengths).sum()
    n_shown = min(10, n_rows, dim)
    assert len(components.shares) == len(components.axes) == n_shown
    assert np.allclose(components.shares, shares[:n_shown], atol=1e-6)
    told_apart = shares[:n_shown] > 1e-9  # axes of no variance may turn
    along = np.abs((components.axes * axes[:n_shown]).sum(axis=1))[told_apart]
    assert np.allclose(along, 1.0, atol=1e-3)


def test_components_point_to_their_largest_number_and_are_the_same_every_time() -> None:
    numbers = vectors(200, 32)
    first, second = Components.of(numbers, 5), Components.of(numbers, 5)
    assert np.array_equal(first.axes, second.axes) and first.shares == second.shares
    largest = first.axes[np.arange(5), np.abs(first.axes).argmax(axis=1)]
    assert (largest > 0).all()


@pytest.mark.parametrize("n_rows", [1, 7])
def test_components_of_equal_vectors_explain_nothing(n_rows: int) -> None:
    numbers = np.full((n_rows, 16), 0.25, np.float32)
    components = Components.of(numbers, 4)
    assert set(components.shares) == {0.0}
    assert np.abs(components.place(numbers)).max() < 1e-6


def test_place_puts_a_vector_where_it_lies_among_those_that_were_fitted() -> None:
    numbers = vectors(100, 16)
    components = Components.of(numbers, 3)
    assert np.allclose(components.place(numbers[40:50]), components.place(numbers)[40:50])
    assert np.allclose(components.place(numbers).mean(axis=0), 0, atol=1e-6)
