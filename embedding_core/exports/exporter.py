"""What an exporter is, and which there are. Knows rows, not where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from embedding_core.records import Space
from embedding_core.registry import EXPORTERS, Registry


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """What is written, for manifests and cards."""

    recipe: str
    """Name of the recipe that made the table."""
    table: str
    version: int
    """The table's version that the rows are of."""
    space_id: str
    space: Space
    """The space of the vectors."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written."""

    files: tuple[str, ...]
    rows: int
    size_bytes: int


class Exporter(Protocol):
    """Writes rows into one kind of target."""

    def write(self, rows: Iterator[pa.RecordBatch], target: str, about: ExportInfo) -> ExportReport:
        """Stream the rows into ``target``, a local path that does not exist yet.

        The target is complete or not there at all; memory is bounded by a batch. Raises
        ``UsageError`` for a target that exists and for rows without a batch, ``SetupError`` when
        it cannot be written.
        """
        ...


KNOWN_EXPORTERS = Registry[Exporter](
    EXPORTERS, {"parquet": "embedding_core.exports.parquet:PARQUET"}, Exporter
)
