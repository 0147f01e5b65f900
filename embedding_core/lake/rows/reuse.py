"""Vectors the table already has: an equal text in one space has an equal vector.

Row ids stay in memory, vectors are read when they are asked for, so that a file of millions of
rows can be reused in bounded memory.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedding_core.errors import EmbedlakeError
from embedding_core.lake import schema
from embedding_core.lake.scans import scan, scan_values
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import Table
from embedding_core.lake.vectors import is_unit, to_numpy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OldRows:
    """Which rows to look among, by a column that has an index."""

    column: str
    """``file_key``, ``chunk_id`` or ``text_hash``."""
    values: Collection[str]


@dataclass(frozen=True, slots=True)
class KnownVectors:
    """Which of the texts asked for have a vector at one version of a table."""

    snapshot: Snapshot | None
    row_ids: dict[str, int]
    """Row that holds the vector, by text hash."""

    def read(self, hashes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """(dim,) float32 by text hash, for those of ``hashes`` that are known."""
        by_row_id = {self.row_ids[hashed]: hashed for hashed in hashes if hashed in self.row_ids}
        if self.snapshot is None or not by_row_id:
            return {}
        vectors: dict[str, NDArray[np.float32]] = {}
        where = f"_rowid IN ({', '.join(map(str, by_row_id))})"
        for batch in scan(
            self.snapshot, [schema.VECTOR], where, row_ids=True, doing="reading vectors of"
        ):
            rows = zip(
                batch.column("_rowid").to_pylist(),
                to_numpy(batch.column(schema.VECTOR)),
                strict=True,
            )
            vectors.update((by_row_id[row_id], vector) for row_id, vector in rows)
        return vectors


def known_vectors(
    table: Table,
    version: int | None,
    space_id: str,
    old_rows: OldRows,
    hashes: Collection[str],
) -> KnownVectors:
    """Find texts among old rows of the table as it was at ``version``.

    A version that was cleaned up meanwhile, or that has an index that cannot be used, gives way to
    the newest one. Rows of another space and vectors that are not finite or not of unit length are
    passed over: such texts are embedded.
    """
    if not old_rows.values or not hashes or not table.exists():
        return KnownVectors(None, {})
    snapshot = table.open(version)
    try:
        return _known_in(snapshot, space_id, old_rows, hashes)
    except (EmbedlakeError, ValueError) as error:
        newest = table.open()
        if newest.version == snapshot.version:
            raise
        log.warning("looking for known texts in the newest version of %s: %s", table.uri, error)
        return _known_in(newest, space_id, old_rows, hashes)


def _known_in(
    snapshot: Snapshot, space_id: str, old_rows: OldRows, hashes: Collection[str]
) -> KnownVectors:
    if snapshot.space()[0] != space_id:
        return KnownVectors(None, {})
    all_hashes = pa.array(hashes, pa.string())
    row_ids: dict[str, int] = {}
    for batch in scan_values(
        snapshot,
        old_rows.column,
        old_rows.values,
        ["text_hash", schema.VECTOR],
        row_ids=True,
        doing="looking for known texts in",
    ):
        rows = batch.filter(pc.is_in(batch.column("text_hash"), value_set=all_hashes))
        rows = rows.filter(pa.array(is_unit(rows.column(schema.VECTOR))))
        ids = rows.column("_rowid").to_pylist()
        row_ids.update(zip(rows.column("text_hash").to_pylist(), ids, strict=True))
    return KnownVectors(snapshot, row_ids)
