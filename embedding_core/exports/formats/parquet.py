"""Parquet: a file per shard. Texts are compressed; vectors, which do not get smaller, are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from embedding_core.exports.exporter import ROWS_PER_READ, Exporter, ShardInfo, Sink


class ParquetShards:
    """A row group per batch, so that a file's bytes follow from its rows alone."""

    suffixes: tuple[str, ...] = (".parquet",)
    vector_is_needed = False

    def write(
        self, rows: Iterator[pa.RecordBatch], files: Sequence[Sink], shard: ShardInfo
    ) -> None:
        """See ``Exporter``."""
        (file,) = files
        plain = [name for name in shard.schema.names if name != shard.vector]
        compressed = dict.fromkeys(plain, "zstd")
        if shard.vector is not None:
            compressed[f"{shard.vector}.list.element"] = "none"
        with pq.ParquetWriter(
            file,
            shard.schema,
            compression=compressed,
            use_dictionary=plain,
            write_statistics=plain,
        ) as writer:
            for batch in rows:
                writer.write_batch(batch, row_group_size=batch.num_rows)

    def read(self, files: Sequence[IO[bytes]], vector: str) -> Iterator[pa.RecordBatch]:
        """See ``Exporter``."""
        (file,) = files
        yield from pq.ParquetFile(file).iter_batches(batch_size=ROWS_PER_READ)


PARQUET: Exporter = ParquetShards()
