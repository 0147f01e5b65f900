"""One work unit from source to staged rows: read, render, cut, count. No model, no table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from embedding_core.chunking import Chunker, Tokenizer, apply_length_policy
from embedding_core.errors import RejectedInput
from embedding_core.identity import chunk_id, text_hash
from embedding_core.lake import schema, staging, table_of
from embedding_core.pipeline.cutting import Cutting, cutting_of
from embedding_core.pipeline.job import Job, resolve_planned
from embedding_core.pipeline.slices import UsedIds
from embedding_core.recipe import Recipe
from embedding_core.records import (
    Chunk,
    Document,
    FileCounts,
    PlannedFile,
    Reject,
    Slice,
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
    table = table_of(job.recipe)
    path = staging.staged_path(table, unit.unit_id)
    reject_path = staging.staged_path(table, unit.unit_id, "rejects.arrow")
    arrow_schema = schema.row_schema(job.recipe)
    with staging.reject_writer(table, reject_path) as rejects:
        work = _UnitWork(job.recipe, *_cutting(job), rejects=rejects)
        staging.write_staged(table, path, arrow_schema, _batches(work, unit, arrow_schema))
    ids_path = None
    if unit.slice is not None and job.recipe.source.id is not None:
        ids_path = staging.staged_path(table, unit.unit_id, "ids.npy")
        work.ids.save(table, ids_path)
    return StagedUnit(
        unit=unit,
        path=path,
        counts=tuple(work.counts),
        file_rejects=tuple(work.file_rejects),
        reasons=dict(work.reasons),
        reject_paths=(reject_path,) if rejects.n_rejects else (),
        ids_path=ids_path,
        rejected_keys=tuple(work.rejected_keys),
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """The model in service, where another one's tokenizer cuts: it may read less of a chunk."""

    tokenizer: Tokenizer
    limit: int

    def cut_off(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, str]]:
        """Chunks that the model reads the beginning of, each with the detail of its reject."""
        if not chunks:
            return
        counts = self.tokenizer.count([chunk.text for chunk in chunks])
        for chunk, n_tokens in zip(chunks, counts, strict=True):
            if n_tokens > self.limit:
                yield (
                    chunk,
                    f"{n_tokens:,} tokens of the model in service, which reads {self.limit:,}: its "
                    "vector covers the beginning; to cut anew, set chunk.tokenizer to that model",
                )


@dataclass(slots=True)
class _UnitWork:
    """How this unit is cut, and what has been found in it so far."""

    recipe: Recipe
    cutting: Cutting
    chunker: Chunker
    reader: _Reader | None
    rejects: staging.RejectWriter
    counts: list[FileCounts] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    """Rejects by reason, of files that were read to their end."""
    file_rejects: list[Reject] = field(default_factory=list)
    ids: UsedIds = field(default_factory=UsedIds)
    """Filled for a slice of a file."""
    rejected_keys: list[str] = field(default_factory=list)


def _cutting(job: Job) -> tuple[Cutting, Chunker, _Reader | None]:
    resolved = resolve_planned(job)
    cutting, limit = cutting_of(job.recipe, resolved), resolved.space.max_tokens
    same = cutting.digest == resolved.space.tokenizer and cutting.limit <= limit
    return cutting, cutting.chunker(), None if same else _Reader(resolved.tokenizer, limit)


def _batches(work: _UnitWork, unit: WorkUnit, arrow_schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, object]] = []
    for planned in unit.files:
        for row in _file_rows(work, planned, unit.slice):
            rows.append(row)
            if len(rows) == ROWS_PER_BATCH:
                yield pa.RecordBatch.from_pylist(rows, schema=arrow_schema)
                rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=arrow_schema)


def _file_rows(
    work: _UnitWork, planned: PlannedFile, part: Slice | None
) -> Iterator[dict[str, object]]:
    """A file's rows; at its end its counts, or its rejection as a whole, are noted."""
    found = _Found()
    tally, reasons = found.tally, found.reasons
    try:
        for record in read_documents(planned.file, work.recipe.source, part):
            if isinstance(record, Reject):
                tally["rejected"] += 1
                work.rejects.add(record)
                reasons[record.reason] += 1
            else:
                tally["documents"] += 1
                if part is not None:
                    work.ids.add(record)
                yield from _document_rows(work, planned, record, found)
    except RejectedInput as error:
        uri = planned.file.uri
        work.file_rejects.append(Reject(uri, None, None, error.reason, error.detail))
        work.rejected_keys.append(planned.file_key)
        tally, reasons = Counter({"rejected": 1}), Counter({error.reason: 1})
    work.reasons += reasons
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


@dataclass(frozen=True, slots=True)
class _Found:
    """What one file gave so far."""

    tally: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


def _document_rows(
    work: _UnitWork, planned: PlannedFile, document: Document, found: _Found
) -> Iterator[dict[str, object]]:
    policy, cutting = work.recipe.model.over_length, work.cutting
    chunks = work.chunker.chunk(document.text)
    cut = apply_length_policy(chunks, policy, cutting.tokenizer, cutting.limit)
    truncated = cut.truncated if work.reader is None else tuple(work.reader.cut_off(cut.kept))
    tally = found.tally
    tally["chunks"] += len(cut.kept) + len(cut.dropped)
    tally["dropped"] += len(cut.dropped)
    uri = planned.file.uri
    for chunk, detail in cut.dropped:
        work.rejects.add(Reject(uri, document.doc_id, chunk.index, "over_length", detail))
    for chunk, detail in truncated:
        work.rejects.add(Reject(uri, document.doc_id, chunk.index, "truncated", detail))
    found.reasons["over_length"] += len(cut.dropped)
    found.reasons["truncated"] += len(truncated)
    for chunk in cut.kept:
        tally["tokens"] += min(chunk.n_tokens, cutting.limit)
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
