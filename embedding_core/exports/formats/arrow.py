"""Arrow IPC: a file per shard, which every Arrow library maps into memory as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow as pa

from embedding_core.exports.exporter import Exporter, ShardInfo, Sink


class ArrowShards:
    """The file format of Arrow, also known as Feather 2, without compression."""

    suffixes: tuple[str, ...] = (".arrow",)
    vector_is_needed = False

    def write(
        self, rows: Iterator[pa.RecordBatch], files: Sequence[Sink], shard: ShardInfo
    ) -> None:
        """See ``Exporter``."""
        (file,) = files
        with pa.ipc.new_file(file, shard.schema) as writer:
            for batch in rows:
                writer.write_batch(batch)

    def read(self, files: Sequence[IO[bytes]], vector: str) -> Iterator[pa.RecordBatch]:
        """See ``Exporter``."""
        (file,) = files
        with pa.ipc.open_file(file) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)


ARROW: Exporter = ArrowShards()
