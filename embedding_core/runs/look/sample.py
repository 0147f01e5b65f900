"""Rows of a table to look at, spread evenly over it: texts in short, fields, and vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedding_core.errors import UsageError
from embedding_core.lake import schema
from embedding_core.lake.scans import values_at, vectors_at
from embedding_core.lake.snapshot import Snapshot
from embedding_core.protocols import Vectors
from embedding_core.runs.look.fields import VALUE_SHOWN, fields_of

TEXT_SHOWN = 280
"""Characters of a text."""
ROWS_AT_ONCE = 512
"""Rows whose whole texts are in memory at once."""


@dataclass(frozen=True, slots=True)
class SampledRows:
    """Rows with a finite vector."""

    chunk_ids: Sequence[str]
    doc_ids: Sequence[str]
    source_uris: Sequence[str]
    texts: Sequence[str]
    """Their beginnings."""
    fields: Mapping[str, Sequence[Any]]
    """Values by field."""
    vectors: Vectors
    """(n_rows, dim) float32, finite."""
    left_out: int
    """Sampled rows without a vector, or with one that is not finite."""

    def __len__(self) -> int:
        return len(self.chunk_ids)


def vector_column(snapshot: Snapshot, column: str | None) -> str | None:
    """The column of vectors to look at: the one in service unless told otherwise, else the first
    there is; None without any. Raises ``UsageError`` for a column that holds no vectors."""
    columns = [name for name in snapshot.schema.names if schema.is_vector_column(name)]
    if column is None:
        return schema.VECTOR if schema.VECTOR in columns else next(iter(columns), None)
    if column not in columns:
        raise UsageError(
            f"column {column!r} holds no vectors of table {snapshot.table.name!r}; its columns of "
            f"vectors are {', '.join(columns) or 'none'}"
        )
    return column


def spread(n_rows: int, n_sampled: int) -> list[int]:
    """Numbers of rows, spread evenly; all of them when there are no more."""
    most = min(n_rows, n_sampled)
    return [position * n_rows // most for position in range(most)]


def sampled_vectors(snapshot: Snapshot, column: str, rows: Sequence[int]) -> Vectors:
    """(n_rows, dim) float32; NaN for a row without a vector."""
    parts = [
        vectors_at(snapshot, rows[start : start + ROWS_AT_ONCE], column)
        for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    dim = snapshot.space(column)[1].dim
    return np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)


def sampled_rows(snapshot: Snapshot, column: str, n_sampled: int) -> SampledRows:
    """So many rows at most; the same ones of the same version every time."""
    rows = spread(snapshot.n_rows, n_sampled)
    vectors = sampled_vectors(snapshot, column, rows)
    usable = np.isfinite(vectors).all(axis=1)
    kept = [rows[position] for position in np.flatnonzero(usable)]
    names = fields_of(snapshot)
    values = _values(snapshot, names, kept)
    return SampledRows(
        chunk_ids=values["chunk_id"],
        doc_ids=values["doc_id"],
        source_uris=values["source_uri"],
        texts=[shortened(text) for text in values["text"]],
        fields={name: values[f"field {number}"] for number, name in enumerate(names)},
        vectors=vectors[usable],
        left_out=len(rows) - len(kept),
    )


def shortened(text: str) -> str:
    """The beginning of a text, marked where it goes on."""
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + "…"


def _values(snapshot: Snapshot, names: Sequence[str], rows: Sequence[int]) -> dict[str, list[Any]]:
    """Columns of rows; of long texts only the beginnings are read into memory."""
    columns = {name: name for name in ("chunk_id", "doc_id", "source_uri")}
    columns["text"] = f"left(text, {TEXT_SHOWN + 1})"
    for number, name in enumerate(names):
        is_text = "string" in str(snapshot.schema.field(name).type)
        quoted = f"`{name}`"
        columns[f"field {number}"] = f"left({quoted}, {VALUE_SHOWN})" if is_text else quoted
    values: dict[str, list[Any]] = {name: [] for name in columns}
    for start in range(0, len(rows), ROWS_AT_ONCE):
        read = values_at(snapshot, rows[start : start + ROWS_AT_ONCE], columns)
        for name, column in values.items():
            column += read.column(name).to_pylist()
    return values
