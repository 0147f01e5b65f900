"""How many stored bytes a record takes, by a look at the file: for estimates, not for reading."""

from __future__ import annotations

import zlib

import pyarrow as pa
import pyarrow.parquet as pq

from embedding_core.errors import RejectedInput, words
from embedding_core.recipe import SourceSpec
from embedding_core.records import SourceFile
from embedding_core.sources.opening import open_unchecked

LOOK_BYTES = 1024 * 1024
"""Of the file's beginning."""
MOST_TEXT_BYTES = 16 * 1024 * 1024
"""That these may be decompressed to."""
GZIP_WINDOW = 31
"""zlib's word for: the largest window, in a gzip header."""


def bytes_per_record(file: SourceFile, spec: SourceSpec) -> float | None:
    """Stored bytes per line or row, compressed where the file is; None where it cannot be told.

    Raises ``RejectedInput`` when the file cannot be opened, ``Transient`` when the store fails.
    """
    name = file.uri.lower()
    with open_unchecked(file, spec) as stream:
        if name.endswith(".parquet"):
            try:
                n_rows = pq.read_metadata(stream).num_rows
            except (pa.ArrowException, OSError) as error:
                raise RejectedInput("corrupt_parquet", words(error)) from error
            return file.size_bytes / n_rows if n_rows else None
        stored = stream.read(LOOK_BYTES) or b""
    if not name.endswith(".gz"):
        return _per_line(stored, len(stored))
    gzip = zlib.decompressobj(GZIP_WINDOW)
    try:
        text = gzip.decompress(stored, MOST_TEXT_BYTES)
    except zlib.error as error:
        raise RejectedInput("corrupt_gzip", words(error)) from error
    return _per_line(text, len(stored) - len(gzip.unconsumed_tail) - len(gzip.unused_data))


def _per_line(text: bytes, n_bytes: int) -> float | None:
    n_lines = text.count(b"\n")
    return n_bytes / n_lines if n_lines else None
