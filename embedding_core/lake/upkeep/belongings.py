"""What belongs to a table in its lake: removed with it, and cleaned up when dead runs left it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from embedding_core.lake.faults import store_faults
from embedding_core.lake.ledger import ledger_table, rejects_table
from embedding_core.lake.readers.feedback import feedback_table
from embedding_core.lake.staging import check_no_link, staging_folder
from embedding_core.lake.table import Table
from embedding_core.store import storage
from embedding_core.store.layout import table_folder

KEPT = timedelta(days=7)
"""Lance keeps uncommitted fragments this long. An older report names rows that are gone."""


def folders_of(table: Table) -> list[str]:
    """URIs of the folders that a table, the tables beside it and its runs have in the lake."""
    beside = (ledger_table(table), rejects_table(table), feedback_table(table))
    folders = [table.uri, *(each.uri for each in beside)]
    # Beside the table's own: the locks of who made the others.
    folders += [table_folder(table.lake.uri, each.name) for each in (table, *beside)]
    fs = storage.filesystem(table.lake.uri, table.lake.storage)
    with store_faults(f"looking at {table.lake.uri}"):
        return [folder for folder in folders if fs.exists(folder)]


def drop_table(table: Table) -> list[str]:
    """Remove the table and its belongings; the folders that were removed.

    The list of versions is removed first, so that at once there is no table, rather than a table
    with missing files. Call it again after a crash. Reference vectors of spaces stay: other tables
    of the lake share them.
    """
    fs = storage.filesystem(table.lake.uri, table.lake.storage)
    removed = folders_of(table)
    for folder in _versions_first(removed):
        with store_faults(f"removing {folder}"), contextlib.suppress(FileNotFoundError):
            fs.rm(folder, recursive=True)
    return removed


def _versions_first(folders: list[str]) -> Iterator[str]:
    for folder in folders:
        if folder.endswith(".lance"):
            yield storage.join(folder, "_versions")
    yield from folders


@dataclass(frozen=True, slots=True)
class Orphans:
    """The files that were removed."""

    files: int
    size_bytes: int


def remove_orphans(table: Table, older_than: timedelta = KEPT) -> Orphans:
    """Remove staged files of that age, which no run needs any more.

    They only save time, so their age alone decides; a run that misses such a file makes it again.
    """
    before = datetime.now(UTC) - older_than
    files = size_bytes = 0
    folder = staging_folder(table)
    check_no_link(table, folder)
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
