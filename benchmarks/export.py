"""Exports at size: beside pyarrow's writer alone, in again bit by bit, and killed at 20 points.

    python -m benchmarks.export
    python -m benchmarks.export --only parquet

``parquet``: a million rows of 384 float32 and a text to Parquet, beside ``pq.ParquetWriter`` over
the same rows, which are read from the same table; turns alternate and medians are compared. An
export also takes the SHA-256 of what it writes. ``round_trip``: an export imported again, rows and
vectors compared. ``kills``: an export killed with SIGKILL at 20 points of its time, each time gone
on with, against the digests of one that was not. ``BENCH_ROWS`` makes all of them
smaller. Writes ``benchmarks/results/export-<case>.json``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.cases import Case, run_cases
from benchmarks.encode import resident_peak
from benchmarks.lake_cases.tables import DIM, recipe_for
from embedding_core.exports.spec import ExportSpec
from embedding_core.identity import space_id
from embedding_core.lake.rows.commit import replace_rows, write_fragments
from embedding_core.lake.scans import scan
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.embed.commit_stage import prepare
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.exchange.exporting import export
from embedding_core.runs.exchange.importing import ImportSpec, import_rows
from embedding_core.runs.job import Job
from tests.synthetic import Clusters, arrow_schema_of, rows

ROWS = int(os.environ.get("BENCH_ROWS", "1000000"))
ROWS_PER_FILE = 1_000
SHARD_ROWS = 100_000
TURNS = 5
KILLS = 20
TARGET_SHARE = 0.8
"""Of the rate of pyarrow's writer alone."""
KILLED = """
import sys
from embedding_core.exports.spec import ExportSpec
from embedding_core.recipe import Recipe
from embedding_core.runs.exchange.exporting import export

spec = ExportSpec(to="parquet", shard_rows=int(sys.argv[3]))
print("begins", flush=True)
export(Recipe.load(sys.argv[1]), spec, sys.argv[2], resume=True)
"""


def parquet(folder: Path) -> dict[str, Any]:
    """Turns of an export and of the writer alone; the export's memory."""
    recipe = _table(folder)
    spec = ExportSpec(to="parquet", shard_rows=SHARD_ROWS)
    peaks: list[int] = []

    def exported(target: Path) -> None:
        with resident_peak() as peak_bytes:
            export(recipe, spec, str(target))
        peaks.append(peak_bytes())

    ways: dict[str, Callable[[Path], None]] = {
        "export": exported,
        "pyarrow": lambda target: _pyarrow_alone(recipe, target),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            target = folder / name
            started = time.perf_counter()
            way(target)
            seconds[name].append(time.perf_counter() - started)
            shutil.rmtree(target)
    medians = {name: statistics.median(turns) for name, turns in seconds.items()}
    share = medians["pyarrow"] / medians["export"]
    return {
        "rows": ROWS,
        "dim": DIM,
        "seconds": {name: [round(turn, 2) for turn in turns] for name, turns in seconds.items()},
        "rows_per_second": {name: round(ROWS / median) for name, median in medians.items()},
        "share_of_pyarrow": round(share, 3),
        "is_enough": share >= TARGET_SHARE,
        "peak_bytes_beyond_the_loaded_process": peaks,
    }


def round_trip(folder: Path) -> dict[str, Any]:
    """An export in again: equal rows and vectors, bit by bit."""
    recipe = _table(folder)
    export(recipe, ExportSpec(to="parquet", shard_rows=SHARD_ROWS), str(folder / "out"))
    lake = recipe.lake.model_copy(update={"uri": str(folder / "copy")})
    copy = recipe.model_copy(update={"lake": lake})
    started = time.perf_counter()
    # The vectors are made up, so no model gives them again.
    report = import_rows(copy, Resources(), str(folder / "out"), ImportSpec(sample_rows=0))
    seconds = time.perf_counter() - started
    digests = {name: _rows_digest(each) for name, each in (("table", recipe), ("copy", copy))}
    if len(set(digests.values())) != 1:
        raise SystemExit(f"the imported rows are not those that were exported: {digests}")
    return {"rows": report.rows, "import_seconds": round(seconds, 1), "digests": digests}


def kills(folder: Path) -> dict[str, Any]:
    """An export killed at 20 points of the time that one takes, against one that was not."""
    # As the killed processes read it, so that all write the same recipe.yaml.
    recipe = Recipe.load(_table(folder).model_dump_json())
    shard_rows = max(1, ROWS // (2 * KILLS))
    spec = ExportSpec(to="parquet", shard_rows=shard_rows)
    started = time.perf_counter()
    whole = export(recipe, spec, str(folder / "whole")).manifest_sha256
    seconds = time.perf_counter() - started
    n_killed = 0
    for point in range(KILLS):
        out = folder / f"killed-{point}"
        program = [sys.executable, "-c", KILLED, recipe.model_dump_json(), str(out)]
        with subprocess.Popen([*program, str(shard_rows)], stdout=subprocess.PIPE) as process:
            if process.stdout is not None:
                process.stdout.readline()
            time.sleep(seconds * (point + 0.5) / KILLS)
            process.send_signal(signal.SIGKILL)
            n_killed += process.wait() == -signal.SIGKILL
        digest = export(recipe, spec, str(out), resume=True).manifest_sha256
        if digest != whole or _digest(out) != _digest(folder / "whole"):
            raise SystemExit(f"killed at point {point} the export has other bytes")
        shutil.rmtree(out)
    return {"points": KILLS, "killed": n_killed, "equal": True, "manifest_sha256": whole}


def _table(folder: Path) -> Recipe:
    """A table of made-up vectors and its recipe."""
    (folder / "src").mkdir()
    (folder / "src" / "a.jsonl").write_text("")
    recipe = recipe_for(folder)
    planned = plan(recipe)
    prepare(Job.of(planned, recipe, Resources(), "bench"), planned)
    table = table_of(recipe)
    n_files = max(1, ROWS // ROWS_PER_FILE)
    files = [(f"s3://bucket/{number:06}.jsonl", f"key-{number:06}") for number in range(n_files)]
    made = rows(recipe, files, ROWS_PER_FILE, Clusters.make(4_000, DIM))
    fragments = write_fragments(table, made, arrow_schema_of(recipe))
    replace_rows(table, "file_key", (), fragments, space_id(table.space()[1]))
    return recipe


def _pyarrow_alone(recipe: Recipe, target: Path) -> None:
    """The same rows in the same number of files by ``pq.ParquetWriter``, with its own settings."""
    target.mkdir()
    snapshot = table_of(recipe).open()
    writer, n_rows, number = None, 0, 0
    for batch in scan(snapshot, snapshot.schema.names):
        if writer is None or n_rows >= SHARD_ROWS:
            if writer is not None:
                writer.close()
            writer = pq.ParquetWriter(target / f"{number}.parquet", batch.schema)
            n_rows, number = 0, number + 1
        writer.write_batch(batch)
        n_rows += batch.num_rows
    if writer is not None:
        writer.close()


def _rows_digest(recipe: Recipe) -> str:
    """SHA-256 of every row in the table's order, vectors included."""
    content = hashlib.sha256()
    snapshot = table_of(recipe).open()
    for batch in scan(snapshot, snapshot.schema.names):
        numbers = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
        content.update(numbers.tobytes())
        others = [name for name in batch.schema.names if name != "vector"]
        for row in zip(*(batch.column(name).to_pylist() for name in others), strict=True):
            content.update(repr(row).encode())
    return content.hexdigest()


def _digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


CASES: dict[str, Case] = {"parquet": parquet, "round-trip": round_trip, "kills": kills}


if __name__ == "__main__":
    run_cases("export", CASES, ("pylance", "pyarrow", "numpy"), __doc__)
