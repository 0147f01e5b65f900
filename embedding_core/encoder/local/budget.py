"""How many tokens go through the model at once: as many as the memory holds."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedding_core.encoder.local.cpu import Lanes
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
        self.halvings = 0
        """Times that it shrank."""

    def run(
        self,
        lengths: Sequence[int],
        padded: bool,
        forward: Callable[[npt.NDArray[np.int64]], None],
        lanes: Lanes,
    ) -> list[int]:
        """Call ``forward`` with the rows of batch after batch; give the rows that do not fit alone.

        A batch that runs out of memory halves the budget, and its texts are tried again in smaller
        batches. Every lane takes the next batch when it is done with one.
        """
        batches = _Batches(self, np.asarray(lengths, dtype=np.int64), padded, lanes.number)

        def work() -> None:
            try:
                while (rows := batches.take()) is not None:
                    if not _fits(forward, rows):
                        batches.take_back(rows)
            except BaseException:
                batches.clear()  # the other lanes have nothing more to do
                raise

        try:
            lanes.run(work)
        finally:
            batches.clear()  # after an interruption the lanes end soon
        return batches.too_large


class _Batches:
    """Batches that wait for a lane, longest texts first: too large a batch shows at once."""

    def __init__(
        self, budget: TokenBudget, sizes: npt.NDArray[np.int64], padded: bool, n_lanes: int
    ) -> None:
        self.too_large: list[int] = []
        """Rows that do not fit alone."""
        self._budget = budget
        self._sizes = sizes  # (n_texts,)
        self._padded = padded
        self._lock = threading.Lock()
        tokens = even_share(int(sizes.sum()), budget.tokens, n_lanes, int(sizes.max(initial=0)))
        self._waiting = deque(pack(sizes.tolist(), tokens, padded))

    def take(self) -> npt.NDArray[np.int64] | None:
        """The rows of the next batch; None when no batch waits."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def take_back(self, rows: npt.NDArray[np.int64]) -> None:
        """Let a batch that did not fit wait again, in smaller batches."""
        with self._lock:
            # 1. A single text does not fit: no budget helps, so it is left out.
            if len(rows) == 1:
                self.too_large.append(int(rows[0]))
                return
            # 2. Several texts do not fit: halve what they cost, for good, and pack what is left.
            sizes = self._sizes[rows]
            cost = int(sizes.max()) * len(rows) if self._padded else int(sizes.sum())
            self._budget.tokens = max(1, min(self._budget.tokens, cost // 2))
            self._budget.halvings += 1
            left = np.concatenate([rows, *self._waiting])
            batches = pack(self._sizes[left].tolist(), self._budget.tokens, self._padded)
            self._waiting = deque(left[batch] for batch in batches)

    def clear(self) -> None:
        """Let no batch wait any more."""
        with self._lock:
            self._waiting.clear()


def even_share(total: int, budget: int, n_lanes: int, longest: int) -> int:
    """Tokens of a batch, ``budget`` at most, so that all lanes end at about the same time.

    A batch ends before the text that would exceed it, so it gets half a ``longest`` text more.
    """
    if n_lanes == 1:
        return budget
    n_batches = n_lanes * math.ceil(total / (n_lanes * budget))
    return min(budget, math.ceil(total / max(1, n_batches)) + longest // 2)


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
