"""Columns of typed tables: where a field is, and its values as Python's.

Arrow trusts what a file declares; values are decoded one by one where a whole column cannot be,
so that one bad value costs one row. A field may be a path into structs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import DUPLICATE_COLUMN, INVALID_UTF8, MISSING_COLUMN, WRONG_TYPE
from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.sources.formats.format import (
    ColumnFloat,
    Fields,
    Undecodable,
    listed,
    no_column,
)

UUID_BYTES = 16
"""Width of a fixed binary column that is read as UUIDs: many writers do not mark them."""
OUTSIDE = Undecodable(
    WRONG_TYPE, "a date outside the years 1 to 9999, which a column cannot hold; write it as null"
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the file that holds a field."""

    field: str
    steps: tuple[str, ...]
    """Names from the top into structs, as far as the file has them."""
    is_whole: bool
    """Whether the steps lead to the field; else they end at a column that is no struct."""

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

    def values(self, batch: pa.RecordBatch) -> list[object]:
        """The column's values as Python's types, which the mapping knows how to take or reject."""
        array = self.of(batch)
        if self.is_whole:
            return _values(array)
        kind = f"{'.'.join(self.steps)!r} is {array.type}, and the path {self.field!r} needs"
        no_struct = Undecodable(WRONG_TYPE, f"{kind} a struct there; name another field")
        return [no_struct if is_valid else None for is_valid in array.is_valid().to_pylist()]


def columns_of(fields: Fields, schema: pa.Schema) -> list[Column]:
    """The columns that hold the fields, without optional fields that the file does not have.

    Raises ``RejectedInput`` when a required field is missing or a name stands for several columns.
    """
    there = listed(schema.names)
    columns = {name: Column(name, (name,), True) for name in schema.names if fields.everything}
    for field in fields.all:
        column = _column(schema, field)
        if column is not None:
            columns[column.field] = column
        elif field in fields.required:
            raise RejectedInput(MISSING_COLUMN, no_column(field, schema.names))
    for name in {column.steps[0] for column in columns.values()}:
        if schema.names.count(name) > 1:
            raise RejectedInput(DUPLICATE_COLUMN, f"column {name!r} more than once in {there}")
    return list(columns.values())


def _column(schema: pa.Schema, field: str) -> Column | None:
    """The column of a field, by the way into structs; None without a way.

    Of a path into a list it is the whole column that the path begins at.
    """
    path = FieldPath.parse(field)
    names: list[str] = []
    inner = {column.name: column.type for column in schema}
    for number, step in enumerate(path.steps):
        rest = path.rest(number)
        if rest is not None and rest in inner:
            return Column(field, (*names, rest), True)
        if isinstance(step, int):
            return Column(path.root, (path.root,), True)
        if step not in inner:
            return None
        names.append(step)
        following = path.steps[number + 1 :]
        is_struct = pa.types.is_struct(inner[step])
        if following and isinstance(following[0], str) and not is_struct:
            return Column(field, tuple(names), False)
        inner = {child.name: child.type for child in inner[step]} if is_struct else {}
    return Column(path.key, tuple(names), True)


def _values(column: pa.Array) -> list[object]:
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
