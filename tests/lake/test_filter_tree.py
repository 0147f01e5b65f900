"""Filter trees of other libraries: what passes, and that no SQL comes from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedding_core import Encoder
from embedding_core.errors import UsageError
from embedding_core.lake.query.filter_tree import filtered
from embedding_core.lake.query.search import Query
from embedding_core.lake.table import Table, table_of
from tests.driver import recipe_for, run, write_jsonl

RECORDS = [
    {"id": "1", "text": "apples", "year": 2001, "tag": "it's", "order": True, "at": "2026-01-01"},
    {"id": "2", "text": "pears", "year": 2020, "tag": "50 % Off", "order": False, "at": None},
    {"id": "3", "text": "rockets", "year": None, "tag": None, "order": None, "at": "2026-06-01"},
]
COLUMNS = {"year": "int", "tag": "string", "order": "bool", "at": "timestamp"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("filter-tree")
    write_jsonl(folder, "a.jsonl", RECORDS)
    recipe = recipe_for(folder, source={"metadata": COLUMNS})
    assert run(recipe).outcome == "done"
    return table_of(recipe)


def passing(table: Table, tree: Any) -> list[str]:
    query = filtered(Query(), tree)
    (hits,) = table.search_many(["apples"], Encoder.load("hashing", dim=32), query)
    return sorted(hit.doc_id for hit in hits)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (None, ["1", "2", "3"]),
        ({}, ["1", "2", "3"]),
        ({"year": 2020}, ["2"]),
        ({"year": None}, ["3"]),
        ({"tag": "it's"}, ["1"]),
        ({"order": True}, ["1"]),
        ({"at": {"$gt": "2026-03-01"}}, ["3"]),
        ({"year": {"$gte": 2001, "$lt": 2020}}, ["1"]),
        ({"year": {"$gt": 2001}, "tag": {"$contains": "%"}}, ["2"]),
        ({"tag": {"$icontains": "OFF"}}, ["2"]),
        ({"tag": {"$contains": "_"}}, []),
        ({"year": {"$ne": 2001}}, ["2", "3"]),
        ({"year": {"$ne": None}}, ["1", "2"]),
        ({"year": {"$in": [2001, 2020]}}, ["1", "2"]),
        ({"year": {"$in": []}}, []),
        ({"year": {"$nin": [2001]}}, ["2", "3"]),
        ({"year": {"$nin": []}}, ["1", "2", "3"]),
        ({"$or": [{"year": 2001}, {"tag": None}]}, ["1", "3"]),
        ({"$or": []}, []),
        ({"$and": [{"year": {"$lte": 2020}}, {"$or": [{"order": False}, {"year": 1}]}]}, ["2"]),
        ({"$not": {"year": 2001}}, ["2", "3"]),
        ({"$not": {"$or": [{"year": 2001}, {"year": None}]}}, ["2"]),
    ],
)
def test_filter_tree_passes_the_rows_that_it_describes(
    table: Table, tree: Any, expected: list[str]
) -> None:
    assert passing(table, tree) == expected


@pytest.mark.parametrize(
    "hostile",
    ["x' OR 1=1 --", "' OR ''='", ":v0", "\\' OR 1=1", "it's' OR `year` > 0 --", "%"],
)
def test_filter_tree_hostile_value_is_a_value(table: Table, hostile: str) -> None:
    assert passing(table, {"tag": hostile}) == []
    assert passing(table, {"tag": {"$in": [hostile]}}) == []
    assert passing(table, {"$not": {"tag": hostile}}) == ["1", "2", "3"]


@pytest.mark.parametrize(
    "hostile",
    ["1=1 OR year", 'year" = 1 OR "year', "year` = 1 OR `year", "year; --", "", "a.b", 7, "$where"],
)
def test_filter_tree_hostile_name_is_refused(table: Table, hostile: Any) -> None:
    with pytest.raises(UsageError, match="no column"):
        passing(table, {hostile: 1})


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"yeer": 1}, "no such column; its columns are chunk_id"),
        ({"year": {"$regex": "1"}}, r"'\$regex'; use one of \$eq"),
        ({"year": {"$gt": None}}, "compares with None; give a single value"),
        ({"year": {"$eq": [1]}}, r"compares with \[1\]"),
        ({"year": [1, 2]}, r"compares with \[1, 2\]"),
        ({"year": {"$in": 1}}, "takes a list"),
        ({"tag": {"$in": "news"}}, "takes a list"),
        ({"year": {"$in": [{"a": 1}]}}, "compares with {'a': 1}"),
        ({"year": {}}, "says nothing of 'year'"),
        ({"year": "soon"}, "column 'year' cannot be compared: expected int"),
        ({"year": 2000.5}, "column 'year' cannot be compared: expected int"),
        ({"year": True}, "column 'year' cannot be compared: expected int"),
        ({"year": 10**5_000}, "an int of 16,610 bits is beyond the 64 bits"),
        ({"tag": {"$contains": 5}}, "compares with 5; give a text"),
        ({"year": object}, "compares with <class 'object'>"),
        ({"$or": {"year": 1}}, "joins a list"),
        ({"$and": "year"}, "joins a list"),
        ({"$and": [1]}, "1 where a mapping"),
        ({"$not": [1]}, r"\[1\] where a mapping"),
        ("year = 1", "'year = 1' where a mapping"),
        ({"year": {"$in": list(range(1_001))}}, "more than 1,000 values"),
    ],
)
def test_filter_tree_that_is_none_says_what_to_write(table: Table, tree: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        passing(table, tree)


def test_filter_tree_as_deep_as_python_goes_is_refused(table: Table) -> None:
    tree: dict[str, Any] = {"year": 1}
    for _ in range(50):
        tree = {"$not": tree}
    with pytest.raises(UsageError, match="beyond 32"):
        passing(table, tree)


def test_filter_tree_beside_a_filter_in_sql_is_refused() -> None:
    with pytest.raises(UsageError, match="two filters"):
        filtered(Query(where="year = 1"), {"year": 1})


def test_filter_tree_of_values_alone_gives_sql_without_them(tmp_path: Path) -> None:
    query = filtered(Query(), {"tag": "x' OR 1=1 --"})
    assert query.where == "`tag` = :v0" and query.params == {"v0": "x' OR 1=1 --"}
