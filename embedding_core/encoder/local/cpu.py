"""How a process computes on the CPU: in one thread, with memory that it keeps.

OpenMP keeps a team of workers for every thread that ever computed. As soon as a process has more of
them than cores, GNU's library lets workers sleep between two operations instead of waiting awake,
which costs a small model a tenth of its speed for the rest of the process. Callers come from many
threads: whoever writes vectors through Lance is asked for them by a thread of Lance's.

A batch's activations are blocks of several megabytes. glibc maps and unmaps such blocks for every
operation, and the kernel fills each page with zeros when it is touched: several percent of a small
model's time.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar, TypeVarTuple

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's numbers for ``mallopt``, from its malloc.h."""
LARGEST_KEPT_BYTES = 64 * 1024**2
"""Blocks up to this size are kept; larger blocks are mapped and given back as before."""
MOST_KEPT_BYTES = 256 * 1024**2
"""Free memory that the process keeps at the end of its heap."""

Args = TypeVarTuple("Args")
Result = TypeVar("Result")


def compute(device: torch.device, function: Callable[[*Args], Result], *args: *Args) -> Result:
    """``function(*args)``; for a CPU in the one thread that computes.

    The work is shared among as many threads as torch would use for the caller
    (``set_num_threads``). ``function`` must not call this function: it would wait for itself. It
    should take seconds at most, since an interrupted process waits for it to end.
    """
    if device.type != "cpu":
        return function(*args)
    n_threads = torch.get_num_threads()

    def shared() -> Result:
        if torch.get_num_threads() != n_threads:  # torch keeps a number for each thread
            torch.set_num_threads(n_threads)
        return function(*args)

    # No name for the future: it would keep the memory of a failed pass alive, through its error.
    return _thread().submit(shared).result()


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


@cache
def _thread() -> ThreadPoolExecutor:
    _forget_thread_in_children()
    return ThreadPoolExecutor(1, thread_name_prefix="embedlake-compute")


@cache
def _forget_thread_in_children() -> None:
    """Threads do not survive a fork: let a forked process begin its own."""
    os.register_at_fork(after_in_child=_thread.cache_clear)
