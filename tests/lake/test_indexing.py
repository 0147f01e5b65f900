"""The vector index: built when it pays, tuned to a measured recall, kept fresh."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedding_core.errors import LakeError
from embedding_core.lake import schema
from embedding_core.lake.index import scalar, tuning, vector
from embedding_core.lake.index.scalar import coverage, refresh_scalar_indexes, unindexed_rows
from embedding_core.lake.index.vector import refresh_vector_index, stored_index, training_is_due
from embedding_core.lake.snapshot import INDEX_KEY
from embedding_core.lake.table import Table, table_of  # fmt: skip
from embedding_core.recipe import IndexKind, IndexSpec, Recipe
from tests.driver import recipe_for, run, write_jsonl
from tests.synthetic import Clusters, add_files

pytestmark = pytest.mark.slow

CLUSTERS = Clusters.make(30, 32)

WORDS = [f"word{number}" for number in range(300)]


@pytest.fixture(autouse=True)
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the sample: quick, and enough for these tables."""
    monkeypatch.setattr(tuning, "SAMPLE_QUERIES", 50)


def documents(first: int, n_documents: int) -> dict[str, str]:
    chance = np.random.default_rng(first)
    return {
        str(first + number): " ".join(chance.choice(WORDS, 12)) for number in range(n_documents)
    }


def small_index(folder: Path, **spec: float) -> Recipe:
    return recipe_for(folder, index={"min_rows": 256, **spec})


def made_up(
    folder: Path, n_rows: int, uri: str = "a", dim: int = 32, no_vector: bool = False
) -> Table:
    """Add ``n_rows`` made-up rows to the table in ``folder``."""
    recipe = recipe_for(folder, model={"dim": dim})
    clusters = CLUSTERS if dim == 32 else Clusters.make(30, dim)
    return add_files(recipe, [uri], n_rows, clusters, seed=len(uri), no_vector=no_vector)


def test_refresh_vector_index_below_the_size_where_it_pays_there_is_none(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", documents(0, 200))
    recipe = small_index(tmp_path)
    assert run(recipe).index is None
    assert table_of(recipe).open().index_settings() == {}


def test_refresh_vector_index_reaches_its_recall_and_says_how_to_query(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", documents(0, 600))
    recipe = small_index(tmp_path, target_recall=0.9)
    index = run(recipe).index
    assert index is not None and index.recall >= 0.9
    assert table_of(recipe).open().index_settings()["nprobes"] == index.nprobes


def test_refresh_vector_index_new_rows_are_covered_without_measuring_again(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path, "a.jsonl", documents(0, 600))
    recipe = small_index(tmp_path)
    first = run(recipe).index
    write_jsonl(tmp_path, "b.jsonl", documents(1_000, 20))
    assert run(recipe).index == first
    assert set(unindexed_rows(table_of(recipe).dataset()).values()) == {0}


def test_refresh_vector_index_grown_by_a_tenth_is_measured_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", documents(0, 600))
    recipe = small_index(tmp_path)
    run(recipe)
    write_jsonl(tmp_path, "b.jsonl", documents(1_000, 100))
    index = run(recipe).index
    assert index is not None
    assert (index.rows_at_training, index.rows_at_tuning) == (600, 700)


def test_refresh_vector_index_rows_that_took_the_place_of_others_are_measured_too(
    tmp_path: Path,
) -> None:
    """As many as before, and none that the settings were measured on."""
    spec = IndexSpec(min_rows=256, target_recall=0.5)
    table = made_up(tmp_path, n_rows=600)
    index = refresh_vector_index(table, spec)
    assert index is not None
    said = index.recall - 0.001
    stored = asdict(index) | {"recall": said}
    table.dataset().update_metadata({INDEX_KEY + index.name: json.dumps(stored)})
    made_up(tmp_path, n_rows=50, uri="few")
    table.dataset().delete("source_uri = 'a' AND chunk_index < 50")
    again = refresh_vector_index(table, spec)
    assert again is not None and again.recall == said  # too few to read all vectors for
    made_up(tmp_path, n_rows=550, uri="others")
    table.dataset().delete("source_uri = 'a'")
    measured = refresh_vector_index(table, spec)
    assert measured is not None and measured.recall >= 0.5 and measured.recall != said
    assert refresh_vector_index(table, spec) == measured


def test_refresh_vector_index_kind_is_chosen_by_size_and_dimension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit per dimension where one byte would be too much, where eight divide the dimension."""
    monkeypatch.setattr(vector, "LARGEST_SQ_BYTES", 600 * 20 - 1)
    spec = IndexSpec(min_rows=256)
    for dim, kind in ((32, "IVF_RQ"), (20, "IVF_SQ")):
        table = made_up(tmp_path / str(dim), n_rows=600, dim=dim)
        index = refresh_vector_index(table, spec)
        assert index is not None and index.kind == kind and index.recall >= 0.95


def test_refresh_vector_index_doubled_is_trained_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", documents(0, 300))
    recipe = small_index(tmp_path)
    run(recipe)
    write_jsonl(tmp_path, "b.jsonl", documents(1_000, 400))
    index = run(recipe).index
    assert index is not None and index.rows_at_training == 700


def test_refresh_vector_index_rows_replaced_search_finds_the_new_ones(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", documents(0, 600))
    write_jsonl(tmp_path, "b.jsonl", {"needle": "zebra quagga okapi"})
    recipe = small_index(tmp_path)
    run(recipe)
    write_jsonl(tmp_path, "b.jsonl", {"needle": "pangolin aardvark tapir"})
    run(recipe)
    from embedding_core.encoder import Encoder

    encoder = Encoder.load("hashing", dim=32)
    (hit,) = table_of(recipe).search("pangolin aardvark tapir", encoder, k=1)
    assert (hit.doc_id, hit.text) == ("needle", "pangolin aardvark tapir")
    assert hit.score == pytest.approx(1.0, abs=1e-2)


def test_refresh_vector_index_target_out_of_reach_says_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = made_up(tmp_path, n_rows=600)
    monkeypatch.setattr(tuning, "REFINE_FACTORS", (1,))  # four codes a row do not rank them all
    with pytest.raises(LakeError, match=r"reaches recall@10 0\.\d+ at most.*target_recall"):
        refresh_vector_index(table, IndexSpec(min_rows=256, kind="IVF_PQ", target_recall=1.0))
    assert unindexed_rows(table.dataset()) == {} and table.open().index_settings() == {}


@pytest.mark.parametrize("kind", ["IVF_SQ", "IVF_RQ", "IVF_HNSW_SQ", "IVF_PQ"])
def test_refresh_vector_index_kind_of_the_recipe_reaches_the_target(
    tmp_path: Path, kind: IndexKind
) -> None:
    table = made_up(tmp_path, n_rows=2_000)
    refresh_vector_index(table, IndexSpec(min_rows=256))
    index = refresh_vector_index(table, IndexSpec(min_rows=256, kind=kind))
    assert index is not None and index.kind == kind and index.recall >= 0.95
    assert coverage(table.dataset())[index.name].kind == kind


def test_training_is_due_says_when_refreshing_trains(tmp_path: Path) -> None:
    table, spec = made_up(tmp_path, n_rows=300), IndexSpec(min_rows=600)
    trained_at: list[int | None] = []
    for n_rows in (100, 200, 100, 300, 500, 100):
        made_up(tmp_path, n_rows=n_rows, uri=f"{n_rows} at {len(trained_at)}")
        due, before = training_is_due(table.open(), spec), stored_index(table.open())
        index = refresh_vector_index(table, spec)
        trained = index is not None and (
            before is None or index.rows_at_training != before.rows_at_training
        )
        assert due == trained and not training_is_due(table.open(), spec)
        trained_at.append(index.rows_at_training if index is not None else None)
    assert trained_at == [None, 600, 600, 600, 1_500, 1_500]
    table.dataset().drop_index(schema.index_name(table.dataset().schema.field("vector")))
    assert training_is_due(table.open(), spec)


def test_refresh_vector_index_kind_that_cannot_do_the_dimension_is_refused(tmp_path: Path) -> None:
    table = made_up(tmp_path, n_rows=300, dim=20)
    with pytest.raises(LakeError, match="have 20"):
        refresh_vector_index(table, IndexSpec(min_rows=256, kind="IVF_RQ"))


def test_refresh_vector_index_grown_in_many_steps_is_merged_and_finds_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scalar, "MOST_PARTS", 3)
    table = made_up(tmp_path, n_rows=2_000)
    spec, parts = IndexSpec(min_rows=256), []
    name = schema.index_name(table.dataset().schema.field("vector"))
    for step in range(1, 6):
        refresh_scalar_indexes(table)
        refresh_vector_index(table, spec)
        parts.append(coverage(table.dataset())[name].parts)
        made_up(tmp_path, n_rows=20, uri=f"new{step}")
        assert table.dataset().count_rows(filter=f"source_uri = 'new{step}'") == 20
    assert parts == [1, 2, 3, 1, 2]
    assert set(unindexed_rows(table.dataset()).values()) == {20}


def test_refresh_indexes_with_merge_are_of_one_part_that_covers_everything(tmp_path: Path) -> None:
    table, spec = made_up(tmp_path, n_rows=600), IndexSpec(min_rows=256)
    for step in range(3):
        refresh_scalar_indexes(table, full_text=True, merge=step == 2)
        refresh_vector_index(table, spec, merge=step == 2)
        indexes = coverage(table.dataset())
        assert len(indexes) == 5
        assert {index.parts for index in indexes.values()} == {2 if step == 1 else 1}
        assert {index.uncovered_rows for index in indexes.values()} == {0}
        made_up(tmp_path, n_rows=10, uri=f"new{step}")


def test_refresh_scalar_indexes_extended_in_one_commit(tmp_path: Path) -> None:
    table = made_up(tmp_path, n_rows=100)
    refresh_scalar_indexes(table)
    made_up(tmp_path, n_rows=10, uri="new")
    before = table.dataset().version
    refresh_scalar_indexes(table)
    assert table.dataset().version == before + 1


def test_refresh_vector_index_recall_that_fell_far_is_trained_again(tmp_path: Path) -> None:
    table = made_up(tmp_path, n_rows=8_500)
    first = refresh_vector_index(table, IndexSpec(min_rows=256, target_recall=0.1))
    assert first is not None and (first.partitions, first.nprobes) == (3, 1)
    made_up(tmp_path, n_rows=100, uri="new")
    better = refresh_vector_index(table, IndexSpec(min_rows=256, target_recall=0.995))
    assert better is not None and better.recall >= 0.995
    assert better.rows_at_training == 8_600


def test_refresh_vector_index_gpu_that_does_not_work_gives_way_to_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This machine's torch has no CUDA; the search finds as much as ever."""
    monkeypatch.setattr(vector, "n_nvidia_gpus", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    table = made_up(tmp_path, n_rows=600)
    index = refresh_vector_index(table, IndexSpec(min_rows=256, kind="IVF_PQ"))
    assert index is not None and index.kind == "IVF_PQ" and index.recall >= 0.95
    assert "training IVF_PQ on the GPU failed" in caplog.text
    caplog.clear()
    refresh_vector_index(table, IndexSpec(min_rows=256, kind="IVF_SQ"))
    assert "on the GPU failed" not in caplog.text


def test_refresh_vector_index_shrunk_table_is_searched_exactly_again(tmp_path: Path) -> None:
    table = made_up(tmp_path, n_rows=600)
    assert refresh_vector_index(table, IndexSpec(min_rows=600)) is not None
    table.dataset().delete("chunk_index >= 500")  # not far below: building and dropping costs
    assert refresh_vector_index(table, IndexSpec(min_rows=600)) is not None
    table.dataset().delete("chunk_index >= 200")
    assert refresh_vector_index(table, IndexSpec(min_rows=600)) is None
    assert table.open().index_settings() == {} and unindexed_rows(table.dataset()) == {}


def test_refresh_vector_index_changed_by_hand_is_put_right(tmp_path: Path) -> None:
    table, spec = made_up(tmp_path, n_rows=600), IndexSpec(min_rows=256)
    index = refresh_vector_index(table, spec)
    assert index is not None
    dataset = table.dataset()
    dataset.create_index("vector", "IVF_PQ", name="theirs", num_partitions=1, num_sub_vectors=4)
    assert refresh_vector_index(table, spec) == index
    assert set(coverage(table.dataset())) == {index.name}
    table.dataset().create_index(
        "vector", "IVF_PQ", name=index.name, num_partitions=1, num_sub_vectors=4, replace=True
    )
    again = refresh_vector_index(table, spec)
    assert again is not None and coverage(table.dataset())[index.name].kind == again.kind
    table.dataset().drop_index(index.name)
    assert refresh_vector_index(table, spec) is not None
    table.dataset().update_metadata({INDEX_KEY + index.name: json.dumps({"nprobes": "many"})})
    mended = refresh_vector_index(table, spec)
    assert mended is not None and table.open().index_settings()["nprobes"] == mended.nprobes


def test_refresh_scalar_indexes_dropped_by_hand_are_made_again(tmp_path: Path) -> None:
    table = made_up(tmp_path, n_rows=300)
    refresh_scalar_indexes(table, full_text=True)
    table.dataset().drop_index("file_key_idx")
    refresh_scalar_indexes(table, full_text=True)
    assert unindexed_rows(table.dataset()) == {
        "file_key_idx": 0, "source_uri_idx": 0, "chunk_id_idx": 0, "text_idx": 0,
    }  # fmt: skip


def test_refresh_vector_index_rows_without_vectors_are_passed_over(tmp_path: Path) -> None:
    spec = IndexSpec(min_rows=256)
    table = made_up(tmp_path, n_rows=300, no_vector=True)
    assert refresh_vector_index(table, spec) is None
    made_up(tmp_path, n_rows=300, uri="good")
    index = refresh_vector_index(table, spec)
    assert index is not None and index.recall >= 0.95
    made_up(tmp_path, n_rows=20, uri="bad", no_vector=True)
    assert refresh_vector_index(table, spec) == index  # nothing to extend by, and no failure
    made_up(tmp_path, n_rows=20, uri="good too")
    assert refresh_vector_index(table, spec) is not None
    assert set(unindexed_rows(table.dataset()).values()) == {0}


def test_refresh_vector_index_vectors_overwritten_by_hand_are_passed_over(tmp_path: Path) -> None:
    table, spec = made_up(tmp_path, n_rows=600), IndexSpec(min_rows=256)
    rows = table.dataset().to_table(filter="chunk_index < 200")
    position, field = rows.schema.get_field_index("vector"), rows.schema.field("vector")
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(200 * 32, np.float32)), 32)
    overwritten = rows.set_column(position, field, zeros)
    table.dataset().merge_insert("chunk_id").when_matched_update_all().execute(overwritten)
    index = refresh_vector_index(table, spec)
    assert index is not None and index.recall >= 0.95


def test_sample_texts_that_stand_many_times_are_no_misses(tmp_path: Path) -> None:
    same = Clusters(CLUSTERS.draw(5, seed=1) * 1e6)  # no spread left: five vectors in all
    table = add_files(recipe_for(tmp_path), ["a"], 1_000, same)
    index = refresh_vector_index(table, IndexSpec(min_rows=256, target_recall=1.0))
    assert index is not None and index.recall == 1.0


def test_sample_measures_what_a_loop_over_all_rows_does(tmp_path: Path) -> None:
    table = made_up(tmp_path, n_rows=1_000)
    refresh_vector_index(table, IndexSpec(min_rows=256))
    vectors = np.array(table.dataset().to_table().column("vector").to_pylist(), np.float32)
    sample = tuning.Sample(table.open(), "vector")
    near = np.sort(1 - sample.queries @ vectors.T, axis=1)[:, :11]
    assert np.allclose(sample.nearest, near, atol=1e-6)
    assert sample.measure(1, 50).recall == 1.0
