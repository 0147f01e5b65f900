"""Files of next to nothing end soon, with a reason; files with much that is bad are read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_core.errors import RejectedInput, words
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject, Slice, Span
from embedding_core.sources import discover, read_documents
from embedding_core.sources.formats import jsonl, waste

GOOD = b'{"id": "a", "text": "good"}\n'


def read(path: Path, **mapping: object) -> list[Document | Reject]:
    spec = SourceSpec(uri=str(path), **mapping)  # type: ignore[arg-type]
    (file,) = discover(spec).files
    return list(read_documents(file, spec))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waste, "MOST_WASTED", 1_000)
    monkeypatch.setattr(waste, "MOST_WASTED_BYTES", 1_000_000)


def test_gzip_bomb_of_blank_lines_is_rejected_at_the_limit(tmp_path: Path) -> None:
    piece = gzip.compress(b"\n" * 2_000_000)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD) + piece * 200)
    assert path.stat().st_size < 500_000
    with pytest.raises(RejectedInput, match=r"mostly_waste: 1,000,011 blank .* beside 1 of use"):
        read(path)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "line", [b"\n", b" \t\r\n", b"[\n", b"{}\n", b"\xff\n", b'{"text": ""}\n', b"[]\n"]
)
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_file_of_lines_of_no_use_is_rejected_at_the_limit(
    tmp_path: Path, line: bytes, suffix: str
) -> None:
    data = GOOD + line * 5_000
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    with pytest.raises(RejectedInput, match=r"mostly_waste: 1,011 .*1,000 and 10 times"):
        read(path, id="id")


@pytest.mark.usefixtures("few")
def test_file_that_repeats_an_id_is_rejected_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD * 5_000)
    with pytest.raises(RejectedInput, match="mostly_waste"):
        read(tmp_path / "a.jsonl", id="id")


@pytest.mark.usefixtures("few")
def test_file_of_blank_bytes_or_one_endless_line_is_rejected_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 100_000)
    for rest in ((b" " * 50_000 + b"\n") * 50, b"x" * 20_000_000):
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(GOOD + rest, 1))
        with pytest.raises(RejectedInput, match=r"mostly_waste: .* bytes"):
            read(tmp_path / "a.jsonl.gz")


@pytest.mark.usefixtures("few")
def test_parquet_file_of_nulls_is_rejected_at_the_limit(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.nulls(100_000, pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(RejectedInput, match="mostly_waste: 1,001 rejected records"):
        read(tmp_path / "a.parquet")


@pytest.mark.usefixtures("few")
def test_slice_of_lines_of_no_use_is_rejected_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"[\n" * 5_000)
    spec = SourceSpec(uri=str(path))
    (file,) = discover(spec).files
    part = Slice(1, 2, Span(len(GOOD), file.size_bytes, 1))
    with pytest.raises(RejectedInput, match="mostly_waste"):
        list(read_documents(file, spec, part))


@pytest.mark.usefixtures("few")
def test_file_with_ten_bad_lines_for_each_good_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes((GOOD + b"\n" * 10 + b"[\n" * 10) * 1_000)
    items = read(tmp_path / "a.jsonl")
    assert sum(isinstance(one, Document) for one in items) == 1_000
    assert len(items) == 11_000


def test_key_that_comes_twice_among_very_many_is_found_at_once(tmp_path: Path) -> None:
    keys = ", ".join(f'"k{n}": 0' for n in range(200_000))
    (tmp_path / "a.jsonl").write_text(f'{{{keys}, "k199999": 1}}\n')
    (item,) = read(tmp_path / "a.jsonl")
    assert isinstance(item, Reject) and "'k199999' twice" in item.detail


def test_value_nested_as_deep_as_the_parser_goes_costs_one_record(tmp_path: Path) -> None:
    depths = range(400, 1_100)
    lines = [json.dumps({"text": "x"}).replace('"x"', "[" * n + "]" * n) for n in depths]
    (tmp_path / "a.jsonl").write_text("\n".join([*lines, '{"text": "good"}']))
    items = read(tmp_path / "a.jsonl")
    assert len(items) == len(depths) + 1
    assert {one.reason for one in items if isinstance(one, Reject)} == {"wrong_type", "too_deep"}


@pytest.mark.parametrize("error", [MemoryError(), EOFError(), OSError(), ValueError(" ")])
def test_words_of_an_error_without_a_message_are_not_empty(error: Exception) -> None:
    assert words(error).strip()
    assert "out of memory" in words(MemoryError())
    assert words(ValueError("said")) == "said"
