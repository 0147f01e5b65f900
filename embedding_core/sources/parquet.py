"""Parquet: row batches of the needed columns only.

Arrow trusts what a file declares; values are decoded one by one where a whole column cannot be,
so that one bad string costs one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import RawIOBase
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedding_core.errors import RejectedInput
from embedding_core.records import Slice, SourceFile
from embedding_core.sources.records import Record, Undecodable

BATCH_ROWS = 512
"""Rows turned into Python values at a time; what a batch of long texts costs in memory."""


def read_parquet(stream: RawIOBase, file: SourceFile, fields: tuple[str, ...]) -> Iterator[Record]:
    """Rows of a Parquet file; ``position`` is the row's number in the file."""
    if file.size_bytes > 0:
        yield from _read(stream, fields, None)


def read_parquet_slice(
    stream: RawIOBase, file: SourceFile, fields: tuple[str, ...], part: Slice
) -> Iterator[Record]:
    """Rows of some row groups."""
    return _read(stream, fields, part)


def _read(stream: RawIOBase, fields: tuple[str, ...], part: Slice | None) -> Iterator[Record]:
    try:
        with pq.ParquetFile(stream) as parquet:
            _require(fields, parquet.schema_arrow.names)
            groups = range(part.start, part.end) if part else range(parquet.num_row_groups)
            position = part.first_position if part else 0
            for batch in parquet.iter_batches(BATCH_ROWS, groups, columns=list(fields)):
                for row in _rows(batch, fields):
                    yield Record(position, row)
                    position += 1
    except (pa.ArrowException, OSError) as error:
        raise RejectedInput("corrupt_parquet", str(error)) from error


def _require(fields: tuple[str, ...], columns: list[str]) -> None:
    listed = ", ".join(columns)
    for name in fields:
        if name not in columns:
            raise RejectedInput("missing_column", f"no column {name!r}; the file has {listed}")
        if columns.count(name) > 1:
            raise RejectedInput("duplicate_column", f"column {name!r} more than once in {listed}")


def _rows(batch: pa.RecordBatch, fields: tuple[str, ...]) -> Iterator[dict[str, object]]:
    columns = [_values(batch.column(name)) for name in fields]
    for values in zip(*columns, strict=True):
        yield dict(zip(fields, values, strict=True))


def _values(column: pa.Array) -> list[object]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(_python_timestamp(column.type), safe=False)
    try:
        values: list[object] = column.to_pylist()
    except (ValueError, OverflowError):  # UnicodeDecodeError is a ValueError
        return [_value(scalar) for scalar in column]
    return values


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
        return Undecodable("invalid_utf8", detail)
    except (ValueError, OverflowError) as error:
        return Undecodable("wrong_type", str(error))
