"""A checksum in each line of the ledger and of the rejects: Lance keeps none of what it stores.

The values of a reject get theirs before they are staged. The line in the table has two values more,
and its checksum goes on from the staged one: it is wrong, too, where a disk changed a staged value.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b

import pyarrow as pa

from embedding_core.lake import schema

CHECKSUM_BYTES = 8
"""A changed line keeps its checksum with a chance of 5e-20."""
N_REJECT_FIELDS = len(schema.REJECT_FIELDS)


def checksums(columns: Sequence[pa.Array], begun: pa.Array | None = None) -> pa.Array:
    """(n_rows,) hex digits that stand for the values of each row, and for those of ``begun``, the
    checksums of values before them."""
    before = [] if begun is None else [begun]
    # Times as their numbers: JSON has none.
    plain = (
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for column in (*before, *columns)
    )
    rows = zip(*(column.to_pylist() for column in plain), strict=True)
    return pa.array([_checksum(row) for row in rows], pa.string())


def ledger_checksums(lines: pa.RecordBatch) -> pa.Array:
    """(n_rows,) what the checksums of these lines of the ledger have to be."""
    return checksums([lines.column(name) for name in schema.LEDGER_SCHEMA.names])


def reject_checksums(lines: pa.RecordBatch) -> pa.Array:
    """(n_rows,) what the checksums of these lines of the rejects have to be."""
    columns = [lines.column(name) for name in schema.REJECTS_SCHEMA.names]
    return checksums(columns[N_REJECT_FIELDS:], checksums(columns[:N_REJECT_FIELDS]))


def _checksum(values: Sequence[object]) -> str:
    return blake2b(json.dumps(values).encode(), digest_size=CHECKSUM_BYTES).hexdigest()
