"""A time limit for code that nobody knows: it may loop, and it may catch every exception."""

from __future__ import annotations

import ctypes
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN_SECONDS = 1.0
"""How often code that goes on is interrupted again."""
log = logging.getLogger(__name__)


class OutOfTime(BaseException):
    """The time is over. No ``Exception``: code that catches these is stopped all the same."""


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Raise ``OutOfTime`` in the block after some seconds; ``what`` names the block in the log.

    In the main thread, where tasks run, a timer's signal interrupts everything that Python calls.
    In another thread a call that blocks outside Python is interrupted when it returns.
    """
    is_main = threading.current_thread() is threading.main_thread()
    with _by_signal(seconds, what) if is_main else _by_thread(seconds):
        yield


@contextmanager
def _by_signal(seconds: float, what: str) -> Iterator[None]:
    n_raised = 0
    is_over = False

    def interrupt(*_: object) -> None:
        nonlocal n_raised
        if is_over:
            return
        n_raised += 1
        if n_raised == 2:
            log.warning(
                "%s goes on after its time limit of %g s: it catches every exception; stop the run "
                "and correct it",
                what,
                seconds,
            )
        raise OutOfTime

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, interrupt)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    try:
        try:
            yield
        finally:
            is_over = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
        if remaining:  # somebody else's timer
            left = max(remaining - (time.monotonic() - started), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left, interval)


@contextmanager
def _by_thread(seconds: float) -> Iterator[None]:
    thread_id = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    timer = threading.Timer(seconds, raise_in, (thread_id, ctypes.py_object(OutOfTime)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        raise_in(thread_id, None)  # takes back what came too late
