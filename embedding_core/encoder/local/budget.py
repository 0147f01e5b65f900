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
"""Fewest tokens of the first budget, even when the estimate says that less fits."""
MEMORY_SHARE = 0.5
"""Share of the free memory that the estimate may use; the rest is for what it does not know."""


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
        """Call ``forward`` with the rows of batch after batch; give the rows that do not fit alone.

        A batch that runs out of memory halves the budget, and its texts are tried again in smaller
        batches.
        """
        sizes = np.asarray(lengths, dtype=np.int64)  # (n_texts,)
        # 1. Pack all texts by the budget as it is, longest first: too large a batch shows at once.
        todo, too_large = pack(lengths, self.tokens, padded), []
        while todo:
            rows, *rest = todo
            # 2. The batch fits: go on.
            if _fits(forward, rows):
                todo = rest
            # 3. A single text does not fit: no budget helps, so it is left out.
            elif len(rows) == 1:
                too_large.append(int(rows[0]))
                todo = rest
            # 4. Several texts do not fit: halve what they cost, for good, and pack what is left.
            else:
                cost = sizes[rows].max() * len(rows) if padded else sizes[rows].sum()
                self.tokens = max(1, int(cost) // 2)
                left = np.concatenate(todo)  # still longest first
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
    """The first budget: ``most`` tokens, or on a GPU what its free memory seems to hold.

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
