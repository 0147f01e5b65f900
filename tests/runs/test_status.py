"""What ``status`` lists: files with what they gave, and everything that was left out."""

from __future__ import annotations

import gzip
from datetime import datetime, tzinfo
from pathlib import Path

import pytest

from embedding_core.lake import ledger
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.table_status import file_lines, reject_lines, status
from tests.driver import recipe_for, run, write_jsonl


def test_file_lines_tell_of_each_file_as_it_is_now(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path, "a.jsonl", {"x": "one", "y": "two"})
    gone = write_jsonl(tmp_path, "b.jsonl", {"z": "three"})
    empty = write_jsonl(tmp_path, "c.jsonl", {"z": " "})
    recipe = recipe_for(tmp_path, max_removed_share=1, max_rejected_share=1)
    run(recipe)
    write_jsonl(tmp_path, "a.jsonl", {"x": "one"})
    gone.unlink()
    run(recipe)
    lines = file_lines(recipe)
    assert [(one.source_uri, one.rows, one.embedded, one.reused) for one in lines] == [
        (str(first), 1, 0, 1),
        (str(empty), 0, 0, 0),
    ]
    assert lines[1].rejected == 1
    assert file_lines(recipe, limit=1) == lines[:1]


def test_file_lines_rows_of_a_last_good_version_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "src" / "a.jsonl.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(b'{"id": "1", "text": "kept"}\n'))
    recipe = recipe_for(tmp_path)
    run(recipe)
    path.write_bytes(b"damaged")
    run(recipe)
    (line,) = file_lines(recipe)
    assert (line.rows, line.documents, line.rejected) == (1, 0, 1)


def test_status_what_is_newest_does_not_depend_on_a_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Backwards(datetime):
        days = 1_000

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Backwards:
            cls.days -= 1
            return cls.fromtimestamp(86_400 * cls.days, tz)

    monkeypatch.setattr(ledger, "datetime", Backwards)
    recipe = recipe_for(tmp_path, max_rejected_share=1)
    runs = []
    for text in (" ", "one", "two"):
        write_jsonl(tmp_path, "a.jsonl", {"x": text})
        runs.append(run(recipe).run_id)
    (line,) = file_lines(recipe)
    assert (line.rows, line.documents, line.run_id) == (1, 1, runs[-1])
    assert [one.run_id for one in status(recipe).runs] == runs[::-1]
    assert plan(recipe).is_empty


def test_reject_lines_tell_file_place_and_reason(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, "a.jsonl", {"x": "one", "y": " ", "z": "  "})
    recipe = recipe_for(tmp_path)
    run(recipe)
    lines = reject_lines(recipe)
    assert {(one.source_uri, one.doc_id, one.position, one.reason) for one in lines} == {
        (str(path), "y", 1, "empty_text"),
        (str(path), "z", 2, "empty_text"),
    }
    assert len(reject_lines(recipe, limit=1)) == 1


@pytest.mark.slow
def test_status_says_how_the_vector_index_was_tuned(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {f"d{n}": f"text {n} of {n % 7}" for n in range(300)})
    exact = recipe_for(tmp_path)
    run(exact)
    assert status(exact).vector_index is None
    maintain(recipe_for(tmp_path, index={"min_rows": 256}))
    index = status(exact).vector_index
    assert index is not None and index.recall >= 0.95 and index.nprobes >= 1
