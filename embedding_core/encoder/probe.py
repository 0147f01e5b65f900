"""Which arithmetic is faster on this CPU: measured, because the name of the CPU does not say.

With bf16 matrix instructions bf16 runs 4 times as fast as fp32; without them it is slower.
"""

from __future__ import annotations

import time
from functools import lru_cache

import torch

SIDE = 768
"""Edge of the probed matrices: 0.9 GFLOP, a few milliseconds, larger than the caches' noise."""
REPEATS = 6
"""Enough that a busy neighbour cannot spoil all of them."""
BF16_MUST_WIN = 1.2
"""How much faster bf16 matrices must be: around them it costs conversions and exactness."""


def faster_cpu_dtype() -> torch.dtype:
    """bf16 or fp32, whichever multiplies matrices faster here; about 50 ms, once per process."""
    return _probe(torch.get_num_threads())


@lru_cache(maxsize=8)
def _probe(n_threads: int) -> torch.dtype:
    fp32, bf16 = _seconds(torch.float32), _seconds(torch.bfloat16)
    return torch.bfloat16 if bf16 * BF16_MUST_WIN < fp32 else torch.float32


def _seconds(dtype: torch.dtype) -> float:
    """Best of a few multiplications, after one that warms up."""
    left = torch.ones(SIDE, SIDE, dtype=dtype)
    right = torch.ones(SIDE, SIDE, dtype=dtype)
    with torch.inference_mode():
        torch.mm(left, right)
        best = float("inf")
        for _ in range(REPEATS):
            start = time.perf_counter()
            torch.mm(left, right)
            best = min(best, time.perf_counter() - start)
    return best
