"""How a vector index must be queried: measured on the table's own vectors against exact search."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa

SAMPLE_QUERIES = 200
TOP_K = 10
SEED = 0
REFINE_FACTORS = (1, 2, 4, 10, 20, 50)
"""Candidates per result that are ranked again by their full vectors, least work first."""
READ_AHEAD: Mapping[str, int] = {"batch_readahead": 2, "io_buffer_size": 32 * 2**20}
"""For scans over all vectors: by default Lance reads as far ahead as 2 GiB go."""

ROWS_PER_BATCH = 2_048
"""Rows compared at once by exact search: 3 MiB of float32 at 384 dimensions."""
DISTANCE_TOLERANCE = 1e-5
"""Distances nearer than this count as equal: Lance and numpy add in different orders."""
ONE_SIDED_95 = 1.645

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Setting:
    """How to query an index, and what that gave on the sample."""

    nprobes: int
    """Partitions a query looks into."""
    refine_factor: int
    """Candidates per result that are ranked again by their full vectors."""
    recall: float
    """Mean recall@10 against exact search."""
    recall_low: float
    """Lower end of its one-sided 95 % interval over the sampled queries."""
    milliseconds: float
    """Median time of a query, index in memory."""

    def reaches(self, target: float) -> bool:
        """Whether the recall is at least the target, surely rather than by luck of the sample."""
        return self.recall_low >= target


class Sample:
    """Vectors of the table as queries, with the distances of their nearest rows by exact search.

    The vector itself is left out of its result. Rows at the same distance count alike, so texts
    that stand in the table many times do not look like misses.
    """

    def __init__(self, dataset: lance.LanceDataset, column: str) -> None:
        self._dataset, self._column = dataset, column
        self.queries = _some_vectors(dataset, column)  # (n_queries, dim) float32, unit norm
        self._nearest = _nearest_distances(dataset, column, self.queries)  # (n_queries, TOP_K + 1)

    def measure(self, nprobes: int, refine_factor: int) -> Setting:
        """Search for every vector of the sample with these settings."""
        recalls, seconds = np.empty(len(self.queries)), np.empty(len(self.queries))
        for number, (query, exact) in enumerate(zip(self.queries, self._nearest, strict=True)):
            started = time.perf_counter()
            found = self._distances(query, nprobes, refine_factor)
            seconds[number] = time.perf_counter() - started
            recalls[number] = _recall(exact, found)
        margin = ONE_SIDED_95 * recalls.std() / np.sqrt(len(recalls))
        mean = float(recalls.mean())
        return Setting(
            nprobes, refine_factor, mean, mean - float(margin), float(np.median(seconds)) * 1_000
        )

    def _distances(self, query: Vectors, nprobes: int, refine_factor: int) -> Vectors:
        found = self._dataset.to_table(
            columns=["_distance"],
            nearest={
                "column": self._column, "q": query, "k": TOP_K + 1, "metric": "cosine",
                "nprobes": nprobes, "refine_factor": refine_factor,
            },
        )  # fmt: skip
        distances: Vectors = found.column("_distance").to_numpy()
        return distances


def tune(sample: Sample, partitions: int, target: float) -> Setting:
    """The fastest setting measured that reaches the target; if none does, the best seen.

    For one refine factor after another the fewest partitions that do are searched; a larger factor
    is tried as long as it makes queries faster.
    """
    best = _fewest_probes(sample, partitions, REFINE_FACTORS[0], target)
    for refine_factor in REFINE_FACTORS[1:]:
        found = _fewest_probes(sample, partitions, refine_factor, target)
        if not best.reaches(target):
            best = max(best, found, key=lambda one: one.recall_low)
        elif found.milliseconds < best.milliseconds:
            best = found
        else:
            break
    return best


def _fewest_probes(sample: Sample, partitions: int, refine_factor: int, target: float) -> Setting:
    """By doubling, then by halving the gap.

    Stops early, short of the target, when twice the partitions found no more and a larger refine
    factor is still to be tried: then it is the codes that miss, not the partitions.
    """
    may_stop = refine_factor != REFINE_FACTORS[-1]
    too_few, found = 0, sample.measure(1, refine_factor)
    while not found.reaches(target):
        if found.nprobes == partitions:
            return found
        wider = sample.measure(min(2 * found.nprobes, partitions), refine_factor)
        if may_stop and wider.recall <= found.recall and not wider.reaches(target):
            return wider
        too_few, found = found.nprobes, wider
    while found.nprobes - too_few > 1:
        middle = sample.measure((found.nprobes + too_few) // 2, refine_factor)
        if middle.reaches(target):
            found = middle
        else:
            too_few = middle.nprobes
    return found


def _recall(exact: Vectors, found: Vectors) -> float:
    """Share of the exact neighbours found, the query itself left out of both."""
    n_near = np.isfinite(exact).sum() - 1
    if n_near < 1:
        return 1.0
    n_found = np.count_nonzero(found <= exact[n_near] + DISTANCE_TOLERANCE) - 1
    return float(np.clip(n_found / n_near, 0.0, 1.0))


def _some_vectors(dataset: lance.LanceDataset, column: str) -> Vectors:
    n_rows = dataset.count_rows()
    chosen = np.random.default_rng(SEED).choice(n_rows, min(SAMPLE_QUERIES, n_rows), replace=False)
    rows = dataset.take(np.sort(chosen).tolist(), columns=[column])
    return np.concatenate([_matrix(chunk) for chunk in rows.column(column).chunks])


def _nearest_distances(dataset: lance.LanceDataset, column: str, queries: Vectors) -> Vectors:
    """(n_queries, TOP_K + 1) cosine distances, ascending, inf where there are no more rows."""
    nearest = np.full((len(queries), TOP_K + 1), np.inf, np.float32)
    for batch in _batches(dataset, column):
        distances = 1.0 - queries @ batch.T  # (n_queries, n_rows)
        both = np.concatenate([nearest, distances], axis=1)
        nearest = np.partition(both, TOP_K, axis=1)[:, : TOP_K + 1]
    return np.sort(nearest, axis=1)


def _batches(dataset: lance.LanceDataset, column: str) -> Iterator[Vectors]:
    scanner = dataset.scanner(columns=[column], batch_size=ROWS_PER_BATCH, **READ_AHEAD)
    for batch in scanner.to_batches():
        yield _matrix(batch.column(0))


def _matrix(column: pa.Array) -> Vectors:
    """(n_vectors, dim) float32 of unit length, without the rows that have no vector, or, changed by
    hand, one without a direction."""
    storage = column.storage if isinstance(column, pa.ExtensionArray) else column
    flat = storage.drop_null().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.reshape(-1, storage.type.list_size).astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    good = np.isfinite(norms) & (norms > 0)
    unit: Vectors = vectors[good] / norms[good, None]
    return unit
