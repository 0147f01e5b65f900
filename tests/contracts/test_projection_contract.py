"""What every projection promises: the same points every time, each vector placed by itself."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from embedding_core.errors import SetupError, UsageError
from embedding_core.projections.projection import KNOWN_PROJECTIONS, Projection, projection
from tests.synthetic import Clusters

VECTORS = Clusters.make(3, 24).draw(90, seed=1)


@pytest.fixture(params=KNOWN_PROJECTIONS.names())
def method(request: pytest.FixtureRequest) -> Projection:
    """A projection whose library is installed."""
    made: Projection = KNOWN_PROJECTIONS.get(request.param)
    try:
        made.fit(VECTORS[: made.fewest])
    except SetupError as error:
        pytest.skip(str(error))
    return made


def test_points_are_finite_and_the_same_every_time(method: Projection) -> None:
    first, second = method.fit(VECTORS).points, method.fit(VECTORS).points
    assert first.shape == (90, 2) and first.dtype == np.float32
    assert np.isfinite(first).all() and np.array_equal(first, second)
    assert np.ptp(first, axis=0).min() > 0


def test_fitted_vectors_are_placed_where_they_were_fitted(method: Projection) -> None:
    placement = method.fit(VECTORS)
    size = np.ptp(placement.points, axis=0).max()
    assert np.abs(placement.place(VECTORS) - placement.points).max() < 1e-4 * size


def test_other_vectors_are_placed_each_by_itself(method: Projection) -> None:
    placement = method.fit(VECTORS)
    others = Clusters.make(3, 24).draw(30, seed=2)
    together = placement.place(others)
    single = np.concatenate([placement.place(others[row : row + 1]) for row in range(30)])
    assert np.abs(together - single).max() < 1e-4 * np.ptp(placement.points, axis=0).max()
    assert placement.place(others[:0]).shape == (0, 2)


def test_placement_travels_to_another_process(method: Projection) -> None:
    placement = method.fit(VECTORS)
    travelled = pickle.loads(pickle.dumps(placement))
    assert np.array_equal(travelled.place(VECTORS), placement.place(VECTORS))


def test_fewest_and_equal_vectors_are_placed(method: Projection) -> None:
    points = method.fit(VECTORS[: method.fewest]).points
    assert points.shape == (method.fewest, 2) and np.isfinite(points).all()
    equal = np.tile(VECTORS[:1], (method.fewest, 1))
    assert np.isfinite(method.fit(equal).points).all()


@pytest.mark.parametrize("name", ["tsne", "umap"])
def test_too_few_vectors_are_refused_with_what_to_use(name: str) -> None:
    with pytest.raises(UsageError, match=r"needs at least 10 vectors, and there are 2; use pca"):
        projection(name, 2)


def test_unknown_projection_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="no projection 'mds'; use pca, tsne, umap"):
        projection("mds")
