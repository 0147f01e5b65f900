"""What an exporter is, and which there are. Knows rows, not where they come from or go to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from embedding_core.registry import EXPORTERS, Registry

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_BYTES = 32 * 2**20
"""Bytes of vectors of a batch, and of a row group of Parquet."""
MOST_BATCH_ROWS = 32_768
ROWS_PER_READ = 8_192
"""Rows of a batch that is read again."""


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What a shard holds; all of it is known before the first row is read."""

    schema: pa.Schema
    """The columns as they are written; what the rows are of stands in its metadata."""
    n_rows: int
    vector: str | None
    """Name of the column of vectors; None without."""
    dim: int = 0
    """Length of a vector."""

    @property
    def batch_rows(self) -> int:
        """Rows of a batch; decided by the columns alone, so that the same rows give the same
        bytes."""
        return min(MOST_BATCH_ROWS, max(1, BATCH_BYTES // (4 * self.dim or 1)))


class Sink(Protocol):
    """A file to be written from its beginning to its end."""

    def write(self, data: bytes, /) -> int:
        """Write all of ``data``."""
        ...


class Exporter(Protocol):
    """One format of shards. A shard is a file, or vectors and metadata in a file each."""

    suffixes: tuple[str, ...]
    """Ends of the names of a shard's files, in the order of ``files``; the first has the rows."""
    vector_is_needed: bool
    """Whether a shard without a column of vectors cannot be written."""

    def write(
        self, rows: Iterator[pa.RecordBatch], files: Sequence[Sink], shard: ShardInfo
    ) -> None:
        """Stream the rows into open files, in their order; memory is bounded by a batch.

        Every batch but the last has ``shard.batch_rows`` rows. The same rows give the same bytes.
        """
        ...

    def read(self, files: Sequence[IO[bytes]], vector: str) -> Iterator[pa.RecordBatch]:
        """The rows of a shard that anybody wrote, in their order, vectors as column ``vector``.

        Raises ``ValueError`` (``pa.ArrowInvalid`` is one) for files that cannot be read.
        """
        ...


KNOWN_EXPORTERS = Registry[Exporter](
    EXPORTERS,
    {
        "parquet": "embedding_core.exports.formats.parquet:PARQUET",
        "jsonl": "embedding_core.exports.formats.jsonl:JSON_LINES",
        "safetensors": "embedding_core.exports.formats.safetensors:SAFETENSORS",
        "npy": "embedding_core.exports.formats.npy:NPY",
        "arrow": "embedding_core.exports.formats.arrow:ARROW",
    },
    Exporter,
)
