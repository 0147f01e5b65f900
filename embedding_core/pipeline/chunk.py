"""One work unit from source to staged rows: read, render, cut, count. No model, no table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from embedding_core.chunking import (
    Chunker,
    Tokenizer,
    apply_length_policy,
    chunker_for,
    resolve_chunk_spec,
)
from embedding_core.errors import RejectedInput
from embedding_core.identity import chunk_id, text_hash
from embedding_core.lake import schema, staging, table_of
from embedding_core.pipeline.job import Job, resolve_planned
from embedding_core.recipe import Recipe
from embedding_core.records import (
    Chunk,
    Document,
    FileCounts,
    PlannedFile,
    Reject,
    StagedUnit,
    WorkUnit,
)
from embedding_core.sources import read_documents

ROWS_PER_BATCH = 1_024
"""Rows per staged record batch: about 2 MB of text at 512 tokens a row."""


def chunk_unit(job: Job, unit: WorkUnit) -> StagedUnit:
    """Read and cut the unit's files into one staged Arrow file; memory is bounded by a batch.

    A bad record or file becomes a reject and the others go on. Raises ``Transient`` when a store
    fails and ``ModelError`` when the model is not the planned one.
    """
    started = time.perf_counter()
    work = _UnitWork(job.recipe, *_cutting(job))
    table = table_of(job.recipe)
    path = staging.staged_path(table, unit.unit_id)
    arrow_schema = schema.row_schema(job.recipe)
    staging.write_staged(table, path, arrow_schema, _batches(work, unit, arrow_schema))
    return StagedUnit(
        unit=unit,
        path=path,
        counts=tuple(work.counts),
        rejects=tuple(work.rejects),
        rejected_keys=tuple(work.rejected_keys),
        seconds=time.perf_counter() - started,
    )


@dataclass(slots=True)
class _UnitWork:
    """How this unit is cut, and what has been found in it so far."""

    recipe: Recipe
    chunker: Chunker
    tokenizer: Tokenizer
    limit: int
    counts: list[FileCounts] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    rejected_keys: list[str] = field(default_factory=list)


def _cutting(job: Job) -> tuple[Chunker, Tokenizer, int]:
    resolved = resolve_planned(job)
    limit = resolved.space.max_tokens
    spec = resolve_chunk_spec(job.recipe.chunk, limit)
    return chunker_for(spec, resolved.tokenizer, limit), resolved.tokenizer, limit


def _batches(work: _UnitWork, unit: WorkUnit, arrow_schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, object]] = []
    for planned in unit.files:
        for row in _file_rows(work, planned):
            rows.append(row)
            if len(rows) == ROWS_PER_BATCH:
                yield pa.RecordBatch.from_pylist(rows, schema=arrow_schema)
                rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=arrow_schema)


def _file_rows(work: _UnitWork, planned: PlannedFile) -> Iterator[dict[str, object]]:
    """A file's rows; at its end its counts, or its rejection as a whole, are noted."""
    tally: Counter[str] = Counter()
    n_rejects = len(work.rejects)
    try:
        for record in read_documents(planned.file, work.recipe.source):
            if isinstance(record, Reject):
                tally["rejected"] += 1
                work.rejects.append(record)
            else:
                tally["documents"] += 1
                yield from _document_rows(work, planned, record, tally)
    except RejectedInput as error:
        uri = planned.file.uri
        work.rejects[n_rejects:] = [Reject(uri, None, None, error.reason, error.detail)]
        work.rejected_keys.append(planned.file_key)
        tally = Counter({"rejected": 1})
    work.counts.append(
        FileCounts(
            file_key=planned.file_key,
            source_uri=planned.file.uri,
            documents=tally["documents"],
            rejected=tally["rejected"],
            chunks=tally["chunks"],
            dropped=tally["dropped"],
            tokens=tally["tokens"],
        )
    )


def _document_rows(
    work: _UnitWork, planned: PlannedFile, document: Document, tally: Counter[str]
) -> Iterator[dict[str, object]]:
    cut = apply_length_policy(
        work.chunker.chunk(document.text), work.recipe.model.over_length, work.tokenizer, work.limit
    )
    tally["chunks"] += len(cut.kept) + len(cut.dropped)
    tally["dropped"] += len(cut.dropped)
    uri = planned.file.uri
    for chunk, detail in cut.dropped:
        work.rejects.append(Reject(uri, document.doc_id, chunk.index, "over_length", detail))
    for chunk, detail in cut.truncated:
        work.rejects.append(Reject(uri, document.doc_id, chunk.index, "truncated", detail))
    for chunk in cut.kept:
        tally["tokens"] += min(chunk.n_tokens, work.limit)
        yield _row(planned, document, chunk)


def _row(planned: PlannedFile, document: Document, chunk: Chunk) -> dict[str, object]:
    hashed = text_hash(chunk.text)
    uri = planned.file.uri
    return {
        "chunk_id": chunk_id(uri, document.doc_id, chunk.index, hashed),
        "file_key": planned.file_key,
        "source_uri": uri,
        "doc_id": document.doc_id,
        "chunk_index": chunk.index,
        "text": chunk.text,
        "text_hash": hashed,
        "n_tokens": chunk.n_tokens,
        "char_start": chunk.char_start,
        "char_end": chunk.char_end,
        **document.metadata,
    }
