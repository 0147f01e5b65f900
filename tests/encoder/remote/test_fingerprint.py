"""Fingerprints of vectors: the same model whatever the noise, another model never."""

from __future__ import annotations

import numpy as np
import pytest

from embedding_core.encoder import Encoder, parity_vectors
from embedding_core.encoder.remote.fingerprint import LEAST_COSINE, Fingerprint
from embedding_core.protocols import Vectors


def unit(vectors: np.ndarray) -> Vectors:
    rows: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return rows


def disturbed(vectors: Vectors, length: float, seed: int) -> Vectors:
    """The vectors with noise of so much of their length."""
    noise = unit(np.random.default_rng(seed).standard_normal(vectors.shape))
    return unit(vectors + length * noise)


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return parity_vectors(Encoder.load("hashing", dim=384))


@pytest.mark.parametrize("seed", range(20))
def test_fingerprint_noise_of_half_precision_is_near(vectors: Vectors, seed: int) -> None:
    fingerprint = Fingerprint.of(vectors)
    assert fingerprint.is_near(Fingerprint.of(disturbed(vectors, 1e-6, seed)))
    assert fingerprint.is_near(Fingerprint.of(disturbed(vectors, 0.03, seed)))
    assert fingerprint.is_near(Fingerprint.of(vectors.astype(np.float16).astype(np.float32)))


@pytest.mark.parametrize("seed", range(20))
def test_fingerprint_changed_model_is_not_near(vectors: Vectors, seed: int) -> None:
    fingerprint = Fingerprint.of(vectors)
    assert not fingerprint.is_near(Fingerprint.of(disturbed(vectors, 0.2, seed)))
    assert not fingerprint.is_near(Fingerprint.of(np.roll(vectors, seed + 1, axis=1)))


def test_fingerprint_cosine_is_about_that_of_the_vectors(vectors: Vectors) -> None:
    other = disturbed(vectors, 0.3, 0)
    cosine = float((vectors * other).sum(axis=1).mean())
    assert Fingerprint.of(vectors).cosine(Fingerprint.of(other)) == pytest.approx(cosine, abs=0.04)
    assert Fingerprint.of(vectors).cosine(Fingerprint.of(vectors)) == 1.0
    assert 0.998 < LEAST_COSINE < 0.999


def test_fingerprint_never_changes(vectors: Vectors) -> None:
    digits = "31f7f8e1ffceeae83332de06b8091c27f60ff6ce23c629e9ded0da185e112904"
    assert Fingerprint.of(vectors).digits == digits
    assert Fingerprint.read(digits) == Fingerprint(digits)


def test_fingerprint_other_text_is_none() -> None:
    assert Fingerprint.read("main") is None
    assert Fingerprint.read("f" * 63) is None
