"""What a disk did to staged files of a run that was cut off: the next run makes them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.saved import finished_units
from embedding_core.runs.embed.units import work_units
from tests.driver import begin, recipe_for, rejects, run, texts, write_jsonl


def flipped(data: bytes) -> bytes:
    """The file with another length of its first message."""
    return data[:5] + bytes([data[5] ^ 0x40]) + data[6:]


DAMAGES = {
    "a flipped bit": flipped,
    "a flipped value": lambda data: data.replace(b"empty_text", b"empty_text"[:-1] + b"u"),
    "cut": lambda data: data[: len(data) // 3],
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_staged_rejects_that_a_disk_damaged_are_made_again(tmp_path: Path, damage: str) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": " "})
    recipe = recipe_for(tmp_path, max_rejected_share=1.0)
    job, planned = begin(recipe)
    (unit,) = work_units(planned, 1)
    embedded = embed_unit(job, chunk_unit(job, unit))
    assert [done.unit for done in finished_units(job, [unit])] == [unit]
    path = Path(embedded.reject_paths[0])
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert finished_units(job, [unit]) == []
    assert run(recipe).outcome == "done"
    assert (texts(recipe), [row["reason"] for row in rejects(recipe)]) == (
        ["words"],
        ["empty_text"],
    )


def test_staged_rejects_that_are_gone_are_made_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": " "})
    job, planned = begin(recipe_for(tmp_path))
    (unit,) = work_units(planned, 1)
    Path(embed_unit(job, chunk_unit(job, unit)).reject_paths[0]).unlink()
    assert finished_units(job, [unit]) == []
