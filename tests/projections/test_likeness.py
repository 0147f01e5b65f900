"""Near-duplicates and associations against the slow way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from embedding_core.projections.association import association
from embedding_core.projections.likeness import near_duplicates


def test_near_duplicates_are_those_of_every_pair_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("embedding_core.projections.likeness.ROWS_AT_ONCE", 7)
    drawn = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    cosines = {
        (first, second): float(unit[first] @ unit[second])
        for first, second in itertools.combinations(range(60), 2)
    }
    expected = sorted((pair for pair in cosines if cosines[pair] >= 0.9), key=lambda p: -cosines[p])
    alike = near_duplicates(unit, 0.9, 10)
    assert alike.count == len(expected) > 10
    assert [(pair.first, pair.second) for pair in alike.pairs] == expected[:10]


def test_near_duplicates_of_a_single_row_are_none() -> None:
    assert near_duplicates(np.ones((1, 1), np.float32), 0.9, 5).pairs == ()


COMPONENT = np.linspace(-1, 1, 200)


def test_association_of_numbers_is_the_size_of_their_correlation() -> None:
    assert association(COMPONENT, (-3 * COMPONENT + 1).tolist()) == pytest.approx(1.0)
    noise = np.random.default_rng(0).standard_normal(200)
    expected = abs(np.corrcoef(COMPONENT, noise)[0, 1])
    assert association(COMPONENT, noise.tolist()) == pytest.approx(expected)


def test_association_of_names_is_the_share_between_them() -> None:
    signs = ["low" if value < 0 else "high" for value in COMPONENT]
    assert association(COMPONENT, signs) == pytest.approx(np.sqrt(0.75), abs=0.01)
    chance = np.random.default_rng(0).integers(0, 150, 200)
    assert (association(COMPONENT, [f"v{n}" for n in chance]) or 0) < 0.5  # 0.8 without correction


@pytest.mark.parametrize(
    "values",
    [
        [None] * 200,
        ["same"] * 200,
        [1.5] * 200,
        [f"id {n}" for n in range(200)],
        ["a", "b", *[None] * 198],
        [float("nan")] * 200,
    ],
)
def test_association_with_values_that_say_nothing_is_none(values: list[object]) -> None:
    assert association(COMPONENT, values) is None


def test_association_with_a_component_that_does_not_vary_is_none() -> None:
    assert association(np.zeros(5), [1, 2, 3, 4, 5]) is None
