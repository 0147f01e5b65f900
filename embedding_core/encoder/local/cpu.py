"""How a process computes on the CPU: batches side by side, with memory that it keeps.

A batch shared by all cores makes every operation wait for the slowest of them: a sixth of the time
on two quiet cores, most of it where other processes want the cores too. So batches run in *lanes*,
a thread each, and no lane waits for another. Only work too small to be divided into batches is
done by a team of all cores.

OpenMP keeps a team of workers for every thread that ever computed. As soon as a process has more of
them than cores, GNU's library lets workers sleep between two operations instead of waiting awake,
which costs a small model a tenth of its speed for the rest of the process. Callers come from many
threads: whoever writes vectors through Lance is asked for them by a thread of Lance's. So all of
them compute in the same few threads.

A batch's activations are blocks of several megabytes. glibc maps and unmaps such blocks for every
operation, and the kernel fills each page with zeros when it is touched: several percent of a small
model's time.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar, TypeVarTuple

import torch

from embedding_core.encoder.local.processor import cores_allowed

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's numbers for ``mallopt``, from its malloc.h."""
LARGEST_KEPT_BYTES = 64 * 1024**2
"""Blocks up to this size are kept; larger blocks are mapped and given back as before."""
MOST_KEPT_BYTES = 256 * 1024**2
"""Free memory that the process keeps at the end of its heap."""

MOST_LANES = 8
"""Batches side by side. Python starts every operation of every lane, one at a time: it has enough
to do with so many. A machine with more cores gives each lane several."""
LEAST_LANE_TOKENS = 256
"""Fewest tokens that are worth a lane; with fewer a team of all cores is faster."""

_starting = threading.Lock()

Args = TypeVarTuple("Args")
Result = TypeVar("Result")


def compute(device: torch.device, function: Callable[[*Args], Result], *args: *Args) -> Result:
    """``function(*args)``; for a CPU in the one thread that computes.

    The work is shared among ``n_threads()``. ``function`` must not call this function: it would
    wait for itself. It should take seconds at most, since an interrupted process waits for it to
    end.
    """
    if device.type != "cpu":
        return function(*args)
    threads = n_threads()

    def shared() -> Result:
        if torch.get_num_threads() != threads:  # torch keeps a number for each thread
            torch.set_num_threads(threads)
        return function(*args)

    # No name for the future: it would keep the memory of a failed pass alive, through its error.
    return _thread().submit(shared).result()


def n_threads() -> int:
    """Threads that torch would use for the caller (``set_num_threads``), or the container's cores
    when they are fewer."""
    with _starting:  # lanes that start set the number that a new thread would take
        threads = torch.get_num_threads()
    return min(threads, cores_allowed() or sys.maxsize)


@dataclass(frozen=True, slots=True)
class Lanes:
    """Threads of a device that work side by side."""

    device: torch.device
    number: int
    threads: int
    """Threads that a lane computes with; 0 where the lanes are the caller itself."""

    @classmethod
    def of(cls, device: torch.device, n_texts: int, n_tokens: int) -> Lanes:
        """The lanes for so much work: a GPU has one, a CPU one for each core up to ``MOST_LANES``.

        The cores of a CPU are ``n_threads()``. Work that does not suffice for all lanes gets one
        with all cores.
        """
        if device.type != "cpu":
            return cls(device, 1, 0)
        threads = n_threads()
        number = min(threads, MOST_LANES)
        if n_texts < number or n_tokens < threads * LEAST_LANE_TOKENS:
            return cls(device, 1, threads)
        return cls(device, number, threads // number)

    def run(self, work: Callable[[], None]) -> None:
        """Call ``work`` once in every lane and wait for all; raises the first lane's error.

        ``work`` takes what it does from a queue that all lanes share.
        """
        if self.number == 1:
            compute(self.device, work)
            return
        pool = _lanes(self.number, self.threads)
        for lane in [pool.submit(work) for _ in range(self.number)]:
            lane.result()


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


def _thread() -> ThreadPoolExecutor:
    with _starting:  # a cache lets two threads that come together start one each
        return _started_thread()


def _lanes(number: int, threads: int) -> ThreadPoolExecutor:
    """Threads that compute with ``threads`` threads each; the same ones for every caller."""
    with _starting:
        return _started_lanes(number, threads)


@cache
def _started_thread() -> ThreadPoolExecutor:
    _forget_threads_in_children()
    return ThreadPoolExecutor(1, thread_name_prefix="embedlake-compute")


@cache
def _started_lanes(number: int, threads: int) -> ThreadPoolExecutor:
    callers_threads = torch.get_num_threads()
    _forget_threads_in_children()
    pool = ThreadPoolExecutor(number, thread_name_prefix="embedlake-lane")
    started = threading.Barrier(number + 1)

    def start() -> None:
        torch.get_num_threads()  # a new thread would take the common number at its first operation
        torch.set_num_threads(threads)
        started.wait()

    try:
        for _ in range(number):
            pool.submit(start)
        started.wait()
    except BaseException:
        started.abort()  # threads that wait for an interrupted caller would never end
        raise
    # A new thread takes the number that any thread set last: that of the lanes, until here.
    torch.set_num_threads(callers_threads)
    return pool


@cache
def _forget_threads_in_children() -> None:
    """Threads do not survive a fork: let a forked process begin its own."""
    os.register_at_fork(after_in_child=_forget_threads)


def _forget_threads() -> None:
    global _starting
    _starting = threading.Lock()  # another thread may have had the old one
    _started_thread.cache_clear()
    _started_lanes.cache_clear()
