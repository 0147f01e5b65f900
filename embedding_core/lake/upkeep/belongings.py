"""Removing a table with everything that belongs to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from embedding_core.lake.faults import store_faults
from embedding_core.lake.ledger import ledger_table, rejects_table
from embedding_core.lake.table import Table
from embedding_core.store import storage
from embedding_core.store.layout import table_folder


def folders_of(table: Table) -> list[str]:
    """URIs of the folders that a table, its ledger, its rejects and its runs have in the lake."""
    folders = [table.uri, ledger_table(table).uri, rejects_table(table).uri]
    folders.append(table_folder(table.lake.uri, table.name))
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
