"""Files are what they hold, whatever they are called; compressed ones are read to the end."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject
from embedding_core.sources import bytes_per_record, discover, read_documents, slices
from embedding_core.sources.formats import waste
from embedding_core.sources.formats.recognition import Peeked
from tests.compressed import COMPRESSORS

RECORDS = [{"text": "first", "n": 1}, {"text": "second", "n": 2}]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
RANDOM_LINES = b"".join(
    json.dumps({"text": f"{number * 7919 % 10007:x}" * 9}).encode() + b"\n"
    for number in range(9_999)
)


def read(path: Path, **mapping: object) -> list[Document | Reject]:
    spec = SourceSpec(uri=str(path), **mapping)  # type: ignore[arg-type]
    (file,) = discover(spec).files
    return list(read_documents(file, spec))


def texts(items: list[Document | Reject]) -> list[str]:
    assert all(isinstance(item, Document) for item in items), items
    return [item.text for item in items if isinstance(item, Document)]


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(RECORDS), sink)
    return bytes(sink.getvalue())


def arrow_file() -> bytes:
    sink = pa.BufferOutputStream()
    feather.write_feather(pa.Table.from_pylist(RECORDS), sink)
    return bytes(sink.getvalue())


def arrow_stream() -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(RECORDS)
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


CONTENTS = {
    "JSON lines": LINES,
    "JSON lines with a byte order mark": b"\xef\xbb\xbf" + LINES,
    "JSON": json.dumps(RECORDS).encode(),
    "Parquet": parquet(),
    "Arrow file": arrow_file(),
    "Arrow stream": arrow_stream(),
    **{f"JSON lines {end}": compress(LINES) for end, compress in COMPRESSORS.items()},
}
"""What can be told by its content alone."""


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a.json", "a.parquet", "a.arrow", "a.jsonl.gz", "a.csv", "a.zst", "a", "a.bin"],
)
def test_file_named_otherwise_is_read_as_what_it_is(
    tmp_path: Path, content: str, name: str
) -> None:
    (tmp_path / name).write_bytes(CONTENTS[content])
    assert texts(read(tmp_path / name)) == ["first", "second"]


@pytest.mark.parametrize("content", ["Parquet", "Arrow file", "Arrow stream", "JSON lines .gz"])
@pytest.mark.parametrize("name", ["a.txt", "a.md"])
def test_text_name_does_not_hide_a_format_that_nothing_else_looks_like(
    tmp_path: Path, content: str, name: str
) -> None:
    (tmp_path / name).write_bytes(CONTENTS[content])
    items = read(tmp_path / name)
    assert len(items) == (1 if content.startswith("JSON") else 2)


def test_text_that_looks_like_json_stays_the_text_that_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(LINES)
    assert texts(read(tmp_path / "a.txt")) == [LINES.decode()]


def test_source_format_decides_over_name_and_content(tmp_path: Path) -> None:
    (tmp_path / "a.rst").write_bytes(LINES)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    spec = SourceSpec(uri=str(tmp_path), format="text")
    files = discover(spec).files
    assert [texts(list(read_documents(file, spec))) for file in files] == [[LINES.decode()]] * 2


def test_file_that_nothing_tells_the_format_of_is_rejected_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.rst").write_text("words")
    with pytest.raises(RejectedInput, match=r"unknown_format: 'a.rst' .*source.format"):
        read(tmp_path / "a.rst")


@pytest.mark.parametrize("end", COMPRESSORS)
def test_members_one_after_the_other_are_one_text(tmp_path: Path, end: str) -> None:
    piece = COMPRESSORS[end](LINES)
    (tmp_path / f"a.jsonl{end}").write_bytes(piece * 3)
    assert texts(read(tmp_path / f"a.jsonl{end}")) == ["first", "second"] * 3


@pytest.mark.parametrize("end", COMPRESSORS)
@pytest.mark.parametrize("suffix", [".jsonl", ".txt", ".csv", ".json", ".md"])
def test_compressed_data_cut_anywhere_is_never_a_shorter_text(
    tmp_path: Path, end: str, suffix: str
) -> None:
    whole = COMPRESSORS[end](b"text\n" + RANDOM_LINES if suffix == ".csv" else RANDOM_LINES)
    path = tmp_path / f"a{suffix}{end}"
    for size in (len(whole) - 1, len(whole) - 4, len(whole) // 2, 40):
        path.write_bytes(whole[:size])
        with pytest.raises(RejectedInput) as caught:
            read(path)
        assert caught.value.reason == "truncated_compressed"


@pytest.mark.parametrize("end", COMPRESSORS)
def test_compressed_data_with_a_flipped_byte_or_a_tail_is_rejected(
    tmp_path: Path, end: str
) -> None:
    whole, path = COMPRESSORS[end](RANDOM_LINES), tmp_path / f"a.jsonl{end}"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for data in (bytes(flipped), whole + b"tail of something else"):
        path.write_bytes(data)
        with pytest.raises(RejectedInput) as caught:
            read(path)
        assert caught.value.reason in ("corrupt_compressed", "truncated_compressed")


@pytest.mark.parametrize("padding", [1, 511, 1_000_000])
@pytest.mark.parametrize("end", [".gz", ".bz2"])
def test_zero_bytes_behind_compressed_data_are_padding(
    tmp_path: Path, end: str, padding: int
) -> None:
    zeros, path = b"\0" * padding, tmp_path / f"a.jsonl{end}"
    piece = COMPRESSORS[end](LINES)
    path.write_bytes(piece + zeros)
    assert texts(read(path)) == ["first", "second"]
    path.write_bytes(piece + zeros + piece + zeros)
    assert texts(read(path)) == ["first", "second"] * 2
    path.write_bytes(piece + zeros + b"tail")
    with pytest.raises(RejectedInput, match="_compressed: "):
        read(path)


def test_zero_bytes_behind_zstd_data_are_damage_as_for_its_own_tool(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.zst").write_bytes(COMPRESSORS[".zst"](LINES) + b"\0" * 512)
    with pytest.raises(RejectedInput, match=r"corrupt_compressed: .*stands behind it"):
        read(tmp_path / "a.jsonl.zst")


@pytest.mark.parametrize("end", COMPRESSORS)
def test_compressed_data_cut_within_its_first_bytes_is_cut(tmp_path: Path, end: str) -> None:
    whole, path = COMPRESSORS[end](LINES), tmp_path / f"a.jsonl{end}"
    for size in range(1, 20):
        path.write_bytes(whole[:size])
        with pytest.raises(RejectedInput, match=r"truncated_compressed: .*copy the file again"):
            read(path)


@pytest.mark.parametrize("end", COMPRESSORS)
def test_empty_archive_has_no_documents_and_no_archive_at_all_is_rejected(
    tmp_path: Path, end: str
) -> None:
    path = tmp_path / f"a.jsonl{end}"
    path.write_bytes(COMPRESSORS[end](b""))
    assert read(path) == []
    path.write_bytes(b"")
    with pytest.raises(RejectedInput, match="truncated_compressed: the file has no bytes"):
        read(path)


@pytest.mark.parametrize("end", COMPRESSORS)
def test_name_of_a_compression_that_the_content_does_not_have_is_rejected(
    tmp_path: Path, end: str
) -> None:
    (tmp_path / f"a.txt{end}").write_text("words")
    with pytest.raises(RejectedInput, match=f"corrupt_compressed: the name ends with {end}"):
        read(tmp_path / f"a.txt{end}")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(parquet()), "gzip around parquet"),
        (bz2.compress(arrow_file()), "bz2 around arrow"),
        (gzip.compress(gzip.compress(LINES, mtime=0), mtime=0), "compressed twice"),
    ],
)
def test_what_cannot_be_read_compressed_is_rejected_with_what_to_do(
    tmp_path: Path, data: bytes, words: str
) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    with pytest.raises(RejectedInput, match=f"wrong_format: {words}.*decompress it"):
        read(tmp_path / "a.jsonl.gz")


@pytest.mark.slow
@pytest.mark.parametrize("end", COMPRESSORS)
def test_bomb_of_blank_lines_is_rejected_at_the_limit(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waste, "MOST_WASTED", 1_000)
    monkeypatch.setattr(waste, "MOST_WASTED_BYTES", 1_000_000)
    for suffix, text in ((".jsonl", LINES), (".json", b"["), (".csv", b"text\nx\n")):
        path = tmp_path / f"a{suffix}{end}"
        path.write_bytes(COMPRESSORS[end](text + b"\n" * 50_000_000))
        with pytest.raises(RejectedInput, match="mostly_waste"):
            read(path)


@pytest.mark.parametrize("end", COMPRESSORS)
def test_compressed_files_are_not_sliced_and_their_records_measured_as_stored(
    tmp_path: Path, end: str
) -> None:
    path = tmp_path / f"a.jsonl{end}"
    path.write_bytes(COMPRESSORS[end](RANDOM_LINES))
    spec = SourceSpec(uri=str(path))
    (file,) = discover(spec).files
    assert slices(file, spec, 1) == ()
    each = bytes_per_record(file, spec)
    assert each is not None
    assert each * 9_999 == pytest.approx(file.size_bytes, rel=0.3)


def test_compressed_bytes_of_one_document_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(RANDOM_LINES))
    spec = SourceSpec(uri=str(path))
    (file,) = discover(spec).files
    assert bytes_per_record(file, spec) == pytest.approx(file.size_bytes, rel=0.3)


@given(
    head_size=st.integers(0, 40),
    steps=st.lists(
        st.tuples(st.sampled_from(["seek", "end", "read", "readinto", "all"]), st.integers(0, 60)),
        max_size=12,
    ),
)
def test_peeked_stream_is_the_file_wherever_it_is_read(
    head_size: int, steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "peeked"
    path.write_bytes(bytes(range(50)))
    with path.open("rb", buffering=0) as plain, path.open("rb", buffering=0) as below:
        peeked = Peeked(below, below.read(head_size))
        for step, number in steps:
            if step == "seek":
                assert peeked.seek(number) == plain.seek(number)
            elif step == "end":
                assert peeked.seek(-(number % 50), 2) == plain.seek(-(number % 50), 2)
            elif step == "read":
                assert peeked.read(number) == plain.read(number)
            elif step == "readinto":
                buffers = bytearray(number), bytearray(number)
                assert peeked.readinto(buffers[0]) == plain.readinto(buffers[1])
                assert buffers[0] == buffers[1]
            else:
                assert peeked.readall() == plain.readall()
            assert peeked.tell() == plain.tell()
