"""Parquet: row batches of the needed columns only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import RawIOBase
from itertools import repeat

import pyarrow as pa
import pyarrow.parquet as pq

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import CORRUPT_PARQUET
from embedding_core.recipe.formats import Format, FormatOptions
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.columnar.columns import OUTSIDE, Column, columns_of
from embedding_core.sources.formats.format import Fields, Fit, Record, Rows

BATCH_ROWS = 512
"""Rows turned into Python values at a time; bounds the memory for long texts."""
MAGIC = b"PAR1"
READ_BYTES = 4 * 1024 * 1024
"""Bytes of a column read at a time: a row group may be as large as the file."""


class Parquet:
    """Parquet; a record's position is the number of its row. Spans are row groups."""

    suffixes = (".parquet",)
    options = FormatOptions()
    is_text = False

    def fit(self, head: bytes, stream: RawIOBase) -> Fit:
        """See ``Format``."""
        return Fit.CERTAIN if head.startswith(MAGIC) else Fit.NONE

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
            raise RejectedInput(
                CORRUPT_PARQUET, "the file has no bytes; write it again or remove it"
            )
        source = pa.PythonFile(stream, mode="r")  # its lock: two readers may share it
        with _corrupt(), _opened(source, "us") as parquet:
            columns = columns_of(fields, parquet.schema_arrow)
            int96 = {column.name for column in columns} & _int96_names(parquet.schema)
            span = span or Span(0, parquet.num_row_groups, 0)
            groups, position = range(span.start, span.end), span.first_position
            names = list(dict.fromkeys(column.name for column in columns))
            batches = parquet.iter_batches(BATCH_ROWS, groups, columns=names)
            exact_batches = _in_milliseconds(source, sorted(int96), groups)
            for batch in batches:
                exact = next(exact_batches, None)
                if int96 and (exact is None or exact.num_rows != batch.num_rows):
                    raise RejectedInput(CORRUPT_PARQUET, "its columns have not equally many rows")
                values = {column.field: _values(batch, exact, column, int96) for column in columns}
                yield Rows(position, values, batch.num_rows)
                position += batch.num_rows

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """See ``Format``. Reads the footer alone."""
        with _corrupt(), pq.ParquetFile(stream) as parquet:
            metadata = parquet.metadata
            per_row = file.size_bytes / max(1, metadata.num_rows)
            start = first = n_rows = 0
            for group in range(metadata.num_row_groups):
                n_rows += metadata.row_group(group).num_rows
                is_last = group == metadata.num_row_groups - 1
                if (n_rows - first) * per_row >= target_bytes or is_last:
                    yield Span(start, group + 1, first)
                    start, first = group + 1, n_rows

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``. Reads the footer alone."""
        with _corrupt():
            n_rows = pq.read_metadata(stream).num_rows
        return file.size_bytes / n_rows if n_rows else None


PARQUET: Format = Parquet()


@contextmanager
def _corrupt() -> Iterator[None]:
    """Reject the file for an error of Arrow's."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of a column's name
        raise RejectedInput(CORRUPT_PARQUET, words(error)) from error


def _opened(source: pa.PythonFile, int96_unit: str) -> pq.ParquetFile:
    """A reader that holds no more of a column than a page and ``READ_BYTES``."""
    return pq.ParquetFile(
        source,
        coerce_int96_timestamp_unit=int96_unit,
        buffer_size=READ_BYTES,
        pre_buffer=False,
    )


def _int96_names(schema: pq.ParquetSchema) -> set[str]:
    leaves = map(schema.column, range(len(schema)))
    return {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}


def _in_milliseconds(
    source: pa.PythonFile, names: list[str], groups: Iterable[int]
) -> Iterator[pa.RecordBatch | None]:
    """The INT96 columns in milliseconds, which no value overflows.

    INT96 holds a day of 32 bits, far more than 64 bits of microseconds can count, and Arrow wraps
    round.
    """
    if not names:
        return repeat(None)
    parquet = _opened(source, "ms")
    batches: Iterator[pa.RecordBatch] = parquet.iter_batches(BATCH_ROWS, groups, columns=names)
    return batches


def _values(
    batch: pa.RecordBatch, exact: pa.RecordBatch | None, column: Column, int96: set[str]
) -> list[object]:
    values = column.values(batch)
    if exact is None or not column.is_whole or column.name not in int96:
        return values
    return _exact(values, column.of(batch), column.of(exact))


def _exact(values: list[object], times: pa.Array, milliseconds: pa.Array) -> list[object]:
    """The values of an INT96 column, without those that wrapped round."""
    microseconds, thousandths = (
        array.cast(pa.int64()).fill_null(0).to_numpy() for array in (times, milliseconds)
    )
    wrapped = microseconds // 1_000 != thousandths
    return [OUTSIDE if bad else value for value, bad in zip(values, wrapped, strict=True)]
