"""What one commit costs in a table of many fragments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from benchmarks.lake_cases.tables import clusters, lake_on, percentiles, recipe_for, timed
from embedding_core.identity import text_hash
from embedding_core.lake.index.scalar import refresh_scalar_indexes
from embedding_core.lake.rows.commit import replace_rows, write_fragments
from embedding_core.lake.table import Table  # fmt: skip
from embedding_core.recipe import Recipe
from tests.s3 import s3_server
from tests.synthetic import arrow_schema_of, make_table, rows

FRAGMENTS = 10_000
ROWS_PER_FILE = 4
CALLS = 30


def ten_thousand_fragments(folder: Path) -> dict[str, Any]:
    """Append a file, and replace one, in a table of 10,000 fragments: on disk and on an S3 server.

    The commit alone: the rows are in the table's storage already, as they are when a unit comes.
    """
    local = _commits(recipe_for(folder))
    with s3_server(folder / "s3") as server:
        remote = _commits(recipe_for(folder, lake=lake_on(server)))
    return {"fragments": FRAGMENTS, "local": local, "s3_server": remote}


def _commits(recipe: Recipe) -> dict[str, Any]:
    table = make_table(recipe)
    old = [(f"/made-up/{number}", text_hash(str(number))) for number in range(FRAGMENTS)]
    replace_rows(table, "file_key", (), _one_fragment_each(recipe, table, old))
    indexing = timed(lambda: refresh_scalar_indexes(table))
    fresh = count()
    waiting = [_unit(recipe, table, next(fresh)) for _ in range(2 * (CALLS + 3))]
    bare = [_unit(recipe, table, next(fresh)) for _ in range(CALLS + 3)]
    appended = percentiles(lambda i: replace_rows(table, "file_key", (), waiting[i]), CALLS)
    bare_lance = percentiles(lambda i: _bare_append(table, bare[i]), CALLS)
    refresh_scalar_indexes(table)  # as every run does at its end
    replaced = percentiles(
        lambda i: replace_rows(table, "file_key", {old[i][1]}, waiting[CALLS + 3 + i]), CALLS
    )
    return {
        "append": appended,
        "replace": replaced,
        "bare_lance_append": bare_lance,
        "scalar_indexes_seconds": indexing,
    }


def _one_fragment_each(
    recipe: Recipe, table: Table, files: Sequence[tuple[str, str]]
) -> tuple[str, ...]:
    arrow_schema = arrow_schema_of(recipe)
    written = lance.fragment.write_fragments(
        pa.RecordBatchReader.from_batches(
            arrow_schema, rows(recipe, files, ROWS_PER_FILE, clusters())
        ),
        table.uri,
        schema=arrow_schema,
        mode="append",
        max_rows_per_file=ROWS_PER_FILE,
        max_rows_per_group=ROWS_PER_FILE,
        storage_options=table.lake.options,
    )
    assert len(written) == len(files), f"{len(written)} fragments of {len(files)} files"
    return tuple(json.dumps(fragment.to_json()) for fragment in written)


def _unit(recipe: Recipe, table: Table, number: int) -> tuple[str, ...]:
    file = (f"/new/{number}", text_hash(f"new {number}"))
    batches = rows(recipe, [file], ROWS_PER_FILE, clusters(), seed=number)
    return write_fragments(table, batches, arrow_schema_of(recipe))


def _bare_append(table: Table, fragments: Sequence[str]) -> None:
    added = [lance.FragmentMetadata.from_json(fragment) for fragment in fragments]
    dataset = table.dataset()
    lance.LanceDataset.commit(
        table.uri, lance.LanceOperation.Append(added), read_version=dataset.version,
        storage_options=table.lake.options,
    )  # fmt: skip
