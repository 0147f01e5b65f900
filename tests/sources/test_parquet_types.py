"""Every type that Parquet can hold: its value exactly, or a reject that says what to do."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject, Slice, Span
from embedding_core.sources import discover, read_documents

ONE = UUID("12345678-1234-5678-1234-567812345678")


def read(folder: Path, table: pa.Table, **mapping: object) -> list[Document | Reject]:
    pq.write_table(table, folder / "a.parquet")
    spec = SourceSpec(uri=str(folder / "a.parquet"), **mapping)  # type: ignore[arg-type]
    (file,) = discover(spec).files
    return list(read_documents(file, spec))


def read_value(folder: Path, column: pa.Array, **mapping: object) -> Document | Reject:
    (item,) = read(folder, pa.table({"text": ["x"], "v": column}), **mapping)
    return item


def float_column(value: float, kind: pa.DataType) -> pa.Array:
    return pa.array([value], kind)


UUIDS = pa.array([ONE.bytes], pa.uuid())
WRITTEN = [
    (float_column(0.1, pa.float32()), "0.1"),
    (float_column(0.1, pa.float16()), "0.1"),
    (float_column(0.1, pa.float64()), "0.1"),
    (float_column(1e20, pa.float32()), "1e+20"),
    (pa.array([Decimal("1.10")], pa.decimal128(10, 2)), "1.10"),
    (pa.array([Decimal("-0.0000001")], pa.decimal128(10, 7)), "-0.0000001"),
    (UUIDS, str(ONE)),
    (pa.array([ONE.bytes], pa.binary(16)), str(ONE)),
    (pa.array([2**64 - 1], pa.uint64()), str(2**64 - 1)),
    (pa.array(["s"], pa.large_string()), "s"),
    (pa.array(["s"], pa.string_view()), "s"),
    (pa.array(["s"]).dictionary_encode(), "s"),
    (pa.array(["{}"], pa.json_()), "{}"),
]


@pytest.mark.parametrize(("column", "text"), WRITTEN, ids=lambda one: str(getattr(one, "type", "")))
def test_template_and_id_values_have_the_digits_of_their_column(
    tmp_path: Path, column: pa.Array, text: str
) -> None:
    item = read_value(tmp_path, column, id="v", text="{v}: {text}")
    assert isinstance(item, Document)
    assert (item.doc_id, item.text) == (text, f"{text}: x")


def test_id_whole_numbers_in_columns_of_floats_and_decimals_are_whole(tmp_path: Path) -> None:
    table = pa.table(
        {"text": ["x", "y", "z"], "n": pa.array([7.0, None, 2.0**60]), "d": [Decimal(7)] * 3}
    )
    first, second, third = read(tmp_path, table, id="n")
    assert isinstance(first, Document) and first.doc_id == "7"
    assert isinstance(second, Reject) and second.reason == "missing_field"
    assert isinstance(third, Document) and third.doc_id == str(2.0**60)
    assert [one.doc_id for one in read(tmp_path, table.slice(0, 1), id="d")] == ["7"]


@pytest.mark.parametrize(
    ("column", "declared", "value"),
    [
        (float_column(1.0, pa.float64()), "int", 1),
        (float_column(2.0**24 - 1, pa.float32()), "int", 2**24 - 1),
        (pa.array([Decimal("3.00")], pa.decimal128(10, 2)), "int", 3),
        (pa.array([Decimal("1.25")], pa.decimal256(60, 2)), "float", 1.25),
        (float_column(0.5, pa.float16()), "float", 0.5),
        (pa.array([float("nan")]), "int", None),
        (pa.array([7], pa.uint8()), "int", 7),
        (UUIDS, "string", str(ONE)),
        (pa.array([ONE.bytes], pa.binary(16)), "string", str(ONE)),
        (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())), "bool", True),
        (pa.nulls(1), "timestamp", None),
        (pa.array([dt.date(1, 1, 1)]), "timestamp", dt.datetime(1, 1, 1, tzinfo=dt.UTC)),
    ],
    ids=lambda one: str(getattr(one, "type", one)),
)
def test_metadata_value_is_that_of_the_column(
    tmp_path: Path, column: pa.Array, declared: str, value: object
) -> None:
    item = read_value(tmp_path, column, metadata={"v": declared})
    assert isinstance(item, Document)
    assert item.metadata == {"v": value} and type(item.metadata["v"]) is type(value)


@pytest.mark.parametrize(
    ("column", "declared", "words"),
    [
        (float_column(1.5, pa.float64()), "int", "got float 1.5"),
        (float_column(0.1, pa.float32()), "int", "got float 0.1"),
        (float_column(2.0**24, pa.float32()), "int", "got float"),
        (float_column(2.0**53, pa.float64()), "int", "got float"),
        (pa.array([Decimal("1.5")], pa.decimal128(5, 1)), "int", "got decimal 1.5"),
        (pa.array([2**63], pa.uint64()), "int", "64 bits"),
        (pa.array([Decimal("1.5")], pa.decimal128(5, 1)), "string", "got decimal 1.5"),
        (pa.array([b"x"]), "string", "write it as a string column"),
        (pa.array([b"x"], pa.binary_view()), "string", "write it as a string column"),
        (pa.array([b"12345678"], pa.binary(8)), "string", "write it as a string column"),
        (pa.array([1], pa.time32("s")), "string", "got time 00:00:01; write it as a string"),
        (pa.array([1], pa.time64("ns")), "timestamp", "write it as a string"),
        (pa.array([1], pa.duration("s")), "int", "got duration 0:00:01; write it as a number"),
        (pa.array([1], pa.duration("ns")), "int", "write it as a number"),
        (pa.array([[1]]), "int", "got list [1]; name an item by a path"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "int", "got list"),
        (pa.array([{"a": 1}]), "int", "name a field in it by a path"),
        (pa.array([dt.date(2024, 1, 1)]), "string", "declare it as timestamp"),
        (pa.array([2**31 - 1], pa.date32()), "timestamp", "years 1 to 9999"),
        (pa.array([2**50], pa.timestamp("s")), "timestamp", "years 1 to 9999"),
        (pa.FixedShapeTensorArray.from_storage(
            pa.fixed_shape_tensor(pa.int64(), [2]),
            pa.array([[1, 2]], pa.list_(pa.int64(), 2)),
        ), "int", "got list"),
    ],
    ids=lambda one: str(getattr(one, "type", one)),
)  # fmt: skip
def test_metadata_of_another_type_is_rejected_with_what_to_do(
    tmp_path: Path, column: pa.Array, declared: str, words: str
) -> None:
    item = read_value(tmp_path, column, metadata={"v": declared})
    assert isinstance(item, Reject)
    assert item.reason == "wrong_type" and words in item.detail and len(item.detail) < 300


@pytest.mark.parametrize(
    "column",
    [pa.array([b"x"]), pa.array([dt.date(2024, 1, 1)]), pa.array([True]), pa.array([[1]])],
    ids=lambda one: str(one.type),
)
def test_template_takes_no_value_without_digits_of_its_own(
    tmp_path: Path, column: pa.Array
) -> None:
    item = read_value(tmp_path, column, text="{v}: {text}")
    assert isinstance(item, Reject) and item.reason == "wrong_type"


# INT96

DAYS = [
    dt.datetime(1, 1, 1),
    dt.datetime(1066, 10, 14, 1, 2, 3, 456789),
    dt.datetime(1677, 9, 21),
    None,
    dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
    dt.datetime(2262, 4, 12),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
]


WRAPS_TO_1970 = 2_440_588 + 640_511_947
"""A Julian day whose microseconds are a little less than three times 2⁶⁴."""


def int96_table(path: Path, days: list[dt.datetime | None]) -> None:
    table = pa.table(
        {
            "text": [f"row {n}" for n in range(len(days))],
            "at": pa.array(days, pa.timestamp("us")),
            "in": pa.array([{"at": day, "other": 1} for day in days]),
        }
    )
    pq.write_table(
        table, path, use_deprecated_int96_timestamps=True, row_group_size=3,
        compression="none", use_dictionary=False,
    )  # fmt: skip


BOTH = {"at": "timestamp", "inner": {"field": "in.at", "type": "timestamp"}}


def test_int96_dates_are_those_that_were_written(tmp_path: Path) -> None:
    int96_table(tmp_path / "a.parquet", DAYS)
    spec = SourceSpec(uri=str(tmp_path / "a.parquet"), metadata=BOTH)  # type: ignore[arg-type]
    (file,) = discover(spec).files
    expected = [day and day.replace(tzinfo=dt.UTC) for day in DAYS]
    whole = list(read_documents(file, spec))
    parts = [
        one
        for number, (start, end) in enumerate([(0, 1), (1, 3)])
        for one in read_documents(file, spec, Slice(number, 2, Span(start, end, 3 * start)))
    ]
    assert parts == whole
    assert [one.metadata for one in whole] == [{"at": day, "inner": day} for day in expected]  # type: ignore[union-attr]


def test_int96_day_beyond_64_bits_is_rejected_and_its_neighbours_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    day = dt.datetime(2024, 5, 6)
    int96_table(path, [day, dt.datetime(2024, 5, 7), day])
    julian = (2_440_588 + (dt.date(2024, 5, 7) - dt.date(1970, 1, 1)).days).to_bytes(4, "little")
    data = path.read_bytes()
    assert data.count(julian) >= 2
    path.write_bytes(data.replace(julian, WRAPS_TO_1970.to_bytes(4, "little")))
    spec = SourceSpec(uri=str(path), metadata=BOTH)  # type: ignore[arg-type]
    first, second, third = read_documents(discover(spec).files[0], spec)
    assert isinstance(first, Document) and isinstance(third, Document)
    assert isinstance(second, Reject) and "years 1 to 9999" in second.detail


# Columns and paths

AUTHOR = {"field": "meta.author name", "type": "string"}


def test_parquet_missing_metadata_column_is_null_as_in_json_lines(tmp_path: Path) -> None:
    (item,) = read(tmp_path, pa.table({"text": ["x"]}), metadata={"lang": "string", "by": AUTHOR})
    assert item == Document("0", 0, "x", {"lang": None, "by": None})


def test_parquet_missing_id_column_rejects_the_file(tmp_path: Path) -> None:
    with pytest.raises(RejectedInput, match="missing_column: no column 'id'"):
        read(tmp_path, pa.table({"text": ["x"]}), id="id")


RECORDS = [
    {"text": "a", "meta": {"author name": "Ada", "deep": {"n.m": 1}}, "_id": "x"},
    {"text": "b", "meta": {"author name": None, "deep": None}, "_id": "y"},
    {"text": "c", "meta": None, "_id": "z"},
]
PATHS = {
    "by": AUTHOR,
    "number": {"field": "meta.deep.n.m", "type": "int"},
    "own": {"field": "_id", "type": "string"},
}
EXPECTED = [
    {"by": "Ada", "number": 1, "own": "x"},
    {"by": None, "number": None, "own": "y"},
    {"by": None, "number": None, "own": "z"},
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_metadata_paths_go_into_objects_and_structs_alike(tmp_path: Path, name: str) -> None:
    if name == "a.jsonl":
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in RECORDS))
    else:
        pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / name)
    spec = SourceSpec(uri=str(tmp_path / name), metadata=PATHS, id="_id")  # type: ignore[arg-type]
    items = list(read_documents(discover(spec).files[0], spec))
    assert [one.metadata for one in items] == EXPECTED  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_metadata_field_of_the_whole_name_comes_before_a_path(tmp_path: Path, name: str) -> None:
    records = [{"text": "a", "m.n": 1, "m": {"n": 2}}]
    if name == "a.jsonl":
        (tmp_path / name).write_text(json.dumps(records[0]))
    else:
        pq.write_table(pa.Table.from_pylist(records), tmp_path / name)
    spec = SourceSpec(uri=str(tmp_path / name), metadata={"v": {"field": "m.n", "type": "int"}})  # type: ignore[dict-item]
    (item,) = read_documents(discover(spec).files[0], spec)
    assert isinstance(item, Document) and item.metadata == {"v": 1}


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_metadata_path_through_a_list_rejects_the_record(tmp_path: Path, name: str) -> None:
    records = [{"text": "a", "meta": [{"n": 1}]}, {"text": "b", "meta": None}]
    if name == "a.jsonl":
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in records))
    else:
        pq.write_table(pa.Table.from_pylist(records), tmp_path / name)
    spec = SourceSpec(uri=str(tmp_path / name), metadata={"v": {"field": "meta.n", "type": "int"}})  # type: ignore[dict-item]
    first, second = read_documents(discover(spec).files[0], spec)
    assert isinstance(first, Reject) and first.reason == "wrong_type" and "'meta'" in first.detail
    assert isinstance(second, Document) and second.metadata == {"v": None}


def test_parquet_bad_text_in_a_struct_costs_only_its_row(tmp_path: Path) -> None:
    bad = pa.array([b"good", b"caf\xe9"], pa.binary()).view(pa.string())
    table = pa.table({"text": ["a", "b"], "m": pa.StructArray.from_arrays([bad], ["s"])})
    first, second = read(tmp_path, table, metadata={"s": {"field": "m.s", "type": "string"}})
    assert isinstance(first, Document) and first.metadata == {"s": "good"}
    assert isinstance(second, Reject) and second.reason == "invalid_utf8"
