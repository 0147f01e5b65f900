"""Promote and rollback at a million rows, on disk and on an S3 server, with clients asking."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np

from benchmarks.lake_cases.tables import recipe_for
from embedding_core.encoder.engines import describe_model
from embedding_core.identity import space_id
from embedding_core.lake.spaces.filling import PlacedVectors, fill_fragment, fragment_rows
from embedding_core.lake.spaces.switching import promote, rollback
from embedding_core.lake.spaces.vector_columns import add_column, missing_rows
from embedding_core.lake.table import Table  # fmt: skip
from embedding_core.recipe import ModelSpec, Recipe
from tests.s3 import s3_server
from tests.synthetic import Clusters, add_files

ROWS, FRAGMENTS = 1_000_000, 100
OLD_DIM, NEW_DIM = 64, 32
NEW = ModelSpec(name="hashing", dim=NEW_DIM)
SWITCHES = 20
"""Each a promote and a rollback."""


def million_rows(folder: Path) -> dict[str, Any]:
    """Milliseconds and versions of each switch; what plain LanceDB clients saw meanwhile."""
    model = {"name": "hashing", "dim": OLD_DIM}
    local = _switched(recipe_for(folder, model=model))
    with s3_server(folder / "s3") as server:
        lake = {
            "uri": f"s3://{server.new_bucket()}/lake", "table": "docs",
            "storage": server.storage.model_dump(),
        }  # fmt: skip
        remote = _switched(recipe_for(folder, model=model, lake=lake))
    return {
        "rows": ROWS, "fragments": FRAGMENTS, "dimensions": [OLD_DIM, NEW_DIM],
        "local": local, "s3_server": remote,
    }  # fmt: skip


def _switched(recipe: Recipe) -> dict[str, Any]:
    table, column = _table_of_two_spaces(recipe)
    promote_ms: list[float] = []
    rollback_ms: list[float] = []
    first = int(table.dataset().version)
    for _ in range(SWITCHES):
        promote_ms.append(_milliseconds(lambda: promote(table, column, "benchmark")))
        rollback_ms.append(_milliseconds(lambda: rollback(table, "benchmark")))
    versions = int(table.dataset().version) - first
    quiet = {"promote": _median(promote_ms), "rollback": _median(rollback_ms)}
    answers, errors = _asked_meanwhile(table, column)
    return {
        "p50_ms": quiet,
        "most_ms": round(max(promote_ms + rollback_ms), 1),
        "versions_per_switch": versions / (2 * SWITCHES),
        "queries_meanwhile": {"answered_by": dict(answers), "errors": errors},
    }


def _table_of_two_spaces(recipe: Recipe) -> tuple[Table, str]:
    """A table of a million rows with a second space in every row."""
    clusters = Clusters.make(200, OLD_DIM)
    per_fragment = ROWS // FRAGMENTS
    for number in range(FRAGMENTS):
        table = add_files(recipe, [f"file{number}"], per_fragment, clusters, seed=number)
    space = describe_model(NEW).space
    column = add_column(table, space, NEW, "benchmark")
    others = Clusters.make(200, NEW_DIM)
    for fragment_id in missing_rows(table.dataset(), space_id(space)):
        places = np.concatenate([one for one, _ in fragment_rows(table, fragment_id, ["doc_id"])])
        made_up = PlacedVectors(places, others.draw(len(places), fragment_id))
        fill_fragment(table, space_id(space), fragment_id, [made_up])
    return table, column


def _asked_meanwhile(table: Table, column: str) -> tuple[Counter[str], list[str]]:
    """What a client that knows nothing of embedlake saw while the spaces were switched."""
    answers, errors, stop = Counter[str](), list[str](), threading.Event()
    names = {OLD_DIM: "old", NEW_DIM: "new"}

    def ask() -> None:
        client = lancedb.connect(table.lake.uri, storage_options=table.lake.options)
        while not stop.is_set():
            try:
                opened = client.open_table(table.name)
                dim = opened.schema.field("vector").type.list_size
                found = opened.search(np.ones(dim, "f4")).limit(5).to_arrow()
                assert found.num_rows == 5 and found.column("vector").null_count == 0
                assert found.schema.field("vector").type.list_size == dim
                answers[names[dim]] += 1
            except Exception as error:  # whatever it is, a client would have seen it
                errors.append(f"{type(error).__name__}: {error}")

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(SWITCHES):
        promote(table, column, "benchmark")
        time.sleep(0.2)
        rollback(table, "benchmark")
        time.sleep(0.2)
    stop.set()
    asking.join()
    return answers, errors


def _milliseconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1_000


def _median(taken: list[float]) -> float:
    return round(float(np.median(taken)), 1)
