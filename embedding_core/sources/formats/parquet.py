"""Parquet: row batches of the needed columns only.

Arrow trusts what a file declares; values are decoded one by one where a whole column cannot be,
so that one bad value costs one row. A field may be a path into structs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from itertools import repeat
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import (
    CORRUPT_PARQUET,
    DUPLICATE_COLUMN,
    INVALID_UTF8,
    MISSING_COLUMN,
    WRONG_TYPE,
)
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import ColumnFloat, Fields, Format, Record, Undecodable

BATCH_ROWS = 512
"""Rows turned into Python values at a time; bounds the memory for long texts."""
UUID_BYTES = 16
"""Width of a fixed binary column that is read as UUIDs: many writers do not mark them."""
OUTSIDE = Undecodable(
    WRONG_TYPE, "a date outside the years 1 to 9999, which a column cannot hold; write it as null"
)


class Parquet:
    """Parquet; a record's position is the number of its row. Spans are row groups."""

    suffixes = (".parquet",)

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record]:
        """See ``Format``."""
        if file.size_bytes == 0:
            raise RejectedInput(
                CORRUPT_PARQUET, "the file has no bytes; write it again or remove it"
            )
        source = pa.PythonFile(stream, mode="r")  # its lock: two readers may share it
        with _corrupt(), pq.ParquetFile(source, coerce_int96_timestamp_unit="us") as parquet:
            columns = _columns(fields, parquet)
            span = span or Span(0, parquet.num_row_groups, 0)
            groups, position = range(span.start, span.end), span.first_position
            names = list(dict.fromkeys(column.name for column in columns))
            batches = parquet.iter_batches(BATCH_ROWS, groups, columns=names)
            for batch, exact in zip(batches, _int96_batches(source, columns, groups), strict=False):
                for row in _rows(batch, exact, columns):
                    yield Record(position, row)
                    position += 1

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """See ``Format``. Reads the footer alone."""
        with _corrupt(), pq.ParquetFile(stream) as parquet:
            metadata = parquet.metadata
            per_row = file.size_bytes / max(1, metadata.num_rows)
            start = first = rows = 0
            for group in range(metadata.num_row_groups):
                rows += metadata.row_group(group).num_rows
                is_last = group == metadata.num_row_groups - 1
                if (rows - first) * per_row >= target_bytes or is_last:
                    yield Span(start, group + 1, first)
                    start, first = group + 1, rows

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
    except (pa.ArrowException, OSError) as error:
        raise RejectedInput(CORRUPT_PARQUET, words(error)) from error


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the file that holds a field."""

    field: str
    steps: tuple[str, ...]
    """Names from the top into structs, as far as the file has them."""
    is_whole: bool
    """Whether the steps lead to the field; else they end at a column that is no struct."""
    is_int96: bool

    @property
    def name(self) -> str:
        """The name ``pyarrow`` gives the column and all that is in it."""
        return ".".join(self.steps)

    def of(self, batch: pa.RecordBatch) -> pa.Array:
        """The column's values; null where a struct around a value is null."""
        column = batch.column(self.steps[0])
        for step in self.steps[1:]:
            column = pc.struct_field(column, [column.type.get_field_index(step)])
        return column


def _columns(fields: Fields, parquet: pq.ParquetFile) -> list[_Column]:
    """The columns that hold the fields, without optional fields that the file does not have.

    Raises ``RejectedInput`` when a required field is missing or a name stands for several columns.
    """
    schema = parquet.schema_arrow
    int96 = {
        leaf.path
        for leaf in map(parquet.schema.column, range(len(parquet.schema)))
        if leaf.physical_type == "INT96"
    }
    listed = ", ".join(schema.names)
    columns = []
    for field in fields.all:
        steps, is_whole = _steps(schema, field)
        if steps and schema.names.count(steps[0]) > 1:
            raise RejectedInput(DUPLICATE_COLUMN, f"column {steps[0]!r} more than once in {listed}")
        if steps:
            columns.append(_Column(field, steps, is_whole, ".".join(steps) in int96))
        elif field in fields.required:
            raise RejectedInput(MISSING_COLUMN, f"no column {field!r}; the file has {listed}")
    return columns


def _steps(schema: pa.Schema, field: str) -> tuple[tuple[str, ...], bool]:
    """Names on the way to a field, and whether they lead there; no names without a way."""
    steps: list[str] = []
    rest, inner = field, {column.name: column.type for column in schema}
    while rest not in inner:
        step, dot, rest = rest.partition(".")
        if not dot or step not in inner:
            return (), False
        steps.append(step)
        if not pa.types.is_struct(inner[step]):
            return tuple(steps), False
        inner = {child.name: child.type for child in inner[step]}
    return (*steps, rest), True


def _int96_batches(
    source: pa.PythonFile, columns: list[_Column], groups: Iterable[int]
) -> Iterator[pa.RecordBatch | None]:
    """The INT96 columns in milliseconds, which no value overflows.

    INT96 holds a day of 32 bits, far more than 64 bits of microseconds can count, and Arrow wraps
    round.
    """
    names = [column.name for column in columns if column.is_int96]
    if not names:
        return repeat(None)
    parquet = pq.ParquetFile(source, coerce_int96_timestamp_unit="ms", pre_buffer=False)
    batches: Iterator[pa.RecordBatch] = parquet.iter_batches(BATCH_ROWS, groups, columns=names)
    return batches


def _rows(
    batch: pa.RecordBatch, exact: pa.RecordBatch | None, columns: list[_Column]
) -> Iterator[dict[str, object]]:
    fields = [column.field for column in columns]
    values = [_field_values(batch, exact, column) for column in columns]
    for row in zip(*values, strict=True):
        yield dict(zip(fields, row, strict=True))


def _field_values(
    batch: pa.RecordBatch, exact: pa.RecordBatch | None, column: _Column
) -> list[object]:
    array = column.of(batch)
    if not column.is_whole:
        kind = f"{'.'.join(column.steps)!r} is {array.type}, and the path {column.field!r} needs"
        no_struct = Undecodable(WRONG_TYPE, f"{kind} a struct there; name another field")
        return [no_struct if is_valid else None for is_valid in array.is_valid().to_pylist()]
    values = _values(array)
    if not column.is_int96 or exact is None:
        return values
    microseconds, milliseconds = (
        times.cast(pa.int64()).fill_null(0).to_numpy() for times in (array, column.of(exact))
    )
    wrapped = microseconds // 1_000 != milliseconds
    return [OUTSIDE if bad else value for value, bad in zip(values, wrapped, strict=True)]


def _values(column: pa.Array) -> list[object]:
    """Values as Python's types, which the mapping knows how to take or to reject."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        column = column.cast(_python_timestamp(column.type), safe=False)
    try:
        values: list[object] = column.to_pylist()
    except (ValueError, OverflowError):  # UnicodeDecodeError is a ValueError
        values = [_value(scalar) for scalar in column]
    if pa.types.is_floating(column.type):
        return [_with_digits(value, column.type) for value in values]
    if pa.types.is_fixed_size_binary(column.type) and column.type.byte_width == UUID_BYTES:
        return [UUID(bytes=value) if isinstance(value, bytes) else value for value in values]
    return values


def _with_digits(value: object, kind: pa.DataType) -> object:
    if not isinstance(value, float):
        return value
    number: np.floating[Any] = np.dtype(kind.to_pandas_dtype()).type(value)
    return ColumnFloat(value, str(number), 2.0 ** (np.finfo(number.dtype).nmant + 1))


def _python_timestamp(declared: Any) -> Any:
    """The type whose values Python's datetime can hold: finer digits than microseconds are cut,
    and a zone, which may have any name, becomes UTC; the instants stay."""
    unit = "us" if declared.unit == "ns" else declared.unit
    return pa.timestamp(unit, "UTC" if declared.tz else None)


def _value(scalar: Any) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        detail = f"byte 0x{error.object[error.start]:02x} at {error.start} is not UTF-8"
        return Undecodable(INVALID_UTF8, detail)
    except (ValueError, OverflowError) as error:
        is_date = pa.types.is_date(scalar.type) or pa.types.is_timestamp(scalar.type)
        return OUTSIDE if is_date else Undecodable(WRONG_TYPE, words(error))
