"""The tools, asked by the protocol's own client over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from embedding_core.recipe import Recipe
from tests.server.served import made_table, serving, table


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return made_table(tmp_path_factory.mktemp("served"))


def asked(recipe: Recipe, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """What the tools answer, one after the other."""

    async def ask(url: str) -> list[Any]:
        async with Client(url) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert names == {"search", "get_document", "table_info"}
            return [await client.call_tool(name, arguments) for name, arguments in calls]

    with serving(recipe) as client:
        return asyncio.run(ask(f"{str(client.base_url).rstrip('/')}/mcp"))


def test_tools_search_give_a_document_and_say_what_there_is(recipe: Recipe) -> None:
    filters = [{"column": "year", "operator": ">=", "value": 2006}]
    found, info = asked(
        recipe,
        ("search", {"query": "snow melts", "k": 3, "filters": filters, "hybrid": True}),
        ("table_info", {}),
    )
    hits = found.structured_content["hits"]
    assert len(hits) == 3 and all(hit["metadata"]["year"] >= 2006 for hit in hits)
    assert info.structured_content["tables"][0]["table"] == "docs"
    asking = {"doc_id": hits[0]["doc_id"], "source_uri": hits[0]["source_uri"]}
    (document,) = asked(recipe, ("get_document", asking))
    assert hits[0]["text"] in document.structured_content["text"]


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("search", {"query": "x", "table": "nope"}, "no table 'nope' is served here"),
        ("search", {"query": "x" * 5_000}, "query: String should have at most 2000 characters"),
        ("search", {}, "query: Field required"),
        ("search", {"query": "x", "k": 1_000}, "k: Input should be less than or equal to 100"),
        ("search", {"query": "x", "filter": []}, "search takes no 'filter'; it takes query, table"),
        ("get_document", {"doc_id": "d1", "first": -5}, "first: Input should be greater than"),
        ("nothing", {"x": 1}, "Unknown tool: nothing"),
        (
            "search",
            {"query": "x", "filters": [{"column": "nope", "operator": "=", "value": 1}]},
            "has no column 'nope'",
        ),
        ("get_document", {"doc_id": "nobody"}, "has no document 'nobody'"),
    ],
)
def test_tool_says_what_was_wrong(
    recipe: Recipe, tool: str, arguments: dict[str, Any], words: str
) -> None:
    (answer,) = asked(recipe, (tool, arguments))
    assert answer.is_error and words in answer.content[0].text
    assert "pydantic" not in answer.content[0].text


def test_table_must_be_named_where_there_are_several(recipe: Recipe, tmp_path: Path) -> None:
    other = made_table(tmp_path, lake={"table": "more"})

    async def ask(url: str) -> Any:
        async with Client(url) as client:
            return await client.call_tool("search", {"query": "x"})

    with serving(recipe, other) as client:
        answer = asyncio.run(ask(f"{str(client.base_url).rstrip('/')}/mcp"))
    assert answer.is_error and "say which table: docs, more" in answer.content[0].text


INJECTIONS = (
    "x' OR 1=1 --",
    "'; DELETE FROM docs; --",
    "\\' OR ''='",
    ":v",
    "`year`",
    "../../etc/passwd",
)


def test_injection_through_a_tool_is_a_value_or_no_name(recipe: Recipe) -> None:
    values = [
        (
            "search",
            {"query": text, "filters": [{"column": "title", "operator": "=", "value": text}]},
        )
        for text in INJECTIONS
    ]
    names = [
        *(("search", {"query": "x", "table": text}) for text in INJECTIONS),
        *(
            ("search", {"query": "x", "filters": [{"column": text, "operator": "=", "value": 1}]})
            for text in INJECTIONS
        ),
        *(("get_document", {"doc_id": text, "source_uri": text}) for text in INJECTIONS),
        *(("table_info", {"table": text}) for text in INJECTIONS),
    ]
    version = table(recipe).open().version
    answers = asked(recipe, *values, *names)
    for answer in answers[: len(values)]:
        assert answer.structured_content["hits"] == []
    for answer in answers[len(values) :]:
        assert answer.is_error
        assert "has no column" in answer.content[0].text or "no " in answer.content[0].text
    assert table(recipe).open().version == version
