"""Files beside a table that no run needs any more: staged rows and task results of dead runs.

They only save time, so their age alone decides; a run that misses such a file makes it again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from embedding_core.lake.faults import store_faults
from embedding_core.lake.table import Table
from embedding_core.store import storage
from embedding_core.store.layout import CLEANED_UP, table_folder

KEPT = timedelta(days=7)
"""Lance keeps uncommitted fragments this long. An older task result names rows that are gone."""


@dataclass(frozen=True, slots=True)
class Orphans:
    """The files that were removed."""

    files: int
    size_bytes: int


def remove_orphans(table: Table, older_than: timedelta = KEPT) -> Orphans:
    """Remove files of that age; missing files are fine."""
    before = datetime.now(UTC) - older_than
    files = size_bytes = 0
    for name in CLEANED_UP:
        folder = storage.join(table_folder(table.lake.uri, table.name), name)
        with store_faults(f"cleaning up {folder}"):
            for file in storage.files_below(folder, table.lake.storage):
                if file.written_at < before:
                    _remove(file.uri, table)
                    files, size_bytes = files + 1, size_bytes + file.size_bytes
    return Orphans(files, size_bytes)


def _remove(uri: str, table: Table) -> None:
    """Remove a file, and its folder when that is empty then."""
    with contextlib.suppress(FileNotFoundError):
        storage.filesystem(table.lake.uri, table.lake.storage).rm_file(uri)
    if storage.is_local(table.lake.uri):
        with contextlib.suppress(OSError):
            Path(uri).parent.rmdir()
