"""Whatever comes, the answer says why it is refused, and the server answers the next."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from embedding_core.errors import LakeError, ModelError, UsageError
from embedding_core.lake.readers.feedback import read_feedback
from embedding_core.recipe import ModelSpec, Recipe
from embedding_core.server.answering.limits import Limits
from embedding_core.server.answering.messages import SearchMessage
from embedding_core.server.answering.refusals import Busy
from embedding_core.server.answering.service import SearchService
from embedding_core.server.web.guard import Access
from tests.driver import recipe_for
from tests.server.served import AT_ONCE, RESOURCES, made_table, search, serving, table

TOKEN = "correct horse battery staple"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return made_table(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def client(recipe: Recipe) -> Iterator[httpx2.Client]:
    with serving(recipe) as client:
        yield client


def refused(answer: httpx2.Response, status: int, words: str, client: httpx2.Client) -> None:
    """The answer has the status and says why; the next question is answered."""
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem.keys() == {"error", "kind"} and words in problem["error"], problem
    assert search(client).status_code == 200


# Tables and documents


def test_no_such_table(client: httpx2.Client) -> None:
    refused(search(client, table="nope"), 404, "no table 'nope' is served here", client)
    refused(client.get("/api/tables/nope"), 404, "there is docs", client)


def test_no_such_document(client: httpx2.Client) -> None:
    answer = client.get("/api/tables/docs/document", params={"doc_id": "nobody"})
    refused(answer, 404, "has no document 'nobody'", client)


def test_no_table_keeps_the_server_from_starting(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path)
    with pytest.raises(LakeError, match="there is no table 'docs'"), serving(recipe):
        pass


def test_no_model_keeps_the_server_from_starting(tmp_path: Path, tiny_qwen3: Path) -> None:
    import shutil

    checkpoint = Path(shutil.copytree(tiny_qwen3, tmp_path / "model"))
    recipe = made_table(tmp_path, model=ModelSpec(name=str(checkpoint)).model_dump())
    shutil.rmtree(checkpoint)
    with pytest.raises(ModelError, match="model"), serving(recipe):
        pass


def test_two_tables_of_one_name_are_refused(recipe: Recipe) -> None:
    with pytest.raises(UsageError, match="two recipes serve a table 'docs'"):
        SearchService([recipe, recipe], RESOURCES)


# Queries


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "at least 1 character"),
        ("   ", "the query has no words"),
        ("x" * 2_001, "at most 2000 characters"),
    ],
)
def test_query_that_cannot_be_asked(client: httpx2.Client, query: str, words: str) -> None:
    refused(search(client, query), 422, words, client)


def test_query_of_a_million_characters(client: httpx2.Client) -> None:
    answer = search(client, "x" * 1_000_000)
    refused(answer, 413, "send at most 65,536", client)


def test_query_that_is_no_unicode(client: httpx2.Client) -> None:
    headers = {"Content-Type": "application/json"}
    body = b'{"query": "half \\ud800 a pair"}'
    answer = client.post("/api/tables/docs/search", content=body, headers=headers)
    assert answer.status_code == 422 and search(client).status_code == 200


@pytest.mark.parametrize("query", ["\0", "' OR 1=1 --", '"unclosed', "(((", "title:*", "‮🙂\n\t"])
@pytest.mark.parametrize("hybrid", [False, True])
def test_strange_queries_are_answered(client: httpx2.Client, query: str, hybrid: bool) -> None:
    assert search(client, query, hybrid=hybrid).status_code == 200


@pytest.mark.parametrize("k", [0, -1, 101, 1.5, "many"])
def test_number_of_hits_out_of_bounds(client: httpx2.Client, k: object) -> None:
    refused(search(client, k=k), 422, "k:", client)


def test_unknown_field(client: httpx2.Client) -> None:
    refused(search(client, where="1 = 1"), 422, "where: Extra inputs", client)


def test_body_that_is_no_json(client: httpx2.Client) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"{", b"[]", b"", b"\xff\xfe", b"[" * 60_000):
        answer = client.post("/api/tables/docs/search", content=body, headers=headers)
        assert answer.status_code in (400, 422) and answer.json()["error"], body[:20]
    assert search(client).status_code == 200


def test_column_that_is_none_of_the_vectors(client: httpx2.Client) -> None:
    for column in ("text", "vector__nope", "vector; DROP TABLE docs"):
        refused(search(client, column=column), 422, "has no vector column", client)


def test_hybrid_without_a_full_text_index(tmp_path: Path) -> None:
    recipe = made_table(tmp_path, index={"full_text": False})
    with serving(recipe) as client:
        refused(search(client, hybrid=True), 422, "has no full-text index", client)


# Filters

INJECTIONS = [
    "x' OR 1=1 --",
    "x') OR (1=1",
    "'; DELETE FROM docs; --",
    "\\' OR 1=1 --",
    ":v1",
    "`year`",
]


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("operator", ["=", "contains", "starts with"])
def test_injection_in_a_value_is_a_value(client: httpx2.Client, text: str, operator: str) -> None:
    filters = [{"column": "title", "operator": operator, "value": text}]
    answer = search(client, k=100, filters=filters)
    assert answer.status_code == 200 and answer.json()["hits"] == []


@pytest.mark.parametrize("text", ["year OR 1=1", "year` = 1 OR `year", "title' = '", "nope"])
def test_injection_in_a_column_is_refused(client: httpx2.Client, text: str) -> None:
    filters = [{"column": text, "operator": "=", "value": 1}]
    refused(search(client, filters=filters), 422, "has no column", client)


@pytest.mark.parametrize("operator", ["OR 1=1 OR", "LIKE", "== 1; --", "contains"])
def test_operator_that_a_column_does_not_have_is_refused(
    client: httpx2.Client, operator: str
) -> None:
    filters = [{"column": "year", "operator": operator, "value": 1}]
    answer = search(client, filters=filters)
    assert answer.status_code == 422 and answer.json()["error"]


@pytest.mark.parametrize(
    ("column", "operator", "value", "words"),
    [
        ("year", "=", "soon", "expected int of 64 bits, got 'soon'"),
        ("year", "=", 1.5, "expected int of 64 bits"),
        ("year", "=", True, "expected int of 64 bits"),
        ("year", "=", [1, 2], "compares with [1, 2]; give a single value"),
        ("year", "in", 1, "takes a list of values"),
        ("year", "not in", list(range(1_001)), "more than 1,000 values"),
        ("year", "is missing", 1, "takes no value"),
        ("year", "=", None, "compares with None; give a single value"),
        ("year", ">", 10**30, "beyond the 64 bits"),
        ("open", "=", "perhaps", "expected bool"),
        ("title", "=", 7, "expected string"),
        ("title", "contains", 7, "compares with 7; give a text"),
        ("at", ">", "yesterday", "expected timestamp"),
        ("vector", "=", 1, "has no column 'vector'"),
        ("text", "contains", "a", "has no column 'text'"),
    ],
)
def test_filter_that_does_not_fit_its_column(
    client: httpx2.Client, column: str, operator: str, value: Any, words: str
) -> None:
    filters = [{"column": column, "operator": operator, "value": value}]
    refused(search(client, filters=filters), 422, words, client)


def test_too_many_filters(client: httpx2.Client) -> None:
    filters = [{"column": "year", "operator": "is there"}] * 33
    refused(search(client, filters=filters), 422, "at most 32", client)


# Who may ask


def test_wrong_token(recipe: Recipe) -> None:
    right = {"Authorization": f"Bearer {TOKEN}"}
    with serving(recipe, access=Access(TOKEN), headers=right) as client:
        closed = ["/api/tables", "/api/tables/docs", "/metrics", "/openapi.json", "/mcp"]
        for headers in (
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": TOKEN},
            {"Authorization": "Bearer"},
            {b"Authorization": b"Bearer \xff"},
        ):
            for path in closed:
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401 and "the token is missing" in answer.text
                assert answer.headers["www-authenticate"] == "Bearer"
            answer = client.post("/feedback", json={}, headers=headers)
            assert answer.status_code == 401
        assert search(client).status_code == 200
        for path in ("/", "/healthz", "/assets/search.js"):
            assert client.get(path, headers={"Authorization": "no"}).status_code == 200


def test_foreign_host_and_origin(recipe: Recipe) -> None:
    with serving(recipe, access=Access(hosts={"127.0.0.1"})) as client:
        answer = client.get("/api/tables", headers={"Host": "evil.example"})
        refused(answer, 421, "not called 'evil.example'", client)
        answer = client.post(
            "/api/tables/docs/search",
            json={"query": "x"},
            headers={"Origin": "https://evil.example"},
        )
        refused(answer, 403, "a page of 'https://evil.example' may not ask", client)
        own = str(client.base_url).rstrip("/")
        assert search(client).status_code == 200
        answer = client.post(
            "/api/tables/docs/search", json={"query": "x"}, headers={"Origin": own}
        )
        assert answer.status_code == 200


def test_every_answer_has_the_strict_headers(client: httpx2.Client) -> None:
    for path in ("/", "/assets/search.js", "/api/tables", "/nope", "/healthz"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_unknown_paths_and_methods(client: httpx2.Client) -> None:
    for path in ("/nope", "/assets/../setup.py", "/assets/%2e%2e%2fservice.py", "/docs"):
        refused(client.get(path), 404, "Not Found", client)
    refused(client.put("/api/tables"), 405, "Method Not Allowed", client)


# Too much at once


def test_flood_is_answered_by_come_again(recipe: Recipe) -> None:
    """Every request is answered or refused at once, and none is queued for ever."""

    async def flood(url: str) -> list[httpx2.Response]:
        async with httpx2.AsyncClient(
            base_url=url, timeout=120, limits=httpx2.Limits(max_connections=200)
        ) as client:
            return await asyncio.gather(
                *(
                    client.post("/api/tables/docs/search", json={"query": f"query {number}"})
                    for number in range(200)
                )
            )

    with serving(recipe, limits=replace(AT_ONCE, at_once=1)) as client:
        answers = asyncio.run(flood(str(client.base_url)))
        statuses = {answer.status_code for answer in answers}
        assert 200 in statuses and statuses <= {200, 429}
        for answer in answers:
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                assert "request is under way" in answer.json()["error"]
        assert search(client).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_requests_beyond_the_bound_are_refused_before_they_wait(recipe: Recipe) -> None:
    async def ask() -> list[object]:
        service = SearchService([recipe], RESOURCES, Limits(at_once=4))
        await service.open()
        asked = [service.search("docs", SearchMessage(query=f"query {n}")) for n in range(20)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        again = await service.search("docs", SearchMessage(query="again"))
        service.close()
        return [*answers, again]

    *answers, again = asyncio.run(ask())
    assert [isinstance(answer, Busy) for answer in answers] == [False] * 4 + [True] * 16
    assert not isinstance(again, Exception)


# Clients that hang

PATIENCE_SECONDS = 1.0
"""Of the server with a client: enough for one that does not hang, on a busy machine too."""


def connected(client: httpx2.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=60)


HEAD = (
    b"POST /api/tables/docs/search HTTP/1.1\r\n"
    b"Host: localhost\r\nContent-Type: application/json\r\n"
)


@pytest.mark.parametrize("sent", [b"", b"POST /api", HEAD])
def test_client_that_does_not_finish_a_head_is_hung_up_on(recipe: Recipe, sent: bytes) -> None:
    with serving(recipe, silent_seconds=PATIENCE_SECONDS) as client, connected(client) as hanging:
        hanging.sendall(sent)
        assert search(client).status_code == 200, "others are answered meanwhile"
        assert hanging.recv(100) == b""


def test_client_that_does_not_finish_a_second_head_is_hung_up_on(recipe: Recipe) -> None:
    with serving(recipe, silent_seconds=PATIENCE_SECONDS) as client, connected(client) as hanging:
        hanging.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal")
        received = b""
        while chunk := hanging.recv(1_000):
            received += chunk
        assert received.count(b"HTTP/1.1 200") == 1


def test_client_that_does_not_finish_a_body_is_told(recipe: Recipe) -> None:
    limits = replace(AT_ONCE, request_seconds=PATIENCE_SECONDS)
    with serving(recipe, limits=limits) as client, connected(client) as hanging:
        hanging.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert search(client).status_code == 200
        received = b""
        while chunk := hanging.recv(1_000):
            received += chunk
        assert b" 408 " in received and b"not complete after 1 s" in received


def test_client_that_leaves_within_its_body_has_asked_nothing(recipe: Recipe) -> None:
    """All of the words are there, but not the end of the body."""
    message = {"table": "docs", "query": "half", "doc_id": "d1", "signal": "click"}
    body = json.dumps(message).encode()
    head = HEAD.replace(b"/api/tables/docs/search", b"/feedback")
    with serving(recipe, feedback=True) as client:
        with connected(client) as leaving:
            leaving.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            leaving.sendall(b"%x\r\n%b\r\n" % (len(body), body))
        while 'status="400"' not in (counted := client.get("/metrics").text):
            assert 'status="201"' not in counted
        assert list(read_feedback(table(recipe))) == []


def test_nobody_holds_the_tools_open(client: httpx2.Client) -> None:
    answer = client.get("/mcp", headers={"Accept": "text/event-stream"})
    refused(answer, 405, "Method Not Allowed", client)
    assert answer.headers["allow"] == "POST"


def test_body_that_is_longer_than_it_says_is_refused(recipe: Recipe) -> None:
    with serving(recipe) as client, connected(client) as endless:
        endless.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        endless.sendall(chunk * 3)
        received = b""
        while piece := endless.recv(1_000):
            received += piece
        assert b" 413 " in received
        assert search(client).status_code == 200


def test_client_that_goes_away_leaves_nothing_behind(recipe: Recipe) -> None:
    body = json.dumps({"query": "light"}).encode()
    with serving(recipe) as client:
        for _ in range(20):
            with connected(client) as leaving:
                leaving.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            with connected(client) as leaving:
                leaving.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        while "embedlake_requests_under_way 0.0" not in client.get("/metrics").text:
            pass
        assert search(client).status_code == 200


def test_table_is_never_changed_by_questions(recipe: Recipe, client: httpx2.Client) -> None:
    before = table(recipe).open().version
    for text in INJECTIONS:
        search(client, text, filters=[{"column": "title", "operator": "=", "value": text}])
    assert table(recipe).open().version == before


def test_index_that_lost_its_files_is_named_with_what_heals_it(tmp_path: Path) -> None:
    recipe = made_table(tmp_path)
    for folder in (tmp_path / "lake" / "docs.lance" / "_indices").iterdir():
        shutil.rmtree(folder)
    with serving(recipe) as client:
        uri = str(tmp_path / "src" / "a.jsonl")
        filters = [{"column": "source_uri", "operator": "=", "value": uri}]
        problem = search(client, filters=filters)
        assert problem.status_code == 503 and problem.json()["kind"] == "lake", problem.text
        assert "embedlake maintain" in problem.json()["error"]
