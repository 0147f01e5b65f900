"""What the table has a vector for is not embedded again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedding_core.encoder import Encoder
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from embedding_core.runs.embed.planning import plan
from tests.driver import recipe_for, rows, run, write_jsonl
from tests.runs.test_no_vector import fail_on

PARAGRAPHS = [
    f"Paragraph {n} tells of apple number {n} and of pear number {n} too.\n\n" for n in range(1_000)
]
"""14 tokens each: two do not fit into a chunk of 16."""


def check_vectors(recipe: Recipe) -> None:
    """Every stored vector is what the encoder makes of the row's text."""
    found = rows(recipe, "text", "vector")
    expected = Encoder.load("hashing", dim=32).encode_documents([row["text"] for row in found])
    np.testing.assert_allclose(np.array([row["vector"] for row in found]), expected, atol=1e-3)


@pytest.mark.slow
def test_run_one_edited_paragraph_of_a_thousand_chunks_embeds_at_most_three(
    tmp_path: Path,
) -> None:
    source = {"id": None, "include": ["*.md"]}
    recipe = recipe_for(tmp_path, source=source, chunk={"max_tokens": 16})
    path = tmp_path / "src" / "book.md"
    path.parent.mkdir()
    path.write_text("".join(PARAGRAPHS))
    assert run(recipe).chunks == 1_000
    edited = PARAGRAPHS.copy()
    edited[500] = "Paragraph 500 was edited and tells of plums and cherries instead of apples.\n\n"
    path.write_text("".join(edited))
    report = run(recipe)
    assert (report.changed, report.chunks, report.outcome) == (1, 1_000, "done")
    assert 1 <= report.embedded <= 3
    assert report.reused == 1_000 - report.embedded
    check_vectors(recipe)


def test_run_other_chunking_reuses_texts_that_stay_the_same(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"short": "few words", "long": "word " * 20})
    run(recipe_for(tmp_path))
    smaller = recipe_for(tmp_path, chunk={"max_tokens": 10})
    report = run(smaller)
    assert (report.embedded, report.reused) == (1, 2)  # ten words twice, and the short text
    check_vectors(smaller)


def test_run_reuse_table_embeds_no_text_that_any_row_has(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {f"a{n}": f"text {n}" for n in range(20)})
    recipe = recipe_for(tmp_path, reuse="table")
    run(recipe)
    write_jsonl(tmp_path, "b.jsonl", {f"b{n}": f"text {n}" for n in range(15, 25)})
    report = run(recipe)
    assert (report.embedded, report.reused, report.rows) == (5, 5, 30)
    check_vectors(recipe)
    indexes = {one.name for one in table_of(recipe).dataset().describe_indices()}
    assert "text_hash_idx" in indexes
    write_jsonl(tmp_path, "c.jsonl", {"c": "text 1"})
    plain = recipe_for(tmp_path)
    assert (run(plain).embedded, plan(recipe).is_empty) == (1, True)
    assert "text_hash_idx" not in {one.name for one in table_of(plain).dataset().describe_indices()}


def test_run_nothing_new_in_a_changed_file_does_not_load_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one", "y": "two", "z": "three"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    write_jsonl(tmp_path, "a.jsonl", {"x": "one", "y": "two"})
    encoded: Counter[str] = fail_on([], monkeypatch)
    report = run(recipe)
    assert (report.embedded, report.reused, report.rows) == (0, 2, 2)
    assert not encoded
    check_vectors(recipe)


def test_run_spoilt_vectors_in_the_table_are_embedded_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one", "y": "two"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    dataset = table_of(recipe).dataset()
    (row,) = dataset.to_table(filter="doc_id = 'x'").to_pylist()
    row["vector"] = [7 * value for value in row["vector"]]
    dataset.delete("doc_id = 'x'")
    dataset.insert(pa.Table.from_pylist([row], schema=dataset.schema))
    write_jsonl(tmp_path, "a.jsonl", {"x": "one", "y": "two", "z": "three"})
    report = run(recipe)
    assert (report.embedded, report.reused, report.outcome) == (2, 1, "done")
    check_vectors(recipe)
