"""A server follows its tables: promotes, rollbacks, tables that go and come back."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import httpx2
import pytest

from embedding_core.lake.spaces.switching import rollback
from embedding_core.recipe import ModelSpec, Recipe
from tests.driver import recipe_for, run, write_jsonl
from tests.server.served import (
    AT_ONCE,
    NEW,
    built_space,
    made_table,
    search,
    serving,
    switch,
    table,
)

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 60.0


def until(client: httpx2.Client, space_id: str) -> dict[str, object]:
    """Ask until the space answers."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        answer = search(client).json()
        if answer.get("space_id") == space_id:
            return dict(answer)
    raise AssertionError(f"space {space_id[:12]} never answered: {answer}")


def test_server_follows_promote_and_rollback_without_restart(tmp_path: Path) -> None:
    recipe = made_table(tmp_path)
    column = built_space(recipe)
    snapshot = table(recipe).open()
    old, new = snapshot.space()[0], snapshot.space(column)[0]
    with serving(recipe) as client:
        assert search(client).json()["space_id"] == old
        switch(recipe, column)
        answer = until(client, new)
        assert answer["version"] == table(recipe).open().version and answer["notice"] is None
        rollback(table(recipe), "test", wait_seconds=30)
        assert search(client).json()["space_id"] == old, "its model was loaded already"


def test_new_rows_are_found_without_restart(tmp_path: Path) -> None:
    recipe = made_table(tmp_path)
    with serving(recipe) as client:
        assert search(client, "walrus").status_code == 200
        write_jsonl(tmp_path, "b.jsonl", [{"id": "new", "text": "A walrus on the ice"}])
        run(recipe)
        assert search(client, "walrus ice", k=1).json()["hits"][0]["doc_id"] == "new"


def test_each_answer_is_of_one_space_while_releases_are_switched(tmp_path: Path) -> None:
    """Hits, scores and the space of every answer fit together, and none fails."""
    recipe = made_table(tmp_path)
    column = built_space(recipe)
    expected = {}
    with serving(recipe, limits=AT_ONCE) as client:
        for name in ("vector", column):
            answer = search(client, column=name).json()
            expected[answer["space_id"]] = [hit["score"] for hit in answer["hits"]]
        assert len(expected) == 2
        stop, wrong, spaces = threading.Event(), list[object](), list[str]()

        def ask() -> None:
            while not stop.is_set():
                answer = search(client)
                body = answer.json()
                scores = [hit["score"] for hit in body.get("hits", [])]
                if answer.status_code != 200 or scores != expected[body["space_id"]]:
                    wrong.append((answer.status_code, body))
                spaces.append(body.get("space_id", ""))

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for thread in clients:
            thread.start()
        try:
            for _ in range(3):
                switch(recipe, column)
                rollback(table(recipe), "test", wait_seconds=30)
        finally:
            stop.set()
            for thread in clients:
                thread.join()
        assert wrong == [] and set(spaces) <= set(expected)


def test_model_that_is_gone_leaves_the_version_before_in_service(
    tmp_path: Path, tiny_qwen3: Path
) -> None:
    recipe = made_table(tmp_path)
    checkpoint = Path(shutil.copytree(tiny_qwen3, tmp_path / "model"))
    column = built_space(recipe, ModelSpec(name=str(checkpoint)))
    snapshot = table(recipe).open()
    old, new = snapshot.space()[0], snapshot.space(column)[0]
    with serving(recipe) as client:
        hidden = checkpoint.rename(tmp_path / "elsewhere")
        switch(recipe, column)
        notice = ""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "cannot answer" not in notice and time.monotonic() < deadline:
            answer = search(client).json()
            assert answer["space_id"] == old and answer["hits"]
            notice = answer["notice"] or ""
        assert str(checkpoint) in notice and "the one before does" in notice
        assert client.get("/healthz").json() == {"status": "degraded"}
        hidden.rename(checkpoint)
        assert until(client, new)["notice"] is None
        assert client.get("/healthz").json() == {"status": "ok"}


def test_table_deleted_while_served_is_said_and_its_return_is_followed(tmp_path: Path) -> None:
    recipe, other = made_table(tmp_path / "one"), made_table(tmp_path / "two", lake={"table": "b"})
    with serving(recipe, other, feedback=True) as client:
        assert search(client).status_code == 200
        kept = Path(table(recipe).uri).rename(tmp_path / "kept")
        answer = search(client)
        assert answer.status_code == 503 and "there is no table 'docs'" in answer.json()["error"]
        assert "embedlake embed" in answer.json()["error"]
        assert client.get("/healthz").json() == {"status": "degraded"}
        listed = client.get("/api/tables").json()
        assert "there is no table" in listed["problems"]["docs"]
        assert [info["table"] for info in listed["tables"]] == ["b"]
        assert search(client, table="b").status_code == 200, "the others answer"
        message = {"table": "docs", "query": "snow", "doc_id": "d1", "signal": "click"}
        assert client.post("/feedback", json=message).status_code == 503
        assert not list(Path(recipe.lake.uri).glob("*__feedback*")), "feedback makes nothing"
        kept.rename(table(recipe).uri)
        assert search(client).status_code == 200
        assert client.get("/healthz").json() == {"status": "ok"}


def test_table_dropped_and_made_again_is_read_as_it_is_now(tmp_path: Path) -> None:
    """The new table has the version numbers of the old."""
    write_jsonl(tmp_path, "a.jsonl", {"old": "the walrus sleeps"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    with serving(recipe) as client:
        assert search(client, "walrus").json()["hits"][0]["doc_id"] == "old"
        shutil.rmtree(recipe.lake.uri)
        write_jsonl(tmp_path, "a.jsonl", {"new": "the walrus sleeps"})
        run(recipe)
        assert search(client, "walrus").json()["hits"][0]["doc_id"] == "new"


def test_empty_table_answers_with_a_word(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    write_jsonl(tmp_path, "a.jsonl", {"only": "  "})
    recipe = recipe_for(tmp_path)
    run(recipe)
    with serving(recipe) as client:
        answer = search(client)
        assert answer.status_code == 200 and answer.json()["hits"] == []
        assert "has no rows yet" in answer.json()["notice"]
        assert client.get("/api/tables/docs").json()["rows"] == 0


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return made_table(tmp_path)


def test_models_beyond_the_limit_are_loaded_again(recipe: Recipe) -> None:
    from dataclasses import replace

    column = built_space(recipe, NEW)
    with serving(recipe, limits=replace(AT_ONCE, models=1)) as client:
        for _ in range(2):
            for name in ("vector", column):
                assert search(client, column=name).json()["column"] == name
