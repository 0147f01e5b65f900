"""Bytes compressed in every way that is read."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable

import pyarrow as pa


def _zstd(text: bytes) -> bytes:
    compressed: bytes = pa.Codec("zstd").compress(text).to_pybytes()
    return compressed


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda text: gzip.compress(text, mtime=0),
    ".bz2": bz2.compress,
    ".zst": _zstd,
}
"""By the end of a file's name."""
