"""Scans: rows by keys in groups, by a range of ids, with two spaces' vectors, by their numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedding_core.identity import text_hash
from embedding_core.lake import scans, schema
from embedding_core.lake.scans import (
    count_vectors,
    has_documents,
    have_vectors,
    judged_rows,
    key_groups,
    row_counts,
    rows_between,
    scan_values,
    vectors_at,
)
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.vectors import are_unit, directions, is_unit, to_lists, to_numpy
from tests.driver import recipe_for
from tests.synthetic import Clusters, add_files

ROWS = 10


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """Three files of ten rows, the third without vectors."""
    recipe, clusters = recipe_for(tmp_path), Clusters.make(5, 32)
    add_files(recipe, ["a", "b"], ROWS, clusters)
    return add_files(recipe, ["c"], ROWS, clusters, no_vector=True).open()


def test_key_groups_each_value_once_whatever_the_size_of_a_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scans, "KEYS_PER_SCAN", 2)
    assert list(key_groups(["b", "a", "c", "a", "b"])) == [["a", "b"], ["c"]]
    assert list(key_groups([])) == []


def test_scan_values_of_many_groups_gives_each_row_once(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "KEYS_PER_SCAN", 1)
    uris = [
        uri
        for batch in scan_values(snapshot, "source_uri", ["c", "a", "c", "none"], ["source_uri"])
        for uri in batch.column(0).to_pylist()
    ]
    assert uris == ["a"] * ROWS + ["c"] * ROWS
    counts = row_counts(snapshot, "file_key", [text_hash("a 0"), "none"])
    assert counts == {text_hash("a 0"): ROWS} and counts["none"] == 0


def test_rows_between_are_those_of_the_range_and_of_the_documents(snapshot: Snapshot) -> None:
    ids = sorted(snapshot.dataset.to_table(columns=["chunk_id"]).column(0).to_pylist())

    def between(low: str, high: str, *doc_ids: str) -> list[str]:
        batches = rows_between(snapshot, low, high, doc_ids, ["chunk_id"])
        return sorted(key for batch in batches for key in batch.column(0).to_pylist())

    assert between(ids[3], ids[7]) == ids[3:7]
    assert between(ids[3], ids[7], "d") == ids[3:7] and between(ids[3], ids[7], "other") == []


def test_has_documents_only_of_documents_with_rows(snapshot: Snapshot) -> None:
    assert has_documents(snapshot, ["other", "d"])
    assert not has_documents(snapshot, ["other"]) and not has_documents(snapshot, [])


def test_judged_rows_have_the_vectors_of_both_columns(snapshot: Snapshot) -> None:
    batches = list(judged_rows(snapshot, schema.VECTOR, schema.VECTOR))
    old = np.concatenate([batch.old for batch in batches])
    assert old.shape == (3 * ROWS, 32) and are_unit(old[: 2 * ROWS]).all()
    assert np.isnan(old[2 * ROWS :]).all()
    assert {title for batch in batches for title in batch.titles} == {None}
    assert [len(batch.texts) for batch in batches] == [len(batch.chunk_ids) for batch in batches]


def test_vectors_at_are_those_of_the_rows_asked_for(snapshot: Snapshot) -> None:
    column = snapshot.dataset.to_table(columns=["vector"]).column(0).combine_chunks()
    rows = [25, 3, 19]
    assert np.array_equal(
        vectors_at(snapshot, rows, "vector"), to_numpy(column)[rows], equal_nan=True
    )


def test_count_vectors_leaves_out_rows_without_one(snapshot: Snapshot) -> None:
    assert count_vectors(snapshot, "vector") == 2 * ROWS
    first, second = (fragment.fragment_id for fragment in snapshot.dataset.get_fragments())
    assert have_vectors(snapshot, "vector", [first, second])
    assert not have_vectors(snapshot, "vector", [second])


@pytest.mark.parametrize("value", [pa.float32(), pa.float16()])
def test_vectors_to_lists_and_back(value: pa.DataType) -> None:
    vectors = np.array([[0.6, 0.8], [0.0, 0.0], [2.0, 0.0]], np.float32)
    column = to_lists(vectors, pa.list_(value, 2), np.array([False, True, False]))
    back = to_numpy(column)
    assert np.isnan(back[1]).all() and np.allclose(back[[0, 2]], vectors[[0, 2]], atol=1e-3)
    assert is_unit(column).tolist() == [True, False, False]
    assert np.allclose(directions(column), [[0.6, 0.8], [1.0, 0.0]], atol=1e-3)
