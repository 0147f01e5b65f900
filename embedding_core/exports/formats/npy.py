"""NumPy: a matrix per shard, and its metadata as Parquet beside it."""

from __future__ import annotations

import io
from typing import IO, Any

import numpy as np

from embedding_core.exports.exporter import Exporter, ShardInfo
from embedding_core.exports.formats.beside import METADATA, MatrixShards
from embedding_core.store.untrusted.npy import read_head


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
        shape, dtype = read_head(file)
        if dtype.kind != "f":
            raise ValueError(f"it holds {dtype}; rows of floats are needed")
        return shape, dtype


NPY: Exporter = NpyShards()
