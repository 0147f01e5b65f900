"""A bridge between two spaces: the best map of its kind, fitted batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import UsageError
from embedding_core.protocols import JudgedRows, Vectors
from embedding_core.quality.bridge import (
    Bridge,
    BridgeFit,
    BridgeQuality,
    CosineMean,
    are_held_out,
    fit_bridge,
    unit_rows,
)
from embedding_core.quality.metrics import compare_runs

DIMENSIONS = [(16, 16), (8, 16), (16, 8)]


def random_rows(n_rows: int, dim: int, seed: int = 0) -> Vectors:
    return unit_rows(np.random.default_rng(seed).standard_normal((n_rows, dim)).astype(np.float32))


def orthonormal(new_dim: int, old_dim: int, seed: int) -> Vectors:
    """A matrix with orthonormal rows, or columns where there are fewer."""
    tall = np.random.default_rng(seed).standard_normal((max(new_dim, old_dim),) * 2)
    square, _ = np.linalg.qr(tall)
    return square[:new_dim, :old_dim].astype(np.float32)


def fitted(new: Vectors, old: Vectors) -> Bridge:
    fit = BridgeFit(new.shape[1], old.shape[1])
    fit.add(new, old)
    return fit.bridge()


@pytest.mark.parametrize(("new_dim", "old_dim"), [(16, 16), (8, 16)])
def test_bridge_finds_the_rotation_that_the_new_space_was_turned_by(
    new_dim: int, old_dim: int
) -> None:
    new, turn = random_rows(100, new_dim), orthonormal(new_dim, old_dim, 1)
    bridge = fitted(new, new @ turn)
    assert np.allclose(bridge.matrix, turn, atol=1e-5)
    others = random_rows(50, new_dim, seed=2)
    assert np.allclose(bridge.mapped(others), others @ turn, atol=1e-5)


def test_bridge_to_fewer_dimensions_finds_the_part_that_is_left() -> None:
    old, turn = random_rows(100, 8), orthonormal(8, 16, 1)
    bridge = fitted(old @ turn, old)
    assert np.allclose(bridge.mapped(old @ turn), old, atol=1e-5)


@pytest.mark.parametrize(("new_dim", "old_dim"), DIMENSIONS)
def test_bridge_turns_without_stretching(new_dim: int, old_dim: int) -> None:
    matrix = fitted(random_rows(100, new_dim), random_rows(100, old_dim, 1)).matrix
    assert matrix.shape == (new_dim, old_dim) and matrix.dtype == np.float32
    product = matrix @ matrix.T if new_dim <= old_dim else matrix.T @ matrix
    assert np.allclose(product, np.eye(min(new_dim, old_dim)), atol=1e-5)


@given(st.integers(0, 10_000), st.sampled_from(DIMENSIONS))
def test_bridge_no_other_turn_brings_the_rows_nearer(seed: int, dims: tuple[int, int]) -> None:
    new, old = random_rows(40, dims[0], seed), random_rows(40, dims[1], seed + 1)
    nearest = float(np.sum((new @ fitted(new, old).matrix) * old))
    other = float(np.sum((new @ orthonormal(*dims, seed + 2)) * old))
    assert nearest >= other - 1e-4


def test_bridge_of_batches_is_that_of_the_whole() -> None:
    new, old = random_rows(100, 16), random_rows(100, 8, 1)
    fit = BridgeFit(16, 8)
    for start in range(0, 100, 7):
        fit.add(new[start : start + 7], old[start : start + 7])
    assert fit.rows == 100
    assert np.allclose(fit.bridge().matrix, fitted(new, old).matrix, atol=1e-5)


def test_bridge_rows_without_a_vector_do_not_count() -> None:
    new, old = random_rows(100, 16), random_rows(100, 16, 1)
    gappy_new, gappy_old = new.copy(), old.copy()
    gappy_new[3] = np.nan
    gappy_old[7, 2] = np.inf
    fit = BridgeFit(16, 16)
    fit.add(gappy_new, gappy_old)
    assert fit.rows == 98
    kept = np.delete(np.arange(100), [3, 7])
    assert np.allclose(fit.bridge().matrix, fitted(new[kept], old[kept]).matrix, atol=1e-5)


def test_bridge_query_without_a_vector_has_none_on_the_other_side() -> None:
    queries = random_rows(3, 16)
    queries[1] = np.nan
    mapped = fitted(random_rows(100, 16), random_rows(100, 8, 1)).mapped(queries)
    assert mapped.shape == (3, 8) and np.isnan(mapped[1]).all()
    assert np.allclose(np.linalg.norm(mapped[[0, 2]], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("new_dim", "old_dim"), DIMENSIONS)
def test_bridge_of_fewer_rows_than_dimensions_is_refused(new_dim: int, old_dim: int) -> None:
    fit = BridgeFit(new_dim, old_dim)
    fit.add(random_rows(15, new_dim), random_rows(15, old_dim, 1))
    with pytest.raises(UsageError, match=r"at least 16 rows .* there are 15; take a larger sample"):
        fit.bridge()
    fit.add(random_rows(1, new_dim, 2), random_rows(1, old_dim, 3))
    assert fit.bridge().matrix.shape == (new_dim, old_dim)


def rows_of(new: Vectors, old: Vectors) -> JudgedRows:
    names = [f"chunk {n}" for n in range(len(new))]
    texts = ["text"] * len(new)
    return JudgedRows(names, pa.array(names), texts, list[str | None](texts), old, new)


def test_bridge_cosine_is_of_rows_that_it_was_not_fitted_to() -> None:
    new, turn = random_rows(300, 16), orthonormal(16, 16, 1)
    old = new @ turn
    rows = rows_of(new, old)
    held_out = are_held_out(rows.chunk_ids)
    assert 10 < held_out.sum() < 60
    old[held_out] = random_rows(int(held_out.sum()), 16, 5)  # a fit to these would turn elsewhere

    def corpus() -> Iterator[JudgedRows]:
        yield rows

    bridge = fit_bridge(corpus, 16, 16)
    assert np.allclose(bridge.matrix, turn, atol=1e-5)
    cosines = CosineMean(bridge)
    cosines.add(rows.chunk_ids, new, old)
    assert abs(cosines.mean() or 1.0) < 0.3


def test_bridge_cosine_without_a_held_out_row_is_none() -> None:
    cosines = CosineMean(Bridge(np.eye(4, dtype=np.float32)))
    assert cosines.mean() is None
    cosines.add([], random_rows(0, 4), random_rows(0, 4))
    assert cosines.mean() is None


@pytest.mark.parametrize(
    ("old", "bridged", "kept", "is_enough"),
    [
        (["a"], ["a"], 1.0, True),
        (["x", "a"], ["a"], 1.585, True),
        (["a"], ["x", "a"], 0.631, False),
        (["x"], ["x"], 1.0, True),
    ],
)
def test_bridge_keeps_its_share_of_the_old_answers(
    old: list[str], bridged: list[str], kept: float, is_enough: bool
) -> None:
    metrics = compare_runs({"q": old}, {"q": bridged}, {"q": {"a": 1}})
    quality = BridgeQuality.of(metrics, None)
    assert quality.kept == pytest.approx(kept, abs=1e-3) and quality.is_enough is is_enough
