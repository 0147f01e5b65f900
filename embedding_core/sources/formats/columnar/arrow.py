"""Arrow's own files: the IPC file (Feather) with its record batches, and the IPC stream.

Nothing in the data is believed before it was checked: Arrow would follow a wrong offset anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import SEEK_END, RawIOBase

import pyarrow as pa
import pyarrow.ipc as ipc

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import CORRUPT_ARROW
from embedding_core.recipe.formats import Format, FormatOptions
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.columnar.columns import Column, columns_of
from embedding_core.sources.formats.format import Fields, Fit, Record, Rows

BATCH_ROWS = 512
"""Rows turned into Python values at a time; bounds the memory for long texts."""
FILE_MAGIC = b"ARROW1"
STREAM_START = b"\xff\xff\xff\xff"
STREAM_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class Arrow:
    """Arrow IPC; a record's position is the number of its row. Spans are record batches of a file;
    a stream, which has no list of them, is read as a whole. Memory is bounded by a batch."""

    suffixes = (".arrow", ".feather", ".ipc", ".arrows")
    options = FormatOptions()
    is_text = False

    def fit(self, head: bytes, stream: RawIOBase) -> Fit:
        """See ``Format``."""
        is_arrow = head.startswith((FILE_MAGIC, STREAM_START))
        return Fit.CERTAIN if is_arrow else Fit.NONE

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record]:
        """See ``Format``."""
        for rows in self.rows(stream, file, fields, span):
            yield from rows.records()

    def rows(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Rows]:
        """See ``ReadsRows``."""
        if file.size_bytes == 0:
            raise RejectedInput(CORRUPT_ARROW, "the file has no bytes; write it again or remove it")
        with _corrupt():
            if _starts_with(stream, STREAM_START):
                schema, batches = _stream(stream, fields)
            else:
                schema, batches = _file(stream, fields, span)
            columns = columns_of(fields, schema)
            position = span.first_position if span is not None else 0
            for batch in batches:
                for part in _parts(_checked(batch, columns)):
                    values = {column.field: column.values(part) for column in columns}
                    yield Rows(position, values, part.num_rows)
                    position += part.num_rows

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """See ``Format``. Reads the smallest column, to count the rows."""
        if not _starts_with(stream, FILE_MAGIC):
            return
        with _corrupt():
            reader = _counting_reader(stream)
            per_batch = file.size_bytes / max(1, reader.num_record_batches)
            start = first = n_rows = 0
            for number in range(reader.num_record_batches):
                n_rows += reader.get_batch(number).num_rows
                is_last = number == reader.num_record_batches - 1
                if (number + 1 - start) * per_batch >= target_bytes or is_last:
                    yield Span(start, number + 1, first)
                    start, first = number + 1, n_rows

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``. Reads a batch."""
        with _corrupt():
            if _starts_with(stream, STREAM_START):
                reader = ipc.open_stream(pa.PythonFile(stream, mode="r"))
                n_rows = next((batch.num_rows for batch in reader), 0)
                return stream.tell() / n_rows if n_rows else None
            reader = ipc.open_file(pa.PythonFile(stream, mode="r"))
            n_batches = reader.num_record_batches
            n_rows = reader.get_batch(0).num_rows if n_batches else 0
            return file.size_bytes / (n_rows * n_batches) if n_rows else None


ARROW: Format = Arrow()


@contextmanager
def _corrupt() -> Iterator[None]:
    """Reject the file for an error of Arrow's."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of a column's name
        raise RejectedInput(CORRUPT_ARROW, words(error)) from error


def _starts_with(stream: RawIOBase, start: bytes) -> bool:
    """Whether the file begins so; the stream is at its beginning again."""
    stream.seek(0)
    first = stream.read(len(start))
    stream.seek(0)
    return first == start


def _file(
    stream: RawIOBase, fields: Fields, span: Span | None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    source = pa.PythonFile(stream, mode="r")
    reader = ipc.open_file(source)
    span = span or Span(0, reader.num_record_batches, 0)
    chosen = _reader_of(source, reader.schema, columns_of(fields, reader.schema))
    return reader.schema, (chosen.get_batch(number) for number in range(span.start, span.end))


def _reader_of(
    source: pa.NativeFile, schema: pa.Schema, columns: Sequence[Column]
) -> ipc.RecordBatchFileReader:
    """A reader of these columns alone."""
    numbers = sorted({schema.get_field_index(column.steps[0]) for column in columns})
    return ipc.open_file(source, options=ipc.IpcReadOptions(included_fields=numbers))


def _counting_reader(stream: RawIOBase) -> ipc.RecordBatchFileReader:
    """A reader of the column that takes the fewest bytes in the first batch."""
    source = pa.PythonFile(stream, mode="r")
    reader = ipc.open_file(source)
    if not reader.num_record_batches or not len(reader.schema):
        return reader
    columns = reader.get_batch(0).columns
    # Not ``nbytes``: it follows offsets, which nobody has checked yet.
    smallest = min(range(len(columns)), key=lambda n: columns[n].get_total_buffer_size())
    return ipc.open_file(source, options=ipc.IpcReadOptions(included_fields=[smallest]))


def _stream(stream: RawIOBase, fields: Fields) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    size = stream.seek(-len(STREAM_END), SEEK_END) + len(STREAM_END)
    if stream.read(len(STREAM_END)) != STREAM_END:
        raise RejectedInput(
            CORRUPT_ARROW,
            "the stream has no end: it was cut off, or its writer was not closed; write it again",
        )
    stream.seek(0)
    reader = ipc.open_stream(pa.PythonFile(stream, mode="r"))
    return reader.schema, _whole_stream(reader, stream, size)


def _whole_stream(
    reader: ipc.RecordBatchStreamReader, stream: RawIOBase, size: int
) -> Iterator[pa.RecordBatch]:
    yield from reader
    if stream.tell() != size:
        raise RejectedInput(
            CORRUPT_ARROW,
            f"the stream ends at byte {stream.tell()} of {size}; several streams in one file "
            "cannot be read, write them to a file each",
        )


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in parts of a few rows."""
    return (batch.slice(start, BATCH_ROWS) for start in range(0, batch.num_rows, BATCH_ROWS))


def _checked(batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.RecordBatch:
    """The batch, when none of its columns points outside its data. Raises ``ArrowInvalid``."""
    batch.validate()
    for column in columns:
        values = column.of(batch)
        text_as_bytes = BYTES_OF.get(values.type)
        # Bytes that are not UTF-8 cost a row, not the file.
        (values if text_as_bytes is None else values.view(text_as_bytes)).validate(full=True)
    return batch


BYTES_OF = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}
"""Types of bytes that texts can be looked at as."""
