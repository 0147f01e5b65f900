"""How many tokens go through the model at once: as many as the memory holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedding_core.encoder.local.device import free_bytes, is_out_of_memory
from embedding_core.encoder.local.packing import pack

LEAST_TOKENS = 1024
"""Tried even when the estimate says that less fits."""
MEMORY_SHARE = 0.5
"""Part of the free memory that the estimate may use; the rest is for what it does not know."""


class TokenBudget:
    """Tokens of one forward pass. Shrinks when the device runs out of memory, and stays so."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def run(
        self,
        lengths: Sequence[int],
        padded: bool,
        forward: Callable[[npt.NDArray[np.int64]], None],
    ) -> list[int]:
        """Call ``forward`` with the rows of one batch after another until every text had its turn.

        When it runs out of memory the budget is halved and the same texts are tried again in
        smaller batches. Gives the rows that do not fit even alone.
        """
        sizes = np.asarray(lengths, dtype=np.int64)  # (n_texts,)
        todo, too_large = pack(lengths, self.tokens, padded), []
        while todo:
            rows, *rest = todo
            if _fits(forward, rows):
                todo = rest
            elif len(rows) == 1:
                too_large.append(int(rows[0]))
                todo = rest
            else:
                cost = sizes[rows].max() * len(rows) if padded else sizes[rows].sum()
                self.tokens = max(1, int(cost) // 2)
                left = np.concatenate(todo)  # longest first still
                todo = [left[batch] for batch in pack(sizes[left].tolist(), self.tokens, padded)]
        return too_large


def _fits(forward: Callable[[npt.NDArray[np.int64]], None], rows: npt.NDArray[np.int64]) -> bool:
    try:
        forward(rows)
        return True
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # only after this block is the failed pass's own memory free
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def first_budget(device: torch.device, most: int, config: Any, dtype: torch.dtype) -> int:
    """Tokens to begin with: ``most``, or on a GPU what its free memory seems to hold.

    ``config`` is transformers' own, of the model that is loaded.
    """
    if device.type == "cpu":
        return most
    fits = int(free_bytes(device) * MEMORY_SHARE / activation_bytes(config, dtype))
    return min(max(fits, LEAST_TOKENS), most)


def activation_bytes(config: Any, dtype: torch.dtype) -> int:
    """Memory a token takes while one layer runs, in bytes, estimated from above.

    Residual, norm in fp32, queries, keys, values and output: 16 hidden sizes; gate, up, product
    and their activation: 4 feed-forward sizes.
    """
    hidden = int(config.hidden_size)
    feed_forward = int(getattr(config, "intermediate_size", 4 * hidden))
    return (16 * hidden + 4 * feed_forward) * max(dtype.itemsize, torch.bfloat16.itemsize)
