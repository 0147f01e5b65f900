"""Checks of the rows that a run wrote. A run whose rows fail a check fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedding_core.lake import schema
from embedding_core.lake.index.tuning import ROWS_PER_BATCH
from embedding_core.lake.scans import scan, scan_values
from embedding_core.lake.snapshot import Snapshot, opened
from embedding_core.lake.table import Table
from embedding_core.lake.vectors import is_unit
from embedding_core.plurals import counted
from embedding_core.records import FileCounts

ONE_PASS_SHARE = 0.5
"""Share of the table's rows from which on one pass over it is faster than lookups by the index:
100,000 files of a row each took 7 s by the index."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked, and everything that is wrong."""

    files: int
    rows: int
    problems: tuple[str, ...]
    """One sentence each; empty when all is well."""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


Hashes = Callable[[pa.Array], NDArray[np.int64]]
"""(n_rows,) a number for each ``chunk_id``, the same one for the same id."""


def hashes_of(chunk_ids: pa.Array) -> NDArray[np.int64]:
    """Python's hashes, the same all through this process."""
    return np.fromiter(map(hash, chunk_ids.to_pylist()), np.int64, len(chunk_ids))


def verify(
    table: Table | Snapshot,
    counts: Sequence[FileCounts],
    removed_keys: Collection[str],
    hashes: Hashes = hashes_of,
) -> Verification:
    """Check the table against the counts of the files just committed and the keys just removed.

    Checks that each ledger line balances, that each file has as many rows as counted, that removed
    versions have none, that every vector is finite and of unit length, and that no ``chunk_id``
    stands twice. Takes 16 bytes of memory a row.
    """
    snapshot = opened(table)
    keys = [*(file.file_key for file in counts), *removed_keys]
    n_rows = sum(file.rows for file in counts)
    rows: Counter[str] = Counter()
    bad_vectors: Counter[str] = Counter()
    all_hashes = [np.zeros(0, np.int64)]
    for batch in _rows_of(snapshot, keys, n_rows, ["chunk_id", schema.VECTOR]):
        file_keys = batch.column("file_key").to_pylist()
        rows.update(file_keys)
        all_hashes.append(hashes(batch.column("chunk_id")))
        bad = np.flatnonzero(~is_unit(batch.column(schema.VECTOR)))
        bad_vectors.update(file_keys[index] for index in bad)
    problems = [
        *_count_problems(counts, rows),
        *(f"{key[:12]}: replaced or removed, but has rows" for key in removed_keys if rows[key]),
        *(f"{key[:12]}: {counted(n, 'vector is', 'vectors are')} not finite or not of unit length"
          for key, n in bad_vectors.items()),
    ]  # fmt: skip
    if (repeated := _repeated(np.concatenate(all_hashes))).size:  # by far the rarest case
        n_times: Counter[str] = Counter()
        for batch in _rows_of(snapshot, keys, n_rows, ["chunk_id"]):
            ids = batch.column("chunk_id")
            n_times.update(ids.filter(pa.array(np.isin(hashes(ids), repeated))).to_pylist())
        problems += [
            f"chunk_id {key} stands {counted(n, 'time')}" for key, n in n_times.items() if n > 1
        ]
    return Verification(len(counts), sum(rows.values()), tuple(problems))


def _repeated(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The values that stand more than once; sorts in place."""
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _count_problems(counts: Sequence[FileCounts], rows: Counter[str]) -> Iterator[str]:
    for file in counts:
        if not file.balances:
            yield (
                f"{file.source_uri}: {counted(file.chunks, 'chunk is', 'chunks are')} not "
                f"{file.embedded} embedded + "
                f"{file.reused} reused + {file.dropped} dropped + {file.failed} failed"
            )
        n_rows = rows[file.file_key]
        if n_rows != file.rows:
            yield f"{file.source_uri}: {counted(n_rows, 'row')} in the table, {file.rows} counted"


def _rows_of(
    snapshot: Snapshot, keys: Sequence[str], n_rows: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Rows of file versions, which are expected to be ``n_rows``.

    By the index, unless that is much of the table: then one pass over all of it takes less time.
    """
    columns = ["file_key", *columns]
    if n_rows < ONE_PASS_SHARE * snapshot.n_rows:
        yield from scan_values(snapshot, "file_key", keys, columns, batch_rows=ROWS_PER_BATCH)
        return
    all_keys = pa.array(keys, pa.string())
    for batch in scan(snapshot, columns, batch_rows=ROWS_PER_BATCH):
        yield batch.filter(pc.is_in(batch.column("file_key"), value_set=all_keys))
