"""NumPy: a matrix per shard, and its metadata as Parquet beside it."""

from __future__ import annotations

import io
from typing import IO, Any

import numpy as np

from embedding_core.exports.exporter import Exporter, ShardInfo
from embedding_core.exports.formats.beside import METADATA, MatrixShards


class NpyShards(MatrixShards):
    """Version 1.0 of the format, which ``numpy.load`` maps into memory."""

    suffixes: tuple[str, ...] = (".npy", METADATA)

    def head(self, shape: tuple[int, int], dtype: np.dtype[Any], shard: ShardInfo) -> bytes:
        """See ``MatrixShards``."""
        described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, described)
        return head.getvalue()

    def read_head(self, file: IO[bytes], vector: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See ``MatrixShards``."""
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, is_fortran, dtype = read(file)
        if is_fortran or dtype.kind != "f":
            raise ValueError(f"it holds {dtype} in this order; rows of floats are needed")
        return shape, dtype


NPY: Exporter = NpyShards()
