"""What a disk did to staged files of a run that was cut off: the next run makes them again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from embedding_core.errors import LakeError
from embedding_core.lake import ledger, staging
from embedding_core.recipe import Resources
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.commit_stage import commit_units
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.saved import finished_units
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.repair import repair
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


def test_staged_rows_that_a_disk_damaged_do_not_come_back_after_repair(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": "others"})
    recipe = recipe_for(tmp_path)
    job, planned = begin(recipe)
    (unit,) = work_units(planned, 1)
    embedded = embed_unit(job, chunk_unit(job, unit))
    staged, kept = Path(staging.staging_folder(job.table)), tmp_path / "kept"
    shutil.copytree(staged, kept)
    commit_units(job, [embedded])
    shutil.copytree(kept, staged, dirs_exist_ok=True)  # the run was cut off before its end
    ledger.drop_entries(job.table, [unit.files[0].file_key])
    (file,) = (tmp_path / "lake" / "docs.lance" / "data").iterdir()
    key = job.table.to_arrow(["chunk_id"]).column("chunk_id")[0].as_py().encode()
    file.write_bytes(file.read_bytes().replace(key, b"\xff" + key[1:]))
    with pytest.raises(LakeError, match="a data file or an index is not what was written"):
        run(recipe)
    assert repair(recipe, Resources(), deep=True).damages
    assert run(recipe).outcome == "done"
    assert texts(recipe) == ["words", "others"]


def test_staged_rejects_that_are_gone_are_made_again(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words", "y": " "})
    job, planned = begin(recipe_for(tmp_path))
    (unit,) = work_units(planned, 1)
    Path(embed_unit(job, chunk_unit(job, unit)).reject_paths[0]).unlink()
    assert finished_units(job, [unit]) == []
