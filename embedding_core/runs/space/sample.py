"""Rows of a table with the vectors of two spaces, to judge a model before all are embedded.

Which rows is decided by their ``chunk_id``: a digest, so rows below a threshold are a random
sample, the same one for every task, and the scalar index finds them. Rows of documents that
labelled queries were judged on are added, since a small sample would hold few of them. The vectors
are staged beside the lake, never put into the table.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa

from embedding_core.errors import UsageError
from embedding_core.lake import schema, staging
from embedding_core.lake.rows.embedded import embedded_texts
from embedding_core.lake.scans import has_text, key_groups, rows_between, to_judged
from embedding_core.lake.spaces.bridges import keep_bridge
from embedding_core.lake.table import Table
from embedding_core.lake.vectors import to_lists
from embedding_core.protocols import Corpus, JudgedRows
from embedding_core.quality.bridge import Bridge, fit_bridge
from embedding_core.quality.judgement import GateReport, judge
from embedding_core.quality.labels import read_labels
from embedding_core.recipe import Recipe
from embedding_core.runs.encode import Block, encode_blocks
from embedding_core.runs.job import Job
from embedding_core.runs.prepared import prepared
from embedding_core.runs.serving import serving_model
from embedding_core.runs.space.sides import side_of

FEWEST_ROWS = 1_000
"""A smaller sample says little; a table with fewer rows is taken whole."""
ROWS_PER_PART = 4_096
"""Rows that one task embeds."""
ROWS_PER_BATCH = 1_024
DIGITS = 12
"""Hex digits of a ``chunk_id`` that a threshold has."""
SEED = 0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SamplePart:
    """What one task embeds."""

    number: int
    low: str
    """Rows whose ``chunk_id`` is at least this …"""
    high: str
    """… and below that."""
    doc_ids: tuple[str, ...] = ()
    """If there are any: only rows of these documents."""


@dataclass(frozen=True, slots=True)
class SampledPart:
    """What became of it."""

    path: str
    """URI of an Arrow stream: ``chunk_id``, ``doc_id``, ``text``, ``old``, ``new``, and ``title``
    where the table has that column."""
    rows: int
    tokens: int
    seconds: float


def choose_sample(job: Job, share: float) -> tuple[SamplePart, ...]:
    """Cut a sample of about ``share`` of the rows, at least ``FEWEST_ROWS``, into parts.

    To these come the rows of documents that the recipe's labelled queries judge relevant, of some
    queries chosen by a seed: at most as many documents as the sample has rows. Raises
    ``UsageError`` for a wrong share and for malformed labels.
    """
    if not 0 < share <= 1:
        raise UsageError(f"the sample is {share} of the rows; give a share like 0.05, or 5%")
    n_rows = job.table.dataset().count_rows()
    share = min(1.0, max(share, FEWEST_ROWS / max(1, n_rows)))
    n_parts = math.ceil(share * n_rows / ROWS_PER_PART)
    edges = [_threshold(share * n / n_parts) for n in range(n_parts + 1)]
    parts = [SamplePart(n, *edge) for n, edge in enumerate(pairwise(edges))]
    if share == 1.0:
        return tuple(parts)
    for doc_ids in key_groups(_judged(job.recipe, math.ceil(share * n_rows))):
        parts.append(SamplePart(len(parts), edges[-1], _threshold(1.0), tuple(doc_ids)))
    return tuple(parts)


def _threshold(share: float) -> str:
    """The ``chunk_id`` below which that share of all digests lies."""
    return "g" if share >= 1.0 else f"{int(share * 16**DIGITS):0{DIGITS}x}"


def _judged(recipe: Recipe, most: int) -> set[str]:
    """Relevant documents of whole queries, in a random order, as long as there is room."""
    if recipe.release.queries is None:
        return set()
    grades = list(read_labels(recipe).grades.values())
    judged: set[str] = set()
    for query in np.random.default_rng(SEED).permutation(len(grades)):
        relevant = {document for document, grade in grades[query].items() if grade > 0}
        if len(judged | relevant) <= most:
            judged |= relevant
    return judged


def embed_sample(job: Job, sample_part: SamplePart) -> SampledPart:
    """Embed a part's rows with the job's model and stage them with the vectors in service.

    Memory is bounded by some batches. Raises ``LakeError`` when the store fails or the table's
    columns changed meanwhile, ``ModelError`` for a model that is not the one planned.
    """
    started = time.perf_counter()
    table, encoder = job.table, prepared(job).encoder()
    snapshot = table.open()
    names = ["chunk_id", "doc_id", "text", schema.VECTOR]
    names += [name for name in ("title",) if has_text(snapshot.schema, name)]
    fields = [snapshot.schema.field(name) for name in names]
    old = [pa.field("old", kept.type) if kept.name == schema.VECTOR else kept for kept in fields]
    new = pa.field("new", pa.list_(pa.float32(), encoder.space.dim))
    arrow_schema = pa.schema([*old, new])
    read = [*names, "context", "text_hash"]
    batches = rows_between(
        snapshot, sample_part.low, sample_part.high, sample_part.doc_ids, read, ROWS_PER_BATCH
    )
    tally: Counter[str] = Counter()

    def sampled() -> Iterator[pa.RecordBatch]:
        blocks = _blocks(batches, names, encoder.space.dim)
        for block in encode_blocks(encoder, blocks):
            tally.update(rows=block.rows.num_rows, tokens=block.n_tokens)
            missing = np.isin(np.arange(block.rows.num_rows), list(block.failures))
            vectors = to_lists(block.vectors, new.type, empty=missing)
            columns = [*block.rows.columns, vectors]
            yield pa.RecordBatch.from_arrays(columns, schema=arrow_schema)

    path = staging.staged_path(table, sample_unit(job), f"{sample_part.number}.arrow")
    staging.write_staged(table, path, arrow_schema, sampled())
    return SampledPart(path, tally["rows"], tally["tokens"], time.perf_counter() - started)


def _blocks(
    batches: Iterator[pa.RecordBatch], names: Sequence[str], dim: int
) -> Iterator[Block[pa.RecordBatch]]:
    """Rows with the columns ``names``, none with a vector of the model."""
    for batch in batches:
        hashes = batch.column("text_hash").to_pylist()
        yield Block.without_vectors(batch.select(names), embedded_texts(batch), hashes, dim)


def sample_unit(job: Job) -> str:
    """Name of the staged folder: of the space and the run."""
    return f"sample-{job.space_id}-{job.run_id}"


def _read(table: Table, paths: Sequence[str]) -> Iterator[JudgedRows]:
    for path in paths:
        yield from map(to_judged, staging.read_staged(table, path))


def forget_sample(job: Job) -> None:
    """Remove what was staged."""
    staging.drop_staged(job.table, [sample_unit(job)])


def judge_sample(job: Job, parts: Sequence[SampledPart]) -> GateReport:
    """Judge the job's model by the sampled rows, against the space in service.

    A bridge between the spaces is fitted to the rows and kept beside the table if it keeps enough.
    """
    snapshot = job.table.open()
    identifier, space = snapshot.space()
    serving = serving_model(job.recipe, snapshot).model
    planned = prepared(job).model.space
    n_rows = sum(sampled.rows for sampled in parts)
    rows = partial(_read, snapshot.table, tuple(sampled.path for sampled in parts))
    bridge = _bridge(rows, planned.dim, space.dim)
    report = judge(
        job.recipe,
        rows,
        side_of(schema.VECTOR, space, serving, job.resources),
        side_of(schema.hidden_name(job.space_id), planned, job.recipe.model, job.resources),
        sampled_share=n_rows / snapshot.n_rows,
        bridge=bridge,
    )
    if bridge is not None and report.bridge is not None and report.bridge.is_enough:
        keep_bridge(snapshot.table, job.space_id, identifier, bridge.matrix)
    return report


def _bridge(rows: Corpus, new_dim: int, old_dim: int) -> Bridge | None:
    """The bridge by the rows; None, with a line in the log, when they are too few."""
    try:
        return fit_bridge(rows, new_dim, old_dim)
    except UsageError as error:
        log.warning("no bridge to the space in service: %s", error)
        return None
