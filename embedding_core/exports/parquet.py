"""Parquet: one file with every column, zstd, and what it holds in its metadata."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embedding_core.errors import SetupError, UsageError, words
from embedding_core.exports.exporter import Exporter, ExportInfo, ExportReport

ABOUT_KEY = b"embedlake"
"""The file's metadata: ``ExportInfo`` as JSON."""


class ParquetFile:
    """Writes a file beside the target first, which takes the target's name when it is complete."""

    def write(self, rows: Iterator[pa.RecordBatch], target: str, about: ExportInfo) -> ExportReport:
        """See ``Exporter``."""
        path = Path(target)
        if path.exists():
            raise UsageError(f"{path} exists; name another target, or move it away")
        first = next(rows, None)
        if first is None:
            raise UsageError(f"table {about.table!r} has no rows to write; embed its source first")
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                n_rows = _write(partial, first, rows, about)
                n_bytes = partial.stat().st_size
                partial.rename(path)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise SetupError(
                f"cannot write {path}: {words(error)}; make room or name another target"
            ) from error
        return ExportReport((str(path),), n_rows, n_bytes)


PARQUET: Exporter = ParquetFile()


def _write(
    path: Path, first: pa.RecordBatch, rows: Iterator[pa.RecordBatch], about: ExportInfo
) -> int:
    schema = first.schema.with_metadata({ABOUT_KEY: json.dumps(asdict(about))})
    n_rows: int = first.num_rows
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        writer.write_batch(first)
        for batch in rows:
            writer.write_batch(batch)
            n_rows += batch.num_rows
    return n_rows
