"""Checks that a run's rows are what they claim to be; a run that fails one fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedding_core.lake import schema
from embedding_core.lake.filters import KEYS_PER_SCAN, is_in
from embedding_core.lake.index.tuning import READ_AHEAD, ROWS_PER_BATCH
from embedding_core.lake.table import Table
from embedding_core.records import FileCounts

NORM_TOLERANCE = 5e-3
"""A unit vector rounded to float16 keeps its length to about 5e-4; ten times that is wrong."""
ONE_PASS_SHARE = 0.5
"""Of the table's rows. 100,000 files of a row each took 7 s by the index."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at, and everything that is wrong."""

    files: int
    rows: int
    problems: tuple[str, ...]
    """One sentence each; empty when all is well."""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(table: Table, counts: Sequence[FileCounts], gone: Collection[str]) -> Verification:
    """Hold the table against the counts of the files just committed and the keys just removed.

    Checks that each ledger line balances, that each file has as many rows as counted, that removed
    versions have none, that every vector is finite and of unit length, and that no ``chunk_id``
    stands twice. Takes 16 bytes of memory a row.
    """
    dataset, keys = table.dataset(), [*(one.file_key for one in counts), *gone]
    n_rows = sum(one.rows for one in counts)
    rows: Counter[str] = Counter()
    bad_vectors: Counter[str] = Counter()
    hashes = [np.zeros(0, np.int64)]
    for batch in _rows_of(dataset, keys, n_rows, ["chunk_id", schema.VECTOR]):
        file_keys = batch.column("file_key").to_pylist()
        rows.update(file_keys)
        hashes.append(_hashes(batch))
        bad = np.flatnonzero(~is_unit(batch.column(schema.VECTOR)))
        bad_vectors.update(file_keys[index] for index in bad)
    problems = [
        *_count_problems(counts, rows),
        *(f"{key[:12]}: replaced or removed, but has rows" for key in gone if rows[key]),
        *(f"{key[:12]}: {n} vectors are not finite or not of unit length"
          for key, n in bad_vectors.items()),
    ]  # fmt: skip
    if (repeated := _repeated(np.concatenate(hashes))).size:  # by far the rarest case
        some = (
            one.filter(pa.array(np.isin(_hashes(one), repeated)))
            for one in _rows_of(dataset, keys, n_rows, ["chunk_id"])
        )
        seen = Counter(found for one in some for found in one.column("chunk_id").to_pylist())
        problems += [f"chunk_id {one} stands {n} times" for one, n in seen.items() if n > 1]
    return Verification(len(counts), sum(rows.values()), tuple(problems))


def _hashes(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """(n_rows,) a hash of each ``chunk_id``, the same all through this process."""
    ids = batch.column("chunk_id").to_pylist()
    return np.fromiter(map(hash, ids), np.int64, len(ids))


def _repeated(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The values that stand more than once; sorts in place."""
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _count_problems(counts: Sequence[FileCounts], rows: Counter[str]) -> Iterator[str]:
    for one in counts:
        if not one.balances:
            yield (
                f"{one.source_uri}: {one.chunks} chunks are not {one.embedded} embedded + "
                f"{one.reused} reused + {one.dropped} dropped + {one.failed} failed"
            )
        if rows[one.file_key] != one.rows:
            yield f"{one.source_uri}: {rows[one.file_key]} rows in the table, {one.rows} counted"


def _rows_of(
    dataset: lance.LanceDataset, keys: Sequence[str], n_rows: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Rows of some files, which are expected to be ``n_rows``; by the index unless that is much of
    the table: then one pass over all of it takes less time."""
    columns, bounded = ["file_key", *columns], {"batch_size": ROWS_PER_BATCH, **READ_AHEAD}
    if n_rows >= ONE_PASS_SHARE * dataset.count_rows():
        wanted = pa.array(keys, pa.string())
        for batch in dataset.scanner(columns=columns, **bounded).to_batches():
            yield batch.filter(pc.is_in(batch.column("file_key"), value_set=wanted))
        return
    for start in range(0, len(keys), KEYS_PER_SCAN):
        some = is_in("file_key", keys[start : start + KEYS_PER_SCAN])
        yield from dataset.scanner(columns=columns, filter=some, **bounded).to_batches()


def is_unit(column: pa.FixedSizeListArray, tolerance: float = NORM_TOLERANCE) -> NDArray[np.bool_]:
    """(n_rows,) bool; a null, NaN or infinite vector is not a unit vector."""
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    flat = column.drop_null().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.reshape(-1, column.type.list_size).astype(np.float32)  # (n_valid, dim)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    unit: NDArray[np.bool_] = valid.copy()
    unit[valid] = np.abs(norms - 1.0) <= tolerance  # False for NaN and inf
    return unit
