"""A server lets a model that is not in service ask the column in service through its bridge."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from embedding_core import Encoder
from embedding_core.errors import ModelError
from embedding_core.identity import space_id
from embedding_core.lake.spaces.bridges import forget_bridges, keep_bridge
from embedding_core.recipe import ModelSpec, Recipe
from tests.server.served import (
    NEW,
    built_space,
    made_table,
    search,
    serving,
    switch,
    table,
)

pytestmark = pytest.mark.slow


def bridge(recipe: Recipe) -> None:
    """Keep a bridge that turns the query "bees" of the new model into what it is of the old."""
    old = Encoder.load("hashing", dim=recipe.model.dim)
    new = Encoder.load("hashing", dim=NEW.dim)
    query, target = (encoder.encode_queries(["bees"])[0] for encoder in (new, old))
    matrix = np.outer(query, target).astype(np.float32)
    keep_bridge(table(recipe), space_id(new.space), space_id(old.space), matrix)


def test_a_bridge_asks_the_column_in_service_with_the_new_model(tmp_path: Path) -> None:
    recipe = made_table(tmp_path)
    bridge(recipe)
    with serving(recipe, bridge_from=NEW) as client:
        spaces = client.get("/api/tables/docs").json()["spaces"]
        assert [space["column"] for space in spaces] == ["vector", "bridge"]
        assert spaces[1]["state"] == "bridge" and spaces[1]["model"] == "hashing"
        assert spaces[1]["space_id"] == spaces[0]["space_id"]
        compared = client.post(
            "/api/tables/docs/compare", json={"query": "bees", "columns": ["vector", "bridge"]}
        ).json()
        old, through = compared["answers"]
        assert through["column"] == "bridge" and through["space_id"] == old["space_id"]
        assert [hit["chunk_id"] for hit in through["hits"]] == [
            hit["chunk_id"] for hit in old["hits"]
        ]
        assert through["hits"][0]["score"] == pytest.approx(old["hits"][0]["score"], abs=1e-5)


def test_without_the_flag_nothing_is_asked_through_a_bridge(tmp_path: Path) -> None:
    recipe = made_table(tmp_path)
    bridge(recipe)
    with serving(recipe) as client:
        assert len(client.get("/api/tables/docs").json()["spaces"]) == 1
        answer = search(client, "bees", column="bridge")
        assert answer.status_code == 422 and "a model to bridge from" in answer.json()["error"]


def test_without_a_bridge_the_answer_says_what_makes_one(tmp_path: Path) -> None:
    recipe = made_table(tmp_path)
    with serving(recipe, bridge_from=NEW) as client:
        assert len(client.get("/api/tables/docs").json()["spaces"]) == 1
        answer = search(client, "bees", column="bridge")
        assert answer.status_code >= 400 and "no bridge leads" in answer.json()["error"]
        assert search(client, "bees").status_code == 200


def test_table_without_a_bridge_is_not_asked_through_that_of_another(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first = made_table(tmp_path / "first")
    second = made_table(tmp_path / "second", lake={"table": "more"})
    bridge(first)
    with serving(first, second, bridge_from=NEW) as client:
        assert search(client, "bees", column="bridge").status_code == 200
        answer = search(client, "bees", table="more", column="bridge")
        assert answer.status_code >= 400 and "no bridge leads" in answer.json()["error"]


def test_bridge_that_went_with_its_table_is_asked_no_more(tmp_path: Path) -> None:
    recipe = made_table(tmp_path)
    bridge(recipe)
    with serving(recipe, bridge_from=NEW) as client:
        assert search(client, "bees", column="bridge").status_code == 200
        forget_bridges(table(recipe))
        answer = search(client, "bees", column="bridge")
        assert answer.status_code >= 400 and "no bridge leads" in answer.json()["error"]
        bridge(recipe)
        assert search(client, "bees", column="bridge").status_code == 200


def test_model_of_a_bridge_that_is_gone_hides_no_table(tmp_path: Path, tiny_qwen3: Path) -> None:
    recipe = made_table(tmp_path)
    checkpoint = Path(shutil.copytree(tiny_qwen3, tmp_path / "model"))
    with serving(recipe, bridge_from=ModelSpec(name=str(checkpoint))) as client:
        shutil.rmtree(checkpoint)
        listed = client.get("/api/tables").json()
        assert [info["table"] for info in listed["tables"]] == ["docs"], listed["problems"]


def test_model_of_a_bridge_must_be_there_at_the_start(tmp_path: Path) -> None:
    recipe = made_table(tmp_path)
    with (
        pytest.raises(ModelError, match="nowhere"),
        serving(recipe, bridge_from=ModelSpec(name=str(tmp_path / "nowhere"))),
    ):
        pass


def test_after_the_promote_the_new_model_asks_its_own_column(tmp_path: Path) -> None:
    recipe = made_table(tmp_path)
    bridge(recipe)
    column = built_space(recipe)
    with serving(recipe, bridge_from=NEW) as client:
        assert search(client, "bees", column="bridge").status_code == 200
        switch(recipe, column)
        answer = search(client, "bees", column="bridge").json()
        assert answer["hits"], answer
