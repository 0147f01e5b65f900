"""Compaction and clean-up of old versions, for tables with years of small changes.

Runs beside readers and writers. Nothing that a kept version needs is removed. A conflict with a
writer costs maintenance work, never the writer its rows. Knows no recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any, TypeVar

import lance
from lance.optimize import Compaction

from embedding_core.errors import EmbedlakeError
from embedding_core.lake.disk.flushing import INDEX_ROOMS, flush_fragments, flushed
from embedding_core.lake.faults import tried_again
from embedding_core.lake.index.scalar import coverage
from embedding_core.lake.lock import try_lock_and_release
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.vector_columns import under_construction
from embedding_core.lake.table import Table
from embedding_core.store import storage

FRAGMENT_BYTES = 256 * 2**20
"""Size that compaction aims at: 140,000 rows of 384 float32 values and 400 bytes of text."""
FEWEST_FRAGMENT_ROWS, MOST_FRAGMENT_ROWS = 1_024, 2**20
SMALL_SHARE = 0.5
"""A fragment with less than this share of the rows aimed at is merged with small neighbours."""
DELETED_SHARE = 0.1
"""A fragment with a larger share of deleted rows is rewritten without them."""
BATCH_BYTES = 4 * 2**20
"""Rows that each thread of a compaction reads at once."""
COMPACTION_THREADS = 2
TASKS_PER_COMMIT = 16
"""New fragments per commit: a conflict costs at most their work. Each commit rewrites the indexes,
so a commit per fragment would cost more."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TableState:
    """A table at one moment."""

    rows: int
    deleted_rows: int
    """Rows that are gone but still in the data files."""
    fragments: int
    small_fragments: int
    """Fragments that compaction would merge or rewrite."""
    versions: int
    size_bytes: int
    """All files, those of old versions included."""
    indexed_share: dict[str, float]
    """Rows that an index covers, of all rows, by the index's name."""


@dataclass(frozen=True, slots=True)
class TableReport:
    """What maintenance did to one table."""

    table: str
    before: TableState
    after: TableState
    fragments_merged: int
    """Fragments that compaction took away."""
    versions_removed: int
    bytes_removed: int
    """Files that no version kept needs."""
    problems: tuple[str, ...]
    """A sentence for each step that failed; the other steps were done, and the next maintenance
    tries again."""


def maintain_table(
    table: Table, keep: timedelta | None, refresh_indexes: Callable[[], object] = lambda: None
) -> TableReport:
    """Refresh the indexes, compact, remove versions older than ``keep`` (more than nothing).

    ``keep``: None to remove no version.

    ``refresh_indexes`` extends the table's indexes and merges their parts; it comes first, because
    Lance merges only fragments that the same part of each index covers. Tagged versions and what
    they need stay. A conflict is tried again; a step that still fails is listed and does not stop
    the others.
    """
    problems: list[str] = []
    before = state_of(table)
    refreshing = f"refresh the indexes of {table.uri}"
    _step(problems, lambda: tried_again(refreshing, lambda _attempt: refresh_indexes()))
    merged = _step(problems, lambda: compact(table))
    removed = _step(problems, lambda: _remove_versions(table, keep)) if keep is not None else None
    return TableReport(
        table=table.name,
        before=before,
        after=state_of(table),
        fragments_merged=merged or 0,
        versions_removed=removed.old_versions if removed else 0,
        bytes_removed=removed.bytes_removed if removed else 0,
        problems=tuple(problems),
    )


def state_of(table: Table) -> TableState:
    """Count rows, fragments, versions and bytes; reads no row."""
    return tried_again(f"look at {table.uri}", lambda _attempt: _state_of(table))


def _state_of(table: Table) -> TableState:
    dataset = table.dataset()
    layout = _Layout.of(dataset)
    rows = dataset.count_rows()
    files = list(storage.files_below(table.uri, table.lake.storage))
    covered = coverage(dataset)
    return TableState(
        rows=rows,
        deleted_rows=sum(layout.physical) - rows,
        fragments=len(layout.physical),
        small_fragments=layout.n_small,
        versions=sum(file.uri.endswith(".manifest") for file in files),
        size_bytes=sum(file.size_bytes for file in files),
        indexed_share={
            name: 1 - index.uncovered_rows / rows if rows else 1.0
            for name, index in covered.items()
        },
    )


def small_fragments(snapshot: Snapshot) -> int:
    """Fragments that compaction would merge or rewrite."""
    return _Layout.of(snapshot.dataset).n_small


def must_wait(snapshot: Snapshot) -> bool:
    """Whether compaction has to wait, because a live run is filling a vector column."""
    is_filled = bool(under_construction(snapshot.dataset))
    return is_filled and not try_lock_and_release(snapshot.table, "build")


def compact(table: Table) -> int:
    """Merge small fragments and drop deleted rows; how many fragments were taken away.

    Large fragments are left as they are, so a row is rewritten a few times in its life, not by
    every compaction. Memory: a few batches of ``BATCH_BYTES`` for each of ``COMPACTION_THREADS``.
    A commit that conflicts with a writer is tried again on the newer version, with less at once.
    Does nothing while a run fills a vector column, which it does fragment by fragment. A column
    that no run fills keeps the vectors it has.
    """
    if must_wait(table.open()):
        return 0

    def attempt_once(attempt: int) -> int:
        return _compact(table, TASKS_PER_COMMIT if attempt == 1 else 1)

    planning = f"plan the compaction of {table.uri}"
    n_tasks = tried_again(planning, lambda _attempt: len(_plan(table.dataset()).tasks))
    rounds = math.ceil(n_tasks / TASKS_PER_COMMIT)  # not until nothing is left: writers go on
    return sum(tried_again(f"compact {table.uri}", attempt_once) for _ in range(rounds))


def _compact(table: Table, most: int) -> int:
    dataset = table.dataset()
    tasks = _plan(dataset).tasks[:most]
    if not tasks:
        return 0
    with flushed(table.uri, *INDEX_ROOMS):
        written = [task.execute(dataset) for task in tasks]
        flush_fragments(table.uri, (new for result in written for new in result.new_fragments))
        return int(Compaction.commit(dataset, written).fragments_removed)


def _plan(dataset: lance.LanceDataset) -> Any:
    layout = _Layout.of(dataset)
    return Compaction.plan(
        dataset,
        {
            "target_rows_per_fragment": layout.target_rows,
            "materialize_deletions_threshold": DELETED_SHARE,
            "num_threads": COMPACTION_THREADS,
            "batch_size": max(1, BATCH_BYTES // layout.row_bytes),
            "excluded_fragment_ids": layout.settled_ids,
        },
    )


def _remove_versions(table: Table, keep: timedelta) -> Any:
    """Remove old versions, but no file that a worker may have written for a commit to come."""
    if keep <= timedelta(0):
        raise ValueError(f"keep is {keep}: a reader needs the version it reads")

    def attempt_once(_attempt: int) -> Any:
        return table.dataset().cleanup_old_versions(
            older_than=keep, error_if_tagged_old_versions=False
        )

    return tried_again(f"clean up {table.uri}", attempt_once)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the rows lie in fragments."""

    ids: Sequence[int]
    physical: Sequence[int]
    """Rows in each fragment's files, deleted ones included."""
    deleted: Sequence[int]
    row_bytes: int

    @classmethod
    def of(cls, dataset: lance.LanceDataset) -> _Layout:
        fragments = [fragment.metadata for fragment in dataset.get_fragments()]
        physical = [int(fragment.physical_rows) for fragment in fragments]
        files = [file for fragment in fragments for file in fragment.files]
        size_bytes = sum(file.file_size_bytes or 0 for file in files)
        return cls(
            ids=[fragment.id for fragment in fragments],
            physical=physical,
            deleted=[
                int(file.num_deleted_rows) if (file := fragment.deletion_file) else 0
                for fragment in fragments
            ],
            row_bytes=max(1, size_bytes // max(1, sum(physical))),
        )

    @property
    def target_rows(self) -> int:
        """Rows of a full fragment."""
        aimed = FRAGMENT_BYTES // self.row_bytes
        return min(max(aimed, FEWEST_FRAGMENT_ROWS), MOST_FRAGMENT_ROWS)

    @property
    def settled_ids(self) -> list[int]:
        """Fragments that are large enough and have few deleted rows."""
        return [
            fragment_id
            for fragment_id, small, holed in zip(self.ids, self._small, self._holed, strict=True)
            if not small and not holed
        ]

    @property
    def n_small(self) -> int:
        """Fragments to merge or rewrite. Only neighbours can be merged, so small ones count where
        two stand together."""
        mergeable = sum(
            n for small, run in groupby(self._small) if small and (n := len(list(run))) > 1
        )
        rewritable = sum(
            holed and not small for small, holed in zip(self._small, self._holed, strict=True)
        )
        return mergeable + rewritable

    @property
    def _small(self) -> list[bool]:
        least = SMALL_SHARE * self.target_rows
        return [
            rows - deleted < least
            for rows, deleted in zip(self.physical, self.deleted, strict=True)
        ]

    @property
    def _holed(self) -> list[bool]:
        return [
            deleted > DELETED_SHARE * rows
            for rows, deleted in zip(self.physical, self.deleted, strict=True)
        ]


def _step(problems: list[str], action: Callable[[], Result]) -> Result | None:
    try:
        return action()
    except EmbedlakeError as error:
        problems.append(str(error))
        return None
