"""The release gate: may a built column take the place of the one in service? Yes or no.

The evidence of ``judge`` over all rows of the table, at one version, and what only a table shows:
what its indexes miss and how long a search takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from embedding_core.errors import LakeError, UsageError
from embedding_core.lake import Table, check_recipe, missing_rows, model_of, table_of
from embedding_core.lake import schema as columns
from embedding_core.lake.tuning import Sample
from embedding_core.pipeline.judge import GateReport, Side, Vectors, judge, side_of, vectors_in
from embedding_core.quality import Ann, OldNew, findings, verdict_of
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Space

ROWS_PER_BATCH = 8_192
"""Rows searched at once: 12 MiB of float32 per space at 384 dimensions."""
TIMED_SEARCHES = 30
"""Searches whose median is the latency; as many before them warm up."""


def gate(recipe: Recipe, resources: Resources, column: str) -> GateReport:
    """Judge a built column of the recipe's table against the one in service; changes nothing.

    Raises ``UsageError`` for the column in service and for labelled files that cannot be used,
    ``LakeError`` for a column that is not there, not of a space, or not in every row yet, and for a
    table without rows.
    """
    started = time.perf_counter()
    table = table_of(recipe).lake.table(recipe.lake.table)
    check_recipe(table, recipe)
    version = _checked_version(table, column)
    dataset = table.dataset(version)
    old, new = (
        side_of(
            one, columns.space_of(dataset.schema.field(one))[1], model_of(dataset, one), resources
        )
        for one in (columns.VECTOR, column)
    )

    def corpus() -> Iterator[pa.RecordBatch]:
        return _rows_of(table, version, column)

    report = judge(recipe, corpus, old, new, version=version)
    whole = replace(
        report,
        ann=OldNew(_ann(table, version, old), _ann(table, version, new)),
        latency=_latency(table, version, old, new),
    )
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
        raise LakeError(
            f"{n_missing:,} of {n_rows:,} rows of table {table.name!r} have no vector in {column}, "
            "so it cannot be judged yet; fill them (embedding_core.pipeline.build_space with the "
            "column's model does), then try again"
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
    sample = Sample(table.dataset(version), side.judged.column)
    found = sample.measure(settings["nprobes"], settings["refine_factor"])
    return Ann(settings["kind"], found.recall)


@dataclass(slots=True)
class _Ready:
    """A query that is a vector already, for the table's own search."""

    space: Space
    vector: Vectors

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """(1, dim): the vector, whatever the words."""
        return self.vector[None]


def _latency(table: Table, version: int, old: Side, new: Side) -> OldNew[float]:
    """Median milliseconds of a search for a row's own vector, the two spaces by turns."""
    dataset = table.dataset(version)
    some = np.resize(np.arange(dataset.count_rows()), TIMED_SEARCHES).tolist()
    names = [old.judged.column, new.judged.column]
    rows = dataset.take(some, columns=names).combine_chunks()
    milliseconds: list[list[float]] = [[], []]
    for _warming_up in (True, False):
        milliseconds = [[], []]
        for place in range(TIMED_SEARCHES):
            for side, taken in zip((old, new), milliseconds, strict=True):
                vectors = vectors_in(rows.column(side.judged.column).chunk(0))
                taken.append(_search_milliseconds(table, side, vectors[place]))
    before, after = (float(np.median(one)) for one in milliseconds)
    return OldNew(before, after)


def _search_milliseconds(table: Table, side: Side, vector: Vectors) -> float:
    started = time.perf_counter()
    table.search("", _Ready(side.space, vector), column=side.judged.column)
    return (time.perf_counter() - started) * 1_000
