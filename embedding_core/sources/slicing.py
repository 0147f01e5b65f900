"""Huge files in slices that can be read apart: JSON lines at line ends, Parquet at row groups.

Only the cutting is here. Which record is in which slice changes neither its position nor its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import RawIOBase

import pyarrow as pa
import pyarrow.parquet as pq

from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.records import Slice, SourceFile
from embedding_core.sources.formats.jsonl import GZIP_MAGIC, PARQUET_MAGIC
from embedding_core.sources.opening import open_unchecked

SMALLEST_SLICE_BYTES = 1024 * 1024
"""However small units are: below this, a task costs more than its slice."""
READ_BYTES = 4 * 1024 * 1024
"""Bytes searched for line ends at a time."""

Cut = tuple[int, int, int]
"""Start, end and the position of the first record."""


def slices(file: SourceFile, spec: SourceSpec, unit_bytes: int) -> tuple[Slice, ...]:
    """The file in slices of about ``unit_bytes``; none for a file that is read as a whole.

    JSON lines are read once for it, of Parquet only the footer. A file that cannot be read is not
    sliced either: whoever reads it says why. Raises ``Transient`` when the store fails.
    """
    size = max(unit_bytes, SMALLEST_SLICE_BYTES)
    cutter = _cutter(file.uri)
    if cutter is None or file.size_bytes < 2 * size:
        return ()
    try:
        with open_unchecked(file, spec) as stream:
            cuts = list(cutter(stream, file.size_bytes, size))
    except (RejectedInput, pa.ArrowException, OSError):
        return ()
    if len(cuts) < 2:
        return ()
    return tuple(Slice(number, len(cuts), *cut) for number, cut in enumerate(cuts))


def _cutter(uri: str) -> Callable[[RawIOBase, int, int], Iterator[Cut]] | None:
    name = uri.lower()
    if name.endswith((".jsonl", ".ndjson")):
        return _at_line_ends
    return _at_row_groups if name.endswith(".parquet") else None


def _at_line_ends(stream: RawIOBase, n_bytes: int, size: int) -> Iterator[Cut]:
    start = first = at = lines = 0
    while piece := stream.read(READ_BYTES):
        if at == 0 and piece.startswith((GZIP_MAGIC, PARQUET_MAGIC)):
            return  # not what its name says
        searched = 0
        while (end := _line_end(piece, max(searched, start + size - at - 1))) is not None:
            lines += piece.count(b"\n", searched, end)
            yield start, at + end, first
            start, first, searched = at + end, lines, end
        lines += piece.count(b"\n", searched)
        at += len(piece)
    if start < at:
        yield start, at, first


def _line_end(piece: bytes, begin: int) -> int | None:
    """Offset after the first line end at or after ``begin``; None when there is none."""
    found = piece.find(b"\n", begin) if begin < len(piece) else -1
    return found + 1 if found >= 0 else None


def _at_row_groups(stream: RawIOBase, n_bytes: int, size: int) -> Iterator[Cut]:
    with pq.ParquetFile(stream) as parquet:
        metadata = parquet.metadata
        per_row = n_bytes / max(1, metadata.num_rows)
        start = first = rows = 0
        for group in range(metadata.num_row_groups):
            rows += metadata.row_group(group).num_rows
            if (rows - first) * per_row >= size or group == metadata.num_row_groups - 1:
                yield start, group + 1, first
                start, first = group + 1, rows
