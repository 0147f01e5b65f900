"""Texts that the model gives no vector for become rejects with the reason, and only they."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedding_core.encoder import Kind, hashing
from embedding_core.encoder.base import FAILURES
from embedding_core.encoder.stream import Piece, Rows
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.units import work_units
from tests.driver import recipe_for, rejects, run, texts, write_jsonl

REASONS = {"poison": "non_finite_vector", "huge": "out_of_memory"}


def fail_on(words: list[str], patch: pytest.MonkeyPatch) -> Counter[str]:
    """Let the encoder give no vector for texts with one of ``words``; counts what it encodes."""
    real = hashing.HashingEncoder.encode_pieces
    encoded: Counter[str] = Counter()

    def encode_pieces(
        self: hashing.HashingEncoder, pieces: Iterable[Piece], kind: Kind
    ) -> Iterator[tuple[Piece, Rows]]:
        for piece, rows in real(self, pieces, kind):
            encoded.update(piece.texts)
            failures = {
                i: REASONS[word]
                for i, text in enumerate(piece.texts)
                for word in words
                if word in text
            }
            vectors = rows.vectors.copy()
            vectors[list(failures)] = np.nan
            yield piece, replace(rows, vectors=vectors, failures=failures)

    patch.setattr(hashing.HashingEncoder, "encode_pieces", encode_pieces)
    return encoded


@pytest.mark.parametrize("bad", [["poison"], ["huge"], ["poison", "huge"]])
def test_run_text_without_vector_rejected_with_its_reason_and_nothing_encoded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: list[str]
) -> None:
    documents = {"good": "good words", "twice": f"{bad[0]} words"}
    write_jsonl(tmp_path, "a.jsonl", documents | {word: f"{word} words" for word in bad})
    encoded = fail_on(bad, monkeypatch)
    recipe = recipe_for(tmp_path)
    report = run(recipe)
    n_bad = len(bad) + 1
    assert (report.embedded, report.failed, report.outcome) == (1, n_bad, "rejected")
    assert texts(recipe) == ["good words"]
    ours = {text: n for text, n in encoded.items() if text.endswith(" words")}
    assert ours == {"good words": 1} | {f"{word} words": 1 for word in bad}
    found = {one["doc_id"]: (one["reason"], one["detail"]) for one in rejects(recipe)}
    expected = {"twice": REASONS[bad[0]]} | {word: REASONS[word] for word in bad}
    assert found == {name: (reason, FAILURES[reason]) for name, reason in expected.items()}


def test_retry_texts_that_failed_before_are_embedded_when_they_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "some.jsonl", {"good": "good words", "huge": "huge words"})
    write_jsonl(tmp_path, "other.jsonl", {"fine": "other words"})
    recipe = recipe_for(tmp_path)
    with monkeypatch.context() as patch:
        fail_on(["huge"], patch)
        assert run(recipe).failed == 1
        assert plan(recipe).is_empty
        still = run(recipe, retry_reasons=["out_of_memory"])
        assert (still.changed, still.failed, still.reused) == (1, 1, 1)
    (planned,) = plan(recipe, ["out_of_memory"]).files
    assert planned.why == "retried: out_of_memory"
    encoded = fail_on([], monkeypatch)
    report = run(recipe, retry_reasons=["out_of_memory", "non_finite_vector"])
    assert (report.embedded, report.reused, report.outcome) == (1, 1, "done")
    assert encoded["huge words"] == 1 and "good words" not in encoded
    assert texts(recipe) == ["other words", "good words", "huge words"]
    assert rejects(recipe) == []
    assert plan(recipe, ["out_of_memory"]).is_empty


def test_work_units_of_a_retried_file_are_not_the_ones_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"good": "good words", "bad": "huge words"})
    recipe = recipe_for(tmp_path)
    fail_on(["huge"], monkeypatch)
    (first,) = work_units(plan(recipe), 1)
    run(recipe)
    (again,) = work_units(plan(recipe, ["out_of_memory"]), 1)
    assert again.files[0].file_key == first.files[0].file_key
    assert again.unit_id != first.unit_id  # else Prefect would find the old result
