"""The columns of an export: which ones, under which names, vectors of which type."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from embedding_core.errors import UsageError
from embedding_core.exports.spec import ExportSpec

ABOUT_KEY = b"embedlake"
"""Schema metadata of a shard: what its rows are of, as JSON."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of every shard of an export."""

    names: tuple[str, ...]
    """In the table, in the order in which they are written."""
    schema: pa.Schema
    """Names and types that are written."""
    vector: str | None
    """Name of the column of vectors in the table; None without."""
    dim: int
    """Length of a vector; 0 without."""

    @classmethod
    def of(cls, table: pa.Schema, served: Sequence[str], spec: ExportSpec) -> Columns:
        """The columns that a spec takes of a table, ``served`` unless it names some.

        Raises ``UsageError`` for a name that the table does not have, for names that are written
        twice and for several columns of vectors.
        """
        names = spec.columns or tuple(served)
        _check_names("columns", names, table.names)
        _check_names("rename", spec.rename, names)
        vectors = [name for name in names if is_vector(table.field(name))]
        if len(vectors) > 1:
            raise UsageError(
                f"{' and '.join(vectors)} are vectors of different spaces; export a column of "
                "vectors at a time"
            )
        vector = vectors[0] if vectors else None
        fields = [_written(table.field(name), spec) for name in names]
        _check_written([field.name for field in fields])
        dim = _storage(table.field(vector)).list_size if vector else 0
        return cls(names, pa.schema(fields), vector, dim)

    @property
    def written_vector(self) -> str | None:
        """Name of the column of vectors as it is written."""
        return None if self.vector is None else self.schema.names[self.names.index(self.vector)]

    def about(self, values: Mapping[str, Any]) -> pa.Schema:
        """The schema with what the rows are of in its metadata."""
        return self.schema.with_metadata({ABOUT_KEY: json.dumps(values, sort_keys=True)})

    def written(
        self, batches: Iterable[pa.RecordBatch], schema: pa.Schema, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Rows of the table as they are written, ``batch_rows`` at a time whatever came in."""
        for batch in _regrouped(batches, batch_rows):
            columns = [
                _converted(batch.column(name), field.type)
                for name, field in zip(self.names, schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def is_vector(field: pa.Field) -> bool:
    """Whether a column holds vectors: lists of floats of one length."""
    kind = _storage(field)
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type))


def _storage(field: pa.Field) -> pa.DataType:
    kind = field.type
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _written(field: pa.Field, spec: ExportSpec) -> pa.Field:
    name, kind = spec.rename.get(field.name, field.name), _storage(field)
    if is_vector(field):
        value = pa.field("element", _FLOATS.get(spec.dtype or "", kind.value_type))
        kind = pa.list_(value) if spec.as_list else pa.list_(value, kind.list_size)
    return pa.field(name, kind, field.nullable)


_FLOATS = {"float16": pa.float16(), "float32": pa.float32()}


def _converted(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column as an array of its written type."""
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    if storage.type == kind:
        return storage
    size = storage.type.list_size
    numbers = storage.flatten()
    dtype = kind.value_type.to_pandas_dtype()
    numbers = pa.array(numbers.to_numpy(zero_copy_only=False).astype(dtype, copy=False))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(numbers, type=kind)
    offsets = pa.array(range(0, len(numbers) + 1, size), pa.int32())
    return pa.ListArray.from_arrays(offsets, numbers, type=kind)


def _regrouped(batches: Iterable[pa.RecordBatch], n_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows in batches of exactly ``n_rows``, the last one smaller."""
    waiting: list[pa.RecordBatch] = []
    n_waiting = 0
    for batch in batches:
        while batch.num_rows:
            head = batch.slice(0, n_rows - n_waiting)
            waiting.append(head)
            n_waiting += head.num_rows
            batch = batch.slice(head.num_rows)
            if n_waiting == n_rows:
                yield pa.concat_batches(waiting)
                waiting, n_waiting = [], 0
    if waiting:
        yield pa.concat_batches(waiting)


def _check_names(option: str, names: Iterable[str], columns: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in columns]:
        raise UsageError(
            f"{option} names {', '.join(map(repr, unknown))}, and there is no such column; there "
            f"are {', '.join(columns)}"
        )


def _check_written(names: Sequence[str]) -> None:
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(
            f"{min(twice)!r} would be the name of two columns; name each column once, and rename "
            "it to a name that no other has"
        )


__all__ = ["ABOUT_KEY", "Columns", "is_vector"]
