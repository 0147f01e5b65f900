"""Readers: good records come through exactly, bad ones are rejected with a reason."""

from __future__ import annotations

import gzip
import json
import os
import random
import tracemalloc
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject
from embedding_core.sources import check_unchanged, discover, read_documents
from embedding_core.sources.formats import jsonl
from embedding_core.sources.formats.prose import text as plain
from embedding_core.store import local
from embedding_core.store.storage import StorageSpec

GOOD = b'{"text": "good"}\n'
RANDOM = random.Random(0).randbytes(9_000).hex().encode()


def read(path: Path, **mapping: object) -> list[Document | Reject]:
    spec = SourceSpec(uri=str(path), **mapping)  # type: ignore[arg-type]
    (file,) = discover(spec).files
    return list(read_documents(file, spec))


def read_bytes(folder: Path, name: str, data: bytes, **mapping: object) -> list[Document | Reject]:
    (folder / name).write_bytes(data)
    return read(folder / name, **mapping)


def rejects(items: list[Document | Reject]) -> list[tuple[int | None, str]]:
    return [(item.position, item.reason) for item in items if isinstance(item, Reject)]


def documents(items: list[Document | Reject]) -> list[tuple[str, str]]:
    return [(item.doc_id, item.text) for item in items if isinstance(item, Document)]


@pytest.mark.parametrize(
    ("line", "reason", "words"),
    [
        (b'{"text": "x"', "malformed_json", "column"),
        (b'{"text": "x"} tail', "malformed_json", "column 15"),
        (b'{"text": NaN}', "malformed_json", "NaN"),
        (b'{"text": "x", "n": -Infinity}', "malformed_json", "-Infinity"),
        (b'{"text": "x", "text": "y"}', "malformed_json", "key 'text' twice"),
        (b'{"text": "x", "n": ' + b"9" * 5000 + b"}", "malformed_json", "digits"),
        (b'{"text": "x", "n": ' + b"[" * 100_000 + b"}", "too_deep", "nested"),
        (b"[1, 2]", "not_an_object", "got list"),
        (b'"text"', "not_an_object", "got string"),
        (b'{"body": "x"}', "missing_field", "'text' is missing"),
        (b'{"text": null}', "missing_field", "'text' is null"),
        (b'{"text": 3}', "wrong_type", "expected string, got int 3"),
        (b'{"text": ["x"]}', "wrong_type", "got list"),
        (b'{"text": ""}', "empty_text", "empty"),
        (b'{"text": " \\n\\u2003"}', "empty_text", "white space"),
        (b'{"text": "caf\xe9"}', "invalid_utf8", "0xe9"),
        (b'{"text": "x\\ud800y"}', "lone_surrogate", "U+D800"),
        (b'{"text": "x\\u0000y"}', "nul_character", "NUL"),
        (b'{"text": "\x00"}', "malformed_json", "column"),
    ],
)
def test_a_bad_line_is_rejected_and_its_neighbours_are_read(
    tmp_path: Path, line: bytes, reason: str, words: str
) -> None:
    items = read_bytes(tmp_path, "a.jsonl", GOOD + line + b"\n" + GOOD)
    assert documents(items) == [("0", "good"), ("2", "good")]
    assert rejects(items) == [(1, reason)]
    reject = items[1]
    assert isinstance(reject, Reject)
    assert words in reject.detail
    assert len(reject.detail) < 300
    reject.detail.encode()


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_json_text_comes_through_exactly(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "exact.jsonl"
    path.write_bytes(json.dumps({"text": text}).encode() + b"\r\n")
    items = read(path)
    if text.strip():
        assert documents(items) == [("0", text)]
    else:
        assert rejects(items) == [(0, "empty_text")]


def test_blank_lines_are_no_records_but_count_as_positions(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + GOOD + b"\n  \r\n" + GOOD.rstrip()
    assert documents(read_bytes(tmp_path, "a.ndjson", data)) == [("0", "good"), ("3", "good")]


def test_an_overlong_line_is_skipped_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 1_000_000)
    data = GOOD + b'{"text": "' + b"x" * 50_000_000 + b'"}\n' + GOOD
    (tmp_path / "a.jsonl").write_bytes(data)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(data, 1))
    del data
    tracemalloc.start()
    for name in ("a.jsonl", "b.jsonl.gz"):
        items = read(tmp_path / name)
        assert documents(items) == [("0", "good"), ("2", "good")]
        assert rejects(items) == [(1, "line_too_long")]
        assert "50,000,013 bytes" in items[1].detail  # type: ignore[union-attr]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_line_of_exactly_the_limit_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", len(GOOD))
    longer = GOOD.replace(b"good", b"good!")
    items = read_bytes(tmp_path, "a.jsonl", GOOD + longer + GOOD)
    assert rejects(items) == [(1, "line_too_long")]
    assert len(documents(items)) == 2


def test_gzip_of_several_members_is_one_file(tmp_path: Path) -> None:
    items = read_bytes(tmp_path, "a.jsonl.gz", b"".join([gzip.compress(GOOD, mtime=0)] * 3))
    assert len(documents(items)) == 3


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.jsonl.gz", gzip.compress(RANDOM, mtime=0)[:-2000], "truncated_compressed"),
        ("a.jsonl.gz", gzip.compress(GOOD, mtime=0) + b"tail", "corrupt_compressed"),
        ("a.jsonl.gz", gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 50, "corrupt_compressed"),
        ("a.jsonl", b"PAR1....PAR1", "corrupt_parquet"),
        ("a.parquet", b"good", "corrupt_parquet"),
        ("a.parquet", b"PAR1" + b"\xff" * 100 + b"PAR1", "corrupt_parquet"),
        ("a.parquet", b"", "corrupt_parquet"),
        ("a.jsonl.gz", b"", "truncated_compressed"),
        ("a.xyz", b"a,b", "unknown_format"),
    ],
)
def test_a_file_that_nobody_can_read_is_rejected_whole(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    with pytest.raises(RejectedInput) as caught:
        read_bytes(tmp_path, name, data)
    assert caught.value.reason == reason
    assert caught.value.detail


def test_a_truncated_compressed_is_rejected_after_its_readable_records(tmp_path: Path) -> None:
    lines = b"".join(
        json.dumps({"text": os.urandom(50).hex()}).encode() + b"\n" for _ in range(999)
    )
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines)[:-10_000])
    spec = SourceSpec(uri=str(path))
    stream = read_documents(discover(spec).files[0], spec)
    assert isinstance(next(stream), Document)
    with pytest.raises(RejectedInput, match="truncated_compressed"):
        list(stream)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_an_empty_file_has_no_documents(tmp_path: Path, name: str) -> None:
    assert read_bytes(tmp_path, name, b"") == []


def test_extensions_may_be_upper_case(tmp_path: Path) -> None:
    assert documents(read_bytes(tmp_path, "A.JSONL", GOOD)) == [("0", "good")]


def test_a_local_file_that_changes_while_it_is_read_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 10)
    spec = SourceSpec(uri=str(path))
    stream = read_documents(discover(spec).files[0], spec)
    next(stream)
    path.write_bytes(GOOD * 11)
    with pytest.raises(RejectedInput, match="changed"):
        list(stream)


def test_local_file_that_was_written_just_now_has_no_version(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    assert discover(SourceSpec(uri=str(tmp_path))).files[0].version == ""


def test_local_file_changes_are_seen_by_what_the_system_says_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SETTLED_SECONDS", -1)
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD)
    (file,) = discover(SourceSpec(uri=str(path))).files
    assert file.version
    check_unchanged(file, StorageSpec())
    with path.open("rb") as stream:
        stream.read()
    os.utime(path, ns=(0, 0))  # the same content: it is read once more
    check_unchanged(file, StorageSpec())
    times = path.stat()
    path.write_bytes(GOOD.replace(b"good", b"evil"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(RejectedInput, match="changed"):
        check_unchanged(file, StorageSpec())
    path.write_bytes(GOOD)
    check_unchanged(file, StorageSpec())
    path.unlink()
    with pytest.raises(RejectedInput, match="unreadable"):
        check_unchanged(file, StorageSpec())


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet", "a.jsonl"])
def test_read_documents_file_half_written_over_has_changed_and_is_not_damaged(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": ["good"] * 1_000}), path)
    else:
        path.write_bytes(gzip.compress(GOOD * 1_000) if name.endswith("gz") else GOOD * 1_000)
    spec = SourceSpec(uri=str(path))
    (file,) = discover(spec).files
    path.write_bytes(path.read_bytes()[: file.size_bytes // 2])
    with pytest.raises(RejectedInput, match="changed"):
        list(read_documents(file, spec))
    (damaged,) = discover(spec).files
    if name != "a.jsonl":
        with pytest.raises(RejectedInput, match=r"corrupt_parquet|truncated_compressed"):
            list(read_documents(damaged, spec))


def test_a_local_file_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD)
    spec = SourceSpec(uri=str(path))
    (file,) = discover(spec).files
    path.unlink()
    with pytest.raises(RejectedInput, match="unreadable"):
        list(read_documents(file, spec))


def test_ids_are_kept_exactly_and_the_first_of_two_wins(tmp_path: Path) -> None:
    odd = ["'; DROP TABLE x --", "../up", "new\nline", "caf\u00e9", "cafe\u0301", "x" * 1024, " "]
    records = [{"id": name, "text": f"text {n}"} for n, name in enumerate(odd)]
    records += [
        {"id": 7, "text": "int"},
        {"id": "7", "text": "same id"},
        {"id": odd[0], "text": "z"},
    ]
    data = "\n".join(map(json.dumps, records)).encode()
    items = read_bytes(tmp_path, "a.jsonl", data, id="id")
    assert [doc_id for doc_id, _ in documents(items)] == [*odd, "7"]
    assert rejects(items) == [(8, "duplicate_id"), (9, "duplicate_id")]
    assert [item.doc_id for item in items if isinstance(item, Reject)] == ["7", odd[0]]


def test_a_rejected_record_does_not_claim_its_id(tmp_path: Path) -> None:
    data = b'{"id": "a", "text": ""}\n{"id": "a", "text": "good"}\n'
    items = read_bytes(tmp_path, "a.jsonl", data, id="id")
    assert rejects(items) == [(0, "empty_text")]
    assert documents(items) == [("a", "good")]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (True, "wrong_type"), (1.5, "wrong_type"), (8**400, "wrong_type"), ([], "wrong_type"),
        (None, "missing_field"),
        ("", "missing_field"), ("\ud800", "lone_surrogate"), ("a\0b", "nul_character"),
    ],
)  # fmt: skip
def test_an_id_that_cannot_be_one_rejects_the_record(
    tmp_path: Path, value: object, reason: str
) -> None:
    data = json.dumps({"id": value, "text": "x"}).encode()
    items = read_bytes(tmp_path, "a.jsonl", data, id="id")
    assert rejects(items) == [(0, reason)]
    assert items[0].doc_id is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("s", "s: x"), (3, "3: x"), (2.5, "2.5: x"), ("", ": x"), ("{text}", "{text}: x")],
)
def test_a_template_takes_strings_and_numbers(tmp_path: Path, value: object, expected: str) -> None:
    data = json.dumps({"n": value, "text": "x"}).encode()
    items = read_bytes(tmp_path, "a.jsonl", data, text="{n}: {text}")
    assert documents(items) == [("0", expected)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("true", "wrong_type"),
        ("null", "missing_field"),
        ("[]", "wrong_type"),
        ("1e999", "wrong_type"),
        ("8" * 400, "wrong_type"),
        ("-" + "8" * 4300, "wrong_type"),
        ("8" * 4301, "malformed_json"),
    ],
)
def test_a_template_takes_nothing_else(tmp_path: Path, value: str, reason: str) -> None:
    data = f'{{"n": {value}, "text": "x"}}'.encode()
    assert rejects(read_bytes(tmp_path, "a.jsonl", data, text="{n}: {text}")) == [(0, reason)]


TYPES = {"s": "string", "i": "int", "f": "float", "b": "bool", "t": "timestamp"}
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("s", "x", "x"), ("s", "", ""), ("s", None, None),
        ("i", 3, 3), ("i", -(2**63), -(2**63)), ("i", None, None),
        ("f", 1.5, 1.5), ("f", 2, 2.0),
        ("i", 3.0, 3), ("i", -0.0, 0), ("i", 2.0**53 - 1, 2**53 - 1),
        ("b", True, True), ("b", False, False),
        ("t", "2024-05-01T12:00:00Z", NOON), ("t", "2024-05-01T14:00:00+02:00", NOON),
        ("t", "2024-05-01T12:00:00", NOON), ("t", "2024-05-01", NOON.replace(hour=0)),
    ],
)  # fmt: skip
def test_metadata_has_the_declared_type(
    tmp_path: Path, field: str, value: object, expected: object
) -> None:
    data = json.dumps({"text": "x", field: value}).encode()
    (item,) = read_bytes(tmp_path, "a.jsonl", data, metadata=TYPES)
    assert isinstance(item, Document)
    assert item.metadata == {name: expected if name == field else None for name in TYPES}
    assert type(item.metadata[field]) is type(expected)


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("s", "3", "got int 3"), ("i", '"3"', "got string '3'"), ("i", "true", "got bool"),
        ("i", "3.5", "got float 3.5"), ("i", str(2**63), "64 bits"),
        ("i", "9007199254740992.0", "got float"), ("i", "1e999", "got float inf"),
        ("i", "8" * 400, "64 bits"), ("s", "8" * 400, "got int 888"), ("t", "8" * 400, "got int"),
        ("f", "true", "got bool"),
        ("f", "1e999", "finite"), ("f", str(10**400), "finite"), ("b", "1", "got int"),
        ("t", "0", "got int"), ("t", '"yesterday"', "ISO 8601"), ("s", "{}", "got object"),
        ("t", '"0001-01-01T00:00:00+14:00"', "ISO 8601"),
    ],
)  # fmt: skip
def test_metadata_of_another_type_rejects_the_record(
    tmp_path: Path, field: str, value: str, found: str
) -> None:
    data = f'{{"text": "x", "{field}": {value}}}'.encode()
    items = read_bytes(tmp_path, "a.jsonl", data, metadata=TYPES)
    assert rejects(items) == [(0, "wrong_type")]
    detail = items[0].detail  # type: ignore[union-attr]
    assert f"field {field!r}: expected" in detail
    assert found in detail


def test_metadata_strings_must_be_storable(tmp_path: Path) -> None:
    data = b'{"text": "x", "s": "\\ud800"}\n{"text": "x", "s": "\\u0000"}'
    items = read_bytes(tmp_path, "a.jsonl", data, metadata=TYPES)
    assert rejects(items) == [(0, "lone_surrogate"), (1, "nul_character")]


def test_parquet_rows_come_through_with_their_types(tmp_path: Path) -> None:
    east = timezone(timedelta(hours=2))
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int32()),
            "text": pa.array(["one", "two"]).dictionary_encode(),
            "s": pa.array(["x", None], pa.large_string()),
            "i": pa.array([2**40, None]),
            "f": pa.array([float("nan"), 1.5], pa.float32()),
            "b": [True, None],
            "t": pa.array([NOON.astimezone(east), None], pa.timestamp("ns", "+02:00")),
            "unused": [[1], [2]],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = read(tmp_path / "a.parquet", id="id", metadata=TYPES)
    assert first == Document("1", 0, "one", {"s": "x", "i": 2**40, "f": None, "b": True, "t": NOON})
    assert isinstance(second, Document)
    assert second.metadata == {"s": None, "i": None, "f": 1.5, "b": None, "t": None}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1714564800000000001], pa.timestamp("ns")), NOON),
        (pa.array([NOON.replace(tzinfo=None)], pa.timestamp("s")), NOON),
        (pa.array([NOON], pa.timestamp("ms", "Nowhere/Land")), NOON),
        (pa.array([date(2024, 5, 1)]), NOON.replace(hour=0)),
    ],
)
def test_parquet_timestamps_are_utc_in_microseconds(
    tmp_path: Path, column: pa.Array, expected: datetime
) -> None:
    pq.write_table(pa.table({"text": ["x"], "t": column}), tmp_path / "a.parquet")
    (item,) = read(tmp_path / "a.parquet", metadata={"t": "timestamp"})
    assert isinstance(item, Document)
    assert item.metadata == {"t": expected}


def test_parquet_values_that_cannot_be_read_cost_only_their_row(tmp_path: Path) -> None:
    bad_text = pa.array([b"good", b"caf\xe9", b"good"], pa.binary()).view(pa.string())
    far = pa.array([0, 0, 10**16], pa.timestamp("ms"))
    pq.write_table(pa.table({"text": bad_text, "t": far}), tmp_path / "a.parquet")
    items = read(tmp_path / "a.parquet", metadata={"t": "timestamp"})
    assert documents(items) == [("0", "good")]
    assert rejects(items) == [(1, "invalid_utf8"), (2, "wrong_type")]
    assert "field 'text': byte 0xe9 at 3" in items[1].detail  # type: ignore[union-attr]


def test_a_parquet_file_without_a_column_names_those_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"], "title": ["y"]}), tmp_path / "a.parquet")
    with pytest.raises(RejectedInput, match=r"missing_column: no column 'text'.*'body', 'title'"):
        read(tmp_path / "a.parquet")


def test_parquet_positions_count_over_batches_and_row_groups(tmp_path: Path) -> None:
    table = pa.table({"text": [f"row {n}" for n in range(3000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    items = read(tmp_path / "a.parquet")
    assert documents(items) == [(str(n), f"row {n}") for n in range(3000)]


def test_a_text_file_is_one_document_with_its_name_and_uri(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf# Title\r\n\r\nBody \xf0\x9f\x98\x80\n"
    (item,) = read_bytes(
        tmp_path, "a.md", data, text="{name}: {text}", id="uri", metadata={"name": "string"}
    )
    expected = "a.md: # Title\r\n\r\nBody 😀\n"
    assert item == Document(str(tmp_path / "a.md"), 0, expected, {"name": "a.md"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b" \n", "empty_text"), (b"caf\xe9", "invalid_utf8"), (b"a\0b", "nul_character")],
)
def test_a_text_file_that_is_no_text_is_rejected(tmp_path: Path, data: bytes, reason: str) -> None:
    assert rejects(read_bytes(tmp_path, "a.txt", data)) == [(0, reason)]


def test_a_text_file_above_the_limit_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "MAX_TEXT_BYTES", 5)
    with pytest.raises(RejectedInput, match=r"text_too_long.*5 bytes"):
        read_bytes(tmp_path, "a.txt", b"123456")
