"""Rows that somebody else put into a table: they are never taken for files that left the source."""

from __future__ import annotations

from collections.abc import Collection

from embedding_core.errors import LakeError
from embedding_core.identity import chunk_id
from embedding_core.lake.filters import KEYS_PER_SCAN, is_in
from embedding_core.lake.table import Table

COLUMNS = ["chunk_id", "file_key", "source_uri", "doc_id", "chunk_index", "text_hash"]


def check_all_ours(table: Table, unknown_keys: Collection[str]) -> None:
    """Raise ``LakeError`` when rows of these file versions, which the ledger does not know, were
    not written by embedlake: a row's ``chunk_id`` is the digest of its other columns."""
    ordered = sorted(unknown_keys)
    for start in range(0, len(ordered), KEYS_PER_SCAN):
        condition = is_in("file_key", ordered[start : start + KEYS_PER_SCAN])
        scanner = table.dataset().scanner(columns=COLUMNS, filter=condition)
        with table.faults("reading"):
            for batch in scanner.to_batches():
                for row in batch.to_pylist():
                    expected = chunk_id(
                        row["source_uri"], row["doc_id"], row["chunk_index"], row["text_hash"]
                    )
                    if row["chunk_id"] != expected:
                        raise LakeError(
                            f"table {table.name!r} in {table.lake.uri} holds rows that embedlake "
                            f"did not write, for example of source_uri {row['source_uri']!r} and "
                            f"file_key {row['file_key']!r}; a table follows one recipe's files "
                            "alone: move such rows to another table and delete them from this one"
                        )
