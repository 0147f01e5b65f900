"""Show what a file becomes: its records, their texts and chunks, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

from embedding_core.errors import RejectedInput, UsageError
from embedding_core.recipe import Recipe
from embedding_core.records import Document, PlannedFile, Reject, Scalar, SourceFile
from embedding_core.runs.embed.chunk_stage import ChunkedFiles, FileTally, document_rows
from embedding_core.runs.inputs.opening import (
    KeptRejects,
    as_planned,
    file_of_document,
    files_work,
    reading_job,
)
from embedding_core.runs.job import Job
from embedding_core.sources import read_documents
from embedding_core.sources.finding import file_named, first_file

RECORDS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class PeekedChunk:
    """A chunk as its row would have it."""

    chunk_id: str
    chunk_index: int
    """0-based place in its document."""
    char_start: int
    """Offset of the first character in the document's text, in characters, 0-based."""
    char_end: int
    n_tokens: int
    """Special tokens included."""
    text: str
    columns: Mapping[str, object]
    """Values of the row's other columns that are not the document's own."""


@dataclass(frozen=True, slots=True)
class PeekedRecord:
    """A record of the file: a document, or a reject."""

    position: int | None
    """0-based line or row."""
    doc_id: str | None
    text: str | None
    """The text that is cut; None for a record that was rejected."""
    metadata: Mapping[str, Scalar]
    chunks: tuple[PeekedChunk, ...]
    """Chunks that would be embedded."""
    rejects: tuple[Reject, ...]
    """Why the record, or a chunk of it, is left out or stands in the rejects."""


@dataclass(frozen=True, slots=True)
class Peek:
    """The first records of a file, or one document of it."""

    recipe: str
    source_uri: str
    size_bytes: int
    strategy: str
    """How documents are cut."""
    tokenizer: str
    """Model whose tokenizer counts."""
    max_tokens: int
    """Longest chunk that this model takes, special tokens included."""
    chunk_options: dict[str, Any]
    """What else the chunk section has set, its lengths resolved."""
    records: tuple[PeekedRecord, ...]
    has_more: bool
    """Whether the file has further records."""
    problem: str | None
    """Why the file is rejected as a whole, as far as it was read."""


def peek(
    recipe: Recipe,
    name: str | None = None,
    doc_id: str | None = None,
    n_records: int = RECORDS_SHOWN,
) -> Peek:
    """Read and cut the first records of a file; embeds nothing, needs no table, writes nothing.

    ``name`` is the file's URI or its path below the source, else the id of a document; without it
    the first file is read. With ``doc_id`` only that document is shown. Raises ``UsageError`` when
    there is no such file or no such document.
    """
    job = reading_job(recipe)
    spec = job.recipe.source
    file = None if name is None else file_named(spec, name)
    if file is None and name is not None and doc_id is not None:
        raise UsageError(
            f"{name!r} is no file of {spec.uri}; name it by its path below the source",
            action="plan",
        )
    if file is None:
        doc_id = doc_id or name
        file = first_file(spec) if doc_id is None else file_of_document(job, doc_id)
    work = files_work(job, KeptRejects())
    read, problem = _read(file, job, doc_id, n_records + 1)
    if doc_id is not None and not read and problem is None:
        raise UsageError(f"{file.uri} has no document {doc_id!r}; leave out the id to see some")
    planned = as_planned(job, file)
    return Peek(
        recipe=job.recipe.name,
        source_uri=file.uri,
        size_bytes=file.size_bytes,
        strategy=work.cutting.spec.strategy,
        tokenizer=work.cutting.model.name,
        max_tokens=work.cutting.limit,
        chunk_options={
            name: value
            for name, value in work.cutting.spec.hashed().items()
            if name != "strategy" and value
        },
        records=tuple(_peeked(record, planned, work) for record in read[:n_records]),
        has_more=len(read) > n_records,
        problem=problem,
    )


def _read(
    file: SourceFile, job: Job, doc_id: str | None, limit: int
) -> tuple[list[Document | Reject], str | None]:
    """The first records, and why the file is rejected as a whole if it is."""
    records: list[Document | Reject] = []
    try:
        records.extend(islice(_chosen(file, job, doc_id), limit))
    except RejectedInput as error:
        return records, str(error)
    return records, None


def _chosen(file: SourceFile, job: Job, doc_id: str | None) -> Iterator[Document | Reject]:
    for record in read_documents(file, job.recipe.source):
        if doc_id is None or record.doc_id == doc_id:
            yield record


def _peeked(record: Document | Reject, planned: PlannedFile, work: ChunkedFiles) -> PeekedRecord:
    if isinstance(record, Reject):
        return PeekedRecord(record.position, record.doc_id, None, {}, (), (record,))
    kept = KeptRejects()
    work.rejects = kept
    rows = list(document_rows(work, planned, record, FileTally()))
    return PeekedRecord(
        record.position,
        record.doc_id,
        record.text,
        record.metadata,
        tuple(_chunk(row, record) for row in rows),
        kept.taken(),
    )


def _chunk(row: dict[str, object], document: Document) -> PeekedChunk:
    named = {field.name for field in fields(PeekedChunk)} - {"columns"}
    of_document = {"file_key", "source_uri", "doc_id", "text_hash", *document.metadata}
    others = {
        name: value
        for name, value in row.items()
        if name not in named | of_document and value is not None
    }
    return PeekedChunk(**{name: row[name] for name in named}, columns=others)  # type: ignore[arg-type]
