"""A file's documents: the whole file or a slice of it, and how it can be sliced."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import RawIOBase

from embedding_core.errors import RejectedInput
from embedding_core.reasons import CHOSEN
from embedding_core.recipe import SourceSpec
from embedding_core.recipe.formats import KNOWN_FORMATS
from embedding_core.records import Document, Reject, Slice, SourceFile
from embedding_core.sources.formats.format import Fields, Flaw, ReadsRows, Record, Rows
from embedding_core.sources.formats.recognition import recognised
from embedding_core.sources.formats.waste import Waste
from embedding_core.sources.mapping.batches import takes_batches
from embedding_core.sources.mapping.mapper import RecordMapper
from embedding_core.sources.mapping.user_map import MappedRecord, mapped
from embedding_core.store.places import place_of
from embedding_core.store.storage import StorageSpec

SMALLEST_SLICE_BYTES = 1024 * 1024
"""However small units are: below this, a task costs more than its slice."""


def read_documents(
    file: SourceFile, spec: SourceSpec, piece: Slice | None = None
) -> Generator[Document | Reject, None, None]:
    """Stream one file, or a slice of it: a document or a reject per record, in file order.

    Memory is bounded by one record or batch, plus 16 bytes hashed per declared id. Raises
    ``UsageError`` when the function of ``source.map`` cannot be loaded,
    ``RejectedInput`` when the file as a whole is bad, possibly after some documents were yielded
    (compressed data that ends early, a file that changed meanwhile, one that gives hardly anything
    but rejects): none of them counts then. Raises ``Transient`` when the store cannot be reached.
    Of a slice, whoever puts the slices together calls ``check_unchanged``.
    """
    used_ids = [bytes.fromhex(digest) for digest in piece.used_ids] if piece is not None else []
    mapper = RecordMapper(spec, file.uri, used_ids)
    opened = _unchanging(file, spec.storage) if piece is None else _opened(file, spec.storage)
    with opened as stream:
        source = recognised(stream, file, spec)
        span = piece.span if piece is not None else None
        if takes_batches(spec) and isinstance(source.format, ReadsRows):
            rows = source.format.rows(source.stream, file, mapper.fields, span)
            yield from _documents(rows, mapper)
            return
        records = source.format.records(source.stream, file, mapper.fields, span)
        yield from _documents(records if spec.map is None else mapped(spec.map, records), mapper)


def raw_records(file: SourceFile, spec: SourceSpec) -> tuple[str, Iterator[Record | Flaw]]:
    """The name of a file's format, and its records with all their fields, before any mapping.

    Opening and reading raise ``RejectedInput`` for a bad file, ``Transient`` when the store fails.
    """
    with _opened(file, spec.storage) as stream:
        format = recognised(stream, file, spec).format
    formats = KNOWN_FORMATS.working().items()
    name = next(key for key, reader in formats if type(reader) is type(format))
    return name, _raw_records(file, spec)


def _raw_records(file: SourceFile, spec: SourceSpec) -> Iterator[Record | Flaw]:
    with _opened(file, spec.storage) as stream:
        source = recognised(stream, file, spec)
        yield from source.format.records(source.stream, file, Fields((), everything=True))


def slices(file: SourceFile, spec: SourceSpec, unit_bytes: int) -> tuple[Slice, ...]:
    """The file in slices of about ``unit_bytes``; none for a file that is read as a whole.

    Which record is in which slice changes neither its position nor its id. A file that cannot be
    read is not sliced either: whoever reads it says why. Raises ``Transient`` when the store fails.
    """
    size = max(unit_bytes, SMALLEST_SLICE_BYTES)
    if file.size_bytes < 2 * size:
        return ()
    try:
        with _opened(file, spec.storage) as stream:
            spans = recognised(stream, file, spec).spans(file, size)
    except (RejectedInput, OSError):
        return ()
    if len(spans) < 2:
        return ()
    return tuple(Slice(number, len(spans), span) for number, span in enumerate(spans))


def bytes_per_record(file: SourceFile, spec: SourceSpec) -> float | None:
    """Stored bytes per record, for estimates; None where it cannot be told.

    Raises ``RejectedInput`` when the file cannot be opened, ``Transient`` when the store fails.
    """
    with _opened(file, spec.storage) as stream:
        return recognised(stream, file, spec).bytes_per_record(file)


def check_unchanged(file: SourceFile, storage: StorageSpec) -> None:
    """Raise ``RejectedInput`` when the file is no longer the listed one."""
    place_of(file.uri).check_unchanged(file, storage)


def _opened(file: SourceFile, storage: StorageSpec) -> AbstractContextManager[RawIOBase]:
    return place_of(file.uri).open(file, storage)


@contextmanager
def _unchanging(file: SourceFile, storage: StorageSpec) -> Iterator[RawIOBase]:
    """The file as a stream; raises ``RejectedInput`` when it changed before the last read, whatever
    its format made of that: a file that is just being written looks damaged."""
    try:
        with _opened(file, storage) as stream:
            yield stream
    except RejectedInput:
        check_unchanged(file, storage)
        raise
    check_unchanged(file, storage)


def _documents(
    records: Iterator[Rows | Record | Flaw] | Iterator[MappedRecord | Flaw], mapper: RecordMapper
) -> Iterator[Document | Reject]:
    waste = Waste("rejected records")
    for record in records:
        if not isinstance(record, Rows):
            yield _counted(mapper.map(record), waste)
        elif (documents := mapper.documents(record)) is not None:
            waste.use(n=record.n_rows)
            yield from documents
        else:
            for single in record.records():
                yield _counted(mapper.map(single), waste)


def _counted(document: Document | Reject, waste: Waste) -> Document | Reject:
    if isinstance(document, Document) or document.reason in CHOSEN:
        waste.use()
    else:
        waste.waste()
    return document
