"""The retriever for LlamaIndex, which ships no tests of retrievers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from embedding_core.errors import LakeError, ModelError, UsageError
from embedding_core.lake.spaces.switching import promote, rollback
from embedding_core.lake.table import Table, table_of
from embedlake.llama_index import LakeRetriever
from tests.clients.tables import (
    fruit,
    of_somebody_else,
    stage,
    whose_model_is_gone,
    without_space_in_service,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return table_of(fruit(tmp_path_factory.mktemp("llama-index")))


def ids(nodes: list[NodeWithScore]) -> list[str | None]:
    return [node.node.ref_doc_id for node in nodes]


def compare(
    key: str, operator: FilterOperator, value: str | int | list[str] | list[int] | None = None
) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=operator)


def test_llama_index_nodes_best_first_with_score_and_metadata(table: Table) -> None:
    first, second = LakeRetriever(table, similarity_top_k=2).retrieve("apples and pears")
    assert first.text == "apples and pears" and second.text == "apples and plums"
    assert first.score == pytest.approx(1, abs=1e-3) and first.score > (second.score or 0)
    assert first.metadata.pop("source_uri").endswith("/src/a.jsonl")
    assert first.metadata == {"year": 2001, "tag": "it's", "chunk_index": 0}
    assert first.node.ref_doc_id == "1"


def test_llama_index_async_gives_the_same(table: Table) -> None:
    retriever = LakeRetriever(table)

    async def many() -> list[list[NodeWithScore]]:
        return await asyncio.gather(*[retriever.aretrieve("apples and plums") for _ in range(8)])

    expected = retriever.retrieve(QueryBundle("apples and plums"))
    assert [ids(nodes) for nodes in asyncio.run(many())] == [ids(expected)] * 8


Op = FilterOperator


@pytest.mark.parametrize(
    ("filters", "condition", "expected"),
    [
        ([], FilterCondition.AND, ["1", "2", "3"]),
        ([compare("year", Op.EQ, 2020)], FilterCondition.AND, ["2"]),
        ([compare("year", Op.NE, 2020)], FilterCondition.AND, ["1", "3"]),
        ([compare("year", Op.GT, 2001)], FilterCondition.AND, ["2"]),
        ([compare("year", Op.GTE, 2001)], FilterCondition.AND, ["1", "2"]),
        ([compare("year", Op.LT, 2020)], FilterCondition.AND, ["1"]),
        ([compare("year", Op.LTE, 2020)], FilterCondition.AND, ["1", "2"]),
        ([compare("tag", Op.IN, ["it's", "x"])], FilterCondition.AND, ["1"]),
        ([compare("tag", Op.NIN, ["it's", "x"])], FilterCondition.AND, ["2", "3"]),
        ([compare("tag", Op.TEXT_MATCH, "lai")], FilterCondition.AND, ["2"]),
        ([compare("tag", Op.TEXT_MATCH_INSENSITIVE, "LAI")], FilterCondition.AND, ["2"]),
        ([compare("tag", Op.IS_EMPTY)], FilterCondition.AND, ["3"]),
        (
            [compare("year", Op.EQ, 2001), compare("year", Op.EQ, 2020)],
            FilterCondition.OR,
            ["1", "2"],
        ),
        (
            [compare("year", Op.EQ, 2001), compare("tag", Op.EQ, "it's")],
            FilterCondition.AND,
            ["1"],
        ),
        (
            [compare("year", Op.EQ, 2001), compare("year", Op.EQ, 2020)],
            FilterCondition.NOT,
            ["3"],
        ),
    ],
)
def test_llama_index_filters_as_the_library_means_them(
    table: Table, filters: list[MetadataFilter], condition: FilterCondition, expected: list[str]
) -> None:
    joined = MetadataFilters(filters=filters, condition=condition)
    nested = MetadataFilters(filters=[joined])
    for tree in (joined, nested):
        nodes = LakeRetriever(table, filters=tree).retrieve("apples")
        assert sorted(map(str, ids(nodes))) == expected


@pytest.mark.parametrize("operator", [Op.ANY, Op.ALL, Op.CONTAINS])
def test_llama_index_operator_on_lists_is_bad_usage(table: Table, operator: FilterOperator) -> None:
    filters = MetadataFilters(filters=[compare("tag", operator, ["a"])])
    with pytest.raises(UsageError, match=f"'tag' uses {operator.name}, which is for lists"):
        LakeRetriever(table, filters=filters)


def test_llama_index_injection_in_a_filter_does_nothing(table: Table) -> None:
    value = MetadataFilters(filters=[compare("tag", Op.EQ, "' OR 1=1 --")])
    assert LakeRetriever(table, filters=value).retrieve("apples") == []
    name = MetadataFilters(filters=[compare("1=1 OR year", Op.EQ, 1)])
    with pytest.raises(UsageError, match="no column"):
        LakeRetriever(table, filters=name)


def test_llama_index_retriever_follows_promote_and_rollback(tmp_path: Path) -> None:
    recipe = fruit(tmp_path)
    retriever = LakeRetriever(table_of(recipe), similarity_top_k=1)
    assert ids(retriever.retrieve("rockets to the moon")) == ["3"]
    promote(table_of(recipe), stage(recipe), "test")
    assert ids(retriever.retrieve("rockets to the moon")) == ["3"]
    rollback(table_of(recipe), "test")
    assert ids(retriever.retrieve("rockets to the moon")) == ["3"]


def test_llama_index_hybrid_ranks_by_words_too(table: Table) -> None:
    nodes = LakeRetriever(table, similarity_top_k=1, hybrid=True).retrieve("moon")
    assert ids(nodes) == ["3"]


def test_llama_index_bad_query_is_bad_usage(table: Table) -> None:
    with pytest.raises(UsageError, match="k is 0"):
        LakeRetriever(table, similarity_top_k=0)
    with pytest.raises(UsageError, match="no words"):
        LakeRetriever(table).retrieve(" ")


def test_llama_index_table_that_cannot_be_searched_is_named(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="not made by embedlake"):
        LakeRetriever(of_somebody_else(tmp_path)).retrieve("apples")
    with pytest.raises(LakeError, match="no column 'vector'"):
        LakeRetriever(without_space_in_service(tmp_path)).retrieve("apples")


@pytest.mark.slow
def test_llama_index_model_that_is_gone_is_named(tmp_path: Path, tiny_qwen3: Path) -> None:
    table = whose_model_is_gone(tmp_path, tiny_qwen3)
    with pytest.raises(ModelError, match=str(tmp_path / "model")):
        LakeRetriever(table).retrieve("apples")
