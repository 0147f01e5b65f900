"""Batches of texts that go through the model together, by a budget of tokens, in length order.

Knows lengths and token ids, not models. Packed batches carry no padding, so the budget is the
cost; equal lengths stand next to each other because CPU attention runs them in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedding_core.encoder.stream import Ids


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts of one forward pass, laid end to end."""

    rows: npt.NDArray[np.int64]
    """(n_rows,) positions of the texts in the input."""
    lengths: npt.NDArray[np.int64]
    """(n_rows,) tokens of each text, longest first."""
    ids: npt.NDArray[np.int64]
    """(n_tokens,) token ids, text after text."""
    positions: npt.NDArray[np.int64]
    """(n_tokens,) 0-based position of each token in its text."""


def pack(lengths: Sequence[int], budget: int, padded: bool = False) -> list[npt.NDArray[np.int64]]:
    """Split texts of these lengths into batches of at most ``budget`` tokens.

    ``padded`` counts every text as long as the longest of its batch. Every text is in exactly one
    batch. A text longer than the budget is a batch by itself, the only case in which the budget
    is exceeded. Longest first, so that a lack of memory shows at once; equal lengths in input
    order.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")  # (n_texts,)
    batches, start, used = [], 0, 0
    for end, row in enumerate(order.tolist()):
        cost = lengths[order[start]] if padded and used else lengths[row]
        if used and used + cost > budget:
            batches.append(order[start:end])
            start, used, cost = end, 0, lengths[row]
        used += cost
    if start < len(order):
        batches.append(order[start:])
    return batches


def lay_out(ids: Sequence[Ids], rows: npt.NDArray[np.int64]) -> Batch:
    """The batch of these rows: their ids end to end, positions counted from each text's start."""
    chosen = [ids[row] for row in rows.tolist()]
    lengths = np.array([len(text_ids) for text_ids in chosen], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths  # (n_rows,)
    flat = np.concatenate(chosen).astype(np.int64)  # (n_tokens,)
    positions = np.arange(len(flat)) - np.repeat(starts, lengths)  # (n_tokens,)
    return Batch(rows=rows, lengths=lengths, ids=flat, positions=positions)


def positions(batch: Batch, padding: int | None) -> npt.NDArray[np.int64]:
    """(n_tokens,) positions of the tokens for the model: from 0, or from ``padding + 1``.

    RoBERTa's family counts the tokens that are not ``padding``, which is always at that position.
    """
    if padding is None:
        return batch.positions
    counted = batch.ids != padding  # (n_tokens,)
    if counted.all():
        return batch.positions + (padding + 1)
    so_far = np.cumsum(counted)
    before = (so_far - counted)[batch.positions == 0]  # (n_rows,) counted in the texts before
    return padding + np.where(counted, so_far - np.repeat(before, batch.lengths), 0)


def equal_length_runs(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours of equal length as (n_texts, length) runs, in order."""
    runs: list[tuple[int, int]] = []
    for length in lengths:
        if runs and runs[-1][1] == length:
            runs[-1] = (runs[-1][0] + 1, length)
        else:
            runs.append((1, length))
    return runs
