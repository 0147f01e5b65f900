"""safetensors: a tensor per shard, named as the column, and its metadata as Parquet beside it.

The head is written here because the library's own writer takes whole tensors in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from embedding_core.exports.exporter import Exporter, ShardInfo
from embedding_core.exports.formats.beside import METADATA, MatrixShards
from embedding_core.store.untrusted.json_text import read_json

TYPES: Mapping[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
LENGTH_BYTES = 8
"""The file begins with the length of its head, as a little-endian integer."""
MOST_HEAD_BYTES = 100_000_000
"""The format's own limit."""


class SafetensorsShards(MatrixShards):
    """One tensor of the shape (rows, dim)."""

    suffixes: tuple[str, ...] = (".safetensors", METADATA)

    def head(self, shape: tuple[int, int], dtype: np.dtype[Any], shard: ShardInfo) -> bytes:
        """See ``MatrixShards``. Padded with spaces, so that the numbers are aligned."""
        n_bytes = shape[0] * shape[1] * dtype.itemsize
        name = next(name for name, kind in TYPES.items() if kind == dtype)
        about = {key.decode(): value.decode() for key, value in shard.schema.metadata.items()}
        tensor = {"dtype": name, "shape": shape, "data_offsets": (0, n_bytes)}
        head = json.dumps({"__metadata__": about, str(shard.vector): tensor}).encode()
        head += b" " * (-len(head) % LENGTH_BYTES)
        return len(head).to_bytes(LENGTH_BYTES, "little") + head

    def read_head(self, file: IO[bytes], vector: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """See ``MatrixShards``. Without a tensor of the column's name the only tensor is taken."""
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > MOST_HEAD_BYTES:
            raise ValueError("it does not begin as a safetensors file does")
        tensors = read_json(file.read(length))
        tensors.pop("__metadata__", None)
        name = vector if vector in tensors or len(tensors) != 1 else next(iter(tensors))
        if name not in tensors or tensors[name]["dtype"] not in TYPES:
            raise ValueError(
                f"it has no tensor {vector!r} of F16, F32 or F64; it has {', '.join(tensors)}"
            )
        file.seek(LENGTH_BYTES + length + tensors[name]["data_offsets"][0])
        return tuple(tensors[name]["shape"]), TYPES[tensors[name]["dtype"]]


SAFETENSORS: Exporter = SafetensorsShards()
