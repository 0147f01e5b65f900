"""LanceDB's own ``search("words")`` on embedlake's tables, and LanceDB without embedlake."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import lancedb
import pytest
from lancedb.table import LanceTable

import embedlake.lancedb_client  # noqa: F401
from embedding_core.errors import EmbedlakeError, UsageError
from embedding_core.lake.spaces.switching import promote, rollback
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe
from tests.clients.tables import (
    fruit,
    of_somebody_else,
    space_named_by,
    stage,
    whose_model_is_gone,
    without_space_in_service,
)

FOLLOWING = timedelta(0)
"""A table that is opened so looks for a newer version at every read."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return fruit(tmp_path_factory.mktemp("lancedb"))


def opened(table: Table, consistency: timedelta | None = None) -> LanceTable:
    lake = lancedb.connect(table.lake.uri, read_consistency_interval=consistency)
    return lake.open_table(table.name)


def best(table: LanceTable, words: str) -> str:
    (row,) = table.search(words).limit(1).to_list()
    return str(row["doc_id"])


@pytest.mark.parametrize("switch", ["open again", "checkout_latest", "read_consistency_interval"])
def test_lancedb_search_by_words_follows_promote_and_rollback(tmp_path: Path, switch: str) -> None:
    """The dimensions of the two spaces differ: a query of the wrong model would be an error."""
    recipe = fruit(tmp_path)
    table = table_of(recipe)
    following = switch == "read_consistency_interval"
    client = opened(table, FOLLOWING if following else None)
    assert best(client, "rockets to the moon") == "3"
    before, column = space_named_by(table), stage(recipe)
    for change, dim in (
        (lambda: promote(table, column, "test"), 64),
        (lambda: rollback(table, "test"), 32),
    ):
        change()
        if switch == "open again":
            client = opened(table)
        elif switch == "checkout_latest":
            client.checkout_latest()
        assert client.schema.field("vector").type.list_size == dim
        assert best(client, "rockets to the moon") == "3"
        assert best(client, "apples and plums") == "2"
    assert space_named_by(table) == before


def test_lancedb_table_that_stays_on_its_version_keeps_its_space(tmp_path: Path) -> None:
    recipe = fruit(tmp_path)
    client = opened(table_of(recipe))
    promote(table_of(recipe), stage(recipe), "test")
    assert client.schema.field("vector").type.list_size == 32
    assert best(client, "rockets to the moon") == "3"


def test_lancedb_async_search_by_words_follows_a_promote(tmp_path: Path) -> None:
    recipe = fruit(tmp_path)

    async def best_of(words: str) -> str:
        lake = await lancedb.connect_async(recipe.lake.uri, read_consistency_interval=FOLLOWING)
        table = await lake.open_table("docs")
        query = await table.search(words, vector_column_name="vector", query_type="vector")
        (row,) = await query.limit(1).to_list()
        return str(row["doc_id"])

    assert asyncio.run(best_of("rockets to the moon")) == "3"
    promote(table_of(recipe), stage(recipe), "test")
    assert asyncio.run(best_of("rockets to the moon")) == "3"


def test_lancedb_function_is_made_once_while_a_table_names_the_same(recipe: Recipe) -> None:
    client = opened(table_of(recipe), FOLLOWING)
    assert client.embedding_functions is client.embedding_functions


def test_lancedb_searches_of_many_threads_give_what_one_gives(recipe: Recipe) -> None:
    words = ["rockets to the moon", "apples and plums", "apples and pears"] * 8
    clients = [opened(table_of(recipe)) for _ in words]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(best, clients, words)) == ["3", "2", "1"] * 8


@pytest.mark.parametrize("words", ["", " \n"])
def test_lancedb_empty_query_is_bad_usage(recipe: Recipe, words: str) -> None:
    with pytest.raises(UsageError, match="no words"):
        opened(table_of(recipe)).search(words)


def test_lancedb_table_of_somebody_else_is_searched_as_ever(tmp_path: Path) -> None:
    client = opened(of_somebody_else(tmp_path))
    assert client.embedding_functions == {}
    assert client.search([1.0, 0.0]).limit(1).to_list()[0]["text"] == "apples"


@pytest.mark.slow
def test_lancedb_model_that_is_gone_is_named(tmp_path: Path, tiny_qwen3: Path) -> None:
    table = whose_model_is_gone(tmp_path, tiny_qwen3)
    with pytest.raises(EmbedlakeError, match=str(tmp_path / "model")):
        opened(table).search("apples")


def test_lancedb_staged_space_alone_is_no_vector_column(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vector"):
        opened(without_space_in_service(tmp_path)).search("apples")


PLAIN = """
import sys, lancedb
table = lancedb.connect(sys.argv[1]).open_table("docs")
vector = table.head(1).to_pylist()[0]["vector"]
print(table.count_rows(), len(table.to_pandas()), len(table.search(vector).limit(2).to_list()))
print(table.search("rockets", query_type="fts").to_list()[0]["doc_id"])
print(table.search(vector).where("year > 2001").to_list()[0]["doc_id"])
try:
    table.search("rockets")
except KeyError as error:
    print(error)
assert not any(name.startswith(("embedlake", "embedding_core")) for name in sys.modules)
"""


def in_python(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_lancedb_without_embedlake_reads_and_searches_by_vector(recipe: Recipe) -> None:
    lines = in_python(PLAIN, recipe.lake.uri).splitlines()
    assert lines == ["3 3 2", "3", "2", "'embedlake.lancedb_client'"]


@pytest.mark.parametrize("how", [promote, rollback])
def test_lancedb_metadata_name_the_space_in_service(
    tmp_path: Path, how: Callable[..., object]
) -> None:
    recipe = fruit(tmp_path)
    table = table_of(recipe)
    promote(table, stage(recipe), "test")
    if how is rollback:
        rollback(table, "test")
    assert space_named_by(table) == table.space()[0]
