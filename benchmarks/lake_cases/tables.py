"""Tables at size for the cases, and how the cases measure."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from embedding_core.lake import ledger
from embedding_core.lake.rows.commit import replace_rows, write_fragments
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import FileCounts, PlannedFile, StageSeconds
from embedding_core.runs.embed.commit_stage import prepare
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.job import Job
from embedding_core.store import storage
from tests.s3 import S3Server
from tests.synthetic import Clusters, arrow_schema_of, rows

DIM = 384
CLUSTERS = 4_000
FILES_PER_FRAGMENT_GROUP = 100


def recipe_for(folder: Path, **changes: Any) -> Recipe:
    """A recipe with the hashing encoder at 384 dimensions over ``folder``/src."""
    return Recipe.load(
        {
            "name": "bench",
            "source": {"uri": str(folder / "src"), "id": "id"},
            "chunk": {"strategy": "none"},
            "model": {"name": "hashing", "dim": DIM},
            "lake": {"uri": str(folder / "lake"), "table": "docs"},
        }
        | changes
    )


def lake_on(server: S3Server) -> dict[str, Any]:
    """The lake section of a recipe, in a new bucket of the server."""
    uri = f"s3://{server.new_bucket()}/lake"
    return {"uri": uri, "table": "docs", "storage": server.storage.model_dump()}


def clusters() -> Clusters:
    """The mixture all vectors come from."""
    return Clusters.make(CLUSTERS, DIM)


def write_file(folder: Path, name: str, n_documents: int, word: str = "") -> Path:
    """A JSONL file of short documents."""
    path = folder / "src" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        json.dumps({"id": str(number), "text": f"{name} document {number} {word}"})
        for number in range(n_documents)
    )
    path.write_text("\n".join(lines) + "\n")
    return path


def table_of_files(recipe: Recipe, rows_per_file: int) -> Table:
    """The table a first load of the source would make, with made-up vectors instead of a model's.

    File keys and the ledger are the real ones, so that plans and later runs find every file
    unchanged.
    """
    planned = plan(recipe)
    job = Job.of(planned, recipe, Resources(), "benchmark")
    prepare(job, planned)
    table, made_up = table_of(recipe), clusters()
    for start in range(0, len(planned.files), FILES_PER_FRAGMENT_GROUP):
        some = planned.files[start : start + FILES_PER_FRAGMENT_GROUP]
        files = [(one.file.uri, one.file_key) for one in some]
        batches = rows(recipe, files, rows_per_file, made_up, seed=start)
        replace_rows(
            table, "file_key", (), write_fragments(table, batches, arrow_schema_of(recipe))
        )
    ledger.record_entries(table, [_entry(job, one, rows_per_file) for one in planned.files])
    return table


def _entry(job: Job, one: PlannedFile, n_rows: int) -> ledger.LedgerEntry:
    counts = FileCounts(one.file_key, one.file.uri, 1, 0, n_rows, 0, 5 * n_rows, embedded=n_rows)
    stages = StageSeconds(chunk=0.2, forward=0.8)
    return ledger.LedgerEntry(
        counts, one.file.fingerprint, job.rows_id, job.space_id, stages, job.run_id
    )


def percentiles(action: Callable[[int], object], times: int) -> dict[str, float]:
    """Milliseconds of ``action`` (given its number), the first three calls not counted."""
    taken = []
    for number in range(times + 3):
        started = time.perf_counter()
        action(number)
        taken.append((time.perf_counter() - started) * 1_000)
    return {
        "p50_ms": round(float(np.median(taken[3:])), 2),
        "p95_ms": round(float(np.percentile(taken[3:], 95)), 2),
    }


def stored(recipe: Recipe) -> dict[str, tuple[int, object]]:
    """Path below the lake -> the file's size in bytes, and when it was written."""
    files = storage.filesystem(recipe.lake.uri, recipe.lake.storage)
    root = recipe.lake.uri.removeprefix("s3://")
    found = files.find(root, detail=True).items()
    return {
        path.removeprefix(f"{root}/"): (one["size"], one.get("mtime") or one["LastModified"])
        for path, one in found
    }


def size_bytes(recipe: Recipe) -> int:
    """Bytes of all files below the lake."""
    return sum(size for size, _ in stored(recipe).values())


def timed(action: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    action()
    return round(time.perf_counter() - started, 3)


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Resident memory before the block, the most seen in it (looked at every 20 ms), its time."""
    process, done = psutil.Process(), threading.Event()
    before = round(process.memory_info().rss / 2**20)
    seen: dict[str, float] = {"before_mib": before, "peak_mib": before, "seconds": 0.0}

    def watch() -> None:
        while not done.wait(0.02):
            seen["peak_mib"] = max(seen["peak_mib"], round(process.memory_info().rss / 2**20))

    watcher, started = threading.Thread(target=watch, daemon=True), time.perf_counter()
    watcher.start()
    try:
        yield seen
    finally:
        seen["seconds"] = time.perf_counter() - started
        done.set()
        watcher.join()
