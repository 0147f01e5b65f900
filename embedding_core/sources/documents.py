"""Which reader reads which file, and the one way to stream a file's documents."""

from __future__ import annotations

from collections.abc import Iterator

from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject, Slice, SourceFile
from embedding_core.sources.formats.format import Flaw, Reader, Record, SliceReader
from embedding_core.sources.formats.jsonl import (
    read_gzip_json_lines,
    read_json_lines,
    read_json_lines_slice,
)
from embedding_core.sources.formats.parquet import read_parquet, read_parquet_slice
from embedding_core.sources.formats.text import read_text
from embedding_core.sources.formats.waste import Waste
from embedding_core.sources.mapping import RecordMapper
from embedding_core.sources.opening import open_source, open_unchecked

READERS: dict[str, Reader] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".jsonl.gz": read_gzip_json_lines,
    ".ndjson.gz": read_gzip_json_lines,
    ".parquet": read_parquet,
    ".txt": read_text,
    ".md": read_text,
}
"""Readers by the end of a file's name, upper or lower case."""

SLICE_READERS: dict[Reader, SliceReader] = {
    read_json_lines: read_json_lines_slice,
    read_parquet: read_parquet_slice,
}
"""For formats that can be read in slices, how."""


def read_documents(
    file: SourceFile, spec: SourceSpec, part: Slice | None = None
) -> Iterator[Document | Reject]:
    """Stream one file, or a slice of it: a document or a reject per record, in file order.

    Memory is bounded by one record or batch, plus 16 bytes hashed per declared id. Raises
    ``RejectedInput`` when the file as a whole is bad, possibly after some documents were yielded
    (a truncated gzip, a file that changed meanwhile, one that gives hardly anything but rejects):
    none of them counts then. Raises
    ``Transient`` when the store cannot be reached. Of a slice, whoever puts the slices together
    calls ``check_unchanged``.
    """
    reader = _reader(file.uri)
    if part is not None:
        mapper = RecordMapper(spec, file.uri, frozenset(part.duplicates))
        with open_unchecked(file, spec) as stream:
            yield from _mapped(SLICE_READERS[reader](stream, file, mapper.fields, part), mapper)
        return
    mapper = RecordMapper(spec, file.uri)
    with open_source(file, spec) as stream:
        yield from _mapped(reader(stream, file, mapper.fields), mapper)


def _mapped(records: Iterator[Record | Flaw], mapper: RecordMapper) -> Iterator[Document | Reject]:
    waste = Waste("rejected records")
    for record in records:
        document = mapper.map(record)
        if isinstance(document, Document):
            waste.use()
        else:
            waste.waste()
        yield document


def _reader(uri: str) -> Reader:
    name = uri.rpartition("/")[2].lower()
    for suffix, reader in READERS.items():
        if name.endswith(suffix):
            return reader
    raise RejectedInput(
        "unknown_format", f"{name!r} is none of {', '.join(READERS)}; change source.include"
    )
