"""Ids: texts in the column doc_id, and whole numbers beside it where the recipe declares them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from embedding_core.records import Document
from tests.sources.record_files import NESTED, Items, read, read_records, rejects

NUMBERS = [7, 10**15, 2**53 + 1, -1]


def ids(items: Items) -> list[tuple[str, object]]:
    return [(item.doc_id, item.metadata.get("id")) for item in items if isinstance(item, Document)]


@pytest.mark.parametrize("format", NESTED)
def test_whole_number_stays_one_where_the_recipe_declares_it(tmp_path: Path, format: str) -> None:
    records = [{"id": number, "text": "x"} for number in NUMBERS]
    items = read_records(tmp_path, *records, format=format, id="id", metadata={"id": "int"})
    assert ids(items) == [(str(number), number) for number in NUMBERS]
    items = read_records(tmp_path, *records, format=format, id="id")
    assert ids(items) == [(str(number), None) for number in NUMBERS]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_digits_of_a_cell_are_a_number_only_where_declared(tmp_path: Path, suffix: str) -> None:
    mark = "," if suffix == "csv" else "\t"
    path = tmp_path / f"a.{suffix}"
    path.write_text(f"id{mark}text\n007{mark}x\n7{mark}y\n9007199254740993{mark}z\n")
    big = 2**53 + 1
    assert ids(read(path, id="id")) == [("007", None), ("7", None), (str(big), None)]
    assert ids(read(path, id="id", metadata={"id": "string"}))[0] == ("007", "007")
    declared = ids(read(path, id="id", metadata={"id": "int"}))
    assert declared == [("007", 7), ("7", 7), (str(big), big)]


def test_front_matter_has_whole_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\nid: 7\n---\ntext")
    assert ids(read(tmp_path / "a.md", id="id", metadata={"id": "int"})) == [("7", 7)]


@pytest.mark.parametrize("value", [7.0, Decimal("7")])
def test_number_of_another_type_is_the_whole_number_it_is(tmp_path: Path, value: object) -> None:
    record = {"id": value, "text": "x"}
    items = read_records(tmp_path, record, format="parquet", id="id", metadata={"id": "int"})
    assert ids(items) == [("7", 7)]


def test_id_that_is_no_whole_number_is_rejected_where_one_is_declared(tmp_path: Path) -> None:
    items = read_records(tmp_path, {"id": "a7", "text": "x"}, id="id", metadata={"id": "int"})
    ((_, reason, detail),) = rejects(items)
    assert reason == "wrong_type" and "field 'id': expected int" in detail
