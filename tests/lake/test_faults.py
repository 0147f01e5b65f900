"""Faults of a store: told apart, tried again where that may help, said without Lance's source."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from embedding_core import Encoder
from embedding_core.errors import LakeError, Transient, UsageError
from embedding_core.lake.faults import store_faults, tried_again
from embedding_core.lake.rows.reuse import OldRows, known_vectors
from embedding_core.lake.scans import file_versions, row_counts
from embedding_core.lake.table import table_of
from embedding_core.lake.upkeep.manifests import MANIFEST
from embedding_core.recipe import Resources
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.repair import audit, repair
from embedding_core.runs.table_status import status
from embedding_core.store import retry
from tests.driver import recipe_for, rejects, rows, run, write_jsonl

MADE_AT = (
    ", /home/runner/lance-io/src/local.rs:27:9, /rustc/48a2/library/core/ops/function.rs:250:5"
)

PAGE_LAYOUT = b"PageLayout"
"""Stands in the metadata of each page of a data file."""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0)


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (errno.ENOSPC, "make room or make it writable"),
        (errno.EROFS, "make room or make it writable"),
        (errno.EACCES, "access denied"),
        (errno.ENOTDIR, "correct the URI"),
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


def test_read_of_a_table_without_one_of_its_files_names_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one", "y": " "})
    recipe = recipe_for(tmp_path, max_rejected_share=1)
    run(recipe)
    table = table_of(recipe)
    (version,) = file_versions(table.open())
    (file,) = (tmp_path / "lake" / "docs.lance" / "data").iterdir()
    old = OldRows("file_key", [version.file_key])
    file.rename(tmp_path / "away")
    for read in (
        lambda: status(recipe),
        lambda: plan(recipe),
        lambda: row_counts(table.open(), "file_key", [version.file_key]),
        lambda: table.search("one", Encoder.load("hashing", dim=32), exact=True),
        lambda: table.search("one", Encoder.load("hashing", dim=32), where="doc_id = 'x'"),
        lambda: known_vectors(table, None, table.space()[0], old, ["some hash"]),
    ):
        with pytest.raises(LakeError, match=f"{file.name} is missing") as caught:
            read()
        assert caught.value.action == "repair"
    (tmp_path / "away").rename(file)
    assert status(recipe).rows == 1


def test_read_of_an_old_version_that_was_cleaned_up_meanwhile_may_pass(tmp_path: Path) -> None:
    """What is gone is of no version that is kept: no damage, and another try reads the newest."""
    write_jsonl(tmp_path, "a.jsonl", {"x": "one"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    table = table_of(recipe)
    old = table.dataset()
    (file,) = (tmp_path / "lake" / "docs.lance" / "data").iterdir()
    write_jsonl(tmp_path, "a.jsonl", {"x": "two"})
    run(recipe)
    file.unlink()
    with pytest.raises(Transient, match="run the same command again"), table.faults("reading"):
        old.to_table()


@pytest.mark.parametrize("beside", ["", "__files", "__rejects"])
@pytest.mark.parametrize(
    "torn",
    [
        pytest.param(lambda content: content[:-9], id="cut"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: bytes(len(content)), id="zeros"),
    ],
)
def test_damaged_manifest_is_named_and_put_aside_by_repair(
    tmp_path: Path, beside: str, torn: Callable[[bytes], bytes]
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one"})
    recipe = recipe_for(tmp_path, max_rejected_share=1.0)
    run(recipe)
    write_jsonl(tmp_path, "b.jsonl", {"x": "two", "y": " "})
    run(recipe)
    table = tmp_path / "lake" / f"docs{beside}.lance"
    newest = min((table / "_versions").glob("*.manifest"))
    content = newest.read_bytes()
    newest.write_bytes(torn(content))
    with pytest.raises(LakeError, match=rf"version \d+ \({newest.name}\).*is damaged") as caught:
        run(recipe)
    assert ".rs:" not in str(caught.value) and caught.value.action == "repair"
    report = repair(recipe, Resources())
    assert report.repaired and report.damages[0].kind == MANIFEST
    assert (table / f"damaged-{newest.name}").read_bytes() == torn(content)
    assert run(recipe).outcome == "done"
    assert [row["doc_id"] for row in rows(recipe, "doc_id")] == ["x", "x"]
    assert [reject["source_uri"] for reject in rejects(recipe)] == [str(tmp_path / "src/b.jsonl")]
    assert audit(recipe, Resources(), deep=True).damages == ()


@pytest.mark.parametrize("beside", ["", "__files", "__rejects"])
def test_data_file_with_a_flipped_bit_that_cannot_be_read_is_named_with_the_way_out(
    tmp_path: Path, beside: str
) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "x", "text": "one"}, {"id": "y", "text": " "}])
    recipe = recipe_for(tmp_path, max_rejected_share=1.0)
    run(recipe)
    for path in (tmp_path / "lake" / f"docs{beside}.lance" / "data").iterdir():
        assert PAGE_LAYOUT in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(PAGE_LAYOUT, flipped(PAGE_LAYOUT)))
    reads = [lambda: plan(recipe), lambda: status(recipe)]
    reads += [] if beside else [lambda: table_of(recipe).to_arrow()]
    for read in reads:
        with pytest.raises(
            LakeError, match=f"docs{beside}.lance: a data file or an index is not"
        ) as caught:
            read()
        assert caught.value.action == "repair"


@pytest.mark.parametrize("where", ["doc_id = 'x'", "chunk_index < 3 AND text LIKE 'o%'"])
def test_search_with_a_filter_over_a_data_file_that_cannot_be_read_names_the_damage(
    tmp_path: Path, where: str
) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "x", "text": "one"}])
    recipe = recipe_for(tmp_path)
    run(recipe)
    table, encoder = table_of(recipe), Encoder.load("hashing", dim=32)
    (path,) = (tmp_path / "lake" / "docs.lance" / "data").iterdir()
    path.write_bytes(path.read_bytes().replace(PAGE_LAYOUT, flipped(PAGE_LAYOUT)))
    with pytest.raises(
        LakeError, match=r"docs\.lance: a data file or an index is not what"
    ) as caught:
        table.search("one", encoder, where=where)
    assert caught.value.action == "repair"
    for wrong in ("doc_id = ", "yeer = 3"):
        with pytest.raises(UsageError):
            table.search("one", encoder, where=wrong)


def flipped(stored: bytes) -> bytes:
    """The bytes with another last but one."""
    return stored[:-2] + bytes([stored[-2] ^ 1]) + stored[-1:]


@pytest.mark.parametrize("stored", [b'"space_id"', b'"pooling"', b"embedlake:space"])
def test_metadata_with_a_flipped_bit_is_named(tmp_path: Path, stored: bytes) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    newest = min((tmp_path / "lake" / "docs.lance" / "_versions").glob("*.manifest"))
    content = newest.read_bytes()
    assert stored in content
    newest.write_bytes(content.replace(stored, flipped(stored)))
    for read in (lambda: status(recipe), lambda: plan(recipe), lambda: audit(recipe, Resources())):
        with pytest.raises(LakeError, match=r"embedlake:space.*damaged|does not say which model"):
            read()


def test_store_faults_panic_of_lance_may_pass_and_is_an_exception() -> None:
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(Transient, match=r"gave up.*no such field"), store_faults("indexing t"):
        raise panic("no such field")


def test_exists_folder_of_a_run_killed_before_the_first_version_is_no_table(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one"})
    recipe = recipe_for(tmp_path)
    versions = tmp_path / "lake" / "docs.lance" / "_versions"
    versions.mkdir(parents=True)
    (versions / "1.manifest.tmp").write_bytes(b"half")
    assert not table_of(recipe).exists()
    assert run(recipe).rows == 1
