"""What a crash costs: nothing that was saved is done again."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from embedding_core.encoder import Kind, hashing
from embedding_core.encoder.stream import Piece, Rows
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Plan, StagedUnit
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.commit_stage import commit_units
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.finish_stage import RunTally, finish
from embedding_core.runs.embed.saved import finished_units
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.job import Job
from tests.driver import begin, recipe_for, rejects, rows, run, write_jsonl
from tests.runs.test_no_vector import fail_on
from tests.runs.test_reuse import check_vectors

BLOCK = 4_096
"""Rows that an embed unit works on together."""


class Killed(BaseException):
    """The process ends here."""


def long_unit(folder: Path) -> tuple[Recipe, Job, Plan, StagedUnit]:
    """A file of four blocks, chunked, to be embedded in parts of one block."""
    write_jsonl(folder, "a.jsonl", {f"d{n:05}": f"text {n % 16_000}" for n in range(4 * BLOCK)})
    recipe = recipe_for(folder)
    job, planned = begin(recipe, Resources(part_rows=BLOCK))
    (unit,) = work_units(planned, 1 << 30)
    return recipe, job, planned, chunk_unit(job, unit)


def killed_in_block(number: int, patch: pytest.MonkeyPatch) -> None:
    """Let the process die in the middle of a block."""
    real = hashing.HashingEncoder.encode_pieces
    texts = 0

    def encode_pieces(
        self: hashing.HashingEncoder, pieces: Iterable[Piece], kind: Kind
    ) -> Iterator[tuple[Piece, Rows]]:
        nonlocal texts
        for piece, encoded in real(self, pieces, kind):
            texts += len(piece.texts)
            if texts > number * BLOCK + BLOCK // 2:
                raise Killed
            yield piece, encoded

    patch.setattr(hashing.HashingEncoder, "encode_pieces", encode_pieces)


@pytest.mark.slow
def test_embed_unit_killed_in_its_middle_redoes_at_most_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, job, planned, staged = long_unit(tmp_path)
    with monkeypatch.context() as patch:
        killed_in_block(2, patch)
        with pytest.raises(Killed):
            embed_unit(job, staged)
    encoded = fail_on([], monkeypatch)
    done = embed_unit(job, staged)
    n_again = sum(n for text, n in encoded.items() if text.startswith("text "))
    assert n_again <= 2 * BLOCK  # the part that was cut off and the one behind it
    (counts,) = done.counts
    assert counts.balances and counts.rows == 4 * BLOCK
    commit_units(job, [done])
    tally = RunTally()
    tally.add([done])
    assert finish(job, planned, tally, 0.0).outcome == "done"
    check_vectors(recipe)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["data", "json", "other rows"])
def test_embed_unit_saved_parts_that_do_not_hold_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    recipe, job, _, staged = long_unit(tmp_path)
    with monkeypatch.context() as patch:
        killed_in_block(2, patch)
        with pytest.raises(Killed):
            embed_unit(job, staged)
    folder = Path(staged.path).parent
    part = folder / "part-00001.json"
    if damage == "data":
        shutil.rmtree(tmp_path / "lake" / "docs.lance" / "data")
    elif damage == "json":
        part.write_text("{")
    else:
        part.write_text(json.dumps(json.loads(part.read_text()) | {"last_chunk_id": "x"}))
    commit_units(job, [embed_unit(job, staged)])
    assert len(rows(recipe, "doc_id")) == 4 * BLOCK
    check_vectors(recipe)


def test_embed_unit_that_was_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": " "})
    recipe = recipe_for(tmp_path)
    job, planned = begin(recipe)
    (unit,) = work_units(planned, 1)
    staged = chunk_unit(job, unit)
    first = embed_unit(job, staged)
    encoded: Counter[str] = fail_on([], monkeypatch)
    assert embed_unit(job, staged) == first
    assert not encoded
    assert finished_units(job, [unit]) == [first]
    commit_units(job, [first])
    assert finished_units(job, [unit]) == []
    assert [one["reason"] for one in rejects(recipe)] == ["empty_text"]


def test_finished_units_whose_rows_are_gone_are_no_longer_finished(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = recipe_for(tmp_path)
    job, planned = begin(recipe)
    (unit,) = work_units(planned, 1)
    embed_unit(job, chunk_unit(job, unit))
    shutil.rmtree(tmp_path / "lake" / "docs.lance" / "data")
    assert finished_units(job, [unit]) == []


def test_commit_units_leaves_nothing_staged(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": " "})
    run(recipe_for(tmp_path))
    assert list((tmp_path / "lake" / "_embedlake" / "docs" / "staged").iterdir()) == []


@pytest.mark.slow
def test_units_with_many_rejects_stay_small(tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "src" / "bad.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"not json\n" * 20_000)
    recipe = recipe_for(tmp_path)
    job, planned = begin(recipe)
    (unit,) = work_units(planned, 1)
    staged = chunk_unit(job, unit)
    done = embed_unit(job, staged)
    assert len(pickle.dumps(staged)) + len(pickle.dumps(done)) < 5_000
    assert done.reasons == {"malformed_json": 20_000}
    commit_units(job, [done])
    found = rejects(recipe)
    assert [one["position"] for one in found] == list(range(20_000))
    assert np.unique([one["run_id"] for one in found]).tolist() == [job.run_id]


def test_run_rejects_of_a_file_that_was_rejected_as_a_whole_are_not_listed(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "src" / "a.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(b"not json\n" * 5_000 + bytes(range(256)) * 400)[:-6])
    recipe = recipe_for(tmp_path)
    report = run(recipe)
    assert report.rejects == {"truncated_compressed": 1}
    assert [one["reason"] for one in rejects(recipe)] == ["truncated_compressed"]
    assert table_of(recipe).dataset().count_rows() == 0


def test_embed_unit_report_that_is_saved_reads_back_the_same(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "x", "text": "words"}, {"id": "y", "text": ""}])
    recipe = recipe_for(tmp_path)
    job, planned = begin(recipe)
    (unit,) = work_units(planned, 1)
    done = embed_unit(job, chunk_unit(job, unit))
    assert done.reasons and finished_units(job, [unit]) == [done]
