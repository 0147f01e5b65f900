"""Indexes that cannot be used: found, named, and dropped so that the next refresh makes them anew.

An index only saves time, and everything in it can be made again from the rows. One that cannot be
read is worse than none: every filter that would use it fails.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import lance

from embedding_core.errors import Transient
from embedding_core.lake.damage import homeless_indexes, indexes_of
from embedding_core.lake.faults import is_panic, plain, store_faults
from embedding_core.lake.snapshot import INDEX_KEY
from embedding_core.lake.table import Table
from embedding_core.store import storage

log = logging.getLogger(__name__)

LARGEST_READ_BYTES = 256 * 2**20
"""An index up to this size is read as a whole when a run looks at it: seconds from a bucket. Of a
larger one only the sizes of its files are looked at; ``verify --deep`` reads all."""


def broken_indexes(table: Table, most_bytes: int | None = LARGEST_READ_BYTES) -> dict[str, str]:
    """Why each index that cannot be used cannot be, by its name.

    Its column is gone, its files are missing or of another size than the metadata says, or it
    cannot be read. Of an index above ``most_bytes`` the last is not tried; None: each is read.
    """
    dataset = table.dataset()
    with store_faults(f"looking at the indexes of {table.uri}"):
        sizes = _bytes_by_folder(table)
        column_ids = {field.id() for field in dataset.lance_schema.fields()}
        return {
            index.name: why
            for index in indexes_of(dataset)
            if (why := _trouble(table, dataset, index, sizes, column_ids, most_bytes))
        }


def drop_broken_indexes(table: Table) -> dict[str, str]:
    """Drop what ``broken_indexes`` finds, with its stored settings, and say so in the log."""
    broken = broken_indexes(table)
    for name, why in broken.items():
        log.warning("dropping index %s of %s, to be made anew: %s", name, table.uri, why)
        drop_index(table, name)
    return broken


def check_index_sizes(table: Table) -> None:
    """Raise ``Transient`` when a file of an index is missing or not as long as the metadata says,
    as after a lost write; the indexes it belongs to are dropped, so another try makes them anew."""
    dataset = table.dataset()
    with store_faults(f"looking at the indexes of {table.uri}"):
        sizes = _bytes_by_folder(table)
        wrong = {one.name: why for one in indexes_of(dataset) if (why := _wrong_size(one, sizes))}
    for name in wrong:
        drop_index(table, name)
    if wrong:
        name, why = next(iter(wrong.items()))
        raise Transient(
            f"index {name} of {table.uri}: {why}; a write was lost, and the index was dropped; "
            "look whether the disk is full or failing, then run the same command again"
        )


def drop_homeless_indexes(table: Table) -> tuple[str, ...]:
    """Drop every index whose column is gone; their names. Reads metadata alone."""
    homeless = homeless_indexes(table.dataset())
    for name in homeless:
        log.warning("dropping index %s of %s: its column is gone", name, table.uri)
        drop_index(table, name)
    return homeless


def drop_index(table: Table, name: str) -> None:
    """Drop an index and the settings stored with it; one that is gone already is fine."""
    dataset = table.dataset()
    with store_faults(f"dropping index {name} of {table.uri}"):
        if any(index.name == name for index in indexes_of(dataset)):
            dataset.drop_index(name)
        if INDEX_KEY + name in table.dataset().metadata:
            table.dataset().update_metadata({INDEX_KEY + name: None})


def _bytes_by_folder(table: Table) -> Mapping[str, int]:
    """Bytes of all files of each index part, by the part's id."""
    sizes: dict[str, int] = defaultdict(int)
    for file in storage.files_below(storage.join(table.uri, "_indices"), table.lake.storage):
        part = file.uri.rpartition("/_indices/")[2].partition("/")[0]
        sizes[part] += file.size_bytes
    return sizes


def _trouble(
    table: Table,
    dataset: lance.LanceDataset,
    index: Any,
    sizes: Mapping[str, int],
    column_ids: set[int],
    most_bytes: int | None,
) -> str | None:
    """What is wrong with an index; None when nothing is."""
    if not column_ids.issuperset(index.fields):
        return "its column is gone"
    if why := _wrong_size(index, sizes):
        return why
    if most_bytes is not None and (index.total_size_bytes or 0) > most_bytes:
        return None
    # A store that hiccups must not cost an index: only what fails twice is broken.
    first = _unreadable(dataset, index.name)
    return first and _unreadable(table.dataset(), index.name)


def _wrong_size(index: Any, sizes: Mapping[str, int]) -> str | None:
    """Which part of an index is not there as it was written; None when all are."""
    for part in index.segments:
        size, expected = sizes.get(str(part.uuid)), part.size_bytes
        if size is None:
            return f"its files in _indices/{part.uuid} are missing"
        if expected is not None and size != expected:
            return f"_indices/{part.uuid} has {size:,} bytes, its metadata says {expected:,}"
    return None


def _unreadable(dataset: lance.LanceDataset, name: str) -> str | None:
    """What Lance says when it cannot read an index; None when it can."""
    try:
        dataset.prewarm_index(name)
    except BaseException as error:
        if not isinstance(error, (OSError, ValueError, RuntimeError)) and not is_panic(error):
            raise
        return f"it cannot be read ({plain(error)})"
    return None
