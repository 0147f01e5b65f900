from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.encoder.packing import equal_length_runs, lay_out, pack

lengths_of_texts = st.lists(st.integers(1, 300), max_size=60)


@given(lengths=lengths_of_texts, budget=st.integers(1, 400))
def test_pack_any_lengths_every_text_once_within_budget(lengths: list[int], budget: int) -> None:
    batches = pack(lengths, budget)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[row] for row in batch) <= budget


@given(lengths=lengths_of_texts, budget=st.integers(1, 400))
def test_pack_padded_longest_times_texts_within_budget(lengths: list[int], budget: int) -> None:
    batches = pack(lengths, budget, padded=True)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


@given(lengths=lengths_of_texts)
def test_pack_any_lengths_longest_first_equal_lengths_in_input_order(lengths: list[int]) -> None:
    rows = [row for batch in pack(lengths, 256) for row in batch.tolist()]
    assert rows == sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


@given(lengths=lengths_of_texts)
def test_pack_consecutive_texts_fill_the_budget(lengths: list[int]) -> None:
    batches = pack(lengths, 256)
    for batch, following in itertools.pairwise(batches):
        assert sum(lengths[row] for row in batch) + lengths[following[0]] > 256


def test_lay_out_two_texts_positions_restart_at_each_text() -> None:
    ids = [np.array([7], np.int32), np.array([4, 5, 6], np.int32)]
    batch = lay_out(ids, np.array([1, 0]))
    assert batch.ids.tolist() == [4, 5, 6, 7]
    assert batch.positions.tolist() == [0, 1, 2, 0]
    assert batch.lengths.tolist() == [3, 1]


def test_equal_length_runs_neighbours_are_counted() -> None:
    assert equal_length_runs([5, 5, 3, 5]) == [(2, 5), (1, 3), (1, 5)]
    assert equal_length_runs([]) == []
