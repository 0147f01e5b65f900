"""How a vector index must be queried: measured on the table's own vectors against exact search."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from embedding_core.lake.scans import scan
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.vectors import directions
from embedding_core.protocols import Vectors

SAMPLE_QUERIES = 200
TOP_K = 10
SEED = 0
REFINE_FACTORS = (1, 2, 4, 10, 20, 50)
"""Candidates per result that are ranked again by their full vectors, least work first."""
ROWS_PER_BATCH = 2_048
"""Rows compared at once by exact search: 3 MiB of float32 at 384 dimensions."""
DISTANCE_TOLERANCE = 1e-5
"""Distances nearer than this count as equal: Lance and numpy add in different orders."""
ONE_SIDED_95 = 1.645


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

    A query's own row is left out of its result. Rows at the same distance count alike, so texts
    that stand in the table many times do not look like misses.
    """

    def __init__(self, snapshot: Snapshot, column: str) -> None:
        self._dataset, self._column = snapshot.dataset, column
        self.queries = _random_vectors(snapshot, column)  # (n_queries, dim) float32, unit norm
        self.nearest = _nearest_distances(snapshot, column, self.queries)  # (n_queries, TOP_K + 1)

    def measure(self, nprobes: int, refine_factor: int) -> Setting:
        """Search for every vector of the sample with these settings."""
        recalls, seconds = np.empty(len(self.queries)), np.empty(len(self.queries))
        for number, (query, exact) in enumerate(zip(self.queries, self.nearest, strict=True)):
            started = time.perf_counter()
            distances = self._distances(query, nprobes, refine_factor)
            seconds[number] = time.perf_counter() - started
            recalls[number] = recall(exact, distances)
        margin = ONE_SIDED_95 * recalls.std() / np.sqrt(len(recalls))
        mean = float(recalls.mean())
        return Setting(
            nprobes, refine_factor, mean, mean - float(margin), float(np.median(seconds)) * 1_000
        )

    def _distances(self, query: Vectors, nprobes: int, refine_factor: int) -> Vectors:
        rows = self._dataset.to_table(
            columns=["_distance"],
            nearest={
                "column": self._column, "q": query, "k": TOP_K + 1, "metric": "cosine",
                "nprobes": nprobes, "refine_factor": refine_factor,
            },
        )  # fmt: skip
        distances: Vectors = rows.column("_distance").to_numpy()
        return distances


class Measurable(Protocol):
    """What ``tune`` needs of a sample."""

    def measure(self, nprobes: int, refine_factor: int) -> Setting:
        """What these settings give."""
        ...


def tune(sample: Measurable, partitions: int, target: float) -> Setting:
    """The fastest setting measured that reaches the target recall, else the best one seen.

    Searches the fewest partitions that reach it for one refine factor after another. Goes on to a
    larger factor as long as that makes queries faster.
    """
    best = _fewest_probes(sample, partitions, REFINE_FACTORS[0], target)
    for refine_factor in REFINE_FACTORS[1:]:
        setting = _fewest_probes(sample, partitions, refine_factor, target)
        if not best.reaches(target):
            best = max(best, setting, key=lambda measured: measured.recall_low)
        elif setting.milliseconds < best.milliseconds:
            best = setting
        else:
            break
    return best


def _fewest_probes(
    sample: Measurable, partitions: int, refine_factor: int, target: float
) -> Setting:
    """The fewest partitions that reach the target with this refine factor.

    Ends short of the target when the partitions are not to blame, see step 2.
    """
    may_stop = refine_factor != REFINE_FACTORS[-1]
    too_few, setting = 0, sample.measure(1, refine_factor)
    # 1. Double the partitions until the target is reached or there are no more.
    while not setting.reaches(target):
        if setting.nprobes == partitions:
            return setting
        wider = sample.measure(min(2 * setting.nprobes, partitions), refine_factor)
        # 2. Twice the partitions gave nothing more: the codes miss rows, not the partitions. A
        #    larger refine factor helps, so stop here if one is left to try.
        if may_stop and wider.recall <= setting.recall and not wider.reaches(target):
            return wider
        too_few, setting = setting.nprobes, wider
    # 3. Halve the gap between too few partitions and enough.
    while setting.nprobes - too_few > 1:
        middle = sample.measure((setting.nprobes + too_few) // 2, refine_factor)
        if middle.reaches(target):
            setting = middle
        else:
            too_few = middle.nprobes
    return setting


def recall(exact: Vectors, distances: Vectors) -> float:
    """Share of the exact neighbours that a search gave, the query itself left out of both."""
    n_near = np.isfinite(exact).sum() - 1
    if n_near < 1:
        return 1.0
    n_hits = np.count_nonzero(distances <= exact[n_near] + DISTANCE_TOLERANCE) - 1
    return float(np.clip(n_hits / n_near, 0.0, 1.0))


def _random_vectors(snapshot: Snapshot, column: str) -> Vectors:
    n_rows = snapshot.n_rows
    chosen = np.random.default_rng(SEED).choice(n_rows, min(SAMPLE_QUERIES, n_rows), replace=False)
    rows = snapshot.dataset.take(np.sort(chosen).tolist(), columns=[column])
    return np.concatenate([directions(chunk) for chunk in rows.column(column).chunks])


def _nearest_distances(snapshot: Snapshot, column: str, queries: Vectors) -> Vectors:
    """(n_queries, TOP_K + 1) cosine distances, ascending, inf where there are no more rows."""
    nearest = np.full((len(queries), TOP_K + 1), np.inf, np.float32)
    for batch in scan(snapshot, [column], batch_rows=ROWS_PER_BATCH):
        distances = 1.0 - queries @ directions(batch.column(0)).T  # (n_queries, n_rows)
        candidates = np.concatenate([nearest, distances], axis=1)
        nearest = np.partition(candidates, TOP_K, axis=1)[:, : TOP_K + 1]
    return np.sort(nearest, axis=1)
