"""The map as a file: every row with its place, the same bytes for the same version."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_core.errors import SetupError
from embedding_core.lake.scans import vectors_at
from embedding_core.lake.table import table_of
from embedding_core.projections.components import Components
from embedding_core.recipe import Recipe
from embedding_core.runs.look import placed_rows
from embedding_core.runs.look.placed_rows import (
    MapReport,
    begin_map,
    finish_map,
    named_columns,
    place_shard,
    placed_here,
)
from tests.driver import run, write_jsonl
from tests.look.tables import documents, embedded, with_vectors


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return embedded(tmp_path, documents(40))


def written(recipe: Recipe, out: Path, method: str = "pca", n_fitted: int = 5_000) -> MapReport:
    begun = begin_map(recipe, method, None, n_fitted)
    return finish_map(begun, placed_here(begun), out, time.perf_counter())


def test_map_has_every_row_with_ids_text_metadata_and_place(recipe: Recipe, tmp_path: Path) -> None:
    done = written(recipe, tmp_path / "map.parquet")
    rows = pq.read_table(tmp_path / "map.parquet")
    assert (done.rows, done.left_out, done.fitted_rows) == (41, 0, 41)
    assert rows.column_names == list(done.columns) == [
        "chunk_id", "doc_id", "source_uri", "chunk_index", "n_tokens", "text",
        "lang", "year", "score", "seen", "good", "x", "y",
    ]  # fmt: skip
    table = table_of(recipe).to_arrow(["chunk_id", "text", "year"])
    assert rows.select(["chunk_id", "text", "year"]).to_pydict() == table.to_pydict()
    snapshot = table_of(recipe).open()
    vectors = vectors_at(snapshot, range(41), "vector")
    expected = Components.of(vectors, 2).place(vectors)
    points = np.column_stack([rows.column("x").to_numpy(), rows.column("y").to_numpy()])
    assert np.allclose(points, expected, atol=1e-5)
    assert named_columns(tmp_path / "map.parquet") == ("text", "x", "y")


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_map_of_the_same_version_has_the_same_bytes_however_it_is_made(
    recipe: Recipe, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed_rows, "SHARD_ROWS", 7)
    write_jsonl(tmp_path, "b.jsonl", documents(5)[:-1])  # a second fragment, ids of its own file
    run(recipe)
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    written(recipe, first, method, n_fitted=20)
    begun = begin_map(recipe, method, None, 20)
    assert len(begun.shards) == 7
    in_tasks = [place_shard(begun.job, shard) for shard in reversed(begun.shards)]
    finish_map(begun, reversed(in_tasks), second, time.perf_counter())
    assert first.read_bytes() == second.read_bytes()


def test_map_leaves_out_rows_without_a_finite_vector_and_counts_them(
    recipe: Recipe, tmp_path: Path
) -> None:
    odd = np.full((2, 32), np.nan, np.float32)
    odd[1, :] = np.inf
    with_vectors(recipe, odd)
    done = written(recipe, tmp_path / "map.parquet")
    assert (done.rows, done.left_out) == (41, 2)
    assert np.isfinite(pq.read_table(tmp_path / "map.parquet").column("x").to_numpy()).all()


def test_map_beside_columns_called_x_and_y_has_other_names_for_places(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "d", "text": "a text", "x": "east"}])
    from tests.driver import recipe_for

    recipe = recipe_for(tmp_path, source={"metadata": {"x": "string"}})
    run(recipe)
    done = written(recipe, tmp_path / "map.parquet")
    assert (done.x, done.y) == ("map_x", "map_y")
    assert pq.read_table(tmp_path / "map.parquet").column("x").to_pylist() == ["east"]


def test_map_that_cannot_be_written_leaves_the_old_file(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "map.parquet"
    written(recipe, out)
    before, names = out.read_bytes(), set(tmp_path.iterdir())
    begun = begin_map(recipe, "pca", None, 100)

    def stopped() -> object:
        yield next(placed_here(begun))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish_map(begun, stopped(), out, 0.0)  # type: ignore[arg-type]
    assert out.read_bytes() == before and set(tmp_path.iterdir()) == names
    with pytest.raises(SetupError, match="cannot be written"):
        finish_map(begun, placed_here(begun), tmp_path / "none" / "map.parquet", 0.0)


def test_file_of_another_origin_is_no_map(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(SetupError, match="is no map that embedlake wrote"):
        named_columns(path)
