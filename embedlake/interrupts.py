"""How a run is stopped by a signal: SIGTERM does what Ctrl-C does.

In a command both raise ``KeyboardInterrupt``; amid a flow, Prefect makes SIGTERM its own
``TerminationSignal``. Libraries expect these: they clean up and let them through. But an exception
that is raised while compiled code calls back into Python can come out as another error, or not at
all. So a signal is remembered, whoever handles it, and code that starts more work checks first.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)

_received: list[int] = []
"""Signals that stopped this process."""


def handle_signals() -> None:
    """Make SIGTERM and SIGINT raise ``KeyboardInterrupt`` in the main thread, from now on.

    Signals that came before are forgotten.
    """
    _received.clear()
    for number in STOPPING:
        signal.signal(number, _interrupt)


def exit_code() -> int:
    """The shell's exit code for a process that was stopped: 130 by Ctrl-C, 143 by SIGTERM."""
    return 128 + (_received[-1] if _received else signal.SIGINT)


def check() -> None:
    """Stop as the signal said that came, when a library has swallowed it."""
    if _received:
        _handle_again(_received[-1])


@contextmanager
def not_mistaken() -> Iterator[None]:
    """Remember the signals that come in this context, whoever handles them.

    An error that a library made of one is turned back into what its handler raises.
    """
    with ExitStack() as remembered:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                remembered.enter_context(_remembered(number))
        try:
            yield
        except Exception:
            check()
            raise


@contextmanager
def _remembered(number: int) -> Iterator[None]:
    """Remember this signal until the context ends; then it is its handler's again."""
    handler, before = signal.getsignal(number), len(_received)
    if handler is _interrupt or not callable(handler):
        yield
        return

    def remember(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        handler(number, frame)

    signal.signal(number, remember)
    try:
        yield
    finally:
        signal.signal(number, handler)
        del _received[before:]


def _handle_again(number: int) -> None:
    """Raise what the signal's handler raises."""
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, None)
    raise KeyboardInterrupt


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    raise KeyboardInterrupt
