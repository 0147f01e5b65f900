"""One staged unit to uncommitted Lance fragments: no text is encoded that has a vector already.

A text has one when the rows that the unit replaces hold it, or those of the same content under
another name, or any row of the table if the recipe says so, or when it stood in the unit before.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.encoder import FAILURES, Encoder
from embedding_core.identity import chunk_id
from embedding_core.lake import schema, staging
from embedding_core.lake.rows.commit import check_in_service, write_fragments
from embedding_core.lake.rows.reuse import KnownVectors, OldRows, known_vectors
from embedding_core.lake.table import Table, table_of
from embedding_core.records import EmbeddedUnit, FileCounts, Reject, StagedUnit
from embedding_core.runs.announce import Announcer, Say, silent
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.saved import (
    Part,
    save_report,
    saved_parts,
    saved_report,
    usable_units,
)
from embedding_core.runs.encode import FreshTexts, vectors_in
from embedding_core.runs.job import Job, load_planned, resolve_planned

ROWS_PER_BLOCK = 4_096
"""Rows worked on together: enough to sort by length well, some 20 MB of text and vectors."""


def embed_unit(job: Job, staged: StagedUnit, say: Say = silent) -> EmbeddedUnit:
    """Encode the staged rows and write them into the table's storage, not yet into the table.

    Works in parts of about ``part_rows`` rows and saves each, so that a second attempt begins with
    the first part that is not there; the report of the whole is saved before it is returned. Memory
    is bounded by some blocks of rows. A staged file that is gone is made again. The model is loaded
    only when a text needs it. ``say`` is told every ten seconds how far the work is. Raises
    ``ModelError`` when the model cannot run here or is not the planned one, ``LakeError`` when
    another space was put in service meanwhile, ``Transient`` when the store fails.
    """
    started = time.perf_counter()
    table = table_of(job.recipe)
    check_in_service(table, job.space_id)
    before = saved_report(table, staged.unit)
    if before is not None and usable_units(table, [before]):
        return before
    ids = [staged.ids_path] if staged.ids_path else []
    needed = [staged.path, *staged.reject_paths, *ids]
    if not all(staging.is_staged(table, path) for path in needed):
        staged = chunk_unit(job, staged.unit)
    parts = _parts(job, table, staged, say)
    embedded = EmbeddedUnit(
        unit=staged.unit,
        fragments=tuple(fragment for part in parts for fragment in part.fragments),
        counts=tuple(_with_vectors(one, parts) for one in staged.counts),
        file_rejects=staged.file_rejects,
        reasons=dict(sum((part.reasons for part in parts), Counter(staged.reasons))),
        reject_paths=(*staged.reject_paths, *(part.reject_path for part in parts if part.failed)),
        ids_path=staged.ids_path,
        rejected_keys=staged.rejected_keys,
        recomputed=sum(part.recomputed for part in parts),
        seconds=staged.seconds + time.perf_counter() - started,
    )
    save_report(table, embedded)
    return embedded


def _parts(job: Job, table: Table, staged: StagedUnit, say: Say) -> list[Part]:
    """Every part of the unit: those saved by an earlier attempt, and the others made now."""
    rows = _usable_rows(table, staged)
    parts = saved_parts(table, staged.unit.unit_id, rows)
    done = sum(part.rows for part in parts)
    work = _begin(job, table, staged, done, say)
    arrow_schema = schema.row_schema(job.recipe).append(work.field)
    blocks = _blocks(work, done)
    following = next(blocks, None)
    while following is not None:
        part = Part.begun(table, staged.unit.unit_id, len(parts))
        some = _up_to(chain([following], blocks), job.resources.part_rows)
        with staging.reject_writer(table, part.reject_path) as rejects:
            batches = _batches(work, part, rejects, some, arrow_schema)
            part.fragments = write_fragments(table, batches, arrow_schema)
        parts.append(part)
        following = next(blocks, None)
        if following is not None:
            part.save(table, staged.unit.unit_id, len(parts) - 1)
    return parts


def _up_to(blocks: Iterator[_Block], n_rows: int) -> Iterator[_Block]:
    """Blocks of at least ``n_rows`` rows together, if there are that many."""
    for block in blocks:
        yield block
        n_rows -= block.rows.num_rows
        if n_rows <= 0:
            return


@dataclass(slots=True)
class _UnitWork:
    table: Table
    staged: StagedUnit
    field: pa.Field
    """The vector column."""
    encoder: Encoder | None
    """None when every text has a vector already."""
    known: KnownVectors
    """Vectors of the rows that this unit replaces."""
    announcer: Announcer
    repeated: frozenset[str]
    """Hashes of texts that stand more than once in the unit: only their vectors are kept."""
    shared: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """(dim,) vectors of repeated texts met so far, by text hash."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a text has no vector, by text hash."""


def _begin(job: Job, table: Table, staged: StagedUnit, done: int, say: Say) -> _UnitWork:
    seen, repeated = _hashes(table, staged, done)
    whole_table = job.recipe.reuse == "table"
    old_rows = OldRows("text_hash", seen) if whole_table else _old_rows(table, staged, done)
    known = known_vectors(table, job.table_version, job.space_id, old_rows, seen)
    new_texts = bool(seen - known.row_ids.keys())
    return _UnitWork(
        table=table,
        staged=staged,
        field=schema.vector_field(resolve_planned(job).space),
        encoder=load_planned(job) if new_texts else None,
        announcer=Announcer(say, sum(one.chunks - one.dropped for one in staged.counts), done),
        known=known,
        repeated=frozenset(repeated),
    )


def _old_rows(table: Table, staged: StagedUnit, done: int) -> OldRows:
    """Rows that the unit replaces, and those of the same content under another name.

    A slice of a huge file must not look through all rows of the old version: it asks for the very
    rows that its chunks were if nothing about them changed, under the name the file had.
    """
    files = staged.unit.files
    copies = [planned.same_as for planned in files if planned.same_as is not None]
    known = {old for planned in files for old in planned.replaces}
    known.update(one.file_key for one in copies)
    if staged.unit.slice is None or not known:
        return OldRows("file_key", known)
    uri = copies[0].uri if copies else files[0].moved_from or files[0].file.uri
    names = ["doc_id", "chunk_index", "text_hash"]
    return OldRows(
        "chunk_id",
        {
            chunk_id(uri, row["doc_id"], row["chunk_index"], row["text_hash"])
            for batch in _after(_usable_rows(table, staged), done)
            for row in batch.select(names).to_pylist()
        },
    )


def _hashes(table: Table, staged: StagedUnit, done: int) -> tuple[set[str], set[str]]:
    """Hashes of the texts that are left, and of those that stand more than once among them."""
    seen: set[str] = set()
    repeated: set[str] = set()
    for batch in _after(_usable_rows(table, staged), done):
        for hashed in batch.column("text_hash").to_pylist():
            (repeated if hashed in seen else seen).add(hashed)
    return seen, repeated


def _with_vectors(counts: FileCounts, parts: Sequence[Part]) -> FileCounts:
    key = counts.file_key
    return replace(
        counts,
        embedded=sum(part.embedded[key] for part in parts),
        reused=sum(part.reused[key] for part in parts),
        failed=sum(part.failed[key] for part in parts),
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


def _batches(
    work: _UnitWork,
    part: Part,
    rejects: staging.RejectWriter,
    blocks: Iterator[_Block],
    arrow_schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    """The part's rows with their vectors, in staged order."""
    waiting: deque[_Block] = deque()

    def texts() -> Iterator[list[str]]:
        for block in blocks:
            waiting.append(block)
            yield block.texts()

    for encoded in _encoded(work, texts()):
        block = waiting.popleft()
        vectors = _vectors(work, part, block, encoded)  # (n_rows, dim); NaN where there is none
        _count(work, part, rejects, block, vectors)
        work.announcer.add(block.rows.num_rows)
        good = pa.array(np.isfinite(vectors).all(axis=1))
        rows = block.rows.append_column(work.field, _vector_column(vectors, work.field.type))
        yield from rows.filter(good).cast(arrow_schema).to_batches()


@dataclass(frozen=True, slots=True)
class _Block:
    rows: pa.Table
    hashes: list[str]
    fresh: list[int]
    """Positions of the rows whose texts are encoded; the others have vectors by then."""

    def texts(self) -> list[str]:
        taken = self.rows.column("text").take(pa.array(self.fresh, pa.int64()))
        texts: list[str] = taken.to_pylist()
        return texts


def _blocks(work: _UnitWork, done: int) -> Iterator[_Block]:
    """The unit's rows after the first ``done``, in blocks."""
    fresh = FreshTexts(work.repeated)
    for rows in _tables(_after(_usable_rows(work.table, work.staged), done)):
        hashes = rows.column("text_hash").to_pylist()
        known = [hashed in work.known.row_ids for hashed in hashes]
        yield _Block(rows, hashes, fresh.of(hashes, known.__getitem__))


def _tables(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            pending.append(batch)
        if sum(one.num_rows for one in pending) >= ROWS_PER_BLOCK:
            yield pa.Table.from_batches(pending).combine_chunks()
            pending = []
    if pending:
        yield pa.Table.from_batches(pending).combine_chunks()


def _encoded(work: _UnitWork, texts: Iterator[list[str]]) -> Iterator[pa.RecordBatch | None]:
    """What the encoder makes of each list of texts; None for each when there is none to encode."""
    if work.encoder is not None:
        yield from work.encoder.encode_stream(texts)
    else:
        yield from (None for _ in texts)


def _vectors(
    work: _UnitWork, part: Part, block: _Block, encoded: pa.RecordBatch | None
) -> npt.NDArray[np.float32]:
    """(n_rows, dim): computed for the block's fresh texts, known for the others."""
    found = work.known.read(block.hashes)
    if encoded is not None:
        found |= _computed(work, block, encoded)
        part.recomputed += pc.sum(encoded.column("recomputed")).as_py() or 0
    work.shared.update({h: v.copy() for h, v in found.items() if h in work.repeated})
    vectors = np.empty((len(block.hashes), work.field.type.list_size), np.float32)
    for index, hashed in enumerate(block.hashes):
        vectors[index] = found[hashed] if hashed in found else work.shared[hashed]
    return vectors


def _computed(
    work: _UnitWork, block: _Block, encoded: pa.RecordBatch
) -> dict[str, npt.NDArray[np.float32]]:
    """Vectors of the fresh texts by hash; NaN for a text without one, whose reason is noted."""
    vectors = vectors_in(encoded.column(schema.VECTOR))
    hashes = [block.hashes[index] for index in block.fresh]
    for hashed, reason in zip(hashes, encoded.column("failure").to_pylist(), strict=True):
        if reason is not None:
            work.reasons[hashed] = reason
    return dict(zip(hashes, vectors, strict=True))


def _count(
    work: _UnitWork,
    part: Part,
    rejects: staging.RejectWriter,
    block: _Block,
    vectors: npt.NDArray[np.float32],
) -> None:
    missing = set(np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist())
    computed = set(block.fresh)
    for index, key in enumerate(block.rows.column("file_key").to_pylist()):
        if index in missing:
            reject = _no_vector(work, block, index)
            rejects.add(reject)
            part.failed[key] += 1
            part.reasons[reject.reason] += 1
        elif index in computed:
            part.embedded[key] += 1
        else:
            part.reused[key] += 1
    part.rows += block.rows.num_rows
    part.last_chunk_id = block.rows.column("chunk_id")[-1].as_py()


def _no_vector(work: _UnitWork, block: _Block, index: int) -> Reject:
    columns = ["source_uri", "doc_id", "chunk_index"]
    row = block.rows.slice(index, 1).select(columns).to_pylist()[0]
    reason = work.reasons[block.hashes[index]]
    return Reject(row["source_uri"], row["doc_id"], row["chunk_index"], reason, FAILURES[reason])


def _vector_column(
    vectors: npt.NDArray[np.float32], arrow_type: pa.FixedSizeListType
) -> pa.FixedSizeListArray:
    values = vectors.astype(arrow_type.value_type.to_pandas_dtype())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), arrow_type.list_size)
