"""How a command is stopped: SIGTERM does what Ctrl-C does.

Both raise ``KeyboardInterrupt``, which libraries expect: they clean up and let it through. But an
exception that is raised while compiled code calls back into Python can come out as another error,
or not at all. So a signal is remembered, and code that starts more work checks for it first.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_received: list[int] = []
"""Signals that stopped this process."""


def handle_signals() -> None:
    """Make SIGTERM and SIGINT raise ``KeyboardInterrupt`` in the main thread, from now on.

    Signals that came before are forgotten.
    """
    _received.clear()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)


def exit_code() -> int:
    """The shell's exit code for a process that was stopped: 130 by Ctrl-C, 143 by SIGTERM."""
    return 128 + (_received[-1] if _received else signal.SIGINT)


def check() -> None:
    """Raise ``KeyboardInterrupt`` when a signal came that a library has swallowed."""
    if _received:
        raise KeyboardInterrupt


@contextmanager
def not_mistaken() -> Iterator[None]:
    """Turn the error that a library made of a signal back into ``KeyboardInterrupt``."""
    try:
        yield
    except Exception as error:
        if _received:
            raise KeyboardInterrupt from error
        raise


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    raise KeyboardInterrupt
