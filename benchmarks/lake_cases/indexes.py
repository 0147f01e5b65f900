"""From how many rows an index pays, and one over a million rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.lake_cases.tables import DIM, clusters, peak_memory, percentiles, recipe_for
from embedding_core.encoder.engines import describe_model
from embedding_core.lake.index.scalar import refresh_scalar_indexes
from embedding_core.lake.index.vector import refresh_vector_index
from embedding_core.lake.query.search import Query
from embedding_core.lake.table import Lake, Table
from embedding_core.recipe import IndexKind, IndexSpec
from embedding_core.records import Space
from tests.s3 import s3_server
from tests.synthetic import add_files

SIZES = (10_000, 20_000, 50_000, 100_000, 200_000)
ROWS_PER_FILE = 1_000
N_KINDS = 100_000
KINDS: tuple[IndexKind, ...] = ("IVF_SQ", "IVF_RQ", "IVF_HNSW_SQ", "IVF_PQ")
N_MILLION = 1_000_000
QUERIES = 300
EXACT_QUERIES = 100
"""Held-out queries compared with exact search: each takes most of a second."""
HELD_OUT_SEED = 99


class Prepared:
    """An encoder that has the vectors already: ``words`` are their numbers."""

    def __init__(self, space: Space, vectors: npt.NDArray[np.float32]) -> None:
        self.space, self._vectors = space, vectors

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors of those numbers."""
        return self._vectors[[int(text) for text in texts]]


def pays(folder: Path) -> dict[str, Any]:
    """Warm search with and without an index at several sizes, and what building one takes."""
    figures: dict[str, Any] = {"dimensions": DIM, "sizes": []}
    recipe = recipe_for(folder)
    encoder = _queries(describe_model(recipe.model).space)
    n_rows = 0
    for size in SIZES:
        table = add_files(recipe, _uris(n_rows, size), ROWS_PER_FILE, clusters(), seed=n_rows)
        n_rows = size
        exact = percentiles(lambda i, t=table: _search(t, encoder, i, exact=True), 40)  # type: ignore[misc]
        started = time.perf_counter()
        index = refresh_vector_index(table, IndexSpec(min_rows=256))
        built = time.perf_counter() - started
        indexed = percentiles(lambda i, t=table: _search(t, encoder, i), 100)  # type: ignore[misc]
        assert index is not None
        figures["sizes"].append(
            {
                "rows": size, "exact": exact, "indexed": indexed, "recall": index.recall,
                "build_and_tune_seconds": round(built, 1),
            }
        )  # fmt: skip
    return figures


def kinds(folder: Path) -> dict[str, Any]:
    """The four kinds of index over the same rows, each tuned to the same recall."""
    recipe = recipe_for(folder)
    table = add_files(recipe, _uris(0, N_KINDS), ROWS_PER_FILE, clusters())
    encoder = _queries(describe_model(recipe.model).space)
    measured = []
    for kind in KINDS:
        started = time.perf_counter()
        index = refresh_vector_index(table, IndexSpec(kind=kind))
        seconds = time.perf_counter() - started
        assert index is not None
        described = {one.name: one for one in table.dataset().describe_indices()}
        measured.append(
            asdict(index)
            | {
                "build_and_tune_seconds": round(seconds, 1),
                "index_bytes": described[index.name].total_size_bytes,
                "search": percentiles(lambda i: _search(table, encoder, i), 100),
            }
        )
    return {"rows": N_KINDS, "dimensions": DIM, "kinds": measured}


def million(folder: Path) -> dict[str, Any]:
    """Build, tune and query an index over a million clustered vectors; held-out queries."""
    recipe = recipe_for(folder)
    table = add_files(recipe, _uris(0, N_MILLION), ROWS_PER_FILE, clusters())
    with peak_memory() as peak:
        index = refresh_vector_index(table, IndexSpec())
    refresh_scalar_indexes(table)
    assert index is not None
    encoder = _queries(describe_model(recipe.model).space)
    exact = [_search(table, encoder, i, exact=True) for i in range(EXACT_QUERIES)]
    found = [_search(table, encoder, i) for i in range(EXACT_QUERIES)]
    shares = [len(set(a) & set(b)) / len(a) for a, b in zip(exact, found, strict=True)]
    with s3_server(folder / "s3") as server:
        bucket = server.new_bucket()
        server.filesystem().put(recipe.lake.uri, f"{bucket}/lake", recursive=True)
        remote = Lake.open(f"s3://{bucket}/lake", server.storage).table(recipe.lake.table)
        search_s3 = percentiles(lambda i: _search(remote, encoder, i), QUERIES - 3)
    return {
        "rows": N_MILLION,
        "dimensions": DIM,
        "search_s3_server": search_s3,
        "build_and_tune_seconds": round(peak["seconds"], 1),
        "memory_before_mib": peak["before_mib"],
        "peak_memory_building_mib": peak["peak_mib"],
        "index": asdict(index),
        "recall_at_10_held_out": round(float(np.mean(shares)), 4),
        "held_out_queries": EXACT_QUERIES,
        "search": percentiles(lambda i: _search(table, encoder, i), QUERIES - 3),
        "search_exact": percentiles(lambda i: _search(table, encoder, i, exact=True), 10),
        "search_where": percentiles(
            lambda i: _search(table, encoder, i, where="chunk_index < 100"), QUERIES - 3
        ),
    }


def _uris(first_row: int, last_row: int) -> list[str]:
    return [f"/made-up/{row}.jsonl" for row in range(first_row, last_row, ROWS_PER_FILE)]


def _queries(space: Space) -> Prepared:
    return Prepared(space, clusters().draw(QUERIES, HELD_OUT_SEED))


def _search(
    table: Table, encoder: Prepared, number: int, exact: bool = False, where: str | None = None
) -> list[str]:
    vector = encoder.encode_queries([str(number % QUERIES)])
    (hits,) = table.search_vectors(vector, encoder.space, Query(where=where, exact=exact))
    return [hit.chunk_id for hit in hits]
