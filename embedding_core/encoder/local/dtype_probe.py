"""Which arithmetic is faster on this CPU: measured, because the name of the CPU does not say.

With bf16 matrix instructions bf16 runs 2 to 4 times as fast as fp32; without them it is slower.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import torch

SIDE = 768
"""Edge of the probed matrices: 0.9 GFLOP, a few milliseconds, larger than the caches' noise."""
TURNS = 6
"""The types take turns and the best of each counts, so that a busy neighbour meets both."""
BF16_MUST_WIN = 1.2
"""How much faster bf16 matrices must be: around them it costs conversions and exactness."""


def faster_cpu_dtype() -> torch.dtype:
    """bf16 or fp32, whichever multiplies matrices faster here; about 0.1 s, once per process."""
    return _faster_with(torch.get_num_threads())


def faster_dtype(seconds: Callable[[torch.dtype], float]) -> torch.dtype:
    """bf16 or fp32 by ``seconds``, which takes the time of one product in a type."""
    turns = [(seconds(torch.float32), seconds(torch.bfloat16)) for _ in range(TURNS)]
    fp32, bf16 = (min(times) for times in zip(*turns, strict=True))
    return torch.bfloat16 if bf16 * BF16_MUST_WIN < fp32 else torch.float32


@lru_cache(maxsize=8)
def _faster_with(n_threads: int) -> torch.dtype:
    return faster_dtype(_product_seconds)


def _product_seconds(dtype: torch.dtype) -> float:
    """Time one product, after a product that warms up."""
    left = torch.ones(SIDE, SIDE, dtype=dtype)
    right = torch.ones(SIDE, SIDE, dtype=dtype)
    with torch.inference_mode():
        torch.mm(left, right)
        start = time.perf_counter()
        torch.mm(left, right)
        return time.perf_counter() - start
