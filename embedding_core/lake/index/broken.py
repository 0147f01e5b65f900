"""Indexes that cannot be used: named and dropped, so that the next refresh makes them again.

An index only saves time, and everything in it can be made again from the rows. An index that cannot
be read is worse than none: every filter that would use it fails.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import lance

from embedding_core.errors import Transient
from embedding_core.lake.damage import (
    homeless_indexes,
    index_bytes,
    indexes_of,
    wrong_index_size,
)
from embedding_core.lake.faults import is_panic, plain, store_faults
from embedding_core.lake.schema import FULL_TEXT_INDEX
from embedding_core.lake.snapshot import INDEX_KEY, Snapshot

log = logging.getLogger(__name__)

LARGEST_READ_BYTES = 256 * 2**20
"""A run reads an index up to this size as a whole: seconds from a bucket. Of a larger index it only
looks at the sizes of the files; a deep audit reads all."""


def broken_indexes(
    snapshot: Snapshot, most_bytes: int | None = LARGEST_READ_BYTES
) -> dict[str, str]:
    """Why each index that cannot be used cannot be, by its name.

    Its column is gone, its files are missing or of another size than the metadata says, or it
    cannot be read. An index above ``most_bytes`` is not read for that; None reads every index.
    """
    with store_faults(f"looking at the indexes of {snapshot.table.uri}"):
        sizes = index_bytes(snapshot.table.uri, snapshot.table.lake.storage)
        column_ids = {field.id() for field in snapshot.dataset.lance_schema.fields()}
        return {
            index.name: why
            for index in indexes_of(snapshot.dataset)
            if (why := _trouble(snapshot, index, sizes, column_ids, most_bytes))
        }


def drop_broken_indexes(snapshot: Snapshot) -> dict[str, str]:
    """Drop what ``broken_indexes`` finds, with its stored settings, and say so in the log.

    A snapshot moves to the version without them.
    """
    broken = broken_indexes(snapshot)
    for name, why in broken.items():
        log.warning("dropping index %s of %s, to be made again: %s", name, snapshot.table.uri, why)
        drop_index(snapshot, name)
    return broken


def check_index_sizes(snapshot: Snapshot) -> None:
    """Raise ``Transient`` when a file of an index is missing or not as long as the metadata says.

    That happens after a lost write. The index is dropped, so that another try makes it again.
    """
    uri = snapshot.table.uri
    with store_faults(f"looking at the indexes of {uri}"):
        sizes = index_bytes(snapshot.table.uri, snapshot.table.lake.storage)
        wrong = {
            index.name: why
            for index in indexes_of(snapshot.dataset)
            if (why := wrong_index_size(index, sizes))
        }
    for name in wrong:
        drop_index(snapshot, name)
    if wrong:
        name, why = next(iter(wrong.items()))
        raise Transient(
            f"index {name} of {uri}: {why}; a write was lost, and the index was dropped; "
            "look whether the disk is full or failing, then run the same command again"
        )


def drop_homeless_indexes(snapshot: Snapshot) -> tuple[str, ...]:
    """Drop every index whose column is gone; their names. Reads metadata alone."""
    homeless = homeless_indexes(snapshot.dataset)
    for name in homeless:
        log.warning("dropping index %s of %s: its column is gone", name, snapshot.table.uri)
        drop_index(snapshot, name)
    return homeless


def drop_index(snapshot: Snapshot, name: str) -> None:
    """Drop an index and its stored settings; an index that is gone already is fine."""
    snapshot = snapshot.newest()
    with store_faults(f"dropping index {name} of {snapshot.table.uri}"):
        if any(index.name == name for index in indexes_of(snapshot.dataset)):
            snapshot.dataset.drop_index(name)
        if INDEX_KEY + name in snapshot.dataset.metadata:
            snapshot.dataset.update_metadata({INDEX_KEY + name: None})


def _trouble(
    snapshot: Snapshot,
    index: Any,
    sizes: Mapping[str, int],
    column_ids: set[int],
    most_bytes: int | None,
) -> str | None:
    """What is wrong with an index; None when nothing is."""
    if not column_ids.issuperset(index.fields):
        return "its column is gone"
    if wrong := wrong_index_size(index, sizes):
        return wrong
    if most_bytes is not None and (index.total_size_bytes or 0) > most_bytes:
        return None
    # A store that hiccups must not cost an index: only what fails twice is broken.
    why = _unreadable(snapshot.dataset, index.name)
    return why and _unreadable(snapshot.table.dataset(), index.name)


def _unreadable(dataset: lance.LanceDataset, name: str) -> str | None:
    """What Lance says when it cannot read an index; None when it can.

    A full-text index is asked for a word, too: only then are its segments compared, which have to
    be of one kind. Rows that it does not cover yet are left alone.
    """
    try:
        dataset.prewarm_index(name)
        if name == FULL_TEXT_INDEX:
            word = {"query": "a", "columns": ["text"]}
            dataset.to_table(columns=["_score"], full_text_query=word, limit=1, fast_search=True)
    except BaseException as error:
        if not isinstance(error, (OSError, ValueError, RuntimeError)) and not is_panic(error):
            raise
        return f"it cannot be read ({plain(error)})"
    return None
