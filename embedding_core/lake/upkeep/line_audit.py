"""Check lines of the ledger and of the rejects against their checksums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import lance
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.lake import schema
from embedding_core.lake.scans import raw_scan

LINES_PER_BATCH = 1_024
"""Rejects may have long texts."""

Checksums = Callable[[pa.RecordBatch], pa.Array]
"""Lines to (n_rows,) what their checksums have to be."""


def changed_lines(
    dataset: lance.LanceDataset, fragment: lance.LanceFragment, checksums_of: Checksums, column: str
) -> Counter[str]:
    """How many lines of a fragment are not what was written, by their values of a column.

    Lines from before there were checksums pass. Errors are Lance's own.
    """
    changed, names = Counter[str](), dataset.schema.names
    for batch in raw_scan(dataset, names, fragments=[fragment], batch_rows=LINES_PER_BATCH):
        if schema.CHECKSUM not in names:
            continue
        checksums = batch.column(schema.CHECKSUM)
        is_other = pc.fill_null(pc.not_equal(checksums, checksums_of(batch)), False)
        changed.update(batch.column(column).filter(is_other).to_pylist())
    return changed
