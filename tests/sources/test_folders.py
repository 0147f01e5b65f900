"""Hive folders: ``lang=en`` above a file fills the column ``lang`` of its records."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject
from embedding_core.sources import discover, read_documents
from tests.s3 import S3Server

TYPES = {"lang": "string", "year": "int", "share": "float", "on": "bool", "at": "timestamp"}
LINE = '{"text": "x"}\n'


def read(root: Path, name: str, content: str = LINE, **mapping: object) -> Document | Reject:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    spec = SourceSpec(uri=str(root), **({"metadata": TYPES} | mapping))  # type: ignore[arg-type]
    (file,) = discover(spec).files
    (item,) = read_documents(file, spec)
    return item


@pytest.mark.parametrize(
    ("folder", "column", "value"),
    [
        ("lang=en", "lang", "en"),
        ("lang=", "lang", ""),
        ("lang=a%2Fb%20%C3%A9=c", "lang", "a/b é=c"),
        ("lang=__HIVE_DEFAULT_PARTITION__", "lang", None),
        ("year=__HIVE_DEFAULT_PARTITION__", "year", None),
        ("year=007", "year", 7),
        ("year=-9223372036854775808", "year", -(2**63)),
        ("share=1e-3", "share", 0.001),
        ("on=True", "on", True),
        ("at=2024-05-01 12%3A00%3A00", "at", datetime(2024, 5, 1, 12, tzinfo=UTC)),
        ("at=0999-05-01", "at", datetime(999, 5, 1, tzinfo=UTC)),
        ("lang=fr/x/lang=en", "lang", "en"),
        ("l%61ng=en", "lang", "en"),
        ("other=1", "lang", None),
    ],
)
def test_folder_fills_the_column_with_its_type(
    tmp_path: Path, folder: str, column: str, value: object
) -> None:
    item = read(tmp_path, f"{folder}/a.jsonl")
    assert isinstance(item, Document)
    assert item.metadata == {name: value if name == column else None for name in TYPES}
    assert type(item.metadata[column]) is type(value)


@pytest.mark.parametrize(
    "folder",
    ["year=x", "year=1.0", "year=9223372036854775808", "share=inf", "share=nan", "on=1", "at=now",
     "lang=%ff", "lang=%00", "year="],
)  # fmt: skip
def test_folder_of_another_type_rejects_the_record_and_names_the_folder(
    tmp_path: Path, folder: str
) -> None:
    item = read(tmp_path, f"{folder}/a.jsonl")
    assert isinstance(item, Reject) and item.reason == "wrong_type"
    assert f"the folder {folder}" in item.detail


@pytest.mark.parametrize("value", ['"de"', "null"])
def test_folder_gives_way_to_a_field_of_the_record(tmp_path: Path, value: str) -> None:
    item = read(tmp_path, "year=x/lang=en/a.jsonl", f'{{"text": "x", "lang": {value}, "year": 1}}')
    assert isinstance(item, Document)
    assert item.metadata["lang"] == (None if value == "null" else "de")
    assert item.metadata["year"] == 1


def test_folder_fills_a_column_by_the_name_of_its_field_too(tmp_path: Path) -> None:
    columns = {"language": {"field": "lang", "type": "string"}}
    item = read(tmp_path, "lang=en/a.jsonl", metadata=columns)
    assert isinstance(item, Document) and item.metadata == {"language": "en"}


def test_folder_fills_a_column_that_a_parquet_file_lacks(tmp_path: Path) -> None:
    path = tmp_path / "_day=1" / "a.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"text": ["x"]}), path)
    spec = SourceSpec(uri=str(tmp_path), metadata={"day": {"field": "_day", "type": "int"}})  # type: ignore[dict-item]
    (item,) = read_documents(discover(spec).files[0], spec)
    assert isinstance(item, Document) and item.metadata == {"day": 1}


def test_folder_counts_on_s3_and_where_the_source_is_one_file(s3: S3Server) -> None:
    bucket = s3.new_bucket()
    s3.put(bucket, "in/lang=a%20b/a.jsonl", LINE.encode())
    for uri in (f"s3://{bucket}/in", f"s3://{bucket}/in/lang=a%20b/a.jsonl"):
        spec = SourceSpec(uri=uri, metadata=TYPES, storage=s3.storage)  # type: ignore[arg-type]
        (item,) = read_documents(discover(spec).files[0], spec)
        assert isinstance(item, Document) and item.metadata["lang"] == "a b"
