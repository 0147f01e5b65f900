"""Memory of a CPU encoder: freed blocks are kept for the next batch instead of given back.

A batch's activations are some megabytes each. glibc maps such blocks anew and unmaps them again
for every operation, and the kernel fills each page with zeros when it is touched: several percent
of a small model's time.
"""

from __future__ import annotations

import ctypes
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's numbers for ``mallopt``, from its malloc.h."""
LARGEST_KEPT_BYTES = 64 * 1024**2
"""Blocks up to this size are kept; larger ones are mapped and given back as before."""
MOST_KEPT_BYTES = 256 * 1024**2
"""Free memory that the process keeps at the end of its heap."""


@cache
def keep_freed_memory() -> bool:
    """Ask the C library, once a process, to reuse blocks; False where it has no such setting.

    A process may then hold up to ``MOST_KEPT_BYTES`` that it does not use.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    return bool(
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES) and mallopt(M_TRIM_THRESHOLD, MOST_KEPT_BYTES)
    )
