"""Indexes: scalar ones for finding files, a vector index once exact search gets slow.

A vector index is measured against exact search on a sample of the table's own vectors, and how it
must be queried to reach the recall asked for is stored in the table, so every query uses it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import lance
import numpy as np
import pyarrow as pa

from embedding_core.errors import LakeError
from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake import schema
from embedding_core.lake.faults import store_faults
from embedding_core.lake.table import INDEX_KEY, Table
from embedding_core.recipe import IndexSpec

INDEX_TYPE = "IVF_SQ"
"""One byte per dimension, only partitions to train; refining makes up for the rounding."""
ROWS_PER_PARTITION = 4_096
REFINE_FACTOR = 4
"""Candidates re-ranked by their full vectors, per result: undoes the scalar quantisation."""
GROWTH_BEFORE_TUNING = 1.1
"""Rows added before the recall is measured again: it reads every vector once per query."""
SAMPLE_QUERIES = 100
TOP_K = 10
SEED = 0
SCALAR_INDEXES = {"file_key": "BITMAP", "source_uri": "BITMAP", "chunk_id": "BTREE"}


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The vector index as it now is."""

    name: str
    """``space_<first digits of the space_id>``: an index follows its column through renames."""
    rows_at_training: int
    """Rows the partitions were learned from."""
    rows_at_tuning: int
    """Rows when the recall was measured."""
    partitions: int
    nprobes: int
    """Partitions a query looks into, the fewest that reached the target."""
    refine_factor: int
    recall: float
    """Measured recall@10 against exact search with these settings."""


def unindexed_rows(dataset: lance.LanceDataset) -> dict[str, int]:
    """Rows each index of the table does not cover yet, by the index's name.

    Counted over the fragments no part of the index has seen: the statistics of a vector index
    read all its centroids, and its row count includes deleted rows.
    """
    covered = {
        index.name: {number for segment in index.segments for number in segment.fragment_ids}
        for index in dataset.describe_indices()
    }
    fragments = dataset.get_fragments()
    return {
        name: sum(one.count_rows() for one in fragments if one.fragment_id not in seen)
        for name, seen in covered.items()
    }


def refresh_scalar_indexes(table: Table) -> None:
    """Make the scalar indexes, or extend them by the rows they do not cover."""
    dataset = table.dataset()
    uncovered = unindexed_rows(dataset)
    with store_faults(f"indexing {table.uri}"):
        for column, kind in SCALAR_INDEXES.items():
            name = f"{column}_idx"
            if name not in uncovered:
                dataset.create_scalar_index(column, kind, name=name)
            elif uncovered[name]:
                dataset.optimize.optimize_indices(index_names=[name])
            dataset = table.dataset()


def refresh_vector_index(table: Table, spec: IndexSpec) -> IndexReport | None:
    """Build, extend or rebuild the vector index; None while the table is too small for one.

    It is rebuilt when the rows have doubled since it was trained, and its recall is measured again
    when they have grown by a tenth. Raises ``LakeError`` when no setting reaches the recall asked
    for.
    """
    dataset = table.dataset()
    n_rows = dataset.count_rows()
    if n_rows < spec.min_rows:
        return None
    name = f"space_{table.space()[0][:SHOWN_DIGITS]}"
    uncovered = unindexed_rows(dataset).get(name)
    known = _stored(table)
    with store_faults(f"indexing {table.uri}"):
        if known is None or uncovered is None or n_rows >= 2 * known.rows_at_training:
            return _build(table, name, n_rows, spec.target_recall)
        if uncovered:
            dataset.optimize.optimize_indices(index_names=[name])
        if n_rows < GROWTH_BEFORE_TUNING * known.rows_at_tuning and known.recall >= (
            spec.target_recall
        ):
            return known
        return _tune(table, replace(known, rows_at_tuning=n_rows), spec.target_recall)


def _build(table: Table, name: str, n_rows: int, target: float) -> IndexReport:
    partitions = max(1, math.ceil(n_rows / ROWS_PER_PARTITION))
    table.dataset().create_index(
        schema.VECTOR,
        INDEX_TYPE,
        name=name,
        metric="cosine",
        num_partitions=partitions,
        replace=True,
    )
    return _tune(table, IndexReport(name, n_rows, n_rows, partitions, 1, REFINE_FACTOR, 0), target)


def _stored(table: Table) -> IndexReport | None:
    settings = table.index_settings()
    return IndexReport(**settings) if settings else None


def _tune(table: Table, index: IndexReport, target: float) -> IndexReport:
    """Find the fewest partitions to look into that reach the target, doubling from one, and keep
    that in the table."""
    dataset = table.dataset()
    queries = _sample_vectors(dataset)
    exact = [_nearest(dataset, query, None) for query in queries]
    nprobes = 1
    while True:
        found = [_nearest(dataset, query, nprobes) for query in queries]
        recall = _recall(exact, found)
        if recall >= target:
            tuned = replace(index, nprobes=nprobes, recall=recall)
            dataset.update_metadata({INDEX_KEY: json.dumps(asdict(tuned))})
            return tuned
        if nprobes >= index.partitions:
            break
        nprobes = min(2 * nprobes, index.partitions)
    raise LakeError(
        f"the vector index reaches recall@{TOP_K} {recall:.3f} at most, below the recipe's "
        f"index.target_recall {target}; lower it, or raise index.min_rows to search exactly"
    )


def _recall(exact: Sequence[set[int]], found: Sequence[set[int]]) -> float:
    """Mean share of the exact neighbours that were found."""
    return float(np.mean([len(a & b) / len(a) for a, b in zip(exact, found, strict=True) if a]))


def _sample_vectors(dataset: lance.LanceDataset) -> list[np.ndarray]:
    n_rows = dataset.count_rows()
    rows = np.random.default_rng(SEED).choice(n_rows, min(SAMPLE_QUERIES, n_rows), replace=False)
    column = dataset.take(np.sort(rows).tolist(), columns=[schema.VECTOR]).column(schema.VECTOR)
    flat: pa.Array = column.combine_chunks().flatten()
    width = column.type.list_size
    vectors = flat.to_numpy(zero_copy_only=False).reshape(-1, width)  # (n_queries, dim)
    return list(vectors.astype(np.float32))


def _nearest(dataset: lance.LanceDataset, query: np.ndarray, nprobes: int | None) -> set[int]:
    """Row ids of the ``TOP_K`` nearest rows; exact when ``nprobes`` is None."""
    nearest: dict[str, object] = {
        "column": schema.VECTOR, "q": query, "k": TOP_K, "metric": "cosine",
    }  # fmt: skip
    nearest |= (
        {"use_index": False}
        if nprobes is None
        else {"nprobes": nprobes, "refine_factor": REFINE_FACTOR}
    )
    found = dataset.to_table(columns=["_distance"], nearest=nearest, with_row_id=True)
    return set(found.column("_rowid").to_pylist())
