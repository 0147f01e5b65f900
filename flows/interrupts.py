"""How a command is stopped: SIGTERM does what Ctrl-C does.

Both raise ``KeyboardInterrupt``, which libraries expect: they clean up and let it through.
"""

from __future__ import annotations

import signal
from types import FrameType

_received: list[int] = []
"""Signals other than SIGINT that stopped this process."""


def treat_sigterm_as_interrupt() -> None:
    """From now on SIGTERM raises ``KeyboardInterrupt`` in the main thread."""
    signal.signal(signal.SIGTERM, _interrupt)


def exit_code() -> int:
    """The shell's exit code for a process that was stopped: 130 by Ctrl-C, 143 by SIGTERM."""
    return 128 + (_received[-1] if _received else signal.SIGINT)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    raise KeyboardInterrupt
