"""The retriever for LangChain: LangChain's own tests of one, and ours."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests

from embedding_core.errors import LakeError, ModelError, UsageError
from embedding_core.lake.spaces.switching import promote, rollback
from embedding_core.lake.table import Lake, Table, table_of
from embedlake.langchain import LakeRetriever
from tests.clients.tables import (
    fruit,
    of_somebody_else,
    stage,
    whose_model_is_gone,
    without_space_in_service,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return table_of(fruit(tmp_path_factory.mktemp("langchain")))


class TestStandard(RetrieversIntegrationTests):
    """The library's suite."""

    @pytest.fixture(autouse=True)
    def _a_table(self, table: Table) -> None:
        self.table = table

    @property
    def retriever_constructor(self) -> type[LakeRetriever]:
        return LakeRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"table": self.table}

    @property
    def retriever_query_example(self) -> str:
        return "apples"


def ids(documents: list[Document]) -> list[str]:
    return [document.metadata["doc_id"] for document in documents]


def test_langchain_documents_best_first_with_score_and_metadata(table: Table) -> None:
    documents = LakeRetriever(table=table, k=2).invoke("apples and pears")
    assert [document.page_content for document in documents] == [
        "apples and pears", "apples and plums",
    ]  # fmt: skip
    metadata = documents[0].metadata
    assert metadata.pop("source_uri").endswith("/src/a.jsonl")
    score = metadata.pop("_score")
    assert score == pytest.approx(1, abs=1e-3) and score > documents[1].metadata["_score"]
    assert metadata == {"year": 2001, "tag": "it's", "doc_id": "1", "chunk_index": 0}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"year": {"$gte": 2010}}, ["2"]),
        ({"tag": "it's"}, ["1"]),
        ({"$or": [{"year": None}, {"tag": "plain"}]}, ["2", "3"]),
    ],
)
def test_langchain_filter_of_the_retriever_or_of_a_query(
    table: Table, tree: dict[str, Any], expected: list[str]
) -> None:
    of_all = LakeRetriever(table=table, filter=tree)
    assert sorted(ids(of_all.invoke("apples"))) == expected
    plain = LakeRetriever(table=table)
    assert sorted(ids(plain.invoke("apples", filter=tree))) == expected
    assert sorted(ids(asyncio.run(plain.ainvoke("apples", k=2, filter=tree)))) == expected
    assert len(of_all.invoke("apples", filter=None)) == 3


def test_langchain_hybrid_ranks_by_words_too(table: Table) -> None:
    (document,) = LakeRetriever(table=table, k=1, hybrid=True).invoke("moon")
    assert document.metadata["doc_id"] == "3"


def test_langchain_retriever_follows_promote_and_rollback(tmp_path: Path) -> None:
    recipe = fruit(tmp_path)
    retriever = LakeRetriever(table=table_of(recipe), k=1)
    assert ids(retriever.invoke("rockets to the moon")) == ["3"]
    promote(table_of(recipe), stage(recipe), "test")
    assert ids(retriever.invoke("rockets to the moon")) == ["3"]
    rollback(table_of(recipe), "test")
    assert ids(retriever.invoke("rockets to the moon")) == ["3"]


def test_langchain_retriever_is_part_of_a_chain_and_of_a_batch(table: Table) -> None:
    chain = LakeRetriever(table=table, k=1) | RunnableLambda(ids)
    words = ["rockets to the moon", "apples and plums", "apples and pears"] * 4
    assert chain.batch(words) == [["3"], ["2"], ["1"]] * 4
    assert asyncio.run(chain.abatch(words)) == [["3"], ["2"], ["1"]] * 4


@pytest.mark.parametrize("k", [0, -1])
def test_langchain_k_that_is_no_number_of_documents_is_bad_usage(table: Table, k: int) -> None:
    with pytest.raises(UsageError, match=f"k is {k}"):
        LakeRetriever(table=table, k=k).invoke("apples")
    with pytest.raises(UsageError, match=f"k is {k}"):
        LakeRetriever(table=table).invoke("apples", k=k)


@pytest.mark.parametrize("words", ["", " \n", "\ud800"])
def test_langchain_query_that_is_no_text_is_bad_usage(table: Table, words: str) -> None:
    with pytest.raises(UsageError, match="query 'words'"):
        LakeRetriever(table=table).invoke(words)


@pytest.mark.parametrize("tree", [{"year": {"$where": "1=1"}}, {"1=1 OR year": 1}])
def test_langchain_injection_in_a_filter_is_bad_usage(table: Table, tree: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="the filter"):
        LakeRetriever(table=table, filter=tree).invoke("apples")


def test_langchain_value_that_looks_like_sql_is_a_value(table: Table) -> None:
    assert LakeRetriever(table=table, filter={"tag": "' OR 1=1 --"}).invoke("apples") == []


def test_langchain_table_that_cannot_be_searched_is_named(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="no table 'docs'"):
        Lake.open(str(tmp_path / "nowhere")).table("docs")
    with pytest.raises(LakeError, match="not made by embedlake"):
        LakeRetriever(table=of_somebody_else(tmp_path)).invoke("apples")
    with pytest.raises(LakeError, match="no column 'vector'"):
        LakeRetriever(table=without_space_in_service(tmp_path)).invoke("apples")


@pytest.mark.slow
def test_langchain_model_that_is_gone_is_named(tmp_path: Path, tiny_qwen3: Path) -> None:
    table = whose_model_is_gone(tmp_path, tiny_qwen3)
    with pytest.raises(ModelError, match=str(tmp_path / "model")):
        LakeRetriever(table=table).invoke("apples")
