"""New files come in while a table is embedded anew: every row ends with the new vector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.release_cases.running import answer, embedlake, prefect_api, started
from embedding_core.encoder import Encoder
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from tests.e2e.recipes import write_recipe

N_FILES, DOCUMENTS_PER_FILE = 100, 400
NEW = {"name": "hashing", "dim": 256}
UNMERGED = {"small_fragments": 1_000}
"""A fragment for each file: runs would merge them."""


FORCED = ("--promote", "force")
"""The texts are made up: what the gate makes of them is another matter."""


def ingest_during_a_build(folder: Path) -> dict[str, Any]:
    """``embedlake embed`` again and again, a new file each time, until ``reembed`` has promoted."""
    path = write_recipe(folder, model={"name": "hashing", "dim": 128}, maintain=UNMERGED)
    for number in range(N_FILES):
        write_texts(folder, f"first{number}", DOCUMENTS_PER_FILE)
    recipe = Recipe.load(path)
    with prefect_api(folder / "home") as environment:
        embedlake(environment, "embed", str(path), "--set", "unit_bytes=1")
        building = started(environment, "reembed", str(path), "--model", json.dumps(NEW), *FORCED)
        came = 0
        while building.poll() is None:
            write_texts(folder, f"later{came}", 10)
            code, report = embedlake(environment, "embed", str(path))
            came += code == 0 and report["added"] > 0
        code, report = answer(building)
    space = report["space"]
    return {
        "rows_before": N_FILES * DOCUMENTS_PER_FILE,
        "runs_meanwhile": came,
        "rows_after": table_of(recipe).dataset().count_rows(),
        "outcome": report["outcome"],
        "exit_code": code,
        "texts_embedded": space["encoded"],
        "embedded_twice": space["encoded"] - space["rows"],
        "rows_without_the_new_vector": rows_not_of(recipe, NEW),
    }


def write_texts(folder: Path, name: str, n_documents: int) -> None:
    """A file of documents that no other has."""
    target = folder / "src" / f"{name}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    texts = {
        f"{name}-{n}": f"{name} tells of thing {n} and of {n * 7919 % 1009}"
        for n in range(n_documents)
    }
    lines = [json.dumps({"id": key, "text": text}) for key, text in texts.items()]
    target.write_text("\n".join(lines) + "\n")


def rows_not_of(recipe: Recipe, model: dict[str, Any]) -> int:
    """Rows whose vector in service is not what a model makes of their text."""
    found = table_of(recipe).dataset().to_table(columns=["text", "vector"])
    own = Encoder.load(model["name"], dim=model["dim"]).encode_documents(found["text"].to_pylist())
    stored = np.array(found["vector"].to_pylist(), np.float32)
    if stored.shape != own.shape:
        return len(own)
    return int((~np.isclose(own, stored, atol=1e-3).all(axis=1)).sum())
