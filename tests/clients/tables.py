"""Tables that clients are tested on: three documents, a second space, and tables that cannot be
searched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lancedb

from embedding_core.lake.embedding_function import METADATA_KEY
from embedding_core.lake.table import Lake, Table, table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.space.build import build_space
from tests.driver import recipe_for, run, write_jsonl

RECORDS = [
    {"id": "1", "text": "apples and pears", "year": 2001, "tag": "it's"},
    {"id": "2", "text": "apples and plums", "year": 2020, "tag": "plain"},
    {"id": "3", "text": "rockets to the moon", "year": None, "tag": None},
]
OTHER = ModelSpec(name="hashing", dim=64)


def fruit(folder: Path) -> Recipe:
    """The recipe of a table with three documents, with a full-text index."""
    write_jsonl(folder, "a.jsonl", RECORDS)
    columns = {"year": "int", "tag": "string"}
    recipe = recipe_for(folder, source={"metadata": columns}, index={"full_text": True})
    assert run(recipe).outcome == "done"
    return recipe


def stage(recipe: Recipe, model: ModelSpec = OTHER) -> str:
    """Build the vectors of another model; their column."""
    return build_space(recipe, model, Resources(), "run").column


def of_somebody_else(folder: Path) -> Table:
    """A LanceDB table that embedlake did not make."""
    lake = lancedb.connect(folder / "theirs")
    lake.create_table("theirs", [{"vector": [1.0, 0.0], "text": "apples"}])
    return Lake.open(str(folder / "theirs")).table("theirs")


def without_space_in_service(folder: Path) -> Table:
    """A table whose column in service was dropped by hand: one space is staged, none serves."""
    recipe = fruit(folder)
    stage(recipe)
    table_of(recipe).dataset().drop_columns(["vector"])
    return table_of(recipe)


def whose_model_is_gone(folder: Path, checkpoint: Path) -> Table:
    """A table made by a checkpoint whose folder is no longer there."""
    shutil.copytree(checkpoint, folder / "model")
    write_jsonl(folder, "a.jsonl", {"1": "apples"})
    recipe = recipe_for(folder, model={"name": str(folder / "model"), "dim": None})
    assert run(recipe).outcome == "done"
    shutil.rmtree(folder / "model")
    return table_of(recipe)


def space_named_by(table: Table) -> str:
    """The ``space_id`` that the table's metadata name for LanceDB."""
    (entry,) = json.loads(table.dataset().schema.metadata[METADATA_KEY])
    identifier: str = entry["model"]["space_id"]
    return identifier
