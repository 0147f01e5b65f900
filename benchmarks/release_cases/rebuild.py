"""What a re-embed writes: the new vectors and little else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.lake_cases.tables import recipe_for, size_bytes, write_file
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.runs.space.build import build_space
from tests import driver

N_FILES, DOCUMENTS_PER_FILE = 100, 1_000
NEW = ModelSpec(name="hashing", dim=256)


def bytes_written(folder: Path) -> dict[str, Any]:
    """100,000 rows of short texts; the build's own files beside the bytes of the vectors alone."""
    recipe = recipe_for(folder)
    for number in range(N_FILES):
        write_file(folder, f"file{number}.jsonl", DOCUMENTS_PER_FILE)
    driver.run(recipe)
    before, texts = size_bytes(recipe), _texts(table_of(recipe).uri)
    report = build_space(recipe, NEW, Resources(), "benchmark")
    written = size_bytes(recipe) - before
    vectors = report.rows * NEW.dim * 4 if NEW.dim else 0
    assert _texts(table_of(recipe).uri) == texts, "a data file of the rows was changed"
    return {
        "rows": report.rows,
        "fragments": report.fragments,
        "bytes_of_the_vectors": vectors,
        "bytes_written": written,
        "ratio": round(written / vectors, 4),
        "seconds": round(report.seconds, 1),
    }


def _texts(table: str) -> dict[str, int]:
    """Data files with rows' own columns, and when they were written."""
    files = Path(table, "data").glob("*.lance")
    return {one.name: one.stat().st_mtime_ns for one in files if not one.name.startswith("full-")}
