"""Vectors as a bare matrix in a file, and the other columns as Parquet beside it, in one order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedding_core.exports.exporter import ShardInfo, Sink
from embedding_core.exports.formats.parquet import PARQUET
from embedding_core.plurals import counted

METADATA = ".parquet"
"""End of the name of the file beside the vectors."""


class MatrixShards(ABC):
    """A format whose files of vectors are a head and then the numbers, row by row."""

    suffixes: tuple[str, ...]
    vector_is_needed = True

    @abstractmethod
    def head(self, shape: tuple[int, int], dtype: np.dtype[Any], shard: ShardInfo) -> bytes:
        """What stands before the numbers."""

    @abstractmethod
    def read_head(self, file: IO[bytes], vector: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of the numbers; the file then stands at the first of them."""

    def write(
        self, rows: Iterator[pa.RecordBatch], files: Sequence[Sink], shard: ShardInfo
    ) -> None:
        """See ``Exporter``."""
        vectors, metadata = files
        column = str(shard.vector)
        kind = shard.schema.field(column).type
        dtype = np.dtype(kind.value_type.to_pandas_dtype()).newbyteorder("<")
        vectors.write(self.head((shard.n_rows, shard.dim), dtype, shard))
        others = [name for name in shard.schema.names if name != column]
        beside = pa.schema([shard.schema.field(name) for name in others], shard.schema.metadata)

        def without_vectors() -> Iterator[pa.RecordBatch]:
            for batch in rows:
                numbers = batch.column(column).flatten().to_numpy(zero_copy_only=False)
                vectors.write(np.ascontiguousarray(numbers, dtype).tobytes())
                yield batch.select(others).replace_schema_metadata(shard.schema.metadata)

        PARQUET.write(without_vectors(), [metadata], ShardInfo(beside, shard.n_rows, None))

    def read(self, files: Sequence[IO[bytes]], vector: str) -> Iterator[pa.RecordBatch]:
        """See ``Exporter``."""
        vectors, metadata = files
        shape, dtype = self.read_head(vectors, vector)
        if len(shape) != 2:
            raise ValueError(f"its vectors have the shape {shape}; a matrix of rows is needed")
        n_read, dim = 0, shape[1]
        for batch in PARQUET.read([metadata], vector):
            matrix = _read_rows(vectors, batch.num_rows, dim, dtype)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(matrix), dim)
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, lists], names=[*batch.schema.names, vector]
            )
            n_read += batch.num_rows
        if n_read != shape[0]:
            raise ValueError(
                f"it has {counted(shape[0], 'vector')}, and {counted(n_read, 'row')} of metadata"
            )


def _read_rows(
    file: IO[bytes], n_rows: int, dim: int, dtype: np.dtype[Any]
) -> NDArray[np.floating]:
    """The next numbers of a matrix, flat."""
    n_bytes = n_rows * dim * dtype.itemsize
    data = file.read(n_bytes)
    if len(data) != n_bytes:
        raise ValueError(f"it ends {counted(n_bytes - len(data), 'byte')} before its last vector")
    return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
