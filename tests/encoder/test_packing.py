from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

from embedding_core.encoder.local.packing import equal_length_runs, lay_out, pack, positions

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


def test_positions_count_after_padding_and_pass_over_its_number() -> None:
    """As transformers' RoBERTa counts them, text by text."""
    texts = [np.array(ids, dtype=np.int32) for ids in ([3, 7, 7, 3, 5, 7], [7, 3], [5, 5, 5])]
    batch = lay_out(texts, np.arange(3))
    assert positions(batch, None).tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 0, 1, 2]
    assert positions(batch, 1).tolist() == [2, 3, 4, 5, 6, 7, 2, 3, 2, 3, 4]
    assert positions(batch, -1).tolist() == positions(batch, None).tolist()
    for padding in (3, 5, 7):
        expected = [
            position
            for ids in texts
            for position in RobertaEmbeddings.create_position_ids_from_input_ids(
                torch.tensor(ids)[None], padding
            )[0].tolist()
        ]
        assert positions(batch, padding).tolist() == expected
