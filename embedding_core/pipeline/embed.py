"""One staged unit to uncommitted Lance fragments: each distinct text through the encoder once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.encoder import FAILURES, Encoder, TextsWithoutVector
from embedding_core.identity import text_hash
from embedding_core.lake import Table, schema, staging, table_of, write_fragments
from embedding_core.pipeline.chunk import chunk_unit
from embedding_core.pipeline.job import Job, load_planned
from embedding_core.records import EmbeddedUnit, FileCounts, Reject, StagedUnit

ROWS_PER_BLOCK = 4_096
"""Rows encoded together: enough to sort by length well, some 20 MB of text and vectors."""


def embed_unit(job: Job, staged: StagedUnit) -> EmbeddedUnit:
    """Encode the staged rows and write them into the table's storage, not yet into the table.

    Memory is bounded by a block of rows. A staged file that is gone is made again. Raises
    ``ModelError`` when the model cannot run here or is not the planned one, ``Transient`` when the
    store fails.
    """
    started = time.perf_counter()
    table = table_of(job.recipe)
    if not staging.is_staged(table, staged.path):
        staged = chunk_unit(job, staged.unit)
    encoder = load_planned(job)
    work = _UnitWork(table, staged, encoder)
    arrow_schema = schema.row_schema(job.recipe).append(schema.vector_field(encoder.space))
    fragments = write_fragments(table, _batches(work, arrow_schema), arrow_schema)
    return EmbeddedUnit(
        unit=staged.unit,
        fragments=fragments,
        counts=tuple(_with_vectors(one, work) for one in staged.counts),
        rejects=(*staged.rejects, *work.rejects),
        rejected_keys=staged.rejected_keys,
        recomputed=work.recomputed,
        seconds=staged.seconds + time.perf_counter() - started,
    )


@dataclass(slots=True)
class _UnitWork:
    table: Table
    staged: StagedUnit
    encoder: Encoder
    embedded: Counter[str] = field(default_factory=Counter)
    """Rows whose vector was computed, by file key; likewise below."""
    reused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a text has no vector, by text hash."""
    recomputed: int = 0


def _with_vectors(counts: FileCounts, work: _UnitWork) -> FileCounts:
    key = counts.file_key
    return replace(
        counts,
        embedded=work.embedded[key],
        reused=work.reused[key],
        failed=work.failed[key],
    )


def _batches(work: _UnitWork, arrow_schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The unit's rows with their vectors, in staged order."""
    shared = _SharedVectors(_repeated_hashes(work))
    for rows in _blocks(_usable_rows(work)):
        vectors = _vectors(work, rows, shared)  # (n_rows, dim) float32; NaN where there is none
        good = pa.array(np.isfinite(vectors).all(axis=1))
        column = _vector_column(vectors, arrow_schema.field(schema.VECTOR).type)
        yield from (
            rows.append_column(schema.VECTOR, column).filter(good).cast(arrow_schema).to_batches()
        )


def _usable_rows(work: _UnitWork) -> Iterator[pa.RecordBatch]:
    """Staged rows, less those of files that were rejected after some rows had been staged."""
    rejected = pa.array(work.staged.rejected_keys, pa.string())
    for batch in staging.read_staged(work.table, work.staged.path):
        yield batch.filter(pc.invert(pc.is_in(batch.column("file_key"), value_set=rejected)))


def _repeated_hashes(work: _UnitWork) -> frozenset[str]:
    """Texts that stand more than once in the unit: only their vectors are worth keeping."""
    seen: set[str] = set()
    repeated: set[str] = set()
    for batch in _usable_rows(work):
        for hashed in batch.column("text_hash").to_pylist():
            (repeated if hashed in seen else seen).add(hashed)
    return frozenset(repeated)


def _blocks(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            pending.append(batch)
        if sum(one.num_rows for one in pending) >= ROWS_PER_BLOCK:
            yield pa.Table.from_batches(pending).combine_chunks()
            pending = []
    if pending:
        yield pa.Table.from_batches(pending).combine_chunks()


@dataclass(slots=True)
class _SharedVectors:
    repeated: frozenset[str]
    known: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """(dim,) vectors of repeated texts met so far, by text hash."""


def _vectors(work: _UnitWork, rows: pa.Table, shared: _SharedVectors) -> npt.NDArray[np.float32]:
    """(n_rows, dim): each text of the block that has no vector yet is encoded once."""
    hashes = rows.column("text_hash").to_pylist()
    first = {h: index for index, h in reversed(list(enumerate(hashes))) if h not in shared.known}
    chosen = sorted(first.values())
    texts = rows.column("text").take(pa.array(chosen, pa.int64())).to_pylist()
    computed = dict(zip((hashes[i] for i in chosen), _encode(work, texts), strict=True))
    shared.known.update({h: v for h, v in computed.items() if h in shared.repeated})
    vectors = np.empty((len(hashes), work.encoder.space.dim), np.float32)
    for index, hashed in enumerate(hashes):
        vectors[index] = computed[hashed] if hashed in computed else shared.known[hashed]
    _count(work, rows, vectors, set(chosen))
    return vectors


def _encode(work: _UnitWork, texts: list[str]) -> npt.NDArray[np.float32]:
    """(n_texts, dim) float32, unit norm; a text without a vector gives a row of NaN."""
    vectors = np.full((len(texts), work.encoder.space.dim), np.nan, np.float32)
    usable = list(range(len(texts)))
    try:
        encoded = work.encoder.encode(texts)
    except TextsWithoutVector as error:
        work.reasons |= {text_hash(texts[index]): why for index, why in error.reasons.items()}
        usable = sorted(set(usable) - set(error.indices))
        encoded = work.encoder.encode([texts[index] for index in usable])
    vectors[usable] = encoded.vectors
    work.recomputed += encoded.n_recomputed
    return vectors


def _count(
    work: _UnitWork, rows: pa.Table, vectors: npt.NDArray[np.float32], computed: set[int]
) -> None:
    missing = set(np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist())
    for index, key in enumerate(rows.column("file_key").to_pylist()):
        if index in missing:
            work.failed[key] += 1
            work.rejects.append(_no_vector(work, rows, index))
        elif index in computed:
            work.embedded[key] += 1
        else:
            work.reused[key] += 1


def _no_vector(work: _UnitWork, rows: pa.Table, index: int) -> Reject:
    columns = ["source_uri", "doc_id", "chunk_index", "text_hash"]
    row = rows.slice(index, 1).select(columns).to_pylist()[0]
    reason = work.reasons[row["text_hash"]]
    return Reject(row["source_uri"], row["doc_id"], row["chunk_index"], reason, FAILURES[reason])


def _vector_column(
    vectors: npt.NDArray[np.float32], arrow_type: pa.FixedSizeListType
) -> pa.FixedSizeListArray:
    values = vectors.astype(arrow_type.value_type.to_pandas_dtype())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), arrow_type.list_size)
