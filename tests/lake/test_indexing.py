"""The vector index: built when it pays, tuned to a measured recall, kept fresh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedding_core.errors import LakeError
from embedding_core.lake import refresh_vector_index, table_of
from embedding_core.lake.indexing import unindexed_rows
from embedding_core.recipe import IndexSpec, Recipe
from tests.driver import recipe_for, run, write_jsonl

WORDS = [f"word{number}" for number in range(300)]


def documents(first: int, n_documents: int) -> dict[str, str]:
    chance = np.random.default_rng(first)
    return {
        str(first + number): " ".join(chance.choice(WORDS, 12)) for number in range(n_documents)
    }


def small_index(folder: Path, **spec: float) -> Recipe:
    return recipe_for(folder, index={"min_rows": 256, **spec})


def test_refresh_vector_index_below_the_size_where_it_pays_there_is_none(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", documents(0, 200))
    recipe = small_index(tmp_path)
    assert run(recipe).index is None
    assert table_of(recipe).index_settings() == {}


def test_refresh_vector_index_reaches_its_recall_and_says_how_to_query(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", documents(0, 600))
    recipe = small_index(tmp_path, target_recall=0.9)
    index = run(recipe).index
    assert index is not None and index.recall >= 0.9
    assert table_of(recipe).index_settings()["nprobes"] == index.nprobes


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
    from embedding_core.lake import indexing

    write_jsonl(tmp_path, "a.jsonl", documents(0, 600))
    recipe = small_index(tmp_path)
    run(recipe_for(tmp_path, index={"min_rows": 10_000}))
    monkeypatch.setattr(indexing, "_recall", lambda exact, found: 0.5)
    with pytest.raises(LakeError, match=r"0\.500 at most.*target_recall"):
        refresh_vector_index(table_of(recipe), IndexSpec(min_rows=256))
