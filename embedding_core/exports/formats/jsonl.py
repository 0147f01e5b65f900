"""JSON lines: an object per row, with the shortest digits that give the same float32 again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.exports.exporter import ROWS_PER_READ, Exporter, ShardInfo, Sink
from embedding_core.records.scalars import finite
from embedding_core.store.untrusted.json_text import read_json

ROWS_PER_WRITE = 1_024
"""Rows that are texts in memory at a time."""


class JsonLines:
    """Texts in UTF-8, times in ISO 8601, vectors as lists of numbers."""

    suffixes: tuple[str, ...] = (".jsonl",)
    vector_is_needed = False

    def write(
        self, rows: Iterator[pa.RecordBatch], files: Sequence[Sink], shard: ShardInfo
    ) -> None:
        """See ``Exporter``."""
        (file,) = files
        for batch in rows:
            for start in range(0, batch.num_rows, ROWS_PER_WRITE):
                lines = _lines(batch.slice(start, ROWS_PER_WRITE), shard.vector)
                file.write("".join(lines).encode())

    def read(self, files: Sequence[IO[bytes]], vector: str) -> Iterator[pa.RecordBatch]:
        """See ``Exporter``."""
        (file,) = files
        lines = iter(file)
        while records := [read_json(line) for line in islice(lines, ROWS_PER_READ)]:
            yield _batch(records, vector)


JSON_LINES: Exporter = JsonLines()


def _lines(batch: pa.RecordBatch, vector: str | None) -> Iterator[str]:
    if vector is None:
        yield from (f"{_object(row)}\n" for row in batch.to_pylist())
        return
    numbers = _numbers(batch.column(vector))
    others = [name for name in batch.schema.names if name != vector]
    for row, vector_text in zip(batch.select(others).to_pylist(), numbers, strict=True):
        begun = _object(row)[:-1] + (", " if row else "")
        yield f"{begun}{json.dumps(vector)}: [{vector_text}]}}\n"


def _object(row: dict[str, Any]) -> str:
    return json.dumps(finite(row), ensure_ascii=False, default=datetime.isoformat)


def _numbers(vectors: pa.Array) -> list[str]:
    """The numbers of each vector, with commas between them."""
    dim = len(vectors.flatten()) // len(vectors)
    texts = vectors.flatten().cast(pa.float32()).cast(pa.string())
    texts = pc.if_else(pc.equal(texts, "-0"), "-0.0", texts)  # an int would lose its sign
    offsets = pa.array(np.arange(0, len(texts) + 1, dim, dtype=np.int32))
    joined: list[str] = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), ", ").to_pylist()
    return joined


def _batch(records: list[dict[str, Any]], vector: str) -> pa.RecordBatch:
    """Records as Arrow, their vectors as float32."""
    if not all(isinstance(record, dict) and vector in record for record in records):
        return pa.RecordBatch.from_pylist(records)
    matrix = np.array([record.pop(vector) for record in records], np.float32)
    if matrix.ndim != 2:
        raise ValueError("the vectors of its lines differ in length")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = [pa.array([record.get(name) for record in records]) for name in names]
    return pa.RecordBatch.from_arrays([*columns, lists], names=[*names, vector])
