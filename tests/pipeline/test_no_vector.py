"""Texts that the model gives no vector for become rejects with the reason, and only they."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from embedding_core import pipeline
from embedding_core.encoder import Encoded, Kind, hashing
from embedding_core.encoder.base import FAILURES, without_vector
from tests.driver import recipe_for, rejects, run, texts, write_jsonl

REASONS = {"poison": "non_finite_vector", "huge": "out_of_memory"}


@pytest.mark.parametrize("bad", [["poison"], ["huge"], ["poison", "huge"]])
def test_run_text_without_vector_rejected_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: list[str]
) -> None:
    real = hashing.HashingEncoder.encode

    def encode(
        self: hashing.HashingEncoder, batch: Sequence[str], kind: Kind = "document"
    ) -> Encoded:
        reasons = {i: REASONS[word] for i, text in enumerate(batch) for word in bad if word in text}
        if reasons:
            raise without_vector(reasons)
        return real(self, batch, kind)

    monkeypatch.setattr(hashing.HashingEncoder, "encode", encode)
    documents = {"good": "good words", "twice": f"{bad[0]} words"}
    write_jsonl(tmp_path, "a.jsonl", documents | {word: f"{word} words" for word in bad})
    recipe = recipe_for(tmp_path)
    report = run(recipe)
    n_bad = len(bad) + 1
    assert (report.embedded, report.failed, report.exit_code) == (1, n_bad, pipeline.REJECTED)
    assert texts(recipe) == ["good words"]
    found = {one["doc_id"]: (one["reason"], one["detail"]) for one in rejects(recipe)}
    expected = {"twice": REASONS[bad[0]]} | {word: REASONS[word] for word in bad}
    assert found == {name: (reason, FAILURES[reason]) for name, reason in expected.items()}
