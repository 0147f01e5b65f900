"""How far the answers move: which documents come, in what order, and with what scores.

No judgement of better or worse. Users see other results, and a threshold that they set on the score
in the old space means something else in the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedding_core.quality.exact import DEPTH, Ranking
from embedding_core.quality.oldnew import OldNew

TOP_K = 10
"""First results, whose scores may have a threshold and whose ranks are compared."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
THRESHOLDS = (0.95, 0.75, 0.5, 0.25)
"""Shares of the old results that pass each threshold."""

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A score that users may have set as their limit."""

    score: float
    """Cosine similarity."""
    old_share: float
    """Share of the old first 10 results that reach it."""
    new_share: float
    """Share of the new first 10 results that reach it."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How the answers to the same queries differ."""

    overlap_10: float
    """Share of the old first 10 documents that are among the new first 10; mean over queries."""
    overlap_100: float
    same_first: float
    """Share of queries with the same first document."""
    median_rank_shift: float
    """Ranks by which a document of the old first 10 moves; one that leaves the first 100 counts
    as being at rank 101."""
    lost_share: float
    """Share of the old first 10 documents that are not among the new first 100."""
    first_scores: OldNew[tuple[float, ...]]
    """Cosine similarity of the first document: quantiles 5, 25, 50, 75 and 95 % over queries."""
    top_scores: OldNew[tuple[float, ...]]
    """Quantiles of the same for the first 10 documents together."""
    thresholds: tuple[Threshold, ...]
    """Thresholds that 95, 75, 50 and 25 % of the old first 10 results pass."""


def drift_between(old: Ranking, new: Ranking) -> Drift | None:
    """Compare two rankings of the same queries.

    A query counts when it found something in the old space. None when no query did, or none in the
    new one.
    """
    pairs = [pair for pair in zip(old.documents, new.documents, strict=True) if pair[0]]
    first, top = (OldNew(_first_scores(old, k), _first_scores(new, k)) for k in (1, TOP_K))
    if not pairs or not len(first.new):
        return None
    ranks = np.concatenate([_ranks(*pair) for pair in pairs])  # (n_documents, 2)
    return Drift(
        overlap_10=_overlap(pairs, TOP_K),
        overlap_100=_overlap(pairs, DEPTH),
        same_first=float(np.mean([before[:1] == after[:1] for before, after in pairs])),
        median_rank_shift=float(np.median(np.abs(ranks[:, 1] - ranks[:, 0]))),
        lost_share=float(np.mean(ranks[:, 1] == DEPTH)),
        first_scores=OldNew(_quantiles(first.old), _quantiles(first.new)),
        top_scores=OldNew(_quantiles(top.old), _quantiles(top.new)),
        thresholds=tuple(_threshold(share, top) for share in THRESHOLDS),
    )


def _ranks(before: list[str], after: list[str]) -> npt.NDArray[np.int64]:
    """(n_documents, 2) 0-based old and new ranks of the old first 10; ``DEPTH`` when not found."""
    ranks = {document: rank for rank, document in enumerate(after)}
    return np.array(
        [(old, ranks.get(document, DEPTH)) for old, document in enumerate(before[:TOP_K])]
    )


def _first_scores(ranking: Ranking, k: int) -> Scores:
    """Scores of the first ``k`` documents of all queries together."""
    scores = ranking.scores[:, :k]
    return scores[scores > -np.inf]


def _overlap(pairs: Sequence[tuple[list[str], list[str]]], k: int) -> float:
    shares = [len(set(before[:k]) & set(after[:k])) / len(before[:k]) for before, after in pairs]
    return float(np.mean(shares))


def _quantiles(scores: Scores) -> tuple[float, ...]:
    return tuple(np.quantile(scores, QUANTILES).tolist())


def _threshold(share: float, top: OldNew[Scores]) -> Threshold:
    score = np.quantile(top.old, 1 - share, method="lower")  # one of the scores, so that it passes
    return Threshold(
        float(score), float(np.mean(top.old >= score)), float(np.mean(top.new >= score))
    )
