"""Search: the right space, filters with quoted values, metadata along with the text."""

from __future__ import annotations

from datetime import UTC, datetime

import lancedb
import pytest

from embedding_core import Encoder, Lake
from embedding_core.errors import LakeError, UsageError
from embedding_core.lake import Table
from tests.driver import recipe_for, run, write_jsonl

RECORDS = [
    {"id": "1", "text": "apples and pears", "year": 2001, "tag": "it's", "at": "2026-01-01"},
    {"id": "2", "text": "apples and plums", "year": 2020, "tag": "plain", "at": "2026-06-01"},
    {"id": "3", "text": "rockets to the moon", "year": None, "tag": None, "at": None},
]
COLUMNS = {"year": "int", "tag": "string", "at": "timestamp"}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load("hashing", dim=32)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("search")
    write_jsonl(folder, "a.jsonl", RECORDS)
    recipe = recipe_for(folder, source={"metadata": COLUMNS})
    assert run(recipe).exit_code == 0
    return Lake.open(recipe.lake.uri).table("docs")


def test_search_best_first_with_text_score_and_metadata(table: Table, encoder: Encoder) -> None:
    hits = table.search("apples and pears", encoder, k=2)
    assert [hit.doc_id for hit in hits] == ["1", "2"]
    assert hits[0].score == pytest.approx(1.0, abs=1e-3) and hits[0].score > hits[1].score
    assert hits[0].metadata == {
        "year": 2001, "tag": "it's", "at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("where", "params", "found"),
    [
        ("year > :year", {"year": 2010}, ["2"]),
        ("tag = :tag", {"tag": "it's"}, ["1"]),
        ("at >= :at", {"at": datetime(2026, 3, 1, tzinfo=UTC)}, ["2"]),
        ("tag = :tag", {"tag": "x' OR 1=1 --"}, []),
        ("year IS NULL", {}, ["3"]),
    ],
)
def test_search_filter_is_applied_before_the_search(
    table: Table, encoder: Encoder, where: str, params: dict[str, object], found: list[str]
) -> None:
    hits = table.search("apples", encoder, k=1, where=where, params=params)  # type: ignore[arg-type]
    assert [hit.doc_id for hit in hits] == found


@pytest.mark.parametrize("where", ["nope = 1", "year = ", "year > 'x' AND"])
def test_search_bad_filter_is_bad_usage(table: Table, encoder: Encoder, where: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        table.search("apples", encoder, where=where)


def test_search_encoder_of_another_space_names_both(table: Table) -> None:
    with pytest.raises(LakeError, match=r"hashing.*in space"):
        table.search("apples", Encoder.load("hashing", dim=64))


def test_search_many_in_the_order_of_the_queries(table: Table, encoder: Encoder) -> None:
    found = table.search_many(["rockets to the moon", "apples and plums"], encoder, k=1)
    assert [hits[0].doc_id for hits in found] == ["3", "2"]


def test_search_column_that_does_not_exist_names_those_that_do(
    table: Table, encoder: Encoder
) -> None:
    with pytest.raises(LakeError, match="it has chunk_id"):
        table.search("apples", encoder, column="vector__old")


def test_plain_lancedb_client_searches_without_naming_a_column(
    table: Table, encoder: Encoder
) -> None:
    opened = lancedb.connect(table.lake.uri).open_table("docs")
    vector = encoder.encode_queries(["rockets to the moon"])[0]
    assert opened.search(vector).limit(1).to_list()[0]["doc_id"] == "3"
