"""One commit per group: rows go and come together, once, whatever happens between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from embedding_core.errors import LakeError, ModelError, Transient
from embedding_core.lake.rows.commit import fragments_exist, replace_rows, write_fragments
from embedding_core.lake.table import Lake, Table
from embedding_core.store import retry

SCHEMA = pa.schema([pa.field("key", pa.string()), pa.field("value", pa.int64())])


@pytest.fixture
def table(tmp_path: Path) -> Table:
    table = Table(Lake.open(str(tmp_path)), "t")
    table.create(SCHEMA)
    return table


def fragments(table: Table, key: str, n_rows: int) -> tuple[str, ...]:
    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([[key] * n_rows, list(range(n_rows))], schema=SCHEMA)

    return write_fragments(table, batches(), SCHEMA)


def keys(table: Table) -> dict[str, int]:
    counts = table.dataset().to_table().group_by("key").aggregate([("key", "count")])
    return {row["key"]: row["key_count"] for row in counts.to_pylist()}


def test_write_fragments_before_commit_no_reader_sees_them(table: Table) -> None:
    fragments(table, "a", 3)
    assert keys(table) == {}


def test_write_fragments_error_of_the_rows_comes_out_as_it_is(table: Table) -> None:
    def rows() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([["a"], [1]], schema=SCHEMA)
        raise ModelError("the model is gone; bring it back")

    with pytest.raises(ModelError, match="bring it back"):
        write_fragments(table, rows(), SCHEMA)


def test_replace_rows_old_rows_go_and_new_come_in_one_version(table: Table) -> None:
    first = replace_rows(table, "key", [], fragments(table, "a", 3) + fragments(table, "b", 2))
    second = replace_rows(table, "key", ["a"], fragments(table, "c", 4))
    assert second.version == first.version + 1
    assert keys(table) == {"b": 2, "c": 4}


def test_replace_rows_part_of_a_fragment_leaves_its_other_rows(table: Table) -> None:
    def mixed() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([["a", "b", "a"], [1, 2, 3]], schema=SCHEMA)

    replace_rows(table, "key", [], write_fragments(table, mixed(), SCHEMA))
    replace_rows(table, "key", ["a"], ())
    assert table.dataset().to_table().to_pylist() == [{"key": "b", "value": 2}]


def test_replace_rows_key_with_sql_in_it_removes_only_that_key(table: Table) -> None:
    nasty = "x' OR 1=1 --"
    replace_rows(table, "key", [], fragments(table, nasty, 2) + fragments(table, "b", 3))
    replace_rows(table, "key", [nasty], ())
    assert keys(table) == {"b": 3}


def test_replace_rows_nothing_to_change_makes_no_version(table: Table) -> None:
    version = table.dataset().version
    assert replace_rows(table, "key", ["absent"], ()).version == version


def test_replace_rows_lost_reply_does_not_commit_twice(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lance.LanceDataset.commit

    def commit_then_fail(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)
        raise OSError("connection reset")

    new = fragments(table, "a", 3)
    monkeypatch.setattr(lance.LanceDataset, "commit", commit_then_fail)
    replace_rows(table, "key", [], new)
    assert keys(table) == {"a": 3}


def test_replace_rows_lost_reply_is_recognised_after_a_compaction(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_rows(table, "key", [], fragments(table, "b", 3))
    real = lance.LanceDataset.commit

    def commit_compact_and_fail(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)
        monkeypatch.setattr(lance.LanceDataset, "commit", real)
        table.dataset().optimize.compact_files(target_rows_per_fragment=100)
        raise OSError("connection reset")

    new = fragments(table, "a", 3)
    monkeypatch.setattr(lance.LanceDataset, "commit", commit_compact_and_fail)
    replace_rows(table, "key", [], new)
    assert keys(table) == {"a": 3, "b": 3}


def test_replace_rows_conflict_is_tried_again_on_the_newer_version(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_rows(table, "key", [], fragments(table, "a", 3) + fragments(table, "b", 3))
    compactions = iter([True])

    def compact_once(_snapshot: object) -> None:
        if next(compactions, False):
            table.dataset().optimize.compact_files(target_rows_per_fragment=100)

    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.0)
    replace_rows(table, "key", ["a"], fragments(table, "c", 1), check=compact_once)
    assert keys(table) == {"b": 3, "c": 1}


def test_replace_rows_fault_before_the_commit_is_tried_again_too(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_rows(table, "key", [], fragments(table, "a", 3))
    real = lance.LanceDataset.get_fragment
    faults_left = iter([True])

    def fail_once(*args: object) -> object:
        if next(faults_left, False):
            raise OSError("connection reset")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(lance.LanceDataset, "get_fragment", fail_once)
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.0)
    replace_rows(table, "key", ["a"], fragments(table, "c", 1))
    assert keys(table) == {"c": 1}


def test_replace_rows_store_stays_down_says_what_to_do(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError("service unavailable")

    new = fragments(table, "a", 1)
    monkeypatch.setattr(lance.LanceDataset, "commit", fail)
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.0)
    with pytest.raises(Transient, match="run the same command again"):
        replace_rows(table, "key", [], new)
    assert keys(table) == {}


def test_fragments_exist_data_file_deleted_says_no(table: Table) -> None:
    new = fragments(table, "a", 1)
    assert fragments_exist(table, new)
    for path in (Path(table.uri) / "data").iterdir():
        path.unlink()
    assert not fragments_exist(table, new)


def test_lake_table_missing_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="no table 'none'") as caught:
        Lake.open(str(tmp_path)).table("none")
    assert caught.value.action == "embed"
