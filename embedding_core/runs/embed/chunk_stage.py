"""One work unit from source to staged rows: read, render, cut, count. No model, no table."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, TypeAlias

import pyarrow as pa

from embedding_core.chunking import Chunker, LengthResult, Tokenizer, apply_length_policy
from embedding_core.errors import RejectedInput
from embedding_core.identity import chunk_id, text_hash
from embedding_core.lake import schema, staging
from embedding_core.plurals import counted
from embedding_core.reasons import (
    CHOSEN,
    DUPLICATE_TEXT,
    LENGTH_REFUSED,
    OVER_LENGTH,
    TRUNCATED,
    UNKNOWN_TOKENS,
)
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
from embedding_core.runs.choosing.reading import LeftOut, ignore, read_chosen
from embedding_core.runs.cutting import Cutting
from embedding_core.runs.embed.slices import UsedIds
from embedding_core.runs.job import Job, unit_attributes
from embedding_core.runs.prepared import Prepared, prepared
from embedding_core.watch.spans import span
from embedding_core.watch.stopwatch import Stopwatch
from embedding_core.watch.subject import current_subject, working_on

Read: TypeAlias = Document | Reject | LeftOut
"""What reading a file gives."""

MOSTLY_UNKNOWN = 0.5
"""Share of a chunk's characters in unknown tokens from which it is listed as such."""

RECORDS_AHEAD, CHARACTERS_AHEAD = 64, 1_000_000
"""Records that are read before they are cut: so many, or fewer when they are as long together."""

ROWS_PER_BATCH = 1_024
"""Rows per staged record batch: about 2 MB of text at 512 tokens a row."""


def chunk_unit(job: Job, unit: WorkUnit) -> StagedUnit:
    """Read and cut the unit's files into one staged Arrow file; memory is bounded by a batch.

    A bad record or file becomes a reject and the others go on. Raises ``Transient`` when a store
    fails and ``ModelError`` when the model is not the planned one.
    """
    with (
        working_on(job.run_id, unit.unit_id, unit.only_file),
        span("chunk", job.trace, **unit_attributes(job, unit)),
    ):
        return _chunked(job, unit)


def _chunked(job: Job, unit: WorkUnit) -> StagedUnit:
    watch = Stopwatch("chunk")
    table, ready = job.table, prepared(job)
    ready.check_map()
    path = staging.staged_path(table, unit.unit_id)
    reject_path = staging.staged_path(table, unit.unit_id, "rejects.arrow")
    arrow_schema = schema.row_schema(job.recipe)
    with staging.reject_writer(table, reject_path) as rejects:
        work = ChunkedFiles(
            job.recipe, ready.cutting, ready.chunker, ServingModel.of(ready), rejects, watch
        )
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
        stages=watch.read(),
    )


@dataclass(frozen=True, slots=True)
class ServingModel:
    """The model that embeds the chunks; another model's tokenizer may cut them."""

    tokenizer: Tokenizer
    limit: int
    reads_all: bool
    """Whether it reads every chunk that fits the limit of the tokenizer that cuts."""

    @classmethod
    def of(cls, ready: Prepared) -> ServingModel:
        """The job's model. It counts for itself unless it reads all that the cutter lets pass."""
        space, cutting = ready.model.space, ready.cutting
        counts_alike = (cutting.digest, cutting.prompt) == (space.tokenizer, space.document_prompt)
        reads_all = counts_alike and cutting.limit <= space.max_tokens
        return cls(ready.model.tokenizer, space.max_tokens, reads_all)

    def cut_off(self, cut: LengthResult) -> Iterator[tuple[Chunk, str]]:
        """Chunks of which the model reads only the beginning, with the details of their rejects."""
        if self.reads_all:
            yield from cut.truncated
            return
        chunks = cut.kept
        counts = self.tokenizer.count([chunk.embedded for chunk in chunks])
        for chunk, n_tokens in zip(chunks, counts, strict=True):
            if n_tokens > self.limit:
                yield (
                    chunk,
                    f"{counted(n_tokens, 'token')} of the model in service, which reads "
                    f"{self.limit:,}: its "
                    "vector covers the beginning; to cut anew, set chunk.tokenizer to that model",
                )

    def unreadable(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, str]]:
        """Chunks that are unknown tokens for the most part, with the details of their rejects."""
        shares = self.tokenizer.unknown_shares([chunk.text for chunk in chunks])
        for chunk, share in zip(chunks, shares, strict=True):
            if share >= MOSTLY_UNKNOWN:
                yield (
                    chunk,
                    f"{share:.0%} of its characters are unknown tokens to the model, which sees "
                    "the same whatever they are: its vector says little of the text; use a model "
                    "that knows its language and its words",
                )


class RejectSink(Protocol):
    """Takes rejects as they come."""

    def add(self, reject: Reject) -> None:
        """Take one reject."""
        ...


@dataclass(slots=True)
class ChunkedFiles:
    """How a unit is cut, and what its files gave so far."""

    recipe: Recipe
    cutting: Cutting
    chunker: Chunker
    model: ServingModel
    rejects: RejectSink
    watch: Stopwatch = field(default_factory=lambda: Stopwatch("chunk"))
    counts: list[FileCounts] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    """Rejects by reason, of files that were read to their end."""
    file_rejects: list[Reject] = field(default_factory=list)
    ids: UsedIds = field(default_factory=UsedIds)
    """Filled for a slice of a file."""
    rejected_keys: list[str] = field(default_factory=list)


def _batches(
    work: ChunkedFiles, unit: WorkUnit, arrow_schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    rows: list[dict[str, object]] = []
    for planned in unit.files:
        for row in file_rows(work, planned, unit.slice):
            rows.append(row)
            if len(rows) == ROWS_PER_BATCH:
                yield pa.RecordBatch.from_pylist(rows, schema=arrow_schema)
                rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=arrow_schema)


def file_rows(
    work: ChunkedFiles, planned: PlannedFile, slice_: Slice | None
) -> Iterator[dict[str, object]]:
    """A file's rows. Notes its counts at its end, or that it was rejected as a whole."""
    gave, subject = FileTally(), current_subject()
    tally, reasons = gave.tally, gave.reasons
    outer_file, subject.file = subject.file, planned.file.uri
    try:
        note = ignore if slice_ is None else work.ids.add
        records = read_chosen(planned, work.recipe.source, slice_, note)
        for record in read_ahead(records, work.watch):
            if isinstance(record, LeftOut):
                tally["left_out"] += record.documents
            elif isinstance(record, Reject):
                tally["duplicates"] += record.reason == DUPLICATE_TEXT.name
                tally["rejected"] += record.reason not in CHOSEN
                work.rejects.add(record)
                reasons[record.reason] += 1
            else:
                tally["documents"] += 1
                yield from document_rows(work, planned, record, gave)
    except RejectedInput as error:
        if slice_ is not None and error.reason == LENGTH_REFUSED.name:
            # The ids of the other records are noted: the long one may be one too many of its id.
            with suppress(RejectedInput):
                deque(records, maxlen=0)
        uri = planned.file.uri
        work.file_rejects.append(Reject(uri, None, None, error.reason, error.detail))
        work.rejected_keys.append(planned.file_key)
        tally, reasons = Counter({"rejected": 1}), Counter({error.reason: 1})
    subject.file = outer_file
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
            duplicates=tally["duplicates"],
            left_out=tally["left_out"],
        )
    )


def read_ahead(records: Iterable[Read], watch: Stopwatch) -> Iterator[Read]:
    """The records, read some at a time, so that the clock is looked at once for all of them.

    An error comes after the records before it.
    """
    remaining, error = iter(records), None
    while True:
        group: list[Read] = []
        with watch.stage("read"):
            try:
                n_chars = 0
                for record in islice(remaining, RECORDS_AHEAD):
                    group.append(record)
                    n_chars += len(record.text) if isinstance(record, Document) else 0
                    if n_chars >= CHARACTERS_AHEAD:
                        break
            except RejectedInput as rejected:
                error = rejected
        yield from group
        if error is not None:
            raise error
        if not group:
            return


@dataclass(slots=True)
class FileTally:
    """Counts of a file so far."""

    tally: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


def document_rows(
    work: ChunkedFiles, planned: PlannedFile, document: Document, gave: FileTally
) -> Iterator[dict[str, object]]:
    """A document's rows. Counts them and what the length policy leaves out in ``gave``."""
    for chunk in cut_document(work, planned, document, gave).kept:
        yield _row(planned, document, chunk)


def cut_document(
    work: ChunkedFiles, planned: PlannedFile, document: Document, gave: FileTally
) -> LengthResult:
    """A document's chunks. Counts them and what the length policy leaves out in ``gave``."""
    policy, cutting = work.recipe.model.over_length, work.cutting
    chunks = work.chunker.chunk(document)
    cut = apply_length_policy(chunks, policy, cutting.tokenizer, cutting.limit)
    if policy == "error" and cut.dropped:
        raise _length_refused(document, *cut.dropped[0])
    tally = gave.tally
    tally["chunks"] += len(cut.kept) + len(cut.dropped)
    tally["dropped"] += len(cut.dropped)
    left_out = {
        OVER_LENGTH: cut.dropped,
        TRUNCATED: tuple(work.model.cut_off(cut)),
        UNKNOWN_TOKENS: tuple(work.model.unreadable(cut.kept)),
    }
    with_text = work.recipe.keep_rejected_texts
    for reason, rejected in left_out.items():
        if not rejected:
            continue
        gave.reasons[reason.name] += len(rejected)
        for chunk, detail in rejected:
            work.rejects.add(
                Reject(
                    planned.file.uri,
                    document.doc_id,
                    document.position,
                    reason.name,
                    detail,
                    chunk.index,
                    chunk.n_tokens,
                    chunk.text if with_text else None,
                )
            )
    tally["tokens"] += sum(min(chunk.n_tokens, cutting.limit) for chunk in cut.kept)
    return cut


def _length_refused(document: Document, chunk: Chunk, detail: str) -> RejectedInput:
    """Why a file is rejected as a whole when ``model.over_length`` is ``error``."""
    return RejectedInput(
        LENGTH_REFUSED,
        f"record {document.position:,}, id {document.doc_id!r}, chunk {chunk.index:,}: {detail}; "
        "shorten it, or set model.over_length to drop, truncate or split",
    )


def _row(planned: PlannedFile, document: Document, chunk: Chunk) -> dict[str, object]:
    hashed = text_hash(chunk.embedded)
    uri = planned.file.uri
    return {
        "chunk_id": chunk_id(uri, document.doc_id, chunk.index, hashed),
        "file_key": planned.file_key,
        "source_uri": uri,
        "doc_id": document.doc_id,
        "chunk_index": chunk.index,
        "text": chunk.text,
        "context": chunk.context,
        "text_hash": hashed,
        "n_tokens": chunk.n_tokens,
        "char_start": chunk.char_start,
        "char_end": chunk.char_end,
        **document.metadata,
        **chunk.metadata,
    }
