"""The JSON API: what is asked is what the table answers, and everything is described."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pytest

from embedding_core import Encoder
from embedding_core.recipe import Recipe
from tests.driver import recipe_for, rows, run, write_jsonl
from tests.server.served import built_space, made_table, search, serving, table


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A table with a second space."""
    recipe = made_table(tmp_path_factory.mktemp("served"))
    built_space(recipe)
    return recipe


@pytest.fixture(scope="module")
def client(recipe: Recipe) -> Iterator[httpx2.Client]:
    with serving(recipe) as client:
        yield client


def ids(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["chunk_id"] for hit in answer.json()["hits"]]


# Search


@pytest.mark.parametrize("hybrid", [False, True])
def test_search_gives_what_the_table_gives(
    recipe: Recipe, client: httpx2.Client, hybrid: bool
) -> None:
    encoder = Encoder.load("hashing", dim=32)
    hits = table(recipe).search("snow melts", encoder, k=7, hybrid=hybrid)
    answer = search(client, "snow melts", k=7, hybrid=hybrid)
    assert ids(answer) == [hit.chunk_id for hit in hits]
    for hit, found in zip(hits, answer.json()["hits"], strict=True):
        assert found["score"] == pytest.approx(hit.score, abs=1e-6)
        assert (found["doc_id"], found["text"]) == (hit.doc_id, hit.text)
        assert found["metadata"]["year"] == hit.metadata["year"]


def test_search_says_the_version_the_space_and_where_the_time_went(
    recipe: Recipe, client: httpx2.Client
) -> None:
    answer = search(client).json()
    snapshot = table(recipe).open()
    assert answer["version"] == snapshot.version
    assert (answer["space_id"], answer["column"]) == (snapshot.space()[0], "vector")
    seconds = answer["seconds"]
    assert 0 < seconds["model"] <= seconds["total"] and 0 < seconds["search"] <= seconds["total"]


def test_search_marks_the_words_of_the_query(client: httpx2.Client) -> None:
    hit = search(client, "Which FLOWERS do bees visit", k=1).json()["hits"][0]
    marked = {hit["text"][start:end] for start, end in hit["marks"]}
    assert marked == {"Bees", "flower"}
    start, end = hit["snippet"]
    assert any(start <= mark[0] < end for mark in hit["marks"])


def test_search_in_another_column_uses_its_model(recipe: Recipe, client: httpx2.Client) -> None:
    info = client.get("/api/tables/docs").json()
    other = info["spaces"][1]
    encoder = Encoder.load("hashing", dim=128)
    answer = search(client, "pollen", column=other["column"])
    hits = table(recipe).search("pollen", encoder, column=other["column"])
    assert ids(answer) == [hit.chunk_id for hit in hits]
    assert answer.json()["space_id"] == other["space_id"]


# Filters


def years(answer: httpx2.Response) -> set[int]:
    assert answer.status_code == 200, answer.text
    return {hit["metadata"]["year"] for hit in answer.json()["hits"]}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (("year", ">=", 2010), {2010, 2011}),
        (("year", "=", "2003"), {2003}),
        (("year", "in", [2001, 2004]), {2001, 2004}),
        (("year", "in", []), set()),
        (("year", "not in", list(range(2000, 2010))), {2010, 2011}),
        (("score", "<", 0.5), {2000, 2001}),
        (("open", "=", False), {2001, 2003, 2005, 2007, 2009, 2011}),
        (("at", ">", "2024-01-10"), {2010, 2011}),
        (("title", "contains", "port 1"), {2001, 2010, 2011}),
        (("title", "contains in any case", "PORT 1"), {2001, 2010, 2011}),
        (("title", "starts with", "Report 1"), {2001, 2010, 2011}),
        (("title", "=", "Report 7"), {2007}),
        (("doc_id", "=", "d5"), {2005}),
        (("year", "is missing", None), set()),
    ],
)
def test_filter_of_each_type_chooses_rows(
    client: httpx2.Client, condition: tuple[str, str, Any], expected: set[int]
) -> None:
    column, operator, value = condition
    filters = [{"column": column, "operator": operator, "value": value}]
    assert years(search(client, k=100, filters=filters)) == expected


def test_filters_hold_together(client: httpx2.Client) -> None:
    filters = [
        {"column": "year", "operator": ">", "value": 2004},
        {"column": "open", "operator": "=", "value": True},
        {"column": "year", "operator": "is there"},
    ]
    assert years(search(client, k=100, filters=filters)) == {2006, 2008, 2010}


# Documents


def test_document_has_its_passages_in_order_and_its_text_once(
    recipe: Recipe, client: httpx2.Client
) -> None:
    answer = client.get("/api/tables/docs/document", params={"doc_id": "d3"}).json()
    passages = answer["document"]["passages"]
    stored = [row["text"] for row in rows(recipe, "doc_id", "text") if row["doc_id"] == "d3"]
    assert [passage["text"] for passage in passages] == stored and len(passages) > 2
    assert passages[1]["char_start"] < passages[0]["char_end"], "the passages overlap"
    (original,) = [line["text"] for line in _source(recipe) if line["id"] == "d3"]
    assert answer["text"] == original


def _source(recipe: Recipe) -> list[dict[str, Any]]:
    import json

    path = Path(recipe.source.uri) / "a.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_document_is_given_in_portions(client: httpx2.Client) -> None:
    whole = client.get("/api/tables/docs/document", params={"doc_id": "d3"}).json()["document"]
    asked = {"doc_id": "d3", "source_uri": whole["source_uri"], "first": 1, "limit": 2}
    some = client.get("/api/tables/docs/document", params=asked).json()["document"]
    assert some["passages"] == whole["passages"][1:3]
    assert some["n_passages"] == len(whole["passages"])
    past = client.get("/api/tables/docs/document", params=asked | {"first": 999}).json()["document"]
    assert past["passages"] == [] and past["metadata"] == whole["metadata"]


def test_documents_of_one_id_in_two_files_are_told_apart(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"same": "the first text"})
    write_jsonl(tmp_path, "b.jsonl", {"same": "the second text"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    with serving(recipe) as client:
        for name, text in (("a", "the first text"), ("b", "the second text")):
            uri = next(r["source_uri"] for r in rows(recipe) if r["text"] == text)
            asked = {"doc_id": "same", "source_uri": uri}
            answer = client.get("/api/tables/docs/document", params=asked).json()
            assert answer["text"] == text, name
        asked = {"doc_id": "same"}
        assert client.get("/api/tables/docs/document", params=asked).json()["text"] == (
            "the first text"
        )


# Comparison


def test_comparison_says_what_moved(recipe: Recipe, client: httpx2.Client) -> None:
    other = client.get("/api/tables/docs").json()["spaces"][1]["column"]
    message = {"query": "the snow melts in the valley", "k": 8, "columns": ["vector", other]}
    answer = client.post("/api/tables/docs/compare", json=message).json()
    first, second = answer["answers"]
    assert first["version"] == second["version"] and first["space_id"] != second["space_id"]
    ranks = [{hit["chunk_id"]: hit["rank"] for hit in side["hits"]} for side in (first, second)]
    assert answer["shared"] == len(ranks[0].keys() & ranks[1].keys())
    for side in (0, 1):
        assert [line["chunk_id"] for line in answer["moved"][side]] == list(ranks[side])
        for line in answer["moved"][side]:
            before, after = ranks[0].get(line["chunk_id"]), ranks[1].get(line["chunk_id"])
            assert line["other_rank"] == (before if side else after)
            if before is None or after is None:
                expected = "only here"
            else:
                expected = "same" if before == after else "up" if after < before else "down"
            assert line["movement"] == expected


# What there is


def test_table_info_says_what_can_be_asked(recipe: Recipe, client: httpx2.Client) -> None:
    info = client.get("/api/tables/docs").json()
    assert info["rows"] == table(recipe).open().n_rows and info["hybrid"] is True
    assert info["feedback"] is False
    columns = {column["name"]: column for column in info["columns"]}
    assert columns["open"]["type"] == "bool" and columns["open"]["operators"][:2] == ["=", "!="]
    assert "Report 3" in columns["title"]["values"]
    assert "vector" not in columns and "text" not in columns
    states = [space["state"] for space in info["spaces"]]
    assert states == ["in service", "ready"]
    assert client.get("/api/tables").json()["tables"] == [info]


def test_api_is_described(client: httpx2.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {"/api/tables/{table}/search", "/api/tables/{table}/compare", "/feedback"} <= set(
        document["paths"]
    )
    answer = document["paths"]["/api/tables/{table}/search"]["post"]["responses"]
    assert answer["200"]["content"]["application/json"]["schema"]["$ref"].endswith("SearchAnswer")
    assert {"404", "422", "429", "503"} <= set(answer)
    refused = answer["422"]["content"]["application/json"]["schema"]["$ref"]
    assert refused.endswith("Problem")


def test_metrics_count_and_time(recipe: Recipe) -> None:
    with serving(recipe) as client:
        for _ in range(3):
            search(client)
        text = client.get("/metrics").text
        assert 'embedlake_table_readable{table="docs"} 1.0' in text
        assert 'embedlake_table_rows{table="docs"}' in text
    route = 'route="/api/tables/{table}/search",status="200"'
    assert f"embedlake_requests_total{{{route}}} 3.0" in text
    assert 'embedlake_query_seconds_count{stage="model",table="docs"} 3.0' in text
    assert "embedlake_queries_together_count 3.0" in text
    assert "embedlake_requests_under_way 0.0" in text
    assert client.headers is not None


def test_health_is_ok_while_every_table_answers(client: httpx2.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_two_recipes_are_served_side_by_side(recipe: Recipe, tmp_path: Path) -> None:
    other = made_table(tmp_path, lake={"table": "more"})
    with serving(recipe, other) as client:
        assert [t["table"] for t in client.get("/api/tables").json()["tables"]] == ["docs", "more"]
        assert search(client, table="more").json()["table"] == "more"


def test_values_of_columns_that_others_added_reach_json_without_a_loss(tmp_path: Path) -> None:
    recipe = made_table(tmp_path)
    ids = table(recipe).dataset().to_table(columns=["chunk_id"]).column(0)
    big = 2**53 + 1  # JavaScript would make it 2**53
    added = {
        "big": pa.array([big] * len(ids)),
        "raw": pa.array([b"\xff\x00"] * len(ids)),
        "nested": pa.array([{"list": [1, -big], "nothing": None}] * len(ids)),
        "odd": pa.array([float("nan")] * len(ids)),
        "day": pa.array([date(2024, 2, 29)] * len(ids)),
    }
    table(recipe).dataset().merge(pa.table({"chunk_id": ids, **added}), "chunk_id")
    with serving(recipe) as client:
        filters = [{"column": "big", "operator": "=", "value": str(big)}]
        answer = search(client, k=1, filters=filters)
        assert answer.status_code == 200, answer.text
        (hit,) = answer.json()["hits"]
        info = client.get("/api/tables/docs").json()
        asking = {"doc_id": hit["doc_id"]}
        document = client.get("/api/tables/docs/document", params=asking).json()["document"]
        examples = {column["name"]: column["values"] for column in info["columns"]}
    values = {name: hit["metadata"][name] for name in added}
    assert values == {
        "big": str(big),
        "raw": "/wA=",
        "nested": {"list": [1, str(-big)], "nothing": None},
        "odd": None,
        "day": "2024-02-29",
    }
    assert {name: document["metadata"][name] for name in added} == values
    assert (examples["big"], examples["odd"]) == ([str(big)], [])


def test_row_without_a_value_is_not_equal_to_any(tmp_path: Path) -> None:
    """As in the filters of LangChain and LlamaIndex."""
    langs = {"a": "en", "b": None, "c": "de"}
    records = [{"id": name, "text": name, "lang": lang} for name, lang in langs.items()]
    write_jsonl(tmp_path, "a.jsonl", records)
    recipe = recipe_for(tmp_path, source={"metadata": {"lang": "string"}})
    run(recipe)
    with serving(recipe) as client:
        filters = [{"column": "lang", "operator": "!=", "value": "en"}]
        hits = search(client, "a", filters=filters).json()["hits"]
    assert {hit["doc_id"] for hit in hits} == {"b", "c"}
