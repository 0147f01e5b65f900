"""Arrow files and streams: rows exactly, damage rejected, memory bounded by a batch."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pytest

from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject
from embedding_core.sources import discover, documents, read_documents, slices
from embedding_core.sources.formats.recognition import recognised
from experiments.fuzz.target import CORPUS

TABLE = pa.table(
    {
        "id": pa.array([7, 8, 9], pa.int32()),
        "text": ["one", "two", "three"],
        "meta": [{"author": "A", "year": 1}, None, {"author": "B", "year": None}],
        "f": pa.array([0.1, None, 2.0], pa.float32()),
    }
)


def read(path: Path, **mapping: object) -> list[Document | Reject]:
    spec = SourceSpec(uri=str(path), **mapping)  # type: ignore[arg-type]
    (file,) = discover(spec).files
    return list(read_documents(file, spec))


def write_stream(path: Path, table: pa.Table = TABLE, rows: int = 2) -> bytes:
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path.read_bytes()


def write_file(path: Path, table: pa.Table = TABLE, rows: int = 2, **options: object) -> bytes:
    with ipc.new_file(path, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path.read_bytes()


MAPPING = {
    "id": "id",
    "text": "{text} {f}",
    "metadata": {"author": {"field": "meta.author", "type": "string"}, "none": "int"},
}


@pytest.mark.parametrize("write", [write_file, write_stream])
def test_rows_come_with_their_types_paths_and_nulls(tmp_path: Path, write: object) -> None:
    write(tmp_path / "a.arrow")  # type: ignore[operator]
    first, second, third = read(tmp_path / "a.arrow", **MAPPING)
    assert first == Document("7", 0, "one 0.1", {"author": "A", "none": None})
    assert isinstance(second, Reject) and second.reason == "missing_field"
    assert third == Document("9", 2, "three 2.0", {"author": "B", "none": None})


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_slices_hold_every_row_once_whatever_the_compression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str | None
) -> None:
    monkeypatch.setattr(documents, "SMALLEST_SLICE_BYTES", 1)
    table = pa.table({"text": [f"row {n}" for n in range(1_000)], "n": list(range(1_000))})
    write_file(tmp_path / "a.feather", table, 70, compression=compression)
    spec = SourceSpec(uri=str(tmp_path / "a.feather"))
    (file,) = discover(spec).files
    pieces = slices(file, spec, file.size_bytes // 5)
    assert 3 <= len(pieces) <= 10
    rows = [item for piece in pieces for item in read_documents(file, spec, piece)]
    assert rows == list(read_documents(file, spec))
    assert [row.position for row in rows] == list(range(1_000))


def test_files_of_one_source_may_have_other_columns(tmp_path: Path) -> None:
    write_file(tmp_path / "a.arrow", pa.table({"text": ["x"], "year": [1]}))
    write_stream(tmp_path / "b.arrow", pa.table({"year": ["late"], "more": [1], "text": ["y"]}))
    write_file(tmp_path / "c.arrow", pa.table({"text": pa.array(["z"], pa.large_string())}))
    spec = SourceSpec(uri=str(tmp_path), metadata={"year": "int"})  # type: ignore[dict-item]
    items = [item for file in discover(spec).files for item in read_documents(file, spec)]
    assert [getattr(item, "reason", None) for item in items] == [None, "wrong_type", None]
    assert [item.metadata for item in items if isinstance(item, Document)] == [
        {"year": 1}, {"year": None},
    ]  # fmt: skip


@pytest.mark.parametrize("write", [write_file, write_stream])
def test_bytes_that_are_not_utf8_cost_one_row(tmp_path: Path, write: object) -> None:
    bad = pa.array([b"good", b"caf\xe9", b"good"], pa.binary()).view(pa.string())
    write(tmp_path / "a.arrow", pa.table({"text": bad}))  # type: ignore[operator]
    reasons = [getattr(item, "reason", None) for item in read(tmp_path / "a.arrow")]
    assert reasons == [None, "invalid_utf8", None]


@pytest.mark.parametrize("write", [write_file, write_stream])
def test_file_cut_anywhere_is_rejected(tmp_path: Path, write: object) -> None:
    path = tmp_path / "a.arrow"
    whole = write(path, pa.table({"text": ["x" * 50] * 1_000}), 100)  # type: ignore[operator]
    for size in [*range(8, len(whole), len(whole) // 50), len(whole) - 1, len(whole) - 8]:
        path.write_bytes(whole[:size])
        with pytest.raises(RejectedInput, match="corrupt_arrow"):
            read(path)


def test_two_streams_in_one_file_are_rejected_not_half_read(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    path.write_bytes(write_stream(path) * 2)
    with pytest.raises(RejectedInput, match="corrupt_arrow: the stream ends at byte"):
        read(path)


@pytest.mark.parametrize("write", [write_file, write_stream])
def test_offsets_that_point_outside_the_data_are_rejected(tmp_path: Path, write: object) -> None:
    offsets = pa.py_buffer(
        b"".join(n.to_bytes(4, "little", signed=True) for n in (0, 4, 1 << 28, 12))
    )
    column = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"goodgoodgood")])
    write(tmp_path / "a.arrow", pa.table({"text": column}))  # type: ignore[operator]
    with pytest.raises(RejectedInput, match="corrupt_arrow"):
        read(tmp_path / "a.arrow")


def test_slices_follow_no_offset_that_nobody_checked(tmp_path: Path) -> None:
    """A plan looks for slices in the process of the run, which such a file once ended."""
    path = tmp_path / "a.arrow"
    path.write_bytes((CORPUS / "arrow" / "886ce4851cbd618d").read_bytes())
    spec = SourceSpec(uri=str(path))
    (file,) = discover(spec).files
    with (
        path.open("rb", buffering=0) as stream,
        pytest.raises(RejectedInput, match="corrupt_arrow"),
    ):
        recognised(stream, file, spec).spans(file, 1)


@pytest.mark.slow
def test_flipped_bytes_end_in_rows_or_a_reject_never_in_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    for whole in (write_file(path), write_stream(path)):
        for at in range(0, len(whole), 3):
            flipped = bytearray(whole)
            flipped[at] ^= 0x41
            path.write_bytes(flipped)
            try:
                read(path, text="text")
            except RejectedInput as error:
                assert error.reason


def test_dictionary_and_view_types_are_texts(tmp_path: Path) -> None:
    table = pa.table({
        "text": pa.array(["one", "two", "one"]).dictionary_encode(),
        "title": pa.array(["a", "b", None], pa.string_view()),
    })  # fmt: skip
    write_file(tmp_path / "a.arrow", table, 3)
    items = read(tmp_path / "a.arrow", metadata={"title": "string"})
    rows = [item for item in items if isinstance(item, Document)]
    assert [row.text for row in rows] == ["one", "two", "one"]
    assert [row.metadata["title"] for row in rows] == ["a", "b", None]


def test_feather_of_the_first_version_is_rejected_with_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.feather").write_bytes(b"FEA1" + b"\0" * 64 + b"FEA1")
    with pytest.raises(RejectedInput, match="corrupt_arrow"):
        read(tmp_path / "a.feather")
    feather.write_feather(TABLE, tmp_path / "b.feather")
    assert len(read(tmp_path / "b.feather")) == 3


def test_cell_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    write_file(tmp_path / "a.arrow", pa.table({"text": ["x" * 10_000_000, "y"]}))
    first, second = read(tmp_path / "a.arrow")
    assert isinstance(first, Document) and len(first.text) == 10_000_000
    assert isinstance(second, Document) and second.text == "y"


def test_missing_column_lists_some_of_many(tmp_path: Path) -> None:
    write_file(tmp_path / "a.arrow", pa.table({f"c{n}": [n] for n in range(1_000)}))
    with pytest.raises(RejectedInput, match=r"missing_column: .*'c11', …; .*source\.exclude"):
        read(tmp_path / "a.arrow")
