"""Processes of a step: their time, their memory, their end."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

POLL_SECONDS = 0.2

KEPT: set[int] = set()
"""Processes of the stack, which stay."""


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and all that it started."""
    for member in _family(process.pid):
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    reap()


def become_subreaper() -> None:
    """Processes whose parent ended become this one's children, so that their time is counted."""
    pr_set_child_subreaper = 36
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def reap() -> None:
    """Wait for what a step left running, a few seconds, then end it."""
    deadline = time.monotonic() + 10
    own = {child.pid for child in psutil.Process().children()} - KEPT
    while own and time.monotonic() < deadline:
        for pid in list(own):
            try:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    own.discard(pid)
            except ChildProcessError:
                own.discard(pid)
        time.sleep(0.05)
    for pid in own:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def cpu_seconds() -> float:
    """User and system time of all children that ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def watched(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """The largest memory of these processes and their children, in bytes, while in the context."""
    peak, stopped = [0], threading.Event()

    def watch() -> None:
        while not stopped.wait(POLL_SECONDS):
            family = {child.pid: child for p in processes for child in _family(p.pid)}
            peak[0] = max(peak[0], sum(map(_memory, family.values())))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stopped.set()
        thread.join()


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
