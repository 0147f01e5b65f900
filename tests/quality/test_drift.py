"""Drift against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from embedding_core.quality import Drift, Ranking, drift_between
from embedding_core.quality.exact import DEPTH


def ranking(*queries: dict[str, float]) -> Ranking:
    scores = np.full((len(queries), DEPTH), -np.inf, np.float32)
    for row, one in zip(scores, queries, strict=True):
        row[: len(one)] = list(one.values())
    return Ranking([list(one) for one in queries], scores)


def between(old: Ranking, new: Ranking) -> Drift:
    found = drift_between(old, new)
    assert found is not None
    return found


def test_drift_of_equal_rankings_is_none_at_all() -> None:
    same = ranking({"a": 0.9, "b": 0.5}, {"c": 0.7})
    found = between(same, same)
    assert (found.overlap_10, found.overlap_100, found.same_first) == (1.0, 1.0, 1.0)
    assert (found.median_rank_shift, found.lost_share) == (0.0, 0.0)
    assert found.first_scores.old == found.first_scores.new
    assert all(one.old_share == one.new_share for one in found.thresholds)


def test_drift_counts_what_left_and_how_far_the_rest_moved() -> None:
    old = ranking(dict.fromkeys("abcd", 0.5))
    new = ranking(dict.fromkeys(["b", "a", *"uvwxyz", "1", "2", "c"], 0.5))
    found = between(old, new)
    assert found.overlap_10 == 2 / 4 and found.overlap_100 == 3 / 4
    assert found.same_first == 0.0 and found.lost_share == 1 / 4
    # a 0 -> 1, b 1 -> 0, c 2 -> 10, d 3 -> 100 (gone)
    assert found.median_rank_shift == (1 + 8) / 2


def test_drift_threshold_says_what_it_would_let_through() -> None:
    old = ranking({f"d{n}": 0.9 - n / 100 for n in range(10)})
    new = ranking({f"d{n}": 0.86 - n / 100 for n in range(10)})
    half = next(one for one in between(old, new).thresholds if one.old_share == 0.6)
    assert half.score == pytest.approx(0.85) and half.new_share == 0.2
    assert between(old, new).first_scores.old == pytest.approx((0.9,) * 5)


def test_drift_scores_are_of_the_first_ten_documents_alone() -> None:
    long = ranking({f"d{n}": 0.9 if n < 10 else 0.1 for n in range(50)})
    assert min(between(long, long).top_scores.old) == pytest.approx(0.9)


def test_drift_is_none_when_one_space_finds_nothing() -> None:
    some, none = ranking({"a": 0.5}), ranking({})
    assert drift_between(some, none) is None and drift_between(none, some) is None
    part = between(ranking({"a": 0.5}, {}), ranking({}, {"a": 0.5}))
    assert part.overlap_10 == 0.0 and part.lost_share == 1.0
