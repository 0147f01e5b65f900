"""Lengths are counted exactly, in bounded memory, and parts add up."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from embedding_core.runs.inputs.lengths import EXACT_BELOW, Lengths
from embedding_core.runs.inputs.tallies import MOST_GROUPS, OTHERS, Groups


def counted(lengths: list[int]) -> Lengths:
    counting = Lengths()
    for length in lengths:
        counting.add(length)
    return counting


@given(st.lists(st.integers(0, EXACT_BELOW - 1), min_size=1))
def test_percentiles_are_those_of_the_sorted_lengths(lengths: list[int]) -> None:
    summary = counted(lengths).summary()
    assert summary is not None
    ordered = sorted(lengths)
    assert summary.percentiles == {
        str(share): ordered[math.ceil(len(ordered) * share / 100) - 1] for share in (50, 90, 95, 99)
    }
    assert (summary.shortest, summary.longest) == (ordered[0], ordered[-1])
    assert summary.mean == sum(lengths) / len(lengths)
    for bar in summary.histogram:
        assert bar.count == sum(bar.shortest <= length <= bar.longest for length in lengths)
    assert sum(bar.count for bar in summary.histogram) == summary.count == len(lengths)


@given(st.lists(st.integers(0, 10**7)), st.lists(st.integers(0, 10**7)))
def test_parts_add_up_to_the_whole(first: list[int], second: list[int]) -> None:
    together = counted(first)
    together.merge(counted(second))
    assert together == counted(first + second)


@given(st.integers(EXACT_BELOW, 10**9))
def test_long_lengths_are_rounded_by_less_than_one_in_two_thousand(length: int) -> None:
    counting = counted([length])
    (rounded,) = counting.counts
    assert 0 <= length - rounded < length / 2_000
    assert (counting.longest, counting.total) == (length, length)


def test_memory_is_bounded_whatever_the_lengths() -> None:
    counting = counted([n * 7 + EXACT_BELOW for n in range(100_000)])
    assert len(counting.counts) <= 2_048 * 4  # 65,536 to 765,529 is less than four doublings


def test_no_lengths_have_no_summary() -> None:
    assert Lengths().summary() is None


def test_further_groups_are_counted_together() -> None:
    groups, more = Groups(), Groups()
    for n in range(MOST_GROUPS):
        groups.of(f"g{n}").documents += 1
    for n in range(5):
        more.of(f"other{n}").documents += 1
    groups.merge(more)
    assert groups.tallies[OTHERS].documents == 5
    assert groups.whole().documents == MOST_GROUPS + 5
