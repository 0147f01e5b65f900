"""The release gate: may a built column take the place of the one in service? Yes or no.

The evidence of ``judge`` over all rows of the table, at one version, and what only a table shows:
what its indexes miss and how long a search takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from embedding_core.errors import LakeError, Unfilled, UsageError
from embedding_core.lake import schema as columns
from embedding_core.lake.faults import store_faults
from embedding_core.lake.index.tuning import Sample
from embedding_core.lake.ownership.owner import check_recipe
from embedding_core.lake.query.search import Query
from embedding_core.lake.spaces.vector_columns import missing_rows
from embedding_core.lake.table import Table, table_of
from embedding_core.lake.vectors import to_numpy
from embedding_core.protocols import Vectors
from embedding_core.quality import Ann, OldNew, findings, verdict_of
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.serving import serving_model
from embedding_core.runs.space.judgement import GateReport, Side, judge, side_of

ROWS_PER_BATCH = 8_192
"""Rows searched at once: 12 MiB of float32 per space at 384 dimensions."""
TIMED_SEARCHES = 30
"""Searches of each space whose median is the latency; as many before them warm up."""


def gate(recipe: Recipe, resources: Resources, column: str) -> GateReport:
    """Judge a built column of the recipe's table against the one in service; changes nothing.

    Raises ``UsageError`` for the column in service and for labelled files that cannot be used,
    ``LakeError`` for a column that is not there or not of a space and for a table without rows,
    ``Unfilled`` for a column that is not in every row yet.
    """
    started = time.perf_counter()
    table = table_of(recipe).lake.table(recipe.lake.table)
    check_recipe(table, recipe)
    version = _checked_version(table, column)
    old, new = (
        side_of(one, table.space(one)[1], serving_model(recipe, table, one), resources)
        for one in (columns.VECTOR, column)
    )

    def corpus() -> Iterator[pa.RecordBatch]:
        with store_faults(f"reading {table.uri}"):
            yield from _rows_of(table, version, column)

    report = judge(recipe, corpus, old, new, version=version)
    with store_faults(f"searching {table.uri}"):
        ann = OldNew(_ann(table, version, old), _ann(table, version, new))
        latency = _latency(table, version, old, new)
    whole = replace(report, ann=ann, latency=latency)
    found = findings(whole, recipe.release, recipe.index.target_recall)
    seconds = time.perf_counter() - started
    return replace(whole, findings=found, verdict=verdict_of(found), seconds=seconds)


def _checked_version(table: Table, column: str) -> int:
    """The version that is judged: it has rows, and a vector of the column in each."""
    dataset = table.dataset()
    field = table.field(column, dataset.schema)
    if column == columns.VECTOR:
        raise UsageError(
            f"column {column!r} is the one in service, which the others are judged against; name "
            "one of those: `embedlake status` lists them"
        )
    identifier, _ = columns.space_of(field)
    n_rows = dataset.count_rows()
    if not n_rows:
        raise LakeError(
            f"table {table.name!r} in {table.lake.uri} has no rows to judge a space by; run "
            "`embedlake embed` first"
        )
    n_missing = sum(missing_rows(dataset, identifier).values())
    if n_missing:
        raise Unfilled(
            f"{n_missing:,} of {n_rows:,} rows of table {table.name!r} have no vector in {column}, "
            "so it cannot be judged yet; fill them with `embedlake reembed RECIPE` and the "
            "column's model, then try again"
        )
    return int(dataset.version)


def _rows_of(table: Table, version: int, column: str) -> Iterator[pa.RecordBatch]:
    dataset = table.dataset(version)
    names = {"chunk_id": "chunk_id", "doc_id": "doc_id", "text": "text"}
    names |= {columns.VECTOR: "old", column: "new"}
    if "title" in dataset.schema.names and dataset.schema.field("title").type == pa.string():
        names["title"] = "title"
    scanner = dataset.scanner(columns=list(names), batch_size=ROWS_PER_BATCH)
    for batch in scanner.to_batches():
        yield pa.RecordBatch.from_arrays(
            [batch.column(one) for one in names], names=list(names.values())
        )


def _ann(table: Table, version: int, side: Side) -> Ann:
    """The index's recall, measured anew on the column's own vectors."""
    settings = table.index_settings(side.judged.column)
    if not settings:
        return Ann(None, 1.0)
    sample = Sample(table.open(version), side.judged.column)
    found = sample.measure(settings["nprobes"], settings["refine_factor"])
    return Ann(settings["kind"], found.recall)


def _latency(table: Table, version: int, old: Side, new: Side) -> OldNew[float] | None:
    """Median milliseconds of a search for rows' own vectors, the two spaces by turns.

    None when none of the rows looked at has both vectors.
    """
    dataset = table.dataset(version)
    rows = np.linspace(0, dataset.count_rows() - 1, TIMED_SEARCHES).astype(int).tolist()
    found = dataset.take(rows, columns=[old.judged.column, new.judged.column]).combine_chunks()
    sides = [(one, to_numpy(found.column(one.judged.column).chunk(0))) for one in (old, new)]
    usable = np.flatnonzero(np.isfinite(np.hstack([queries for _, queries in sides])).all(axis=1))
    if not len(usable):
        return None
    taken: list[list[float]] = [[], []]
    for place in (*usable, *usable):  # once to warm up
        for (side, queries), milliseconds in zip(sides, taken, strict=True):
            milliseconds.append(_search_milliseconds(table, side, queries[place]))
    before, after = (float(np.median(one[len(usable) :])) for one in taken)
    return OldNew(before, after)


def _search_milliseconds(table: Table, side: Side, vector: Vectors) -> float:
    started = time.perf_counter()
    table.search_vectors(vector[None], side.space, Query(column=side.judged.column))
    return (time.perf_counter() - started) * 1_000
