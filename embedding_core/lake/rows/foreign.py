"""Rows that somebody else put into a table: they are never taken for files that left the source."""

from __future__ import annotations

from collections.abc import Collection

from embedding_core.errors import LakeError
from embedding_core.identity import chunk_id
from embedding_core.lake.scans import scan_values
from embedding_core.lake.snapshot import Snapshot

COLUMNS = ["chunk_id", "file_key", "source_uri", "doc_id", "chunk_index", "text_hash"]


def check_all_ours(snapshot: Snapshot, unknown_keys: Collection[str]) -> None:
    """Raise ``LakeError`` when rows of these file versions were not written by embedlake.

    The ledger does not know these versions. A row that embedlake wrote has the digest of its other
    columns as its ``chunk_id``.
    """
    if not unknown_keys:
        return
    for batch in scan_values(snapshot, "file_key", unknown_keys, COLUMNS):
        for row in batch.to_pylist():
            expected = chunk_id(
                row["source_uri"], row["doc_id"], row["chunk_index"], row["text_hash"]
            )
            if row["chunk_id"] != expected:
                raise LakeError(
                    f"table {snapshot.table.name!r} in {snapshot.table.lake.uri} holds rows that "
                    f"embedlake did not write, for example of source_uri {row['source_uri']!r} and "
                    f"file_key {row['file_key']!r}; a table follows one recipe's files "
                    "alone: move such rows to another table and delete them from this one"
                )
