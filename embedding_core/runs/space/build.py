"""A new space over the rows a table has: texts are read from the table, never from the source.

One fragment is the unit of work, so a crash costs one fragment; vectors that its rows have already
are kept. A text longer than the model takes is cut and listed as ``truncated``. A text without a
vector leaves its row without one: the row is listed as a reject with the reason, counts as missing,
and keeps the column from being promoted, until another attempt (more memory, another dtype) fills
it or its document leaves the source.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.encoder import FAILURES, Encoder
from embedding_core.errors import LakeError
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake import ledger
from embedding_core.lake.index.broken import drop_broken_indexes
from embedding_core.lake.ownership.owner import check_recipe
from embedding_core.lake.spaces.filling import KNOWN, PlacedVectors, fill_fragment, fragment_rows
from embedding_core.lake.spaces.vector_columns import add_column, field_of, missing_rows
from embedding_core.lake.table import Lake, Table, table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.records import Reject
from embedding_core.runs.encode import FreshTexts, Vectors, vectors_in
from embedding_core.runs.job import Job, load_planned, resolve, resolve_planned

REJECTS_PER_COMMIT = 50_000
"""Rejects that wait in memory, some 20 MB of them."""
ROWS_PER_TASK = 4_096
"""Small fragments are packed to about this many rows for one task."""
COLUMNS = ["text", "text_hash", "source_uri", "doc_id", "chunk_index"]


@dataclass(frozen=True, slots=True)
class FilledFragment:
    """What became of one fragment."""

    fragment_id: int
    rows: int
    """Rows that have a vector now; 0 when the fragment was gone before it could be committed."""
    missing_rows: int
    """Rows whose text has no vector; each is listed in rejects."""
    encoded: int
    """Texts that went through the model; equal ones once."""
    tokens: int
    truncated: int
    """Rows whose vector covers the beginning of their text alone; each is listed in rejects."""
    seconds: float


@dataclass(frozen=True, slots=True)
class SpaceReport:
    """What building a space did."""

    column: str
    """Name of its column now; ``vector`` when the space is in service."""
    space_id: str
    fragments: int
    """Fragments filled."""
    rows: int
    """Rows that got a vector."""
    encoded: int
    tokens: int
    truncated: int
    missing_rows: int
    """Rows of the table without a vector in this space at the end: their texts have none."""
    seconds: float


def build_space(recipe: Recipe, model: ModelSpec, resources: Resources, run_id: str) -> SpaceReport:
    """Give every row of the recipe's table a vector of ``model``, in a column beside the others.

    Adds the column when it is missing, fills the fragments that lack it and those that arrive
    meanwhile, one after another. A space that is complete, in service or not, is left as it is; so
    a second call after a crash does what is missing. Raises ``LakeError`` for a table without rows
    or of another recipe, ``ModelError`` for a model that cannot be loaded.
    """
    started = time.perf_counter()
    job = begin_space(recipe, model, resources, run_id)
    done: list[FilledFragment] = []
    while todo := fragments_to_fill(job, {one.fragment_id for one in done}):
        done += [backfill_fragment(job, fragment_id) for group in todo for fragment_id in group]
    return space_report(job, done, started)


def fragments_to_fill(job: Job, tried: Collection[int] = ()) -> list[tuple[int, ...]]:
    """Fragments with rows that lack a vector of the job's space, in groups for one task each.

    Small ones are packed to ``ROWS_PER_TASK`` rows. Those in ``tried`` are left out: what they
    still lack is text without a vector.
    """
    missing = missing_rows(table_of(job.recipe).dataset(), job.space_id)
    groups: list[list[int]] = []
    rows = ROWS_PER_TASK
    for fragment_id in sorted(missing.keys() - set(tried)):
        if rows >= ROWS_PER_TASK:
            groups.append([])
            rows = 0
        groups[-1].append(fragment_id)
        rows += missing[fragment_id]
    return [tuple(group) for group in groups]


def space_report(job: Job, done: Sequence[FilledFragment], started: float) -> SpaceReport:
    """What filling came to. ``started`` is what ``time.perf_counter()`` said at the beginning."""
    table = table_of(job.recipe)
    dataset = table.dataset()
    column, missing = field_of(dataset, job.space_id), missing_rows(dataset, job.space_id)
    if not missing:  # rows that an earlier attempt found no vector for have one, or are gone
        ledger.drop_rejects(table, [_why_missing(job, reason) for reason in FAILURES])
    return SpaceReport(
        column=column.name if column is not None else "",
        space_id=job.space_id,
        fragments=sum(one.rows > 0 for one in done),
        rows=sum(one.rows for one in done),
        encoded=sum(one.encoded for one in done),
        tokens=sum(one.tokens for one in done),
        truncated=sum(one.truncated for one in done),
        missing_rows=sum(missing.values()),
        seconds=time.perf_counter() - started,
    )


def begin_space(recipe: Recipe, model: ModelSpec, resources: Resources, run_id: str) -> Job:
    """Add the space's column when it is missing; what every fragment's task needs.

    The job's recipe names ``model``. Errors as ``build_space``.
    """
    job = space_job(recipe, model, resources, run_id)
    add_space(job)
    return job


def add_space(job: Job) -> None:
    """Add the column of the job's space when it is missing: metadata alone. Indexes that cannot be
    used are dropped first; a filter would fail."""
    space, table = resolve_planned(job).space, table_of(job.recipe)
    drop_broken_indexes(table)
    add_column(table, space, job.recipe.model, job.run_id)


def space_job(recipe: Recipe, model: ModelSpec, resources: Resources, run_id: str) -> Job:
    """The work of embedding a table's rows with ``model``; nothing is changed. Errors as
    ``build_space``."""
    table = Lake.open(recipe.lake.uri, recipe.lake.storage).table(recipe.lake.table)
    check_recipe(table, recipe)
    if not table.dataset().count_rows():
        raise LakeError(
            f"table {table.name!r} in {table.lake.uri} has no rows to embed; run `embedlake embed` "
            "first"
        )
    resolved = resolve(model)
    fixed = recipe.model_copy(update={"model": model.pinned(resolved.space.revision)})
    return Job(fixed, resources, space_id(resolved.space), "", run_id)


def backfill_fragment(job: Job, fragment_id: int) -> FilledFragment:
    """Fill the job's space for one fragment and commit it; see ``fill_fragment`` for what may go on
    meanwhile. Memory is bounded by some blocks of rows and the vectors of repeated texts."""
    started = time.perf_counter()
    table = table_of(job.recipe)
    work = _Work(job, load_planned(job), _repeated(table, fragment_id))
    vectors = _listing_rejects(table, work, _placed(table, fragment_id, work))
    filled = fill_fragment(table, job.space_id, fragment_id, vectors)
    return FilledFragment(
        fragment_id=fragment_id,
        rows=filled.rows if filled.committed else 0,
        missing_rows=filled.missing_rows,
        encoded=work.tally["encoded"],
        tokens=work.tally["tokens"],
        truncated=work.tally["truncated"],
        seconds=time.perf_counter() - started,
    )


def _listing_rejects(
    table: Table, work: _Work, vectors: Iterator[PlacedVectors]
) -> Iterator[PlacedVectors]:
    """The vectors; what is left out is listed as they go, so before they are committed."""
    for one in vectors:
        yield one
        if len(work.rejects) >= REJECTS_PER_COMMIT:
            ledger.add_rejects(table, work.rejects, work.job.run_id)
            work.rejects.clear()
    if work.rejects:
        ledger.add_rejects(table, work.rejects, work.job.run_id)


def _label(job: Job) -> str:
    return f"space {job.space_id[:SHOWN_DIGITS]} ({job.recipe.model.name})"


def _why_missing(job: Job, reason: str) -> str:
    return f"{_label(job)}: {FAILURES[reason]}"


@dataclass(frozen=True, slots=True)
class _Vector:
    """What the model made of a text."""

    values: npt.NDArray[np.float32]
    """(dim,) unit norm; NaN when it made none."""
    truncated: bool
    failure: str | None


@dataclass(slots=True)
class _Work:
    job: Job
    encoder: Encoder
    repeated: frozenset[str]
    """Hashes of texts that stand more than once in the fragment: only their vectors are kept."""
    shared: dict[str, _Vector] = field(default_factory=dict)
    """Repeated texts met so far, by hash."""
    tally: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)


@dataclass(slots=True)
class _Block:
    offsets: npt.NDArray[np.int64]
    rows: pa.RecordBatch
    hashes: list[str]
    known: Vectors | None
    """(n_rows, dim) vectors that the rows have already, NaN where there is none."""
    fresh: list[int] = field(default_factory=list)
    """Positions of the rows whose texts are encoded; the others have vectors by then."""

    def has(self, index: int) -> bool:
        """Whether a row has its vector already."""
        return self.known is not None and not np.isnan(self.known[index, 0])


def _repeated(table: Table, fragment_id: int) -> frozenset[str]:
    """Hashes that stand more than once in a fragment."""
    batches = fragment_rows(table, fragment_id, ["text_hash"])
    chunks = [batch.column("text_hash") for _, batch in batches]
    counts = pc.value_counts(pa.chunked_array(chunks, pa.string()))
    often = counts.filter(pc.greater(counts.field("counts"), 1))
    return frozenset(often.field("values").to_pylist())


def _placed(table: Table, fragment_id: int, work: _Work) -> Iterator[PlacedVectors]:
    """The fragment's vectors in the order of its rows."""
    waiting: deque[_Block] = deque()

    def texts() -> Iterator[list[str]]:
        fresh = FreshTexts(work.repeated)
        for offsets, rows in fragment_rows(table, fragment_id, COLUMNS, work.job.space_id):
            hashes = rows.column("text_hash").to_pylist()
            block = _Block(offsets, rows, hashes, _known(rows))
            block.fresh = fresh.of(hashes, block.has)
            waiting.append(block)
            yield rows.column("text").take(pa.array(block.fresh, pa.int64())).to_pylist()

    for encoded in work.encoder.encode_stream(texts()):
        yield _vectors(work, waiting.popleft(), encoded)


def _known(rows: pa.RecordBatch) -> Vectors | None:
    """(n_rows, dim) vectors that rows have in the space; None when no row has one."""
    if KNOWN not in rows.schema.names or rows.column(KNOWN).null_count == rows.num_rows:
        return None
    return vectors_in(rows.column(KNOWN))


def _vectors(work: _Work, block: _Block, encoded: pa.RecordBatch) -> PlacedVectors:
    found = _computed(work, block, encoded)
    work.shared.update({h: one for h, one in found.items() if h in work.repeated})
    dim = work.encoder.space.dim
    vectors = np.empty((len(block.hashes), dim), np.float32) if block.known is None else block.known
    for index, hashed in enumerate(block.hashes):
        if block.has(index):
            continue
        one = found[hashed] if hashed in found else work.shared[hashed]
        vectors[index] = one.values
        if one.truncated or one.failure is not None:
            _reject(work, block, index, one)
    return PlacedVectors(block.offsets, vectors)


def _computed(work: _Work, block: _Block, encoded: pa.RecordBatch) -> dict[str, _Vector]:
    """What became of the block's fresh texts, by hash."""
    vectors = vectors_in(encoded.column("vector"))
    work.tally["encoded"] += len(block.fresh)
    work.tally["tokens"] += pc.sum(encoded.column("n_tokens")).as_py() or 0
    truncated = encoded.column("truncated").to_pylist()
    failures = encoded.column("failure").to_pylist()
    return {
        block.hashes[index]: _Vector(vectors[place].copy(), truncated[place], failures[place])
        for place, index in enumerate(block.fresh)
    }


def _reject(work: _Work, block: _Block, index: int, one: _Vector) -> None:
    row = block.rows.slice(index, 1).to_pylist()[0]
    place = row["source_uri"], row["doc_id"], row["chunk_index"]
    if one.failure is not None:
        work.rejects.append(Reject(*place, one.failure, _why_missing(work.job, one.failure)))
        return
    limit = work.encoder.space.max_tokens
    detail = f"{_label(work.job)}: only the first {limit:,} tokens are in the vector"
    work.rejects.append(Reject(*place, "truncated", detail))
    work.tally["truncated"] += 1
