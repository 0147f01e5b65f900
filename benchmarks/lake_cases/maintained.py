"""A thousand small commits with maintenance on; beside it a plain LanceDB script."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import Bitmap, BTree, IvfSq

from benchmarks.lake_cases.tables import clusters, lake_on, peak_memory, recipe_for, size_bytes
from embedding_core.identity import text_hash
from embedding_core.lake.index.scalar import refresh_scalar_indexes
from embedding_core.lake.index.vector import refresh_vector_index
from embedding_core.lake.rows.commit import replace_rows, write_fragments
from embedding_core.lake.table import Table, table_of
from embedding_core.lake.upkeep.compaction import (  # fmt: skip
    maintain_table,
    small_fragments,
    state_of,
)
from embedding_core.recipe import Recipe
from embedding_core.store import storage
from tests.s3 import s3_server
from tests.synthetic import add_files, arrow_schema_of, make_table, rows

MANY_ROWS, MANY_FRAGMENTS = 1_000_000, 200
COMMITS = 1_000
ROWS_PER_FILE = 100
REPLACED_SHARE = 0.3
"""Of the commits, the share that replaces an old file; the others add one."""
KEEP = timedelta(seconds=10)
"""Stands for a week: the thousand commits take minutes, not months."""
MIN_ROWS = 20_000
"""An index from a fifth of the way on."""


@dataclass(slots=True)
class _Course:
    """What was seen on the way."""

    added_ms: list[float] = field(default_factory=list)
    """Rows of a new file written and committed."""
    replaced_ms: list[float] = field(default_factory=list)
    """Likewise of a changed one, with its old rows gone."""
    index_ms: list[float] = field(default_factory=list)
    """Indexes brought up to date after a commit; LanceDB leaves that to ``optimize``."""
    maintenance_seconds: list[float] = field(default_factory=list)
    fragments: int = 0
    versions: int = 0

    def figures(self) -> dict[str, Any]:
        return {
            "add": _spread(self.added_ms),
            "replace": _spread(self.replaced_ms),
            "commits_seconds": round(sum(self.added_ms + self.replaced_ms) / 1_000, 1),
            "index_p50_ms": round(float(np.median(self.index_ms or [0])), 1),
            "index_seconds": round(sum(self.index_ms) / 1_000, 1),
            "maintenances": len(self.maintenance_seconds),
            "maintenance_seconds": round(sum(self.maintenance_seconds), 1),
            "most_fragments": self.fragments,
            "most_versions": self.versions,
        }


def thousand_commits(folder: Path) -> dict[str, Any]:
    """Commits of 100 rows, indexes kept fresh, maintained when 64 small fragments have come."""
    recipe = recipe_for(folder)
    figures: dict[str, Any] = {"commits": COMMITS, "embedlake": _ours(recipe)}
    with s3_server(folder / "s3") as server:
        figures["embedlake_s3_server"] = _ours(recipe_for(folder, lake=lake_on(server)))
    figures["lancedb_script"] = _peer(recipe, folder / "peer")
    fresh = _fresh(recipe_for(folder, lake=_lake_at(folder / "fresh")), table_of(recipe))
    for one in figures.values():
        if isinstance(one, dict):
            one["size_to_fresh_load"] = round(one["size_bytes"] / fresh, 3)
    return figures | {"fresh_load_bytes": fresh}


def compaction(folder: Path) -> dict[str, Any]:
    """One maintenance of a million indexed rows in 200 fragments: its time and memory."""
    recipe, per_fragment = recipe_for(folder), MANY_ROWS // MANY_FRAGMENTS
    for number in range(MANY_FRAGMENTS):
        uris = [f"/made-up/{number}-{part}.jsonl" for part in range(per_fragment // ROWS_PER_FILE)]
        table = add_files(recipe, uris, ROWS_PER_FILE, CLUSTERS, seed=number)

    def refresh() -> None:
        refresh_scalar_indexes(table, merge=True)
        refresh_vector_index(table, recipe.index, merge=True)

    refresh()
    with peak_memory() as peak:
        report = maintain_table(table, KEEP, refresh)
    assert report.problems == ()
    return {
        "rows": report.after.rows,
        "table_bytes": report.before.size_bytes,
        "fragments_before": report.before.fragments,
        "fragments_after": report.after.fragments,
        "seconds": round(peak["seconds"], 1),
        "memory_before_mib": peak["before_mib"],
        "peak_memory_maintaining_mib": peak["peak_mib"],
    }


def _changes() -> Iterator[tuple[str, int]]:
    """(file, its version) to write, commit by commit; the same for everyone."""
    chance, versions = np.random.default_rng(0), dict[str, int]()
    for number in range(COMMITS):
        replace = bool(versions) and chance.random() < REPLACED_SHARE
        name = str(chance.choice(sorted(versions))) if replace else f"/made-up/{number:04}.jsonl"
        versions[name] = versions.get(name, -1) + 1
        yield name, versions[name]


def _batches(recipe: Recipe, name: str, version: int) -> Iterator[pa.RecordBatch]:
    key = text_hash(f"{name} {version}")
    return rows(recipe, [(name, key)], ROWS_PER_FILE, CLUSTERS, seed=hash_of(name, version))


CLUSTERS = clusters()


def hash_of(name: str, version: int) -> int:
    """A number for a file version, the same in every process."""
    return int(text_hash(f"{name} {version}")[:6], 16)


def _ours(recipe: Recipe) -> dict[str, Any]:
    table, course = make_table(recipe), _Course()
    spec = recipe.index.model_copy(update={"min_rows": MIN_ROWS})

    def refresh(merge: bool = False) -> None:
        refresh_scalar_indexes(table, merge=merge)
        refresh_vector_index(table, spec, merge)

    for name, version in _changes():
        started = time.perf_counter()
        fragments = write_fragments(table, _batches(recipe, name, version), arrow_schema_of(recipe))
        old = {text_hash(f"{name} {version - 1}")} if version else set()
        replace_rows(table, "file_key", old, fragments)
        committed = time.perf_counter()
        refresh()
        taken = course.replaced_ms if version else course.added_ms
        taken.append((committed - started) * 1_000)
        course.index_ms.append((time.perf_counter() - committed) * 1_000)
        course.fragments = max(course.fragments, len(table.dataset().get_fragments()))
        course.versions = max(course.versions, _versions(recipe))
        if small_fragments(table.open()) > recipe.maintain.small_fragments:
            started = time.perf_counter()
            report = maintain_table(table, KEEP, lambda: refresh(merge=True))
            course.maintenance_seconds.append(time.perf_counter() - started)
            assert report.problems == ()
    maintain_table(table, KEEP, lambda: refresh(merge=True))
    time.sleep(KEEP.total_seconds())
    maintain_table(table, KEEP, lambda: refresh(merge=True))
    state = state_of(table)
    return course.figures() | {
        "rows": state.rows, "fragments": state.fragments, "versions": state.versions,
        "size_bytes": state.size_bytes, "indexed_share": state.indexed_share,
    }  # fmt: skip


def _fresh(recipe: Recipe, of: Table) -> int:
    """Bytes of a table that was loaded with the same rows at once and has the same indexes."""
    table = make_table(recipe)
    loaded = of.dataset().scanner().to_batches()
    arrow_schema = arrow_schema_of(recipe)
    batches = (batch.cast(arrow_schema) for batch in loaded)
    replace_rows(table, "file_key", (), write_fragments(table, batches, arrow_schema))
    refresh_scalar_indexes(table)
    refresh_vector_index(table, recipe.index.model_copy(update={"min_rows": MIN_ROWS}))
    return state_of(table).size_bytes


def _peer(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """``add`` for a new file, ``merge_insert`` for a changed one, ``optimize`` now and then."""
    course = _Course()
    table = lancedb.connect(folder).create_table("docs", schema=arrow_schema_of(recipe))
    lake, since = recipe_for(folder, lake=_lake_at(folder)), 0
    for number, (name, version) in enumerate(_changes()):
        new = pa.Table.from_batches(_batches(recipe, name, version))
        started = time.perf_counter()
        if version:
            (
                table.merge_insert("chunk_id")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .when_not_matched_by_source_delete(f"source_uri = '{name}'")
                .execute(new)
            )
        else:
            table.add(new)
        taken = course.replaced_ms if version else course.added_ms
        taken.append((time.perf_counter() - started) * 1_000)
        if number == MIN_ROWS // ROWS_PER_FILE:
            for column, config in (
                ("file_key", Bitmap()), ("source_uri", Bitmap()), ("chunk_id", BTree()),
                ("vector", IvfSq(distance_type="cosine")),
            ):  # fmt: skip
                table.create_index(column, config=config)
        since += 1
        course.fragments = max(course.fragments, table.stats()["fragment_stats"]["num_fragments"])
        course.versions = max(course.versions, _versions(lake))
        if since > recipe.maintain.small_fragments:
            started, since = time.perf_counter(), 0
            table.optimize(cleanup_older_than=KEEP)
            course.maintenance_seconds.append(time.perf_counter() - started)
    table.optimize(cleanup_older_than=KEEP)
    time.sleep(KEEP.total_seconds())
    table.optimize(cleanup_older_than=KEEP)
    return course.figures() | {
        "rows": table.count_rows(),
        "fragments": table.stats()["fragment_stats"]["num_fragments"],
        "versions": _versions(lake),
        "size_bytes": size_bytes(lake),
    }


def _spread(taken_ms: list[float]) -> dict[str, float]:
    return {
        "p50_ms": round(float(np.median(taken_ms)), 1),
        "p95_ms": round(float(np.percentile(taken_ms, 95)), 1),
    }


def _versions(recipe: Recipe) -> int:
    uri = f"{recipe.lake.uri}/docs.lance/_versions"
    listed = storage.filesystem(uri, recipe.lake.storage).ls(uri, detail=False)
    return sum(name.endswith(".manifest") for name in listed)


def _lake_at(folder: Path) -> dict[str, str]:
    return {"uri": str(folder), "table": "docs"}
