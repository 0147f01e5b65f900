"""One thread of a process does all of its encoders' arithmetic on the CPU.

OpenMP keeps a team of workers for every thread that ever computed. As soon as a process has more of
them than cores, GNU's library lets workers sleep between two operations instead of waiting awake,
which costs a small model a tenth of its speed for the rest of the process. Callers come from many
threads: whoever writes vectors through Lance is asked for them by a thread of Lance's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar, TypeVarTuple

import torch

Args = TypeVarTuple("Args")
Result = TypeVar("Result")


def compute(device: torch.device, function: Callable[[*Args], Result], *args: *Args) -> Result:
    """``function(*args)``, for a CPU in the one thread that computes.

    It shares its work among as many threads as torch would for the caller (``set_num_threads``).
    ``function`` must not call this again: it would wait for itself. It should take seconds at most,
    since an interrupted process waits for it to end.
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
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="embedlake-compute")


os.register_at_fork(after_in_child=_thread.cache_clear)  # threads do not survive a fork
