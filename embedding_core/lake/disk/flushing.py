"""Have what a commit needs on the disk before it, and the commit itself after it.

Lance flushes nothing. When the power is lost, a local disk keeps what was flushed, and of the rest
any part: a name without a content, pages of zeros. A manifest that was not flushed yet may so be
torn, which ``lake.damage`` tells; all that it names is whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lance
from lance.fragment import FragmentMetadata

from embedding_core.lake.faults import store_faults
from embedding_core.store import storage

LARGEST_NUMBER, COUNTED_DOWN_DIGITS = 2**64 - 1, 20
"""Lance numbers manifests by 20 digits that count down from the largest number of 64 bits."""
INDEX_ROOMS = ("_indices", "_versions", "_transactions")
"""Folders of a table that a change of its indexes writes into."""
CLOCK_SECONDS = 2.0
"""The times of files may be this much behind the clock: some file systems count in twos."""


def flush_fragments(table_uri: str, fragments: Iterable[FragmentMetadata]) -> None:
    """Have data files and deletion files of fragments on the disk, which no commit names yet."""
    if not storage.is_local(table_uri):
        return
    paths = []
    for fragment in fragments:
        paths += [storage.join(table_uri, "data", file.path) for file in fragment.files]
        if fragment.deletion_file is not None:
            paths.append(storage.join(table_uri, fragment.deletion_file.path(fragment.id)))
    with store_faults(f"flushing {table_uri}"):
        storage.flush(paths)


def flush_version(dataset: lance.LanceDataset) -> None:
    """Have a version that was committed on the disk: its manifest and its transaction."""
    if not storage.is_local(dataset.uri):
        return
    table, version = Path(dataset.uri), int(dataset.version)
    paths = [
        table / "_versions" / f"{LARGEST_NUMBER - version:0{COUNTED_DOWN_DIGITS}}.manifest",
        table / "_versions" / f"{version}.manifest",
        *(table / "_transactions").glob(f"{version - 1}-*"),
    ]
    with store_faults(f"flushing {dataset.uri}"):
        storage.flush(str(path) for path in paths if path.exists())


@contextmanager
def flushed(table_uri: str, *rooms: str) -> Iterator[None]:
    """Have all that is written in this context into folders of a table on the disk when it ends;
    without ``rooms`` into any. Looks at every file there."""
    started = time.time() - CLOCK_SECONDS
    yield
    if not storage.is_local(table_uri):
        return
    with store_faults(f"flushing {table_uri}"):
        newer = [
            path
            for room in rooms or ("",)
            for path in Path(table_uri, room).rglob("*")
            if _written_at(path) >= started
        ]
        storage.flush(map(str, [*newer, Path(table_uri)]))


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # of another writer, and gone again
        return 0.0
