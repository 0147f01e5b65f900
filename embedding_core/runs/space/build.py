"""A new space over the rows a table has: texts are read from the table, never from the source.

One fragment is the unit of work, so a crash costs one fragment; vectors that its rows have already
are kept. A text longer than the model takes is cut and listed as ``truncated``. A text without a
vector leaves its row without one: the row is listed as a reject with the reason, counts as missing,
and keeps the column from being promoted, until another attempt (more memory, another dtype) fills
it or its document leaves the source.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.encoder import FAILURES
from embedding_core.encoder.engines import describe_model
from embedding_core.errors import LakeError
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake import ledger
from embedding_core.lake.index.broken import drop_broken_indexes
from embedding_core.lake.ownership.owner import open_owned
from embedding_core.lake.rows.embedded import EMBEDDED_COLUMNS, embedded_texts
from embedding_core.lake.spaces.filling import KNOWN, PlacedVectors, fill_fragment, fragment_rows
from embedding_core.lake.spaces.vector_columns import (
    add_column,
    field_of,
    missing_rows,
    spaces,
)
from embedding_core.lake.table import Table
from embedding_core.lake.vectors import to_numpy
from embedding_core.plurals import counted
from embedding_core.reasons import TRUNCATED
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.records import Reject, StageSeconds
from embedding_core.runs.encode import Block, EncodedBlock, encode_blocks
from embedding_core.runs.job import Job, settled
from embedding_core.runs.prepared import prepared
from embedding_core.runs.serving import recognised
from embedding_core.watch.spans import span
from embedding_core.watch.stopwatch import Stopwatch
from embedding_core.watch.subject import working_on

REJECTS_PER_COMMIT = 50_000
"""Rejects that wait in memory, some 20 MB of them."""
ROWS_PER_TASK = 4_096
"""Small fragments are packed to about this many rows for one task."""
COLUMNS = [*EMBEDDED_COLUMNS, "text_hash", "source_uri", "doc_id", "chunk_index"]


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
    stages: StageSeconds
    """Where the time went; ``write`` has the commit, too."""


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
    stages: StageSeconds
    """Where the time of filling went, all workers together."""
    cost: float | None
    """What that work costs; None without a price."""


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
    while todo := fragments_to_fill(job, {fragment.fragment_id for fragment in done}):
        done += [backfill_fragment(job, fragment_id) for group in todo for fragment_id in group]
    return space_report(job, done, started)


def fragments_to_fill(job: Job, tried: Collection[int] = ()) -> list[tuple[int, ...]]:
    """Fragments with rows that lack a vector of the job's space, in groups for one task each.

    Small ones are packed to ``ROWS_PER_TASK`` rows. Those in ``tried`` are left out: what they
    still lack is text without a vector.
    """
    missing = missing_rows(job.table.dataset(), job.space_id)
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
    table = job.table
    stages = sum((fragment.stages for fragment in done), StageSeconds())
    dataset = table.dataset()
    column, missing = field_of(dataset, job.space_id), missing_rows(dataset, job.space_id)
    if not missing:  # rows that an earlier attempt found no vector for have one, or are gone
        ledger.drop_rejects(table, [_why_missing(job, reason) for reason in FAILURES])
    return SpaceReport(
        column=column.name if column is not None else "",
        space_id=job.space_id,
        fragments=sum(fragment.rows > 0 for fragment in done),
        rows=sum(fragment.rows for fragment in done),
        encoded=sum(fragment.encoded for fragment in done),
        tokens=sum(fragment.tokens for fragment in done),
        truncated=sum(fragment.truncated for fragment in done),
        missing_rows=sum(missing.values()),
        seconds=time.perf_counter() - started,
        stages=stages,
        cost=stages.cost(job.price_per_hour),
    )


def begin_space(recipe: Recipe, model: ModelSpec, resources: Resources, run_id: str) -> Job:
    """Add the space's column when it is missing; what every fragment's task needs.

    The job's recipe names ``model``. Errors as ``build_space``.
    """
    job = space_job(recipe, model, resources, run_id)
    add_space(job)
    return job


def add_space(job: Job, check: Callable[[], None] = lambda: None) -> None:
    """Add the column of the job's space when it is missing: metadata alone. Indexes that cannot be
    used are dropped first; a filter would fail. ``check``: see ``add_column``."""
    space, table = prepared(job).model.space, job.table
    drop_broken_indexes(table.open())
    add_column(table, space, job.recipe.model, job.run_id, check)


def space_job(
    recipe: Recipe,
    model: ModelSpec,
    resources: Resources,
    run_id: str,
    price_per_hour: float | None = None,
) -> Job:
    """The work of embedding a table's rows with ``model``; nothing is changed. Errors as
    ``build_space``."""
    snapshot = open_owned(recipe)
    if not snapshot.n_rows:
        table = snapshot.table
        raise LakeError(
            f"table {table.name!r} in {table.lake.uri} has no rows to embed", action="embed"
        )
    model = recognised(model, spaces(snapshot))
    info = describe_model(model)
    fixed = recipe.model_copy(update={"model": model.pinned(info.space.revision)})
    return Job(
        fixed,
        settled(resources),
        space_id(info.space),
        "",
        run_id,
        price_per_hour=price_per_hour,
    )


def backfill_fragment(job: Job, fragment_id: int) -> FilledFragment:
    """Fill the job's space for one fragment and commit it; see ``fill_fragment`` for what may go on
    meanwhile. Memory is bounded by some blocks of rows and the vectors of repeated texts."""
    with (
        working_on(job.run_id),
        span("backfill", job.trace, run=job.run_id, fragment=fragment_id),
    ):
        return _backfilled(job, fragment_id)


def _backfilled(job: Job, fragment_id: int) -> FilledFragment:
    watch, table = Stopwatch("write"), job.table
    with watch.stage("load"):
        encoder = prepared(job).encoder()
    used_before = encoder.work
    log = _FillLog(job, encoder.space.max_tokens)
    with watch.stage("read"):
        repeated = _repeated(table, fragment_id)
    blocks = watch.each("read", _blocks(job, table, fragment_id, encoder.space.dim))
    encoded = watch.each("forward", encode_blocks(encoder, blocks, repeated))
    filled = fill_fragment(table, job.space_id, fragment_id, _logged(log, table, encoded))
    token_wait = encoder.work.since(used_before).token_wait_seconds
    watch.move(token_wait, "forward", "tokenise")
    return FilledFragment(
        fragment_id=fragment_id,
        rows=filled.rows if filled.committed else 0,
        missing_rows=filled.missing_rows,
        encoded=log.tally["encoded"],
        tokens=log.tally["tokens"],
        truncated=log.tally["truncated"],
        stages=watch.read(),
    )


def _label(job: Job) -> str:
    return f"space {job.space_id[:SHOWN_DIGITS]} ({job.recipe.model.name})"


def _why_missing(job: Job, reason: str) -> str:
    return f"{_label(job)}: {FAILURES[reason]}"


def _repeated(table: Table, fragment_id: int) -> frozenset[str]:
    """Hashes of texts that stand in several rows of a fragment."""
    batches = fragment_rows(table, fragment_id, ["text_hash"])
    chunks = [batch.column("text_hash") for _, batch in batches]
    counts = pc.value_counts(pa.chunked_array(chunks, pa.string()))
    often = counts.filter(pc.greater(counts.field("counts"), 1))
    return frozenset(often.field("values").to_pylist())


@dataclass(frozen=True, slots=True)
class _FragmentRows:
    offsets: npt.NDArray[np.int64]
    """(n_rows,) places in the fragment."""
    columns: pa.RecordBatch


def _blocks(job: Job, table: Table, fragment_id: int, dim: int) -> Iterator[Block[_FragmentRows]]:
    """The fragment's rows in their order."""
    for offsets, columns in fragment_rows(table, fragment_id, COLUMNS, job.space_id):
        rows = _FragmentRows(offsets, columns)
        texts, hashes = embedded_texts(columns), columns.column("text_hash").to_pylist()
        if KNOWN in columns.schema.names:
            stored = columns.column(KNOWN)
            has_vector = stored.is_valid().to_numpy(zero_copy_only=False)
            yield Block(rows, texts, hashes, has_vector, partial(to_numpy, stored))
        else:
            yield Block.without_vectors(rows, texts, hashes, dim)


@dataclass(slots=True)
class _FillLog:
    """What became of a fragment's rows so far."""

    job: Job
    max_tokens: int
    """The model reads so many tokens of a text."""
    tally: Counter[str] = field(default_factory=Counter)
    rejects: list[Reject] = field(default_factory=list)

    def add(self, block: EncodedBlock[_FragmentRows]) -> None:
        """Count a block; note the rows without a vector and those whose text was cut."""
        self.tally["encoded"] += int(block.computed.sum())
        self.tally["tokens"] += block.n_tokens
        for index in np.flatnonzero(block.truncated).tolist():
            if index not in block.failures:
                detail = (
                    f"only the first {counted(self.max_tokens, 'token is', 'tokens are')} in "
                    "the vector"
                )
                self._reject(block, index, TRUNCATED.name, f"{_label(self.job)}: {detail}")
                self.tally["truncated"] += 1
        for index, reason in block.failures.items():
            self._reject(block, index, reason, _why_missing(self.job, reason))

    def _reject(
        self, block: EncodedBlock[_FragmentRows], index: int, reason: str, detail: str
    ) -> None:
        (row,) = block.rows.columns.slice(index, 1).to_pylist()
        self.rejects.append(
            Reject(row["source_uri"], row["doc_id"], None, reason, detail, row["chunk_index"])
        )


def _logged(
    log: _FillLog, table: Table, blocks: Iterator[EncodedBlock[_FragmentRows]]
) -> Iterator[PlacedVectors]:
    """The vectors; rejects are listed as they go, so before the vectors are committed."""
    for block in blocks:
        log.add(block)
        yield PlacedVectors(block.rows.offsets, block.vectors)
        if len(log.rejects) >= REJECTS_PER_COMMIT:
            ledger.add_rejects(table, log.rejects, log.job.run_id)
            log.rejects.clear()
    if log.rejects:
        ledger.add_rejects(table, log.rejects, log.job.run_id)
