"""Retrieval metrics as trec_eval and BEIR define them, with bootstrap intervals over queries.

nDCG@k: Järvelin & Kekäläinen (2002) with the linear gain of trec_eval's ``ndcg_cut``: the grade of
the document at rank r counts ``grade / log2(r + 1)``, divided by the same sum over the best order
of all judged documents. Two rankings are compared by the paired bootstrap (Efron & Tibshirani 1993;
for retrieval: Sakai 2006, doi:10.1145/1148170.1148261): queries differ far more than models do, and
the difference within a query leaves that out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

N_RESAMPLES = 2_000
"""Bootstrap samples: the ends of a 95 % interval then wobble by about 2 % of its width."""

CONFIDENCE = 0.95
"""Share of resampled means within the interval."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries and the percentile-bootstrap interval around it."""

    mean: float
    low: float
    """2.5th percentile of the resampled means."""
    high: float
    """97.5th percentile of the resampled means."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A metric of two rankings of the same queries."""

    old: Interval
    new: Interval
    difference: Interval
    """New minus old, query by query, over the same resamples."""


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Metrics of one query, each from 0 to 1."""

    ndcg_10: float
    recall_10: float
    recall_100: float
    mrr_10: float
    """Reciprocal rank of the first relevant document among the first 10, else 0."""


def score_query(ranked: Sequence[str], grades: Mapping[str, int]) -> RetrievalScores:
    """Score one ranking (best first) against graded documents.

    Grade > 0 is relevant; a document without a grade is not. There must be a relevant one. A
    document ranked more than once counts at its best rank, and its repeats take no place.
    """
    ranked = list(dict.fromkeys(ranked))
    return RetrievalScores(
        ndcg_10=ndcg(ranked, grades, 10),
        recall_10=recall(ranked, grades, 10),
        recall_100=recall(ranked, grades, 100),
        mrr_10=reciprocal_rank(ranked, grades, 10),
    )


def score_run(
    ranked: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]], seed: int = 0
) -> dict[str, Interval]:
    """Mean and 95 % interval of each metric over the queries that have a relevant document.

    A judged query without a ranking scores 0, as if nothing was found. Deterministic for a seed:
    the same resamples serve every metric. Raises ``ValueError`` when no query can be scored.
    """
    values = _values(ranked, qrels)
    picks = _resamples(values, seed)
    return {name: _interval(of_queries, picks) for name, of_queries in values.items()}


def compare_runs(
    old: Mapping[str, Sequence[str]],
    new: Mapping[str, Sequence[str]],
    qrels: Mapping[str, Mapping[str, int]],
    seed: int = 0,
) -> dict[str, Comparison]:
    """``score_run`` of both rankings, and of their difference per query.

    Equal rankings have a difference of exactly 0, and so has its interval. Raises ``ValueError``
    when no query can be scored.
    """
    before, after = _values(old, qrels), _values(new, qrels)
    picks = _resamples(before, seed)
    return {
        name: Comparison(
            _interval(before[name], picks),
            _interval(after[name], picks),
            _interval(after[name] - before[name], picks),
        )
        for name in _METRICS
    }


def has_relevant(grades: Mapping[str, int]) -> bool:
    """Whether a query counts: some document has a grade above 0."""
    return any(grade > 0 for grade in grades.values())


def ndcg(ranked: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """Discounted gain of the first ``k`` over that of the best order; grades below 0 count 0."""
    gains = [max(0, grades.get(doc_id, 0)) for doc_id in ranked[:k]]
    ideal = sorted((max(0, grade) for grade in grades.values()), reverse=True)[:k]
    return _discounted_gain(gains) / _discounted_gain(ideal)


def recall(ranked: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """Relevant documents among the first ``k`` over all relevant ones."""
    relevant = {doc_id for doc_id, grade in grades.items() if grade > 0}
    return len(relevant & set(ranked[:k])) / len(relevant)


def reciprocal_rank(ranked: Sequence[str], grades: Mapping[str, int], k: int) -> float:
    """1 / rank of the first relevant document, 0 when none is among the first ``k``."""
    for rank, doc_id in enumerate(ranked[:k], start=1):
        if grades.get(doc_id, 0) > 0:
            return 1 / rank
    return 0.0


_METRICS: dict[str, Callable[[RetrievalScores], float]] = {
    "ndcg@10": lambda score: score.ndcg_10,
    "recall@10": lambda score: score.recall_10,
    "recall@100": lambda score: score.recall_100,
    "mrr@10": lambda score: score.mrr_10,
}


def _values(
    ranked: Mapping[str, Sequence[str]], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, np.ndarray]:
    """Each metric, (n_queries,), over the queries that count, sorted by their ids."""
    scores = [
        score_query(ranked.get(query_id, ()), grades)
        for query_id, grades in sorted(qrels.items())
        if has_relevant(grades)
    ]
    if not scores:
        raise ValueError("no query has a document with a grade above 0")
    return {name: np.array([value(score) for score in scores]) for name, value in _METRICS.items()}


def _resamples(values: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    """(n_resamples, n_queries) indices of queries, drawn with replacement."""
    n_queries = len(next(iter(values.values())))
    return np.random.default_rng(seed).integers(n_queries, size=(N_RESAMPLES, n_queries))


def _discounted_gain(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _interval(values: np.ndarray, picks: np.ndarray) -> Interval:
    """``values`` (n_queries,), ``picks`` (n_resamples, n_queries) indices into it."""
    means = values[picks].mean(axis=1)  # (n_resamples,)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))
