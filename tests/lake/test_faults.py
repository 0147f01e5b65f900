"""Faults of a store: told apart, tried again where that may help, said without Lance's source."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest

from embedding_core import Encoder, pipeline
from embedding_core.errors import LakeError, Transient
from embedding_core.lake import OldRows, faults, known_vectors, table_of, tried_again
from embedding_core.lake.faults import store_faults
from tests.driver import recipe_for, run, write_jsonl

MADE_AT = (
    ", /home/runner/lance-io/src/local.rs:27:9, /rustc/48a2/library/core/ops/function.rs:250:5"
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "FIRST_PAUSE_SECONDS", 0)


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (errno.ENOSPC, "make room or make it writable"),
        (errno.EROFS, "make room or make it writable"),
        (errno.EACCES, "access denied"),
    ],
)
@pytest.mark.parametrize("kind", [OSError, pa.ArrowInvalid])
def test_store_faults_number_that_only_lance_s_message_has_is_understood(
    number: int, named: str, kind: type[Exception]
) -> None:
    said = f"LanceError(IO): {os.strerror(number)} (os error {number}){MADE_AT}"
    with pytest.raises(LakeError, match=named) as caught, store_faults("writing to the lake"):
        raise kind(said)
    assert "writing to the lake" in str(caught.value) and ".rs:" not in str(caught.value)


def test_tried_again_fault_that_no_waiting_heals_is_tried_once() -> None:
    attempts = []

    def full(attempt: int) -> None:
        attempts.append(attempt)
        raise OSError(f"LanceError(IO): No space left on device (os error 28){MADE_AT}")

    with pytest.raises(LakeError, match="make room"):
        tried_again("write", full)
    assert attempts == [1]


def test_read_that_the_store_cuts_off_is_a_fault_that_may_pass(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one", "y": " "})
    recipe = recipe_for(tmp_path, max_rejected_share=1)
    run(recipe)
    table = table_of(recipe)
    (version,) = table.file_versions()
    (file,) = (tmp_path / "lake" / "docs.lance" / "data").iterdir()
    file.rename(tmp_path / "away")
    for read in (
        lambda: pipeline.status(recipe),
        lambda: pipeline.plan(recipe),
        lambda: table.rows_by_key([version.file_key]),
        lambda: table.search("one", Encoder.load("hashing", dim=32), exact=True),
        lambda: table.search("one", Encoder.load("hashing", dim=32), where="doc_id = 'x'"),
    ):
        with pytest.raises(Transient, match="run the same command again"):
            read()
    old = OldRows("file_key", [version.file_key])
    with pytest.raises(Transient, match="known texts"):  # in a task: retried, no file is blamed
        known_vectors(table, None, table.space()[0], old, ["some hash"])
    (tmp_path / "away").rename(file)
    assert pipeline.status(recipe).rows == 1


def test_open_table_that_is_there_and_cannot_be_opened_may_pass(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    for manifest in (tmp_path / "lake" / "docs.lance" / "_versions").iterdir():
        manifest.write_bytes(b"")
    with pytest.raises(Transient, match=r"cannot open.*whether the store answers") as caught:
        pipeline.status(recipe)
    assert ".rs:" not in str(caught.value)


def test_exists_folder_of_a_run_killed_before_the_first_version_is_no_table(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one"})
    recipe = recipe_for(tmp_path)
    versions = tmp_path / "lake" / "docs.lance" / "_versions"
    versions.mkdir(parents=True)
    (versions / "1.manifest.tmp").write_bytes(b"half")
    assert not table_of(recipe).exists()
    assert run(recipe).rows == 1
