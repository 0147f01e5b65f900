"""Vectors that are missing, wrong or alike."""

from __future__ import annotations

import numpy as np
import pytest

from embedding_core.protocols import Vectors
from embedding_core.quality import Health, HealthCheck

RNG = np.random.default_rng(0)


def unit(n_rows: int, dim: int = 33) -> Vectors:
    vectors = RNG.standard_normal((n_rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def health(
    vectors: Vectors, texts: list[str] | None = None, per_batch: int = 40, **options: int
) -> Health:
    texts = [f"text {n}" for n in range(len(vectors))] if texts is None else texts
    check = HealthCheck(vectors.shape[1], **options)
    for start in range(0, len(vectors), per_batch):
        batch = slice(start, start + per_batch)
        check.add(texts[batch], vectors[batch])
    return check.health()


def test_good_vectors_have_nothing_wrong() -> None:
    vectors = unit(100).astype(np.float16).astype(np.float32)  # as a table keeps them
    found = health(vectors)
    assert found.mean_cosine == pytest.approx(0, abs=0.05)
    assert found == Health(100, 0, 0, 0, 0.0, found.mean_cosine, 0)


def test_each_kind_of_wrong_vector_is_counted_apart() -> None:
    vectors = unit(100)
    vectors[:3] = np.nan
    vectors[3, 0], vectors[4, 5] = np.nan, np.inf
    vectors[5] *= 1.1
    vectors[6] = 0
    found = health(vectors)
    assert (found.rows, found.missing, found.non_finite, found.off_norm) == (100, 3, 2, 2)


def test_equal_vectors_are_wrong_only_for_different_texts() -> None:
    vectors = unit(100)
    vectors[90:] = vectors[0]  # in another batch
    texts = [f"text {n}" for n in range(100)]
    assert health(vectors, texts).shared == pytest.approx(11 / 100)
    texts[90:] = [texts[0]] * 10
    assert health(vectors, texts).shared == 0.0


def test_collapsed_vectors_are_alike_however_many() -> None:
    one = np.repeat(unit(1), 200, axis=0)
    found = health(one, most_kept=8)
    assert found.shared == 1.0 and found.mean_cosine == pytest.approx(1.0)
    mixed = np.concatenate([unit(300), one])
    assert health(mixed, most_kept=8).shared in (
        0.0,
        pytest.approx(200 / 207),
    )  # the vector is kept, or not


def test_mean_cosine_is_that_of_all_pairs() -> None:
    vectors = unit(50) + 0.3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = (vectors @ vectors.T)[~np.eye(50, dtype=bool)]
    assert health(vectors).mean_cosine == pytest.approx(pairs.mean(), abs=1e-5)
    assert health(unit(1)).mean_cosine is None
