"""Vectors the table already has: an equal text in one space has an equal vector.

Row ids stay in memory, vectors are read when they are asked for, so that a file of millions of
rows can be reused in bounded memory.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedding_core.errors import EmbedlakeError
from embedding_core.lake import schema
from embedding_core.lake.faults import store_faults
from embedding_core.lake.filters import KEYS_PER_SCAN, is_in
from embedding_core.lake.rows.verification import is_unit
from embedding_core.lake.table import Table

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OldRows:
    """Which rows to look among, by a column that has an index."""

    column: str
    """``file_key``, ``chunk_id`` or ``text_hash``."""
    values: Collection[str]


@dataclass(frozen=True, slots=True)
class KnownVectors:
    """Which of some texts have a vector at one version of a table."""

    dataset: lance.LanceDataset | None
    row_ids: dict[str, int]
    """Row that holds the vector, by text hash."""

    def read(self, hashes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """(dim,) float32 by text hash, for those of ``hashes`` that are known."""
        asked = {self.row_ids[one]: one for one in hashes if one in self.row_ids}
        if self.dataset is None or not asked:
            return {}
        found = {}
        ids = ", ".join(map(str, asked))
        scanner = self.dataset.scanner(
            columns=[schema.VECTOR], filter=f"_rowid IN ({ids})", with_row_id=True
        )
        with store_faults(f"reading vectors of {self.dataset.uri}"):
            for batch in scanner.to_batches():
                vectors = _matrix(batch.column(schema.VECTOR))
                for row_id, vector in zip(batch.column("_rowid").to_pylist(), vectors, strict=True):
                    found[asked[row_id]] = vector
        return found


def known_vectors(
    table: Table,
    version: int | None,
    space_id: str,
    old_rows: OldRows,
    hashes: Collection[str],
) -> KnownVectors:
    """Find texts among some rows of the table as it was at ``version``.

    A version that was cleaned up meanwhile, or that has an index that cannot be used, gives way to
    the newest one. Rows of another space and vectors that are not finite or not of unit length are
    passed over: such texts are embedded.
    """
    if not old_rows.values or not hashes or not table.exists():
        return KnownVectors(None, {})
    dataset = table.dataset(version)
    try:
        return _known_in(table, dataset, space_id, old_rows, hashes)
    except (EmbedlakeError, ValueError) as error:
        newest = table.dataset()
        if newest.version == dataset.version:
            raise
        log.warning("looking for known texts in the newest version of %s: %s", table.uri, error)
        return _known_in(table, newest, space_id, old_rows, hashes)


def _known_in(
    table: Table,
    dataset: lance.LanceDataset,
    space_id: str,
    old_rows: OldRows,
    hashes: Collection[str],
) -> KnownVectors:
    if schema.space_of(dataset.schema.field(schema.VECTOR))[0] != space_id:
        return KnownVectors(None, {})
    wanted = pa.array(hashes, pa.string())
    row_ids: dict[str, int] = {}
    ordered = sorted(old_rows.values)
    with table.faults("looking for known texts in"):
        for start in range(0, len(ordered), KEYS_PER_SCAN):
            scanner = dataset.scanner(
                columns=["text_hash", schema.VECTOR],
                filter=is_in(old_rows.column, ordered[start : start + KEYS_PER_SCAN]),
                with_row_id=True,
            )
            for batch in scanner.to_batches():
                some = batch.filter(pc.is_in(batch.column("text_hash"), value_set=wanted))
                good = some.filter(pa.array(is_unit(some.column(schema.VECTOR))))
                row_ids.update(
                    zip(
                        good.column("text_hash").to_pylist(),
                        good.column("_rowid").to_pylist(),
                        strict=True,
                    )
                )
    return KnownVectors(dataset, row_ids)


def _matrix(column: pa.FixedSizeListArray) -> NDArray[np.float32]:
    """(n_rows, dim) float32."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    matrix: NDArray[np.float32] = flat.reshape(-1, column.type.list_size).astype(np.float32)
    return matrix
