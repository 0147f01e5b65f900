"""``embedlake search --bridge``: a model that is not in service asks the one that is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from embedding_core import Encoder
from embedding_core.identity import space_id
from embedding_core.lake.spaces.bridges import keep_bridge
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from tests.driver import recipe_for, run, write_jsonl
from tests.embedlake.conftest import Embedlake

TEXTS = {"cat": "the cat sleeps", "tax": "taxes rose again"}
SECTION = json.dumps({"name": "hashing", "dim": 16})


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A recipe over two embedded documents in 32 dimensions."""
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    recipe = recipe_for(tmp_path)
    assert run(recipe).outcome == "done"
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True)))
    return str(path)


def space_of(dim: int) -> str:
    return space_id(Encoder.load("hashing", dim=dim).space)


def test_search_bridge_asks_with_the_other_model(embedlake: Embedlake, recipe: str) -> None:
    """The kept matrix turns every query of the other model into the vector of a text."""
    target = Encoder.load("hashing", dim=32).encode_documents([TEXTS["tax"]])
    query = Encoder.load("hashing", dim=16).encode_queries(["the cat"])
    table = table_of(Recipe.load(recipe))
    keep_bridge(table, space_of(16), space_of(32), np.outer(query[0], target[0]))
    found = embedlake("search", recipe, "the cat", "--bridge", SECTION, "--json")
    assert found.code == 0
    first = found.json["hits"][0]
    assert first["doc_id"] == "tax" and first["score"] == pytest.approx(1, abs=1e-3)
    plain = embedlake("search", recipe, "the cat", "--json")
    assert plain.json["hits"][0]["doc_id"] == "cat"


def test_search_bridge_that_nobody_made_fails_and_says_what_makes_it(
    embedlake: Embedlake, recipe: str
) -> None:
    failed = embedlake("search", recipe, "the cat", "--bridge", SECTION)
    assert failed.code == 1 and "no bridge leads from space" in failed.err
    assert "embedlake reembed" in failed.err


@pytest.mark.parametrize("section", ["{", '{"nime": "hashing"}'])
def test_search_bridge_of_what_is_no_model_is_bad_usage(
    embedlake: Embedlake, recipe: str, section: str
) -> None:
    assert embedlake("search", recipe, "the cat", "--bridge", section).code == 2
