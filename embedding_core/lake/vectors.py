"""Convert between Arrow's lists and numpy's matrices; check for unit vectors."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedding_core.protocols import Vectors
from embedding_core.records.space import NORM_TOLERANCE


def plain(column: pa.Array) -> pa.FixedSizeListArray:
    """A vector column's lists, in service or hidden."""
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def to_numpy(column: pa.Array) -> Vectors:
    """(n_rows, dim) float32; NaN for a row without a vector."""
    lists = plain(column)
    valid = lists.is_valid().to_numpy(zero_copy_only=False)
    vectors = np.full((len(lists), lists.type.list_size), np.nan, np.float32)
    values = lists.drop_null().flatten().to_numpy(zero_copy_only=False)
    vectors[valid] = values.reshape(-1, lists.type.list_size)
    return vectors


def to_lists(
    vectors: NDArray[np.floating],
    kind: pa.FixedSizeListType,
    empty: NDArray[np.bool_] | None = None,
) -> pa.FixedSizeListArray:
    """Rows as lists of ``kind``; null where ``empty``."""
    values = vectors.astype(kind.value_type.to_pandas_dtype(), copy=False)
    mask = None if empty is None else pa.array(empty)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.reshape(-1)), kind.list_size, mask=mask
    )


def is_unit(column: pa.Array, tolerance: float = NORM_TOLERANCE) -> NDArray[np.bool_]:
    """(n_rows,) whether a vector is there, finite and of unit length."""
    return are_unit(to_numpy(column), tolerance)


def are_unit(vectors: Vectors, tolerance: float = NORM_TOLERANCE) -> NDArray[np.bool_]:
    """(n_rows,) whether a vector is finite and of unit length; False for a row of NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    unit: NDArray[np.bool_] = np.abs(norms - 1.0) <= tolerance  # False for NaN and inf
    return unit


def directions(column: pa.Array) -> Vectors:
    """(n_vectors, dim) of unit length; rows without a vector or a direction are left out."""
    vectors = to_numpy(column)
    norms = np.linalg.norm(vectors, axis=1)
    usable = np.isfinite(norms) & (norms > 0)
    unit: Vectors = vectors[usable] / norms[usable, None]
    return unit
