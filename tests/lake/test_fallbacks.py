"""What gives way to something else says so; a fault of the store does not pass for it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import pytest

from embedding_core.errors import Transient
from embedding_core.lake import schema, staging
from embedding_core.lake.index.vector import stored_index
from embedding_core.lake.lock import locked
from embedding_core.lake.rows.reuse import OldRows, known_vectors
from embedding_core.lake.snapshot import INDEX_KEY
from embedding_core.lake.table import table_of
from embedding_core.store import storage
from tests.driver import recipe_for, run, write_jsonl
from tests.synthetic import WORDS


def two_versions(folder: Path) -> tuple[Any, int]:
    """A table and an old version of it."""
    write_jsonl(folder, "a.jsonl", {"x": "one"})
    recipe = recipe_for(folder)
    run(recipe)
    table = table_of(recipe)
    version = table.dataset().version
    write_jsonl(folder, "a.jsonl", {"x": "two"})
    run(recipe)
    return table, version


def test_dataset_store_fault_does_not_pass_for_a_version_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, version = two_versions(tmp_path)

    def fail(*_given: object) -> None:
        raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, "checkout_version", fail)
        with pytest.raises(Transient, match="connection reset"):
            table.dataset(version)
    assert table.dataset(version).version == version


def test_dataset_version_that_was_cleaned_up_gives_way_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table, version = two_versions(tmp_path)
    table.dataset().cleanup_old_versions(older_than=timedelta(0))
    newest = table.dataset().version
    assert table.dataset(version).version == newest
    assert f"version {version} of {table.uri} was cleaned up" in caplog.text


def test_known_vectors_old_version_that_cannot_be_read_gives_way_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table, version = two_versions(tmp_path)
    old = {
        file.path
        for fragment in table.dataset(version).get_fragments()
        for file in fragment.data_files()
    }
    for path in old:
        (tmp_path / "lake" / "docs.lance" / "data" / path).unlink()
    (hashed,) = table.dataset().to_table(columns=["text_hash"]).column(0).to_pylist()
    rows = OldRows("text_hash", [hashed])
    vectors = known_vectors(table, version, table.space()[0], rows, [hashed])
    assert list(vectors.read([hashed])) == [hashed]
    assert vectors.snapshot is not None and vectors.snapshot.version == table.open().version
    assert "looking for known texts in the newest version" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stored", "says"),
    [("{", "cannot be read"), ("[]", "cannot be read"), ('{"kind": "IVF_SQ"}', "lack nprobes")],
)
def test_index_settings_that_do_not_hold_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stored: str, says: str
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {str(n): f"{WORDS[n]} {n}" for n in range(300)})
    recipe = recipe_for(tmp_path, index={"min_rows": 256, "target_recall": 0.5})
    index = run(recipe).index
    table = table_of(recipe)
    name = schema.index_name(table.dataset().schema.field("vector"))
    table.dataset().update_metadata({INDEX_KEY + name: stored})
    assert stored_index(table.open()) is None
    assert f"index {name}" in caplog.text and says in caplog.text
    assert run(recipe).index is not None and stored_index(table.open()) is not None
    assert index is not None


def test_read_json_damaged_is_said_and_missing_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table, _ = two_versions(tmp_path)
    path = str(tmp_path / "record.json")
    assert staging.read_json(table, path) is None and not caplog.text
    Path(path).write_text("{")
    assert staging.read_json(table, path) is None
    assert f"{path} is damaged" in caplog.text


def test_lock_that_cannot_be_renewed_or_given_back_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table, _ = two_versions(tmp_path)

    def fail(*_given: object) -> None:
        raise OSError("no route to host")

    with locked(table, "me", 0) as ours:
        monkeypatch.setattr(storage, "write_bytes", fail)
        ours.renew()
        assert "could not be renewed: no route to host" in caplog.text
    assert "could not be given back (no route to host)" in caplog.text
