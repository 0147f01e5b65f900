"""One pass in batches against the whole matrix at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from embedding_core.protocols import Vectors
from embedding_core.quality import ByDocument, ExactRanking, Ranking
from embedding_core.quality.exact import DEPTH, QUERIES_AT_ONCE

RNG = np.random.default_rng(0)


def unit(n_rows: int, dim: int) -> Vectors:
    vectors = RNG.standard_normal((n_rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def search(queries: Vectors, documents: list[str], rows: Vectors, per_batch: int) -> Ranking:
    ranking = ExactRanking(queries)
    for start in range(0, len(rows), per_batch):
        batch = slice(start, start + per_batch)
        ranking.add(ByDocument.of(pa.array(documents[batch])), rows[batch])
    return ranking.ranking()


def brute_force(query: Vectors, documents: list[str], rows: Vectors) -> dict[str, float]:
    best: dict[str, float] = {}
    for name, score in zip(documents, (rows @ query).tolist(), strict=True):
        best[name] = max(score, best.get(name, -2.0))
    ranked = sorted(best.items(), key=lambda one: -one[1])
    return dict(ranked[:DEPTH])


@pytest.mark.slow
@pytest.mark.parametrize("per_batch", [7, 64, 1_000])
def test_ranking_of_chunks_in_batches_is_that_of_documents_by_their_best_chunk(
    per_batch: int,
) -> None:
    rows, queries = unit(1_000, 16), unit(QUERIES_AT_ONCE + 5, 16)
    documents = [f"d{number}" for number in RNG.integers(250, size=1_000)]  # not next to each other
    found = search(queries, documents, rows, per_batch)
    for place, query in enumerate(queries):
        expected = brute_force(query, documents, rows)
        assert found.documents[place] == list(expected)
        assert found.scores[place] == pytest.approx(list(expected.values()), abs=1e-5)


def test_ranking_of_few_documents_ends_where_they_do() -> None:
    rows, queries = unit(6, 8), unit(2, 8)
    found = search(queries, ["a", "a", "b", "b", "c", "c"], rows, 4)
    assert all(sorted(one) == ["a", "b", "c"] for one in found.documents)
    assert (found.scores[:, 3:] == -np.inf).all()


def test_ranking_rows_and_queries_that_are_no_vectors_are_never_found() -> None:
    rows, queries = unit(5, 8), unit(3, 8)
    rows[1], rows[2], rows[3, 0], queries[1] = np.nan, 0.0, np.inf, np.nan
    found = search(queries, list("abcde"), rows, 3)
    assert [sorted(one) for one in found.documents] == [["a", "e"], [], ["a", "e"]]


def test_ranking_compares_directions_not_lengths() -> None:
    rows = np.array([[10.0, 10.0], [0.1, 0.0]], np.float32)
    found = search(np.array([[3.0, 0.0]], np.float32), ["long", "near"], rows, 2)
    assert found.documents == [["near", "long"]]
    assert found.scores[0, :2] == pytest.approx([1.0, 0.5**0.5])


def test_ranking_rows_of_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of 3 dimensions for queries of 4"):
        search(unit(1, 4), ["a"], unit(1, 3), 1)
