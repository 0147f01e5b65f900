"""Metrics against values worked out by hand, and against each other's bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.quality import compare_runs, score_run

METRICS = ["ndcg@10", "recall@10", "recall@100", "mrr@10"]


def means(ranked: dict[str, list[str]], qrels: dict[str, dict[str, int]]) -> dict[str, float]:
    return {name: interval.mean for name, interval in score_run(ranked, qrels).items()}


def test_one_graded_query_has_the_values_worked_out_by_hand() -> None:
    ranked = {"q": ["x", "b", "a", "y", "c"]}
    qrels = {"q": {"a": 3, "b": 1, "c": 0, "d": 2}}
    # found: b at rank 2, a at rank 3; best order: a (3), d (2), b (1)
    dcg = 1 / math.log2(3) + 3 / math.log2(4)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert means(ranked, qrels) == pytest.approx(
        {"ndcg@10": dcg / ideal, "recall@10": 2 / 3, "recall@100": 2 / 3, "mrr@10": 1 / 2}
    )
    assert dcg / ideal == pytest.approx(0.4475, abs=1e-4)


def test_depths_are_ten_and_a_hundred() -> None:
    ranked = {
        "q": [f"x{n}" for n in range(9)] + ["a", "b"] + [f"y{n}" for n in range(88)] + list("cd")
    }
    qrels = {"q": dict.fromkeys("abcd", 1)}
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, 5))
    assert means(ranked, qrels) == pytest.approx(
        {
            "ndcg@10": 1 / math.log2(11) / ideal,
            "recall@10": 1 / 4,
            "recall@100": 3 / 4,
            "mrr@10": 1 / 10,
        }
    )


def test_the_ideal_counts_only_ten_documents() -> None:
    docs = [f"d{n}" for n in range(30)]
    assert means({"q": docs}, {"q": dict.fromkeys(docs, 2)})["ndcg@10"] == pytest.approx(1)


def test_gain_is_linear_in_the_grade() -> None:
    # an exponential gain (2^grade - 1) would give (1 + 7/log2(3)) / (7 + 1/log2(3))
    expected = (1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3))
    assert means({"q": ["a", "b"]}, {"q": {"a": 1, "b": 3}})["ndcg@10"] == pytest.approx(expected)


def test_a_query_without_relevant_documents_is_left_out() -> None:
    qrels = {"q": {"a": 1}, "none": {"a": 0}, "negative": {"a": -1}, "empty": {}}
    ranked = {name: ["a"] for name in qrels}
    assert means(ranked, qrels) == dict.fromkeys(METRICS, 1.0)


def test_a_judged_query_without_a_ranking_counts_as_nothing_found() -> None:
    qrels = {"q": {"a": 1}, "lost": {"a": 1}}
    assert means({"q": ["a"], "unjudged": ["a"]}, qrels) == dict.fromkeys(METRICS, 0.5)


def test_grades_below_zero_count_as_not_relevant() -> None:
    assert means({"q": ["bad", "a"]}, {"q": {"a": 1, "bad": -2}}) == pytest.approx(
        {"ndcg@10": 1 / math.log2(3), "recall@10": 1, "recall@100": 1, "mrr@10": 1 / 2}
    )


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="no query"):
        score_run({}, {"q": {"a": 0}})


def test_the_interval_is_deterministic_and_has_the_width_theory_gives() -> None:
    n_queries = 400
    qrels = {str(n): {"a": 1} for n in range(n_queries)}
    ranked = {str(n): ["a"] if n % 4 else ["b"] for n in range(n_queries)}  # 3 of 4 are found
    interval = score_run(ranked, qrels)["recall@10"]
    half_width = 1.96 * math.sqrt(0.75 * 0.25 / n_queries)
    assert interval.mean == 0.75
    assert interval.low == pytest.approx(0.75 - half_width, abs=0.01)
    assert interval.high == pytest.approx(0.75 + half_width, abs=0.01)
    assert score_run(ranked, qrels)["recall@10"] == interval
    assert score_run(dict(reversed(ranked.items())), qrels)["recall@10"] == interval


def test_the_seed_chooses_the_resamples() -> None:
    qrels = {str(n): {"a": 1} for n in range(97)}
    ranked = {str(n): [f"x{k}" for k in range(n % 10)] + ["a"] for n in range(97)}
    first, second = (score_run(ranked, qrels, seed=seed)["ndcg@10"] for seed in (0, 1))
    assert first.mean == second.mean
    assert first != second


def test_a_document_found_twice_counts_once_at_its_best_rank() -> None:
    qrels = {"q": {"a": 1, "b": 1}}
    assert means({"q": ["a", "a", "x", "b"]}, qrels) == means({"q": ["a", "x", "b"]}, qrels)


def test_compared_runs_of_equal_rankings_differ_by_exactly_nothing() -> None:
    qrels = {str(n): {"a": 1, "b": 2} for n in range(50)}
    ranked = {str(n): [*"xyz"[: n % 4], "a", "b"] for n in range(50)}
    for name, one in compare_runs(ranked, ranked, qrels).items():
        assert one.old == one.new == score_run(ranked, qrels)[name]
        assert (one.difference.mean, one.difference.low, one.difference.high) == (0, 0, 0)


def test_compared_runs_pair_the_queries() -> None:
    """Queries differ by 0.9 of reciprocal rank, the runs by a little on every query."""
    qrels = {str(n): {"a": 1} for n in range(100)}
    old = {str(n): [f"x{k}" for k in range(n % 10)] + ["a"] for n in range(100)}
    new = {query: ["first", *ranked] for query, ranked in old.items()}
    one = compare_runs(old, new, qrels)["mrr@10"]
    assert one.difference.mean == pytest.approx(one.new.mean - one.old.mean)
    width, unpaired = one.difference.high - one.difference.low, one.old.high - one.old.low
    assert one.difference.high < 0 and width < unpaired
    forward = compare_runs(new, old, qrels)["mrr@10"].difference
    assert forward.mean == pytest.approx(-one.difference.mean)


DOCS = [f"d{n}" for n in range(15)]


@given(
    ranked=st.dictionaries(st.sampled_from("abc"), st.permutations(DOCS)),
    qrels=st.dictionaries(
        st.sampled_from("abc"),
        st.dictionaries(st.sampled_from(DOCS), st.integers(0, 3)).map(lambda d: {**d, "d0": 1}),
        min_size=1,
    ),
)
def test_metrics_lie_in_their_intervals_and_the_best_order_scores_one(
    ranked: dict[str, list[str]], qrels: dict[str, dict[str, int]]
) -> None:
    scores = score_run(ranked, qrels)
    assert list(scores) == METRICS
    for interval in scores.values():
        assert 0 <= interval.low <= interval.mean + 1e-12
        assert interval.mean <= interval.high + 1e-12 <= 1 + 2e-12
    best = {
        name: sorted(grades, key=grades.__getitem__, reverse=True) for name, grades in qrels.items()
    }
    assert means(best, qrels)["ndcg@10"] == pytest.approx(1)
    assert means(best, qrels)["mrr@10"] == 1
