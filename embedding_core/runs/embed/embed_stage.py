"""One staged unit to uncommitted Lance fragments: no text is encoded that has a vector already.

A text has a vector already when it stands in the rows that the unit replaces, in rows of the same
content under another name, in any row of the table if the recipe says so, or earlier in the unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.encoder import FAILURES
from embedding_core.errors import Transient
from embedding_core.identity import chunk_id
from embedding_core.lake import schema, staging
from embedding_core.lake.rows.commit import check_in_service, write_fragments
from embedding_core.lake.rows.embedded import embedded_texts
from embedding_core.lake.rows.reuse import KnownVectors, OldRows, known_vectors
from embedding_core.lake.table import Table
from embedding_core.lake.vectors import to_lists
from embedding_core.protocols import Vectors
from embedding_core.records import EmbeddedUnit, FileCounts, ModelWork, Reject, StagedUnit
from embedding_core.runs.announce import Announcer, Say, silent
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.saved import (
    Part,
    intact_units,
    save_report,
    saved_parts,
    saved_report,
)
from embedding_core.runs.encode import Block, EncodedBlock, encode_blocks
from embedding_core.runs.job import Job, unit_attributes
from embedding_core.runs.prepared import prepared
from embedding_core.watch.spans import span
from embedding_core.watch.stopwatch import Stopwatch
from embedding_core.watch.subject import working_on

ROWS_PER_BLOCK = 4_096
"""Rows worked on together: enough to sort by length well, some 20 MB of text and vectors."""


def embed_unit(job: Job, staged: StagedUnit, say: Say = silent) -> EmbeddedUnit:
    """Encode the staged rows and write them into the table's storage, not yet into the table.

    Works in parts of about ``part_rows`` rows and saves each, so that a second attempt begins with
    the first part that is missing; the report of the unit is saved before it is returned. Memory
    is bounded by some blocks of rows. A staged file that is gone is made again. The model is loaded
    only when a text needs it. ``say`` hears every ten seconds how far the work is. Raises
    ``ModelError`` when the model cannot run here or is not the planned one, ``LakeError`` when
    another space was put in service meanwhile, ``Transient`` when the store fails.
    """
    unit = staged.unit
    with (
        working_on(job.run_id, unit.unit_id, unit.only_file),
        span("embed", job.trace, **unit_attributes(job, unit)),
    ):
        return _embedded(job, staged, say)


def _embedded(job: Job, staged: StagedUnit, say: Say) -> EmbeddedUnit:
    meter = _Meter()
    table = job.table
    check_in_service(table.open(), job.space_id)
    before = saved_report(table, staged.unit)
    if before is not None and intact_units(table, [before]):
        return before
    ids = [staged.ids_path] if staged.ids_path else []
    needed = [staged.path, *staged.reject_paths, *ids]
    if not all(staging.is_staged(table, path) for path in needed):
        staged = chunk_unit(job, staged.unit)
    parts = _parts(job, table, staged, say, meter)
    embedded = EmbeddedUnit.of(
        staged,
        counts=tuple(_with_vectors(counts, parts) for counts in staged.counts),
        reasons=dict(sum((portion.reasons for portion in parts), Counter(staged.reasons))),
        reject_paths=(
            *staged.reject_paths,
            *(portion.reject_path for portion in parts if portion.failed),
        ),
        stages=staged.stages + meter.watch.read(),
        model=meter.model,
        fragments=tuple(fragment for portion in parts for fragment in portion.fragments),
        recomputed=sum(portion.recomputed for portion in parts),
    )
    save_report(table, embedded)
    return embedded


@dataclass(slots=True)
class _Meter:
    """What the embedding of a unit takes."""

    watch: Stopwatch = field(default_factory=lambda: Stopwatch("write"))
    model: ModelWork = field(default_factory=ModelWork)


def _parts(job: Job, table: Table, staged: StagedUnit, say: Say, meter: _Meter) -> list[Part]:
    """Every part of the unit: those saved by an earlier attempt, and the others made now."""
    unit_id, watch = staged.unit.unit_id, meter.watch
    # 1. What is left to do, and which of its texts have a vector in the table.
    with watch.stage("read"):
        parts = saved_parts(table, unit_id, _usable_rows(table, staged))
        done = sum(portion.rows for portion in parts)
        left = _left(table, staged, done)
        reusable = _reusable(job, table, staged, left)
    # 2. One stream of encoded blocks: the encoder may read ahead into the next part.
    with watch.stage("load"):
        ready = prepared(job)
        encoder = ready.encoder() if left.hashes - reusable.row_ids.keys() else None
    used_before = encoder.work if encoder is not None else ModelWork()
    vector_field = schema.vector_field(ready.model.space)
    rows = watch.each("read", _blocks(table, staged, done, reusable, vector_field.type.list_size))
    blocks = encode_blocks(encoder, rows, frozenset(left.repeated))
    encoded = watch.each("forward", blocks)
    # 3. The stream in parts. Each is saved when it is written; the unit's report covers the last.
    announcer = Announcer(
        say, sum(counts.chunks - counts.dropped for counts in staged.counts), done
    )
    arrow_schema = schema.row_schema(job.recipe).append(vector_field)
    total_rows = done + left.n_rows
    while done < total_rows:
        portion = Part.begun(table, unit_id, len(parts))
        with staging.reject_writer(table, portion.reject_path) as rejects:
            in_part = _up_to(encoded, job.resources.part_rows)
            with_texts = job.recipe.keep_rejected_texts
            batches = _batches(in_part, portion, rejects, announcer, arrow_schema, with_texts)
            portion.fragments = _written(job, table, batches, arrow_schema)
        done += portion.rows
        if done < total_rows:
            portion.save(table, unit_id, len(parts))
        parts.append(portion)
    if encoder is not None:
        meter.model = encoder.work.since(used_before)
        watch.move(meter.model.token_wait_seconds, "forward", "tokenise")
    return parts


def _written(
    job: Job, table: Table, batches: Iterator[pa.RecordBatch], arrow_schema: pa.Schema
) -> tuple[str, ...]:
    """The rows as fragments. Raises ``LakeError`` when another space came into service meanwhile:
    Lance refuses vectors of another dimension like a store that fails."""
    try:
        return write_fragments(table, batches, arrow_schema)
    except Transient:
        check_in_service(table.open(), job.space_id)
        raise


def _up_to(
    blocks: Iterator[EncodedBlock[pa.Table]], n_rows: int
) -> Iterator[EncodedBlock[pa.Table]]:
    """Blocks of at least ``n_rows`` rows together, if there are that many."""
    for block in blocks:
        yield block
        n_rows -= block.rows.num_rows
        if n_rows <= 0:
            return


@dataclass(slots=True)
class _Left:
    """The staged rows that are not embedded yet."""

    n_rows: int
    hashes: set[str]
    """Hashes of their texts."""
    repeated: set[str]
    """Hashes of texts that stand in several of the rows."""
    chunk_ids: set[str]
    """Ids that the rows of a slice had under the file's former name; empty for whole files."""


def _left(table: Table, staged: StagedUnit, done: int) -> _Left:
    """The staged rows after the first ``done``, read once."""
    left = _Left(0, set(), set(), set())
    former_uri = _former_uri(staged) if staged.unit.slice is not None else None
    for batch in _after(_usable_rows(table, staged), done):
        left.n_rows += batch.num_rows
        hashes = batch.column("text_hash").to_pylist()
        for hashed in hashes:
            (left.repeated if hashed in left.hashes else left.hashes).add(hashed)
        if former_uri is not None:
            doc_ids = batch.column("doc_id").to_pylist()
            indexes = batch.column("chunk_index").to_pylist()
            left.chunk_ids.update(map(partial(chunk_id, former_uri), doc_ids, indexes, hashes))
    return left


def _former_uri(staged: StagedUnit) -> str | None:
    """Where the rows stand that a slice may reuse: the name that its file had; None for a file
    that is new."""
    (planned,) = staged.unit.files
    if planned.same_as is not None:
        return planned.same_as.uri
    return (planned.moved_from or planned.file.uri) if planned.replaces else None


def _reusable(job: Job, table: Table, staged: StagedUnit, left: _Left) -> KnownVectors:
    """Vectors of the texts that are left, as far as the table has them."""
    if job.recipe.reuse == "table":
        old_rows = OldRows("text_hash", left.hashes)
    elif left.chunk_ids:
        # A slice of a huge file must not look through all rows of the old version.
        old_rows = OldRows("chunk_id", left.chunk_ids)
    else:
        files = staged.unit.files
        keys = {key for planned in files for key in planned.replaces}
        keys.update(planned.same_as.file_key for planned in files if planned.same_as is not None)
        old_rows = OldRows("file_key", keys)
    return known_vectors(table, job.table_version, job.space_id, old_rows, left.hashes)


def _with_vectors(counts: FileCounts, parts: Sequence[Part]) -> FileCounts:
    key = counts.file_key
    return replace(
        counts,
        embedded=sum(portion.embedded[key] for portion in parts),
        reused=sum(portion.reused[key] for portion in parts),
        failed=sum(portion.failed[key] for portion in parts),
    )


def _usable_rows(table: Table, staged: StagedUnit) -> Iterator[pa.RecordBatch]:
    """Staged rows, less those of files that were rejected after some rows had been staged."""
    rejected = pa.array(staged.rejected_keys, pa.string())
    for batch in staging.read_staged(table, staged.path):
        yield batch.filter(pc.invert(pc.is_in(batch.column("file_key"), value_set=rejected)))


def _after(batches: Iterator[pa.RecordBatch], n_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows after the first ``n_rows``."""
    for batch in batches:
        if n_rows < batch.num_rows:
            yield batch.slice(n_rows)
        n_rows = max(0, n_rows - batch.num_rows)


def _blocks(
    table: Table, staged: StagedUnit, done: int, reusable: KnownVectors, dim: int
) -> Iterator[Block[pa.Table]]:
    """The unit's rows after the first ``done``, in blocks."""
    for rows in _tables(_after(_usable_rows(table, staged), done)):
        hashes = rows.column("text_hash").to_pylist()
        has_vector = np.array([hashed in reusable.row_ids for hashed in hashes], np.bool_)
        stored = partial(_stored, reusable, hashes, dim)
        yield Block(rows, embedded_texts(rows), hashes, has_vector, stored)


def _stored(reusable: KnownVectors, hashes: Sequence[str], dim: int) -> Vectors:
    """(n_rows, dim) vectors that the table has; NaN for the other rows."""
    vectors = np.full((len(hashes), dim), np.nan, np.float32)
    vector_by_hash = reusable.read(hashes)
    for index, hashed in enumerate(hashes):
        if hashed in reusable.row_ids:
            vectors[index] = vector_by_hash[hashed]
    return vectors


def _tables(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows in tables of about ``ROWS_PER_BLOCK``."""
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            pending.append(batch)
        if sum(batch.num_rows for batch in pending) >= ROWS_PER_BLOCK:
            yield pa.Table.from_batches(pending).combine_chunks()
            pending = []
    if pending:
        yield pa.Table.from_batches(pending).combine_chunks()


def _batches(
    blocks: Iterator[EncodedBlock[pa.Table]],
    portion: Part,
    rejects: staging.RejectWriter,
    announcer: Announcer,
    arrow_schema: pa.Schema,
    with_texts: bool,
) -> Iterator[pa.RecordBatch]:
    """The part's rows with their vectors, in staged order; rows without a vector are rejected."""
    vector_field = arrow_schema.field(schema.VECTOR)
    for block in blocks:
        _count(portion, rejects, block, with_texts)
        announcer.add(block.rows.num_rows)
        has_vector = np.ones(block.rows.num_rows, np.bool_)
        has_vector[list(block.failures)] = False
        vectors = to_lists(block.vectors, vector_field.type)
        rows = block.rows.append_column(vector_field, vectors).filter(pa.array(has_vector))
        yield from rows.cast(arrow_schema).to_batches()


def _count(
    portion: Part, rejects: staging.RejectWriter, block: EncodedBlock[pa.Table], with_texts: bool
) -> None:
    for index, key in enumerate(block.rows.column("file_key").to_pylist()):
        reason = block.failures.get(index)
        if reason is not None:
            rejects.add(_no_vector(block.rows, index, reason, with_texts))
            portion.failed[key] += 1
            portion.reasons[reason] += 1
        elif block.computed[index]:
            portion.embedded[key] += 1
        else:
            portion.reused[key] += 1
    portion.recomputed += block.n_recomputed
    portion.rows += block.rows.num_rows
    portion.last_chunk_id = block.rows.column("chunk_id")[-1].as_py()


def _no_vector(rows: pa.Table, index: int, reason: str, with_text: bool) -> Reject:
    names = ["source_uri", "doc_id", "chunk_index", "n_tokens"] + ["text"] * with_text
    (row,) = rows.slice(index, 1).select(names).to_pylist()
    return Reject(position=None, reason=reason, detail=FAILURES[reason], **row)
